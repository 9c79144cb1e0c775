"""NOTIFY as a hint: wakes the waiters on a channel. A lost notification costs a waiter its time-out, nothing more."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

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


class Notifications:
    """One connection on which listeners hear their channels. A lost connection is made again. Owned: `start` and `close`.

    PostgreSQL wakes each connection that listens to any channel for each notification. So a process has one such connection.
    """

    def __init__(self, database_url: str, *, check_s: float = CHECK_SECONDS) -> None:
        """`check_s`: how often an idle connection is checked."""
        self._database_url = database_url
        self._check_s = check_s
        self._listeners: list[ChannelListener] = []
        self._woken = asyncio.Event()
        """Set when listeners come or go, and when the connection is lost."""
        self._loss: Exception | None = None
        self._hearing = Background("notifications", self._run)
        self.failed = self._hearing.failed
        """Raises when the task that listens has ended before `close`."""

    async def start(self) -> None:
        self._hearing.start()

    async def close(self) -> None:
        await self._hearing.close()

    def join(self, listener: "ChannelListener") -> None:
        self._listeners.append(listener)
        self._woken.set()

    def leave(self, listener: "ChannelListener") -> None:
        if listener in self._listeners:
            self._listeners.remove(listener)
            listener.listening.clear()
            self._woken.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            while not self._listeners:
                self._woken.clear()
                await self._woken.wait()
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("listener_lost", channels=self._channels(), error=str(error))
            except Exception:
                log.exception("listener_failed", channels=self._channels())
            if any(listener.listening.is_set() for listener in self._listeners):
                pause = FIRST_PAUSE_SECONDS
            for listener in self._listeners:
                listener.listening.clear()
                listener.on_loss()
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _channels(self) -> list[str]:
        return sorted({listener.channel for listener in self._listeners})

    async def _listen(self) -> None:
        connection = await pool.connect(self._database_url, role="listener")
        try:
            # The handler gets notifications that arrive beside an answer; `_drain` gets the others.
            connection.add_notify_handler(lambda notify: self._hear(notify.channel, notify.payload))
            heard = set[str]()
            while True:
                self._woken.clear()
                present, wanted = list(self._listeners), set(self._channels())
                with pool.deadline(connection, ANSWER_SECONDS):
                    for channel in wanted - heard:
                        await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
                    for channel in heard - wanted:
                        await connection.execute(SQL("UNLISTEN {}").format(Identifier(channel)))
                    heard = wanted
                    for listener in present:
                        if not listener.listening.is_set():
                            listener.missed()
                        await listener.check(connection)
                    await connection.execute("SELECT 1")
                for listener in present:
                    if listener in self._listeners:
                        listener.listening.set()
                await self._until_woken(connection)
        finally:
            pool.sever(connection)
            await connection.close()

    async def _until_woken(self, connection: pool.Connection) -> None:
        """Hears notifications until listeners come or go, or the connection is to be checked. Raises what ends the connection.

        Nothing but the socket wakes the process; the driver's own `notifies` would wake it ten times a second.
        """
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        self._loss = None
        loop.add_reader(descriptor, self._drain, connection, descriptor)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._check_s):
                    await self._woken.wait()
        finally:
            if self._loss is None:
                loop.remove_reader(descriptor)
        if self._loss is not None:
            raise self._loss

    def _drain(self, connection: pool.Connection, descriptor: int) -> None:
        """Reads what has arrived, and registers the socket anew.

        The event loop ends a registration at an error of the socket, which may come before the server's last words are read. And at
        the end of the connection libpq closes the descriptor, whose number may belong to another connection at once.
        """
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        try:
            connection.pgconn.consume_input()  # raises OperationalError at the end of the connection
            while notify := connection.pgconn.notifies():
                self._hear(notify.relname.decode(), notify.extra.decode())
        except Exception as error:  # noqa: BLE001  # raised where the task waits
            self._loss = error
            self._woken.set()
        else:
            loop.add_reader(descriptor, self._drain, connection, descriptor)

    def _hear(self, channel: str, payload: str) -> None:
        for listener in self._listeners:
            if listener.channel == channel:
                listener.on_notification(payload)


class ChannelListener:
    """Listens to one channel. Owned: `start` and `close`.

    Subclasses say what a notification means (`on_notification`) and what they ask on a connection that listens (`check`).
    """

    def __init__(self, source: str | Notifications, channel: str, *, check_s: float = CHECK_SECONDS) -> None:
        """`source`: the connection that the listeners of a process share, or a URL for a connection of the listener's own.

        `check_s`: how often its own connection is checked.
        """
        self._own = isinstance(source, str)
        self._source = Notifications(source, check_s=check_s) if isinstance(source, str) else source
        self.channel = channel
        self._notified = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while notifications can arrive."""
        self.failed = self._source.failed
        """Raises when the task that listens has ended before `close`."""
        self.matters: Callable[[str], bool] = lambda _: True

    async def start(self) -> None:
        self._source.join(self)
        if self._own:
            await self._source.start()

    async def close(self) -> None:
        self._source.leave(self)
        if self._own:
            await self._source.close()

    async def wait(self, timeout: float) -> None:
        """Returns at a notification that came since the last call, at a new connection, or after the time-out (seconds)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._notified.wait()
        self._notified.clear()

    def on_notification(self, payload: str) -> None:
        if self.matters(payload):
            self._notified.set()

    def missed(self) -> None:
        """LISTEN is in force. Notifications may have been missed before."""
        self._notified.set()

    async def check(self, connection: pool.Connection) -> None:
        """Called when LISTEN is in force, so no event is missed in between, and then whenever the connection is checked."""

    def on_loss(self) -> None:
        """The connection is lost. Notifications are missed from now on."""


@contextlib.asynccontextmanager
async def listening(source: str | Notifications, channel: str) -> AsyncIterator[ChannelListener]:
    """A listener for as long as it is needed. `source`: see `ChannelListener`."""
    listener = ChannelListener(source, channel)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.close()
