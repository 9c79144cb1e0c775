"""Plans over HTTP: checked without any effect, refused with all their faults, and agents by what they announce."""

from typing import Any

import httpx2
import pytest

from domain.agents import RegisterAgent, agent_id_of
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.session_kit import worker_at
from tests.integration.system_kit import System, new_id
from tests.integration.test_http_tools import now
from tests.integration.test_removed_projects import is_refused
from tidelog import Client

FIRST: dict[str, Any] = {"key": "a", "value": "1"}


def name() -> str:
    return f"p{new_id().hex}"


async def check(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/plans:check", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def register(system: System, *agents: tuple[str, list[str]]) -> None:
    """Registers agents that no worker offers."""
    for agent, capabilities in agents:
        agent_id = agent_id_of(DEFAULT_TENANT_ID, agent)
        await system.command(RegisterAgent(agent_id=agent_id, name=agent, capabilities=tuple(capabilities)))
    await system.http.get("/v1/agents", params={"limit": 1}, headers=await now(system))


async def test_a_plan_is_checked_without_any_effect(shared: System) -> None:
    agent = name()
    await register(shared, (agent, []))
    head = await shared.container.feed.head()
    steps = [{"key": "a", "agent": agent}, {"key": "b", "agent": agent[:-1], "after": ["c"]}]
    found = await check(shared.http, plan={"steps": steps})
    assert found == {
        "valid": False,
        "faults": [
            {
                "pointer": "/steps/1/after/0",
                "detail": "there is no step 'c'",
                "cure": "name a step of the plan, or take it out of `after`",
            },
            {"pointer": "/steps/1/agent", "detail": f"no agent '{agent[:-1]}' is registered", "cure": f"did you mean '{agent}'?"},
        ],
        "warnings": [],
        "steps": 2,
        "agents": [{"name": agent, "version": "1", "capabilities": []}],
    }
    assert (await check(shared.http, workflow={"plan": {"steps": steps[:1]}}))["valid"]
    assert await shared.container.feed.head() == head


@pytest.mark.parametrize(
    ("body", "pointer"),
    [({}, None), ({"plan": {}, "workflow": {}}, None), ({"workflow": {"steps": []}}, "/workflow"), ({"pln": {}}, "/pln")],
)
async def test_what_is_no_question(shared: System, body: Any, pointer: str | None) -> None:
    answer = await shared.http.post("/v1/plans:check", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json().get("errors", [])] == ([pointer] if pointer else [])


async def test_a_start_is_refused_with_all_faults_of_its_plan(shared: System) -> None:
    steps = [{**FIRST, "when": "steps.b.result"}, {"key": "b", "value": "1 +", "after": ["a"]}]
    answer = await shared.http.post("/v1/runs", json={"plan": {"kind": "graph", "steps": steps}})
    is_refused(answer, 422, "invalid-plan")
    assert [(error["pointer"], bool(error["cure"])) for error in answer.json()["errors"]] == [
        ("/plan/steps/0/when", True),
        ("/plan/steps/1/value", True),
    ]
    assert answer.json()["detail"].endswith("(and 1 more)")
    broken = {"kind": "graph", "steps": [{**FIRST, "whn": "true"}, {"key": "a", "value": "x y"}]}
    answer = await shared.http.post("/v1/runs", json={"plan": broken, "priority": "urgent"})
    is_refused(answer, 422, "invalid-request")
    assert [(error["pointer"], "cure" in error) for error in answer.json()["errors"]] == [
        ("/priority", False), ("/plan/steps/0/whn", True), ("/plan/steps/1/key", True), ("/plan/steps/1/value", True),
    ]  # fmt: skip


async def test_a_start_with_a_warning_is_none_of_the_refused(shared: System) -> None:
    agent = name()
    await register(shared, (agent, []))
    steps = [{"key": "a", "agent": agent, "repeat": {"times": 2, "until": "true"}}]
    found = await check(shared.http, plan={"steps": steps})
    assert (found["valid"], len(found["warnings"])) == (True, 1)


async def test_an_agent_of_a_connected_worker_is_chosen_before_one_that_was_registered_later(shared: System) -> None:
    served, later, last = (f"{prefix}{new_id().hex}" for prefix in ("served-", "later-", "last-"))
    offered, other = name(), name()
    reads = shared.container.reads.agents
    async with worker_at(await shared.url(), shared.key) as worker:
        await worker.hello([{"name": served, "version": "1", "capabilities": [offered]}])
        await register(shared, (later, [offered, other]), (last, [offered, other]))
        asked = [offered, other, name()]
        assert await reads.offering(DEFAULT_TENANT_ID, asked) == {offered: served, other: last}
    known = await reads.capabilities(DEFAULT_TENANT_ID)
    assert {offered, other} <= set(known) and list(known) == sorted(known)
    tenant_id, _ = await shared.tenant(name())
    assert (await reads.offering(tenant_id, asked), await reads.capabilities(tenant_id)) == ({}, [])


async def test_a_run_gets_the_agent_of_a_capability(shared: System) -> None:
    agent, capability = name(), name()
    await register(shared, (agent, [capability]))
    plan = {"kind": "graph", "steps": [{"key": "a", "capability": capability}]}
    started = await shared.http.post("/v1/runs", json={"plan": plan})
    assert started.status_code == 201, started.text
    run = (await shared.http.get(started.headers["location"], headers=await now(shared))).json()
    assert [(step["capability"], step["agent"], step["agent_version"]) for step in run["plan"]["steps"]] == [
        (capability, agent, "1")
    ]


async def test_the_client_checks_plans(shared: System) -> None:
    async with Client(await shared.url(), shared.key) as client:
        found = await client.check_plan({"steps": [{**FIRST, "when": "1"}]})
        assert (found.valid, [fault.pointer for fault in found.faults], found.steps) == (False, ["/steps/0/when"], 1)
        whole = await client.check_plan({"description": "x", "plan": {"steps": [FIRST]}})
        assert (whole.valid, whole.warnings) == (True, ())
