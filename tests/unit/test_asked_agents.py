"""Parameters that name agents: who starts a workflow may say which agent does some of its steps."""

from typing import Any

import pytest

from application.workflows.asked_agents import keys_with_agents, with_asked_agents
from domain.errors import InvalidCommand
from domain.plans import Plan
from domain.workflows import WorkflowDefinition

PLAN = Plan.model_validate(
    {
        "steps": [
            {"key": "a", "agent": "one", "agent_version": "1"},
            {"key": "b", "run": {"plan": {"steps": [{"key": "a", "agent": "one"}, {"key": "c", "agent": "two"}]}}},
            {"key": "d", "run": {"workflow": "w", "plan": {"steps": [{"key": "a", "agent": "one"}]}}},
            {"key": "e", "value": "1"},
        ]
    }
)


def asked(input: Any, **parameters: list[str]) -> Any:
    return with_asked_agents(PLAN, parameters, input).model_dump(mode="json", exclude_defaults=True)["steps"]


def test_a_parameter_chooses_the_agent_of_steps_in_all_inner_plans_but_those_of_workflows() -> None:
    before = PLAN.model_dump(mode="json", exclude_defaults=True)["steps"]
    changed = asked({"by": "three"}, by=["a"])
    assert changed[0] == {"key": "a", "agent": "three"}, "the version was that of the other agent"
    assert changed[1]["run"]["plan"]["steps"] == [{"key": "a", "agent": "three"}, {"key": "c", "agent": "two"}]
    assert changed[2:] == before[2:]
    assert asked({"by": "three@2"}, by=["c"])[1]["run"]["plan"]["steps"][1] == {"key": "c", "agent": "three", "agent_version": "2"}
    assert asked({"by": "one"}, by=["a"])[0] == before[0], "the agent of the plan keeps its version"
    assert asked({"by": "one@2"}, by=["a"])[0] == {"key": "a", "agent": "one", "agent_version": "2"}


@pytest.mark.parametrize("input", [None, [], {}, {"by": None}, {"other": "x"}, {"by": "two"}])
def test_a_plan_stays_the_same_object_where_nothing_is_chosen(input: Any) -> None:
    assert with_asked_agents(PLAN, {"by": ["c"]}, input) is PLAN


@pytest.mark.parametrize("name", [1, True, "", "Not a name", "a b", "a@", "@1", "a" * 101, "a@" + "1" * 501, "a\n"])
def test_what_is_no_name_of_an_agent_is_refused(name: Any) -> None:
    with pytest.raises(InvalidCommand) as refused:
        asked({"b/y": name}, **{"b/y": ["a"]})
    assert (refused.value.message, refused.value.pointer) == ("it is no name of an agent, as `writer` or `writer@2`", "/input/b~1y")


def test_the_command_of_a_workflow_is_said_only_where_there_is_one() -> None:
    plain = WorkflowDefinition.model_validate({"plan": {"steps": [{"key": "a", "agent": "one"}]}, "command": {"help": "H"}})
    assert plain.said()["command"] == {"help": "H"}


def test_the_steps_with_an_agent_are_those_of_the_plan_and_of_the_plans_in_it() -> None:
    assert list(keys_with_agents(PLAN.model_dump(mode="json"))) == ["a", "a", "c"]
    assert list(keys_with_agents(None)) == []
