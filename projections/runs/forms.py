"""What steps have that are more than one execution of an agent: why they ran or not, their parts, their fallbacks."""

from datetime import datetime
from typing import Any

from application.views.large import SHOWN_OF_MESSAGE
from application.views.runs import Form, PartBrief, PersonView, TriedFallback, WhyView
from domain import runs
from domain.failures import Failure
from domain.kernel import RecordedEvent
from domain.plans import DOES, FORMS
from projections.runs.tables import PartRow, Said


def form_of(planned: runs.Step) -> Form:
    said: list[Any] = [name for name in (*FORMS, *DOES) if name != "capability" and getattr(planned, name) is not None]
    return said[0] if said else "agent"


def total_of(planned: runs.Step) -> int | None:
    """How many parts a step has at most, if the plan says so."""
    if planned.repeat is not None:
        return planned.repeat.times
    return 1 if form_of(planned) == "run" else None


def said_of(event: Any) -> Said | None:
    if isinstance(event, runs.StepSkipped):
        return event.model_dump(mode="json", include={"reason", "condition", "value", "saw", "by", "person"}, exclude_none=True)
    if isinstance(event, runs.StepTakenOver):
        return None if event.reason is None else {"reason": event.reason}
    said: Said = {"saw": saw} if (saw := getattr(event, "saw", None)) else {}
    if (person := getattr(event, "person", None)) is not None:
        said["person"] = person.model_dump(mode="json")
    return said or None


def why_of(planned: runs.Step, said: Said | None) -> WhyView | None:
    """`said`: nothing of a step that ran, and whose condition named no values."""
    if said is not None and ("reason" in said or "person" in said):
        return WhyView.model_validate(said)
    if planned.when is None:
        return None
    return WhyView(condition=planned.when, value=True, saw=(said or {}).get("saw", {}))


def tried(event: runs.StepFellBack, at: datetime) -> TriedFallback:
    return TriedFallback(number=event.number, agent=event.agent, error=brief_error(event.error), at=at)


def brief_error(error: Failure) -> Failure:
    """An error in a place that has no room for much."""
    message = error.message if len(error.message) <= SHOWN_OF_MESSAGE else error.message[:SHOWN_OF_MESSAGE] + "…"
    return error.model_copy(update={"message": message, "traceback": None, "causes": ()})


def part_row(event: runs.PartScheduled, recorded: RecordedEvent, before: PartRow | None) -> PartRow:
    """A part that begins, or begins anew with another agent."""
    execution_id = event.agent_run_id if event.child_id is None else event.child_id
    assert execution_id is not None
    again = None if before is None or before.finished_at is not None else before  # what has ended begins from its first agent on
    return PartRow(
        run_id=recorded.root_id, step=event.step, number=event.part, tenant_id=recorded.tenant_id, execution_id=execution_id,
        is_run=event.child_id is not None, agent=event.agent, agent_version=event.agent_version, status="scheduled", attempt=0,
        fallback=0 if again is None else again.fallback, worker_id=None, scheduled_at=recorded.recorded_at, started_at=None,
        finished_at=None, scheduled_position=recorded.position, result_position=None,
        error_position=None if again is None else again.error_position,
    )  # fmt: skip


def began(event: runs.PartTakenOver) -> runs.PartScheduled:
    """The beginning of a part that ended in another run."""
    agent_run_id, child_id = (None, event.execution_id) if event.is_run else (event.execution_id, None)
    return runs.PartScheduled(step=event.step, part=event.part, agent_run_id=agent_run_id, child_id=child_id)


def brief_of(row: PartRow) -> PartBrief:
    return PartBrief(**fields_of(row))


def fields_of(row: PartRow) -> dict[str, Any]:
    return {
        "number": row.number, "status": row.status, "agent": row.agent, "agent_version": row.agent_version,
        "agent_run_id": None if row.is_run else row.execution_id, "run_id": row.execution_id if row.is_run else None,
        "fallback": row.fallback, "attempt": row.attempt, "worker_id": row.worker_id, "scheduled_at": row.scheduled_at,
        "started_at": row.started_at, "finished_at": row.finished_at,
        "person": None if row.person is None else PersonView.model_validate_json(row.person),
    }  # fmt: skip
