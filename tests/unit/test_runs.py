"""Rules of runs: the order of steps, and the end of a run."""

from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import runs
from domain.errors import AlreadyExists, InvalidState, NotFound
from domain.failures import Failure
from domain.runs import (
    CancelRun,
    CompleteStep,
    FailStep,
    Plan,
    RunCompleted,
    RunFailed,
    StartRun,
    Step,
    StepScheduled,
    agent_run_id_of,
)
from tests.kit import given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
PROJECT = UUID("01900000-0000-7000-8000-0000000000bb")
BROKEN = Failure(type="ValueError", message="broken")


def start(plan: Plan) -> StartRun:
    return StartRun(run_id=RUN, project_id=PROJECT, plan=plan, input={"n": 1})


def done(step: str, result: object = "ok") -> CompleteStep:
    return CompleteStep(run_id=RUN, step=step, agent_run_id=agent_run_id_of(RUN, step), result=result)


def failed(step: str) -> FailStep:
    return FailStep(run_id=RUN, step=step, agent_run_id=agent_run_id_of(RUN, step), error=BROKEN)


def started(plan: Plan):  # type: ignore[no-untyped-def]
    return given(runs.DECIDER).after(start(plan))


def test_a_sequential_run_schedules_one_step_at_a_time() -> None:
    plan = runs.sequential(("a", "b"))
    events = given(runs.DECIDER).when(start(plan)).then_topics("run.started", "run.step_scheduled")
    assert isinstance(events[1], StepScheduled)
    assert events[1].step == "a"
    events = started(plan).when(done("a")).then_topics("run.step_completed", "run.step_scheduled")
    assert events[1].step == "b"
    started(plan).after(done("a")).when(done("b")).then_topics("run.step_completed", "run.completed")


def test_the_same_agent_twice_has_two_keys() -> None:
    assert [step.key for step in runs.sequential(("a", "a", "a")).steps] == ["a", "a-2", "a-3"]


def test_a_parallel_run_schedules_its_members_at_once_and_then_the_aggregator() -> None:
    plan = runs.parallel(("a", "b"), "editor")
    given(runs.DECIDER).when(start(plan)).then_topics("run.started", "run.step_scheduled", "run.step_scheduled")
    started(plan).when(done("a")).then_topics("run.step_completed")
    events = started(plan).after(done("a")).when(done("b")).then_topics("run.step_completed", "run.step_scheduled")
    assert events[1].step == "editor"


def test_a_tolerated_failure_degrades_the_run_and_says_what_is_missing() -> None:
    plan = runs.parallel(("a", "b"), "editor")
    state = started(plan).after(failed("a"), done("b"))
    events = state.when(done("editor")).then_topics("run.step_completed", "run.completed")
    assert events[1] == RunCompleted(degraded=True, missing=("a",))


def test_an_aggregator_without_any_result_fails_and_so_does_the_run() -> None:
    plan = runs.parallel(("a", "b"), "editor")
    events = started(plan).after(failed("a")).when(failed("b")).then_topics("run.step_failed", "run.step_failed", "run.failed")
    assert events[1].error.kind == "upstream"


def test_a_failure_that_is_not_tolerated_ends_the_run_and_calls_off_the_rest() -> None:
    plan = Plan(steps=(Step(key="a", agent="a"), Step(key="b", agent="b")))
    events = started(plan).when(failed("a")).then_topics("run.step_failed", "run.failed")
    assert events[1] == RunFailed(step="a", error=BROKEN, abandoned=(agent_run_id_of(RUN, "b"),))


def test_outcomes_that_come_twice_or_too_late_change_nothing() -> None:
    plan = runs.sequential(("a", "b"))
    started(plan).after(done("a")).when(done("a")).then()
    started(plan).after(CancelRun(run_id=RUN)).when(done("a")).then()


def test_cancel() -> None:
    plan = runs.parallel(("a", "b"), "c")
    events = started(plan).when(CancelRun(run_id=RUN, reason="enough")).then_topics("run.cancelled")
    assert set(events[0].abandoned) == {agent_run_id_of(RUN, "a"), agent_run_id_of(RUN, "b")}
    cancelled = started(plan).after(CancelRun(run_id=RUN, reason="enough"))
    cancelled.when(CancelRun(run_id=RUN)).then()
    cancelled.when(CancelRun(run_id=RUN, reason="enough")).then()
    cancelled.when(CancelRun(run_id=RUN, reason="wrong input")).refused(InvalidState, "another reason: enough")
    given(runs.DECIDER).when(CancelRun(run_id=RUN)).refused(NotFound)
    finished = started(runs.sequential(("a",))).after(done("a"))
    finished.when(CancelRun(run_id=RUN)).refused(InvalidState, "completed")


def test_a_run_is_started_once() -> None:
    started(runs.sequential(("a",))).when(start(runs.sequential(("a",)))).refused(AlreadyExists)


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ([Step(key="a", agent="a"), Step(key="a", agent="b")], "same key"),
        ([Step(key="a", agent="a", after=("ghost",))], "not a step"),
        ([Step(key="a", agent="a", after=("b",)), Step(key="b", agent="b", after=("a",))], "cycle"),
        ([Step(key="a", agent="a", after=("a",))], "cycle"),
        ([], "at least 1"),
    ],
)
def test_a_plan_that_is_no_graph_is_refused(steps: list[Step], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Plan(steps=tuple(steps))


@st.composite
def graphs(draw: st.DrawFn) -> Plan:
    """Plans of up to eight steps without a cycle: a step depends on earlier steps only."""
    size = draw(st.integers(1, 8))
    steps = []
    for i in range(size):
        after = tuple(f"s{j}" for j in range(i) if draw(st.booleans()))
        steps.append(Step(key=f"s{i}", agent="x", after=after, on_failure=draw(st.sampled_from(["fail", "continue"]))))
    return Plan(steps=tuple(steps))


@for_all(graphs(), st.randoms(use_true_random=False))
def test_every_run_ends_whatever_happens_in_whatever_order(plan: Plan, random) -> None:  # type: ignore[no-untyped-def]
    state = started(plan)
    outcomes = 0
    while state.state.status == "running":
        scheduled = [key for key, step in state.state.steps.items() if step.status == "scheduled"]
        assert scheduled, "a running run always has something under way"
        key = random.choice(scheduled)
        for upstream in state.state.step(key).after:
            assert state.state.steps[upstream].status in ("completed", "failed")
        state = state.after(failed(key) if random.random() < 0.3 else done(key))
        outcomes += 1
    assert outcomes <= len(plan.steps)
    statuses = {step.status for step in state.state.steps.values()}
    if state.state.status == "completed":
        assert statuses <= {"completed", "failed"}
        assert "completed" in statuses
