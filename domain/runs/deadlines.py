"""The deadline of a run: the time by which it must have ended, counted from the event that sets it."""

from domain.errors import InvalidState, NotFound
from domain.failures import Failure
from domain.kernel import Event
from domain.runs.commands import EndAtDeadline, SetDeadline
from domain.runs.state import OVER, Run
from domain.runs.steered import DeadlineSet


def set_deadline(run: Run, command: SetDeadline) -> list[Event]:
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if run.status in OVER:
        if command.by_start:  # it needed no time at all
            return []
        raise InvalidState(f"the run is {run.status}: only one that goes on has a deadline")
    if command.deadline_s is None and run.deadline_s is None:
        if command.by_start:
            return []
        raise InvalidState("the run has no deadline")
    return [DeadlineSet(number=run.deadlines + 1, deadline_s=command.deadline_s, reason=command.reason)]


def is_reached(run: Run, command: EndAtDeadline) -> bool:
    """Whether the deadline is the newest one of a run that goes on."""
    return run.status == "running" and run.deadline_s is not None and command.number == run.deadlines


def missed(run: Run) -> tuple[str, Failure]:
    """The first step that has not ended, and the failure of the run. While a run is paused or queued, people may have ended all."""
    open_ = (key for key in run.graph.steps if run.steps[key].status in ("pending", "scheduled"))
    step = next(open_, run.graph.last[-1])
    why = f"the run did not end within the {run.deadline_s:g} s that it had"
    return step, Failure(type="RunDeadline", message=why, kind="timeout")
