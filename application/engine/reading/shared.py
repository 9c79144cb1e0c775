"""One reader of the log for all readers of a process (`SharedSubscription`), each with a bounded queue.

The common reader keeps the pace of the fastest reader. A reader whose queue is full is slow: it reads by itself from there on, and
so does a reader that is far behind the common one. Each comes back when it is near the common reader again. So no reader ever
waits for another one.

A newcomer that is far ahead begins a common reader there, and the present one's readers read by themselves until they are near.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog

from application.engine.background import TaskEnded, end
from application.engine.ports.log import Subscription
from application.engine.reading.history_keeper import HistoryKeeper
from domain.kernel import RecordedEvent

log = structlog.get_logger(__name__)

QUEUE_EVENTS = 5_000
QUEUE_BYTES = 8 * 1024 * 1024
"""What may wait for a reader that is slower than the others. With more, it reads by itself. A batch of the database has 4 MiB."""
AHEAD_EVENTS = 1_000
AHEAD_BYTES = 1024 * 1024
"""What may wait for the fastest reader. With more, the common reader stops for it."""
NEAR_EVENTS = 500
NEAR_BYTES = 512 * 1024
"""The newest events are kept for readers that join. A reader ahead of the common one is near within as many positions."""
FIRST_ALONE_S, LONGEST_ALONE_S = 1.0, 60.0
"""Seconds for which a slow reader reads by itself at least, doubled each time that it was slow soon after it had come back."""

Batch = Sequence[RecordedEvent]


class SharedSubscription:
    """Implements the port `Subscription` over another one, which it reads once as long as its readers keep up."""

    def __init__(
        self,
        source: Subscription,
        histories: HistoryKeeper,
        *,
        first_alone_s: float = FIRST_ALONE_S,
        degraded: Callable[[], bool] = lambda: False,
    ) -> None:
        self.degraded = degraded
        """Whether what the source brings may come late."""
        self._source = source
        self._histories = histories
        self._first_alone_s = first_alone_s
        self._common: _Common | None = None

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Batch, None]:
        """See the port. A reader gets the batches of the source, and may share them with other readers."""
        clock = asyncio.get_running_loop().time
        changes, position = self._histories.changes, after
        alone_s, alone_until = self._first_alone_s / 2, clock()
        while True:
            self._histories.check_unchanged(changes)
            if clock() < alone_until or not self._is_near(position):
                async with aclosing(self._source.batches(after=position, name=name)) as own:
                    async for batch in own:
                        position = batch[-1].position
                        yield batch
                        if clock() >= alone_until and self._is_near(position):
                            break
            log.info("reader_joins_others", reader=name, position=position)
            joined_at = clock()
            async with aclosing(self._together(position, changes)) as common:
                async for batch in common:
                    position = batch[-1].position
                    yield batch
            log.info("reader_leaves_others", reader=name, position=position)
            now = clock()
            alone_s = self._first_alone_s if now - joined_at > LONGEST_ALONE_S else min(alone_s * 2, LONGEST_ALONE_S)
            alone_until = now + alone_s

    def _is_near(self, position: int) -> bool:
        """Whether a reader at a position reads with the others. If it is far ahead of them, their reader begins anew there."""
        common = self._present()
        return common is None or position >= common.kept_from

    def _present(self) -> "_Common | None":
        """The common reader, if it reads the present history and has not ended."""
        common = self._common
        return common if common is not None and common.changes == self._histories.changes and common.ended is None else None

    async def _together(self, position: int, changes: int) -> AsyncGenerator[Batch, None]:
        """Batches of the common reader. Ends when the reader was too slow for it. Raises what ended the common reader."""
        common = self._present()
        if common is None or position > common.position + NEAR_EVENTS:
            if self._common is not None:
                self._common.leave_all()
            self._common = common = _Common(self._source, self._histories, position)
        follower = common.join(position)
        try:
            with self._histories.on_change(follower.wake):
                while True:
                    self._histories.check_unchanged(changes)
                    if follower.queue:
                        yield follower.take()
                    elif follower.left:
                        return
                    elif common.ended is not None:
                        raise common.ended
                    else:
                        await follower.wait()
        finally:
            if not common.leave(follower):
                if self._common is common:
                    self._common = None
                await end(common.task)


def size_of(batch: Batch) -> int:
    """Bytes of a batch."""
    return sum(len(event.state) + len(event.metadata) for event in batch)


@dataclass(eq=False, slots=True)
class _Follower:
    """A reader's place at the common reader: its queue, and the position of the last event that the queue has had."""

    position: int
    on_room: Callable[[], None]
    queue: deque[tuple[Batch, int]] = field(default_factory=deque)
    """Batches, each with its bytes."""
    events: int = 0
    bytes: int = 0
    left: bool = False
    """Gets no further batches."""
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, batch: Batch, size: int) -> None:
        """Takes what follows its position, or leaves if there is no room. A single batch always has room."""
        if self.left or batch[-1].position <= self.position:
            return
        if batch[0].position <= self.position:
            batch = [event for event in batch if event.position > self.position]
            size = size_of(batch)
        if self.queue and self.holds(QUEUE_EVENTS - len(batch), QUEUE_BYTES - size):
            self.left = True
        else:
            self.position = batch[-1].position
            self.queue.append((batch, size))
            self.events += len(batch)
            self.bytes += size
        self.wake()

    def holds(self, events: int, bytes: int) -> bool:
        """Whether more than so much waits."""
        return self.events > events or self.bytes > bytes

    def take(self) -> Batch:
        batch, size = self.queue.popleft()
        self.events -= len(batch)
        self.bytes -= size
        self.on_room()
        return batch

    def wake(self) -> None:
        self._woken.set()

    async def wait(self) -> None:
        self._woken.clear()
        await self._woken.wait()


class _Common:
    """The common reader. It ends when its last follower leaves."""

    def __init__(self, source: Subscription, histories: HistoryKeeper, position: int) -> None:
        self.changes = histories.changes
        """Value of `HistoryKeeper.changes` at the beginning."""
        self.position = position
        """Position of the last event that was given out."""
        self.kept_from = position
        """The events after this position are kept."""
        self.ended: BaseException | None = None
        self._source = source
        self._histories = histories
        self._kept: deque[tuple[Batch, int]] = deque()
        self._kept_events = self._kept_bytes = 0
        self._followers: list[_Follower] = []
        self._room = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="log-reader")
        self.task.add_done_callback(self._on_end)

    def join(self, position: int) -> _Follower:
        """A follower that gets the events after a position, which is not before `kept_from`."""
        follower = _Follower(position, self._room.set)
        for batch, size in self._kept:
            follower.offer(batch, size)
        self._followers.append(follower)
        self._room.set()
        return follower

    def leave(self, follower: _Follower) -> bool:
        """Whether others are left."""
        if follower in self._followers:
            self._followers.remove(follower)
        self._room.set()
        return bool(self._followers)

    def leave_all(self) -> None:
        """Makes all followers read by themselves."""
        for follower in self._followers:
            follower.left = True
            follower.wake()

    async def _run(self) -> None:
        self._histories.check_unchanged(self.changes)
        async with aclosing(self._source.batches(after=self.position, name="readers")) as batches:
            async for batch in batches:
                self._give(batch)
                while self._followers and all(follower.holds(AHEAD_EVENTS, AHEAD_BYTES) for follower in self._followers):
                    self._room.clear()
                    await self._room.wait()

    def _give(self, batch: Batch) -> None:
        size = size_of(batch)
        self.position = batch[-1].position
        for follower in self._followers:
            follower.offer(batch, size)
        self._followers = [follower for follower in self._followers if not follower.left]
        self._kept.append((batch, size))
        self._kept_events += len(batch)
        self._kept_bytes += size
        while self._kept_events > NEAR_EVENTS or self._kept_bytes > NEAR_BYTES:
            batch, size = self._kept.popleft()
            self.kept_from = batch[-1].position
            self._kept_events -= len(batch)
            self._kept_bytes -= size

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """What ended the reader is raised where its batches are taken."""
        error = TaskEnded.of(task, "the reader of the log") if task.cancelled() else task.exception()
        self.ended = error or TaskEnded.of(task, "the reader of the log")
        for follower in self._followers:
            follower.wake()
