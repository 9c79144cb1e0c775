"""A live feed on an in-memory log, and listeners whose pace the test sets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading.channels import Batch, Filter
from application.engine.reading.histories import History
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from tests.kit.memory import MemoryEventFeed, MemoryHistories, MemoryLog, MemorySubscription
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within

OTHER = new_id()


class Live:
    """A running live feed on a log that the test writes."""

    def __init__(self, **limits: Any) -> None:
        self.log = MemoryLog()
        self.feed = MemoryEventFeed(self.log)
        self.histories = HistoryKeeper(MemoryHistories(self.log))
        self.subscription = MemorySubscription(self.log, self.histories)
        self.live = LiveFeed(self.feed, self.subscription, self.histories, **limits)
        self.listening: list[Listening] = []

    def append(self, count: int = 1, *, topic: str = "a", root: UUID | None = None, tenant: UUID = TENANT) -> list[int]:
        """Appends a new stream. Returns the positions of its events."""
        stream = new_id()
        append = StreamAppend(stream, root or stream, 0, tuple(NewEvent(topic, 1, b"{}") for _ in range(count)))
        result = self.log.add(one_command(tenant, new_id(), (append,), "{}"))
        return list(range(result.last_position - count + 1, result.last_position + 1))

    async def history(self) -> History:
        return (await self.histories.fresh()).histories.current

    async def listen(self, wanted: Filter | None = None, *, after: int | None = None) -> "Listening":
        """A listener that has joined."""
        listening = Listening(self, wanted or Filter(TENANT), after, await self.history())
        await listening.joined()
        return listening


class Listening:
    """Takes the next events, unless the listener is held."""

    def __init__(self, live: Live, wanted: Filter, after: int | None, history: History) -> None:
        self.batches: list[Batch] = []
        self.free = asyncio.Event()
        self.free.set()
        self._live, self._wanted, self._after, self._history = live, wanted, after, history
        self._before = live.live.listeners
        self.task = asyncio.create_task(self._run())
        live.listening.append(self)

    async def _run(self) -> None:
        events = self._live.live.events(self._wanted, after=self._after, history=self._history)
        async with aclosing(events):
            async for batch in events:
                self.batches.append(batch)
                await self.free.wait()

    async def joined(self) -> None:
        await until(lambda: self._live.live.listeners > self._before or self.task.done(), "a listener more")
        await turns(3)

    @property
    def positions(self) -> list[int]:
        return [event.position for batch in self.batches for event in batch]

    async def has(self, *positions: int) -> None:
        await until(lambda: self.positions == list(positions) or len(self.positions) > len(positions), f"{positions}")
        assert self.positions == list(positions)

    async def raised(self) -> BaseException | None:
        async with within(15):
            await asyncio.wait({self.task})
        return self.task.exception()


@asynccontextmanager
async def living(**limits: Any) -> AsyncIterator[Live]:
    live = Live(**limits)
    task = asyncio.create_task(live.live.run())
    try:
        yield live
    finally:
        await end(task, *(each.task for each in live.listening))
