"""A flood of requests of one kind does not take the connections of other kinds. Health is computed once for all callers."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import httpx2
import pytest
from psycopg_pool import PoolTimeout, TooManyRequests

from adapters.postgres import idempotency
from adapters.postgres.pool import open_pool
from adapters.postgres.shares import PoolShare, sizes
from api.assembly.pools import Waits
from domain.errors import Unavailable
from tests.integration.parts_kit import hold
from tests.integration.system_kit import System, eventually, issue_key, new_id, running


def test_every_class_has_connections_and_some_are_left() -> None:
    for size in range(4, 101):
        commands, reads = sizes(size)
        assert commands >= 1 and reads >= 2 and size - commands - reads >= 1, size


async def test_a_share_is_bounded_first_come_first_served(database_url: str) -> None:
    pool = await open_pool(database_url, role="test", max_size=4)
    share = PoolShare(pool, 2, timeout=0.3, max_waiting=1)
    served: list[int] = []

    async def ask(number: int) -> None:
        async with share.connection(10):
            served.append(number)

    try:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(share.connection(10))
            with pytest.raises(PoolTimeout):
                async with share.connection():
                    pass
            first = asyncio.create_task(ask(1))
            await asyncio.sleep(0)
            with pytest.raises(TooManyRequests):
                async with share.connection():
                    pass
            async with pool.connection() as connection:  # the connections of other kinds are still free
                await connection.execute("SELECT 1")
            first.cancel()
            await asyncio.wait({first})
            second = asyncio.create_task(ask(2))
            await asyncio.sleep(0)
        await second
        await asyncio.gather(*(ask(number) for number in (3, 4)))
        assert served == [2, 3, 4], "who was cancelled holds no place"
    finally:
        await pool.close()


@pytest.mark.parametrize("flooded", ["read_database", "command_database"])
async def test_who_takes_a_whole_share_leaves_the_others_theirs(database_url: str, nats_url: str, flooded: str) -> None:
    waits = Waits(reads_s=1.0) if flooded == "read_database" else Waits(commands_s=1.0)
    async with running(database_url, nats_url, given={"waits": waits}) as system:
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha")
        assert (await system.http.get("/v1/runs")).status_code == 200
        await system.start("alpha")  # the process knows the agent and the budgets from now on
        await (await worker.next("alpha")).complete("done")
        async with AsyncExitStack() as stack:
            await hold(stack, system, flooded)
            posted = await system.http.post("/v1/runs", json={"agent": "alpha"}, headers={"Idempotency-Key": "k"})
            loaded = await system.http.post(f"/v1/runs/{new_id()}/cancel")
            read = await system.http.get("/v1/runs", headers={"Tidelog-Position": "1"})
            async with system.client(None) as anybody:
                ready, metrics = await anybody.get("/health/ready"), await anybody.get("/metrics")
            assert posted.status_code == 201, "all that the start needs is in memory, and the writer has a connection of its own"
            assert (loaded.status_code, read.status_code) == ((404, 503) if flooded == "read_database" else (503, 200))
            assert (ready.status_code, metrics.status_code) == (200, 200)
            if flooded == "read_database":  # a whole run goes from start to end
                await (await worker.next("alpha")).complete("done")
                await eventually(lambda: system.sql("SELECT 1 FROM event WHERE topic = 'run.completed' OFFSET 1"), "the end")
        assert (await system.http.get("/v1/runs")).status_code == 200


async def test_health_is_computed_once_for_all_who_ask(system: System) -> None:
    computed = 0

    async def counting() -> None:
        nonlocal computed
        computed += 1
        await asyncio.sleep(0.05)

    container = replace(system.container, dependencies={**system.container.dependencies, "counted": counting})
    async with system.client(None, container=container) as anybody:
        began = asyncio.get_running_loop().time()
        paths = ["/health/ready"] * 1_500 + ["/metrics"] * 300
        answers = await asyncio.gather(*(anybody.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}
        assert computed <= 1 + asyncio.get_running_loop().time() - began, "one a second"


async def test_a_report_is_made_anew_after_a_second(system: System) -> None:
    wrong = False

    async def check() -> None:
        if wrong:
            raise Unavailable("something is wrong")

    container = replace(system.container, dependencies={**system.container.dependencies, "checked": check})
    async with system.client(None, container=container) as anybody:
        assert (await anybody.get("/health/ready")).status_code == 200
        wrong = True

        async def told() -> bool:
            response = await anybody.get("/health/ready")
            return response.status_code == 503 and response.json()["dependencies"]["checked"] == "something is wrong"

        await eventually(told)


async def test_commands_go_on_under_floods(database_url: str, nats_url: str) -> None:
    """The floods are reads, and requests without a key."""
    async with running(database_url, nats_url, database_pool_size=8) as system:
        await issue_key(system)
        await system.worker().register("alpha")
        statuses: dict[str, set[int]] = {"/health/ready": set(), "/metrics": set(), "/v1/runs?limit=1000": set()}
        over = False

        async def ask(client: httpx2.AsyncClient, path: str) -> None:
            while not over:
                statuses[path].add((await client.get(path)).status_code)

        async with system.client(system.key) as other:
            flood = [asyncio.create_task(ask(other, path)) for path in statuses for _ in range(50)]
            try:
                for number in range(20):
                    headers = {"Idempotency-Key": f"k{number}"}
                    posted = await system.http.post("/v1/runs", json={"agent": "alpha"}, headers=headers)
                    assert posted.status_code == 201, posted.text
            finally:
                over = True
                await asyncio.gather(*flood)
        assert statuses["/health/ready"] == statuses["/metrics"] == {200}
        assert 200 in statuses["/v1/runs?limit=1000"] and statuses["/v1/runs?limit=1000"] <= {200, 503}


async def test_idempotency_keys_are_deleted_as_fast_as_they_come(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "EXPIRED_AT_ONCE", 100)
    insert = """
        INSERT INTO idempotency_key (key_id, tenant_id, body_sha256, token, begun_at)
        SELECT gen_random_uuid(), gen_random_uuid(), 'x', gen_random_uuid(), now() - %s * interval '1 hour'
        FROM generate_series(1, %s)
    """
    await system.sql(insert, 25, 950)
    await system.sql(insert, 23, 7)
    pool = await open_pool(system.database_url, role="test", max_size=1)
    try:
        assert await idempotency.PostgresIdempotencyKeys(pool).expire() == 950
    finally:
        await pool.close()
    assert await system.sql("SELECT count(*) FROM idempotency_key") == [(7,)]
