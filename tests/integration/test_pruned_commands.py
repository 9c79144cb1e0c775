"""Rows by which the log recognises commands are pruned, and nothing is done twice without them."""

from typing import Any
from uuid import UUID

import httpx2

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import open_pool
from adapters.postgres.upkeep import PostgresRecordedCommands
from application.engine.ports.timers import PARKED_AS
from application.engine.sagas.manager import PARTITIONS
from tests.integration.system_kit import System, empty_work_queue, eventually, issue_key, new_id, running, stopped

START = {"plan": {"kind": "parallel", "agents": ["alpha", "beta"], "aggregator": "gamma"}, "input": 1}
RETRY = {"max_attempts": 3, "initial_s": 0.05, "max_s": 0.1}


async def prune_all(system: System) -> int:
    await system.sql("UPDATE command SET recorded_at = recorded_at - interval '31 days'")
    pool = await open_pool(system.database_url, role="test", max_size=1)
    try:
        commands = PostgresRecordedCommands(PostgresDatabase(pool))
        return await commands.prune(older_than_s=30 * 86_400, consumers=PARTITIONS, parking=(*PARTITIONS, PARKED_AS))
    finally:
        await pool.close()


async def a_busy_log(system: System) -> UUID:
    """Runs with retries, calls, messages and a cancellation. The id of a run whose start is repeatable."""
    worker = system.worker()
    await worker.register("alpha", "beta", "gamma", tools=["add"])
    run_id = new_id()
    start = {"run_id": str(run_id), **START}
    assert (await system.http.post("/v1/runs", json=start)).status_code == 201
    alpha = await worker.next("alpha")
    await alpha.ok("send", key="m", to="beta", body=1)
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).fail("transient", retry_after_s=0.05)
    await (await worker.next("add", "tool")).complete(2)
    await alpha.complete()
    await (await worker.next("beta")).fail()
    await (await worker.next("gamma")).complete()
    await system.ended(run_id)
    retried = await system.start(plan={"kind": "graph", "steps": [{"key": "a", "agent": "alpha", "retry": RETRY}]})
    await (await worker.next("alpha")).fail("transient")
    await (await worker.next("alpha")).complete()
    await system.ended(retried)
    cancelled = await system.start("alpha", "beta")
    await (await worker.next("alpha")).call("k", "add", a=1)
    await system.http.post(f"/v1/runs/{cancelled}/cancel")
    await system.ended(cancelled)
    return run_id


async def test_after_all_is_pruned_nothing_is_added(database_url: str, nats_url: str) -> None:
    """The sagas read the log again, the read model of timers is made anew, and a start is repeated."""
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        run_id = await a_busy_log(system)
        head = await system.settled()
        assert await prune_all(system) > 20
        assert await system.sql("SELECT * FROM command") == []

        start = {"run_id": str(run_id), **START}
        again = await system.http.post("/v1/runs", json=start)
        assert (again.status_code, again.headers["idempotency-replayed"], again.headers["etag"]) == (201, "true", '"v3"')
        other = await system.http.post("/v1/runs", json={**start, "input": 2})
        assert (other.status_code, other.json()["code"]) == (409, "already-exists")

        for name in ("sagas", "timers", "projections"):
            await stopped(system.tasks.pop(name))
        await system.sql("UPDATE checkpoint SET position = 0 WHERE name LIKE 'sagas:%%' OR name = 'timers'")
        await system.sql("UPDATE event SET settled = 0")  # nor does the promise rest on the marks of what was appended together
    async with running(database_url, nats_url, key=system.key) as later:
        assert await later.settled() == head
        assert await eventually(lambda: _no_timers(later), "all timers fired again")
        assert await later.settled() == head
        assert await later.sql("SELECT * FROM parked_event") == []


async def test_after_the_horizon_a_key_is_new(system: System) -> None:
    """The run of before stays. A start under an id of the client's own is known for ever, with a key or without."""
    await system.worker().register("alpha")
    own = {"agent": "alpha", "run_id": str(new_id())}

    async def post(key: str, **body: object) -> httpx2.Response:
        return await system.http.post("/v1/runs", json={"agent": "alpha", **body}, headers={"Idempotency-Key": key})

    first, named = await post("k"), await post("n", **own)
    await system.settled()
    await prune_all(system)
    other = await post("k", input="another month")
    assert other.status_code == 201 and "idempotency-replayed" not in other.headers
    assert other.json()["run_id"] != first.json()["run_id"]
    again = await post("n", **own)
    assert again.json() == named.json() and again.headers["idempotency-replayed"] == "true"
    refused = await post("n", **own, input="other")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")


async def _no_timers(system: System) -> bool:
    return await system.sql("SELECT * FROM timer") == []


async def shown(caller: httpx2.AsyncClient) -> list[dict[str, Any]]:
    """The chores in a report on readiness. A report of a database that did not answer in time has none."""
    return list((await caller.get("/health/ready")).json().get("upkeep", []))


async def test_the_upkeep_of_a_running_server_is_seen(system: System) -> None:
    async def done() -> bool:
        chores = {chore["name"]: chore["error"] for chore in await shown(system.http)}
        names = (
            "breaker-counts", "browser-sessions", "commands", "hook-secrets", "idempotency-keys", "tool-limits", "uploads",
            "work-logs",
        )  # fmt: skip
        return chores == dict.fromkeys(names)

    await eventually(done, "all chores")
    metrics = (await system.http.get("/metrics")).text
    assert 'tidelog_upkeep_removed_rows{upkeep="commands"} 0.0' in metrics
    assert 'tidelog_upkeep_success_age_seconds{upkeep="idempotency-keys"}' in metrics

    await system.sql("UPDATE upkeep SET error = 'Unavailable: db-7.internal is away' WHERE name = 'commands'")
    async with system.client("wrong") as stranger:

        async def told(caller: httpx2.AsyncClient, text: str) -> bool:
            return text in [chore["error"] for chore in await shown(caller)]

        await eventually(lambda: told(system.http, "Unavailable: db-7.internal is away"), "the error")
        await eventually(lambda: told(stranger, "Unavailable"), "only the class of the error, without a key")
