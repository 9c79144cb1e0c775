"""What a person says about a step that has not ended: that it does not run, or how it ends. What was under way is cancelled."""

from typing import Any

from domain.errors import InvalidState, NotFound
from domain.failures import Failure
from domain.plans import Step
from domain.runs.commands import ForceStep, SkipStep
from domain.runs.deciding import Decision, PlanFault, bounded
from domain.runs.outcomes import part_completed, part_ended_badly
from domain.runs.progress import OpenPart


def force(d: Decision, command: SkipStep | ForceStep) -> None:
    """Adds the end of a step, or of a part. The caller adds what follows."""
    run = d.run
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if (place := run.place(command.step)) is None:
        raise NotFound(f"run {command.run_id} has no step '{command.step}'")
    if run.status != "running":
        raise InvalidState(f"the run is {run.status}; only steps of a running one can be skipped or forced")
    if isinstance(command, ForceStep) and command.error is None:
        try:
            bounded(command.result, "the result")
        except PlanFault as fault:
            raise InvalidState(fault.failure.message, pointer="/result") from None
    key, part = place
    step = run.graph.steps[key]
    if part is None:
        _end_step(d, step, command)
    else:
        _end_part(d, step, part, command)


def _end_step(d: Decision, step: Step, command: SkipStep | ForceStep) -> None:
    status = d.run.steps[step.key].status
    if status not in ("pending", "scheduled"):
        raise InvalidState(f"step '{step.key}' is {status}; only one that has not ended can be skipped or forced")
    if isinstance(command, SkipStep):
        d.skip(step.key, reason="person", person=command.person)
    elif command.error is None:
        d.complete(step, command.result, person=command.person)
    else:
        d.fail(step, command.error, person=command.person)


def _end_part(d: Decision, step: Step, part: int, command: SkipStep | ForceStep) -> None:
    progress = d.run.progress.get(step.key)
    one = None if progress is None else progress.open.get(part)
    if one is None:
        raise InvalidState(f"'{command.step}' is not under way; only such a part can be skipped or forced")
    if isinstance(command, SkipStep):
        if step.each is None:
            raise InvalidState(f"'{command.step}' is no item of a list: skip the step '{step.key}', or force a result")
        error = Failure(type="Skipped", message=f"{command.person.by} skipped it: {command.person.reason}")
        part_ended_badly(d, step, part, one.execution_id, error, tolerated=True, **_told(one, command))
    elif command.error is None:
        part_completed(d, step, part, one.execution_id, command.result, **_told(one, command))
    else:
        tolerated = step.each is not None and step.each.on_failure == "continue"
        part_ended_badly(d, step, part, one.execution_id, command.error, tolerated=tolerated, **_told(one, command))


def _told(one: OpenPart, command: SkipStep | ForceStep) -> dict[str, Any]:
    return {"abandoned_runs" if one.is_run else "abandoned": (one.execution_id,), "person": command.person}
