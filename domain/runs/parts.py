"""Steps of several executions, with the keys `<key>.0`, `<key>.1` …: a list's items, the times of a loop, a child run."""

from collections.abc import Mapping
from uuid import UUID

from domain.failures import Failure
from domain.kernel import Json
from domain.plans import MAX_DEPTH, MOST_ITEMS, AgentRef, Each, Repeat, Step
from domain.runs.deciding import Decision, PlanFault, bounded
from domain.runs.events import PartScheduled, StepFellBack, StepStarted, WorkflowRef
from domain.runs.mapping import mapped_input
from domain.runs.progress import agent_run_id_of, child_id_of, part_key

MOST_MAPPED_AT_ONCE = 500_000
"""Bytes of mapped inputs of one decision. The items beyond begin after the next outcome."""


def begin_each(d: Decision, step: Step, each: Each, saw: dict[str, Json]) -> None:
    items = d.value(each.over, "`over`")
    if not isinstance(items, list):
        raise PlanFault(f"`over` gives no list; the expression is: {each.over}")
    if len(items) > MOST_ITEMS:
        raise PlanFault(f"`over` gives {len(items):,} items; {MOST_ITEMS:,} are the most")
    bounded(items, "the list that `over` gives")
    d.add(StepStarted(step=step.key, form="each", items=tuple(items), saw=saw))
    fill(d, step, each)


def fill(d: Decision, step: Step, each: Each) -> None:
    """Begins as many items as may be under way, and ends the step after the last one. Nothing begins in a paused run."""
    progress = d.run.progress[step.key]
    while not d.run.stands and progress.begun < len(progress.items) and progress.begun - progress.ended < each.max_parallel:
        item = progress.items[progress.begun]
        is_mapped, value = mapped_input(d, step, item=item, index=progress.begun)
        schedule(d, step, progress.begun, value if is_mapped else item)
        progress = d.run.progress[step.key]
        if d.mapped > MOST_MAPPED_AT_ONCE:
            return
    if progress.ended == len(progress.items):
        results = [progress.results.get(part) for part in range(len(progress.items))]
        without = tuple(part for part in range(len(progress.items)) if part not in progress.results)
        d.complete(step, bounded(results, "the list of the results"), without=without)


def begin_repeat(d: Decision, step: Step, saw: dict[str, Json]) -> None:
    d.add(StepStarted(step=step.key, form="repeat", saw=saw))
    is_mapped, value = mapped_input(d, step, iteration=1, last=None)
    schedule(d, step, 0, value if is_mapped else passed_on(d.run.input_of(step.key)))


def passed_on(value: Json) -> Json:
    """An input that was not made for the step. The event that begins a part must hold it, beside other fields."""
    return bounded(value, "its input")


def again(d: Decision, step: Step, repeat: Repeat, part: int, result: Json) -> None:
    iteration = part + 1
    if repeat.until is not None:
        ended = d.value(repeat.until, "`until`", result=result, iteration=iteration)
        if not isinstance(ended, bool):
            raise PlanFault(f"`until` is neither true nor false; the expression is: {repeat.until}")
        if ended:
            d.complete(step, result)
            return
    if iteration == repeat.times:
        if repeat.until is not None and repeat.exhausted == "fail":
            raise PlanFault(f"`until` was false {repeat.times} times; the expression is: {repeat.until}", "LoopExhausted")
        d.complete(step, result, exhausted=repeat.until is not None)
        return
    is_mapped, value = mapped_input(d, step, iteration=iteration + 1, last=result)
    schedule(d, step, iteration, value if is_mapped else passed_on(result))


def begin_run(d: Decision, step: Step, saw: dict[str, Json]) -> None:
    d.add(StepStarted(step=step.key, form="run", saw=saw))
    is_mapped, value = mapped_input(d, step)
    schedule(d, step, 0, value if is_mapped else passed_on(d.run.input_of(step.key)))


# --- executions ---------------------------------------------------------------------------------------------------------------


def schedule(d: Decision, step: Step, part: int, value: Json) -> None:
    """Begins a part: an agent run of the step's agent, or a child run of its plan."""
    if step.run is not None:
        if step.run.plan is None:
            raise PlanFault("its workflow was not looked up when the run started", "UnknownWorkflow")
        name, version = step.run.workflow, step.run.version
        workflow = None if name is None or version is None else WorkflowRef(name=name, version=version)
        schedule_child(d, step, part, with_defaults(step.run.defaults, value), step.run.plan, step.run.versions_asked, workflow)
        return
    assert step.agent is not None
    agent_version, asked = d.run.version_of(step)
    schedule_agent(d, step, part, value, AgentRef(agent=step.agent, agent_version=agent_version), asked=asked)


def with_defaults(defaults: Mapping[str, Json], value: Json) -> Json:
    """The input of a child run. No input at all counts as an object without fields."""
    return {**defaults, **(value or {})} if defaults and (value is None or isinstance(value, dict)) else value


def schedule_agent(d: Decision, step: Step, part: int, value: Json, ref: AgentRef, *, asked: bool, fallback: int = 0) -> None:
    d.add(
        PartScheduled(
            step=step.key, part=part, agent_run_id=agent_run_id_of(d.run_id, part_key(step.key, part), fallback), agent=ref.agent,
            agent_version=ref.agent_version, version_asked=asked, input=value, timeout_s=step.timeout_s, retry=step.retry,
            priority=step.priority or d.run.priority, again=d.run.retries, fresh=d.run.fresh,
        )
    )  # fmt: skip


def child_goes_on(d: Decision, step: Step, part: int) -> None:
    """A child run that has ended goes on with what failed in it."""
    d.add(
        PartScheduled(
            step=step.key, part=part, child_id=child_id_of(d.run_id, step.key, part), again=d.run.retries, fresh=d.run.fresh,
            priority=step.priority or d.run.priority, budgets=d.run.budgets,
        )
    )  # fmt: skip


def schedule_child(
    d: Decision, step: Step, part: int, value: Json, plan: Json, asked: tuple[str, ...], workflow: WorkflowRef | None = None
) -> None:
    if d.run.depth >= MAX_DEPTH:
        raise PlanFault(f"runs are nested {MAX_DEPTH} levels deep, which are the most", "TooDeep")
    bounded({"plan": plan, "input": value, "metadata": d.run.metadata}, "the child run with its input")
    d.add(
        PartScheduled(
            step=step.key, part=part, child_id=child_id_of(d.run_id, step.key, part), plan=plan, versions_asked=asked, input=value,
            workflow=workflow, project_id=d.run.project_id, metadata=d.run.metadata,
            compensate=d.run.compensate, depth=d.run.depth + 1,
            compensable=d.run.compensable, priority=step.priority or d.run.priority, tainted=d.run.tainted,
            again=d.run.retries, fresh=d.run.fresh, budgets=d.run.budgets,
        )
    )  # fmt: skip


def fall_back(d: Decision, step: Step, part: int | None, execution_id: UUID, error: Failure) -> int:
    """Goes on to the next fallback of a step, or of a part of it: its number. 0: there is none."""
    key = step.key if part is None else part_key(step.key, part)
    number = d.run.fell_back.get(key, 0) + 1
    if number > len(step.fallbacks):
        return 0
    agent = step.fallbacks[number - 1].agent
    d.add(StepFellBack(step=step.key, part=part, execution_id=execution_id, agent=agent, number=number, error=error))
    return number
