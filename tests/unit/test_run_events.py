"""Runs in full: every field of every event, and the whole state after it."""

from uuid import UUID

import pytest
from immutables import Map

from domain import runs
from domain.errors import NotFound
from domain.failures import Failure, Retry
from domain.kernel import replace
from domain.runs import (
    CancelRun,
    CompleteStep,
    FailStep,
    Plan,
    Run,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    StartRun,
    Step,
    StepCompleted,
    StepFailed,
    StepScheduled,
    StepState,
    agent_run_id_of,
)
from tests.kit import fold, given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
PROJECT = UUID("01900000-0000-7000-8000-0000000000bb")
BROKEN = Failure(type="ValueError", message="broken")
RETRY = Retry(max_attempts=4)
FIRST = Step(key="first", agent="writer", agent_version="7", timeout_s=30, retry=RETRY)
PLAN = Plan(steps=(FIRST, Step(key="second", agent="editor", after=("first",))))
START = StartRun(run_id=RUN, project_id=PROJECT, plan=PLAN, input={"n": 1}, metadata={"team": "red"})
AT_FIRST, AT_SECOND = agent_run_id_of(RUN, "first"), agent_run_id_of(RUN, "second")

STARTED = RunStarted(project_id=PROJECT, plan=PLAN, input={"n": 1}, metadata={"team": "red"})
SCHEDULED = StepScheduled(step="first", agent="writer", agent_version="7", agent_run_id=AT_FIRST, timeout_s=30, retry=RETRY)
COMPLETED = StepCompleted(step="first", agent_run_id=AT_FIRST, result=[1])
THEN = StepScheduled(step="second", agent="editor", agent_version=None, agent_run_id=AT_SECOND)
FAILED = StepFailed(step="first", agent_run_id=AT_FIRST, error=BROKEN, tolerated=False)

running = given(runs.DECIDER).after(START)


def independent(*keys: str) -> StartRun:
    steps = tuple(Step(key=key, agent="a", on_failure="continue") for key in keys)
    return StartRun(run_id=RUN, project_id=PROJECT, plan=Plan(steps=steps))


def fail(step: str) -> FailStep:
    return FailStep(run_id=RUN, step=step, agent_run_id=agent_run_id_of(RUN, step), error=BROKEN)


def test_what_a_run_is_told_is_in_its_events() -> None:
    given(runs.DECIDER).when(START).then(STARTED, SCHEDULED)
    done = CompleteStep(run_id=RUN, step="first", agent_run_id=AT_FIRST, result=[1])
    running.when(done).then(COMPLETED, THEN)
    last = CompleteStep(run_id=RUN, step="second", agent_run_id=AT_SECOND)
    running.after(done).when(last).then(StepCompleted(step="second", agent_run_id=AT_SECOND), RunCompleted())
    running.when(fail("first")).then(FAILED, RunFailed(step="first", error=BROKEN))
    running.when(CancelRun(run_id=RUN, reason="enough")).then(RunCancelled(reason="enough", abandoned=(AT_FIRST,)))


def test_the_state_after_each_event() -> None:
    pending, scheduled = StepState(), StepState("scheduled", AT_FIRST)
    begun = fold(runs.DECIDER, [STARTED])
    assert begun == Run(
        "running", PLAN, {"n": 1}, Map({"first": pending, "second": pending}), Map({"second": 1}), metadata=STARTED.metadata,
        project_id=STARTED.project_id,
    )  # fmt: skip
    under_way = fold(runs.DECIDER, [STARTED, SCHEDULED])
    assert under_way == replace(begun, steps=Map({"first": scheduled, "second": pending}))
    done = fold(runs.DECIDER, [STARTED, SCHEDULED, COMPLETED])
    over = Map({"first": StepState("completed", AT_FIRST, [1]), "second": pending})
    assert done == replace(begun, steps=over, waiting=Map(), ended=1)
    failed = fold(runs.DECIDER, [STARTED, SCHEDULED, FAILED])
    assert failed == replace(done, steps=Map({"first": StepState("failed", AT_FIRST, error=BROKEN), "second": pending}))
    assert runs.evolve(done, RunCompleted()) == replace(done, status="completed")
    assert runs.evolve(failed, RunFailed(step="first", error=BROKEN)) == replace(failed, status="failed")
    assert runs.evolve(done, RunCancelled(reason="why")) == replace(done, status="cancelled", cancel_reason="why")


def test_an_outcome_counts_for_a_step_that_is_under_way() -> None:
    for outcome in (CompleteStep(run_id=RUN, step="first", agent_run_id=AT_FIRST), fail("first")):
        given(runs.DECIDER).when(outcome).refused(NotFound)
    for step in ("second", "ghost"):
        running.when(CompleteStep(run_id=RUN, step=step, agent_run_id=AT_SECOND)).then()
        running.when(fail(step)).then()


def test_steps_after_nothing_but_failures_fail_with_them() -> None:
    steps = [Step(key=key, agent=key, on_failure="continue") for key in ("a", "b")]
    plan = Plan(steps=(*steps, Step(key="c", agent="c", after=("a", "b"), on_failure="continue"), Step(key="d", agent="d")))
    state = given(runs.DECIDER).after(StartRun(run_id=RUN, project_id=PROJECT, plan=plan), fail("a"))
    why = Failure(type="UpstreamFailed", message="every step before it failed: a, b", kind="upstream")
    upstream = StepFailed(step="c", agent_run_id=None, error=why, tolerated=True)
    state.when(fail("b")).then(StepFailed(step="b", agent_run_id=agent_run_id_of(RUN, "b"), error=BROKEN, tolerated=True), upstream)
    end = CompleteStep(run_id=RUN, step="d", agent_run_id=agent_run_id_of(RUN, "d"))
    events = state.after(fail("b")).when(end).events()
    assert events[1:] == [RunCompleted(degraded=True, missing=("a", "b", "c"))]


def test_a_run_without_any_result_fails_with_its_last_failure() -> None:
    last = BROKEN.model_copy(update={"message": "the last one"})
    state = given(runs.DECIDER).after(independent("a", "b"), fail("a"))
    events = state.when(fail("b").model_copy(update={"error": last})).events()
    assert events[1:] == [RunFailed(step="b", error=last)]


def test_mail_goes_to_the_step_of_a_name_or_else_to_the_first_step_of_that_agent() -> None:
    steps = (Step(key="a", agent="x"), Step(key="x-2", agent="x"), Step(key="y", agent="a"), Step(key="z", agent="y"))
    run = fold(runs.DECIDER, [RunStarted(project_id=PROJECT, plan=Plan(steps=steps))])
    assert [run.recipient(name) for name in ("a", "x", "x-2", "y", "nobody")] == ["a", "a", "x-2", "y", None]
    assert Run().recipient("a") is None


@pytest.mark.parametrize(
    ("agents", "keys"),
    [
        (("a", "b"), ["a", "b"]),
        (("a", "a-2", "a"), ["a", "a-2", "a-3"]),
        (("a", "a", "b", "a"), ["a", "a-2", "b", "a-3"]),
    ],
)
def test_keys_of_steps_are_counted_from_two(agents: tuple[str, ...], keys: list[str]) -> None:
    plan = runs.sequential(agents)
    assert [step.key for step in plan.steps] == keys
    assert [step.after for step in plan.steps] == [(), *((key,) for key in keys[:-1])]
    assert [step.agent for step in plan.steps] == list(agents)


def test_a_parallel_plan_in_full() -> None:
    a, b = (Step(key=key, agent="x", on_failure="continue") for key in ("x", "x-2"))
    assert runs.parallel(("x", "x"), None) == Plan(steps=(a, b))
    assert runs.parallel(("x", "x"), "x") == Plan(steps=(a, b, Step(key="x-3", agent="x", after=("x", "x-2"))))
