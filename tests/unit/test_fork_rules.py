"""The rules of a run that begins with what another one was, and what it refuses."""

from typing import Any
from uuid import UUID

import pytest

from domain import agent_runs, context, runs
from domain.agent_runs import EntryTakenOver, MailTakenOver, TakeOverJournal
from domain.context import ContextValueTakenOver, TakeOverValues
from domain.errors import AlreadyExists, InvalidCommand, InvalidState
from domain.failures import Failure
from domain.plans import Plan
from domain.runs import DECIDER, BegunStep, ForkedFrom, OpenExecution, PartTakenOver, Run, StepTakenOver, TakenOver
from tests.kit.played_plans import FUNCTIONS, PROJECT, RUN

OLD, OTHER, AT = UUID(int=7), UUID(int=8), "2026-11-30T08:00:00Z"
BROKEN = Failure(type="E", message="broken", kind="permanent")


def start(*steps: dict[str, Any], ended: tuple[StepTakenOver, ...] = (), begun: tuple[BegunStep, ...] = (), **more: Any) -> Any:
    return runs.StartRun(
        run_id=RUN, project_id=PROJECT, plan=Plan.model_validate({"steps": steps}), input=more.pop("input", 1),
        forked_from=ForkedFrom(run_id=OLD, position=5), taken=TakenOver(ended=ended, begun=begun), **more,
    )  # fmt: skip


def done(step: str, status: Any = "completed", **more: Any) -> StepTakenOver:
    return StepTakenOver(step=step, status=status, agent_run_id=OLD, **more)


def forked(*steps: dict[str, Any], **more: Any) -> tuple[list[Any], Run]:
    events = DECIDER.events(Run(), start(*steps, **more), FUNCTIONS)
    return events, DECIDER.fold(Run(), events)


A = {"key": "a", "agent": "x"}
B = {"key": "b", "agent": "x", "after": ["a"]}
EACH = {"key": "m", "agent": "x", "each": {"over": "input", "max_parallel": 2}}


def refusal(*steps: dict[str, Any], **more: Any) -> InvalidCommand:
    with pytest.raises(InvalidCommand) as refused:
        forked(*steps, **more)
    assert refused.value.pointer == "/plan"
    return refused.value


def test_what_had_ended_is_named_and_what_follows_begins() -> None:
    events, run = forked(A, B, ended=(done("a", result={"n": 1}),))
    assert [type(event) for event in events] == [runs.RunStarted, StepTakenOver, runs.StepScheduled]
    assert events[0].forked_from == ForkedFrom(run_id=OLD, position=5) and events[0].stored_version == 4
    assert (run.steps["a"].status, run.steps["a"].agent_run_id, run.steps["a"].result) == ("completed", OLD, {"n": 1})
    assert run.steps["b"].agent_run_id == runs.agent_run_id_of(RUN, "b")


def test_first_steps_that_had_not_begun_begin() -> None:
    events, _ = forked(A, {"key": "c", "agent": "x"}, ended=(done("a"),))
    assert [event.step for event in events if isinstance(event, runs.StepScheduled)] == ["c"]


def test_a_plan_must_have_what_is_taken_over() -> None:
    assert str(refusal(A, ended=(done("z"),))) == "step 'z' had completed by then: the plan must have it"
    assert str(refusal(A, ended=(done("z", "failed"),))) == "step 'z' had failed by then: the plan must have it"
    assert str(refusal(A, ended=(done("z", "skipped"),))) == "step 'z' had been skipped by then: the plan must have it"
    begun = (BegunStep(step="z", open=(OpenExecution(),)),)
    assert str(refusal(A, begun=begun)) == "step 'z' was under way by then: the plan must have it"


def test_what_is_taken_over_must_not_come_after_what_is_not() -> None:
    assert str(refusal(A, B, ended=(done("b"),))) == "step 'b' had completed by then, and cannot come after 'a', which had not"
    begun = (BegunStep(step="b", open=(OpenExecution(),)),)
    assert str(refusal(A, B, begun=begun)) == "step 'b' was under way by then, and cannot come after 'a', which had not ended"
    gathering = {"key": "g", "gather": {"mode": "any", "rest": "wait"}, "after": ["a", "c"]}
    forked(A, {"key": "c", "agent": "x"}, gathering, ended=(done("c"), done("g")))
    forked(A, B, ended=(done("b", "skipped"),))


@pytest.mark.parametrize(
    ("form", "step", "now"),
    [
        ("each", A, "agent"), (None, {"key": "a", "agent": "x", "repeat": {"times": 2}}, "repeat"),
        ("repeat", {"key": "a", "value": "1"}, "value"), (None, {"key": "a", "run": {"plan": {"steps": [A]}}}, "run"),
        ("run", {"key": "a", "agent": "x", "adaptive": {"agents": [{"agent": "y"}]}}, "adaptive"),
        ("run", {"key": "a", "wait": {"s": 5}}, "wait"), ("adaptive", {**EACH, "key": "a"}, "each"),
    ],
)  # fmt: skip
def test_a_step_under_way_keeps_its_form(form: Any, step: dict[str, Any], now: str) -> None:
    begun = (BegunStep(step="a", form=form, open=(OpenExecution(part=0),)),)
    before = form or "agent"
    assert str(refusal(step, begun=begun)) == f"step 'a' was under way by then as `{before}`, and cannot become `{now}`"


def test_all_faults_are_told_and_the_first_ten_described() -> None:
    error = refusal(A, ended=tuple(done(f"z{number}") for number in range(12)))
    assert len(error.faults) == 12 and error.faults[0][0] == "/plan/steps"
    assert str(error).endswith("step 'z9' had completed by then: the plan must have it; and 2 more")
    exactly = refusal(A, ended=tuple(done(f"z{number}") for number in range(10)))
    assert str(exactly).endswith("step 'z9' had completed by then: the plan must have it")


def test_a_failure_that_the_plan_does_not_tolerate_is_refused() -> None:
    with pytest.raises(
        InvalidState, match=r"^step 'a' had failed by then, and the plan does not tolerate it: fork the run at that"
    ):
        forked(A, B, ended=(done("a", "failed", error=BROKEN),))
    _, run = forked({**A, "on_failure": "continue"}, {"key": "c", "agent": "x"}, ended=(done("a", "failed", error=BROKEN),))
    assert (run.missing, run.steps["a"].error) == (("a",), BROKEN)


def test_parts_go_on_from_those_that_had_ended() -> None:
    parts = (
        PartTakenOver(step="m", part=1, execution_id=OLD, status="completed", result=20),
        PartTakenOver(step="m", part=0, execution_id=OLD, status="failed", error=BROKEN),
    )
    step = {**EACH, "each": {**EACH["each"], "on_failure": "continue"}}  # type: ignore[dict-item]
    begun = (BegunStep(step="m", form="each", items=(1, 2, 3, 4), parts=parts, open=(OpenExecution(part=2, input=3),)),)
    events, run = forked(step, begun=begun)
    assert [event.part for event in events if isinstance(event, runs.PartScheduled)] == [2, 3]
    progress = run.progress["m"]
    assert (progress.begun, progress.ended, dict(progress.results)) == (4, 2, {1: 20})


def test_a_loop_goes_on_from_its_last_time() -> None:
    step = {"key": "r", "agent": "x", "repeat": {"times": 3}}
    part = PartTakenOver(step="r", part=0, execution_id=OLD, status="completed", result="once")
    events, _ = forked(step, begun=(BegunStep(step="r", form="repeat", parts=(part,)),))
    [scheduled] = [event for event in events if isinstance(event, runs.PartScheduled)]
    assert (scheduled.part, scheduled.input) == (1, "once")


NAMED = {"key": "n", "agent": "y"}
ROUND = {"round": 1, "steps": [NAMED, {"key": "o", "agent": "y"}], "results": {"n": "child"}}


def test_an_adaptive_step_keeps_its_question_and_the_number_of_named_steps() -> None:
    step = {"key": "d", "agent": "x", "adaptive": {"agents": [{"agent": "y"}], "max_steps": 3}}
    parts = (
        PartTakenOver(step="d", part=0, execution_id=OLD, status="completed", input={"input": "base"}, result={"steps": []}),
        PartTakenOver(
            step="d",
            part=1,
            execution_id=OLD,
            status="completed",
            is_run=True,
            steps=(NAMED, {"key": "o", "agent": "y"}),
            only="n",
            result="child",
        ),
    )
    events, run = forked(step, begun=(BegunStep(step="d", form="adaptive", parts=parts),))
    [scheduled] = [event for event in events if isinstance(event, runs.PartScheduled)]
    assert scheduled.input == {"input": "base", "round": 2, "results": {"n": "child"}, "history": [ROUND]}
    assert (run.progress["d"].named, run.progress["d"].only, run.progress["d"].base) == (2, "n", "base")


def test_a_child_run_of_an_adaptive_step_begins_with_its_plan() -> None:
    step = {"key": "d", "agent": "x", "adaptive": {"agents": [{"agent": "y"}]}}
    asked = PartTakenOver(step="d", part=0, execution_id=OLD, status="completed", input={"input": "base"})
    body = {"steps": [{"key": "n", "agent": "y"}]}
    one = OpenExecution(part=1, given=True, input="base", plan=body, versions_asked=("n",))
    events, _ = forked(step, begun=(BegunStep(step="d", form="adaptive", parts=(asked,), open=(one,)),))
    [scheduled] = [event for event in events if isinstance(event, runs.PartScheduled)]
    assert (scheduled.child_id, scheduled.plan, scheduled.versions_asked) == (runs.child_id_of(RUN, "d", 1), body, ("n",))


def test_a_fallback_is_gone_on_with() -> None:
    step = {"key": "a", "agent": "x", "fallbacks": [{"agent": "y"}, {"agent": "z"}]}
    back = runs.StepFellBack(step="a", execution_id=OLD, agent="y", number=1, error=BROKEN)
    events, run = forked(step, begun=(BegunStep(step="a", open=(OpenExecution(fell_back=(back,), mapped=True, input=3),)),))
    scheduled = events[-1]
    assert (scheduled.agent, scheduled.input, scheduled.mapped) == ("y", 3, True)
    assert scheduled.agent_run_id == runs.agent_run_id_of(RUN, "a", 1) and run.fell_back["a"] == 1
    mapped = {**EACH, "fallbacks": [{"agent": "y"}]}
    back = runs.StepFellBack(step="m", part=0, execution_id=OLD, agent="y", number=1, error=BROKEN)
    one = OpenExecution(part=0, input=1, fell_back=(back,))
    events, _ = forked(mapped, begun=(BegunStep(step="m", form="each", items=(1,), open=(one,)),))
    assert (events[-1].agent, events[-1].agent_run_id) == ("y", runs.agent_run_id_of(RUN, "m.0", 1))


def test_a_step_under_way_begins_as_it_began_or_as_the_plan_says_now() -> None:
    step = {**A, "input_from": "input + 1", "when": "input == 1"}
    as_it_began, _ = forked(step, begun=(BegunStep(step="a", open=(OpenExecution(given=True, mapped=True, input=9),)),), input=5)
    assert (as_it_began[-1].input, as_it_began[-1].mapped) == (9, True)
    anew, _ = forked(step, begun=(BegunStep(step="a", open=(OpenExecution(),)),), input=1)
    assert anew[-1].input == 2
    skipped, run = forked(step, begun=(BegunStep(step="a", open=(OpenExecution(),)),), input=5)
    assert run.steps["a"].status == "skipped" and isinstance(skipped[1], runs.StepSkipped)
    _, run = forked({**step, "when": "input.no"}, begun=(BegunStep(step="a", open=(OpenExecution(),)),))
    assert run.steps["a"].status == "failed"


def test_votes_are_kept_and_made_where_the_plan_asks_anew() -> None:
    vote = {"key": "v", "gather": {"mode": "vote", "by": "string(result)"}, "after": ["a", "c"]}
    other = {"key": "c", "agent": "x"}
    events, run = forked(A, other, vote, ended=(done("a", result=3, judged={"v": "kept"}),))
    assert events[1].judged == {"v": "kept"} and run.tallies["v"].leader == '"kept"'
    events, _ = forked(A, other, vote, ended=(done("a", result=3, judged={"gone": True}),))
    assert events[1].judged == {"v": "3"}


def test_the_start_of_a_child_that_was_forked_with_its_parent_changes_nothing() -> None:
    parent = runs.Parent(run_id=OTHER, step="s", part=0)
    command = start(A, parent=parent)
    run = DECIDER.fold(Run(), DECIDER.events(Run(), command, FUNCTIONS))
    again = command.model_copy(update={"taken": None, "forked_from": None})
    assert DECIDER.events(run, again, FUNCTIONS) == []
    for differs in (None, runs.Parent(run_id=OTHER, step="s", part=1)):
        with pytest.raises(AlreadyExists):
            DECIDER.events(run, again.model_copy(update={"parent": differs}), FUNCTIONS)


def test_a_journal_is_taken_over_once_and_before_the_work_is_asked_for() -> None:
    entry = EntryTakenOver(key="s", kind="step", held_by=OTHER)
    call = EntryTakenOver(key="c", kind="call", succeeded=False, invocation_id=OLD)
    mails = (
        MailTakenOver(message_id=OLD, sender="b", sent_at=AT, received_as="r"),  # type: ignore[arg-type]
        MailTakenOver(message_id=OTHER, sender="b", sent_at=AT),  # type: ignore[arg-type]
    )
    command = TakeOverJournal(agent_run_id=RUN, run_id=RUN, entries=(entry, call), mail=mails)
    events = agent_runs.DECIDER.decide(agent_runs.AgentRun(), command)
    assert events == [*mails, entry, call]
    run = agent_runs.DECIDER.fold(agent_runs.AgentRun(), events)
    assert agent_runs.DECIDER.decide(run, command) == []
    assert run.journal["s"] == agent_runs.Entry("step", "ok", None, None, 3, held_by=OTHER)
    assert run.journal["c"] == agent_runs.Entry("call", "error", None, OLD, 4)
    assert (run.mailbox[OLD].received_as, dict(run.unreceived), dict(run.pending)) == ("r", {2: OTHER}, {})
    one_by_one = agent_runs.AgentRun()
    for event in events:
        one_by_one = agent_runs.evolve(one_by_one, event)
    assert one_by_one == run


def test_values_are_taken_over_into_an_empty_context_only() -> None:
    value = ContextValueTakenOver(run_id=RUN, name="n", value=1, value_version=4)
    command = TakeOverValues(context_id=RUN, run_id=RUN, values=(value,))
    assert context.DECIDER.decide(context.Context(), command) == [value]
    state = context.evolve(context.Context(), value)
    assert (state.entries["n"].value, state.version_of("n")) == (1, 4)
    assert context.DECIDER.decide(state, command) == []
