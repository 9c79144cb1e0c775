"""NOTIFY as a hint: wakes who waits on a channel. A lost notification costs a waiter its time-out, nothing more."""

import asyncio
import contextlib
import random

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
"""How often the idle connection is proved alive."""
ANSWER_SECONDS = 5.0


class ChannelListener:
    """Listens to one channel on a connection of its own, made again when it is lost. Owned: `start` and `close`.

    Subclasses say what a notification means (`on_notification`) and what to ask on a connection that listens (`check`).
    """

    def __init__(self, database_url: str, channel: str) -> None:
        self._database_url = database_url
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
        """Proves the connection alive. Called first when LISTEN is in force: nothing can happen unseen between the two."""
        await connection.execute("SELECT 1")

    def on_loss(self) -> None:
        """The connection is gone; notifications are missed from here on."""

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
            # Notifications that come in beside an answer are given to the handler, the others are met in `_drain`.
            connection.add_notify_handler(lambda notify: self.on_notification(notify.payload))
            with pool.deadline(connection, ANSWER_SECONDS):
                await connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
            self._notified.set()  # whatever came while nobody listened
            while True:
                with pool.deadline(connection, ANSWER_SECONDS):
                    await self.check(connection)
                self.listening.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
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
    """Until the socket has something; the driver's own `notifies` wakes up ten times a second to see."""
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
