"""The database goes away under the writer: each acknowledged append is in the log exactly once, and no caller waits for ever."""

import asyncio
import random
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.group_commit import WriterLimits
from adapters.postgres.pool import check_health, open_pool
from application.engine.ports.log import AppendRequest, AppendResult, NewEvent, StreamAppend, one_command
from domain.errors import Unavailable
from tests.integration.parts_kit import waiting_appends
from tests.integration.system_kit import eventually
from tests.integration.wire_kit import wired
from tests.pace import ANSWER_S, in_time, within

TENANT = uuid7()
KILL_WRITER = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'tidelog-append' AND datname = current_database()
"""


def request() -> AppendRequest:
    stream_id, command_id = uuid7(), uuid7()
    append = StreamAppend(stream_id, stream_id, 0, (NewEvent("thing.happened", 1, b"{}"), NewEvent("thing.happened", 1, b"{}")))
    return one_command(TENANT, command_id, (append,), "{}")


async def test_killing_the_writers_backend_loses_and_doubles_nothing(database_url: str) -> None:
    pool = await open_pool(database_url, role="test", max_size=4)
    store = PostgresEventStore(database_url, pool)
    await store.start()
    stop = asyncio.Event()
    acknowledged: dict[UUID, AppendResult] = {}

    async def caller() -> None:
        while not stop.is_set():
            wanted = request()
            acknowledged[wanted.streams[0].stream_id] = await store.append(wanted)

    async def killer() -> None:
        dice, killed, seen = random.Random(7), 0, 0

        async def answered() -> bool:
            return len(acknowledged) > seen

        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            while killed < 15 or len(acknowledged) <= 100:
                if killed % 2:  # else kills could follow one another faster than a slow machine connects
                    await eventually(answered)
                await asyncio.sleep(dice.uniform(0.005, 0.08))
                seen = len(acknowledged)
                killed += (await connection.execute(KILL_WRITER)).rowcount
        stop.set()

    async with within(30):
        await asyncio.gather(killer(), *(caller() for _ in range(32)))
    assert len(acknowledged) > 100

    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT originator_id, max(notification_id), count(*) FROM event GROUP BY originator_id")
        stored = {stream: (position, count) for stream, position, count in await cursor.fetchall()}
        cursor = await connection.execute("SELECT count(*), max(notification_id) FROM event")
        total = await cursor.fetchone()
    assert stored == {stream: (result.last_position, result.event_count) for stream, result in acknowledged.items()}
    assert total == (2 * len(acknowledged),) * 2  # contiguous: as many events as the highest position
    assert await PostgresEventFeed(pool).head() == 2 * len(acknowledged)
    await store.close()
    await pool.close()


async def test_an_answer_lost_after_the_commit_comes_back_as_a_duplicate(database_url: str) -> None:
    """The connection of the first attempt is cut while the attempt waits for the head's lock.

    The attempt still commits, beside the retry.
    """
    pool = await open_pool(database_url, role="test", max_size=4)
    async with wired(database_url) as (wire, url), await psycopg.AsyncConnection.connect(database_url) as blocker:
        store = PostgresEventStore(url, pool)
        await store.start()
        await store.append(request())

        async def waits(count: int) -> bool:
            return await waiting_appends(database_url) == count

        await blocker.execute("SELECT FROM log_head FOR UPDATE")
        wanted = request()
        waiting = asyncio.create_task(store.append(wanted))
        await eventually(lambda: waits(1))
        await wire.disconnect()  # the server does not notice the cut while it waits for the lock
        await eventually(lambda: waits(2), "the retry beside the first attempt")
        await blocker.rollback()
        result = await in_time(waiting, 10)
        assert (result.last_position, result.event_count) == (4, 2)
        assert len(await store.read_stream(TENANT, wanted.streams[0].stream_id)) == 2
        assert await PostgresEventFeed(pool).head() == 4
        await store.close()
    await pool.close()


async def test_an_append_behind_a_crowd_is_not_given_up(database_url: str) -> None:
    """The time of an append counts while the database is away, not while other appends are written."""
    pool = await open_pool(database_url, role="test", max_size=4)
    async with await psycopg.AsyncConnection.connect(database_url) as blocker:
        store = PostgresEventStore(database_url, pool, limits=WriterLimits(retry_seconds=0.0))
        await store.start()
        await blocker.execute("SELECT FROM log_head FOR UPDATE")
        first = asyncio.create_task(store.append(request()))

        async def waits() -> bool:
            return await waiting_appends(database_url) == 1

        await eventually(waits)
        behind = asyncio.create_task(store.append(request()))
        await blocker.rollback()
        assert [(await in_time(each, 10)).last_position for each in (first, behind)] == [2, 4]
        await store.close()
    await pool.close()


async def test_without_a_database_callers_get_unavailable_in_bounded_time(tmp_path: str) -> None:
    pool = await open_pool(f"postgresql:///none?host={tmp_path}", role="test", timeout=0.2)
    store = PostgresEventStore(f"postgresql:///none?host={tmp_path}", pool, limits=WriterLimits(retry_seconds=0.3))
    await store.start()
    async with within(5):
        results = await asyncio.gather(*(store.append(request()) for _ in range(50)), return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    with pytest.raises(Unavailable):
        await store.read_stream(TENANT, UUID(int=1))
    with pytest.raises(Unavailable):
        await check_health(pool, timeout=0.2)
    await store.close()
    await pool.close()


async def test_a_database_that_does_not_answer_is_unavailable_in_bounded_time() -> None:
    """A peer that accepts connections and sends nothing, like a broken proxy."""
    over = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    url = f"postgresql://nobody@127.0.0.1:{port}/none?connect_timeout=2"
    pool = await open_pool(url, role="test", timeout=0.2, min_size=0)
    store = PostgresEventStore(url, pool, limits=WriterLimits(retry_seconds=0.5))
    await store.start()
    async with within(8):
        with pytest.raises(Unavailable):
            await store.append(request())
    await store.close()
    await pool.close()
    over.set()
    silent.close()
    await silent.wait_closed()


async def test_connections_that_died_in_the_pool_are_not_handed_out(database_url: str) -> None:
    pool = await open_pool(database_url, role="test", min_size=2, max_size=2)
    await pool.wait(ANSWER_S)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        ended = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'tidelog-test'"
        assert (True,) in await (await connection.execute(ended)).fetchall()
    for _ in range(5):
        await check_health(pool)
    await pool.close()


async def test_a_store_started_before_its_database_catches_up(database_url: str) -> None:
    """Calls that begin while the database refuses connections wait for the database."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        name = connection.info.dbname
        await connection.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 1")
        pool = await open_pool(database_url, role="test", min_size=0, max_size=2)
        store = PostgresEventStore(database_url, pool)
        await store.start()
        waiting = asyncio.create_task(store.append(request()))
        done, _ = await asyncio.wait({waiting}, timeout=0.4)
        assert not done
        await connection.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
        assert (await in_time(waiting, 10)).last_position == 2
    await store.close()
    await pool.close()
