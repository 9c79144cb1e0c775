"""Signals to the agents of a run. The run decides who receives each one: a signal is received once, whenever agents begin to wait.

A signal that nobody waits for is kept, in the order in which it came. A wait that nothing was kept for stands in line.
"""

from typing import assert_never
from uuid import UUID

from domain.errors import InvalidCommand, InvalidState, NotFound
from domain.kernel import Event, Scheduled
from domain.runs.commands import AwaitSignal, ExpireSignalWait, LeaveSignals, SignalRun
from domain.runs.kept import content_of, size_of, wait_id
from domain.runs.state import OVER, Run
from domain.runs.steered import Receiver, RunSignalled, SignalAwaited, SignalReceived, SignalWaitEnded

MOST_KEPT = 1_000
"""Signals of a run that nobody has received."""
MOST_KEPT_BYTES = 2_000_000
"""Of their payloads."""


class TooManySignals(InvalidState):
    """The run keeps as many signals as it may. Nobody has received them."""

    code = "too-many-signals"


def decide_on_signals(run: Run, command: SignalRun | AwaitSignal | ExpireSignalWait | LeaveSignals) -> list[Event]:
    match command:
        case SignalRun():
            return signal(run, command)
        case AwaitSignal():
            return await_signal(run, command)
        case ExpireSignalWait():
            return expire(run, command)
        case LeaveSignals():
            return leave(run, command)
        case _:
            assert_never(command)


def signal(run: Run, command: SignalRun) -> list[Event]:
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    known = run.signals_known.get(command.signal_id)
    content = content_of(command.name, command.step, command.payload)
    if known is not None:
        if known != content:
            raise InvalidState("a signal with this id was sent before, and this one differs", pointer="/id")
        return []
    if run.status in OVER:
        raise InvalidState(f"the run is {run.status}: nobody waits for a signal")
    if command.step is not None:
        _must_be_awaited(run, command.step)
    fitting = [wait for wait in run.signal_waits.values() if wait.name == command.name and command.step in (None, wait.step)]
    first = min(fitting, key=lambda wait: wait.number, default=None)
    if first is None:
        size = sum(one.size for one in run.signals.values())
        if len(run.signals) >= MOST_KEPT or size + size_of(command.payload) > MOST_KEPT_BYTES:
            raise TooManySignals(f"nobody has received {len(run.signals):,} signals of the run, of {size:,} bytes")
    to = None if first is None else Receiver(agent_run_id=first.agent_run_id, key=first.key)
    return [
        RunSignalled(
            signal_id=command.signal_id, name=command.name, payload=command.payload, step=command.step, received_by=to,
            depth=max(run.signal_depth, command.depth),
        )
    ]  # fmt: skip


def _must_be_awaited(run: Run, step: str) -> None:
    place = run.place(step)
    if place is None:
        raise InvalidCommand(f"the run has no step '{step}'", pointer="/step")
    owner, part = place
    state = run.steps[owner]
    if state.status in ("completed", "failed", "skipped"):
        raise InvalidState(f"step '{owner}' is {state.status}: nobody waits for a signal", pointer="/step")
    if run.graph.steps[owner].has_parts and part is None:
        raise InvalidCommand(f"step '{owner}' has parts: name one of them, as '{owner}.0'", pointer="/step")


def await_signal(run: Run, command: AwaitSignal) -> list[Event]:
    """Nothing, for a run that has ended: its agents end, too."""
    if run.status != "running" or wait_id(command.agent_run_id, command.key) in run.signal_waits:
        return []
    fitting = [one for one in run.signals.values() if one.name == command.name and one.step in (None, command.step)]
    if fitting:
        kept = min(fitting, key=lambda one: one.number)
        return [
            SignalReceived(
                signal_id=kept.signal_id, agent_run_id=command.agent_run_id, key=command.key, name=command.name,
                payload=kept.payload,
            )
        ]  # fmt: skip
    return [
        SignalAwaited(
            agent_run_id=command.agent_run_id, key=command.key, step=command.step, name=command.name, timeout_s=command.timeout_s,
            reopened=command.reopened,
        )
    ]  # fmt: skip


def expire(run: Run, command: ExpireSignalWait) -> list[Event]:
    """Nothing, where a signal has come in time, and for the time of an earlier wait."""
    wait = run.signal_waits.get(wait_id(command.agent_run_id, command.key))
    if wait is None or wait.reopened != command.reopened:
        return []
    return [
        SignalWaitEnded(
            agent_run_id=command.agent_run_id, key=command.key, name=wait.name, reason="timed_out", timeout_s=wait.timeout_s
        )
    ]  # fmt: skip


def leave(run: Run, command: LeaveSignals) -> list[Event]:
    found = [(key, run.signal_waits.get(wait_id(command.agent_run_id, key))) for key in command.keys]
    return [
        SignalWaitEnded(agent_run_id=command.agent_run_id, key=key, name=wait.name, reason="agent_ended")
        for key, wait in found
        if wait is not None
    ]


def scheduled_by(event: Event, run_id: UUID) -> Scheduled | None:
    """The command that an event of a run schedules; None for events that schedule nothing."""
    if isinstance(event, SignalAwaited) and event.timeout_s is not None:
        expire_wait = ExpireSignalWait(
            run_id=run_id, agent_run_id=event.agent_run_id, key=event.key, reopened=event.reopened
        )  # fmt: skip
        return Scheduled(event.timeout_s, expire_wait)
    return None
