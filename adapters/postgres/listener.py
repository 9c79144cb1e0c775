"""NOTIFY as a hint: wakes who waits on a channel. A lost notification costs a waiter its time-out, nothing more."""

import asyncio
import contextlib
import random

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

from adapters.postgres import pool
from adapters.postgres.append_signal import ANSWER_SECONDS, CHECK_SECONDS, FIRST_POLL_SECONDS, POLL_SECONDS, readable

log = structlog.get_logger(__name__)


class ChannelListener:
    """Listens to one channel on a connection of its own, made again when it is lost. Owned: `start` and `close`."""

    def __init__(self, database_url: str, channel: str) -> None:
        self._database_url = database_url
        self._channel = channel
        self._notified = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"listen-{self._channel}")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # it logs its own failures

    async def wait(self, timeout: float) -> None:
        """Returns at a notification that came since the last call, at a reconnect, or after the time-out (seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._notified.wait()
        self._notified.clear()

    async def _run(self) -> None:
        delay = FIRST_POLL_SECONDS
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("listener_lost", channel=self._channel, error=str(error))
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, POLL_SECONDS)

    async def _listen(self) -> None:
        connection = await pool.connect(self._database_url, role="listener")
        try:
            connection.add_notify_handler(lambda _: self._notified.set())
            with pool.deadline(connection, ANSWER_SECONDS):
                await connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
            self._notified.set()  # whatever came while nobody listened
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        while True:
                            await readable(connection)
                            connection.pgconn.consume_input()  # raises OperationalError at the end of the connection
                            while connection.pgconn.notifies():
                                self._notified.set()
                with pool.deadline(connection, ANSWER_SECONDS):
                    await connection.execute("SELECT 1")
        finally:
            pool.sever(connection)
            await connection.close()
