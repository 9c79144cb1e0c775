"""Agents by what they announce: the start of a run chooses them, and notes them in the plan."""

from typing import Any

import pytest

from application.catalog import CATALOG
from application.plans.capabilities import UnknownCapability, with_capable_agents
from application.plans.registry import FoundAgent, LookedUp, TenantRegistry, looked_up
from application.runs.start import StartedDifferently, UnknownAgent, start_run
from domain import runs
from domain.agents import AgentRegistered, RegisterAgent, agent_id_of
from domain.projects import default_project_id
from domain.runs import Plan, RunStarted, sequential
from tests.kit.engine import Engine
from tests.kit.memory import MemoryNames
from tests.kit.waiting import TENANT, new_id, request_of

OTHER_TENANT = new_id()


async def register(engine: Engine, name: str, *capabilities: str, tenant: Any = TENANT, version: str = "1") -> None:
    command = RegisterAgent(agent_id=agent_id_of(tenant, name), name=name, version=version, capabilities=capabilities)
    await engine.give(command, tenant_id=tenant)


@pytest.fixture
async def engine() -> Engine:
    engine = Engine()
    await engine.set_up()
    await register(engine, "writer", "writing", "talking")
    await register(engine, "critic", "reviewing")
    return engine


def plan(*steps: dict[str, Any]) -> Plan:
    return Plan.model_validate({"steps": steps})


WRITING = {"key": "a", "capability": "writing"}


def started(engine: Engine, run_id: Any) -> RunStarted:
    event = CATALOG.registry.decoded(engine.log.streams[run_id][0])
    assert isinstance(event, RunStarted)
    return event


async def start(engine: Engine, given: Plan, **more: Any) -> Any:
    return await engine.start(plan=given, **more)


async def test_a_step_with_a_capability_gets_an_agent_and_its_version(engine: Engine) -> None:
    given = plan(WRITING, {"key": "b", "agent": "critic", "after": ["a"]})
    event = started(engine, await start(engine, given))
    assert [(step.capability, step.agent, step.agent_version) for step in event.plan.steps] == [
        ("writing", "writer", "1"),
        (None, "critic", "1"),
    ]
    assert event.versions_asked == ()
    assert given.steps[0].agent is None, "the plan that was given stays as it is"


async def test_the_agent_that_was_registered_last_is_chosen_and_of_one_moment_the_first_by_name(engine: Engine) -> None:
    for name in ("z-writer", "a-writer"):
        await register(engine, name, "writing")
    assert started(engine, await start(engine, plan(WRITING))).plan.steps[0].agent == "a-writer"
    engine.clock.advance(1)
    await register(engine, "writer", "writing", version="2")
    chosen = started(engine, await start(engine, plan(WRITING))).plan.steps[0]
    assert (chosen.agent, chosen.agent_version) == ("writer", "2")


async def test_an_agent_that_does_not_announce_it_any_more_is_not_chosen(engine: Engine) -> None:
    await register(engine, "writer", "talking", version="2")
    with pytest.raises(UnknownCapability):
        await start(engine, plan(WRITING))


async def test_a_run_under_way_keeps_its_agent(engine: Engine) -> None:
    run_id = await start(engine, plan(WRITING))
    await register(engine, "other", "writing")
    run: runs.Run = (await engine.commands.load(runs.DECIDER, TENANT, run_id)).state
    assert run.plan.steps[0].agent == "writer"


async def test_an_agent_beside_the_capability_stays(engine: Engine) -> None:
    assert started(engine, await start(engine, plan({**WRITING, "agent": "critic"}))).plan.steps[0].agent == "critic"


async def test_all_capabilities_that_nobody_announces_are_told(engine: Engine) -> None:
    inner = {
        "steps": [
            {"key": "x", "capability": "dancing"},
            {"key": "y", "run": {"plan": {"steps": [{"key": "z", "capability": "u"}]}}},
        ]
    }
    given = plan(WRITING, {"key": "b", "capability": "writng"}, {"key": "c", "run": {"plan": inner}})
    with pytest.raises(UnknownCapability) as caught:
        await start(engine, given)
    assert caught.value.faults == (
        ("/plan/steps/1/capability", "no agent announces the capability 'writng'; did you mean 'writing'?"),
        ("/plan/steps/2/run/plan/steps/0/capability", "no agent announces the capability 'dancing'"),
        ("/plan/steps/2/run/plan/steps/1/run/plan/steps/0/capability", "no agent announces the capability 'u'"),
    )
    assert caught.value.message == "no agent announces the capability 'writng'; did you mean 'writing'? (and 2 more)"
    assert caught.value.pointer == "/plan/steps/1/capability"


async def test_those_of_another_tenant_are_not_there(engine: Engine) -> None:
    await register(engine, "dancer", "dancing", tenant=OTHER_TENANT)
    with pytest.raises(UnknownCapability) as caught:
        await start(engine, plan({"key": "a", "capability": "dancin"}))
    assert caught.value.message == "no agent announces the capability 'dancin'"


async def test_the_plans_of_child_runs_get_agents_too(engine: Engine) -> None:
    inner = {
        "steps": [
            {"key": "x", "capability": "writing"},
            {"key": "y", "agent": "critic", "capability": "writing"},
            {"key": "z", "value": "1"},
        ]
    }
    deep = {"steps": [{"key": "d", "run": {"plan": inner}}]}
    given = plan({"key": "a", "run": {"plan": deep}}, {"key": "b", "run": {"workflow": "w"}})
    found = await with_capable_agents(MemoryNames(engine.log, AgentRegistered), TENANT, given)
    run = found.steps[0].run
    assert run is not None
    assert run.plan["steps"][0]["run"]["plan"]["steps"] == [
        {"key": "x", "capability": "writing", "agent": "writer"}, *inner["steps"][1:],
    ]  # fmt: skip
    assert deep["steps"][0]["run"]["plan"] is inner and "agent" not in inner["steps"][0], "what was given stays as it is"
    assert found.steps[1] == given.steps[1]


async def test_a_plan_without_capabilities_asks_nobody() -> None:
    class Nobody:
        """Has no method at all."""

    for given in (
        sequential(("writer",)),
        plan({"key": "a", "value": "1"}),
        plan({"key": "a", "run": {"plan": {"steps": [{"key": "x", "agent": "writer"}]}}}),
    ):
        assert await with_capable_agents(Nobody(), TENANT, given) is given  # type: ignore[arg-type]


async def test_a_repeat_of_a_start_is_recognised_whoever_would_be_chosen_by_now(engine: Engine) -> None:
    request, run_id = request_of(), new_id()
    given = plan(WRITING, {"key": "r", "after": ["a"], "run": {"plan": {"steps": [WRITING]}}})

    async def again(asked: Plan) -> Any:
        return await start_run(
            engine.commands, request, run_id=run_id, project_id=default_project_id(TENANT), plan=asked, input=None, metadata={},
            known=MemoryNames(engine.log, AgentRegistered), admission=engine.admission,
        )  # fmt: skip

    first = await again(given)
    await register(engine, "another", "writing", version="7")
    assert (await again(given)).duplicate and not first.duplicate
    assert started(engine, run_id).plan.steps[0].agent == "writer"
    for other in (
        plan({**WRITING, "capability": "talking"}, given.steps[1].model_dump(exclude_unset=True)),
        plan({"key": "a", "agent": "writer"}, given.steps[1].model_dump(exclude_unset=True)),
        plan(WRITING, {"key": "r", "after": ["a"], "run": {"plan": {"steps": [{**WRITING, "capability": "talking"}]}}}),
        plan(WRITING, {"key": "r", "after": ["a"], "run": {"plan": {"steps": [{**WRITING, "agent": "critic"}]}}}),
    ):
        with pytest.raises(StartedDifferently):
            await again(other)


async def test_an_unknown_agent_beside_a_capability_is_told_as_ever(engine: Engine) -> None:
    with pytest.raises(UnknownAgent):
        await start(engine, plan(WRITING, {"key": "b", "agent": "nobody"}))


async def test_the_registry_of_a_tenant(engine: Engine) -> None:
    schema = {"type": "object"}
    command = RegisterAgent(agent_id=agent_id_of(TENANT, "critic"), name="critic", version="2", output_schema=schema)
    await engine.give(command)
    known = TenantRegistry(engine.commands, MemoryNames(engine.log, AgentRegistered), None, TENANT)
    assert await known.agent("critic") == FoundAgent("critic", ("1", "2"), None, schema)
    assert await known.agent("nobody") == FoundAgent("nobody", ())
    assert await known.agent_names() == ["critic", "writer"]
    assert await known.capabilities(["talking", "dancing", "talking"]) == {"talking": "writer"}
    assert await known.capabilities([]) == {}
    assert await known.capability_names() == ["talking", "writing"]
    assert (known.has_workflows, await known.workflow("x", None), await known.workflow_names()) == (False, None, ())
    without = TenantRegistry(engine.commands, None, None, TENANT)
    assert (known.has_agents, without.has_agents) == (True, False)
    assert (await without.agent_names(), await without.capabilities(["talking"]), await without.capability_names()) == ((), {}, ())
    assert await looked_up(without, ["critic"], ["talking"], [("x", None)]) == LookedUp()


def test_a_plain_plan_stays_plain() -> None:
    assert runs.sequential(("a",)).is_plain
