"""The audit trail over HTTP: each audited action leaves exactly one entry, refusals are counted, and tenants see their own."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus

from api.http.app import create_app
from application import audit as trail
from application.audit import MOST_GROUPS, RefusalCounter
from application.reads import AuditWanted
from domain.access import PERMISSIONS, Action, Role
from domain.errors import Unavailable
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.played_worker import PlayedWorker
from tests.integration.session_kit import socket, worker_at
from tests.integration.system_kit import BASE, System, eventually, new_id, sha256
from tests.integration.test_http_invocations import ambiguous_call
from tests.integration.test_http_keys import revoke

WHY = "Ticket 17: größer, “zu” langsam"
REASON = {"Tidelog-Reason": WHY.encode()}


async def entries(system: System, http: httpx2.AsyncClient | None = None, **filters: Any) -> list[dict[str, Any]]:
    """Newest first, after the read model has seen the whole log."""
    head = await system.container.feed.head()
    response = await (http or system.http).get("/v1/audit", params=filters, headers={"Tidelog-Position": str(head)})
    assert response.status_code == 200, response.text
    return list(response.json()["data"])


async def actor_of(system: System) -> str:
    [(key_id,)] = await system.sql("SELECT key_id FROM api_key WHERE sha256 = %s", sha256(system.key))
    return f"key:{key_id}"


def told(entry: dict[str, Any]) -> tuple[Any, ...]:
    names = ("action", "operation", "target_kind", "target_id", "reason", "result", "code")
    return tuple(entry[name] for name in names)


async def test_a_cancellation_is_one_entry_in_the_append_of_its_events(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    cancel = {"url": f"/v1/runs/{run_id}/cancel", "json": {}, "headers": {**REASON, "Idempotency-Key": "once"}}
    first = await system.http.post(**cancel)
    again = await system.http.post(**cancel)
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel", json={})).status_code == 202  # it changes nothing
    [entry] = await entries(system)
    assert told(entry) == ("runs.cancel", None, "run", run_id, WHY, "done", None)
    assert (entry["actor"], entry["address"], entry["on_behalf_of"]) == (await actor_of(system), "127.0.0.1", None)
    events = await system.events()
    [recorded] = [event for event in events if event.topic == "audit.action_recorded"]
    [cancelled] = [event for event in events if event.topic == "run.cancelled"]
    assert (recorded.position, recorded.recorded_at) == (cancelled.position + 1, cancelled.recorded_at)
    assert (recorded.root_id, recorded.version) == (DEFAULT_TENANT_ID, 1)


async def test_the_reason_of_a_body_goes_before_the_reason_of_the_header(system: System, worker: PlayedWorker) -> None:
    run_id = await system.start("alpha")
    assert (await system.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "done"}, headers=REASON)).status_code == 202
    [entry] = await entries(system)
    assert entry["reason"] == "done"


async def test_a_refused_command_is_an_entry_with_its_code(system: System) -> None:
    missing = str(new_id())
    refused = {"url": f"/v1/runs/{missing}/cancel", "json": {}, "headers": {**REASON, "Idempotency-Key": "twice"}}
    for _ in range(2):
        assert (await system.http.post(**refused)).status_code == 404
    [entry] = await entries(system)
    assert told(entry) == ("runs.cancel", None, "run", missing, WHY, "refused", "not-found")


async def test_a_resolution_is_one_entry_however_often_it_is_said(system: System, worker: PlayedWorker) -> None:
    _, _, call = await ambiguous_call(system, worker)
    said = {"result": None, "reason": "It is in the outbox."}
    for _ in range(2):
        assert (await system.http.post(f"/v1/invocations/{call}/resolve", json=said)).status_code == 200
    assert (await system.http.post(f"/v1/invocations/{call}/resolve", json={**said, "result": 1})).status_code == 409
    refused, done = await entries(system)
    assert told(done) == ("invocations.resolve", None, "invocation", call, "It is in the outbox.", "done", None)
    assert told(refused)[-2:] == ("refused", "already-resolved")


PROJECTIONS = {
    "rebuild": "projections.rebuild", "rollback": "projections.rebuild", "swap": "projections.rebuild",
    "cancel": "projections.rebuild", "verify": "projections.verify", "retry": "projections.retry",
}  # fmt: skip


@pytest.mark.parametrize("verb", PROJECTIONS)
async def test_an_operation_on_a_read_model_is_recorded_before_it_is_done(system: System, verb: str) -> None:
    answered = await system.http.post(f"/v1/projections/agents/{verb}", json={}, headers=REASON)
    recorded = await entries(system, target="agents")
    operation = verb if PROJECTIONS[verb] == "projections.rebuild" else None
    assert told(recorded[-1]) == (PROJECTIONS[verb], operation, "projection", "agents", WHY, "begun", None)
    if answered.is_success:
        assert len(recorded) == 1
    else:
        assert [told(entry)[-2:] for entry in recorded[:-1]] == [("refused", answered.json()["code"])]
    assert (await system.http.post(f"/v1/projections/nobody%00/{verb}", json={})).status_code == 404
    [unknown] = await entries(system, target="nobody?")
    assert told(unknown)[-2:] == ("refused", "not-found")


async def test_a_drop_is_recorded_too(system: System) -> None:
    answered = await system.http.delete("/v1/projections/agents/previous", headers=REASON)
    recorded = await entries(system, target="agents")
    assert told(recorded[-1])[:2] == ("projections.rebuild", "drop")
    assert len(recorded) == (1 if answered.is_success else 2)


@pytest.mark.parametrize("reason", [b"\xff", b"x" * 501, b" ", "a\u2028b".encode(), "a\u200bb\u0007".encode()])
async def test_a_header_that_is_no_reason_is_refused(shared: System, reason: bytes) -> None:
    answered = await shared.http.post("/v1/projections/agents/verify", json={}, headers={"Tidelog-Reason": reason})
    assert (answered.status_code, answered.json()["code"]) == (422, "invalid-command"), answered.text


async def test_a_secret_never_stands_in_an_entry(system: System) -> None:
    answered = await system.http.post(
        "/v1/projections/agents/verify", json={}, headers={"Tidelog-Reason": f"my key is {system.key}"}
    )
    assert answered.status_code == 422
    async with system.client("wrong-and-secret") as stranger:
        assert (await stranger.get(f"/v1/runs/{system.key}")).status_code == 401
    await system.container.refusals.record()
    assert await entries(system)
    text = b" ".join(event.state + event.metadata.encode() for event in await system.events())
    assert system.key.encode() not in text and b"wrong-and-secret" not in text


class From:
    """The application, asked from an address. `app`: of the tests."""

    def __init__(self, app: Any) -> None:
        self.app, self.host = app, "127.0.0.1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["client"] = (self.host, 1)
        await self.app(scope, receive, send)


ADDRESSES = 4 * MOST_GROUPS // 2
"""Four times as many as have an entry of their own."""


async def test_a_flood_of_wrong_keys_leaves_few_entries_with_the_right_sum(system: System) -> None:
    counter = RefusalCounter(system.container.commands, every_s=3600)  # a flood takes longer where the machine is busy
    app = create_app(replace(system.container, refusals=counter))
    asked = From(app)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(asked), base_url=BASE, timeout=60) as client:
        for number in range(ADDRESSES):
            asked.host = f"10.0.0.{number}"
            wrong = [{"Authorization": f"Bearer wrong-{number}-{i}"} for i in range(20)]
            answers = await asyncio.gather(*(client.get(f"/v1/runs/{i}", headers=key) for i, key in enumerate(wrong)))
            assert {answer.status_code for answer in answers} == {401}
    [counts] = counter._counts.values()
    assert len(counts.groups) == MOST_GROUPS // 2 + 1
    await counter.record()
    assert not counter._counts and not counter._waiting
    counted = await entries(system, actor="unknown", limit=1000)
    assert len(counted) == MOST_GROUPS // 2 + 1
    assert sum(entry["count"] for entry in counted) == ADDRESSES * 20
    [others] = [entry for entry in counted if entry["others"]]
    assert (others["address"], others["count"]) == (None, (ADDRESSES - 25) * 20)
    assert {entry["count"] for entry in counted if not entry["others"]} == {20}
    assert {entry["result"] for entry in counted} == {"refused"}
    await counter.close()
    await app.close()


async def test_what_cannot_be_recorded_waits_and_is_recorded_once(system: System) -> None:
    commands = system.container.commands
    counter = RefusalCounter(Broken(commands))  # type: ignore[arg-type]
    async with system.client(None, container=replace(system.container, refusals=counter)) as stranger:
        assert (await stranger.get("/v1/agents")).status_code == 401
        await counter.record()  # recorded, but the answer was lost
        assert (await stranger.get("/v1/agents")).status_code == 401
        await counter.record()
        await counter.record()
    await counter.close()
    assert sum(entry["count"] for entry in await entries(system)) == 2


class Broken:
    """Loses the first answer of the command loop."""

    def __init__(self, commands: Any) -> None:
        self.commands, self.lost = commands, False

    async def execute(self, *given: Any) -> Any:
        outcome = await self.commands.execute(*given)
        if not self.lost:
            self.lost = True
            raise Unavailable("the answer was lost")
        return outcome


async def test_a_forbidden_request_is_counted_for_its_key_and_another_tenant_sees_nothing(system: System) -> None:
    _, key = await system.tenant("other")
    async with system.client(key) as other:
        for _ in range(3):
            assert (await other.get("/v1/projections")).status_code == 403
        assert (await system.http.post("/v1/projections/agents/verify", json={})).status_code == 202
        async with system.client("unknown") as stranger:
            await stranger.get("/v1/agents")
        await system.container.refusals.record()
        [counted] = await entries(system, other)
        assert (counted["count"], counted["kind"], counted["address"]) == (3, "refusals", "127.0.0.1")
        assert counted["actor"].startswith("key:") and counted["since"] <= counted["until"]
        exported = await other.get("/v1/audit/export")
        assert [orjson.loads(line)["entry_id"] for line in exported.text.splitlines()] == [counted["entry_id"]]
    assert {entry["actor"] for entry in await entries(system)} == {await actor_of(system), "unknown"}


async def test_a_refused_message_of_a_session_is_counted_like_a_request(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report with a token that is not the one of its work, a message that the role may not say, and one that ends the session."""
    _, key = await system.tenant("other")
    report = {"t": "complete", "work": str(new_id()), "attempt": 1, "token": "bm8", "result": 1}
    async with worker_at(await system.url(), key) as worker:
        await worker.hello(["own"])
        for id in (1, 2, 3):
            await worker.say({**report, "id": id})
            assert (await worker.answer(id))["problem"]["code"] == "invalid-token"
        monkeypatch.setitem(PERMISSIONS, Role.OWNER, PERMISSIONS[Role.OWNER] - {Action.WORKERS_WORK})
        await worker.say({**report, "id": 4})
        assert (await worker.answer(4))["problem"]["action"] == "workers.work"
        await worker.say({"t": "credit", "agent": 1, "tool": 0, "n": 0})
        assert await worker.until_closed() == 4403
    for closed_to in (key, "unknown"):
        with pytest.raises(InvalidStatus):
            async with socket(await system.url(), closed_to):
                pass
    monkeypatch.undo()
    await system.container.refusals.record()
    async with system.client(key) as http:
        [counted] = await entries(system, http)
    assert (counted["count"], counted["action"], counted["address"]) == (6, "workers.work", "127.0.0.1")
    assert counted["actor"].startswith("key:") and counted["result"] == "refused"
    [stranger] = await entries(system)
    assert (stranger["actor"], stranger["count"], stranger["action"]) == ("unknown", 1, "workers.work")


async def test_a_session_that_its_key_has_lost_is_no_refusal(system: System) -> None:
    """Nobody asked for anything. Whoever comes back with the key is refused, and counted."""
    tenant_id, key = await system.tenant("gone")
    async with worker_at(await system.url(), key) as worker:
        await worker.hello(["own"])
        await revoke(system, tenant_id, key)
        assert await worker.until_closed() == 4401
    assert not system.container.refusals._counts


async def test_the_address_is_told_by_trusted_proxies_only(system: System) -> None:
    told_by = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9, 127.0.0.2"}
    await system.http.post("/v1/projections/agents/verify", json={}, headers=told_by)
    trusting = system.container.settings.model_copy(update={"trusted_proxies": (ip_network("127.0.0.0/8"),)})
    async with system.client(system.key, container=replace(system.container, settings=trusting)) as behind:
        for forwarded in (told_by, {"X-Forwarded-For": "not an address"}, {"X-Forwarded-For": "2001:db8::7"}):
            await behind.post("/v1/projections/agents/cancel", json={"purpose": "check"}, headers=forwarded)
    addresses = [entry["address"] for entry in reversed(await entries(system)) if entry["result"] == "begun"]
    assert addresses == ["127.0.0.1", "203.0.113.9", "127.0.0.1", "2001:db8::7"]


@pytest_asyncio.fixture
async def filled(system: System) -> AsyncIterator[System]:
    """Seven entries, of which one has a dangerous reason."""
    for number, reason in enumerate(['=HYPERLINK("http://evil.example")', 'a "quoted", text', "+1", "-1", "@x", "plain", "plain"]):
        name = "agents" if number % 2 else "tools"
        answered = await system.http.post(f"/v1/projections/{name}/retry", json={}, headers={"Tidelog-Reason": reason})
        assert answered.status_code == 200, answered.text
    yield system


async def test_the_list_has_pages_and_filters(filled: System) -> None:
    every = await entries(filled)
    assert len(every) == 7 and [e["position"] for e in every] == sorted((e["position"] for e in every), reverse=True)
    pages, query = [], {"limit": 2, "actor": every[0]["actor"], "target": "tools"}
    while True:
        page = (await filled.http.get("/v1/audit", params=query)).json()
        pages += page["data"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert pages == [entry for entry in every if entry["target_id"] == "tools"] and len(pages) == 4
    at = {event.position: event.recorded_at.isoformat() for event in await filled.events()}
    assert await entries(filled, before=at[every[3]["position"]]) == every[3:]
    assert await entries(filled, after=at[every[3]["position"]]) == every[:3]
    assert await entries(filled, result="refused") == await entries(filled, on_behalf_of="nobody") == []
    assert await entries(filled, action="projections.retry", result="begun", actor=every[0]["actor"]) == every
    for wrong in ({"after": "7"}, {"before": "2026-01-01T00:00:00"}, {"result": "great"}, {"who": "x"}, {"actor": "\x00"}):
        assert (await filled.http.get("/v1/audit", params=wrong)).status_code == 422


async def test_an_export_has_all_entries_as_they_are_and_is_an_entry_itself(filled: System) -> None:
    every = await entries(filled)
    lines = await filled.http.get("/v1/audit/export", headers={"Tidelog-Reason": "yearly audit"})
    assert lines.headers["content-type"] == "application/jsonl"
    assert [orjson.loads(line) for line in lines.text.splitlines()] == every
    export = (await entries(filled))[0]
    assert told(export) == ("audit.export", "jsonl", "audit", None, "yearly audit", "begun", None)
    table = await filled.http.get("/v1/audit/export", params={"format": "csv", "action": "projections.retry"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [row["entry_id"] for row in rows] == [entry["entry_id"] for entry in every]
    assert [row["reason"] for row in reversed(rows)] == [
        '\'=HYPERLINK("http://evil.example")', 'a "quoted", text', "'+1", "'-1", "'@x", "plain", "plain",
    ]  # fmt: skip
    assert (await filled.http.get("/v1/audit/export?format=xlsx")).status_code == 422
    before = len(await entries(filled))
    assert (await filled.http.head("/v1/audit/export")).status_code == 200
    assert len(await entries(filled)) == before, "nothing was exported"


async def test_the_trail_is_what_the_log_says(filled: System) -> None:
    async with filled.client("wrong") as stranger:
        await stranger.get("/v1/runs")
    await filled.container.refusals.record()
    assert {entry["kind"] for entry in await entries(filled)} == {"action", "refusals"}
    assert (await filled.http.post("/v1/projections/audit/verify", json={})).status_code == 202

    async def checked() -> str | None:
        check = (await filled.http.get("/v1/projections/audit")).json()["check"]
        return check["status"] if check is not None and check["status"] in ("equal", "different", "failed") else None

    assert await eventually(checked, "the end of the check") == "equal"


async def test_an_export_breaks_off_when_its_key_is_revoked(filled: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "EXPORTED", 2)
    assert len(await entries(filled)) == 7
    pages, revoked = filled.container.reads.audit, asyncio.Event()
    listed = pages.list

    async def refused() -> bool:
        return (await client.get("/v1/agents", headers={"X-API-Key": filled.key})).status_code == 401

    async def slow(tenant_id: UUID, wanted: AuditWanted) -> Any:
        if wanted.before is not None and not revoked.is_set():
            await revoke(filled, DEFAULT_TENANT_ID, filled.key)
            revoked.set()
            await eventually(refused, "the end of the key")
        return await listed(tenant_id, wanted)

    monkeypatch.setattr(pages, "list", slow)
    url = await filled.url()
    async with httpx2.AsyncClient(base_url=url, timeout=60) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/v1/audit/export", headers={"X-API-Key": filled.key})
    assert revoked.is_set()
