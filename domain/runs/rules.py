"""What each command brings about. Every decision about the next step is taken here."""

from collections.abc import Sequence
from typing import assert_never
from uuid import UUID

from domain.errors import AlreadyExists, InvalidState, NotFound, WorkOver
from domain.failures import Failure
from domain.kernel import Decider, Event, derive_id
from domain.plans import Step
from domain.runs.commands import CancelRun, CheckRun, CompleteStep, FailStep, RunCommand, StartRun
from domain.runs.events import RunCancelled, RunCompleted, RunFailed, RunStarted, StepCompleted, StepFailed, StepScheduled
from domain.runs.state import OVER, Run, evolve

ON_FAILURE = frozenset({"on_failure", "on_failure_or_cancel"})
ON_CANCEL = frozenset({"on_cancel", "on_failure_or_cancel"})
MOST_NAMED = 100
"""Steps that the words of a failure name."""


def agent_run_id_of(run_id: UUID, step: str) -> UUID:
    """The id of the agent run that executes a step. The id is known before the agent run exists, so that mail can wait for it."""
    return derive_id(run_id, f"step:{step}")


def decide(run: Run, command: RunCommand) -> list[Event]:
    match command:
        case StartRun():
            if run.status != "absent":
                raise AlreadyExists(f"run {command.run_id} was started before")
            started = RunStarted(
                project_id=command.project_id,
                plan=command.plan,
                input=command.input,
                metadata=command.metadata,
                versions_asked=command.versions_asked,
                priority=command.priority,
                compensate=command.compensate,
                parent=command.parent,
                workflow=command.workflow,
                origin=command.origin,
            )
            return _and_what_follows(command.run_id, run, [started])
        case CompleteStep():
            if not _awaits(run, command):
                return []
            done = StepCompleted(step=command.step, agent_run_id=command.agent_run_id, result=command.result)
            return _and_what_follows(command.run_id, run, [done])
        case FailStep():
            if not _awaits(run, command):
                return []
            return _and_what_follows(command.run_id, run, [_failed(run.step(command.step), command.agent_run_id, command.error)])
        case CancelRun():
            if run.status == "absent":
                raise NotFound(f"there is no run {command.run_id}")
            if run.status == "cancelled":
                if command.reason not in (None, run.cancel_reason):
                    raise InvalidState(f"the run was cancelled before, with another reason: {run.cancel_reason or 'none'}")
                return []
            if run.status != "running":
                raise InvalidState(f"the run is {run.status}; only a running one can be cancelled")
            compensate = run.compensate in ON_CANCEL if command.compensate is None else command.compensate
            return [RunCancelled(reason=command.reason, abandoned=run.under_way, compensate=compensate)]
        case CheckRun():
            if run.status in OVER:
                raise WorkOver(f"the run is {run.status}")
            return []
        case _:
            assert_never(command)


def _awaits(run: Run, command: CompleteStep | FailStep) -> bool:
    """False for an outcome that comes twice, or after the run ended."""
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    step = run.steps.get(command.step)
    return run.status == "running" and step is not None and step.status == "scheduled"


def _failed(step: Step, agent_run_id: UUID | None, error: Failure) -> StepFailed:
    return StepFailed(step=step.key, agent_run_id=agent_run_id, error=error, tolerated=step.on_failure == "continue")


def _and_what_follows(run_id: UUID, run: Run, events: list[Event]) -> list[Event]:
    """Adds the events that follow from the given ones: steps to schedule, steps that cannot run any more, the end of the run."""
    for event in events:
        run = evolve(run, event)  # type: ignore[arg-type]  # only this slice's events are made here
    newest: Sequence[Event] = events
    while True:
        intolerable = next((e for e in newest if isinstance(e, StepFailed) and not e.tolerated), None)
        if intolerable is not None:
            return [*events, _failure_of(run, intolerable, run.under_way)]
        newest = following = [_schedule_or_give_up(run_id, run, run.step(key)) for key in _ready(run, newest)]
        if not following:
            break
        for next_event in following:
            run = evolve(run, next_event)
        events = [*events, *following]
    if run.ended == len(run.steps):
        return [*events, _end(run, events)]
    return events


def _failure_of(run: Run, failed: StepFailed, abandoned: tuple[UUID, ...]) -> RunFailed:
    return RunFailed(step=failed.step, error=failed.error, abandoned=abandoned, compensate=run.compensate in ON_FAILURE)


def _ready(run: Run, newest: Sequence[Event]) -> list[str]:
    """The steps that wait for nothing any more since the newest events, in the order of the plan."""
    if isinstance(newest[0], RunStarted):
        return list(run.graph.first)
    graph = run.graph
    ended = [event.step for event in newest if isinstance(event, StepCompleted | StepFailed)]
    later = {key for step in ended for key in graph.after.get(step, ()) if key not in run.waiting}
    return sorted(later, key=graph.places.__getitem__)


def _schedule_or_give_up(run_id: UUID, run: Run, step: Step) -> StepScheduled | StepFailed:
    if step.after and all(run.steps[key].status == "failed" for key in step.after):
        why = f"every step before it failed: {_named(step.after)}"
        return _failed(step, None, Failure(type="UpstreamFailed", message=why, kind="upstream"))
    return StepScheduled(
        step=step.key,
        agent=step.agent,
        agent_version=step.agent_version,
        agent_run_id=agent_run_id_of(run_id, step.key),
        timeout_s=step.timeout_s,
        retry=step.retry,
        version_asked=bool(run.versions_asked) and step.key in run.asked,
        priority=run.priority,
    )


def _named(keys: Sequence[str]) -> str:
    more = len(keys) - MOST_NAMED
    return ", ".join(keys[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _end(run: Run, events: list[Event]) -> Event:
    missing = run.missing
    if len(missing) == len(run.steps):
        last = next(e for e in reversed(events) if isinstance(e, StepFailed))
        return _failure_of(run, last, ())
    return RunCompleted(degraded=bool(missing), missing=missing)


DECIDER: Decider[Run] = Decider("runs", Run, decide, evolve)
