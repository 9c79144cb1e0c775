"""The shipped slash commands: their files, their plans, and the example agents that they are bound to."""

from typing import Any

import pytest

from application.slash_commands.line import read_line
from application.slash_commands.parameters import input_of
from application.slash_commands.templates import NAMES, templates, text_of
from application.workflows.asked_agents import keys_with_agents
from application.workflows.written import read_workflow, write_workflow
from application.workflows.yaml_text import dump, load
from domain.plans import Plan
from examples.crew import _text, agents
from tidelog.testing import run_agent


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_command_is_a_workflow_whose_file_says_the_same_again(name: str) -> None:
    definition = templates()[name]
    written = write_workflow(name, definition.said())
    assert read_workflow(load(dump(written))) == read_workflow(load(text_of(name)))
    assert definition.command is not None and definition.command.help and definition.description


@pytest.mark.parametrize("name", NAMES)
def test_its_plan_names_agents_of_the_crew_alone(name: str) -> None:
    crew = {cls.name for cls in (agents.Planner, agents.Writer, agents.Builder, agents.Tester, agents.Critic, agents.Judge)}
    plan = templates()[name].plan.model_dump(mode="json")
    assert set(agents_of(plan)) <= crew and agents_of(plan)


def agents_of(plan: Any) -> list[str]:
    found = [step["agent"] for step in plan["steps"] if step.get("agent")]
    return found + [name for step in plan["steps"] if step.get("run") for name in agents_of(step["run"]["plan"])]


@pytest.mark.parametrize("name", NAMES)
def test_its_command_and_its_parameters_fit(name: str) -> None:
    definition = templates()[name]
    assert definition.command is not None and isinstance(definition.parameters, dict)
    properties = definition.parameters["properties"]
    assert definition.command.text == "text" and set(definition.command.agents) <= set(properties)
    keys = set(keys_with_agents(definition.plan.model_dump(mode="json")))
    assert {key for steps in definition.command.agents.values() for key in steps} <= keys
    assert input_of(read_line(f"/{name} Write it"), "text", definition.parameters) == {"text": "Write it"}
    for step in definition.plan.steps:
        if step.run is not None:
            Plan.model_validate(step.run.plan)


# --- the crew ---


async def result_of(agent: Any, **input: Any) -> Any:
    return (await run_agent(agent, input)).result


async def test_the_planner_splits_a_wish_and_sees_whether_there_is_something_to_test() -> None:
    planned = await result_of(agents.Planner, text="Export reports as CSV, and link the export; is there a page?")
    assert planned == {
        "title": "Export reports as CSV",
        "parts": ["Export reports as CSV", "Link the export", "Is there a page?"],
        "needs_tests": True,
        "questions": ["Is there a page?"],
    }
    assert not (await result_of(agents.Planner, text="Thank everybody"))["needs_tests"]
    assert (await result_of(agents.Tester, text="Export the reports. 1 2"))["tests"] == ["test_export_reports", "test_part_2"]


async def test_writers_do_what_the_critic_asks_for() -> None:
    text = "Write release notes, then send the letter"
    for agent in (agents.Writer, agents.Builder):
        first = await result_of(agent, text=text)
        review = await result_of(agents.Critic, text=text, draft=first["draft"])
        assert review == {"good": False, "notes": [_text.DONE_WHEN], "score": 75}
        second = await result_of(agent, text=text, draft=first["draft"], notes=review["notes"])
        assert (await result_of(agents.Critic, text=text, draft=second["draft"])) == {"good": True, "notes": [], "score": 100}
        third = await result_of(agent, text=text, draft=second["draft"])
        assert third == second, "what was asked for once stays"


async def test_the_critic_notes_what_is_lost_too_long_or_open() -> None:
    review = await result_of(agents.Critic, text="Paint the boat red? Now", draft="Done when\n" + "x" * 121)
    assert review["notes"] == ["say something of: paint, boat", "break the 1 lines that are longer than 120 characters", _text.OPEN]
    also = await result_of(agents.Writer, text="Paint the boat", notes=review["notes"])
    assert "## Also\n\npaint, boat" in also["draft"]


async def test_each_style_is_another_draft_and_judges_vote_by_their_criterion() -> None:
    text = "Write an invitation, then send it"
    drafts = [await result_of(agents.Writer, text=text, variant=n) for n in range(6)]
    assert len({draft["draft"] for draft in drafts[:5]}) == 5 and drafts[5]["draft"] == drafts[0]["draft"]
    votes = {
        criterion: (await result_of(agents.Judge, text=text, drafts=drafts, criterion=criterion))["best"]
        for criterion in ("short", "complete", "readable")
    }
    assert votes == {"short": 2, "complete": 0, "readable": 0}


@pytest.mark.parametrize(
    ("agent", "input", "told"),
    [
        (agents.Writer, {"text": ""}, "text: String should have at least 1 character"),
        (agents.Planner, {}, "text: Field required"),
        (agents.Judge, {"text": "a"}, "there is nothing to choose among"),
        (agents.Judge, {"text": "a", "drafts": [{}], "criterion": "loud"}, "there is no criterion 'loud'"),
    ],
)
async def test_what_the_crew_cannot_use_fails_at_once(agent: Any, input: dict[str, Any], told: str) -> None:
    with pytest.raises(Exception, match=told):
        await run_agent(agent, input)
