"""Bursts: a crowd on real connections waits for one end, and starts are refused at a stated bound alone."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.log.feed import PostgresEventFeed
from api.http.conventions.door import Limits
from domain.agents import RegisterAgent, agent_id_of
from domain.kernel import RecordedEvent
from domain.runs import CancelRun
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.system_kit import System, eventually, issue_key, running, served
from tests.pace import within

CROWD = 1_000


async def registered(system: System) -> None:
    await system.command(RegisterAgent(agent_id=agent_id_of(DEFAULT_TENANT_ID, "alpha"), name="alpha", version="1"))


async def asked(url: str, key: str, path: str) -> bytes:
    """The answer to a request that waits, over a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"GET {path} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\nprefer: wait=60\r\nconnection: close\r\n\r\n"
        writer.write(head.encode())
        return await reader.read()
    finally:
        writer.close()


async def test_a_crowd_waits_on_connections_without_a_connection_to_the_database(
    database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing ends, nothing is read. One statement reads the run for all who waited for its end."""
    statements: list[int] = []
    read_roots = PostgresEventFeed.read_roots

    async def counted(self: PostgresEventFeed, roots: Any, *, limit: int) -> list[RecordedEvent]:
        statements.append(len(roots))
        return await read_roots(self, roots, limit=limit)

    monkeypatch.setattr(PostgresEventFeed, "read_roots", counted)
    async with running(database_url, nats_url, loops=("live", "relay", "projections"), database_pool_size=4) as system:
        await issue_key(system)
        await registered(system)
        run_id = await system.start("alpha")
        async with served(system.container, Limits(per_key=CROWD)) as url:
            waiting = [asyncio.create_task(asked(url, system.key, f"/v1/runs/{run_id}")) for _ in range(CROWD)]

            async def all_wait() -> bool:
                done = [task.result() for task in waiting if task.done()]
                assert not done, done[0]
                return system.container.live.watched(UUID(run_id)) == CROWD

            async with within(60):
                await eventually(all_wait, "a crowd that waits", timeout_s=60)
                await asyncio.gather(*(system.container.replays.now(DEFAULT_TENANT_ID, UUID(run_id)) for _ in range(2)))
                statements.clear()
                await system.command(CancelRun(run_id=UUID(run_id), reason="enough"))
                answers = await asyncio.gather(*waiting)
        assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert all(b'"status":"cancelled"' in answer and b'"cancel_reason":"enough"' in answer for answer in answers)
        assert sum(statements) < 32, "those who are woken in one turn share the statement"


async def test_starts_are_refused_at_the_bound_and_the_bound_is_shown(database_url: str, nats_url: str) -> None:
    async with running(database_url, nats_url, max_open_runs=3, max_open_runs_per_tenant=2) as system:
        await issue_key(system)
        await registered(system)
        tenant_id, key = await system.tenant("other")
        await system.command(
            RegisterAgent(agent_id=agent_id_of(tenant_id, "alpha"), name="alpha", version="1"), tenant_id=tenant_id
        )
        body = {"agent": "alpha"}
        started = [(await system.http.post("/v1/runs", json=body)).json()["run_id"] for _ in range(2)]
        head = await system.settled()
        refused = await system.http.post("/v1/runs", json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-open-runs-of-tenant"), refused.text
        async with system.client(key) as other:
            assert (await other.post("/v1/runs", json=body)).status_code == 201
            full = await other.post("/v1/runs", json=body)
            assert (full.status_code, full.json()["code"], full.json()["retryable"]) == (503, "too-many-open-runs", True), full.text
            assert full.headers["retry-after"] == "1" and full.headers["content-type"] == "application/problem+json"
            await system.settled()

            async def shown() -> bool:
                health = (await system.http.get("/health/ready")).json()
                found = {trouble["code"]: trouble["count"] for trouble in health["degraded"]}
                work = health.get("work", {})  # left out where a look takes two seconds
                return work.get("max_runs") == 3 and found.get("many-open-runs") == 3

            await eventually(shown)
            metrics = (await system.http.get("/metrics")).text
            for code in ("too-many-open-runs", "too-many-open-runs-of-tenant"):
                assert f'tidelog_runs_refused_total{{reason="{code}"}} ' in metrics
            cancelled = await system.http.post(f"/v1/runs/{started[0]}/cancel")
            assert cancelled.status_code == 202 and cancelled.json()["position"] > head

            async def admitted() -> bool:
                return (await system.http.post("/v1/runs", json=body)).status_code == 201

            await eventually(admitted, "the count of the next second")
