"""Child runs, adaptive steps and waits with good and bad values, and plans that are none, word for word."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from domain import plans, runs
from domain.kernel import Json, Scheduled
from domain.plans import MAX_DEPTH, Plan, Step, body_of
from domain.runs import EndWait, agent_run_id_of, child_id_of
from tests.kit.played_plans import BODY, PROJECT, RUN, Played, gathering

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
    assert played.one(runs.PartScheduled).input == {
        "input": 2,
        "round": 2,
        "results": {"k": 1, "l": 2},
        "history": [
            {"round": 1, "steps": [{"key": "k", "agent": "y"}, {"key": "l", "agent": "z"}], "results": {"k": 1, "l": 2}},
        ],
    }
    played.done("a.2", {"steps": [{"key": "k", "agent": "y"}]})
    assert played.error("a")[2] == ANSWER + 'it named steps in round 2, the last one: answer with {"result": ...} by then'
    more = Played({**LEAD, "adaptive": {**LEAD["adaptive"], "max_rounds": 5}})  # type: ignore[dict-item]
    more.done("a.0", {"steps": [{"key": "k", "agent": "y"}]})
    more.child("a.1", 1)
    assert more.one(runs.PartScheduled).input["results"] == {"k": 1}
    more.done("a.2", {"steps": [{"key": "k", "agent": "y"}, {"key": "l", "agent": "y", "after": ["k"]}]})
    more.child("a.3", 5)
    assert more.one(runs.PartScheduled).input == {
        "input": None,
        "round": 3,
        "results": {"l": 5},
        "history": [
            {"round": 1, "steps": [{"key": "k", "agent": "y"}], "results": {"k": 1}},
            {"round": 2, "steps": [{"key": "k", "agent": "y"}, {"key": "l", "agent": "y"}], "results": {"l": 5}},
        ],
    }
    more.done("a.4", {"steps": [{"key": "k", "agent": "y"}]})
    assert more.error("a")[2] == ANSWER + "it named 4 steps so far; 3 are the most of all rounds together"


@pytest.mark.parametrize(
    ("given", "gets"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"b": 3}, {"a": 0, "b": 3}),
        (None, {"a": 0, "b": 2}),
        ({}, {"a": 0, "b": 2}),
        ([1], [1]),
        (5, 5),
    ],
)
def test_the_child_of_a_workflow_gets_defaults_where_it_is_given_an_object_or_nothing(given: Json, gets: Json) -> None:
    played = Played({"key": "a", "run": {"plan": BODY, "workflow": "w", "version": 1, "defaults": {"a": 0, "b": 2}}}, input=given)
    assert played.one(runs.PartScheduled).input == gets
    assert Played({"key": "a", "run": {"plan": BODY}}).one(runs.PartScheduled).input is None


def test_what_is_large_is_not_seen_again_and_what_does_not_fit_is_left_out() -> None:
    """A history must not be what a step fails for."""
    adaptive = {"agents": [{"agent": "y"}], "max_rounds": 10, "max_steps": 10}
    fits, large = "x" * (16 * 1024 - len('{"k":""}')), "x" * (16 * 1024 - len('{"k":""}') + 1)
    played = Played({"key": "a", "agent": "x", "adaptive": adaptive}, input="i" * 150_000)
    for number, result in enumerate((large, fits, fits, fits, fits), 1):
        played.done(f"a.{2 * number - 2}", {"steps": [{"key": "k", "agent": "y"}]})
        played.child(f"a.{2 * number - 1}", result)
        asked = played.one(runs.PartScheduled).input
        assert (asked["round"], asked["results"]) == (number + 1, {"k": result})
        if number == 1:
            assert asked["history"] == [{"round": 1, "steps": [{"key": "k", "agent": "y"}], "results": None}]
        if number == 2:
            assert [one["results"] for one in asked["history"]] == [None, {"k": fits}]
    assert [one["round"] for one in asked["history"]] == [4, 5]


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


def test_who_may_get_mail() -> None:
    steps = [
        {"key": "r", "agent": "x", "each": {"over": "input", "max_parallel": 1}, "fallbacks": [{"agent": "y"}]},
        {"key": "v", "value": "1"},
        {"key": "s", "agent": "y", "when": "false"},
        {"key": "t", "agent": "z", "fallbacks": [{"agent": "y"}], "on_failure": "continue"},
        {"key": "u", "agent": "z", "after": ["t"], "on_failure": "continue"},
    ]
    played = Played(*steps, input=[1, 2])
    why = played.run.cannot_get_mail
    assert why("v") == "step 'v' has no agent" and why("r") == "step 'r' has parts: write to 'r.0', 'r.1' …"
    assert why("s") == "step 's' is skipped: it never begins" and why("t") is None and why("u") is None
    assert why("r.0") is None and why("r.1") is None, "it may begin yet"
    played.fails("t")
    assert played.run.agent_run_of(RUN, "t") == agent_run_id_of(RUN, "t", 1) == played.id_of("t")
    played.fails("r.0")
    assert played.run.agent_run_of(RUN, "r.0") == agent_run_id_of(RUN, "r.0", 1) == played.id_of("r.0")
    assert played.run.agent_run_of(RUN, "r.1") == agent_run_id_of(RUN, "r.1")
    played.fails("t")
    assert played.run.cannot_get_mail("t") is None, "its agent run knows its end"
    played.done("r.0")
    assert not played.run.has_begun("r.2") and played.run.has_begun("r.1")
    played.done("r.1")
    assert played.run.cannot_get_mail("r.2") == "step 'r' is completed" and played.run.has_begun("r.7")
