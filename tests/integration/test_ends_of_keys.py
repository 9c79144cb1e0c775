"""Keys over HTTP, and their ends in two processes: of a revoked key, an expired one, and a rotated one after its overlap."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from api.assembly import platform
from api.http.conventions import keys
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.session_kit import worker_at
from tests.integration.sockets_kit import reader
from tests.integration.system_kit import System, eventually, new_id, running, sha256, streaming
from tests.pace import ANSWER_S, slowness_lately
from tidelog.client import Client
from tidelog.errors import ConflictError, NotFoundError, PermissionDeniedError, TidelogAPIError
from tidelog.http_client import http_client
from tidelog.keys import id_of, is_mistyped, make_key

Issued = tuple[UUID, str]


async def issue(system: System, role: str = "owner", **body: Any) -> Issued:
    answer = await system.http.post("/v1/keys", json={"label": "k", "role": role, **body})
    assert answer.status_code == 201, answer.text
    await system.settled()
    return UUID(answer.json()["key_id"]), answer.json()["key"]


async def post(system: System, path: str, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = await system.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest_asyncio.fixture
async def other(system: System, nats_url: str) -> AsyncIterator[System]:
    """A second process that answers requests, with everything of its own."""
    async with running(system.database_url, nats_url, roles=("api",), key=system.key) as second:
        yield second


# --- the ends -------------------------------------------------------------------------------------------------------------


async def revoked(system: System) -> tuple[Issued, Any]:
    key_id, key = await issue(system)
    return (key_id, key), lambda: post(system, f"/v1/keys/{key_id}/revoke", 202, reason="lost")


async def rotated_at_once(system: System) -> tuple[Issued, Any]:
    key_id, key = await issue(system)
    return (key_id, key), lambda: post(system, f"/v1/keys/{key_id}/rotate", overlap_s=0)


async def rotated(system: System) -> tuple[Issued, Any]:
    key_id, key = await issue(system)
    return (key_id, key), lambda: post(system, f"/v1/keys/{key_id}/rotate", overlap_s=0.5)


async def expired(system: System) -> tuple[Issued, Any]:
    # Long enough for streams and sessions to be opened on a busy machine.
    key_id, key = await issue(system, expires_at=soon(6 * await slowness_lately()))
    return (key_id, key), lambda: asyncio.sleep(0)


@pytest.mark.parametrize("kind", [revoked, rotated_at_once, rotated, expired], ids=lambda kind: kind.__name__)
async def test_a_key_ends_in_every_process(system: System, other: System, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a request, a silent stream of events, a silent WebSocket and a worker's session; the read model is not asked."""
    monkeypatch.setattr(keys, "KNOWN_S", 3_600.0)
    (_, key), end = await kind(system)
    async with AsyncExitStack() as stack:
        clients, streams, sockets, workers = [], [], [], []
        for number, process in enumerate((system, other)):
            url = await process.url()
            client = await stack.enter_async_context(
                http_client(url, timeout_s=ANSWER_S, headers={"Authorization": f"Bearer {key}"})
            )
            assert (await client.get("/v1/agents")).status_code == 200
            clients.append(client)
            stream = await stack.enter_async_context(streaming(url, key, "/v1/events", types="run.cancelled"))
            streams.append(asyncio.create_task(stream.rest(120)))
            socket = await stack.enter_async_context(reader(url, key))
            await socket.subscribe(types=["run.cancelled"])
            sockets.append(socket)
            worker = await stack.enter_async_context(worker_at(url, key, name=f"w{number}"))
            await worker.hello(["a"])
            workers.append(worker)
        await end()
        for worker in workers:
            assert (await worker.wait(t="error"))["problem"]["code"] == "unauthenticated"
            assert await worker.until_closed() == 4401
        for socket in sockets:
            assert (await socket.next("error"))["problem"]["code"] == "unauthenticated"
            assert await socket.until_closed() == 4401
        for stream in streams:
            await stream

        async def refused() -> bool:
            return {(await client.get("/v1/agents")).status_code for client in clients} == {401}

        await eventually(refused, "the end of the key")
        answer = await clients[1].get("/v1/agents")
        assert key not in answer.text and "API key" in answer.json()["detail"]


async def test_a_rotated_key_is_valid_beside_the_new_one(system: System) -> None:
    old_id, old = await issue(system, "developer")
    new = await post(system, f"/v1/keys/{old_id}/rotate", overlap_s=3_600)
    await system.settled()
    for key in (old, new["key"]):
        async with system.client(key) as client:
            assert (await client.get("/v1/agents")).status_code == 200
    shown = (await system.http.get(f"/v1/keys/{old_id}")).json()
    assert (shown["status"], shown["rotated_to"], shown["role"]) == ("valid", new["key_id"], "developer")
    assert shown["expires_at"] is not None
    successor = (await system.http.get(f"/v1/keys/{new['key_id']}")).json()
    assert (successor["label"], successor["role"], successor["expires_at"]) == ("k", "developer", None)


# --- what the routes say --------------------------------------------------------------------------------------------------


async def test_a_key_that_the_server_makes_is_shown_once(system: System) -> None:
    headers, body = {"Idempotency-Key": "k1"}, {"label": "ci", "role": "worker"}
    first = await system.http.post("/v1/keys", json=body, headers=headers)
    key = first.json()["key"]
    assert first.headers["cache-control"] == "no-store" and first.headers["location"] == f"/v1/keys/{first.json()['key_id']}"
    assert key.startswith("tl_worker_") and not is_mistyped(key) and str(id_of(key)) == first.json()["key_id"]
    again = await system.http.post("/v1/keys", json=body, headers=headers)
    assert again.status_code == 201 and again.headers["idempotency-replayed"] == "true"
    assert again.json() == {**first.json(), "key": None}
    assert key not in again.text
    different = await system.http.post("/v1/keys", json={**body, "label": "other"}, headers=headers)
    assert different.json()["code"] == "idempotency-key-reused"
    rotation = {"Idempotency-Key": "k2"}
    path = f"/v1/keys/{first.json()['key_id']}/rotate"
    one, two = [await system.http.post(path, json={}, headers=rotation) for _ in range(2)]
    assert one.json()["key"] and two.json() == {**one.json(), "key": None}
    assert len([e for e in await system.events() if e.topic == "tenant.api_key_issued"]) == 3


async def test_a_key_that_the_client_makes_is_repeated_as_often_as_need_be(system: System) -> None:
    made = make_key(new_id())
    body = {"label": "ci", "role": "auditor", "key_id": str(made.key_id), "sha256": made.sha256}
    answers = [await system.http.post("/v1/keys", json=body, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    answers.append(await system.http.post("/v1/keys", json=body))
    assert {(a.status_code, a.json()["key_id"], a.json()["key"]) for a in answers} == {(201, str(made.key_id), None)}
    await system.settled()
    async with system.client(made.text) as client:
        assert (await client.get("/v1/agents")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "label"),
        ({"label": "", "role": "owner"}, 422, "label"),
        ({"label": "a\x00", "role": "owner"}, 422, "label"),
        ({"label": "a", "role": "root"}, 422, "role"),
        ({"label": "a", "role": "owner", "projects": []}, 422, "projects"),
        ({"label": "a", "role": "owner", "expires_at": "2020-01-01T00:00:00Z"}, 422, "expired already"),
        ({"label": "a", "role": "owner", "expires_at": "9999-12-31T23:59:59Z"}, 422, "hundred years"),
        ({"label": "a", "role": "owner", "expires_at": "2027-01-01T00:00:00"}, 422, "expires_at"),
        ({"label": "a", "role": "owner", "sha256": "0" * 64}, 422, "both"),
        ({"label": "a", "role": "owner", "key_id": str(UUID(int=1))}, 422, "both"),
        ({"label": "a", "role": "owner", "key_id": str(UUID(int=1)), "sha256": "x"}, 422, "sha256"),
        ({"label": "a", "role": "owner", "giver": "owner"}, 422, "giver"),
    ],
)
async def test_what_is_no_key(shared: System, body: dict[str, Any], status: int, said: str) -> None:
    answer = await shared.http.post("/v1/keys", json=body)
    assert answer.status_code == status and said in answer.text, answer.text


async def test_the_last_owner_stays(system: System) -> None:
    [[key_id]] = await system.sql("SELECT key_id FROM api_key")
    refused = await system.http.post(f"/v1/keys/{key_id}/revoke", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid-state")
    assert (await system.http.post(f"/v1/keys/{key_id}/rotate", json={"expires_at": soon(60)})).status_code == 409
    await issue(system)
    await post(system, f"/v1/keys/{key_id}/revoke", 202)


async def test_keys_of_other_tenants_are_not_there(system: System) -> None:
    tenant_id, key = await system.tenant("other")
    [[foreign]] = await system.sql("SELECT key_id FROM api_key WHERE tenant_id = %s", tenant_id)
    for path in (f"/v1/keys/{foreign}/revoke", f"/v1/keys/{foreign}/rotate", f"/v1/keys/{new_id()}/revoke"):
        assert (await system.http.post(path, json={})).status_code == 404
    assert (await system.http.get(f"/v1/keys/{foreign}")).status_code == 404
    assert str(foreign) not in (await system.http.get("/v1/keys")).text

    # A client names the id and the hash: those of a foreign key get it nowhere, and its end does not end the other.
    for named in ({"key_id": str(foreign), "sha256": "1" * 64}, {"key_id": str(new_id()), "sha256": sha256(key)}):
        await post(system, "/v1/keys", label="thief", role="owner", **named)
        await post(system, f"/v1/keys/{named['key_id']}/revoke", 202)
    await system.settled()
    assert await system.sql("SELECT count(*) FROM parked_event") == [(0,)]
    async with system.client(key) as client:
        assert (await client.get("/v1/agents")).status_code == 200
        assert [found["key_id"] for found in (await client.get("/v1/keys")).json()["data"]] == [str(foreign)]


async def test_pages_of_keys(system: System) -> None:
    made = [(await issue(system, "worker"))[0] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = (await system.http.get("/v1/keys", params=query)).json()
        seen += [key["key_id"] for key in page["data"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen[:3] == [str(key_id) for key_id in reversed(made)] and len(seen) == 4
    assert (await system.http.get("/v1/keys", params={"cursor": "x"})).status_code == 422


async def test_roles_that_may_not(system: System) -> None:
    _, admin = await issue(system, "admin")
    owner_id, _ = await issue(system, "owner")
    worker_id, worker = await issue(system, "worker")
    async with system.client(admin) as client:
        for path in (f"/v1/keys/{owner_id}/revoke", f"/v1/keys/{owner_id}/rotate"):
            assert (await client.post(path, json={})).status_code == 403
        assert (await client.post("/v1/keys", json={"label": "x", "role": "owner"})).status_code == 403
        assert (await client.post(f"/v1/keys/{worker_id}/rotate", json={})).status_code == 201
    async with system.client(worker) as client:
        for path in ("/v1/keys", f"/v1/keys/{worker_id}/rotate", f"/v1/keys/{worker_id}/revoke"):
            refused = await client.post(path, json={"label": "x", "role": "worker"} if path == "/v1/keys" else {})
            assert refused.status_code == 403 and "keys." in refused.json()["detail"]
        assert (await client.get("/v1/keys")).status_code == 403


async def test_the_last_use_is_written_beside_the_requests(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "TIDY_S", 0.05)
    key_id, key = await issue(system, "auditor")
    assert (await system.http.get(f"/v1/keys/{key_id}")).json()["last_used_at"] is None
    head = await system.container.feed.head()
    async with system.client(key) as client:
        await client.get("/v1/agents")

        async def noted() -> str | None:
            found: str | None = (await system.http.get(f"/v1/keys/{key_id}")).json()["last_used_at"]
            return found

        first = await eventually(noted, "the last use")
        for _ in range(20):
            await client.get("/v1/agents")
        assert await noted() == first, "once a minute"
    assert await system.container.feed.head() == head, "no event"


async def test_a_rebuilt_read_model_has_the_same_keys(system: System) -> None:
    key_id, _ = await issue(system, "developer", expires_at=soon(3_600))
    await post(system, f"/v1/keys/{key_id}/rotate", overlap_s=60)
    await post(system, f"/v1/keys/{key_id}/revoke", 202, reason="why not")
    await system.settled()
    before = await system.sql("SELECT * FROM api_key ORDER BY key_id")
    assert (await system.http.post("/v1/projections/tenants/rebuild", json={})).status_code in (200, 202)

    async def rebuilt() -> bool:
        shown = (await system.http.get("/v1/projections/tenants")).json()
        return shown["previous"] is not None

    await eventually(rebuilt, "the new version", 60)
    assert await system.sql("SELECT * FROM api_key ORDER BY key_id") == before


# --- the SDK --------------------------------------------------------------------------------------------------------------


async def test_the_client_issues_rotates_and_revokes(system: System) -> None:
    async with Client(await system.url(), system.key) as client:
        issued = await client.issue_key("ci", role="developer", expires_at=datetime.now(UTC) + timedelta(days=1))
        assert issued.key not in repr(issued)
        shown = await client.key(issued.key_id)
        assert (shown.label, shown.role, shown.status) == ("ci", "developer", "valid")
        second = await client.rotate_key(issued.key_id, overlap_s=60)
        await client.revoke_key(issued.key_id, "over")
        found = {key.key_id: key for key in await client.keys()}
        assert found[issued.key_id].revoke_reason == "over" and found[issued.key_id].rotated_to == second.key_id
        with pytest.raises(NotFoundError):
            await client.revoke_key(new_id())
        with pytest.raises(ConflictError):
            await client.rotate_key(issued.key_id)
        with pytest.raises(ValueError, match="time zone"):
            await client.issue_key("x", role="owner", expires_at=datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(TidelogAPIError):
            await client.issue_key("x", role="king")
        await system.settled()
        async with Client(await system.url(), second.key) as developer:
            with pytest.raises(PermissionDeniedError, match=r"keys\.issue"):
                await developer.issue_key("x", role="worker")


async def test_while_a_process_of_before_runs_it_gets_no_event_that_it_does_not_read(system: System) -> None:
    live = "now() + interval '1 hour'"
    await system.sql(
        "INSERT INTO member (member_id, place, groups, joined_at, alive_until, lease_seconds)"
        f" VALUES (%s, 'old', '{{}}', now(), {live}, 3600)",
        new_id(),
    )
    for path, body in (
        ("/v1/keys", {"label": "w", "role": "worker"}), ("/v1/keys", {"label": "o", "role": "owner", "expires_at": soon(60)}),
        (f"/v1/keys/{new_id()}/rotate", {}),
    ):  # fmt: skip
        refused = await system.http.post(path, json=body)
        assert refused.status_code == 503 and "upgrade" in refused.json()["detail"]
    await issue(system)
    [event] = [e for e in await system.events() if e.topic == "tenant.api_key_issued"][1:]
    assert event.schema_version == 1
    await system.sql("DELETE FROM member WHERE place = 'old'")
    await issue(system, "worker")


# --- the platform, and the secret -----------------------------------------------------------------------------------------


async def test_a_tenant_is_made_on_the_machine(system: System) -> None:
    made, tenant_id = make_key(new_id()), new_id()
    await platform.create_tenant(system.database_url, tenant_id, "acme", made.key_id, made.sha256)
    await system.settled()
    async with system.client(made.text) as client:
        assert [project["name"] for project in (await client.get("/v1/projects")).json()["data"]] == ["default"]
        assert [key["role"] for key in (await client.get("/v1/keys")).json()["data"]] == ["owner"]
    listed = await platform.tenants(system.database_url, limit=10)
    assert [(tenant.tenant_id, tenant.name) for tenant in listed] == [(DEFAULT_TENANT_ID, "default"), (tenant_id, "acme")]
    assert len(await platform.tenants(system.database_url, limit=1)) == 1


async def test_the_secret_is_nowhere(system: System, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole database, the log on NATS and everything that the process printed are searched."""
    with spying(system) as heard:
        _, by_server = await issue(system)
        async with Client(await system.url(), system.key) as client:
            by_client = (await client.issue_key("ci", role="owner")).key
            rotated = (await client.rotate_key(id_of(by_client) or new_id(), overlap_s=0)).key
        await system.settled()
        for key in (by_server, by_client, rotated, by_server[:-1] + "!"):
            async with system.client(key) as caller:
                await caller.get("/v1/agents")
                await caller.get("/v1/nothing")
                await caller.post("/v1/keys", json={"label": 1})
        await system.settled()
        await system.copied()
        text = await everything_in(system)
    text += "".join(capfd.readouterr()) + json.dumps(heard)
    assert str(id_of(by_client)) in text, "the search finds what is there"
    for key in (by_server, by_client, rotated):
        secret = key.rpartition("_")[2]
        assert secret not in text and secret[:43] not in text and secret[:20] not in text


@contextmanager
def spying(system: System) -> Iterator[list[str]]:
    """The state and the metadata of all events that the live feed brings from NATS."""
    heard: list[str] = []
    stop = system.container.live.overhear(
        lambda events: heard.extend(f"{event.topic} {event.state!r} {event.metadata}" for event in events)
    )
    try:
        yield heard
    finally:
        stop()


async def everything_in(system: System) -> str:
    """Every row of every table of the database."""
    named = await system.sql(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert len(named) > 20
    rows = [
        await system.sql(f"SELECT t::text, encode(convert_to(t::text, 'UTF8'), 'escape') FROM {name} AS t") for (name,) in named
    ]
    states = await system.sql("SELECT convert_from(state, 'UTF8') FROM event")
    return repr(rows) + repr(states)
