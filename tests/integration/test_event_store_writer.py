"""The additions of PostgreSQL to the contract of the event store: bounds and end of the writer, and the SQL function by itself."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, Row, answers, parameters
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.group_commit import WriterLimits
from adapters.postgres.pool import Pool, connect, open_pool
from application.engine.ports.log import AppendResult, NewEvent, StreamAppend
from domain.errors import Unavailable
from tests.contract.test_event_store import new_id, outcome, request, stream_append


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database_url, role="test", max_size=4)
    yield pool
    await pool.close()


@pytest_asyncio.fixture
async def store(database_url: str, pool: Pool) -> AsyncIterator[PostgresEventStore]:
    store = PostgresEventStore(database_url, pool)
    await store.start()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def feed(pool: Pool) -> PostgresEventFeed:
    return PostgresEventFeed(pool)


async def test_an_append_that_only_the_database_refuses_leaves_its_neighbours_alone(
    store: PostgresEventStore, feed: PostgresEventFeed, database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("ALTER TABLE event ADD CHECK (topic <> 'thing.forbidden')")
    bad = request(StreamAppend(new_id(), new_id(), 0, (NewEvent("thing.forbidden", 1, b"{}"),)))
    good = [request(stream_append(new_id(), 0)) for _ in range(9)]
    results = await outcome(store, *good[:5], bad, *good[5:])
    assert isinstance(results.pop(5), psycopg.errors.CheckViolation)
    assert sorted(result.last_position for result in results if isinstance(result, AppendResult)) == list(range(1, 10))
    assert await feed.head() == 9


async def test_a_full_queue_is_unavailable_at_once(database_url: str, pool: Pool) -> None:
    store = PostgresEventStore(database_url, pool, limits=WriterLimits(appends=10))
    await store.start()
    results = await outcome(store, *(request(stream_append(new_id(), 0)) for _ in range(15)))
    assert sum(isinstance(result, Unavailable) for result in results) == 5
    await store.close()
    big = PostgresEventStore(database_url, pool, limits=WriterLimits(bytes=1_000))
    await big.start()
    with pytest.raises(Unavailable):
        await big.append(request(stream_append(new_id(), 0, b"x" * 2_000)))
    await big.close()


async def test_closing_writes_what_waits_and_refuses_the_rest(database_url: str, pool: Pool, feed: PostgresEventFeed) -> None:
    store = PostgresEventStore(database_url, pool)
    with pytest.raises(Unavailable):
        await store.append(request(stream_append(new_id(), 0)))
    await store.start()
    waiting = asyncio.gather(*(store.append(request(stream_append(new_id(), 0))) for _ in range(2_500)))
    await asyncio.sleep(0)
    await store.close()
    assert len(await waiting) == 2_500 and await feed.head() == 2_500
    with pytest.raises(Unavailable):
        await store.append(request(stream_append(new_id(), 0)))


async def test_the_sql_function_itself_answers_every_append_of_a_call(database_url: str) -> None:
    """The test calls the function without the store: the store splits a call that fails, and so would hide a function that fails
    other requests of the call."""
    contested, chained = new_id(), new_id()
    once = request(stream_append(new_id(), 0))
    calls = [
        once,
        request(stream_append(contested, 0), stream_append(new_id(), 0)),
        once,
        request(stream_append(contested, 0)),
        request(stream_append(chained, 0), stream_append(contested, 0)),
        request(stream_append(chained, 0)),
    ]
    batch = [EncodedAppend.of(one) for one in calls]
    connection = await connect(database_url, role="test")
    async with connection:
        register_arrays(connection)
        cursor = await connection.execute(APPEND_SQL, parameters(batch), binary=True)
        results = dict(answers(batch, [Row._make(row) for row in await cursor.fetchall()]))
    assert sorted(results) == list(range(6))
    kinds = ["duplicate" if getattr(results[place], "duplicate", False) else type(results[place]).__name__ for place in range(6)]
    assert kinds == ["AppendResult", "AppendResult", "duplicate", "VersionConflict", "VersionConflict", "AppendResult"]
    accepted = sorted(result.last_position for place in (0, 1, 5) if isinstance(result := results[place], AppendResult))
    assert accepted == [1, 3, 4]
