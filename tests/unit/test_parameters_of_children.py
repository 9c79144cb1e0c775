"""What a step maps into a child workflow, held against the parameters of that."""

from typing import Any

import pytest

from domain.errors import InvalidCommand
from domain.plans import ChildRun, Plan, Step
from domain.workflows import defaults_of
from tests.unit.test_starting_workflows import FIRST, Process
from tests.unit.test_starting_workflows import process as process


async def test_what_is_mapped_must_fit_the_parameters_of_a_child_when_a_workflow_is_published(process: Process) -> None:
    properties = {"limit": {"type": "integer"}, "topic": {"type": "string"}}
    closed = {"type": "object", "properties": properties, "required": ["topic"], "additionalProperties": False}
    await process.publish("inner", parameters=closed)
    inner = ChildRun(workflow="inner")
    faulty = Plan(
        steps=(
            FIRST,
            Step(key="kind", run=inner, after=("first",), input_from={"topic": "input.title", "limit": "'ten'"}),
            Step(key="name", run=inner, after=("first",), input_from={"topics": "input.title"}),
            Step(key="literal", run=inner, after=("first",), input={"topic": 5}),
            Step(key="whole", run=inner, after=("first",)),
            Step(key="unknown", agent="registered-later", after=("first",)),
        )
    )
    outer = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"], "additionalProperties": False}
    with pytest.raises(InvalidCommand) as refused:
        await process.publish("outer", parameters=outer, plan=faulty)
    assert [place for place, _ in refused.value.faults] == [
        "/plan/steps/1/input_from/limit",
        "/plan/steps/2/input_from",
        "/plan/steps/2/input_from/topics",
        "/plan/steps/3/input/topic",
        "/plan/steps/4",
    ]
    told = dict(refused.value.faults)
    assert "a text is given where" in told["/plan/steps/1/input_from/limit"]
    assert "the workflow 'inner' needs `topic`" in told["/plan/steps/2/input_from"]
    fits = Step(key="kind", run=inner, after=("first",), input_from={"topic": "input.title", "limit": "10"})
    await process.publish("outer", parameters=outer, plan=Plan(steps=(FIRST, fits)))


DEFAULTS: dict[str, Any] = {
    "type": "object",
    "properties": {"topic": {"type": "string"}, "limit": {"type": "integer", "default": 5}, "deep": True},
    "required": ["topic", "limit"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        (DEFAULTS, {"limit": 5}), ({"properties": {"a": {"default": None}}}, {"a": None}), ({"properties": []}, {}), ({}, {}),
        (None, {}), (True, {}),
    ],
)  # fmt: skip
def test_the_defaults_of_parameters(parameters: Any, found: Any) -> None:
    assert defaults_of(parameters) == found


async def test_a_child_workflow_gets_the_defaults_of_its_parameters(process: Process) -> None:
    await process.publish("inner", parameters=DEFAULTS)
    inner = Step(key="child", run=ChildRun(workflow="inner"), input_from={"topic": "'news'"})
    await process.publish("outer", plan=Plan(steps=(inner,)))
    await process.publish("inner", parameters={"properties": {"limit": {"default": 7}}})
    run_id = await process.start("outer")
    found = process.started(run_id).plan.steps[0].run
    assert found is not None and (found.version, found.defaults) == (2, {"limit": 7})
    begun = [process.started(stream) for stream, events in process.engine.log.streams.items() if events[0].topic == "run.started"]
    [child] = [event for event in begun if event.parent is not None]
    assert child.input == {"topic": "news", "limit": 7}
