"""Compensation across runs: a child run is an effect of its parent, which the child takes back when its turn comes.

So effects go back in reverse order over all runs: what the parent did after a child, then the child, then what was before. Only
parents that may take effects back by a rule note their children.
"""

from application.engine.sagas.reactions import Reaction, ReactionCause
from domain import compensations, runs
from domain.compensations import ExpectCall, RecordCompensation, RecordEffect, compensation_id_of
from domain.failures import Failure
from domain.runs import part_key

CHILD = "run"
"""Stands for the tool of an effect that is a child run."""


def on_part_scheduled(event: runs.PartScheduled, cause: ReactionCause) -> list[Reaction]:
    if event.child_id is None or not event.compensable:
        return []
    return [ExpectCall(run_id=cause.root_id, invocation_id=event.child_id)]


def on_run_ended(event: runs.RunCompleted | runs.RunFailed | runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    parent = event.parent
    if parent is None or not parent.compensable or parent.part is None:
        return []
    key = part_key(parent.step, parent.part)
    return [
        RecordEffect(
            run_id=parent.run_id, invocation_id=cause.stream_id, key=key, tool=CHILD, compensated_by=CHILD, run=True
        )
    ]  # fmt: skip


def on_compensation_ended(event: compensations.CompensationEnded, cause: ReactionCause) -> list[Reaction]:
    if event.parent_id is None:
        return []
    error = None
    if event.status != "compensated":
        message = f"{event.compensated} of {event.effects} effects of the child run {cause.root_id} were taken back"
        error = Failure(type="ChildNotCompensated", message=message)
    child_id = cause.root_id
    return [
        RecordCompensation(
            run_id=event.parent_id, invocation_id=child_id, compensation_id=compensation_id_of(child_id), error=error
        )
    ]  # fmt: skip
