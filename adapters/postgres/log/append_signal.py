"""Wakes waiters for new events: by NOTIFY while that works, else by the clock."""

import asyncio

from adapters.postgres import pool
from adapters.postgres.listener import CHECK_SECONDS, ChannelListener, Notifications
from adapters.postgres.log.feed import HEAD_SQL

CHANNEL = "tidelog_log"
POLL_SECONDS = 5.0
"""Longest sleep of a waiter, in seconds. A notification may be lost, so a waiter looks again after this time."""
FIRST_POLL_SECONDS = 0.1
"""First sleep while no connection listens; it doubles up to `poll_s`."""


class AppendSignal:
    """Knows the newest position that a notification named. Owned: `start` and `close`."""

    def __init__(self, source: str | Notifications, *, poll_s: float = POLL_SECONDS, check_s: float = CHECK_SECONDS) -> None:
        """`poll_s`: the longest sleep of a waiter. `source`, `check_s`: see `ChannelListener`; the check asks for the head."""
        self._poll_s = poll_s
        self._listener = _HeadListener(source, check_s)
        self.listening = self._listener.listening
        """Set while notifications can arrive."""
        self.failed = self._listener.failed
        """Raises when the task that listens has ended before `close`."""

    async def start(self) -> None:
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()

    async def wait(self, after: int, timeout: float) -> None:
        """Returns when there may be events after a position, at the latest after `timeout` seconds or `poll_s`.

        The caller reads the log and comes back, so it need not know the reason.
        """
        listener = self._listener
        patience = self._poll_s if self.listening.is_set() else listener.poll_seconds
        try:
            async with asyncio.timeout(min(timeout, patience)):
                while listener.head <= after:
                    await listener.moved.wait()
        except TimeoutError:
            if not self.listening.is_set():
                listener.poll_seconds = min(listener.poll_seconds * 2, self._poll_s)


class _HeadListener(ChannelListener):
    """Follows the head of the log. The payload of a notification is the new head."""

    def __init__(self, source: str | Notifications, check_s: float) -> None:
        super().__init__(source, CHANNEL, check_s=check_s)
        self.head = 0
        self.moved = asyncio.Event()
        self.poll_seconds = FIRST_POLL_SECONDS

    def on_notification(self, payload: str) -> None:
        self._move(int(payload))

    def on_loss(self) -> None:
        self.poll_seconds = FIRST_POLL_SECONDS

    async def check(self, connection: pool.Connection) -> None:
        row = await (await connection.execute(HEAD_SQL)).fetchone()
        if row is not None:
            # The database's answer counts, even if the head went back (a restored backup). Otherwise every wait would return at
            # once.
            self.head = min(self.head, row[0])
            self._move(row[0])

    def _move(self, head: int) -> None:
        if head > self.head:
            self.head = head
            moved, self.moved = self.moved, asyncio.Event()
            moved.set()
