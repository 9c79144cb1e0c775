"""`tidelog.plans`: what the constructors make is what the server takes."""

import json
from typing import Any

import pytest

from api.http.routes.run_bodies import StartRunBody
from domain.plans import Plan
from tidelog import plans


def taken(plan: dict[str, Any]) -> Plan:
    """The plan as the server reads it."""
    return StartRunBody.model_validate_json(json.dumps(StartRunBody.in_full({"plan": plan})), strict=True).to_plan()


def test_every_form_of_a_step_is_what_the_server_takes() -> None:
    plan = plans.graph(
        plans.agent(
            "lister@3", key="list", when="input.deep", timeout_s=5, retry={"max_attempts": 3}, priority="high",
            fallbacks=["other@1"], input={"n": 1}, on_failure="compensate",
        ),
        plans.each(
            plans.agent("critic", after="list", input_from="item"), "steps.list.result", max_parallel=5, on_failure="continue"
        ),
        plans.repeat(plans.agent("writer", input_from={"draft": "last"}), times=5, until="result.good", exhausted="fail"),
        plans.adaptive("boss@2", ["critic@2", "writer"], max_steps=7, max_rounds=2),
        plans.run("nightly@4", key="night", after=["writer"]),
        plans.each(plans.run(plans.sequential("critic", "writer"), key="inner"), "input.list"),
        plans.value("1 + 1", key="two"),
        plans.wait(60, key="pause"),
        plans.wait(until="input.at", key="later", after="pause"),
        plans.gather("any", key="some", after=["list", "critic"], count=2, rest="wait"),
        plans.gather("first_good", key="good", after=["two"], good="result > 1"),
        plans.gather("vote", key="vote", after=["two"], by="result"),
        result="steps.two.result",
    )  # fmt: skip
    made = taken(plan)
    assert made.result == "steps.two.result"
    steps = {step.key: step for step in made.steps}
    first = steps["list"]
    assert (first.agent, first.agent_version, first.when, first.timeout_s) == ("lister", "3", "input.deep", 5)
    assert (first.retry.max_attempts, first.priority, first.on_failure, first.input) == (3, "high", "compensate", {"n": 1})
    assert [(ref.agent, ref.agent_version) for ref in first.fallbacks] == [("other", "1")]
    critic, writer, boss = steps["critic"], steps["writer"], steps["boss"]
    assert critic.each is not None and (critic.each.over, critic.each.max_parallel, critic.each.on_failure, critic.input_from) == (
        "steps.list.result", 5, "continue", "item",
    )  # fmt: skip
    assert writer.repeat is not None and (writer.repeat.times, writer.repeat.until, writer.repeat.exhausted) == (
        5,
        "result.good",
        "fail",
    )
    assert boss.adaptive is not None and (boss.adaptive.max_steps, boss.adaptive.max_rounds, boss.agent_version) == (7, 2, "2")
    assert [(ref.agent, ref.agent_version) for ref in boss.adaptive.agents] == [("critic", "2"), ("writer", None)]
    night, inner = steps["night"].run, steps["inner"].run
    assert night is not None and (night.workflow, night.version) == ("nightly", 4)
    assert inner is not None and [step.key for step in Plan.model_validate(inner.plan).steps] == ["critic", "writer"]
    pause, later = steps["pause"].wait, steps["later"].wait
    assert pause is not None and later is not None and (pause.s, later.until) == (60, "input.at")
    some, good, vote = steps["some"].gather, steps["good"].gather, steps["vote"].gather
    assert some is not None and (some.mode, some.count, some.rest) == ("any", 2, "wait")
    assert good is not None and vote is not None and (good.good, vote.by) == ("result > 1", "result")


def test_members_that_stand_in_a_row_or_side_by_side() -> None:
    row = taken(plans.sequential("critic@2", plans.value("1", key="one"), "critic", plans.agent("x", after="critic")))
    assert [(step.key, step.after) for step in row.steps] == [
        ("critic", ()), ("one", ("critic",)), ("critic-2", ("one",)), ("x", ("critic",)),
    ]  # fmt: skip
    beside = taken(plans.parallel("critic", "writer", aggregator="editor"))
    assert [(step.key, step.after, step.on_failure) for step in beside.steps] == [
        ("critic", (), "continue"), ("writer", (), "continue"), ("editor", ("critic", "writer"), "fail"),
    ]  # fmt: skip
    voted = taken(plans.parallel("critic", plans.agent("aggregate", on_failure="fail"), aggregate="vote", by="result.ok"))
    assert [(step.key, step.on_failure) for step in voted.steps] == [
        ("critic", "continue"), ("aggregate", "fail"), ("aggregate-2", "fail"),
    ]  # fmt: skip
    assert voted.steps[-1].gather is not None and voted.steps[-1].gather.by == "result.ok"


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="either s or until"):
        plans.wait(key="a")
    with pytest.raises(ValueError, match="either aggregate or aggregator"):
        plans.parallel("a", aggregate="all", aggregator="b")
    with pytest.raises(ValueError, match="go with aggregate"):
        plans.parallel("a", count=2)


def test_a_capability_is_looked_for_by_the_server() -> None:
    assert plans.capability("review", after="a") == {"key": "review", "after": ["a"], "capability": "review"}


def test_a_constructor_changes_none_of_its_steps() -> None:
    step = plans.agent("critic")
    plans.sequential(step, step)
    plans.each(step, "input")
    assert step == {"key": "critic", "agent": "critic"}
