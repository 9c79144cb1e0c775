"""A bounded queue before a reader of the log for whom much at once is cheaper than little: events wait there for company.

After a quiet time the first events linger for a moment, because one event is seldom alone, unless one of them is urgent. The next
ones wait until the pace has passed. None waits when many have come, or when somebody waits for the position of one of them. Under
load the pace becomes slower, as the reader does. Nothing is polled, and an idle reader has no timer.

A reader of several consumers can ask for early batches: when somebody waits for a position, the reader is shown the events before
their time, for the consumers that are asked for alone. The events stay, and come again in their batch for the other consumers.

A reader that has left something for later says until when (`rest_at`). A batch comes then at the latest, if need be an empty one.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

from application.engine.asked import AskedPositions
from application.engine.background import TaskEnded, end
from domain.kernel import RecordedEvent

MOST_EVENTS = 1_000
MOST_BYTES = 1024 * 1024
"""Events wait for no more company when so many have come. The source is read ahead so far, unless a reader wants more."""
SHARE = 4
SLOWEST_S = 0.25
"""A reader that took long over a batch waits so many times as long before the next one, but at most so many seconds for that."""


class Gathering:
    """The events of a source in order, as batches of what has gathered.

    An empty batch means that somebody waits for the position of an event that was given out, or that the time `rest_at` has come.
    """

    def __init__(
        self,
        asked: AskedPositions,
        *,
        pace_s: float = 0.0,
        linger_s: float = 0.0,
        hurries: Callable[[RecordedEvent], bool] = lambda _: False,
        early: bool = False,
        ahead: int = 1,
    ) -> None:
        """`pace_s`: the least time between two batches that nobody waits for. `linger_s`: how long the first event of a batch waits
        at most. `hurries`: whether an event ends that wait. `early`: whether who waits for a position gets an early batch.
        `ahead`: the source is read so many full batches ahead while the reader works, and the reader then gets them as one.
        """
        self._ahead = ahead
        self._gives_early = early
        self.is_early = False
        """Whether the last batch was an early one: its events come again."""
        self.rest_at: float | None = None
        """When a batch is wanted at the latest, by the clock of the loop, also an empty one. Said anew after each batch."""
        self._asked = asked
        self._pace_s = pace_s
        self._linger_s = linger_s
        self._hurries = hurries
        self._loop = asyncio.get_running_loop()
        self._events: list[RecordedEvent] = []
        self._bytes = 0
        self._position = 0
        """Position of the last event that the source has given."""
        self._due = -1.0
        """When the pace has passed."""
        self._lingers_until = -1.0
        self._given_at: float | None = None
        """When the batch was given that the reader works on."""
        self._room = asyncio.Event()
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = -1.0
        """The time for which the timer is set. uvloop gives out a handle that does not know, if the time has nearly come."""
        self._ended: tuple[BaseException | None] | None = None

    @asynccontextmanager
    async def of(self, source: AsyncGenerator[Sequence[RecordedEvent], None]) -> AsyncIterator[Self]:
        """Reads the source for the time of the block, and closes it."""
        self._asked.on_question = self._look
        async with aclosing(source):
            tasks = (asyncio.create_task(self._read(source)), asyncio.create_task(self._asked.listen()))
            for task in tasks:
                task.add_done_callback(self._on_end)
            try:
                yield self
            finally:
                await end(*tasks)
                self._disarm()

    async def _read(self, source: AsyncGenerator[Sequence[RecordedEvent], None]) -> None:
        async for batch in source:
            if self._linger_s:
                if not self._events:
                    self._lingers_until = self._loop.time() + self._linger_s
                if any(map(self._hurries, batch)):
                    self._lingers_until = -1.0
            self._events.extend(batch)
            self._bytes += sum(len(event.state) for event in batch)
            self._position = batch[-1].position
            self._look()
            while self._is_full(self._ahead):
                self._room.clear()
                await self._room.wait()

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        """What ended the task is raised where the events are taken. A source may end by itself."""
        self._ended = (TaskEnded.of(task, "a reader of the log") if task.cancelled() else task.exception(),)
        self._look()

    def _is_full(self, times: int = 1) -> bool:
        return len(self._events) >= MOST_EVENTS * times or self._bytes >= MOST_BYTES * times

    def _due_at(self) -> float | None:
        """When the next batch is due; None: not before something comes."""
        return 0.0 if self._asked.lowest <= self._position else self._regularly_due_at()

    def _regularly_due_at(self) -> float | None:
        """The same if nobody waits for a position."""
        if self._ended is not None or self._is_full():
            return 0.0
        rest = math.inf if self.rest_at is None else self.rest_at
        due = min(rest, max(self._due, self._lingers_until) if self._events else math.inf)
        return None if due == math.inf else due

    def _is_before_its_time(self) -> bool:
        due = self._regularly_due_at()
        return due is not None and due > self._loop.time()

    def _look(self) -> None:
        """Wakes who waits for a batch, now or when it is due."""
        if self._waiting is None or self._waiting.done():
            return
        due = self._due_at()
        if due is not None and due <= self._loop.time():
            self._waiting.set_result(None)
        elif due is None:
            self._disarm()
        elif self._timer is None or self._timer_at != due:
            self._disarm()
            self._timer, self._timer_at = self._loop.call_at(due, self._on_time), due

    def _on_time(self) -> None:
        self._timer = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[RecordedEvent]:
        """Raises what the source raises."""
        if self._pace_s and self._given_at is not None:
            took = self._loop.time() - self._given_at
            self._due, self._given_at = self._given_at + max(self._pace_s, min(took * SHARE, SLOWEST_S)), None
        due = self._due_at()
        if due is None or due > self._loop.time():
            self._waiting = self._loop.create_future()
            try:
                self._look()
                await self._waiting
            finally:
                self._waiting = None
                self._disarm()
        if self._ended is not None and (self._ended[0] is not None or not self._events):
            raise self._ended[0] or StopAsyncIteration
        asked = self._asked.lowest <= self._position
        self.is_early = self._gives_early and asked and bool(self._events) and self._is_before_its_time()
        self.rest_at = None
        if self.is_early:
            return list(self._events)
        events, self._events, self._bytes = self._events, [], 0
        self._room.set()
        if events:
            self._given_at = self._loop.time()
        else:
            await asyncio.sleep(0)  # a reader that cannot move to where it is wanted must not stop all other tasks
        return events
