"""Retrying a run: what failed runs again, and what was finished stays. A run that has ended goes on."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from domain.errors import InvalidCommand, InvalidState, NotFound, RunIsPaused, RunOfParent
from domain.kernel import Functions, Json
from domain.plans import AgentRef, Step
from domain.runs.carrying_out import look_at
from domain.runs.commands import RetryRun, StartRun
from domain.runs.deciding import Decision, PlanFault
from domain.runs.events import RunRetried
from domain.runs.mapping import mapped_input
from domain.runs.parts import child_goes_on, fill, passed_on, schedule_agent
from domain.runs.progress import StepProgress, agent_run_id_of, child_id_of, part_key
from domain.runs.state import OVER, Run


class KeyNotTaken(InvalidState):
    """The run is not as the caller looked at it: its key was to be taken, or not. Look again."""


def retry_run(run: Run, command: RetryRun, functions: Functions) -> Decision | None:
    """The decision in which the run goes on. None: nothing is to be done."""
    if run.status == "absent":
        raise NotFound(f"there is no run {command.run_id}")
    if command.parent_id is not None:
        if run.status not in OVER:
            return None
        return _go_on(run, command, of_child(run), functions)
    if run.parent is not None:
        parent = run.parent
        raise RunOfParent(
            f"the run is a part of the step '{parent.step}' of the run {parent.run_id}, which has heard of its end: "
            "retry that step",
            run_id=parent.run_id,
        )
    if run.paused and run.status == "running":
        raise RunIsPaused("the run is paused: resume it before you retry a step of it")
    if run.queued and run.status == "running":
        raise InvalidState("the run waits for its key, and nothing of it has begun: retry a step of it when it has")
    turn = run.retries + 1 if run.concurrency is not None and run.status in OVER else None
    again = to_retry(run, command.steps)
    if command.takes_key != turn:
        raise KeyNotTaken("the run has ended, or gone on, since it was looked at")
    return _go_on(run, command, again, functions)


def retry_child(run: Run, command: StartRun, functions: Functions) -> Decision | None:
    """A parent starts a child run once more that it had started before."""
    assert command.parent is not None
    again = RetryRun(run_id=command.run_id, parent_id=command.parent.run_id, fresh=command.fresh)
    return retry_run(run, again, functions)


# --- what runs again ----------------------------------------------------------------------------------------------------------


BECAUSE_OF_OTHERS = frozenset({"condition", "upstream", "not_needed"})
"""Reasons to skip a step that may be others after a retry."""


class Again(NamedTuple):
    """The steps that a retry concerns, in the order of the plan."""

    steps: tuple[str, ...]
    """They run again: those that failed, and those that the end of the run has interrupted."""
    reset: tuple[str, ...]
    """Those after them that did not run because of them. They are looked at again."""


def to_retry(run: Run, asked: Sequence[str]) -> Again:
    """What a person's retry concerns. `asked`: failed steps; empty: all that failed. Raises InvalidState, InvalidCommand."""
    failed = _failed(run)
    if not asked:
        if not failed and not (run.status in OVER and run.ended < len(run.steps)):
            raise InvalidState(f"the run is {run.status}, and no step of it has failed: there is nothing to retry")
        return _with_reset(run, failed)
    for place, key in enumerate(asked):
        if key not in run.steps:
            raise InvalidCommand(f"the run has no step '{key}'", pointer=f"/steps/{place}")
        if key not in failed:
            status = "under way" if run.steps[key].status == "scheduled" else run.steps[key].status
            raise InvalidState(f"the step '{key}' is {status}: only failed steps run again", pointer=f"/steps/{place}")
    wanted = frozenset(asked)
    again = _with_reset(run, tuple(key for key in failed if key in wanted or run.steps[key].status == "scheduled"))
    for key in failed:
        if _ends_the_run(run, key) and key not in again.steps and key not in again.reset:
            raise InvalidState(f"the run failed at the step '{key}': it cannot go on unless that step runs again, too")
    return again


def of_child(run: Run) -> Again:
    """What the retry of a parent concerns in a child run that has ended. One that was completed only tells its end again."""
    return _with_reset(run, () if run.status == "completed" else _failed(run))


def _failed(run: Run) -> tuple[str, ...]:
    again = ("failed", "scheduled") if run.status in OVER else ("failed",)
    return tuple(key for key in run.graph.steps if run.steps[key].status in again)


def _ends_the_run(run: Run, key: str) -> bool:
    return run.status == "failed" and run.steps[key].status == "failed" and run.graph.steps[key].on_failure != "continue"


def _with_reset(run: Run, steps: tuple[str, ...]) -> Again:
    again, left = set(steps), list(steps)
    while left:
        step = run.graph.steps[left.pop()]
        before = step.after if step.gather is not None and step.gather.rest == "cancel" else ()
        for key in (*run.graph.after.get(step.key, ()), *before):
            if key not in again and _did_not_run(run, key) and not _is_not_needed(run, key, again):
                again.add(key)
                left.append(key)
    return Again(steps, tuple(key for key in run.graph.steps if key in again and key not in steps))


def _did_not_run(run: Run, key: str) -> bool:
    state = run.steps[key]
    if state.status == "skipped":
        return run.skipped.get(key) in BECAUSE_OF_OTHERS
    return state.status == "failed" and state.error is not None and state.error.kind == "upstream"


def _is_not_needed(run: Run, key: str, again: Collection[str]) -> bool:
    """Whether a step was skipped because a step that gathers results had enough, and still has."""
    steps = (run.graph.steps[later] for later in run.graph.gathered.get(key, ()))
    return any(
        step.gather is not None and step.gather.rest == "cancel" and run.steps[step.key].status == "completed"
        and step.key not in again
        for step in steps
    )  # fmt: skip


# --- the decision -------------------------------------------------------------------------------------------------------------


def _go_on(run: Run, command: RetryRun, again: Again, functions: Functions) -> Decision:
    for key in command.versions:
        if key not in again.steps or run.graph.steps[key].agent is None:
            raise InvalidCommand(f"no agent of the step '{key}' runs again", pointer=f"/versions/{key}")
    d = Decision(command.run_id, run, functions)
    parts = {key: parts_again(run.progress[key]) for key in again.steps if key in run.progress}
    d.add(
        RunRetried(
            number=run.retries + 1, reason=command.reason, was=run.status, steps=again.steps, reset=again.reset,
            fresh=command.fresh, judged=_judged(d, again), versions=command.versions, parent=run.parent,
        )
    )  # fmt: skip
    for key, step in d.run.graph.steps.items():
        if d.failed is not None:
            break
        if d.run.steps[key].status == "scheduled" and key in parts:
            _begin_parts(d, step, parts[key])
        elif d.run.steps[key].status == "pending" and (step.gather is not None or key not in d.run.waiting):
            look_at(d, step)
    return d


def _judged(d: Decision, again: Again) -> dict[str, dict[str, Json]]:
    """What steps that gather results, and do so again, make of the results that are there."""
    judged: dict[str, dict[str, Json]] = {}
    for key in (*again.steps, *again.reset):
        step = d.run.graph.steps[key]
        if step.gather is not None:
            states = {member: d.run.steps[member] for member in dict.fromkeys(step.after)}
            there = {member: state.result for member, state in states.items() if state.status == "completed"}
            judged[key] = {member: verdict for member, result in there.items() for verdict in d.judge(key, member, result)}
    return judged


def parts_again(progress: StepProgress) -> tuple[int, ...]:
    """The parts of a step that run again. Empty: all of its parts do, from the first one on."""
    return tuple(sorted({*progress.open, *(() if progress.failed is None else (progress.failed,))}))


def _begin_parts(d: Decision, step: Step, parts: Iterable[int]) -> None:
    try:
        for part in parts:
            if _is_child(step, part):
                child_goes_on(d, step, part)
            else:
                version, asked = d.run.version_of(step)
                assert step.agent is not None
                ref = AgentRef(agent=step.agent, agent_version=version)
                schedule_agent(d, step, part, _input_of(d, step, part), ref, asked=asked)
        if step.each is not None:
            fill(d, step, step.each)
    except PlanFault as fault:
        d.fail(step, fault.failure)


def _is_child(step: Step, part: int) -> bool:
    return step.run is not None or (step.adaptive is not None and part % 2 == 1)


def _input_of(d: Decision, step: Step, part: int) -> Json:
    """The input of a part that begins again. It is what it was."""
    progress = d.run.progress[step.key]
    if step.each is not None:
        is_mapped, value = mapped_input(d, step, item=progress.items[part], index=part)
        return value if is_mapped else progress.items[part]
    if step.adaptive is not None:
        results = progress.last if part == 0 or progress.only is None else {progress.only: progress.last}
        return {"input": progress.base, "round": part // 2 + 1, "results": results}
    is_mapped, value = mapped_input(d, step, iteration=part + 1, last=progress.last)
    return value if is_mapped else passed_on(d.run.input_of(step.key) if part == 0 else progress.last)


# --- what must have ended before ----------------------------------------------------------------------------------------------


def executions_again(run: Run, run_id: UUID, again: Again) -> tuple[list[UUID], list[UUID]]:
    """The agent runs and the child runs that may go on. Some may never have begun."""
    agents: list[UUID] = []
    children: list[UUID] = []
    for key in (*again.steps, *again.reset):
        step = run.graph.steps[key]
        progress = run.progress.get(key)
        if progress is None or progress.form == "wait":
            if not step.has_parts and step.agent is not None:
                agents += _fallbacks(run_id, step, key)
            continue
        parts = parts_again(progress) if key in again.steps else ()
        for part in parts or range(progress.begun):
            if _is_child(step, part):
                children.append(child_id_of(run_id, key, part))
            else:
                agents += _fallbacks(run_id, step, part_key(key, part))
    return agents, children


def _fallbacks(run_id: UUID, step: Step, key: str) -> Iterator[UUID]:
    return (agent_run_id_of(run_id, key, number) for number in range(len(step.fallbacks) + 1))
