"""The table of permissions holds at every door: each role against each route, and against each message of a worker's session."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from api.http.app import ROUTERS
from api.http.conventions.routing import DirectRoute
from domain.access import PERMISSIONS, Action, Role, may, roles_that_may
from domain.agent_runs import ClaimAgentRun
from domain.invocations import ClaimInvocation
from tests.integration.roles_kit import ServerOfRoles, with_roles
from tests.integration.sdk_kit import running
from tests.integration.session_kit import Message, socket, worker_at
from tests.integration.system_kit import System, eventually, new_id
from tests.pace import ANSWER_S, in_time
from tidelog import Agent, Client, Context, tool
from tidelog.errors import PermissionDeniedError
from tidelog.http_client import http_client
from tidelog.worker import RefusedError, Worker

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, DirectRoute)]
PROTECTED = [route for route in ROUTES if route.permission.action is not None]
FRAMES = sorted((Path(__file__).parent.parent / "golden" / "frames").glob("worker.*.json"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(shared: System) -> AsyncIterator[ServerOfRoles]:
    async with with_roles(shared) as server:
        yield server


def client(server: ServerOfRoles, role: Role | None) -> httpx2.AsyncClient:
    headers = {} if role is None else {"Authorization": f"Bearer {server.keys[role]}"}
    return http_client(server.url, headers=headers, timeout_s=ANSWER_S)


def asked(path: str) -> str:
    """A path of the route that leads to nothing: whoever may ask is told so, and changes nothing either."""
    path = path.replace("{name}", "nowhere").replace("{position}", "1").replace("{topic}", "run.started")
    return re.sub(r"{\w+}", lambda _: str(new_id()), path)


def is_refusal(answer: httpx2.Response, role: Role, action: Action) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (403, "forbidden", False), answer.text
    assert (problem["action"], problem["role"], problem["roles"]) == (action, role, roles_that_may(action))
    assert f"`{action}`" in problem["detail"] and all(other in problem["detail"] for other in roles_that_may(action))


# --- routes -------------------------------------------------------------------------------------------------------------


def test_every_route_says_what_it_needs() -> None:
    assert len(PROTECTED) > 50 and len(ROUTES) - len(PROTECTED) > 10
    for route in ROUTES:
        assert (route.permission.action is None) is not route.path.startswith("/v1/"), route.path


@pytest.mark.parametrize("role", Role)
async def test_each_route_is_refused_to_each_role_that_may_not(shared: System, server: ServerOfRoles, role: Role) -> None:
    before = await shared.settled()
    async with client(server, role) as http:
        for route in PROTECTED:
            assert route.permission.action is not None
            if route.permission.by_endpoint:
                continue  # it looks at the key that signs in: tests/integration/test_browser_sessions.py
            for method in sorted({*route.methods, *(["HEAD"] if "GET" in route.methods else [])}):
                answer = await http.request(method, asked(route.path), **({"json": {}} if method == "POST" else {}))
                where = f"{method} {route.path}: {answer.status_code} {answer.text}"
                if may(role, route.permission.action):
                    assert answer.status_code not in (401, 403) and answer.status_code < 500, where
                elif method == "HEAD":
                    assert answer.status_code == 403 and not answer.content, where
                else:
                    is_refusal(answer, role, route.permission.action)
    await shared.settled()
    later = {event.topic for event in await shared.events() if event.position > before}
    assert later <= {"audit.action_recorded"}, "nothing but the entries of actions on things that are not there"


@pytest.mark.parametrize("role", [None, *Role])
async def test_public_routes_are_open_to_everybody(server: ServerOfRoles, role: Role | None) -> None:
    async with client(server, role) as http:
        for route in ROUTES:
            if route.permission.action is None:
                answer = await http.get(asked(route.path).replace(f"v{new_id()}", "v1"))
                assert answer.status_code not in (401, 403), (route.path, answer.text)


async def test_a_refusal_comes_before_the_request_is_looked_at(server: ServerOfRoles) -> None:
    """Neither a body, nor parameters, nor what is there can be told from the answer to a key that may not."""
    async with client(server, Role.AUDITOR) as http:
        for body in (b"", b"{", b'{"agent": "walker"}', b"[" * 100_000):
            is_refusal(await http.post("/v1/runs?x=1", content=body), Role.AUDITOR, Action.RUNS_START)
        for id in (new_id(), "no-id"):
            is_refusal(await http.post(f"/v1/runs/{id}/cancel", json={}), Role.AUDITOR, Action.RUNS_CANCEL)


async def test_what_would_have_changed_something_changes_nothing_when_it_is_refused(shared: System, server: ServerOfRoles) -> None:
    """Requests that would be carried out: first by every role that may not, then by one that may."""
    acts = await requests_that_would_be_carried_out(shared)
    for method, path, action, body in acts:
        before = await shared.settled(), await operations(shared)
        for role in Role:
            if not may(role, action):
                async with client(server, role) as http:
                    is_refusal(await http.request(method, path, json=body), role, action)
        assert (await shared.settled(), await operations(shared)) == before, path
        allowed = roles_that_may(action)[-1]
        async with client(server, allowed) as http:
            answer = await http.request(method, path, json=body)
            assert answer.is_success, (allowed, method, path, answer.text)
        assert (await shared.settled(), await operations(shared)) != before, path


async def requests_that_would_be_carried_out(shared: System) -> list[tuple[str, str, Action, Any]]:
    worker = shared.worker()
    await worker.register("walker", tools=["add", {"name": "mail", "idempotent": False}])
    in_doubt = await worker.step(await shared.start("walker"), "walker")
    lost = await in_doubt.call("lost", "mail")
    await (await worker.claim(lost, "tool")).lose()
    reports: list[tuple[str, str, Action, Any]] = []
    for verb, said in (("complete", {"result": 1}), ("fail", {"error": {"type": "T", "message": "m"}})):
        step = await worker.step(await shared.start("walker"), "walker")
        call = UUID(await step.call("k", "add", a=1))
        await shared.command(ClaimInvocation(invocation_id=call, worker_id="old", dispatch=1))
        await step.lose()
        await shared.command(ClaimAgentRun(agent_run_id=UUID(step.work_id), worker_id="old", dispatch=2))
        reports.append(("POST", f"/v1/invocations/{call}/{verb}", Action.WORKERS_WORK, {"attempt": 1, **said}))
        reports.append(("POST", f"/v1/agent-runs/{step.work_id}/{verb}", Action.WORKERS_WORK, {"attempt": 2, **said}))
    running_id = await shared.start("walker")
    project_id = (await shared.http.post("/v1/projects", json={"name": "gone soon"})).json()["project_id"]
    declared = {"version": "1", "kind": "builtin", "builtin": "fetch", "parameters": {}}
    await shared.http.post("/v1/tools", json={"name": "gone.soon", **declared})
    return [
        *reports,
        ("POST", "/v1/tools", Action.TOOLS_DEFINE, {"name": "new.one", **declared}),
        ("POST", "/v1/tools/new.one/versions", Action.TOOLS_DEFINE, {**declared, "version": "2"}),
        ("PATCH", "/v1/tools/new.one", Action.TOOLS_DEFINE, {"deprecated": True}),
        ("DELETE", "/v1/tools/gone.soon", Action.TOOLS_REMOVE, None),
        ("POST", "/v1/runs", Action.RUNS_START, {"agent": "walker"}),
        ("POST", "/v1/projects", Action.PROJECTS_CREATE, {"name": "p"}),
        ("DELETE", f"/v1/projects/{project_id}", Action.PROJECTS_REMOVE, None),
        ("POST", f"/v1/invocations/{lost}/resolve", Action.INVOCATIONS_RESOLVE, {"result": 1, "reason": "I looked."}),
        ("POST", f"/v1/runs/{running_id}/cancel", Action.RUNS_CANCEL, {}),
        ("POST", "/v1/projections/messages/verify", Action.PROJECTIONS_VERIFY, {}),
        ("POST", "/v1/projections/messages/rebuild", Action.PROJECTIONS_REBUILD, {"swap": False}),
    ]


async def operations(shared: System) -> list[Any]:
    """What is being done with the read models."""
    found = (await shared.http.get("/v1/projections")).json()["data"]
    return [(one["name"], bool(one["build"]), bool(one["check"]), one["previous"]) for one in found]


async def test_a_key_of_another_tenant_is_no_operator_whatever_its_role(shared: System) -> None:
    tenant_id, _ = await shared.tenant("other")
    async with with_roles(shared, tenant_id) as server:
        for role in Role:
            async with client(server, role) as http:
                for path, action in (("/v1/projections", Action.PROJECTIONS_READ), ("/v1/log/gaps", Action.LOG_READ)):
                    answer = await http.get(path)
                    assert answer.status_code == 403 and ("action" in answer.json()) is not may(role, action), (role, path)


async def test_readiness_tells_hosts_to_those_who_may_read_about_the_server(server: ServerOfRoles) -> None:
    for role in Role:
        async with client(server, role) as http:
            members = (await http.get("/health/ready")).json()["members"]
            assert members and all(("place" in member) is may(role, Action.PROJECTIONS_READ) for member in members), role


# --- sessions of workers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
async def test_a_session_is_for_roles_that_may_work(shared: System, server: ServerOfRoles, role: Role) -> None:
    before = await shared.settled()
    if may(role, Action.WORKERS_WORK):
        async with worker_at(server.url, server.keys[role]) as worker:
            await worker.hello()
    else:
        with pytest.raises(InvalidStatus) as caught:
            async with socket(server.url, server.keys[role]):
                pass
        response = caught.value.response
        problem = json.loads(response.body or b"")
        assert response.status_code == 403 and (problem["code"], problem["action"]) == ("forbidden", "workers.work")
        assert problem["role"] == role and problem["roles"] == ["owner", "admin", "worker"]
    assert await shared.settled() == before


def said() -> list[tuple[str, Message]]:
    """A message of each kind that a worker says."""
    return [(path.name.split(".")[1], json.loads(path.read_text())[0]) for path in FRAMES]


@pytest.mark.parametrize("role", Role)
async def test_each_message_of_a_session_is_held_against_the_table(
    shared: System, server: ServerOfRoles, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session is opened while every role may work. Only the table decides about each message then."""
    before = await shared.settled()
    allowed = PERMISSIONS[role]
    greeting = next(message for kind, message in said() if kind == "hello")
    for kind, message in said():
        monkeypatch.setitem(PERMISSIONS, role, allowed | {Action.WORKERS_WORK})
        async with worker_at(server.url, server.keys[role]) as worker:
            monkeypatch.setitem(PERMISSIONS, role, allowed)
            if may(role, Action.WORKERS_WORK):
                await worker.say({**greeting, "agents": [], "tools": [], "work": []})
                await worker.wait(t="welcome")
                if "id" in message:
                    await worker.say({**message, "agents": []} if kind == "define" else message)
                    answer = await worker.answer(message["id"])
                    assert answer["t"] == "done" or answer["problem"]["code"] == "invalid-token", answer
            elif "id" in message:
                await worker.say(message)
                answer = await worker.answer(message["id"])
                assert (answer["t"], answer["problem"]["action"]) == ("refused", "workers.work")
            else:
                await worker.say(message)
                assert (await worker.wait(t="error"))["problem"]["action"] == "workers.work"
                assert await worker.until_closed() == 4403
    assert await shared.settled() == before


@tool("permissions.double", idempotent=True)
def double(value: int) -> int:
    return 2 * value


class Large(Agent):
    """Several of its results leave no room for others in one message of a session."""

    async def execute(self, ctx: Context) -> Any:
        ctx.log.info("begun")
        return "x" * 190_000


class Reader(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.state.set("sum", sum(map(len, ctx.results.values())))
        return await ctx.tool("permissions.double", value=await ctx.state.get("sum"))


async def test_a_key_of_a_worker_is_enough_for_all_that_a_worker_does(server: ServerOfRoles) -> None:
    """Also results that the message of the work has no room for, and lines of logs: all goes over the session."""
    async with (
        running(server.url, Large, Reader, double, key=server.keys[Role.WORKER]),
        Client(server.url, server.keys[Role.DEVELOPER]) as developer,
        Client(server.url, server.keys[Role.WORKER]) as worker,
    ):
        started = await developer.start_run(plan={"kind": "parallel", "agents": ["large"] * 6, "aggregator": "reader"})
        run = await in_time(developer.wait(started.run_id, timeout=600), 30)
        assert (run.status, run.result) == ("completed", 2 * 6 * 190_000)

        async def logged() -> bool:
            return len(await developer.run_logs(started.run_id)) == 6

        await eventually(logged, "the lines of the six")
        with pytest.raises(PermissionDeniedError) as caught:
            await worker.get_run(started.run_id)
    assert (caught.value.action, caught.value.role) == ("runs.read", "worker")
    assert caught.value.roles == ("owner", "admin", "operator", "developer", "auditor") and "`runs.read`" in str(caught.value)


async def test_a_worker_whose_key_may_not_work_ends_with_the_reason(server: ServerOfRoles) -> None:
    with pytest.raises(RefusedError, match=r"403 forbidden: `workers\.work` is not allowed to a key of the role auditor"):
        await in_time(Worker(url=server.url, api_key=server.keys[Role.AUDITOR], agents=[Reader]).run(asyncio.Event()), 10)


# --- what the documents say ---------------------------------------------------------------------------------------------


async def test_the_documents_name_the_action_of_each_operation(server: ServerOfRoles) -> None:
    async with client(server, None) as http:
        described, messages = (await http.get("/openapi.json")).json(), (await http.get("/asyncapi.json")).json()
    for route in ROUTES:
        for method in route.methods if route.include_in_schema else ():
            operation, action = described["paths"][route.path][method.lower()], route.permission.action
            assert operation.get("x-action") == action, route.path
            assert ("403" in operation["responses"]) is (action is not None), route.path
            if action is not None:
                told = operation["responses"]["403"]["description"]
                assert f"`{action}`" in told and told.endswith(", ".join(roles_that_may(action))), told
    for name in ("streamTenantEvents", "streamRunEvents"):
        assert messages["operations"][name]["x-action"] == "events.read"
    for name in ("sendToWorker", "receiveFromWorker"):
        assert (
            messages["operations"][name]["x-action"] == "workers.work" and "worker" in messages["operations"][name]["description"]
        )
    for kind, _ in said():
        assert messages["components"]["messages"][f"worker.{kind}"]["x-action"] == "workers.work"
