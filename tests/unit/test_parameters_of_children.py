"""What a step maps into a child workflow, held against the parameters of that."""

import pytest

from domain.errors import InvalidCommand
from domain.plans import ChildRun, Plan, Step
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
