"""PostgreSQL is killed with all its processes at the moment of an answer: only data that was never flushed is lost."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.pool import open_pool
from application.engine.ports.log import AppendRequest, AppendResult, NewEvent, StreamAppend, one_command
from domain.errors import Unavailable
from tests.chaos.faults_kit import rounds, seeded
from tests.integration.durable_kit import crash, database_on, durable_server
from tests.pace import within

pytestmark = pytest.mark.chaos

TENANT = uuid7()
CALLERS = 8
ROUND_S = 60.0
"""Seconds. A restart with its recovery and the appends of a round take about a second."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServices]:
    async with durable_server() as server:
        yield server


async def test_a_crash_at_the_moment_of_an_answer_loses_nothing_acknowledged(server: EmbeddedServices) -> None:
    """The sessions of the database begin without waiting for the disk.

    A writer that kept this setting would lose acknowledged appends.
    """
    chance = seeded()
    url = await database_on(server)
    pool = await open_pool(url, role="test", max_size=2)
    store = PostgresEventStore(url, pool)
    await store.start()
    told: dict[UUID, AppendResult] = {}
    try:
        for _ in range(rounds(3, 20)):
            fatal, stop = len(told) + chance.randrange(1, 60), asyncio.Event()

            async def caller(fatal: int = fatal, stop: asyncio.Event = stop) -> None:
                while not stop.is_set():
                    request = _request()
                    result = await _told(store, request)
                    told[request.streams[0].stream_id] = result
                    if len(told) == fatal:  # before this process does anything else
                        crash(server)
                        stop.set()

            async with within(ROUND_S):
                async with asyncio.TaskGroup() as group:
                    callers = [group.create_task(caller()) for _ in range(CALLERS)]
                    await stop.wait()
                    await server.restart("postgres")
                assert all(task.done() for task in callers)
            assert await _stored(url) == {stream: result.last_position for stream, result in told.items()}
        assert await PostgresEventFeed(pool).head() == len(told)
    finally:
        await store.close()
        await pool.close()


def _request() -> AppendRequest:
    stream_id = uuid7()
    return one_command(TENANT, uuid7(), (StreamAppend(stream_id, stream_id, 0, (NewEvent("thing.happened", 1, b"{}"),)),), "{}")


async def _told(store: PostgresEventStore, request: AppendRequest) -> AppendResult:
    """Returns the answer. The request is repeated under the same id until there is an answer."""
    while True:
        try:
            return await store.append(request)
        except Unavailable:
            await asyncio.sleep(0.05)


async def _stored(url: str) -> dict[UUID, int]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute("SELECT originator_id, notification_id FROM event")
        return dict(await cursor.fetchall())
