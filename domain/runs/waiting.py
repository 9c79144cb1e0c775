"""Steps that wait for a clock. The timer is a read model of the event; the time it ends at is that of the log."""

from datetime import datetime
from uuid import UUID

from domain.kernel import Event, Json, Scheduled
from domain.plans import Step, Wait
from domain.runs.commands import EndAtDeadline, EndWait
from domain.runs.deciding import Decision, PlanFault
from domain.runs.events import StepStarted
from domain.runs.signals import scheduled_by as of_signals
from domain.runs.steered import DeadlineSet


def begin_wait(d: Decision, step: Step, wait: Wait, saw: dict[str, Json]) -> None:
    if wait.until is None:
        d.add(StepStarted(step=step.key, form="wait", delay_s=wait.s, saw=saw))
        return
    value = d.value(wait.until, "`until`")
    d.add(StepStarted(step=step.key, form="wait", until=_time(value, wait.until), saw=saw))


def _time(value: Json, expression: str) -> datetime:
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is not None:
            return at
    except (TypeError, ValueError):
        pass
    raise PlanFault(f"`until` gives no time with its zone, as 2026-11-30T08:00:00Z; the expression is: {expression}")


def scheduled_by(event: Event, run_id: UUID) -> Scheduled | None:
    """The command that an event of a run schedules; None for events that schedule nothing."""
    if isinstance(event, StepStarted) and event.form == "wait":
        return Scheduled(event.delay_s or 0.0, EndWait(run_id=run_id, step=event.step), event.until)
    if isinstance(event, DeadlineSet) and event.deadline_s is not None:
        return Scheduled(event.deadline_s, EndAtDeadline(run_id=run_id, number=event.number))
    return of_signals(event, run_id)
