"""Pausing a run by the rules: outcomes are recorded, nothing begins, and the resumption goes on where the run was."""

from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from domain import runs
from domain.errors import InvalidState, NotFound, RunIsPaused, WorkOver
from domain.failures import Failure
from domain.kernel import Event, Json
from domain.plans import Plan
from domain.runs import DECIDER, PauseCause, PauseRun, ResumeRun, Run, RunPaused, RunPauseLifted, RunResumed
from tests.kit import given
from tests.unit.test_plans_of_every_form import FUNCTIONS, INPUT, RUN, Played, answer_of, command_of, open_in, plan_of
from tests.unit.test_runs import done, failed, start, started

AT = {key: runs.agent_run_id_of(RUN, key) for key in "abc"}
PAUSE = PauseRun(run_id=RUN, reason="look first", by="key:ann")
RESUME = ResumeRun(run_id=RUN, reason="looks good", by="key:ben", on_behalf_of="carl")
CHECK = runs.CheckRun(run_id=RUN)


def of(**step: Any) -> Plan:
    """A step `a` of this form, and a step `b` after it."""
    return Plan.model_validate({"steps": [{"key": "a", **step}, {"key": "b", "agent": "b", "after": ["a"]}]})


# --- who, why, how often --------------------------------------------------------------------------------------------------


def test_a_pause_names_what_is_under_way_and_who_wanted_it() -> None:
    [event] = started(runs.parallel(("a", "b"), "c")).when(PAUSE).then_topics("run.paused")
    cause = PauseCause(by="key:ann", reason="look first")
    assert event == RunPaused(number=1, cause=cause, executions=(AT["a"], AT["b"]))


def test_a_resumption_names_what_goes_on() -> None:
    paused = started(runs.parallel(("a", "b"), "c")).after(done("a"), PAUSE)
    [event] = paused.when(RESUME).then_topics("run.resumed")
    cause = PauseCause(by="key:ben", reason="looks good", on_behalf_of="carl")
    assert event == RunResumed(number=1, cause=cause, executions=(AT["b"],))
    [again] = paused.after(RESUME).when(PAUSE).then_topics("run.paused")
    assert again.number == 2


def test_a_pause_and_its_end_come_once() -> None:
    running = started(runs.sequential(("a",)))
    running.when(RESUME).then()
    paused = running.after(PAUSE)
    paused.when(PAUSE).then()
    paused.when(PauseRun(run_id=RUN)).then()
    paused.when(PauseRun(run_id=RUN, reason="wait")).refused(InvalidState, "paused before, with another reason: look first")
    without = running.after(PauseRun(run_id=RUN))
    without.when(PauseRun(run_id=RUN, reason="wait")).refused(InvalidState, "paused before, with another reason: none")
    paused.after(RESUME).when(RESUME).then()


def test_only_a_run_that_goes_on_is_paused_and_resumed() -> None:
    given(runs.DECIDER).when(PAUSE).refused(NotFound, f"there is no run {RUN}")
    given(runs.DECIDER).when(RESUME).refused(NotFound, f"there is no run {RUN}")
    over = started(runs.sequential(("a",))).after(done("a"))
    over.when(PAUSE).refused(InvalidState, "the run is completed; only a running one can be paused")
    over.when(RESUME).refused(InvalidState, "the run is completed; only a paused one can be resumed")


def test_what_a_worker_claims_is_refused_in_a_pause() -> None:
    running = started(runs.sequential(("a",)))
    running.when(CHECK).then()
    running.after(PAUSE).when(CHECK).refused(RunIsPaused, "the run is paused: nothing begins until it is resumed")
    running.after(PAUSE, RESUME).when(CHECK).then()
    running.after(PAUSE, runs.CancelRun(run_id=RUN)).when(CHECK).refused(WorkOver, "the run is cancelled")


def test_a_paused_run_can_be_cancelled() -> None:
    paused = started(runs.sequential(("a", "b"))).after(PAUSE)
    [event] = paused.when(runs.CancelRun(run_id=RUN, reason="enough")).then_topics("run.cancelled")
    assert event.abandoned == (AT["a"],)
    paused.after(runs.CancelRun(run_id=RUN)).when(RESUME).refused(InvalidState, "cancelled")


# --- with the run above ---------------------------------------------------------------------------------------------------


def child() -> Any:
    above = runs.Parent(run_id=UUID(int=7), step="s", part=0)
    return given(runs.DECIDER).after(start(runs.sequential(("a", "b"))).model_copy(update={"parent": above}))


def of_parent(kind: type[PauseRun] | type[ResumeRun], number: int) -> Any:
    return kind(run_id=RUN, parent_number=number, by="key:ann", reason="look first")


def test_a_child_run_is_paused_with_its_parent() -> None:
    cause = PauseCause(by="key:ann", reason="look first", parent_id=UUID(int=7))
    [event] = child().when(of_parent(PauseRun, 4)).then_topics("run.paused")
    assert event == RunPaused(number=1, cause=cause, parent_number=4, executions=(AT["a"],))
    paused = child().after(of_parent(PauseRun, 4))
    paused.when(of_parent(PauseRun, 4)).then()
    paused.when(RESUME).refused(InvalidState, f"the run is paused with run {UUID(int=7)}, whose step it is: resume that one")
    [event] = paused.when(of_parent(ResumeRun, 4)).then_topics("run.resumed")
    assert event == RunResumed(number=1, cause=cause, parent_number=4, executions=(AT["a"],))


def test_a_child_run_with_a_pause_of_its_own_goes_on_after_both() -> None:
    both = child().after(of_parent(PauseRun, 1), PAUSE)
    [event] = child().after(of_parent(PauseRun, 1)).when(PAUSE).then_topics("run.paused")
    assert (event.number, event.executions) == (1, ()), "its agent runs are paused already"
    [lifted] = both.when(RESUME).then_topics("run.pause_lifted")
    assert lifted.left.parent_id == UUID(int=7)
    [lifted] = both.when(of_parent(ResumeRun, 1)).then_topics("run.pause_lifted")
    assert lifted == RunPauseLifted(
        cause=PauseCause(by="key:ann", reason="look first", parent_id=UUID(int=7)), parent_number=1,
        left=PauseCause(by="key:ann", reason="look first"),
    )  # fmt: skip
    for first, second in ((RESUME, of_parent(ResumeRun, 1)), (of_parent(ResumeRun, 1), RESUME)):
        both.after(first).when(CHECK).refused(RunIsPaused)
        [event] = both.after(first).when(second).then_topics("run.resumed")
        assert event.executions == (AT["a"],)
        both.after(first, second).when(CHECK).then()


def test_a_pause_that_comes_after_its_end_changes_nothing() -> None:
    late = child().after(of_parent(ResumeRun, 3))
    [event] = child().when(of_parent(ResumeRun, 3)).then_topics("run.resumed")
    assert event.executions == (), "nothing was paused"
    late.when(of_parent(PauseRun, 3)).then()
    late.when(of_parent(PauseRun, 2)).then()
    late.when(of_parent(ResumeRun, 3)).then()
    late.when(of_parent(PauseRun, 4)).then_topics("run.paused")
    over = child().after(done("a"), done("b"))
    over.when(of_parent(PauseRun, 1)).then()
    over.when(of_parent(ResumeRun, 1)).then()


def test_child_runs_are_named_beside_agent_runs() -> None:
    plan = of(run={"plan": {"steps": [{"key": "x", "agent": "x"}]}})
    [event] = started(plan).when(PAUSE).then_topics("run.paused")
    assert (event.executions, event.runs) == ((), (runs.child_id_of(RUN, "a", 0),))
    [event] = started(plan).after(PAUSE).when(RESUME).then_topics("run.resumed")
    assert (event.executions, event.runs) == ((), (runs.child_id_of(RUN, "a", 0),))


# --- what follows is decided later ----------------------------------------------------------------------------------------


def test_the_next_step_begins_at_the_resumption() -> None:
    paused = started(runs.sequential(("a", "b"))).after(PAUSE)
    paused.when(done("a")).then_topics("run.step_completed")
    _, scheduled = paused.after(done("a")).when(RESUME).then_topics("run.resumed", "run.step_scheduled")
    assert scheduled.step == "b"


def test_the_run_ends_at_the_resumption() -> None:
    paused = started(runs.sequential(("a",))).after(PAUSE)
    paused.when(done("a")).then_topics("run.step_completed")
    paused.after(done("a")).when(RESUME).then_topics("run.resumed", "run.completed")


def test_the_run_fails_at_the_resumption_with_the_whole_error() -> None:
    error = Failure(type="ValueError", message="x" * 5_000)
    both = Plan.model_validate({"steps": [{"key": "a", "agent": "a"}, {"key": "b", "agent": "b"}]})
    paused = started(both).after(PAUSE)
    first, other = failed("a").model_copy(update={"error": error}), failed("b")
    paused.when(first).then_topics("run.step_failed")
    resumed, failure = paused.after(first).when(RESUME).then_topics("run.resumed", "run.failed")
    assert (failure.step, failure.error, failure.abandoned) == ("a", error, (AT["b"],))
    assert resumed.executions == (), "what is cancelled at once does not begin again"
    _, failure = paused.after(first, other).when(RESUME).then_topics("run.resumed", "run.failed")
    assert failure.step == "a", "the first one counts"
    again = paused.after(RESUME, failed("a"))
    again.when(RESUME).refused(InvalidState)


def test_a_fallback_is_tried_at_the_resumption() -> None:
    paused = started(of(agent="a", fallbacks=[{"agent": "y"}])).after(PAUSE)
    paused.when(failed("a")).then_topics("run.step_fell_back")
    _, scheduled = paused.after(failed("a")).when(RESUME).then_topics("run.resumed", "run.step_scheduled")
    assert (scheduled.agent, scheduled.agent_run_id) == ("y", runs.agent_run_id_of(RUN, "a", 1))


def test_items_begin_at_the_resumption() -> None:
    plan = of(agent="a", each={"over": "input.list", "max_parallel": 1, "on_failure": "continue"}, fallbacks=[{"agent": "y"}])
    run, events = played(plan, PAUSE)
    run, events = played_on(run, command_of(run, "a.0", False, None))
    assert topics(events) == ["run.step_fell_back"]
    run, events = played_on(run, RESUME)
    assert topics(events) == ["run.resumed", "run.part_scheduled"] and events[1].agent == "y"  # type: ignore[attr-defined]
    run, _ = played_on(run, PAUSE)
    run, events = played_on(run, command_of(run, "a.0", False, None))
    assert topics(events) == ["run.part_failed"]
    run, events = played_on(run, RESUME)
    assert topics(events) == ["run.resumed", "run.part_scheduled"] and events[1].part == 1  # type: ignore[attr-defined]
    for part in ("a.1", "a.2"):
        run, _ = played_on(run, PAUSE)
        run, events = played_on(run, command_of(run, part, True, 1))
        if part == "a.1":
            run, _ = played_on(run, RESUME)
    assert topics(events) == ["run.part_completed", "run.step_completed"], "the end of a step begins nothing"
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed", "run.step_scheduled"]


@pytest.mark.parametrize(
    ("form", "answer", "then"),
    [
        ({"agent": "a", "repeat": {"times": 3}}, 1, ["run.part_scheduled"]),
        ({"agent": "a", "repeat": {"times": 3, "until": "result == 1"}}, 1, ["run.step_completed", "run.step_scheduled"]),
        ({"agent": "a", "repeat": {"times": 3, "until": "result"}}, 1, ["run.step_failed", "run.failed"]),
        ({"agent": "a", "adaptive": {"agents": [{"agent": "y"}]}}, {"steps": [{"key": "k", "agent": "y"}]}, ["run.part_scheduled"]),
        ({"agent": "a", "adaptive": {"agents": [{"agent": "y"}]}}, {"result": 1}, ["run.step_completed", "run.step_scheduled"]),
    ],
)  # fmt: skip
def test_the_next_part_begins_at_the_resumption(form: dict[str, Any], answer: Json, then: list[str]) -> None:
    run, _ = played(of(**form), PAUSE)
    run, events = played_on(run, command_of(run, "a.0", True, answer))
    assert topics(events) == ["run.part_completed"]
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed", *then]


def test_a_child_run_that_ends_in_a_pause_ends_its_step() -> None:
    run, _ = played(of(run={"plan": {"steps": [{"key": "x", "agent": "x"}]}}), PAUSE)
    run, events = played_on(run, command_of(run, "a.0", True, 1))
    assert topics(events) == ["run.part_completed", "run.step_completed"]
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed", "run.step_scheduled"]


def test_a_wait_that_is_over_in_a_pause_ends_its_step() -> None:
    run, _ = played(of(wait={"s": 5}), PAUSE)
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed"], "the clock goes on"
    run, events = played_on(run, runs.EndWait(run_id=RUN, step="a"))
    assert topics(events) == ["run.step_completed"]
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed", "run.step_scheduled"]


def test_results_are_gathered_at_the_resumption() -> None:
    gather = {"key": "g", "gather": {"mode": "first_good", "good": "result == 1"}, "after": ["a", "b"]}
    run, _ = played(Plan.model_validate({"steps": [{"key": "a", "agent": "a"}, {"key": "b", "agent": "b"}, gather]}), PAUSE)
    run, events = played_on(run, command_of(run, "a", True, 1))
    assert topics(events) == ["run.step_completed"]
    run, events = played_on(run, RESUME)
    assert topics(events) == ["run.resumed", "run.step_completed", "run.step_skipped", "run.completed"]


def test_a_result_that_cannot_be_judged_is_told_in_the_pause() -> None:
    gather = {"key": "g", "gather": {"mode": "first_good", "good": "result.no"}, "after": ["a", "b"], "on_failure": "continue"}
    run, _ = played(Plan.model_validate({"steps": [{"key": "a", "agent": "a"}, {"key": "b", "agent": "b"}, gather]}), PAUSE)
    run, events = played_on(run, command_of(run, "a", True, 1))
    assert topics(events) == ["run.step_completed", "run.step_failed"]
    assert topics(played_on(run, RESUME)[1]) == ["run.resumed"]


# --- any order ------------------------------------------------------------------------------------------------------------


def played(plan: Plan, *commands: runs.RunCommand) -> tuple[Run, list[Event]]:
    run, events = Run(), list[Event]()
    for command in (runs.StartRun(run_id=RUN, project_id=RUN, plan=plan, input=INPUT), *commands):
        run, events = played_on(run, command)
    return run, events


def played_on(run: Run, command: runs.RunCommand) -> tuple[Run, list[Event]]:
    events = DECIDER.events(run, command, FUNCTIONS)
    return DECIDER.fold(run, events), events


def topics(events: list[Event]) -> list[str]:
    return [event.TOPIC for event in events]


BEGINS = {"run.step_scheduled", "run.step_started", "run.part_scheduled", *runs.ENDS}


@settings(max_examples=100, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 14))
def test_pauses_without_news_change_nothing(seed: int, size: int) -> None:
    """A run that is paused and resumed between its outcomes is at each of them where the model is."""
    random = Random(seed)
    plays = Played(plan_of(random, size))
    while plays.run.status == "running":
        for _ in range(random.choice([0, 0, 1, 2])):
            assert topics(plays.do(PAUSE)) == ["run.paused"]
            assert topics(plays.do(RESUME)) == ["run.resumed"], "nothing had happened"
        plays.go_on(random)
        plays.check()


@settings(max_examples=200, deadline=None)
@for_all(st.integers(0, 2**32), st.integers(1, 14))
def test_outcomes_in_pauses_come_in_any_order(seed: int, size: int) -> None:
    """Nothing begins in a pause; afterwards the run ends, or waits for an execution. No outcome is lost, and none counts twice."""
    random = Random(seed)
    run, _ = played(plan_of(random, size))
    given_once = set[UUID]()
    for _ in range(2_000):
        if run.status != "running":
            break
        waiting = {key: kind for key, kind in open_in(run).items() if not _has_failed(run, key, given_once)}
        if not run.paused:
            assert waiting, "a run that goes on waits for something"
        command: runs.RunCommand = RESUME if run.paused else PAUSE
        if waiting and random.random() < 0.7:
            key = random.choice(sorted(waiting))
            command = command_of(run, key, random.random() < 0.7, answer_of(random, run, key))
            given_once |= {getattr(command, "agent_run_id", None), getattr(command, "child_id", None)} - {None}  # type: ignore[arg-type]
        before = run
        run, events = played_on(run, command)
        if before.paused and run.paused:
            assert not BEGINS & set(topics(events))
        assert run.ended == len([state for state in run.steps.values() if state.status in ("completed", "failed", "skipped")])
    assert run.status in runs.OVER
    assert DECIDER.events(run, ResumeRun(run_id=RUN, parent_number=9), FUNCTIONS) == []


def _has_failed(run: Run, key: str, ended: set[UUID]) -> bool:
    """Whether an execution has had its outcome, and its fallback begins at the resumption."""
    place = run.place(key)
    assert place is not None
    step, part = place
    if part is not None:
        return run.progress[step].open[part].execution_id in ended
    return run.steps[step].agent_run_id in ended and not run.waits(step)
