"""Connections of the read side, and their state after a cancelled transaction."""

import asyncio
import contextlib
import gc
import random
import time

import pytest
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg_pool.base import AttemptWithBackoff

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import RECONNECT_FOR, check_health, connect, open_pool
from domain.errors import Unavailable
from tests.integration.system_kit import eventually
from tests.integration.wire_kit import wired
from tests.pace import within

OUTAGE_S = RECONNECT_FOR + 1.0
"""Seconds after which the pool has given up its own attempts to connect."""


async def test_an_outage_is_not_much_longer_for_us_than_for_the_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's pool tries at growing intervals for five minutes. In these tests the second try would be hours later."""
    monkeypatch.setattr(AttemptWithBackoff, "INITIAL_DELAY", 0.1)
    monkeypatch.setattr(AttemptWithBackoff, "DELAY_BACKOFF", 100_000.0)
    async with wired(database_url) as (wire, url):
        pool = await open_pool(url, role="test", max_size=2)
        await check_health(pool)
        await wire.cut()

        async def ask() -> None:
            while True:
                with contextlib.suppress(Unavailable):
                    await check_health(pool)
                    return
                await asyncio.sleep(0.2)

        asking = asyncio.create_task(ask())
        await asyncio.sleep(OUTAGE_S)
        await wire.mend()
        async with within(10):
            await asking
        await pool.close()


async def test_who_waits_already_gets_a_connection_when_the_database_is_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds also when the pool has stopped its own attempts, and no other caller asks."""
    monkeypatch.setattr("adapters.postgres.pool.RECONNECT_FOR", 0.2)
    async with wired(database_url) as (wire, url):
        await wire.cut()
        pool = await open_pool(url, role="test", max_size=2, timeout=60)
        try:

            async def ask() -> None:
                async with pool.connection() as connection:
                    await connection.execute("SELECT 1")

            asking = asyncio.create_task(ask())

            async def gave_up() -> bool:
                """The test repeats the round: each failed try is an error, and one round has two or three tries."""
                return pool.get_stats().get("connections_errors", 0) >= 6

            await eventually(gave_up)
            await wire.mend()
            async with within(20):
                await asking
        finally:
            await pool.close()


async def test_a_transaction_cancelled_at_any_moment_leaves_a_clean_connection(database_url: str) -> None:
    """This holds also for a second cancellation during the rollback.

    A connection that stayed in pipeline mode would commit nothing of its next user.
    """
    chance = random.Random(1)
    pool = await open_pool(database_url, role="test", max_size=1)
    database = PostgresDatabase(pool)

    async def work() -> None:
        async with database.transaction() as connection:
            await connection.execute("CREATE TEMPORARY TABLE seen ON COMMIT DROP AS SELECT 1 AS n")
            await (await connection.execute("SELECT count(*) FROM seen")).fetchone()
            await connection.execute("UPDATE seen SET n = n + 1")

    try:
        for _ in range(700):
            task = asyncio.create_task(work())
            await asyncio.sleep(chance.uniform(0, 0.004))
            for _ in range(chance.randrange(1, 5)):
                task.cancel()
                await asyncio.sleep(chance.choice([0, 0, 0.0001, 0.0005, 0.001]))
            await asyncio.gather(task, return_exceptions=True)
            async with database.connection() as connection:
                assert connection.pgconn.pipeline_status == PipelineStatus.OFF
                assert connection.pgconn.transaction_status == TransactionStatus.IDLE
    finally:
        await pool.close()


async def test_nothing_of_a_cancelled_transaction_is_left_to_the_garbage_collector(database_url: str) -> None:
    """The driver's generators would go on at garbage collection. pytest fails a test in which a generator raises then."""
    pool = await open_pool(database_url, role="test", max_size=1)
    database = PostgresDatabase(pool)
    loop = asyncio.get_running_loop()

    def cancel(task: asyncio.Task[None], times: int) -> None:
        task.cancel()
        if times > 1:
            loop.call_soon(cancel, task, times - 1)

    async def work(times: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
            time.sleep(0.02)  # noqa: ASYNC251  # long enough that the driver lets others run before it sends the commit
            task = asyncio.current_task()
            assert task is not None
            loop.call_soon(cancel, task, times)

    for times in range(1, 6):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(work(times))
        gc.collect()
        await check_health(pool)
    await pool.close()


async def test_a_login_that_is_cancelled_leaves_nothing_on_the_server() -> None:
    """The server would wait a minute for the rest of the login. The exception is kept here, as a task that has ended keeps it."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        arrived.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.create_task(connect(f"postgresql://127.0.0.1:{port}/tidelog?sslmode=disable", role="test"))
        async with within(10):
            await arrived.wait()
        kept = None
        try:
            opening.cancel()
            await opening
        except asyncio.CancelledError as cancelled:
            kept = cancelled
        async with within(10):
            await gone.wait()
        assert kept is not None


async def test_who_comes_one_after_the_other_gets_the_connection_that_was_used_last(database_url: str) -> None:
    """So a process with little to do wakes one server process, and not one after the other."""
    pool = await open_pool(database_url, role="test", min_size=4, max_size=4)
    database = PostgresDatabase(pool)

    async def all_are_back() -> bool:
        return pool.get_stats()["pool_available"] == 4

    try:
        await eventually(all_are_back)
        async with database.connection() as first:
            pass
        for _ in range(6):
            await eventually(all_are_back)
            async with database.connection() as again:
                assert again is first
        await eventually(all_are_back)
        async with database.connection() as one, database.connection() as other:
            assert one is first and other is not first
    finally:
        await pool.close()
