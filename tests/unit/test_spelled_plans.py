"""Short forms of plans are spelled out; whatever is none stays as it is."""

import pytest

from application.plans.spelling import of_versions, side_by_side, spelled_plan, spelled_step
from domain.plans import Gather, Plan, parallel, sequential


def test_an_agent_with_its_version_is_a_name_and_a_version():
    assert spelled_step({"key": "a", "agent": "critic@2"}) == {"key": "a", "agent": "critic", "agent_version": "2"}
    assert spelled_step({"key": "a", "agent": "critic"}) == {"key": "a", "agent": "critic"}
    assert spelled_step({"key": "a", "agent": "critic@1@x"})["agent_version"] == "1@x"


def test_a_step_that_says_its_version_twice_stays_as_it_is_and_is_refused_later():
    said = {"key": "a", "agent": "critic@2", "agent_version": "3"}
    assert spelled_step(said) == said


def test_fallbacks_and_the_agents_of_an_adaptive_step_are_texts_or_objects():
    step = {
        "key": "a", "agent": "critic", "fallbacks": ["second@1", "third", {"agent": "fourth@4"}, 5],
        "adaptive": {"agents": ["critic@2", {"agent": "writer"}], "max_steps": 3},
    }  # fmt: skip
    spelled = spelled_step(step)
    assert spelled["fallbacks"] == [
        {"agent": "second", "agent_version": "1"}, {"agent": "third"}, {"agent": "fourth", "agent_version": "4"}, 5,
    ]  # fmt: skip
    assert spelled["adaptive"] == {
        "agents": [{"agent": "critic", "agent_version": "2"}, {"agent": "writer"}], "max_steps": 3,
    }  # fmt: skip
    assert step["fallbacks"][0] == "second@1", "the given plan is not changed"


def test_a_workflow_with_its_version_has_a_number():
    assert spelled_step({"key": "a", "run": {"workflow": "nightly@3"}})["run"] == {"workflow": "nightly", "version": 3}
    assert spelled_step({"key": "a", "run": {"workflow": "nightly@new"}})["run"] == {"workflow": "nightly@new"}


@pytest.mark.parametrize(
    ("inner", "keys"),
    [
        ({"kind": "sequential", "agents": ["critic@2", "writer"]}, ["critic", "writer"]),
        ({"kind": "parallel", "agents": ["critic@2", "writer"], "aggregator": "editor"}, ["critic", "writer", "editor"]),
        ({"kind": "graph", "steps": [{"key": "one", "agent": "critic@2"}]}, ["one"]),
        ({"steps": [{"key": "one", "agent": "critic@2"}]}, ["one"]),
    ],
)
def test_plans_inside_plans_become_graphs(inner, keys):
    spelled = spelled_plan({"kind": "graph", "steps": [{"key": "a", "run": {"plan": inner}}]})
    plan = Plan.model_validate(spelled["steps"][0]["run"]["plan"])
    assert [step.key for step in plan.steps] == keys
    assert (plan.steps[0].agent, plan.steps[0].agent_version) == ("critic", "2")


@pytest.mark.parametrize(
    "plan",
    [
        None, 5, {}, {"steps": 5}, {"steps": [5, None]}, {"steps": [{"agent": 5}]}, {"steps": [{"fallbacks": 5, "adaptive": 5}]},
        {"steps": [{"run": {"plan": {"kind": "spiral"}}}]},
        {"steps": [{"run": {"plan": {"kind": "sequential", "agents": ["No"]}}}]},
        {"steps": [{"run": {"plan": {"kind": "sequential", "agents": 5}}}]},
    ],
)  # fmt: skip
def test_what_is_no_short_form_stays_for_the_validation_to_tell(plan):
    assert spelled_plan(plan) == plan


def test_agents_of_a_constructor_may_be_written_with_versions():
    assert of_versions(("critic", "writer"), sequential) is sequential(("critic", "writer"))
    steps = of_versions(("critic@2", "critic"), sequential).steps
    assert [(step.key, step.agent_version) for step in steps] == [("critic", "2"), ("critic-2", None)]


def test_results_are_gathered_without_an_agent():
    *members, gather = side_by_side(("critic@2", "aggregate"), None, Gather(mode="any")).steps
    assert [(step.key, step.agent_version, step.on_failure) for step in members] == [
        ("critic", "2", "continue"), ("aggregate", None, "continue"),
    ]  # fmt: skip
    assert (gather.key, gather.after, gather.gather) == ("aggregate-2", ("critic", "aggregate"), Gather(mode="any"))
    assert side_by_side(("critic",), "editor", None) is parallel(("critic",), "editor")
    with pytest.raises(ValueError, match="either"):
        side_by_side(("critic",), "editor", Gather(mode="any"))
