"""Two tenants share an installation, and neither can find out that the other exists.

One tenant has used every route. The other one puts everything that the first has seen (ids, positions, cursors, names) into every
place of every route of the OpenAPI document: path, query, body, headers. Each answer must be the one for a thing that nobody has.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from tests.integration.documented_kit import document, operations_of, takes_content
from tests.integration.session_kit import offer, worker_at
from tests.integration.system_kit import streaming
from tests.security.two_tenants import CURSOR, ID, OPERATIONS_ON_ALL, Other, Seen, some


def places(operation: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [parameter for parameter in operation.get("parameters", ()) if parameter["in"] == kind]


def filled(path: str, seen: Seen) -> Iterator[tuple[str, str]]:
    """The path with `@` for its id, and each id that the first tenant has seen. Other parts of the path get values of the first
    tenant.
    """
    names = re.findall(r"{(\w+)}", path)
    first, *others = names
    values = {
        "step": "walker",
        "position": str(max(seen.positions) // 2),
        "message_id": str(uuid4()),
        "name": "runs",
        "topic": "x",
        "version": "1",
        "number": "0",
    }
    for name in others:
        path = path.replace(f"{{{name}}}", values.get(name, "x"))
    path = path.replace(f"{{{first}}}", "@")
    return ((path, id) for id in sorted(seen.ids))


async def nothing_foreign_in_the_stream(other: Other, last: str) -> None:
    """From an event on, while the first tenant starts a run."""
    async with streaming(await other.system.url(), other.key, "/v1/events", {"Last-Event-ID": last}) as stream:
        foreign = await other.system.start("walker")
        made = (await other.http.post("/v1/projects", json={"name": "mine"})).json()["project_id"]
        told: list[str] = []
        while not told or made not in told[-1]:
            event = await stream.next(timeout_s=60)
            told.append(f"{event.id} {event.data}")
    found = set(ID.findall("\n".join(told)))
    assert not found & ({foreign, *other.seen.ids} - other.given), told


async def test_a_stream_from_the_first_event_on_has_nothing_foreign(other: Other) -> None:
    """With each cursor of the first tenant. It stands before the tests that leave thousands of events."""
    for last in ("0", *(cursor for cursor in some(other.seen.cursors, 30) if CURSOR.fullmatch(cursor))):
        await nothing_foreign_in_the_stream(other, last)


async def test_a_foreign_id_in_a_path_is_as_one_that_nobody_has(other: Other) -> None:
    tried = 0
    for (method, path), operation in operations_of(await document(other.system)).items():
        if "{" not in path or not path.startswith("/v1/") or path.startswith(OPERATIONS_ON_ALL) or path == "/v1/events/{position}":
            continue
        request: dict[str, Any] = {}
        if takes_content(operation):
            request["content"] = "own"
        elif "requestBody" in operation:
            place = re.sub(r"{\w+}", "{}", path)
            request["json"] = other.seen.bodies.get(place, {})
        for place, id in filled(path, other.seen):
            await other.same_as_nothing(method, place, id, **request)
            tried += 1
    for id in sorted(other.seen.ids):
        await other.same_as_nothing("GET", "/v1/ids/@", id[:18])
    assert tried > 500


async def test_events_of_foreign_positions_are_as_those_that_are_not_there(other: Other) -> None:
    for position in sorted(other.seen.positions):
        answer = await other.learns_nothing("GET", f"/v1/events/{position}")
        assert answer.status_code == 404, answer.text


async def test_nothing_foreign_stands_in_a_list_whatever_is_asked_for(other: Other) -> None:
    """Every parameter of every list with everything that the first tenant has seen, one at a time."""
    values = {
        "agent": ["walker", "other"],
        "step": ["walker"],
        "tool": ["add", "mail"],
        "status": ["completed", "ambiguous"],
    }
    given = [*some(other.seen.ids), *some(other.seen.cursors), *map(str, some(other.seen.positions)), "walker", "walk", "add"]
    for (method, path), operation in operations_of(await document(other.system)).items():
        if method != "GET" or "{" in path or not path.startswith("/v1/") or path.startswith((OPERATIONS_ON_ALL, "/v1/log")):
            continue
        await other.learns_nothing("GET", path)
        for parameter in places(operation, "query"):
            for value in [*given, *values.get(parameter["name"], ())]:
                answer = await other.learns_nothing("GET", path, params={parameter["name"]: value})
                assert answer.status_code in (200, 204, 404, 410, 422), (path, parameter["name"], value, answer.text)


async def test_foreign_values_in_headers_bring_nothing_foreign(other: Other) -> None:
    for (method, path), operation in operations_of(await document(other.system)).items():
        if method != "GET" or "{" in path or not path.startswith("/v1/") or path.startswith((OPERATIONS_ON_ALL, "/v1/log")):
            continue
        for parameter in places(operation, "header"):
            for value in [*some(other.seen.cursors), *map(str, some(other.seen.positions, 3)), *some(other.seen.ids, 3)]:
                headers = {parameter["name"]: value, "Accept": "application/json"}
                await other.learns_nothing("GET", path, headers=headers)


async def test_a_body_with_something_foreign_is_as_one_with_something_that_nobody_has(other: Other) -> None:
    await offer(await other.system.url(), other.key, ["own"])
    for id in some(other.seen.ids, 40):
        await other.same_as_nothing("POST", "/v1/runs", id, json={"agent": "own", "project_id": "@"})
        taken = await other.learns_nothing("POST", "/v1/runs", json={"agent": "own", "run_id": id})
        if taken.status_code == 201:
            other.seen.ids.remove(id)
            continue
        # An id of the first tenant's that is in the log. Ids are those of the whole installation.
        assert (taken.status_code, taken.json()["code"]) == (409, "already-exists")
        assert taken.json()["detail"] == f"the id {id} is taken by something else"
    unknown = await other.learns_nothing("POST", "/v1/runs", json={"agent": "walker"})
    nobody = await other.learns_nothing("POST", "/v1/runs", json={"agent": "nobody"})
    assert unknown.status_code == nobody.status_code and unknown.text.replace("walker", "x") != nobody.text
    assert unknown.json()["code"] == nobody.json()["code"]


async def test_a_foreign_idempotency_key_makes_a_thing_of_ones_own(other: Other) -> None:
    assert other.seen.keys
    for key in other.seen.keys:
        made = await other.learns_nothing("POST", "/v1/projects", json={"name": "mine"}, headers={"Idempotency-Key": key})
        assert made.status_code == 201 and made.json()["project_id"] not in other.seen.ids


async def test_the_stream_of_all_that_was_asked_for_has_nothing_foreign(other: Other) -> None:
    await nothing_foreign_in_the_stream(other, "0")


async def test_a_worker_gets_no_foreign_work_and_cannot_report_on_it(other: Other) -> None:
    """The worker offers an agent and tools with the names of the first tenant's."""
    mine = other.system.worker()
    await mine.register("secretive")
    run_id = await other.system.start("secretive")
    waiting = await mine.next("secretive")
    async with worker_at(await other.system.url(), other.key, name="socket-other") as worker:
        welcome = await worker.hello(["walker", "secretive"], ["add", "mail"])
        await worker.credit(agent=10, tool=10)
        answers = []
        for id in (str(waiting.work_id), str(run_id), str(uuid4())):
            for t, fields in (
                ("complete", {"result": 1, "unused_keys": []}),
                ("more", {"after": 0}),
                ("record", {"key": "k", "kind": "step", "result": 1}),
            ):
                answer = await worker.ask({"work": id, "attempt": 1, "token": "c2VjcmV0"}, t, **fields)
                answers.append((t, json.dumps({**answer, "id": 0}).replace(id, "{}")))
        assert len(set(answers)) == 3, answers
        assert not [message for message in worker.came if message["t"] == "work"]
        assert not set(ID.findall(json.dumps(welcome))) & other.seen.ids
    await waiting.complete({"done": True})
    await other.system.ended(run_id)
