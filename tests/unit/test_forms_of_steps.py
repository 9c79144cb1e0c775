"""What each form of step does with good and bad values, word for word."""

import pytest

from domain import runs
from domain.kernel import Json
from domain.runs import agent_run_id_of
from tests.kit.played_plans import BROKEN, RUN, Played, gathering


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
    played = gathering("first_good", good="result.no")
    played.done("a", {})
    assert played.error("z")[2] == '`good` cannot be evaluated: Key not found in map : "no"; the expression is: result.no'
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


def test_votes_are_alike_whatever_the_order_of_their_fields() -> None:
    played = gathering("vote", "abc")
    played.done("a", {"x": 1, "y": 2})
    played.done("b", {"y": 2, "x": 1})
    assert played.run.steps["z"].status == "completed", "two of three are the same"


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
