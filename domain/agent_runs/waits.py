"""Waits of an agent for what comes from outside, and the agent run that leaves its worker meanwhile."""

from domain.agent_runs.commands import FinishWait, StartWait, SuspendAgentRun
from domain.agent_runs.events import AgentRunRequested, AgentRunSuspended, WaitFinished, WaitStarted
from domain.agent_runs.journal import child_id_of, known
from domain.agent_runs.state import AgentRun
from domain.errors import InvalidCommand, InvalidState
from domain.kernel import Event

MOST_WAITS = 1_000
"""Waits of one agent run that are open at once."""


def start_wait(run: AgentRun, requested: AgentRunRequested, command: StartWait) -> list[Event]:
    """A wait that takes no time has ended at once."""
    if known(run.journal, command.key, command.kind) is not None:
        return []
    if len(run.waits) >= MOST_WAITS:
        raise InvalidState(f"the agent run waits for {MOST_WAITS:,} things at once, which is the most", pointer="/key")
    if command.kind == "sleep" and (command.delay_s is None) == (command.until is None):
        raise InvalidCommand("a sleep has either a number of seconds or a time", pointer="/delay_s")
    if command.until is not None and command.until.tzinfo is None:
        raise InvalidCommand("the time has no zone, as in 2026-11-30T08:00:00Z", pointer="/until")
    if command.kind == "signal" and command.name is None:
        raise InvalidCommand("a wait for a signal names the signal", pointer="/name")
    if command.kind == "approval" and command.name is None:
        raise InvalidCommand("a question for people has a name", pointer="/name")
    started = WaitStarted(
        run_id=requested.run_id, step=requested.step, attempt=command.attempt, key=command.key, kind=command.kind,
        name=command.name, delay_s=command.delay_s, until=command.until, fingerprint=command.fingerprint,
        reopened=run.reopened,
    )  # fmt: skip
    if command.kind == "sleep" and command.delay_s == 0:
        return [started, WaitFinished(key=command.key, kind="sleep")]
    return [started]


def finish_wait(run: AgentRun, command: FinishWait) -> list[Event]:
    """Nothing, for a wait that is not open."""
    if command.key not in run.waits:
        return []
    if command.reopened not in (None, run.reopened):
        return []
    if command.child_id not in (None, child_id_of(command.agent_run_id, command.key, run.reopened)):
        return []
    kind = run.journal[command.key].kind
    assert kind not in ("step", "send", "receive", "state_get", "state_set", "call")
    return [WaitFinished(key=command.key, kind=kind, result=command.result, error=command.error)]


def suspend(run: AgentRun, command: SuspendAgentRun) -> list[Event]:
    """Nothing, where something has come that the worker has not heard of: the worker goes on."""
    if run.news > command.seen:
        return []
    if not run.pending and not run.waits and not command.receives:
        raise InvalidState("the agent waits for nothing: nobody would wake it")
    return [AgentRunSuspended(attempt=command.attempt, receives=command.receives)]


def is_awaited(run: AgentRun, sender: str) -> bool:
    """Whether an open `receive` of a suspended agent run takes a message of this sender."""
    return any(receive.sender in (None, sender) for receive in run.receives)
