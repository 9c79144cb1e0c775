"""Large plans: the end of a step costs its successors, not the plan. The rules are compared with a walk over all steps."""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from immutables import Map
from pydantic import ValidationError

from domain import runs
from domain.failures import Failure
from domain.kernel import Event, Json
from domain.registry import REGISTRY
from domain.runs import (
    CompleteStep,
    FailStep,
    Plan,
    Run,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStartedV1,
    StartRun,
    Step,
    StepCompleted,
    StepFailed,
    StepScheduled,
    agent_run_id_of,
)

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
BROKEN = Failure(type="ValueError", message="broken")
OVER = ("completed", "failed")
FEW, MANY = 10, 900
ROOM = 20 * 1024
"""Bytes of what one decision makes."""


def start(plan: Plan, asked: tuple[str, ...] = ()) -> StartRun:
    return StartRun(run_id=RUN, project_id=RUN, plan=plan, versions_asked=asked)


def done(step: str, result: Json = None) -> CompleteStep:
    return CompleteStep(run_id=RUN, step=step, agent_run_id=agent_run_id_of(RUN, step), result=result)


def failed(step: str) -> FailStep:
    return FailStep(run_id=RUN, step=step, agent_run_id=agent_run_id_of(RUN, step), error=BROKEN)


def after(run: Run, events: list[Event]) -> Run:
    for event in events:
        run = runs.evolve(run, event)  # type: ignore[arg-type]  # only this slice's events are made here
    return run


def walked(run: Run, first: Event) -> list[tuple[str, str | None]]:
    """Topics and steps of the first event and of all that follows: the rules as a walk over the whole plan at each event."""
    events = [first]
    run = after(run, events)
    assert run.plan is not None
    while True:
        broken = [e for e in events if isinstance(e, StepFailed) and not e.tolerated]
        if broken:
            return [*map(told, events), ("run.failed", broken[0].step)]
        ready = [
            step
            for step in run.plan.steps
            if run.steps[step.key].status == "pending" and all(run.steps[key].status in OVER for key in step.after)
        ]
        if not ready:
            break
        following: list[Event] = [next_of(run, step) for step in ready]
        run, events = after(run, following), [*events, *following]
    if not all(step.status in OVER for step in run.steps.values()):
        return list(map(told, events))
    if all(step.status == "failed" for step in run.steps.values()):
        return [*map(told, events), ("run.failed", [e for e in events if isinstance(e, StepFailed)][-1].step)]
    return [*map(told, events), ("run.completed", None)]


def next_of(run: Run, step: Step) -> Event:
    if step.after and all(run.steps[key].status == "failed" for key in step.after):
        return StepFailed(step=step.key, agent_run_id=None, error=BROKEN, tolerated=step.on_failure == "continue")
    return StepScheduled(step=step.key, agent=step.agent, agent_version=None, agent_run_id=agent_run_id_of(RUN, step.key))


def told(event: Event) -> tuple[str, str | None]:
    return event.TOPIC, getattr(event, "step", None)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans without a cycle. Their steps stand in any order, and may name a step before them twice."""
    steps = []
    for number in range(draw(st.integers(1, 8))):
        before = tuple(f"s{earlier}" for earlier in range(number) if draw(st.booleans()))
        tolerated = draw(st.sampled_from(["fail", "continue", "continue"]))
        steps.append(Step(key=f"s{number}", agent="x", after=before * draw(st.integers(1, 2)), on_failure=tolerated))
    return Plan(steps=tuple(draw(st.permutations(steps))))


@settings(max_examples=200)
@for_all(plans(), st.randoms(use_true_random=False))
def test_decisions_are_those_of_a_walk_over_the_whole_plan(plan: Plan, random: Any) -> None:
    run = Run()
    decided = runs.decide(run, start(plan))
    while True:
        assert list(map(told, decided)) == walked(run, decided[0])
        run = after(run, decided)
        waits = {step.key: len({key for key in step.after if run.steps[key].status not in OVER}) for step in plan.steps}
        assert dict(run.waiting) == {key: number for key, number in waits.items() if number}
        assert run.ended == len([step for step in run.steps.values() if step.status in OVER])
        if run.status != "running":
            break
        key = random.choice([step.key for step in plan.steps if run.steps[step.key].status == "scheduled"])
        decided = runs.decide(run, failed(key) if random.random() < 0.3 else done(key))
    missing = tuple(step.key for step in plan.steps if run.steps[step.key].status == "failed")
    end = decided[-1]
    if isinstance(end, RunCompleted):
        assert (end.missing, end.degraded) == (missing, bool(missing))
    else:
        assert isinstance(end, RunFailed) and set(end.abandoned) == set(run.under_way)


def chain(size: int) -> Plan:
    keys = [f"s{number}" for number in range(size)]
    return Plan(steps=tuple(Step(key=key, agent=key, after=(keys[n - 1],) if n else ()) for n, key in enumerate(keys)))


def crowd(size: int) -> Plan:
    """Steps side by side, and one after them."""
    keys = [f"s{number}" for number in range(size)]
    return Plan(steps=(*(Step(key=key, agent=key) for key in keys), Step(key="last", agent="last", after=tuple(keys))))


def under_way(plan: Plan, ended: int) -> tuple[Run, CompleteStep]:
    """A run of which some steps have ended, and the end of the next one."""
    run = after(Run(), runs.decide(Run(), start(plan)))
    for number in range(ended):
        run = after(run, runs.decide(run, done(f"s{number}")))
    return run, done(f"s{ended}")


def looks_of(work: Callable[[], object]) -> int:
    """How many lines and calls the work takes. A line in a loop counts each time."""
    number = 0

    def trace(*_: Any) -> Any:
        nonlocal number
        number += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return number


def bytes_taken(work: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        _, peak = tracemalloc.get_traced_memory()
        del kept
        return peak
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [chain, crowd])
def test_the_end_of_a_step_costs_the_same_in_a_small_and_in_a_large_plan(shape: Callable[[int], Plan]) -> None:
    looks = []
    for size, ended in ((FEW, 3), (MANY, 3), (MANY, MANY // 2)):
        run, next_end = under_way(shape(size), ended)

        def work(run: Run = run, next_end: CompleteStep = next_end) -> Run:
            return after(run, runs.decide(run, next_end))

        work()
        looks.append(looks_of(work))
        assert bytes_taken(work) < ROOM
    assert max(looks) <= 1.2 * min(looks), looks


def test_steps_agents_and_recipients_are_found_without_a_walk() -> None:
    looks = []
    for size in (FEW, MANY):
        run, _ = under_way(crowd(size), 1)
        looks.append(looks_of(lambda run=run: (run.step("last"), run.recipient("last"), run.recipient("nobody"))))  # type: ignore[misc]
    assert max(looks) <= 1.2 * min(looks)


def test_the_graph_of_a_plan_is_made_once_for_the_states_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made, graph_of = [], runs.graph_of
    monkeypatch.setattr("domain.plans.graph.graph_of", lambda *arguments: made.append(1) or graph_of(*arguments))
    run, _ = under_way(chain(FEW), 0)
    for number in range(FEW):
        run = after(run, runs.decide(run, done(f"s{number}")))
    assert (run.status, sum(made)) == ("completed", 1)
    assert after(Run(), runs.decide(Run(), start(run.plan))).graph is run.graph  # a further run of the same plan


def test_the_graph_says_what_comes_after_each_step_in_the_order_of_the_plan() -> None:
    steps = (
        Step(key="c", agent="x", after=("b", "a", "b")),
        Step(key="a", agent="x"),
        Step(key="b", agent="y", after=("a",)),
    )
    graph = runs.graph_of(steps)
    assert list(graph.steps.items()) == [("c", steps[0]), ("a", steps[1]), ("b", steps[2])]
    assert graph.places == {"c": 0, "a": 1, "b": 2}
    assert graph.after == {"a": ["c", "b"], "b": ["c"]}
    assert graph.of_agent == {"x": "c", "y": "b"}
    assert (graph.first, graph.waiting) == (["a"], Map({"c": 2, "b": 1}))
    assert graph.pending == Map(dict.fromkeys("cab", runs.StepState()))


def test_a_plan_with_its_graph_says_what_the_plan_says() -> None:
    plan, other = Plan(steps=(Step(key="a", agent="x"),)), Plan(steps=(Step(key="a", agent="x"),))
    assert list(plan.graph.steps) == ["a"]
    assert plan == other and plan.model_dump() == other.model_dump() and plan.model_dump_json() == other.model_dump_json()
    assert REGISTRY.encode(RunStarted(project_id=RUN, plan=plan)) == REGISTRY.encode(RunStarted(project_id=RUN, plan=other))


def test_versions_that_were_asked_for_are_told_with_each_step() -> None:
    plan = Plan(steps=(Step(key="a", agent="x"), Step(key="b", agent="y", after=("a",))))
    run = after(Run(), runs.decide(Run(), start(plan, asked=("b",))))
    scheduled = runs.decide(run, done("a"))[1]
    assert isinstance(scheduled, StepScheduled) and scheduled.version_asked
    assert run.steps["a"].status == "scheduled" and run.asked == {"b"}


def test_a_step_after_many_failures_names_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domain.runs.deciding.MOST_NAMED", 2)

    def why(*keys: str) -> str:
        last = Step(key="last", agent="x", after=keys, on_failure="continue")
        plan = Plan(steps=(*(Step(key=key, agent="x", on_failure="continue") for key in keys), last))
        run = after(Run(), runs.decide(Run(), start(plan)))
        events: list[Event] = []
        for key in keys:
            events = runs.decide(run, failed(key))
            run = after(run, events)
        assert isinstance(events[1], StepFailed)
        return events[1].error.message

    assert why("a", "b") == "every step before it failed: a, b"
    assert why("a", "b", "c") == "every step before it failed: a, b and 1 more"


def test_a_thousand_steps_of_one_agent_get_their_keys_without_a_search() -> None:
    looks = [looks_of(lambda size=size: runs.unique_keys(("a",) * size)) / size for size in (100, 1_000)]  # type: ignore[misc]
    assert looks[1] <= looks[0]
    assert runs.unique_keys(("a", "a-2", "a", "b", "a", "b")) == ["a", "a-2", "a-3", "b", "a-4", "b-2"]


def test_a_run_that_failed_in_a_chain_is_decided_in_rounds() -> None:
    tolerated = tuple(step.model_copy(update={"on_failure": "continue"}) for step in chain(MANY).steps)
    run = after(Run(), runs.decide(Run(), start(Plan(steps=tolerated))))
    events = runs.decide(run, failed("s0"))
    assert [getattr(event, "step", None) for event in events[:-1]] == [f"s{number}" for number in range(MANY)]
    assert isinstance(events[-1], RunFailed) and events[-1].step == f"s{MANY - 1}"
    assert StepCompleted.TOPIC not in {event.TOPIC for event in events} and isinstance(events[0], StepFailed)
    assert RunStarted.TOPIC == "run.started"


def of_steps(number: int) -> RunStarted:
    return RunStarted(project_id=RUN, plan=chain(number))


@pytest.mark.parametrize(("number", "version"), [(1, 1), (200, 1), (201, 2), (1_000, 2)])
def test_a_plan_that_older_readers_know_is_stored_as_they_know_it(number: int, version: int) -> None:
    event = of_steps(number)
    assert event.stored_version == version
    stored = REGISTRY.encode(event)
    assert REGISTRY.decode(event.TOPIC, version, stored) == event
    shape = REGISTRY.shapes()[event.TOPIC, version]
    assert shape.model_validate_json(stored).plan.model_dump() == event.plan.model_dump()  # type: ignore[attr-defined]
    if version == 2:
        with pytest.raises(ValidationError):
            RunStartedV1.model_validate_json(stored)


def test_a_plan_has_a_thousand_steps_at_most() -> None:
    with pytest.raises(ValidationError):
        chain(1_001)
