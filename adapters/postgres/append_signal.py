"""Wakes those who wait for new events: by NOTIFY where that works, by the clock where it does not."""

import asyncio
import contextlib
import random

import psycopg
import structlog

from adapters.postgres import pool
from adapters.postgres.feed import HEAD_SQL

log = structlog.get_logger(__name__)

CHANNEL = "tidelog_log"
POLL_SECONDS = 5.0
"""Longest sleep of a waiter: a notification is a hint that may be lost, so whoever waits looks again after this."""
FIRST_POLL_SECONDS = 0.1
"""First sleep while there is no connection to be notified on; it doubles up to POLL_SECONDS."""
CHECK_SECONDS = 30.0
"""How often the idle connection is proved alive."""
ANSWER_SECONDS = 5.0


class AppendSignal:
    """Listens on a connection of its own, which it makes again when it is lost. Owned: `start` and `close`."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._head = 0
        self._moved = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while notifications can arrive."""
        self._poll_seconds = FIRST_POLL_SECONDS
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="append-signal")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # it logs its own failures

    async def wait(self, after: int, timeout: float) -> None:
        """Returns when there may be events after a position, at the latest after `timeout` seconds or POLL_SECONDS.

        The caller reads the log and comes back; it need not be told which of the reasons it was.
        """
        patience = POLL_SECONDS if self.listening.is_set() else self._poll_seconds
        try:
            async with asyncio.timeout(min(timeout, patience)):
                while self._head <= after:
                    await self._moved.wait()
        except TimeoutError:
            if not self.listening.is_set():
                self._poll_seconds = min(self._poll_seconds * 2, POLL_SECONDS)

    def _move(self, head: int) -> None:
        if head > self._head:
            self._head = head
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    async def _run(self) -> None:
        delay = FIRST_POLL_SECONDS
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                if self.listening.is_set():
                    delay = FIRST_POLL_SECONDS
                self.listening.clear()
                self._poll_seconds = FIRST_POLL_SECONDS
                log.warning("append_signal_lost", error=str(error))
            except Exception:
                self.listening.clear()
                log.exception("append_signal_failed")
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, POLL_SECONDS)

    async def _listen(self) -> None:
        connection = await pool.connect(self._database_url, role="signal")
        try:
            # Notifications that come in beside an answer are given to the handler, the others are met in `_drain`.
            connection.add_notify_handler(lambda notify: self._move(int(notify.payload)))
            with pool.deadline(connection, ANSWER_SECONDS):
                await connection.execute(f"LISTEN {CHANNEL}")
            while True:
                # Asked only once LISTEN is in force: nothing can be appended unseen between the two.
                with pool.deadline(connection, ANSWER_SECONDS):
                    cursor = await connection.execute(HEAD_SQL)
                    row = await cursor.fetchone()
                if row is not None:
                    self._reset_to(row[0])
                self.listening.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        while True:
                            await readable(connection)
                            self._drain(connection)
        finally:
            pool.sever(connection)
            await connection.close()

    def _reset_to(self, head: int) -> None:
        """Takes the database's word, even where it went back (a restored backup): else every wait would return at once for ever."""
        if head < self._head:
            self._head = head
        self._move(head)

    def _drain(self, connection: pool.Connection) -> None:
        connection.pgconn.consume_input()  # raises OperationalError at the end of the connection
        while notify := connection.pgconn.notifies():
            self._move(int(notify.extra))


async def readable(connection: pool.Connection) -> None:
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
