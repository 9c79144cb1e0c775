"""A key that is narrowed to projects cannot find out what the other projects of its tenant have.

The key of the whole tenant has used every route. The narrowed key asks every route for all of that, and for things that nobody has:
each answer must be the same. What is in its own projects it gets whole, page by page and as a stream.
"""

import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7
from websockets.exceptions import InvalidStatus

from api.http.app import ROUTERS
from api.http.conventions.permissions import BY_PATH, Reach
from api.http.conventions.routing import DirectRoute
from application.engine.ports.pages import decode_cursor, encode_cursor
from domain.access import Role
from domain.kernel import RecordedEvent
from domain.projects import default_project_id
from domain.tenants import DEFAULT_TENANT_ID
from projections.invocations import lists
from tests.integration.documented_kit import document, operations_of
from tests.integration.session_kit import socket
from tests.integration.system_kit import System, sha256, streaming
from tests.integration.used_routes_kit import use_projections, use_runs

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, DirectRoute)]
WORDS = ('"walk"', "hello", "enough", "I looked.")
"""Names and values of the other projects alone. Agents and tools are for all."""


@dataclass
class Auditor:
    """The narrowed key, and what it must not see."""

    system: System
    http: httpx2.AsyncClient
    key: str
    projects: tuple[str, str]
    runs: dict[str, list[str]]
    """The key's own runs, by project, in the order of their start."""
    _head: int = 0
    _others: set[str] = field(default_factory=set)
    """What `of_others` found at that head of the log."""

    async def _mine(self, events: Sequence[RecordedEvent]) -> set[str]:
        """The roots that the key sees."""
        starts = [event for event in events if event.topic == "run.started"]
        starts += [event for event in events if event.topic == "schedule.created"]
        return {*self.projects} | {str(e.root_id) for e in starts if json.loads(e.state)["project_id"] in self.projects}

    async def of_others(self) -> set[str]:
        """Ids of all streams that are of no run and no project of the key, the catalog left out."""
        head = await self.system.container.feed.head()
        if head != self._head:
            events = await self.system.events()
            mine, catalog = await self._mine(events), ("agent", "tool")
            others = {e for e in events if str(e.root_id) not in mine and e.topic.partition(".")[0] not in catalog}
            self._head, self._others = head, {str(event.stream_id) for event in others} - {str(DEFAULT_TENANT_ID)}
        return self._others

    async def own_events(self) -> list[RecordedEvent]:
        events = await self.system.events()
        mine = await self._mine(events)
        return [event for event in events if str(event.root_id) in mine]

    async def asks(self, method: str, path: str, given: str = "", **request: Any) -> httpx2.Response:
        """Asks, and makes sure that the answer has nothing of another project but what was given."""
        answer = await self.http.request(method, path, **request)
        asked, text = f"{path} {json.dumps(request)} {given}", answer.text
        assert answer.status_code < 500, (method, path, request, text)
        text += "".join(decode_cursor(cursor) for cursor in re.findall(r'"next_cursor":"([^"]+)"', text))
        told = {id for id in ID.findall(text) if id not in asked}
        leaked = told & await self.of_others() if told else told
        leaked |= {word for word in WORDS if word in text and word.strip('"') not in asked}
        assert not leaked, (method, path, request, answer.status_code, text)
        return answer

    async def same_as_nothing(self, method: str, path: str, foreign: str, **request: Any) -> int:
        answers = []
        for id in (foreign, str(uuid4())):
            given = json.loads(json.dumps(request).replace('"@"', f'"{id}"'))
            answer = await self.asks(method, path.replace("@", id), **given)
            text = re.sub(r'"trace_id":"[^"]*"|at position \d+', "", answer.text).replace(id, "@")
            headers = [value.replace(id, "@") for name, value in answer.headers.items() if name in ("etag", "location", "link")]
            answers.append((answer.status_code, text, headers))
        assert answers[0] == answers[1], (method, path, request, foreign)
        return answers[0][0]

    async def all_pages(self, path: str, limit: int, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        for _ in range(1000):
            page = (await self.asks("GET", path, params={"limit": limit, **params, **cursor})).json()
            found += page["data"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}
        raise AssertionError(f"{path} has no end")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def auditor(shared: System) -> AsyncIterator[Auditor]:
    async with shared.client(shared.key) as http:
        await use_runs(shared, http)
        await use_projections(shared, http)
        ids = [(await http.post("/v1/projects", json={"name": name})).json()["project_id"] for name in ("mine", "also mine")]
        runs: dict[str, list[str]] = {id: [] for id in ids}
        worker = shared.worker()
        await worker.register("mover", tools=["push"])
        for number in range(8):  # between them: runs of another project
            project = [*ids, default_project_id(DEFAULT_TENANT_ID)][number % 3]
            run_id = await shared.start("mover", project_id=str(project), metadata={"number": number % 2}, input=f"input-{number}")
            work = await worker.next("mover")
            await (await worker.claim(await work.call("push", "push", n=number), "tool")).complete(number)
            await (work.fail() if number == 4 else work.complete(number))
            if str(project) in runs:
                runs[str(project)].append(run_id)
        await shared.settled()
        key = f"narrowed-{uuid4()}"
        made = {"label": "narrowed", "role": "owner", "projects": ids, "key_id": str(uuid4()), "sha256": sha256(key)}
        assert (await http.post("/v1/keys", json=made)).status_code == 201
        await shared.settled()
    async with shared.client(key) as http:
        yield Auditor(shared, http, key, (ids[0], ids[1]), runs)


def of_reach(*reaches: Reach) -> list[DirectRoute]:
    return [route for route in ROUTES if route.permission.action is not None and route.permission.reach in reaches]


def filled(path: str, name: str, value: str) -> str:
    path = path.replace(f"{{{name}}}", value).replace("{position}", "1").replace("{step}", "walker").replace("{name}", "runs")
    path = path.replace("{number}", "0")
    return re.sub(r"{\w+}", lambda _: str(uuid4()), path)


def test_a_route_with_the_id_of_a_thing_keeps_to_the_projects_of_the_key_or_is_of_the_tenant() -> None:
    named = {reach.value for reach in BY_PATH}
    for route in ROUTES:
        found = [name for name in re.findall(r"{(\w+)}", route.path) if name in named and route.path.startswith("/v1/")]
        if found and route.permission.reach is not Reach.TENANT:
            assert route.permission.reach.value == found[0], route.path
    assert len(of_reach(*BY_PATH)) > 20 and len(of_reach(Reach.LIMITED)) == 41


async def test_what_is_of_the_whole_tenant_is_refused(auditor: Auditor) -> None:
    before = await auditor.system.settled()
    routes = of_reach(Reach.TENANT)
    assert {route.path for route in routes} > {
        "/v1/keys",
        "/v1/audit",
        "/v1/workers",
        "/v1/projections/{name}/rebuild",
        "/v1/log/gaps",
    }
    for route in routes:
        for method in route.methods:
            answer = await auditor.asks(method, filled(route.path, "", ""), **({"json": {}} if method == "POST" else {}))
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, route.path, answer.text)
            assert "narrowed to projects" in answer.json()["detail"] and f"`{route.permission.action}`" in answer.json()["detail"]
    with pytest.raises(InvalidStatus) as refused:
        async with socket(await auditor.system.url(), auditor.key):
            pass
    assert refused.value.response.status_code == 403 and b"narrowed" in (refused.value.response.body or b"")
    ready = (await auditor.http.get("/health/ready")).json()
    assert all("place" not in member for member in ready["members"])
    await auditor.system.settled()
    assert not [event for event in await auditor.system.events() if event.position > before]


async def test_a_thing_of_another_project_is_as_one_that_nobody_has(auditor: Auditor) -> None:
    why = {"reason": "x"}
    bodies = {
        "cancel": why,
        "resolve": {"result": 1, **why},
        "compensation": why,
        "resume": why,
        "pause": why,
        "priority": {"priority": "low", **why},
    }
    bodies |= {
        "signals": {"name": "go"},
        "skip": why,
        "force": {"result": 1, **why},
        "dispatch": why,
        "fork": why,
        "decision": {"decision": "deny"},
    }
    bodies |= {"retry": why, "deadline": {"deadline_s": 60, **why}}
    others, tried = sorted(await auditor.of_others()), 0
    for route in of_reach(*BY_PATH):
        if route.permission.reach is Reach.EVENT:
            continue
        for method in sorted(route.methods):
            for id in others:
                path = filled(route.path, route.permission.reach.value, "@")
                request = {"json": bodies[path.rpartition("/")[2]]} if method == "POST" else {}
                assert await auditor.same_as_nothing(method, path, id, **request) == 404, (method, path, id)
                tried += 1
    for id in others:
        await auditor.same_as_nothing("GET", "/v1/ids/@", id)
    assert tried > 500


async def test_a_schedule_of_another_project_is_as_one_that_nobody_has(auditor: Auditor) -> None:
    body = {"when": {"at": "2099-01-01T00:00:00Z"}, "start": {"agent": "mover"}, "overlap": "allow"}
    assert (await auditor.system.http.post("/v1/schedules", json={"name": "theirs", **body})).status_code == 201
    own = {"name": "own", "project_id": auditor.projects[0], **body}
    assert (await auditor.asks("POST", "/v1/schedules", json=own)).status_code == 201
    foreign = {**own, "name": "x", "project_id": str(default_project_id(DEFAULT_TENANT_ID))}
    assert (await auditor.asks("POST", "/v1/schedules", json=foreign)).json()["code"] == "unknown-project"
    await auditor.system.settled()
    tried = 0
    for route in of_reach(Reach.LIMITED):
        for method in sorted(route.methods) if "/v1/schedules/{name}" in route.path else ():
            request: dict[str, Any] = {"json": {}} if method in ("POST", "PATCH") else {}
            assert await auditor.same_as_nothing(method, route.path.replace("{name}", "@"), "theirs", **request) == 404, route.path
            tried += 1
    assert tried == 6
    assert [one["name"] for one in await auditor.all_pages("/v1/schedules", 1)] == ["own"]
    started = await auditor.asks("POST", "/v1/schedules/own/run-now", json={})
    at = {"Tidelog-Position": started.headers["tidelog-position"]}
    run = await auditor.asks("GET", f"/v1/runs/{started.json()['run_id']}", headers=at)
    assert run.json()["project_id"] == auditor.projects[0]
    assert (await auditor.asks("DELETE", "/v1/schedules/own")).status_code == 200
    assert (await auditor.system.http.get("/v1/schedules/theirs")).json()["status"] == "active"


async def test_nothing_of_another_project_stands_inside_of_a_thing_of_ones_own(auditor: Auditor) -> None:
    """Paths with two names: the first is the key's own run, the second of another project."""
    mine, others = auditor.runs[auditor.projects[0]][0], await auditor.system.events()
    for event in others:
        if str(event.root_id) != mine:
            assert (await auditor.asks("GET", f"/v1/runs/{mine}/journal/{event.position}/result")).status_code == 404
            assert (await auditor.asks("GET", f"/v1/runs/{mine}/messages/{event.stream_id}/body")).status_code == 404
            is_run = event.stream_id == event.root_id and event.version == 1
            if is_run and (await auditor.asks("GET", f"/v1/runs/{event.root_id}")).status_code == 404:
                assert await auditor.same_as_nothing("GET", f"/v1/runs/{mine}/diff?with=@", str(event.root_id)) == 404


async def test_a_position_of_another_project_has_no_event(auditor: Auditor) -> None:
    own = {event.position for event in await auditor.own_events()}
    for event in await auditor.system.events():
        answer = await auditor.asks("GET", f"/v1/events/{event.position}")
        assert answer.status_code == (200 if event.position in own else 404), (event, answer.text)
        for of in ("causes", "effects"):  # nothing of others stands in those of an own event
            assert (await auditor.asks("GET", f"/v1/events/{event.position}/{of}")).status_code == answer.status_code
    assert (await auditor.asks("GET", f"/v1/events/{2**63}")).status_code == 404


async def test_whatever_a_list_is_asked_for_it_has_nothing_of_another_project(auditor: Auditor) -> None:
    others = sorted(await auditor.of_others())
    cursors = [
        (await auditor.system.http.get(path, params={"limit": 1})).json()["next_cursor"] for path in ("/v1/runs", "/v1/events")
    ]
    values = [*others[:: max(1, len(others) // 10)], *cursors, "completed", "degraded", "walker", "mover", "number=1", "key:x", "1"]
    paths = {route.path for route in of_reach(Reach.LIMITED, Reach.CATALOG) if "GET" in route.methods and "{" not in route.path}
    assert paths == {"/v1/runs", "/v1/runs/counts",
                     "/v1/invocations", "/v1/events", "/v1/projects", "/v1/agents", "/v1/tools", "/v1/workflows",
                     "/v1/commands", "/v1/breakers", "/v1/schedules", "/v1/keys/self", "/v1/sessions/self", "/v1/triggers",
                     "/v1/approvals", "/v1/approval-policies", "/v1/usage", "/v1/bulk-actions"}  # fmt: skip
    for (method, path), operation in operations_of(await document(auditor.system)).items():
        if method == "GET" and path in paths:
            for parameter in operation.get("parameters", ()):
                for value in values if parameter["in"] == "query" else []:
                    await auditor.asks("GET", path, params={parameter["name"]: value})


async def test_a_page_of_the_run_of_another_is_as_one_of_a_run_that_nobody_has(auditor: Auditor) -> None:
    """Also its cursor, its position, and a cursor that is a run of another project."""
    project = str(default_project_id(DEFAULT_TENANT_ID))
    own = {str(event.root_id) for event in await auditor.own_events()}
    others = [run["run_id"] for run in (await auditor.system.http.get("/v1/runs")).json()["data"] if run["run_id"] not in own]
    assert len(others) > 2
    for id in others:
        for path, name in (("/v1/events", "root_id"), ("/v1/invocations", "run_id")):
            for more in ({}, {"recorded_after": "2999-01-01T00:00:00Z"}, {"as_of": "100000"}):
                answers = []
                for value in (id, str(uuid4())):
                    answer = await auditor.asks("GET", path, params={name: value, "limit": 1, **more})
                    position = answer.headers.get("tidelog-position") if path == "/v1/events" else ""
                    answers.append((answer.status_code, answer.text if answer.is_success else "", position))
                assert answers[0] == answers[1], (path, answers)
        for value in (id, str(uuid4())):
            answer = await auditor.asks("GET", "/v1/runs", params={"cursor": encode_cursor(value)})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-command"), answer.text
    assert await auditor.same_as_nothing("GET", "/v1/runs?project_id=@", project) == 200


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_lists_of_runs_have_all_of_ones_own_and_no_others(auditor: Auditor, limit: int) -> None:
    first, second = auditor.projects
    own = {str(event.root_id) for event in await auditor.own_events()}
    head = await auditor.system.container.feed.head()
    for filters in ({}, {"status": "completed"}, {"status": "failed"}, {"agent": "mover"}, {"metadata": "number=1"},
                    {"agent": "mover", "status": "completed"}, {"metadata": "number=1", "agent": "mover"},
                    {"error": "transient"}, {"project_id": first}, {"project_id": second, "agent": "mover"}):  # fmt: skip
        for at in ({}, {"as_of": str(head)}):
            if "error" in filters and at:
                continue
            whole = (await auditor.system.http.get("/v1/runs", params={"limit": 1000, **filters, **at})).json()["data"]
            wanted = [run["run_id"] for run in whole if run["run_id"] in own]
            found = [run["run_id"] for run in await auditor.all_pages("/v1/runs", limit, **filters, **at)]
            assert found == wanted, (filters, at)


@pytest.mark.parametrize("looked_at", [1, 3, 2_000])
async def test_lists_of_calls_have_all_of_ones_own_and_no_others(
    auditor: Auditor, monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    monkeypatch.setattr(lists, "LOOKED_AT", looked_at)
    own = {*auditor.runs[auditor.projects[0]], *auditor.runs[auditor.projects[1]]}
    head = await auditor.system.container.feed.head()
    for filters in ({}, {"status": "succeeded"}, {"status": "ambiguous"}, {"run_id": min(own)}):
        for at in ({}, {"as_of": str(head)}):
            whole = (await auditor.system.http.get("/v1/invocations", params={"limit": 1000, **filters, **at})).json()["data"]
            wanted = [call["invocation_id"] for call in whole if call["run_id"] in own]
            found = [call["invocation_id"] for call in await auditor.all_pages("/v1/invocations", 2, **filters, **at)]
            assert found == wanted, (filters, at)
            assert len(wanted) == {"ambiguous": 0}.get(filters.get("status", ""), 1 if "run_id" in filters else len(own))


def positions(events: Sequence[dict[str, Any]]) -> list[int]:
    return [int(event["position"]) for event in events]


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_events_are_those_of_ones_own_projects_and_runs(auditor: Auditor, limit: int) -> None:
    own = await auditor.own_events()
    assert positions(await auditor.all_pages("/v1/events", limit)) == [event.position for event in own]
    wanted = [event.position for event in own if event.topic == "run.started"]
    assert positions(await auditor.all_pages("/v1/events", limit, types="run.started")) == wanted
    run_id = auditor.runs[auditor.projects[1]][0]
    for path, params in (("/v1/events", {"root_id": run_id}), (f"/v1/runs/{run_id}/events", {})):
        of_run = [event.position for event in own if str(event.root_id) == run_id]
        assert positions(await auditor.all_pages(path, limit, **params)) == of_run


async def test_a_stream_has_the_events_of_ones_own_projects_and_no_others(auditor: Auditor) -> None:
    """Old ones, and new ones while others come between them."""
    old = await auditor.own_events()
    async with streaming(await auditor.system.url(), auditor.key, "/v1/events", {"Last-Event-ID": "0"}) as stream:
        came = [json.loads((await stream.next(timeout_s=60)).data)["position"] for _ in old]
        assert [int(position) for position in came] == [event.position for event in old]
        for number in range(4):
            await auditor.system.start("mover", input=f"foreign-{number}")
            mine = auditor.projects[number % 2]
            run_id = await auditor.system.start("mover", project_id=mine)
            event = await stream.next(timeout_s=60)
            while event.event != "run.started":  # of a run before
                assert json.loads(event.data)["subject"], event.data
                event = await stream.next(timeout_s=60)
            assert run_id in event.data


async def test_a_run_begins_in_a_project_of_the_key(auditor: Auditor) -> None:
    assert await auditor.same_as_nothing("POST", "/v1/runs", str(default_project_id(DEFAULT_TENANT_ID)),
                                         json={"agent": "mover", "project_id": "@"}) == 404  # fmt: skip
    unnamed = await auditor.asks("POST", "/v1/runs", json={"agent": "mover"})
    assert (unnamed.status_code, unnamed.json()["errors"][0]["pointer"]) == (422, "/project_id"), unnamed.text
    mine = auditor.projects[0]
    started = await auditor.asks("POST", "/v1/runs", json={"agent": "mover", "project_id": mine})
    assert started.status_code == 201, started.text
    run_id = started.json()["run_id"]
    cancelled = await auditor.asks("POST", f"/v1/runs/{run_id}/cancel", json={"reason": "done"})
    assert cancelled.status_code == 202, cancelled.text
    await auditor.system.settled()
    shown = await auditor.asks("GET", f"/v1/runs/{run_id}")
    assert (shown.json()["status"], shown.json()["project_id"]) == ("cancelled", mine)
    for path in ("calls", "journal", "messages", "events", "logs", "input", "metadata"):
        assert (await auditor.asks("GET", f"/v1/runs/{run_id}/{path}")).status_code == 200, path
    named = (await auditor.asks("GET", f"/v1/ids/{run_id}")).json()["data"]
    assert [found["kind"] for found in named] == ["run", "command"]


async def test_an_id_that_is_taken_in_another_project_is_taken_by_something(auditor: Auditor) -> None:
    """Also by a run that began in the same way."""
    mine = auditor.projects[0]
    another = await auditor.system.start("mover", run_id=str(uuid7()))
    for id in [another, *sorted(await auditor.of_others())[::5]]:
        answer = await auditor.asks("POST", "/v1/runs", json={"agent": "mover", "project_id": mine, "run_id": id})
        assert (answer.status_code, answer.json()["code"]) == (409, "already-exists"), answer.text
        assert answer.json()["detail"] == f"the id {id} is taken by something else"


async def test_only_ones_own_projects_are_listed(auditor: Auditor) -> None:
    found = await auditor.all_pages("/v1/projects", 1)
    assert [project["project_id"] for project in found] == sorted(auditor.projects)


async def test_a_key_for_one_project_starts_runs_there_and_ends_with_its_revocation(auditor: Auditor) -> None:
    key, key_id, mine = f"narrowed-{uuid4()}", uuid4(), auditor.projects[0]
    made = {"label": "one", "role": Role.DEVELOPER, "projects": [mine, mine], "key_id": str(key_id), "sha256": sha256(key)}
    assert (await auditor.system.http.post("/v1/keys", json=made)).status_code == 201
    await auditor.system.settled()
    shown = (await auditor.system.http.get(f"/v1/keys/{key_id}")).json()
    assert shown["projects"] == [mine]
    async with auditor.system.client(key) as http:
        started = await http.post("/v1/runs", json={"agent": "mover"})
        assert started.status_code == 201, started.text
        await auditor.system.settled()
        assert {run["project_id"] for run in (await http.get("/v1/runs")).json()["data"]} == {mine}
        revoked = await auditor.system.http.post(f"/v1/keys/{key_id}/revoke", json={})
        assert revoked.status_code == 202


async def test_what_a_key_can_be_narrowed_to(auditor: Auditor) -> None:
    http = auditor.system.http
    nobody = str(uuid4())
    for more, status, code in (
        ({"projects": [auditor.projects[0], nobody]}, 404, "unknown-project"),
        ({"projects": []}, 422, "invalid-request"),
        ({"projects": [nobody] * 21}, 422, "invalid-request"),
        ({"projects": ["mine"]}, 422, "invalid-request"),
        ({"projects": list(auditor.projects), "role": "worker"}, 422, "invalid-command"),
    ):
        answer = await http.post("/v1/keys", json={"label": "x", "role": "auditor", **more})
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    made = (await http.post("/v1/keys", json={"label": "x", "role": "auditor", "projects": list(auditor.projects)})).json()
    turned = (await http.post(f"/v1/keys/{made['key_id']}/rotate", json={"overlap_s": 0})).json()
    await auditor.system.settled()
    assert (await http.get(f"/v1/keys/{turned['key_id']}")).json()["projects"] == sorted(auditor.projects)
    async with auditor.system.client(turned["key"]) as narrowed:
        assert {UUID(project["project_id"]) for project in (await narrowed.get("/v1/projects")).json()["data"]} == {
            UUID(id) for id in auditor.projects
        }
