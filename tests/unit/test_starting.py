"""What a schedule or a trigger starts, as people write it, and the plan that it has."""

from typing import Any

import pytest

from application.starting import plan_of, spelled_start
from domain import runs
from domain.errors import InvalidCommand
from domain.kernel import Json
from domain.starting import Target


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ({"agent": "critic@2"}, {"agent": "critic", "agent_version": "2"}),
        ({"workflow": "nightly@3", "input": 1}, {"workflow": "nightly", "version": 3, "input": 1}),
        ({"plan": {"kind": "sequential", "agents": ["a", "b@2"]}},
         {"plan": {"steps": [{"key": "a", "agent": "a"}, {"key": "b", "agent": "b", "agent_version": "2", "after": ["a"]}]}}),
        ({"plan": {"kind": "graph", "steps": [{"key": "k", "agent": "a@7"}]}},
         {"plan": {"steps": [{"key": "k", "agent": "a", "agent_version": "7"}]}}),
        ({"tool": "a@2"}, {"tool": "a@2"}),
        ({"workflow": "nightly@last"}, {"workflow": "nightly@last"}),
        (7, 7),
    ],
)  # fmt: skip
def test_short_forms_are_spelled_out(written: Json, spelled: Json) -> None:
    assert spelled_start({"name": "a@b", "start": written}) == {"name": "a@b", "start": spelled}
    assert spelled_start({"name": "n"}) == {"name": "n"}


def test_an_agent_is_a_plan_of_one_step() -> None:
    assert plan_of(Target(agent="a")) == runs.sequential(("a",))
    assert plan_of(Target(agent="a", agent_version="2")) == runs.Plan(steps=(runs.Step(key="a", agent="a", agent_version="2"),))
    steps: list[dict[str, Any]] = [{"key": "k", "agent": "a"}, {"key": "l", "agent": "a", "after": ["k"]}]
    assert [step.key for step in plan_of(Target(plan={"steps": steps})).steps] == ["k", "l"]


def test_all_faults_of_a_plan_are_told_with_their_places() -> None:
    steps: list[dict[str, Any]] = [{"key": "k", "agent": "A"}, {"key": "l", "agent": "a", "timeout_s": "5", "also": 1}]
    with pytest.raises(InvalidCommand) as refused:
        plan_of(Target(plan={"steps": steps}))
    places = [place for place, _ in refused.value.faults]
    assert places == ["/start/plan/steps/0/agent", "/start/plan/steps/1/timeout_s", "/start/plan/steps/1/also"]
    assert (refused.value.pointer, refused.value.message) == refused.value.faults[0]
    assert refused.value.faults[1][1] == "must be a number"


def test_a_target_is_stored_without_what_it_does_not_say() -> None:
    assert Target(agent="a").model_dump(mode="json") == {"agent": "a"}
    said = {"workflow": "w", "version": 2, "input": 0, "priority": "low", "compensate": "never", "metadata": {"m": 0}}
    assert Target.model_validate(said).model_dump(mode="json") == said
    for value in (False, "", [], {}):
        assert Target(agent="a", input=value).model_dump(mode="json") == {"agent": "a", "input": value}
    assert Target(agent="a", input_from={}).model_dump(mode="json") == {"agent": "a", "input_from": {}}
