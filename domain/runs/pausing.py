"""Pausing a run, and going on where it was; the beginning of a run that has waited for its key.

While a run is paused its outcomes are recorded, and nothing begins: no step, no part, no fallback, no end of the run. What follows
is decided at the resumption, from the state alone. So a pause keeps nothing beside, and outcomes may come in any order.

A run may be paused for two reasons at once: by itself, and with the run above it. It goes on when both are over. Pauses are
numbered, because the news of a pause may reach an agent run or a child run after the news of its end.

A queued run stands as a paused one does: what people say about its steps is recorded, and nothing begins until it has its key.
"""

from domain.errors import InvalidState, NotFound
from domain.kernel import Event
from domain.plans import Step
from domain.runs.adapting import went_on
from domain.runs.carrying_out import look_at
from domain.runs.commands import BeginRun, PauseRun, ResumeRun
from domain.runs.deciding import Decision, PlanFault
from domain.runs.outcomes import schedule_fallback, schedule_fallback_of_part
from domain.runs.parts import again, fill
from domain.runs.progress import StepProgress, agent_run_id_of, part_key
from domain.runs.state import Run
from domain.runs.steered import PauseCause, RunBegun, RunPaused, RunPauseLifted, RunResumed


def pause(run: Run, command: PauseRun) -> list[Event]:
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if command.parent_number is not None:
        if run.status != "running" or command.parent_number <= max(run.paused_above, run.resumed_above):
            return []
    elif run.status != "running":
        raise InvalidState(f"the run is {run.status}; only a running one can be paused")
    elif run.pause is not None:
        if command.reason not in (None, run.pause.reason):
            raise InvalidState(f"the run was paused before, with another reason: {run.pause.reason or 'none'}")
        return []
    begins = not run.paused
    return [
        RunPaused(
            number=run.pauses + 1 if begins else run.pauses, cause=_cause(run, command), parent_number=command.parent_number,
            executions=run.under_way if begins else (), runs=run.children if begins else (),
        )
    ]  # fmt: skip


def resume(d: Decision, command: ResumeRun) -> None:
    """Adds what ends a pause. Where it was the last one, the caller adds what follows."""
    run = d.run
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if command.parent_number is not None:
        if run.status != "running" or command.parent_number <= run.resumed_above:
            return
        left, was_paused = run.pause, run.pause_above is not None
    else:
        if run.status != "running":
            raise InvalidState(f"the run is {run.status}; only a paused one can be resumed")
        if run.pause is None and run.pause_above is not None:
            raise InvalidState(f"the run is paused with run {run.pause_above.parent_id}, whose step it is: resume that one")
        if run.pause is None:
            return
        left, was_paused = run.pause_above, True
    cause, number = _cause(run, command), command.parent_number
    if left is not None:
        d.add(RunPauseLifted(cause=cause, parent_number=number, left=left))
        return
    failed = None if run.queued else run.failed_meanwhile
    goes_on = was_paused and failed is None
    d.add(
        RunResumed(
            number=run.pauses, cause=cause, parent_number=number, executions=run.under_way if goes_on else (),
            runs=run.children if goes_on else (),
        )
    )  # fmt: skip
    d.failed = failed
    if goes_on and not run.queued:
        _go_on(d)


def begin(d: Decision, command: BeginRun) -> None:
    """Adds the beginning of a run that has waited for its key. The caller adds what follows. Where the run is paused by now, it has
    the key, and begins at its resumption."""
    run = d.run
    if run.status != "running" or not run.queued or command.turn != run.turn or run.concurrency is None:
        return
    d.add(RunBegun(key=run.concurrency.key))
    if d.run.paused:
        return
    d.failed = run.failed_meanwhile
    if d.failed is None:
        _go_on(d)


def _cause(run: Run, command: PauseRun | ResumeRun) -> PauseCause:
    parent_id = run.parent.run_id if command.parent_number is not None and run.parent is not None else None
    return PauseCause(by=command.by, reason=command.reason, on_behalf_of=command.on_behalf_of, parent_id=parent_id)


def _go_on(d: Decision) -> None:
    """Begins what would have begun meanwhile, in the order of the plan."""
    for key, step in d.run.graph.steps.items():
        if d.failed is not None:
            return
        status = d.run.steps[key].status
        if status == "pending" and (step.gather is not None or key not in d.run.waiting):
            look_at(d, step)
        elif status == "scheduled":
            try:
                _go_on_with(d, step, d.run.progress.get(key))
            except PlanFault as fault:
                d.fail(step, fault.failure)


def _go_on_with(d: Decision, step: Step, progress: StepProgress | None) -> None:
    """A step under way: its next fallback, its next part."""
    key = step.key
    if progress is None:
        number = d.run.fell_back.get(key, 0)
        if number and d.run.steps[key].agent_run_id != agent_run_id_of(d.run_id, key, number):
            schedule_fallback(d, step, number)
        return
    for part, one in sorted(progress.open.items()):
        name = part_key(key, part)
        number = d.run.fell_back.get(name, 0)
        if number and one.execution_id != agent_run_id_of(d.run_id, name, number):
            schedule_fallback_of_part(d, step, part, number)
    if step.each is not None:
        fill(d, step, step.each)
    elif progress.open or not progress.begun:
        return
    elif step.repeat is not None:
        again(d, step, step.repeat, progress.begun - 1, progress.last)
    elif step.adaptive is not None:
        went_on(d, step, step.adaptive, progress.begun - 1, progress.last)
