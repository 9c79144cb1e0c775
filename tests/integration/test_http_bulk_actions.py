"""Bulk actions over HTTP and with the SDK, on real servers: who may, what is meant, and what a kill of all processes changes."""

import asyncio
import random
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from adapters.embedded import EmbeddedServices
from domain.tenants import DEFAULT_TENANT_ID, IssueApiKey
from tests.integration.sdk_kit import KEY, running, serving
from tests.integration.system_kit import System, empty_work_queue, eventually, fresh_database, new_id, sha256
from tidelog import Agent, Client, Context
from tidelog.errors import ConflictError, InvalidRequestError, NotFoundError

RUNS = 130
COUNT = "SELECT count(*) FROM event WHERE topic = 'run.paused'"


class Idle(Agent):
    async def execute(self, ctx: Context) -> None:
        pass


async def test_each_run_is_told_once_whatever_is_killed(services: EmbeddedServices, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    goal = random.Random(seed).randrange(1, RUNS)
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as url,
        serving(url, services.nats_url, tmp_path) as server,
        Client(server.url, KEY, patience_s=60) as client,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as log,
    ):
        async with running(server.url, Idle):
            pass  # the agent is registered, and nobody does its work
        for begin in range(0, RUNS, 26):
            await asyncio.gather(*(client.start_run(agent="idle") for _ in range(begin, begin + 26)))
        where = {"agent": "idle", "metadata": {}}
        found = await client.bulk.find("pause", where)
        assert (found.matched, found.complete, len(found.runs)) == (RUNS, True, 20)
        id = await client.bulk.start("pause", where, reason="look first")

        async def reached() -> bool:
            row = await (await log.execute(COUNT)).fetchone()
            return row is not None and row[0] >= goal

        await eventually(reached, "the moment of the kill", 60)
        await server.kill()
        await server.start()
        done = await client.bulk.wait(id, poll_s=0.05)
        assert (done.status, done.matched, done.handled, done.done, done.unchanged) == ("completed", RUNS, RUNS, RUNS, 0)
        row = await (
            await log.execute("SELECT count(*), count(DISTINCT originator_id) FROM event WHERE topic = 'run.paused'")
        ).fetchone()
        assert row == (RUNS, RUNS)
        # The way back, without what is there already; and what cannot be.
        first = found.runs[0]
        await client.resume_run(first, "this one")
        again = await client.bulk.wait(await client.bulk.start("pause", {"status": ["running", "paused"]}, reason="again"))
        assert (again.done, again.unchanged, again.refused) == (1, RUNS - 1, [])
        with pytest.raises(InvalidRequestError, match="error must be 1 to 8 words"):
            await client.bulk.start("retry", {"error": "!"}, reason="r")
        with pytest.raises(InvalidRequestError, match="the filter says nothing"):
            await client.bulk.start("cancel", {"agent": None}, reason="r")
        assert (await client.bulk.find("cancel", {}, all=True)).matched == RUNS
        with pytest.raises(ConflictError, match="nothing is left to cancel"):
            await client.bulk.cancel(id)
        with pytest.raises(NotFoundError):
            await client.bulk.get(uuid4())
        assert [each.id async for each in client.bulk.list("completed")] == [again.id, id]


async def test_a_key_gives_commands_to_runs_that_it_may_see_and_that_are_its_tenants(shared: System) -> None:
    worker = shared.worker()
    await worker.register("alpha")
    mine = (await shared.http.post("/v1/projects", json={"name": f"p-{uuid4()}"})).json()["project_id"]
    inside, outside = await shared.start("alpha", project_id=mine), await shared.start("alpha")
    _, foreign = await shared.tenant(f"t-{uuid4()}")
    narrowed, developer = f"narrowed-{uuid4()}", f"auditor-{uuid4()}"
    for key, role, projects in ((narrowed, "operator", (UUID(mine),)), (developer, "auditor", None)):
        issued = IssueApiKey(
            tenant_id=DEFAULT_TENANT_ID, key_id=new_id(), label="l", sha256=sha256(key), role=role, projects=projects
        )
        await shared.command(issued)
    await shared.settled()
    body = {"action": "cancel", "filter": {"agent": "alpha"}, "reason": "why"}
    async with shared.client(narrowed) as few, shared.client(developer) as reader, shared.client(foreign) as other:
        refused = await reader.post("/v1/bulk-actions", json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        head = await shared.container.feed.head()
        dry = await few.post("/v1/bulk-actions", json={**body, "dry_run": True})
        assert (dry.status_code, dry.json()["runs"]) == (200, [inside]), dry.text
        assert (await other.post("/v1/bulk-actions", json={**body, "dry_run": True})).json()["matched"] == 0
        assert await shared.container.feed.head() == head
        whole = (await shared.http.post("/v1/bulk-actions", json={**body, "action": "pause"})).json()["id"]
        started = await few.post("/v1/bulk-actions", json=body, headers={"Idempotency-Key": "k"})
        repeat = await few.post("/v1/bulk-actions", json=body, headers={"Idempotency-Key": "k"})
        assert (started.status_code, repeat.json()["id"]) == (202, started.json()["id"])
        id = started.json()["id"]

        async def over() -> bool:
            shown = (await few.get(f"/v1/bulk-actions/{id}")).json()
            return shown.get("status") == "completed" and shown["matched"] == shown["done"] == 1

        await eventually(over, "the end of the bulk action")
        assert {(await shared.run(run))["status"] for run in (inside,)} == {"cancelled"}
        assert (await shared.run(outside))["status"] != "cancelled"
        assert [each["id"] for each in (await few.get("/v1/bulk-actions")).json()["data"]] == [id]
        for client, seen in ((few, 404), (other, 404), (shared.http, 409)):
            assert (await client.post(f"/v1/bulk-actions/{whole if seen == 404 else id}/cancel", json={})).status_code == seen
        assert (await other.get(f"/v1/bulk-actions/{id}")).status_code == 404
        entries = (await shared.http.get("/v1/audit", params={"limit": 100})).json()["data"]
        told = [(each["action"], each["operation"], each["target_kind"], each["target_id"]) for each in entries]
        assert ("runs.bulk", "cancel", "bulk_action", id) in told
        assert ("runs.cancel", None, "run", inside) in told
        for wrong in ({"action": "cancel", "reason": "r"}, {**body, "signal": {"name": "go"}}, {**body, "reason": None},
                      {**body, "action": "pause", "compensate": True}, {**body, "fresh": True}, {**body, "filter": {"status": []}},
                      {**body, "filter": {"started_after": "2026-01-01T00:00:00"}}, {**body, "action": "signal"}):  # fmt: skip
            assert (await shared.http.post("/v1/bulk-actions", json=wrong)).status_code == 422, wrong
