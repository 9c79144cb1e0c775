"""Many writers, and a reader at the tail: no event is skipped, doubled or out of order."""

import asyncio
from collections import Counter
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.pool import Pool, open_pool
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from domain.errors import VersionConflict
from tests.integration.nats_kit import APPEND_ONE
from tests.integration.parts_kit import waiting_appends
from tests.integration.system_kit import eventually
from tests.pace import within

TENANT = uuid7()


def new_id() -> UUID:
    return uuid7()


def request(stream_id: UUID, expected: int, events: int = 1) -> AppendRequest:
    append = StreamAppend(stream_id, stream_id, expected, (NewEvent("thing.happened", 1, b'{"n":1}'),) * events)
    return one_command(TENANT, new_id(), (append,), "{}")


async def tail(feed: PostgresEventFeed, until: int) -> list[int]:
    """The events that a simple consumer sees: it always asks for all events after its last position."""
    seen: list[int] = []
    while len(seen) < until:
        seen.extend(event.position for event in await feed.read(after=seen[-1] if seen else 0, limit=500))
    return seen


async def open_stores(database_url: str, pool: Pool, count: int) -> list[PostgresEventStore]:
    """Stores that each have a writer and a connection of their own, like stores of different processes."""
    stores = [PostgresEventStore(database_url, pool) for _ in range(count)]
    for store in stores:
        await store.start()
    return stores


async def test_a_reader_at_the_tail_skips_nothing_under_eight_writers(database_url: str) -> None:
    pool = await open_pool(database_url, role="test", max_size=4)
    stores = await open_stores(database_url, pool, 8)
    appends, events = 60, 3

    async def write(store: PostgresEventStore) -> None:
        async def caller() -> None:
            for _ in range(appends):
                await store.append(request(new_id(), 0, events))

        await asyncio.gather(*(caller() for _ in range(4)))

    total = 8 * 4 * appends * events
    async with within(60):
        seen, again, *_ = await asyncio.gather(
            tail(PostgresEventFeed(pool), total), tail(PostgresEventFeed(pool), total), *(write(store) for store in stores)
        )
    assert seen == again == list(range(1, total + 1))
    for store in stores:
        await store.close()
    await pool.close()


async def test_two_stores_that_race_for_the_same_streams_keep_every_stream_whole(database_url: str) -> None:
    pool = await open_pool(database_url, role="test", max_size=8)
    stores = await open_stores(database_url, pool, 2)
    streams = [new_id() for _ in range(3)]
    won: Counter[UUID] = Counter()

    async def compete(store: PostgresEventStore, stream: UUID) -> None:
        version = 0
        for _ in range(40):
            try:
                await store.append(request(stream, version))
            except VersionConflict as conflict:
                version = conflict.current
            else:
                version += 1
                won[stream] += 1

    async with within(60):
        await asyncio.gather(*(compete(store, stream) for store in stores for stream in streams for _ in range(4)))
    assert sum(won.values()) < 2 * 3 * 4 * 40, "nobody lost a race, so none was tested"
    for stream in streams:
        versions = [event.version for event in await stores[0].read_stream(TENANT, stream)]
        assert versions == list(range(1, won[stream] + 1))
    assert await PostgresEventFeed(pool).head() == sum(won.values())
    for store in stores:
        await store.close()
    await pool.close()


async def test_an_open_append_holds_readers_before_its_positions(database_url: str) -> None:
    """The transaction that took its positions first is visible first, whatever the order of the commits would be."""
    pool = await open_pool(database_url, role="test", max_size=4)
    feed = PostgresEventFeed(pool)
    [store] = await open_stores(database_url, pool, 1)
    async with await psycopg.AsyncConnection.connect(database_url) as slow:
        stream = str(new_id())
        cursor = await slow.execute(APPEND_ONE, {"id": stream})
        assert await cursor.fetchone() == (1,)
        fast = asyncio.create_task(store.append(request(new_id(), 0)))
        await eventually(lambda: waiting_appends(database_url))
        assert not fast.done() and await feed.read(after=0, limit=10) == []
        await slow.rollback()
    # The next append uses the position of the append that was rolled back: there is no gap.
    assert (await fast).last_position == 1
    assert [event.position for event in await feed.read(after=0, limit=10)] == [1]
    await store.close()
    await pool.close()


async def test_a_process_of_the_release_before_writes_into_the_same_order(database_url: str) -> None:
    """While processes are replaced one by one, some processes still call the earlier function."""
    pool = await open_pool(database_url, role="test", max_size=4)
    feed = PostgresEventFeed(pool)
    [store] = await open_stores(database_url, pool, 1)
    before = """
        SELECT outcome, last_position FROM append_events_v1(
            ARRAY[%(id)s]::uuid[], ARRAY[%(id)s]::uuid[], ARRAY['{}'], ARRAY[1], ARRAY[%(id)s]::uuid[], ARRAY[%(id)s]::uuid[],
            ARRAY[0]::bigint[], ARRAY[1], ARRAY['thing.happened'], ARRAY[1]::smallint[], ARRAY['{}'::bytea])
    """
    async with pool.connection() as connection:
        for number in range(1, 20, 2):
            stream = new_id()
            assert await (await connection.execute(before, {"id": stream})).fetchone() == ("accepted", number)
            assert (await store.append(request(new_id(), 0))).last_position == number + 1
            with pytest.raises(VersionConflict):
                await store.append(request(stream, 0)._replace(tenant_id=stream))
            assert await (await connection.execute(before, {"id": stream})).fetchone() == ("duplicate", number)
    assert [event.position for event in await feed.read(after=0, limit=100)] == list(range(1, 21))
    await store.close()
    await pool.close()
