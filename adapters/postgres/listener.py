"""NOTIFY as a hint: wakes the waiters on a channel. A lost notification costs a waiter its time-out, nothing more."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

from adapters.postgres import pool
from application.engine.background import Background

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.1
"""First pause before a lost connection is made again; it doubles up to LONGEST_PAUSE_SECONDS."""
LONGEST_PAUSE_SECONDS = 2.0
CHECK_SECONDS = 30.0
"""Seconds between two checks that an idle connection is alive."""
ANSWER_SECONDS = 5.0


class ChannelListener:
    """Listens to one channel on a connection of its own. A lost connection is made again. Owned: `start` and `close`.

    Subclasses say what a notification means (`on_notification`) and which query checks a listening connection (`check`).
    """

    def __init__(self, database_url: str, channel: str, *, check_s: float = CHECK_SECONDS) -> None:
        self._database_url = database_url
        self._check_s = check_s
        self._channel = channel
        self._notified = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while notifications can arrive."""
        self._listening = Background(f"listen-{channel}", self._run)
        self.failed = self._listening.failed
        """Raises when the task that listens has ended before `close`."""

    async def start(self) -> None:
        self._listening.start()

    async def close(self) -> None:
        await self._listening.close()

    async def wait(self, timeout: float) -> None:
        """Returns at a notification that came since the last call, at a new connection, or after the time-out (seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._notified.wait()
        self._notified.clear()

    def on_notification(self, payload: str) -> None:
        self._notified.set()

    async def check(self, connection: pool.Connection) -> None:
        """Checks that the connection is alive. The first call comes after LISTEN is in force, so no event is missed in between."""
        await connection.execute("SELECT 1")

    def on_loss(self) -> None:
        """The connection is lost. Notifications are missed from now on."""

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("listener_lost", channel=self._channel, error=str(error))
            except Exception:
                log.exception("listener_failed", channel=self._channel)
            if self.listening.is_set():
                pause = FIRST_PAUSE_SECONDS
            self.listening.clear()
            self.on_loss()
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def _listen(self) -> None:
        connection = await pool.connect(self._database_url, role="listener")
        try:
            # The handler gets notifications that arrive beside an answer; `_drain` gets the others.
            connection.add_notify_handler(lambda notify: self.on_notification(notify.payload))
            with pool.deadline(connection, ANSWER_SECONDS):
                await connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
            self._notified.set()  # notifications may have been missed while nobody listened
            while True:
                with pool.deadline(connection, ANSWER_SECONDS):
                    await self.check(connection)
                self.listening.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._check_s):
                        while True:
                            await _readable(connection)
                            self._drain(connection)
        finally:
            pool.sever(connection)
            await connection.close()

    def _drain(self, connection: pool.Connection) -> None:
        connection.pgconn.consume_input()  # raises OperationalError at the end of the connection
        while notify := connection.pgconn.notifies():
            self.on_notification(notify.extra.decode())


async def _readable(connection: pool.Connection) -> None:
    """Waits until the socket has data. The driver's own `notifies` would wake up ten times a second."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    descriptor = connection.fileno()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


@contextlib.asynccontextmanager
async def listening(database_url: str, channel: str) -> AsyncIterator[ChannelListener]:
    """A listener on a connection of its own, for as long as it is needed."""
    listener = ChannelListener(database_url, channel)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()
