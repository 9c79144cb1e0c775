"""What each form of step does with good and bad values, word for word."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from adapters.expressions.evaluator import CelExpressions
from application.functions import RuleFunctions
from domain import plans, runs
from domain.failures import Failure
from domain.kernel import Event, Json, Scheduled
from domain.plans import MAX_DEPTH, Plan, Step, body_of
from domain.runs import DECIDER, EndWait, Run, agent_run_id_of, child_id_of

FUNCTIONS = RuleFunctions(CelExpressions())
RUN, PROJECT = UUID("01900000-0000-7000-8000-0000000000aa"), UUID("01900000-0000-7000-8000-0000000000bb")
BROKEN = Failure(type="ValueError", message="broken", traceback="…")
BODY = {"steps": [{"key": "inner", "agent": "x"}]}


class Played:
    """A run whose outcomes are given by hand."""

    def __init__(self, *steps: Json, input: Json = None, result: str | None = None, **more: Any) -> None:
        plan = Plan.model_validate({"steps": steps, "result": result})
        self.run = Run()
        self.events = self.do(runs.StartRun(run_id=RUN, project_id=PROJECT, plan=plan, input=input, **more))

    def do(self, command: runs.RunCommand) -> list[Event]:
        self.events = DECIDER.events(self.run, command, FUNCTIONS)
        self.run = DECIDER.fold(self.run, self.events)
        return self.events

    def id_of(self, key: str) -> UUID:
        place = self.run.place(key)
        assert place is not None
        step, part = place
        found = self.run.steps[step].agent_run_id if part is None else self.run.progress[step].open[part].execution_id
        assert found is not None
        return found

    def done(self, key: str, result: Json = None) -> list[Event]:
        return self.do(runs.CompleteStep(run_id=RUN, step=key, agent_run_id=self.id_of(key), result=result))

    def fails(self, key: str) -> list[Event]:
        return self.do(runs.FailStep(run_id=RUN, step=key, agent_run_id=self.id_of(key), error=BROKEN))

    def child(self, key: str, result: Json = None, error: Failure | None = None) -> list[Event]:
        step, part = self.run.place(key) or ("", None)
        assert part is not None
        return self.do(runs.FinishChild(run_id=RUN, step=step, part=part, child_id=self.id_of(key), result=result, error=error))

    def one(self, kind: type[Event], step: str | None = None) -> Any:
        [found] = [e for e in self.events if isinstance(e, kind) and step in (None, getattr(e, "step", None))]
        return found

    def error(self, step: str) -> tuple[str, str, str]:
        found = self.one(runs.StepFailed, step).error
        return found.type, found.kind, found.message


def test_a_condition_is_told_with_what_it_saw() -> None:
    steps = [{"key": f"s{n}", "agent": "x"} for n in range(12)]
    small = " && ".join(f"steps.s{n}.status != 'x'" for n in range(12))
    last = {
        "key": "z",
        "agent": "x",
        "after": [s["key"] for s in steps],
        "when": f"{small} && steps.s0.result == null && input != null",
    }
    played = Played(*steps, last, input="x" * 1_001)
    for step in steps:
        played.done(step["key"])
    saw = played.one(runs.StepScheduled, "z").saw
    assert len(saw) == 10 and "input" not in saw and saw["steps.s0.result"] is None and saw["steps.s0.status"] == "completed"


def test_a_value_of_a_thousand_bytes_is_still_told() -> None:
    assert Played({"key": "a", "value": "1", "when": "input != ''"}, input="x" * 998).one(runs.StepCompleted, "a").saw
    assert not Played({"key": "a", "value": "1", "when": "input != ''"}, input="x" * 999).one(runs.StepCompleted, "a").saw


def test_a_false_condition_skips_and_says_why() -> None:
    skipped = Played({"key": "a", "agent": "x", "when": "input.n > 3"}, {"key": "b", "value": "1"}, input={"n": 3}).one(
        runs.StepSkipped
    )
    assert (skipped.step, skipped.reason, skipped.condition, skipped.value) == ("a", "condition", "input.n > 3", False)
    assert skipped.saw == {"input.n": 3}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"agent": "x", "when": "input.no"},
            '`when` cannot be evaluated: Key not found in map : "no"; the expression is: input.no',
        ),
        ({"agent": "x", "when": "1"}, "`when` is neither true nor false; the expression is: 1"),
        ({"value": "input.no"}, '`value` cannot be evaluated: Key not found in map : "no"; the expression is: input.no'),
        (
            {"agent": "x", "input_from": "input.no"},
            '`input_from` cannot be evaluated: Key not found in map : "no"; the expression is: input.no',
        ),
        (
            {"agent": "x", "input_from": {"a": "1", "b": "input.no"}},
            "`input_from` of 'b' cannot be evaluated: Key not found in map : \"no\"; the expression is: input.no",
        ),
        (
            {"agent": "x", "each": {"over": "input.no"}},
            '`over` cannot be evaluated: Key not found in map : "no"; the expression is: input.no',
        ),
        ({"agent": "x", "each": {"over": "input"}}, "`over` gives no list; the expression is: input"),
        ({"agent": "x", "each": {"over": "input.many"}}, "`over` gives 1,001 items; 1,000 are the most"),
        ({"agent": "x", "each": {"over": "input.two"}, "input_from": "item.x"}, "`input_from` cannot be evaluated: "),
        ({"agent": "x", "repeat": {"times": 2}, "input_from": "last.x"}, "`input_from` cannot be evaluated: "),
        ({"wait": {"until": "input.no"}}, '`until` cannot be evaluated: Key not found in map : "no"; the expression is: input.no'),
        ({"wait": {"until": "'noon'"}}, "`until` gives no time with its zone, as 2026-11-30T08:00:00Z; the expression is: 'noon'"),
        ({"wait": {"until": "1"}}, "`until` gives no time with its zone, as 2026-11-30T08:00:00Z; the expression is: 1"),
        (
            {"wait": {"until": "'2026-11-30T08:00:00'"}},
            "`until` gives no time with its zone, as 2026-11-30T08:00:00Z; the expression is: ",
        ),
    ],
)
def test_an_expression_without_a_usable_value_fails_its_step(step: Json, message: str) -> None:
    played = Played({"key": "a", **step}, input={"many": list(range(1_001)), "two": [1, 2]})
    type_, kind, told = played.error("a")
    assert (type_, kind) == ("PlanExpressionError", "permanent") and told.startswith(message)
    assert played.run.status == "failed" and played.one(runs.RunFailed).error.message == told


@pytest.mark.parametrize(
    ("step", "subject"),
    [
        ({"value": "input.big"}, "the value is"),
        ({"agent": "x", "each": {"over": "[input.big]"}}, "the list that `over` gives is"),
    ],
)
def test_a_value_that_no_event_can_hold_fails_its_step(step: Json, subject: str) -> None:
    told = Played({"key": "a", **step}, input={"big": "x" * 200_000}).error("a")
    assert told[:2] == ("TooLarge", "permanent") and told[2].startswith(f"{subject} too large: 200,0")
    assert told[2].endswith(" bytes of JSON, a run can pass on 200,000")
    mapped = Played({"key": "a", "agent": "x", "input_from": "input"}, input="x" * 199_999).error("a")
    assert mapped[2] == "`input_from` gives a value that is too large: 200,001 bytes of JSON, a run can pass on 200,000"
    assert Played({"key": "a", "agent": "x", "input_from": "input"}, input="x" * 199_998).run.status == "running"
    deep: Json = 1
    for _ in range(64):
        deep = [deep]
    assert Played({"key": "a", "value": "[input]"}, input=deep).error("a")[2] == "the value is nested more than 64 levels deep"


# --- what follows from the steps before ---------------------------------------------------------------------------------------


def test_without_a_condition_one_step_before_must_have_completed() -> None:
    steps = [{"key": "a", "agent": "x", "on_failure": "continue"}, {"key": "b", "value": "1", "when": "false"}]
    played = Played(
        *steps,
        {"key": "c", "agent": "x", "after": ["a", "b"], "on_failure": "continue"},
        {"key": "d", "value": "1", "after": ["b"]},
    )
    assert played.one(runs.StepSkipped, "d").reason == "upstream"
    played.fails("a")
    assert played.error("c") == ("UpstreamFailed", "upstream", "no step before it completed: a failed, b did not run")
    assert played.one(runs.RunFailed).step == "c"


def test_a_run_of_which_every_step_was_skipped_completes() -> None:
    played = Played({"key": "a", "agent": "x", "when": "false"})
    assert isinstance(played.events[-1], runs.RunCompleted) and not played.events[-1].degraded


def test_the_last_failure_is_that_of_the_run_also_where_it_came_before() -> None:
    steps = [{"key": "a", "agent": "x", "on_failure": "continue"}, {"key": "w", "wait": {"s": 1}, "when": "true"}]
    played = Played(*steps, {"key": "z", "agent": "y", "on_failure": "continue"})
    played.fails("a")
    played.do(runs.EndWait(run_id=RUN, step="w"))
    assert played.run.status == "running"
    played = Played(
        {"key": "a", "agent": "x", "on_failure": "continue"},
        {"key": "b", "agent": "x"},
        {"key": "g", "gather": {"mode": "any"}, "after": ["a", "b"]},
    )
    played.fails("a")
    assert played.run.status == "running"


def test_a_failure_may_ask_for_compensation() -> None:
    played = Played({"key": "a", "agent": "x", "on_failure": "compensate"})
    played.fails("a")
    assert played.one(runs.StepFailed).compensate and played.one(runs.RunFailed).compensate
    played = Played({"key": "a", "agent": "x"})
    played.fails("a")
    assert not played.one(runs.StepFailed).compensate and not played.one(runs.RunFailed).compensate


# --- gathering ------------------------------------------------------------------------------------------------------------------


def gathering(mode: str, keys: str = "abc", **more: Json) -> Played:
    steps = [{"key": key, "agent": "x", "on_failure": "continue"} for key in keys]
    return Played(*steps, {"key": "z", "gather": {"mode": mode, **more}, "after": list(keys), "on_failure": "continue"})


def test_any_ends_with_enough_and_cancels_the_others() -> None:
    played = gathering("any", count=2)
    played.done("b", 2)
    played.done("c", 3)
    assert played.one(runs.StepCompleted, "z").result == {"b": 2, "c": 3}
    skipped = played.one(runs.StepSkipped)
    assert (skipped.step, skipped.reason, skipped.by, skipped.abandoned) == ("a", "not_needed", "z", (agent_run_id_of(RUN, "a"),))
    assert played.run.status == "completed" and played.run.steps["a"].agent_run_id == agent_run_id_of(RUN, "a")


def test_others_may_go_on() -> None:
    played = gathering("any", rest="wait")
    played.done("a", 1)
    assert not [e for e in played.events if isinstance(e, runs.StepSkipped)] and played.run.status == "running"


def test_any_fails_as_soon_as_too_few_can_come() -> None:
    played = gathering("any", count=2)
    played.done("a")
    played.fails("b")
    assert played.run.steps["z"].status == "pending"
    played.fails("c")
    assert played.error("z") == ("UpstreamFailed", "upstream", "1 of 3 steps completed and 0 can still do so, but 2 are needed")


def test_the_first_good_result_is_the_result() -> None:
    played = gathering("first_good", good="result > 1 && step != 'x'")
    assert played.done("a", 1)[0].judged == {"z": False}  # type: ignore[attr-defined]
    played.done("b", 2)
    assert played.one(runs.StepCompleted, "b").judged == {"z": True} and played.one(runs.StepCompleted, "z").result == 2


def test_no_good_result_is_a_failure() -> None:
    played = gathering("first_good", good="result > 9")
    played.done("a", 1)
    played.fails("b")
    played.done("c", 1)
    assert played.error("z") == ("UpstreamFailed", "upstream", "none of the results is good: 2 of 3 steps completed")


def test_what_cannot_be_judged_fails_the_step_that_judges() -> None:
    played = gathering("first_good", good="result + 1")
    played.done("a", 1)
    assert played.error("z") == (
        "PlanExpressionError",
        "permanent",
        "`good` is neither true nor false for the step 'a': result + 1",
    )
    played = gathering("vote", by="result.no")
    played.done("a", {})
    assert played.error("z")[2] == '`by` cannot be evaluated: Key not found in map : "no"; the expression is: result.no'


@pytest.mark.parametrize(
    ("votes", "after", "result"),
    [
        ([1, 1], 2, 1),
        ([1, 2, 2], 3, 2),
        ([1, 2, 3], 3, 1),
        ([1, 2, 2, 1, 3], 5, 1),
        ([3, 1, 2, 2, 1], 5, 1),
        ([1, 2, 2, 2], 4, 2),
        ([1, 2, 1, 2, 2], 5, 2),
        ([1, 1, 2, 1], 4, 1),
    ],
)
def test_the_vote_that_no_other_can_catch_up_with_wins(votes: list[int], after: int, result: int) -> None:
    """Of several with most votes, the one that came first."""
    sizes = {2: 3, 3: 3, 4: 5, 5: 5}
    played = gathering("vote", "abcde"[: sizes[len(votes)]])
    for number, (key, vote) in enumerate(zip("abcde", votes, strict=False), 1):
        played.done(key, vote)
        assert (played.run.steps["z"].status == "completed") == (number >= after), number
    assert played.run.steps["z"].result == result


def test_a_large_vote_is_told_by_its_hash() -> None:
    played = gathering("vote", rest="wait")
    [done, *_] = played.done("a", "x" * 998)
    assert done.judged == {"z": "x" * 998}  # type: ignore[attr-defined]
    [done, *_] = played.done("b", "x" * 999)
    assert done.judged["z"].startswith("sha256:") and len(done.judged["z"]) == 71  # type: ignore[attr-defined]


def test_all_gathers_what_completed() -> None:
    played = gathering("all")
    played.done("a", 1)
    played.fails("b")
    played.done("c", 3)
    assert played.one(runs.StepCompleted, "z").result == {"a": 1, "c": 3}
    played = gathering("all", "a")
    played.fails("a")
    assert played.error("z")[2] == "every step before it failed: a"
    assert (
        Played({"key": "a", "agent": "x", "when": "false"}, {"key": "z", "gather": {"mode": "all"}, "after": ["a"]})
        .one(runs.StepSkipped, "z")
        .reason
        == "upstream"
    )
    big = gathering("all", "ab")
    big.done("a", "x" * 150_000)
    big.done("b", "x" * 150_000)
    assert big.error("z")[2].startswith("the gathered result is too large: 300,0")


# --- lists and loops ------------------------------------------------------------------------------------------------------------


def test_an_empty_list_is_done_at_once() -> None:
    played = Played({"key": "a", "agent": "x", "each": {"over": "input"}}, input=[])
    assert played.one(runs.StepStarted).items == () and played.one(runs.StepCompleted).result == []
    assert played.one(runs.StepCompleted).agent_run_id is None


def test_parts_have_the_fields_of_their_step() -> None:
    step = {
        "key": "a", "agent": "x", "agent_version": "3", "each": {"over": "input"}, "timeout_s": 9, "retry": {"max_attempts": 2},
        "priority": "high",
        "fallbacks": [{"agent": "y", "agent_version": "4"}],
    }  # fmt: skip
    played = Played(step, input=["i"], versions_asked=("a", "a.fallback.1"))
    part = played.one(runs.PartScheduled)
    assert (part.agent, part.agent_version, part.version_asked, part.input, part.part) == ("x", "3", True, "i", 0)
    assert (part.timeout_s, part.retry.max_attempts, part.priority, part.child_id) == (9, 2, "high", None)
    assert part.agent_run_id == agent_run_id_of(RUN, "a.0")
    played.fails("a.0")
    back = played.one(runs.StepFellBack)
    assert (back.part, back.agent, back.number, back.execution_id, back.error) == (0, "y", 1, part.agent_run_id, BROKEN)
    again = played.one(runs.PartScheduled)
    assert (again.agent, again.agent_version, again.version_asked, again.input, again.timeout_s) == ("y", "4", True, "i", 9)
    assert again.agent_run_id == agent_run_id_of(RUN, "a.0", 1) != part.agent_run_id
    assert played.do(runs.CompleteStep(run_id=RUN, step="a.0", agent_run_id=part.agent_run_id)) == [], "the one before is over"


def test_a_fallback_of_a_step_has_its_fields() -> None:
    step = {
        "key": "a",
        "agent": "x",
        "timeout_s": 9,
        "retry": {"max_attempts": 2},
        "input_from": "input + 1",
        "fallbacks": [{"agent": "y"}],
    }
    played = Played(step, input=1, priority="low")
    first = played.one(runs.StepScheduled)
    played.fails("a")
    again = played.one(runs.StepScheduled)
    assert (again.agent, again.agent_version, again.version_asked, again.mapped, again.input) == ("y", None, False, True, 2)
    assert (again.timeout_s, again.retry.max_attempts, again.priority) == (9, 2, "low")
    assert played.one(runs.StepFellBack).part is None
    assert played.do(runs.FailStep(run_id=RUN, step="a", agent_run_id=first.agent_run_id, error=BROKEN)) == []
    failed = played.fails("a")
    assert isinstance(failed[0], runs.StepFailed) and failed[0].agent_run_id == again.agent_run_id and not failed[0].abandoned


def test_what_is_mapped_at_once_is_bounded() -> None:
    """The inputs of a list, of which each is large, begin after one another."""
    played = Played(
        {"key": "a", "agent": "x", "each": {"over": "input.l"}, "input_from": "input.big"},
        input={"l": [1] * 10, "big": "x" * 150_000},
    )
    assert len([e for e in played.events if isinstance(e, runs.PartScheduled)]) == 4
    assert len([e for e in played.done("a.0") if isinstance(e, runs.PartScheduled)]) == 4


def test_a_tolerated_item_is_null_and_named() -> None:
    played = Played({"key": "a", "agent": "x", "each": {"over": "input", "on_failure": "continue"}}, input=[1, 2])
    assert played.fails("a.0")[0].tolerated  # type: ignore[attr-defined]
    played.done("a.1", 2)
    done = played.one(runs.StepCompleted)
    assert (done.result, done.without) == ([None, 2], (0,))
    played = Played({"key": "a", "agent": "x", "each": {"over": "input"}}, input=[1, 2])
    other = played.id_of("a.1")
    [part, failed, ended] = played.fails("a.0")
    assert isinstance(part, runs.PartFailed) and not part.tolerated
    assert isinstance(failed, runs.StepFailed) and failed.abandoned == (other,) and failed.agent_run_id is None
    assert isinstance(ended, runs.RunFailed) and ended.abandoned == ()


def test_the_results_of_a_list_are_bounded() -> None:
    played = Played({"key": "a", "agent": "x", "each": {"over": "input"}}, input=[1, 2])
    played.done("a.0", "x" * 150_000)
    played.done("a.1", "x" * 150_000)
    assert played.error("a")[2].startswith("the list of the results is too large: 300,0")


def test_a_loop_that_its_condition_does_not_end() -> None:
    def loop(**repeat: Json) -> Played:
        played = Played({"key": "a", "agent": "x", "repeat": {"times": 2, **repeat}}, input=7)
        assert played.one(runs.StepStarted).form == "repeat" and played.one(runs.PartScheduled).input == 7
        played.done("a.0", 8)
        assert (played.one(runs.PartScheduled).part, played.one(runs.PartScheduled).input) == (1, 8)
        played.done("a.1", 9)
        return played

    assert (loop().one(runs.StepCompleted).exhausted, loop().run.steps["a"].result) == (False, 9)
    assert loop(until="result > 9 || iteration > 2").one(runs.StepCompleted).exhausted
    failed = loop(until="result > 9", exhausted="fail").error("a")
    assert failed == ("LoopExhausted", "permanent", "`until` was false 2 times; the expression is: result > 9")
    assert not loop(until="iteration == 2", exhausted="fail").one(runs.StepCompleted).exhausted
    played = Played({"key": "a", "agent": "x", "repeat": {"times": 2, "until": "result"}})
    played.done("a.0", 1)
    assert played.error("a")[2] == "`until` is neither true nor false; the expression is: result"


def test_a_loop_knows_its_iteration_and_its_last_result() -> None:
    played = Played({"key": "a", "agent": "x", "repeat": {"times": 2}, "input_from": {"n": "iteration", "l": "last"}})
    assert played.one(runs.PartScheduled).input == {"n": 1, "l": None}
    played.done("a.0", "r")
    assert played.one(runs.PartScheduled).input == {"n": 2, "l": "r"}


# --- child runs -----------------------------------------------------------------------------------------------------------------


def test_a_child_run_has_what_its_parent_says() -> None:
    step = {"key": "a", "run": {"plan": BODY, "workflow": "w", "version": 3, "versions_asked": ["inner"]}, "priority": "high"}
    played = Played(step, input=5, metadata={"m": 1}, compensate="on_failure")
    part = played.one(runs.PartScheduled)
    assert (part.child_id, part.agent_run_id, part.plan, part.versions_asked) == (child_id_of(RUN, "a", 0), None, BODY, ("inner",))
    assert (part.workflow, part.input, part.project_id, part.metadata) == (
        runs.WorkflowRef(name="w", version=3),
        5,
        PROJECT,
        {"m": 1},
    )
    assert (part.compensate, part.compensable, part.depth, part.priority) == ("on_failure", True, 1, "high")
    assert played.run.children == (part.child_id,) and played.run.under_way == ()
    [completed, *_] = played.child("a.0", {"r": 1})
    assert completed == runs.PartCompleted(step="a", part=0, execution_id=part.child_id, result={"r": 1})
    assert played.one(runs.StepCompleted).result == {"r": 1}


def test_effects_of_children_are_noted_only_where_a_rule_may_take_them_back() -> None:
    child = {"key": "a", "run": {"plan": BODY}}
    assert not Played(child).one(runs.PartScheduled).compensable
    assert Played(child, {"key": "b", "value": "1", "on_failure": "compensate"}).one(runs.PartScheduled).compensable
    for compensable in (True, False):
        parent = runs.Parent(run_id=RUN, step="s", part=0, depth=2, compensable=compensable)
        part = Played(child, parent=parent).one(runs.PartScheduled)
        assert (part.compensable, part.depth) == (compensable, 3)


def test_runs_in_runs_have_a_bound() -> None:
    def parent(depth: int) -> runs.Parent:
        return runs.Parent(run_id=RUN, step="s", part=0, depth=depth)

    assert Played({"key": "a", "run": {"plan": BODY}}, parent=parent(MAX_DEPTH - 1)).run.status == "running"
    told = Played({"key": "a", "run": {"plan": BODY}}, parent=parent(MAX_DEPTH)).error("a")
    assert told == ("TooDeep", "permanent", "runs are nested 8 levels deep, which are the most")


def test_what_was_not_looked_up_fails_its_step() -> None:
    told = Played({"key": "a", "run": {"workflow": "w"}}).error("a")
    assert told == ("UnknownWorkflow", "permanent", "its workflow was not looked up when the run started")
    for form in ({}, {"each": {"over": "[1]"}}, {"repeat": {"times": 1}}, {"adaptive": {"agents": [{"agent": "x"}]}}):
        told = Played({"key": "a", "capability": "c", **form}).error("a")
        assert told == ("UnknownCapability", "permanent", "no agent with the capability 'c' was looked up when the run started")


def test_the_result_of_a_run() -> None:
    parent = runs.Parent(run_id=RUN, step="s", part=0)

    def end(*steps: Json, **more: Any) -> Any:
        return Played(*steps, **more).events[-1]

    one, two, none = ({"key": "a", "value": "1"}, {"key": "b", "value": "2"}, {"key": "c", "value": "3", "when": "false"})
    assert end(one, parent=parent).result == 1 and end(one, two, none, parent=parent).result == {"a": 1, "b": 2}
    assert end(one, parent=parent).parent == parent and end(one).result is None
    assert end(one, two, result="steps.a.result + steps.b.result").result == 3
    failed = end(one, two, result="input.no")
    assert failed.step == "b" and failed.error.message.startswith("the plan's `result` cannot be evaluated: ")
    assert end(one, result="input", input="x" * 199_999).error.message.startswith("the run's result is too large: 200,001")
    cancelled = Played({"key": "a", "agent": "x"}, parent=parent).do(runs.AbandonRun(run_id=RUN, reason="enough"))
    assert cancelled == [runs.RunCancelled(reason="enough", abandoned=(agent_run_id_of(RUN, "a"),), parent=parent)]
    [ended] = Played({"key": "a", "agent": "x"}, parent=parent, compensate="on_cancel").do(runs.AbandonRun(run_id=RUN))
    assert isinstance(ended, runs.RunCancelled) and ended.compensate
    assert Played(one).do(runs.AbandonRun(run_id=RUN)) == []
    big = [{"key": key, "value": "input"} for key in "ab"]
    assert end(*big, parent=parent, input="x" * 150_000).error.message.startswith("the run's result is too large: 300,0")


@pytest.mark.parametrize("form", [{"repeat": {"times": 2}}, {"adaptive": {"agents": [{"agent": "x"}]}}, {"run": {"plan": BODY}}])
def test_an_input_that_no_part_can_have_fails_the_step(form: Json) -> None:
    step = {"key": "a", **form} if "run" in form else {"key": "a", "agent": "x", **form}
    assert Played(step, input="x" * 200_000).error("a")[2].startswith("its input is too large: 200,0")


def test_the_next_time_of_a_loop_needs_a_result_that_can_be_passed_on() -> None:
    played = Played({"key": "a", "agent": "x", "repeat": {"times": 2}})
    played.done("a.0", "x" * 200_000)
    assert played.error("a")[2].startswith("its input is too large: 200,002")


def test_a_child_run_must_fit_into_an_event_with_its_input() -> None:
    told = Played(
        {"key": "a", "run": {"plan": BODY}, "each": {"over": "input"}}, input=["x" * 150_000], metadata={"m": "y" * 60_000}
    ).error("a")
    assert told[0] == "TooLarge" and told[2].startswith("the child run with its input is too large: 210,")


def test_a_result_that_is_too_large_to_be_judged() -> None:
    played = gathering("vote")
    played.done("a", "x" * 200_000)
    assert played.error("z") == (
        "TooLarge",
        "permanent",
        "the result of the step 'a' is too large: 200,002 bytes of JSON, a run can pass on 200,000",
    )
    parent = runs.Parent(run_id=RUN, step="s", part=0)
    child = Played({"key": "a", "agent": "x"}, parent=parent)
    child.done("a", "x" * 200_000)
    assert child.one(runs.RunFailed).error.message.startswith("the run's result is too large: 200,002")


def test_votes_that_many_steps_look_at_are_told_by_their_hashes() -> None:
    def judged(number: int, vote: str) -> dict[str, Json]:
        steps = [{"key": f"z{n}", "gather": {"mode": "vote", "rest": "wait"}, "after": ["a", "b"]} for n in range(number)]
        played = Played({"key": "a", "agent": "x"}, {"key": "b", "agent": "x"}, *steps)
        found: dict[str, Json] = played.done("a", vote)[0].judged  # type: ignore[attr-defined]
        assert len(found) == number
        return found

    assert judged(20, "x" * 99)["z0"] == "x" * 99 and judged(21, "x" * 69)["z0"] == "x" * 69
    assert judged(21, "x" * 70)["z0"].startswith("sha256:")


# --- adaptive -------------------------------------------------------------------------------------------------------------------

LEAD = {
    "key": "a",
    "agent": "x",
    "adaptive": {"agents": [{"agent": "y", "agent_version": "2"}, {"agent": "z"}], "max_steps": 3, "max_rounds": 2},
}
ANSWER = "the answer of the step's agent cannot be carried out: "


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (5, 'an adaptive agent answers with {"steps": [...]} or with {"result": ...}'),
        ({}, 'an adaptive agent answers with {"steps": [...]} or with {"result": ...}'),
        ({"steps": [], "result": 1}, 'an adaptive agent answers with {"steps": [...]} or with {"result": ...}'),
        ({"steps": []}, '`steps` is a list of one step or more, each as {"key": "read", "agent": "reader"}'),
        ({"steps": 1}, '`steps` is a list of one step or more, each as {"key": "read", "agent": "reader"}'),
        ({"steps": [1]}, '/steps/0 is no step: a step is as {"key": "read", "agent": "reader"}'),
        ({"steps": [{"key": "k", "agent": "q"}]}, '/steps/0/agent: it may name y, z, not "q"'),
        ({"steps": [{"key": "k"}]}, "/steps/0/agent: it may name y, z, not null"),
        (
            {"steps": [{"key": "k", "agent": "y", "run": {}}]},
            "/steps/0/run: a named step has `key`, `agent`, `after`, `input`, `input_from`, `when`, `timeout_s`, `retry`, "
            "`on_failure`, and no more",
        ),
        (
            {"steps": [{"key": f"k{n}", "agent": "y"} for n in range(4)]},
            "it named 4 steps so far; 3 are the most of all rounds together",
        ),
        (
            {"steps": [{"key": "k", "agent": "y", "after": ["no"]}]},
            "/steps: Value error, step 'k' comes after 'no', which is not a step of the plan",
        ),
    ],
)
def test_an_answer_that_cannot_be_carried_out_is_told_to_its_author(answer: Json, message: str) -> None:
    played = Played(LEAD)
    played.done("a.0", answer)
    assert played.error("a") == ("AdaptiveAnswer", "permanent", ANSWER + message)


def test_rounds_are_bounded_and_steps_are_counted_over_all_of_them() -> None:
    played = Played({**LEAD, "input_from": "input + 1"}, input=1, versions_asked=("a", "a.named.0"))
    assert played.one(runs.PartScheduled).version_asked and played.one(runs.PartScheduled).agent == "x"
    played.done("a.0", {"steps": [{"key": "k", "agent": "y"}, {"key": "l", "agent": "z"}]})
    part = played.one(runs.PartScheduled)
    assert part.plan == {"steps": [{"key": "k", "agent": "y", "agent_version": "2"}, {"key": "l", "agent": "z"}]}
    assert (part.part, part.input, part.versions_asked, part.workflow) == (1, 2, ("k",), None)
    played.child("a.1", {"k": 1, "l": 2})
    assert played.one(runs.PartScheduled).input == {"input": 2, "round": 2, "results": {"k": 1, "l": 2}}
    played.done("a.2", {"steps": [{"key": "k", "agent": "y"}]})
    assert played.error("a")[2] == ANSWER + 'it named steps in round 2, the last one: answer with {"result": ...} by then'
    more = Played({**LEAD, "adaptive": {**LEAD["adaptive"], "max_rounds": 5}})  # type: ignore[dict-item]
    more.done("a.0", {"steps": [{"key": "k", "agent": "y"}]})
    more.child("a.1", 1)
    assert more.one(runs.PartScheduled).input["results"] == {"k": 1}
    more.done("a.2", {"steps": [{"key": "k", "agent": "y"}, {"key": "l", "agent": "y", "after": ["k"]}]})
    more.child("a.3", 5)
    assert more.one(runs.PartScheduled).input == {"input": None, "round": 3, "results": {"l": 5}}
    more.done("a.4", {"steps": [{"key": "k", "agent": "y"}]})
    assert more.error("a")[2] == ANSWER + "it named 4 steps so far; 3 are the most of all rounds together"


# --- waits ----------------------------------------------------------------------------------------------------------------------


def test_a_wait_says_what_it_waits_for_and_its_timer() -> None:
    started = Played({"key": "a", "wait": {"s": 5}}).one(runs.StepStarted)
    assert (started.form, started.delay_s, started.until) == ("wait", 5, None)
    assert runs.scheduled_by(started, RUN) == Scheduled(5, EndWait(run_id=RUN, step="a"))
    at = Played({"key": "a", "wait": {"until": "input"}}, input="2026-11-30T08:00:00Z").one(runs.StepStarted)
    then = datetime(2026, 11, 30, 8, tzinfo=UTC)
    assert at.until == then and runs.scheduled_by(at, RUN) == Scheduled(0, EndWait(run_id=RUN, step="a"), then)
    assert runs.scheduled_by(runs.StepStarted(step="a", form="each"), RUN) is None
    assert runs.scheduled_by(runs.RunCompleted(), RUN) is None


def test_only_a_waiting_step_ends_with_its_time() -> None:
    played = Played({"key": "a", "agent": "x", "repeat": {"times": 1}}, {"key": "w", "wait": {"s": 5}})
    assert played.do(EndWait(run_id=RUN, step="a")) == []
    assert played.do(EndWait(run_id=RUN, step="w")) == [runs.StepCompleted(step="w", agent_run_id=None)]
    assert played.do(EndWait(run_id=RUN, step="w")) == []


# --- plans that are none --------------------------------------------------------------------------------------------------------


def nested(depth: int) -> Json:
    return {"steps": [{"key": "s", "run": {"plan": nested(depth - 1)}} if depth > 1 else {"key": "s", "agent": "x"}]}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [{"key": "r", "agent": "x", "each": {"over": "input"}}, {"key": "r.0", "agent": "x"}],
            "the key 'r.0' is that of a part of the step 'r'",
        ),
        (
            [{"key": "r", "run": {"plan": {"steps": []}}}],
            "the plan of the step 'r' is none: /steps Tuple should have at least 1 item",
        ),
        (
            [{"key": "r", "run": {"plan": {"steps": [{"key": "s"}]}}}],
            "the plan of the step 'r' is none: /steps/0 Value error, give exactly one of",
        ),
        ([{"key": "r", "gather": {"mode": "all"}}], "`gather` needs steps before it: name them in `after`"),
        (
            [{"key": "a", "agent": "x"}, {"key": "r", "gather": {"mode": "any", "count": 2}, "after": ["a"]}],
            "`count` is 2, and only 1 steps come before",
        ),
        (
            [{"key": "a", "agent": "x"}, {"key": "r", "gather": {"mode": "all"}, "after": ["a"], "when": "true"}],
            "`when` is not for a step with `gather`",
        ),
        ([{"key": "r", "agent": "x", "each": {"over": "input"}, "input": 1}], "`input` is not for a step with `each`"),
        (
            [{"key": "r", "run": {"plan": BODY}, "fallbacks": [{"agent": "y"}]}],
            "`fallbacks` are for a step with an agent or a capability",
        ),
        (nested(MAX_DEPTH + 1)["steps"], "plans are nested 9 levels deep; 8 are the most"),
        (
            [{"key": f"s{n}", "run": {"plan": BODY}} for n in range(501)],
            "the plan and those in it have 1,002 steps; 1,000 are the most",
        ),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(steps: list[Json], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({"steps": steps})
    assert message in str(caught.value)


def test_a_plan_knows_the_plans_in_it() -> None:
    plan = Plan.model_validate(nested(MAX_DEPTH))
    assert (plan.depth, plan.number) == (8, 8)
    step = Step.model_validate({"key": "s", "run": {"plan": BODY}})
    changed = step.model_copy(update={"run": plans.ChildRun(plan={"steps": [{"key": "other", "agent": "x"}]})})
    assert body_of(step).steps[0].key == "inner" and body_of(changed).steps[0].key == "other"
    assert [Plan.model_validate({"steps": [{"key": "r.0", "agent": "x"}, {"key": "r", "agent": "y"}]}).depth] == [1]


def test_a_part_is_known_by_its_key() -> None:
    played = Played({"key": "r", "agent": "x", "each": {"over": "input"}}, {"key": "s", "agent": "y"}, input=[1])
    run = played.run
    assert run.place("r.0") == ("r", 0) and run.place("r.7") == ("r", 7) and run.place("r") == ("r", None)
    for other in ("r.x", "r.01", "s.0", "q.0", "q", "r.-1", "r."):
        assert run.place(other) is None, other
    assert run.recipient("r.0") == "r.0" and run.recipient("x") == "r" and run.recipient("q.0") is None
    assert run.has_begun("r.0") and not run.has_begun("r.1") and run.has_begun("r")
