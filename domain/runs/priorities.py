"""Changing the priority of a run.

What has a priority of its own in the plan keeps it. A child run gets the change of the run above, and may be changed by itself,
too: the newest change holds. Changes are numbered, because the news of one may reach a child run after the news of the next.
"""

from uuid import UUID

from domain.errors import InvalidState, NotFound
from domain.runs.commands import ChangePriority
from domain.runs.state import OVER, Run
from domain.runs.steered import PriorityCause, RunPriorityChanged


def change_priority(run: Run, command: ChangePriority) -> list[RunPriorityChanged]:
    """Nothing, for a run that has the priority, or has heard of a newer change of the run above."""
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    above = command.parent_number
    if above is not None:
        if run.status in OVER or above <= run.priority_above:
            return []
    elif run.status in OVER:
        raise InvalidState(f"the run is {run.status}: only the priority of one that goes on can be changed")
    elif command.priority == run.priority:
        return []
    executions, children = _under_way(run)
    parent_id = run.parent.run_id if above is not None and run.parent is not None else None
    cause = PriorityCause(by=command.by, reason=command.reason, on_behalf_of=command.on_behalf_of, parent_id=parent_id)
    return [
        RunPriorityChanged(
            number=run.priorities + 1, priority=command.priority, before=run.priority, cause=cause, parent_number=above,
            executions=executions, runs=children,
        )
    ]  # fmt: skip


def _under_way(run: Run) -> tuple[tuple[UUID, ...], tuple[UUID, ...]]:
    """Agent runs and child runs without an outcome, of the steps that have the priority of the run."""
    found = [run.executions(key) for key, step in run.graph.steps.items() if step.priority is None]
    return tuple(id for ids, _ in found for id in ids), tuple(id for _, ids in found for id in ids)
