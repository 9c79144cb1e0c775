"""The newest position of the log that this process has heard of, and who waits for a newer one."""

import asyncio
from contextlib import suppress

CHANNEL = "tidelog_log"
"""Each append notifies this channel. The payload is the new head."""
HEAD_SQL = "SELECT coalesce(max(notification_id), 0) FROM event"
POLL_SECONDS = 5.0
"""Longest sleep of a waiter, in seconds. A notification may be lost, so a waiter looks again after this time."""
FIRST_POLL_SECONDS = 0.1
"""First sleep while no connection listens; it doubles up to `poll_s`."""


class Head:
    """Moved by a listener, which also says whether notifications can arrive at present."""

    def __init__(self, *, poll_s: float = POLL_SECONDS) -> None:
        """`poll_s`: the longest sleep of a waiter."""
        self.position = 0
        self.listening = asyncio.Event()
        """Set while notifications can arrive."""
        self._poll_s = poll_s
        self._poll_seconds = FIRST_POLL_SECONDS
        self._moved = asyncio.Event()
        self._hurried = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        """Lets more come before the log is read: some seconds, unless somebody is in a hurry."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        self._hurried.clear()

    def hurry(self) -> None:
        """Somebody waits for what was appended. Ends a pause."""
        self._hurried.set()

    async def wait(self, after: int, timeout: float) -> None:
        """Returns when there may be events after a position, at the latest after `timeout` seconds or `poll_s`.

        The caller reads the log and comes back, so it need not know the reason.
        """
        patience = self._poll_s if self.listening.is_set() else self._poll_seconds
        try:
            async with asyncio.timeout(min(timeout, patience)):
                while not self._is_beyond(after):
                    await self._moved.wait()
        except TimeoutError:
            if not self.listening.is_set():
                self._poll_seconds = min(self._poll_seconds * 2, self._poll_s)

    def _is_beyond(self, after: int) -> bool:
        return self.position > after

    def set(self, position: int) -> None:
        """The database's own answer. It counts even if the head went back (a restored backup): else every wait would return at
        once."""
        self.position = min(self.position, position)
        self.move(position)

    def move(self, position: int) -> None:
        if position > self.position:
            self.position = position
            self.wake()

    def wake(self) -> None:
        """Lets all waiters look again."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def lost(self) -> None:
        """Notifications are missed from now on: waiters look by the clock, often at first."""
        self.listening.clear()
        self._poll_seconds = FIRST_POLL_SECONDS
