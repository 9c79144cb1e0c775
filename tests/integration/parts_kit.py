"""Parts of a running server that one test has to itself, and sessions of its database: which wait, and how one ends."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import psycopg

from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.pool import open_pool
from adapters.postgres.shares import sizes
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from domain.errors import Unavailable
from projections.kernel import Database
from tests.integration.system_kit import System, eventually, stopped


@asynccontextmanager
async def live_feed(system: System, **limits: Any) -> AsyncIterator[LiveFeed]:
    """A live feed of the test's own beside the server's feed, with the given limits."""
    container = system.container
    feed = LiveFeed(container.feed, container.live.subscription, container.histories, **limits)
    reading = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        await stopped(reading)


async def begun_elsewhere(system: System, last_common: int) -> str:
    """Begins a history in another process; this process learns of the history by a notification. Returns the history's id."""
    pool = await open_pool(system.database_url, role="test", max_size=1)
    try:
        _, now = await HistoryKeeper(PostgresHistories(pool)).restored("a test", last_common)
    finally:
        await pool.close()
    return now.history_id


async def hold(stack: AsyncExitStack, system: System, name: Literal["read_database", "command_database"]) -> None:
    """Holds all connections of one of the container's databases until the end of the block."""
    database: Database = getattr(system.container, name)
    commands, reads = sizes(system.container.settings.database_pool_size)

    async def one_more() -> bool:
        with contextlib.suppress(Unavailable):
            await stack.enter_async_context(database.connection())
            return True
        return False

    for _ in range(reads if name == "read_database" else commands):
        await eventually(one_more, f"a connection of {name}")


async def waiting_appends(database_url: str) -> int:
    """The number of appends that wait for a lock in a database."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'tidelog-append' AND datname = current_database() AND wait_event_type = 'Lock'
    """
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        [(count,)] = await (await connection.execute(query)).fetchall()
        return int(count)


@contextlib.contextmanager
def ended_before_reading(connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Ends the server's process of an idle connection. What the block sends lies unread in the server's socket.

    The event loop stands still until the process has gone. So the event loop gets the server's last words and an error of the
    socket as one event.
    """
    pid = connection.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        for _ in range(3_000):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.01)


def say_something(connection: psycopg.AsyncConnection[Any]) -> None:
    """Sends messages of the protocol (Sync) past the driver: more than the server reads at once."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as twin:
        twin.sendall(b"S\x00\x00\x00\x04" * 4_000)
