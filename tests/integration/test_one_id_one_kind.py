"""An id names one stream of one kind. The routes of another kind answer that the id does not exist, and a new stream cannot take
the id."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from application.catalog import CATALOG
from application.engine.ports.log import NewEvent
from domain import (
    agents,
    approval_policies,
    approvals,
    audit,
    breakers,
    budgets,
    chains,
    compensations,
    context,
    projects,
    runs,
    schedules,
    tools,
    triggers,
    workflows,
)
from domain.approval_rules import Demand
from domain.errors import AlreadyExists, NotFound
from domain.kernel import Command
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey
from tests.integration.system_kit import System, append, empty_work_queue, fresh_database, issue_key, new_id, running

CLOCK = {"name": "clock", "version": "1", "kind": "builtin", "builtin": "time.now", "parameters": {"type": "object"}}
TWICE = {
    "name": "twice", "version": "1", "kind": "chain", "parameters": {"type": "object"},
    "chain": {"steps": [{"tool": "clock", "arguments": {}}]},
}  # fmt: skip
FAILURE = {"type": "T", "message": "m", "kind": "permanent"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/runs/{run_id}/cancel": {},
    "/v1/runs/{run_id}/pause": {},
    "/v1/runs/{run_id}/priority": {"priority": "high"},
    "/v1/runs/{run_id}/retry": {"reason": "why"},
    "/v1/runs/{run_id}/deadline": {"deadline_s": 60, "reason": "why"},
    "/v1/runs/{run_id}/resume": {},
    "/v1/runs/{run_id}/steps/{step}/skip": {"reason": "why"},
    "/v1/runs/{run_id}/steps/{step}/force": {"result": 1, "reason": "why"},
    "/v1/runs/{run_id}/steps/{step}/dispatch": {"reason": "why"},
    "/v1/runs/{run_id}/signals": {"name": "go"},
    "/v1/runs/{run_id}/fork": {},
    "/v1/agent-runs/{agent_run_id}/complete": {"attempt": 1, "result": 1},
    "/v1/agent-runs/{agent_run_id}/fail": {"attempt": 1, "error": FAILURE},
    "/v1/invocations/{invocation_id}/complete": {"attempt": 1, "result": 1},
    "/v1/invocations/{invocation_id}/fail": {"attempt": 1, "error": FAILURE},
    "/v1/invocations/{invocation_id}/resolve": {"result": 1, "reason": "seen"},
    "/v1/invocations/{invocation_id}/cancel": {},
    "/v1/runs/{run_id}/compensation": {"reason": "why"},
    "/v1/runs/{run_id}/compensation/resume": {"reason": "why"},
    "/v1/approvals/{approval_id}/decision": {"decision": "approve"},
    "/v1/bulk-actions/{bulk_action_id}/cancel": {},
    "/v1/keys/{key_id}/rotate": {},
    "/v1/budgets/{budget_id}/lift": {"add": {"calls": 1}, "reason": "why"},
    "/v1/keys/{key_id}/revoke": {},
}
"""A valid body for each route with an id in its path."""
HOOK = "/hooks/{hook_id}"
"""Takes deliveries of strangers, and answers all of them alike: its ids are of no stream."""
REPORTS: dict[str, dict[str, Any]] = {
    "record": {"key": "k", "result": 1}, "call": {"key": "k", "tool": "add", "arguments": {}},
    "send": {"key": "k", "to": "alpha", "body": 1}, "receive": {"key": "k"}, "get": {"key": "k", "name": "n"},
    "set": {"key": "k", "name": "n", "value": 1}, "more": {}, "complete": {"result": 1}, "fail": {"error": FAILURE}, "return": {},
}  # fmt: skip
"""A valid message for each report of a session."""
OF_WORK = {"agent": "agent_runs", "tool": "invocations"}
PARAMETER = re.compile(r"\{\w+\}")
FURTHER = {"{step}": "alpha", "{position}": "1", "{number}": "0"}
"""Values for further parameters of a path. Those that are ids get the id."""
OWNERS = {
    "run_id": "runs",
    "agent_run_id": "agent_runs",
    "invocation_id": "invocations",
    "project_id": "projects",
    "approval_id": "approvals",
    "bulk_action_id": "bulk_actions",
    "key_id": "",
    "budget_id": "allowances",
    "session_id": "",
}
"""The slice to which the id of a path parameter belongs."""
KINDS = (*CATALOG.deciders, "foreign")
"""`foreign`: a stream of a user who uses only the log."""


@dataclass(frozen=True)
class World:
    """One server with all streams in its cache, and one server on the same log with an empty cache."""

    warm: System
    cold: System
    ids: dict[str, UUID]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(services: EmbeddedServices) -> AsyncIterator[World]:
    """One stream of each kind."""
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url, running(url, services.nats_url) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", tools=["add"])
        run_id = UUID(await system.start("alpha", concurrency={"key": "k"}))
        alpha = await worker.next("alpha")
        sent = await alpha.ok("send", key="m", to="alpha", body=1)
        await alpha.ok("set", key="s", name="n", value=1)
        call = await alpha.call("c", "add")
        await system.command(compensations.ExpectCall(run_id=run_id, invocation_id=UUID(call)))
        for tool in (CLOCK, TWICE):
            assert (await system.http.post("/v1/tools", json=tool)).status_code == 201
        chained = await alpha.call("d", "twice")
        forced = await system.http.post("/v1/tools/add/breaker", json={"state": "closed", "reason": "why"})
        assert forced.status_code in (200, 202), forced.text
        flow = {"name": "w", "plan": {"steps": [{"key": "a", "agent": "alpha"}]}}
        assert (await system.http.post("/v1/workflows", json=flow)).status_code == 201
        due = {"name": "s", "when": {"at": "2099-01-01T00:00:00Z"}, "start": {"agent": "alpha"}, "paused": True}
        assert (await system.http.post("/v1/schedules", json=due)).status_code == 201
        happens = {"name": "t", "on": {"topics": ["run.completed"], "when": "false"}, "start": {"agent": "alpha"}}
        assert (await system.http.post("/v1/triggers", json=happens)).status_code == 201
        budget = await system.http.put("/v1/budgets", json={"scope": "tenant", "limits": {"calls": 9_999}})
        lift = {"add": {"calls": 1}, "reason": "why"}
        lifted = await system.http.post(f"/v1/budgets/{budget.json()['id']}/lift", json=lift)
        project = (await system.http.post("/v1/projects", json={"name": "p"})).json()["project_id"]
        foreign, entry, approval = new_id(), new_id(), new_id()
        await system.command(
            approvals.RequestApproval(
                approval_id=approval, run_id=run_id, invocation_id=UUID(call), tool="add", arguments_hash="0", demand=Demand(),
                agent_run_id=UUID(alpha.work_id), key="c",
            )
        )  # fmt: skip
        assert (await system.http.put("/v1/approval-policies/p", json={"rules": [{"when": "false"}]})).status_code == 200
        await system.command(
            audit.RecordAction(
                entry_id=entry, tenant_id=DEFAULT_TENANT_ID, action="runs.cancel", actor="a", target_kind="run", result="done"
            )
        )
        await append(system, foreign, foreign, 0, NewEvent("order.placed", 1, b"{}"))
        bulk = {"action": "resume", "filter": {"agent": "nobody"}, "reason": "why"}
        bulk_action = (await system.http.post("/v1/bulk-actions", json=bulk)).json()["id"]
        held = (await system.container.commands.load(runs.DECIDER, DEFAULT_TENANT_ID, run_id)).state
        assert held.concurrency is not None
        ids = {
            "bulk_actions": UUID(bulk_action), "run_keys": held.concurrency.key_id,
            "tenants": DEFAULT_TENANT_ID, "projects": UUID(project), "agents": agents.agent_id_of(DEFAULT_TENANT_ID, "alpha"),
            "tools": tools.tool_id_of(DEFAULT_TENANT_ID, "add"), "runs": run_id, "agent_runs": UUID(alpha.work_id),
            "invocations": UUID(call), "messages": UUID(sent["message_id"]), "context": context.context_id_of(run_id),
            "audit": entry, "foreign": foreign, "chains": chains.chain_id_of(UUID(chained)),
            "breakers": breakers.breaker_id_of(tools.tool_id_of(DEFAULT_TENANT_ID, "add")),
            "compensations": compensations.compensation_id_of(run_id),
            "approvals": approval, "approval_policies": approval_policies.policies_id_of(DEFAULT_TENANT_ID),
            "schedules": schedules.schedule_id_of(DEFAULT_TENANT_ID, "s"),
            "triggers": triggers.trigger_id_of(DEFAULT_TENANT_ID, "t"),
            "workflows": workflows.workflow_id_of(DEFAULT_TENANT_ID, "w"),
            "budgets": budgets.book_id_of(DEFAULT_TENANT_ID), "allowances": UUID(lifted.json()["id"]),
        }  # fmt: skip
        assert ids.keys() == set(KINDS)
        await system.settled()
        async with running(url, services.nats_url, roles=["api"], key=system.key) as cold:
            yield World(system, cold, ids)


async def routes(system: System) -> list[tuple[str, str]]:
    """Method and path of every route that takes an id in its path."""
    paths = (await system.http.get("/openapi.json")).json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods if "_id}" in path and path != HOOK]
    assert len(found) >= 10
    assert {path for method, path in found if method == "POST"} == BODIES.keys(), "a new route needs a body here"
    return found


async def ask(system: System, method: str, path: str, id_: UUID, **headers: str) -> httpx2.Response:
    body = BODIES[path] if method == "POST" else None
    first, *further = PARAMETER.findall(path)
    named = path.replace(first, str(id_))
    for parameter in further:
        named = named.replace(parameter, FURTHER.get(parameter, str(id_)))
    return await system.http.request(method, named, json=body, headers=headers)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_of_another_kind_is_not_found_on_any_route(world: World, kind: str) -> None:
    before = await world.warm.settled()
    variants: list[dict[str, str]] = [{}, {"Accept": "text/event-stream"}, {"If-Match": '"v1"'}, {"Idempotency-Key": f"k-{kind}"}]
    asked = await routes(world.warm)
    for turn, system in enumerate((world.cold, world.warm, world.cold)):
        for method, path in asked:
            if OWNERS[path.partition("{")[2].partition("}")[0]] == kind:
                continue
            # The later turns are about what a cache keeps: with the header that chooses another way to the same state.
            for headers in variants if not turn else (variants[0], variants[1 if method == "GET" else 3]):
                response = await ask(system, method, path, world.ids[kind], **headers)
                assert (response.status_code, response.json()["code"]) == (404, "not-found"), (method, path, headers, response.text)
        as_of = await system.http.get(f"/v1/runs/{world.ids[kind]}", params={"as_of": before})
        assert as_of.status_code == (200 if kind == "runs" else 404)
        listed = await system.http.get("/v1/runs", params={"project_id": str(world.ids[kind])})
        assert listed.status_code == 200 and listed.json()["data"] == []
    written = await world.warm.container.feed.read_tenant(DEFAULT_TENANT_ID, after=before, limit=1_000)
    assert {event.topic for event in written} <= {audit.ActionRecorded.TOPIC}, "nothing but that it was refused"
    assert await world.warm.sql("SELECT * FROM parked_event") == []


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_of_another_kind_is_no_work_of_a_session(world: World, kind: str) -> None:
    before, id_ = await world.warm.settled(), str(world.ids[kind])
    for system in (world.cold, world.warm):
        worker = system.worker("stranger")
        for of in ("agent", "tool"):
            assert OF_WORK[of] == kind or await worker.try_claim(id_, of) is None
        if kind not in OF_WORK.values():
            claim = await worker.as_if_held("agent", id_, id_, 1)
            for report, body in REPORTS.items():
                refused = await claim.post(report, **body)
                assert (refused.status_code, refused.json()["code"]) == (403, "invalid-token"), (report, refused.text)
    assert await world.warm.container.feed.head() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_an_id_that_is_taken_cannot_be_made_something_else(world: World, kind: str) -> None:
    before = await world.warm.settled()
    for system in (world.cold, world.warm, world.cold):
        started = await system.http.post("/v1/runs", json={"agent": "alpha", "input": 7, "run_id": str(world.ids[kind])})
        assert (started.status_code, started.json()["code"]) == (409, "already-exists"), started.text
        if kind != "projects":
            inside = await system.http.post("/v1/runs", json={"agent": "alpha", "project_id": str(world.ids[kind])})
            assert (inside.status_code, inside.json()["code"]) == (404, "unknown-project"), inside.text
    assert await world.warm.container.feed.head() == before


@pytest.mark.parametrize("kind", KINDS)
async def test_commands_that_come_by_no_route_are_held_to_it_too(world: World, kind: str) -> None:
    id_, before = world.ids[kind], await world.warm.settled()
    wishes: dict[str, tuple[Command, type[Exception]]] = {
        "projects": (projects.CreateProject(project_id=id_, name="other"), AlreadyExists),
        "agents": (agents.RegisterAgent(agent_id=id_, name="x"), AlreadyExists),
        "tools": (tools.RegisterTool(tool_id=id_, name="x", parameters={}), AlreadyExists),
        "context": (context.SetContextValue(context_id=id_, run_id=id_, agent_run_id=id_, name="n"), AlreadyExists),
        "tenants": (IssueApiKey(tenant_id=id_, key_id=id_, label="x", sha256="0" * 64), NotFound),
        "runs": (runs.CancelRun(run_id=id_), NotFound),
    }
    for system in (world.cold, world.warm):
        for owner, (wish, error) in wishes.items():
            if owner != kind:
                with pytest.raises(error):
                    await system.command(wish)
    assert await world.warm.container.feed.head() == before


async def test_what_is_looked_at_by_the_wrong_rules_keeps_its_own(world: World, nats_url: str) -> None:
    """A read by the wrong kind leaves the right state in the cache, at the cost of one read."""
    async with running(world.warm.database_url, nats_url, roles=["api"], key=world.warm.key) as fresh:
        run_id = world.ids["runs"]
        assert (await ask(fresh, "POST", "/v1/agent-runs/{agent_run_id}/complete", run_id)).status_code == 404
        loaded = await fresh.container.commands.load(runs.DECIDER, DEFAULT_TENANT_ID, run_id, fresh=False)
        again = await world.cold.container.commands.load(runs.DECIDER, DEFAULT_TENANT_ID, run_id)
        assert isinstance(loaded.state, runs.Run) and loaded == again and loaded.version > 1
