"""Starts by the name of a workflow: what a run gets, what a repeat gets, and what is refused. Over the ports in memory."""

from typing import Any

import pytest

from application.runs.start import StartedDifferently
from application.runs.terms import Terms
from application.workflows import AskedWorkflow
from application.workflows import versions as keeping
from application.workflows.checking import faults_of_definition
from application.workflows.children import MAX_PLAN_BYTES, InvalidChild
from application.workflows.start import with_defaults
from domain import runs
from domain.agents import RegisterAgent, agent_id_of
from domain.errors import InvalidCommand, InvalidState, NotFound, RepeatedDifferently, Unavailable
from domain.kernel import derive_id
from domain.plans import MAX_DEPTH, ChildRun, Plan, Step, sequential
from domain.workflows import (
    DeprecatedWorkflow,
    ReinstateWorkflow,
    SlashCommand,
    UnknownWorkflow,
    WorkflowDefinition,
    workflow_id_of,
)
from tests.kit.engine import Engine
from tests.kit.waiting import TENANT, new_id, request_of
from tests.kit.workflows import Process

PARAMETERS = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "words": {"type": "integer", "default": 100}},
    "required": ["text"],
    "additionalProperties": False,
}
SAID = {"input": {"text": "t"}}


@pytest.fixture
async def process() -> Process:
    engine = Engine()
    await engine.set_up()
    for name in ("alpha", "beta"):
        await engine.give(RegisterAgent(agent_id=agent_id_of(TENANT, name), name=name, version="1"))
    return Process(engine)


async def test_a_run_has_the_deadline_of_its_workflow_unless_its_start_says_another(process: Process) -> None:
    await process.publish(deadline_s=60.0)
    run_id = await process.start()
    assert process.deadline(run_id) == 60
    assert process.deadline(await process.start(terms=Terms(5.0))) == 5
    assert await process.start(run_id=run_id) == run_id, "a repeat"
    await process.publish(deadline_s=70.0)
    assert await process.start(run_id=run_id) == run_id, "a repeat, after the workflow has changed"
    with pytest.raises(StartedDifferently, match="with another deadline"):
        await process.start(version=1, run_id=run_id, terms=Terms(5.0))
    await process.publish()
    assert process.deadline(await process.start()) is None


FIRST = Step(key="first", agent="alpha")
"""The other steps wait for it, so that the runs of these tests rest there."""


def child(workflow: str, version: int | None = None, key: str = "c") -> Step:
    return Step(key=key, run=ChildRun(workflow=workflow, version=version), after=("first",))


def of_children(*workflows: str) -> Plan:
    return Plan(steps=(FIRST, *(child(name, key=name) for name in workflows)))


async def test_a_run_has_what_the_workflow_says_and_notes_its_version(process: Process) -> None:
    await process.publish(parameters=PARAMETERS, priority="low", compensate="on_failure", metadata={"a": 1, "b": 2})
    started = process.started(await process.start(**SAID, metadata={"b": 3}))
    assert started.workflow == runs.WorkflowRef(name="digest", version=1) and started.stored_version == 4
    assert [(step.agent, step.agent_version) for step in started.plan.steps] == [("alpha", "1")]
    assert started.input == {"text": "t", "words": 100} and started.metadata == {"a": 1, "b": 3}
    assert (started.priority, started.compensate) == ("low", "on_failure")
    said = process.started(await process.start(input={"text": "t", "words": 5}, priority="normal", compensate="never"))
    assert (said.input, said.priority, said.compensate) == ({"text": "t", "words": 5}, "normal", "never")


async def test_a_start_takes_the_current_version_or_the_one_that_is_asked_for(process: Process) -> None:
    for number in (1, 2, 3):
        await process.publish(description=str(number), metadata={"n": number})
    other = process.another()
    for version, number in ((None, 3), (1, 1), (2, 2), (3, 3), (1, 1)):
        for one in (process, other):
            started = one.started(await one.start(version=version))
            assert (started.workflow, started.metadata) == (runs.WorkflowRef(name="digest", version=number), {"n": number})
    assert sorted(other.stored.asked) == [1, 2], "the current one is in the state, and each other one is read once"
    lagging = process.another()
    lagging.stored.is_behind = True
    assert lagging.started(await lagging.start(version=2)).metadata == {"n": 2}, "from the log"


async def test_a_process_that_has_not_heard_of_a_version_starts_it_all_the_same(process: Process) -> None:
    other = process.another()
    await process.publish(metadata={"n": 1})
    await other.start()
    await process.publish(metadata={"n": 2})
    assert other.started(await other.start()).metadata == {"n": 2}
    await process.deprecate()
    with pytest.raises(DeprecatedWorkflow):
        await other.start()
    await process.engine.give(ReinstateWorkflow(workflow_id=workflow_id_of(TENANT, "digest"), name="digest"))
    assert other.started(await other.start()).metadata == {"n": 2}


async def test_what_cannot_start_is_refused_with_its_place(process: Process) -> None:
    await process.publish(parameters=PARAMETERS)
    for name, version, told in (
        ("digset", None, "there is no workflow 'digset'; did you mean 'digest'?"),
        ("unlike", None, "there is no workflow 'unlike'"),
        ("digest", 2, "workflow 'digest' has the versions 1 to 1, not 2"),
    ):
        with pytest.raises(UnknownWorkflow) as unknown:
            await process.start(name, version)
        assert (unknown.value.message, unknown.value.pointer) == (told, "/workflow")
    with pytest.raises(InvalidCommand) as invalid:
        await process.start(input={"words": "x", "more": 1})
    assert [place for place, _ in invalid.value.faults] == ["/input/words", "/input", "/input"]
    assert invalid.value.pointer == "/input/words" and invalid.value.message.startswith(
        "input of workflow 'digest': /input/words: "
    )
    await process.deprecate()
    with pytest.raises(DeprecatedWorkflow) as deprecated:
        await process.start(**SAID)
    assert deprecated.value.pointer == "/workflow"
    assert not [event for event in process.engine.log.events if event.topic == "run.started"]


async def test_of_many_faults_of_an_input_the_first_are_told_in_the_text(process: Process) -> None:
    properties = {f"p{n:02}": {"type": "string"} for n in range(12)}
    await process.publish(parameters={"properties": properties})
    with pytest.raises(InvalidCommand) as caught:
        await process.start(input=dict.fromkeys(properties, 1))
    assert (
        len(caught.value.faults) == 12 and caught.value.message.endswith("; and more") and "/input/p10" not in caught.value.message
    )


def test_defaults_stand_at_the_top_level() -> None:
    schema = {"properties": {"a": {"default": 1}, "b": {"default": None}, "c": {}, "d": True}}
    assert with_defaults(schema, {"b": 2, "x": 3}) == {"b": 2, "x": 3, "a": 1}
    assert with_defaults(schema, None) == {"a": 1, "b": None} and with_defaults({"properties": {}}, None) == {}
    for other, value in ((schema, [1]), (schema, "x"), ({}, None), (True, {"a": 1}), ({"properties": 3}, None)):
        assert with_defaults(other, value) is value
    given: dict[str, Any] = {"a": 1, "b": 2}
    assert with_defaults(schema, given) is given


async def test_without_parameters_any_input_is_taken(process: Process) -> None:
    await process.publish()
    for value in (None, 3, {"a": 1}):
        assert process.started(await process.start(input=value)).input == value


# --- repeats ------------------------------------------------------------------------------------------------------------------


async def test_a_repeat_gets_its_first_answer_whatever_became_of_the_workflow(process: Process) -> None:
    await process.publish(parameters=PARAMETERS, metadata={"n": 1})
    run_id = new_id()
    assert await process.start(run_id=run_id, **SAID) == run_id
    await process.publish(parameters={"required": ["other"]}, metadata={"n": 2})
    assert await process.start(run_id=run_id, **SAID) == run_id, "the version of now would refuse the input"
    await process.publish(metadata={"n": 3})
    for one in (process, process.another()):
        assert await one.start(run_id=run_id, **SAID) == run_id, "the version of now has another plan"
    await process.deprecate(1)
    assert await process.start(run_id=run_id, version=1, **SAID) == run_id
    await process.deprecate()
    assert await process.start(run_id=run_id, **SAID) == run_id
    assert [event.topic for event in process.engine.log.events].count("run.started") == 1


async def test_a_repeat_under_a_key_finds_the_run_of_the_first_request(process: Process) -> None:
    await process.publish(parameters=PARAMETERS)
    request = request_of(command_id=new_id(), repeatable=True)._replace(content=new_id())
    first = await process.start(request=request, **SAID)
    await process.publish(description="2")
    await process.deprecate()
    assert await process.start(request=request, **SAID) == first
    with pytest.raises(RepeatedDifferently):
        await process.start(request=request._replace(content=new_id()), **SAID)


@pytest.mark.parametrize(
    "other",
    [
        {"input": {"text": "u"}}, {"priority": "high"}, {"compensate": "on_failure"}, {"metadata": {"a": 1}}, {"name": "same"},
    ],
)  # fmt: skip
async def test_another_start_under_the_same_id_is_no_repeat(process: Process, other: dict[str, Any]) -> None:
    for name in ("digest", "same"):
        await process.publish(name, parameters=PARAMETERS)
    run_id = new_id()
    await process.start(run_id=run_id, **SAID)
    for _ in range(2):
        with pytest.raises(StartedDifferently):
            await process.start(run_id=run_id, **SAID | other)
        await process.publish(description="2", parameters=PARAMETERS)


async def test_another_version_under_the_same_id_is_no_repeat(process: Process) -> None:
    await process.publish()
    run_id = await process.start()
    await process.publish(description="2")
    with pytest.raises(StartedDifferently):
        await process.start(run_id=run_id, version=2)
    assert await process.start(run_id=run_id, version=1) == run_id


async def test_a_run_of_a_plan_is_no_repeat_of_a_run_of_a_workflow(process: Process) -> None:
    await process.publish()
    plain = await process.engine.start("alpha", request=request_of(command_id=(run_id := new_id()), repeatable=True), run_id=run_id)
    with pytest.raises(StartedDifferently):
        await process.start(run_id=plain)
    named = await process.start()
    with pytest.raises(StartedDifferently):
        await process.engine.start("alpha", request=request_of(command_id=named, repeatable=True), run_id=named)


# --- child workflows ----------------------------------------------------------------------------------------------------------


async def test_a_run_keeps_the_plans_of_its_child_workflows(process: Process) -> None:
    await process.publish("inner", plan=sequential(("beta",)))
    await process.publish("middle", plan=of_children("inner"))
    plan = Plan(steps=(FIRST, child("middle"), child("inner", 1, "d")), result="steps.first.result")
    await process.publish("outer", plan=plan)
    run_id = await process.start("outer")
    found = process.started(run_id).plan
    inner = {"steps": [{"key": "beta", "agent": "beta", "agent_version": "1"}]}
    first, inside = {"key": "first", "agent": "alpha", "agent_version": "1"}, {"workflow": "inner", "version": 1, "plan": inner}
    middle = {"steps": [first, {"key": "inner", "run": inside, "after": ["first"]}]}
    assert found.steps[1].run == ChildRun(workflow="middle", version=1, plan=middle)
    assert found.steps[2].run == ChildRun(workflow="inner", version=1, plan=inner)
    assert found.result == "steps.first.result" and found.steps[0].agent_version == "1"
    await process.publish("inner", plan=sequential(("alpha",)))
    assert await process.start("outer", run_id=run_id) == run_id, "a repeat"
    newer = process.started(await process.start("outer")).plan
    assert newer.steps[1].run is not None and newer.steps[2].run is not None
    assert newer.steps[1].run.plan["steps"][1]["run"]["version"] == 2 and newer.steps[2].run.version == 1


async def test_a_plan_may_have_child_workflows_too(process: Process) -> None:
    await process.publish("inner")
    inline = {"steps": [{"key": "i", "run": {"workflow": "inner"}}]}
    plan = Plan(steps=(child("inner"), Step(key="p", run=ChildRun(plan=inline), after=("first",)), FIRST))
    run_id = await process.start_plan(plan, new_id())
    found = process.started(run_id).plan
    inner = {"steps": [{"key": "alpha", "agent": "alpha", "agent_version": "1"}]}
    assert found.steps[0].run == ChildRun(workflow="inner", version=1, plan=inner)
    assert found.steps[1].run == ChildRun(plan={"steps": [{"key": "i", "run": {"workflow": "inner", "version": 1, "plan": inner}}]})
    await process.publish("inner", plan=sequential(("beta",)))
    await process.publish("other")
    for one in (process, process.another()):
        assert await one.start_plan(plan, run_id) == run_id, "a repeat"
    for other in (
        Plan(steps=(child("inner", 2), *plan.steps[1:])),
        Plan(steps=(child("other"), *plan.steps[1:])),
        Plan(steps=(child("inner"), Step(key="p", run=ChildRun(plan=inner), after=("first",)), FIRST)),
        Plan(steps=plan.steps, result="1"),
    ):
        with pytest.raises(StartedDifferently):
            await process.start_plan(other, run_id)


async def test_a_process_that_has_not_heard_of_a_child_takes_the_new_one(process: Process) -> None:
    other = process.another()
    await process.publish("inner")
    await other.start_plan(of_children("inner"), new_id())
    await process.publish("inner", plan=sequential(("beta",)))
    run = other.started(await other.start_plan(of_children("inner"), new_id())).plan.steps[1].run
    assert run is not None and run.version == 2 and run.plan["steps"][0]["agent"] == "beta"


async def test_a_workflow_that_starts_itself_is_refused_with_the_way(process: Process) -> None:
    await process.publish("a")
    await process.publish("b", plan=of_children("a"))
    with pytest.raises(InvalidCommand) as caught:
        await process.publish("a", plan=of_children("b"))
    assert caught.value.faults == (("/plan/steps/1/run/workflow", "the workflow starts itself: a → b → a"),)
    with pytest.raises(InvalidCommand, match="the workflow starts itself: c → c"):
        await process.publish("c", plan=of_children("c"))


async def test_children_that_cannot_start_are_refused_with_the_way(process: Process) -> None:
    with pytest.raises(InvalidChild, match=r"^there is no workflow 'inner'$") as caught:
        await process.start_plan(of_children("inner"), new_id())
    assert caught.value.pointer == "/plan/steps/1/run/workflow"
    await process.publish("inner")
    await process.publish("outer", plan=of_children("inner"))
    with pytest.raises(InvalidChild, match="workflow 'inner' has the versions 1 to 1, not 2"):
        await process.start_plan(Plan(steps=(FIRST, child("inner", 2))), new_id())
    await process.deprecate(name="inner")
    with pytest.raises(InvalidChild, match=r"^workflow 'inner' is deprecated \(in outer\)$") as caught:
        await process.start_plan(of_children("outer"), new_id())
    assert caught.value.pointer == "/plan/steps/1/run/workflow"


async def test_runs_in_runs_are_bounded(process: Process) -> None:
    await process.publish("w0")
    for level in range(1, MAX_DEPTH):
        await process.publish(f"w{level}", plan=of_children(f"w{level - 1}"))
    assert process.started(await process.start(f"w{MAX_DEPTH - 1}")).plan.depth == MAX_DEPTH, "it can be read back"
    with pytest.raises(
        InvalidCommand, match=f"/plan/steps/1/run/workflow: child runs lie more than {MAX_DEPTH - 1} deep: w8 → w7 → w6"
    ):
        await process.publish("w8", plan=of_children("w7"))
    await process.publish("many", plan=sequential(("alpha",) * 600))
    both = Plan(steps=(child("many"), Step(key="other", run=ChildRun(workflow="many"), after=("first",)), FIRST))
    with pytest.raises(InvalidChild, match=r"^with the plans of its child workflows, the plan and those in it have 1,203 steps"):
        await process.start_plan(both, new_id())
    large = Plan(steps=(Step(key="a", agent="alpha", input="x" * MAX_PLAN_BYTES),))
    await process.publish("large", plan=large)
    with pytest.raises(InvalidChild, match=r"the plan of large has 65,\d+ bytes with its child runs, 65,536 are allowed"):
        await process.start_plan(of_children("large"), new_id())
    await process.start("large")


# --- changes ------------------------------------------------------------------------------------------------------------------


async def test_all_faults_of_a_definition_are_told_at_once(process: Process) -> None:
    definition = WorkflowDefinition(
        parameters={"type": "object", "properties": {"a": {"type": "integer", "default": "x"}, "b": {"default": 1}}},
        plan=of_children("inner"), command=SlashCommand(text="c"),
    )  # fmt: skip
    faults = await faults_of_definition(process.workflows, TENANT, "digest", definition)
    assert faults == [
        ("/parameters/properties/a/default", '"x" is not of type "integer"'),
        ("/command/text", "`c` is none of the properties of the parameters"),
        ("/plan/steps/1/run/workflow", "there is no workflow 'inner'"),
    ]
    with pytest.raises(InvalidCommand) as caught:
        await process.changes.publish(request_of(), "digest", definition, None, None)
    assert list(caught.value.faults) == faults and caught.value.pointer == faults[0][0]
    assert caught.value.message.startswith("workflow 'digest': /parameters/properties/a/default: ")
    broken = definition.model_copy(update={"parameters": {"type": "x"}, "plan": sequential(("alpha",))})
    places = [place for place, _ in await faults_of_definition(process.workflows, TENANT, "digest", broken)]
    assert places == ["/parameters", "/command/text"]
    good = definition.model_copy(update={"parameters": PARAMETERS, "command": SlashCommand(text="text"), "plan": broken.plan})
    assert await faults_of_definition(process.workflows, TENANT, "digest", good) == []


async def test_a_draft_is_published_as_it_is(process: Process) -> None:
    with pytest.raises(NotFound):
        await process.changes.publish_draft(request_of(), "digest", None, None)
    await process.draft(description="drafted")
    await process.changes.publish_draft(request_of(), "digest", "n", None)
    workflow = await process.changes.current(TENANT, "digest")
    assert workflow.current is not None and (workflow.current.note, workflow.current.of_draft) == ("n", True)
    with pytest.raises(InvalidState, match="has no draft to publish"):
        await process.changes.publish_draft(request_of(), "digest", None, None)
    await process.draft(plan=of_children("inner"))
    with pytest.raises(InvalidCommand, match="there is no workflow 'inner'"):
        await process.changes.publish_draft(request_of(), "digest", None, None)


async def test_what_a_version_said_can_be_published_again(process: Process) -> None:
    for number in (1, 2):
        await process.publish(metadata={"n": number})
    await process.changes.revert(request_of(), "digest", 1, "back", None)
    workflow = await process.changes.current(TENANT, "digest")
    assert workflow.current is not None
    assert (workflow.current.version, workflow.current.reverted_from, workflow.current.note) == (3, 1, "back")
    assert process.started(await process.start()).metadata == {"n": 1}
    for version in (0, 4):
        with pytest.raises(NotFound):
            await process.changes.revert(request_of(), "digest", version, None, None)


async def test_what_is_not_there_cannot_be_read(process: Process) -> None:
    with pytest.raises(NotFound, match="there is no workflow 'digest'"):
        await process.changes.current(TENANT, "digest")
    with pytest.raises(NotFound, match="there is no workflow 'digest'"):
        await process.changes.definition(TENANT, "digest", 1)
    await process.publish()
    with pytest.raises(NotFound, match="has no draft"):
        await process.changes.definition(TENANT, "digest", None)
    other = derive_id(TENANT, "other tenant")
    with pytest.raises(NotFound):
        await process.changes.definition(other, "digest", 1)
    with pytest.raises(UnknownWorkflow):
        await process.workflows.resolved(other, AskedWorkflow("digest"))


async def test_a_definition_of_a_later_release_is_refused_and_nothing_else(process: Process) -> None:
    with pytest.raises(Unavailable, match="it is of a later release"):
        keeping.definition_of("digest", {"plan": {"steps": [{"key": "a", "agent": "b"}]}, "later": 1})


async def test_definitions_are_kept_up_to_a_bound(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEPT_STEPS", 4)
    for number in (1, 2, 3):
        await process.publish(metadata={"n": number})
    for version in (1, 2, 1, 2, 3, 1):
        await process.start(version=version)
    assert process.stored.asked == [1, 2, 1], "two of two steps each: the one that was used last stays"
    assert len(list(process.workflows.versions.kept())) == 2


async def test_a_workflow_with_a_faulty_plan_is_not_published(process: Process) -> None:
    judged = Step(key="b", agent="beta", after=("first",), when="steps.frist.result ==")
    with pytest.raises(InvalidCommand) as caught:
        await process.publish("faulty", plan=Plan(steps=(FIRST, judged)))
    assert [place for place, _ in caught.value.faults] == ["/plan/steps/1/when"]
    with pytest.raises(InvalidCommand, match=r"/plan/steps/1/when: .*first"):
        await process.publish("faulty", plan=Plan(steps=(FIRST, judged.model_copy(update={"when": "steps.frist.result == 1"}))))
    with pytest.raises(NotFound):
        await process.changes.definition(TENANT, "faulty", None)
