"""Wakes waiters for new events: by NOTIFY while that works, else by the clock."""

from adapters.postgres import pool
from adapters.postgres.listener import CHECK_SECONDS, ChannelListener, Notifications
from adapters.postgres.log.head import CHANNEL, HEAD_SQL, POLL_SECONDS, Head


class AppendSignal:
    """Knows the newest position that a notification named. Owned: `start` and `close`."""

    def __init__(self, source: str | Notifications, *, poll_s: float = POLL_SECONDS, check_s: float = CHECK_SECONDS) -> None:
        """`poll_s`: the longest sleep of a waiter. `source`, `check_s`: see `ChannelListener`; the check asks for the head."""
        head = Head(poll_s=poll_s)
        self._listener = _HeadListener(source, head, check_s)
        self.wait, self.pause = head.wait, head.pause
        self.listening = head.listening
        """Set while notifications can arrive."""
        self.failed = self._listener.failed
        """Raises when the task that listens has ended before `close`."""

    async def start(self) -> None:
        await self._listener.start()

    async def close(self) -> None:
        await self._listener.close()


class _HeadListener(ChannelListener):
    """Follows the head of the log."""

    def __init__(self, source: str | Notifications, head: Head, check_s: float) -> None:
        super().__init__(source, CHANNEL, check_s=check_s)
        self._head = head
        self.listening = head.listening

    def on_notification(self, payload: str) -> None:
        self._head.move(int(payload))

    def on_loss(self) -> None:
        self._head.lost()

    async def check(self, connection: pool.Connection) -> None:
        row = await (await connection.execute(HEAD_SQL)).fetchone()
        if row is not None:
            self._head.set(row[0])
