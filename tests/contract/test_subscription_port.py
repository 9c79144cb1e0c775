"""The contract of the port `Subscription`, in memory, on JetStream, and shared by the readers of a process over both.

A relay copies the log to JetStream.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.nats import JetStreamSubscription, NatsConnection
from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, Subscription, one_command
from application.engine.reading.histories import HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.shared import SharedSubscription
from domain.kernel import RecordedEvent
from tests.integration.nats_kit import LOG, Log, NatsProcess, connected, keeper, open_log, relay, running
from tests.kit.memory import MemoryEventStore, MemoryHistories, MemoryLog, MemorySubscription
from tests.pace import within

TENANT = uuid7()


class SubscriptionSide(Protocol):
    subscription: Subscription

    async def append(self, count: int) -> None: ...

    async def everything(self) -> list[RecordedEvent]: ...

    async def cut(self) -> None:
        """The source of the live log is away within this block. Events that are appended meanwhile are kept."""
        ...

    async def mend(self) -> None: ...

    async def end_history(self) -> None:
        """Begins a new history of the log, and tells this process."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.store = MemoryEventStore(self.log)
        self.histories = HistoryKeeper(MemoryHistories(self.log))
        self.subscription: Subscription
        self.subscription = self._source = MemorySubscription(self.log, self.histories, page=7)

    async def append(self, count: int) -> None:
        for _ in range(count):
            stream = uuid7()
            append = StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b"{}"),))
            await self.store.append(one_command(TENANT, uuid7(), (append,), "{}"))

    async def everything(self) -> list[RecordedEvent]:
        return list(self.log.events)

    async def cut(self) -> None:
        self._source.away = True

    async def mend(self) -> None:
        self._source.away = False
        self.log.wake()

    async def end_history(self) -> None:
        await self.histories.fresh()
        await self.histories.restored("a test", 0)


@pytest.fixture
def memory_side() -> MemorySide:
    return MemorySide()


class NatsSide:
    def __init__(self, log: Log, connection: NatsConnection, server: NatsProcess) -> None:
        self.server = server
        self.histories = keeper(connection, log)
        self.subscription: Subscription = JetStreamSubscription(connection, log.feed, histories=self.histories, log_id=LOG)
        self.append = log.append
        self.everything = log.everything

    async def cut(self) -> None:
        await self.server.kill()

    async def mend(self) -> None:
        await self.server.start()

    async def end_history(self) -> None:
        await self.histories.fresh()
        await self.histories.restored("a test", 0)


@pytest_asyncio.fixture
async def nats_side(nats: NatsProcess, database_url: str) -> AsyncIterator[NatsSide]:
    async with open_log(database_url) as log, connected(nats.url) as connection, running(relay(connection, log).run()):
        yield NatsSide(log, connection, nats)


@pytest.fixture(params=["memory", "memory, shared", "nats", "nats, shared"])
def side(request: pytest.FixtureRequest) -> SubscriptionSide:
    source, _, shared = request.param.partition(", ")
    found: MemorySide | NatsSide = request.getfixturevalue(f"{source}_side")
    if shared:
        found.subscription = SharedSubscription(found.subscription, found.histories)
    return found


class Reader:
    """Reads from a position on and keeps every event."""

    def __init__(self, side: SubscriptionSide, after: int) -> None:
        self._side, self.after = side, after
        self.events: list[RecordedEvent] = []
        self._moved = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with contextlib.aclosing(self._side.subscription.batches(after=self.after, name="test.reader")) as batches:
            async for batch in batches:
                assert batch, "an empty batch"
                self.events += batch
                self._moved.set()

    async def reach(self, position: int) -> None:
        async with within(15):
            while (self.events[-1].position if self.events else self.after) < position:
                assert not self.task.done(), self.task
                self._moved.clear()
                await self._moved.wait()

    async def check(self) -> None:
        """Checks that every event after the start came once, in order, byte for byte."""
        assert self.events == [event for event in await self._side.everything() if event.position > self.after]
        assert not self.task.done(), "it never ends by itself"


@contextlib.asynccontextmanager
async def readers(side: SubscriptionSide, *afters: int) -> AsyncIterator[list[Reader]]:
    started = [Reader(side, after) for after in afters]
    try:
        yield started
    finally:
        await end(*(reader.task for reader in started))


async def test_from_any_position_every_event_once_and_in_order(side: SubscriptionSide) -> None:
    """A reader gets the events of before and the events that come meanwhile, without a gap or a double."""
    await side.append(60)
    async with readers(side, 0, 1, 29, 59, 60) as reading:
        for reader in reading:
            await reader.reach(60)
        await side.append(40)
        for reader in reading:
            await reader.reach(100)
            await reader.check()


async def test_an_empty_log_is_waited_for(side: SubscriptionSide) -> None:
    async with readers(side, 0) as [reader]:
        await asyncio.sleep(0)
        assert reader.events == [] and not reader.task.done()
        await side.append(1)
        await reader.reach(1)
        await reader.check()


async def test_readers_do_not_disturb_one_another(side: SubscriptionSide) -> None:
    await side.append(20)
    async with readers(side, 0, 0) as [one, other]:
        await one.reach(20)
        await end(one.task)
        await side.append(10)
        await other.reach(30)
        await other.check()


async def test_an_outage_is_waited_out(side: SubscriptionSide) -> None:
    await side.append(10)
    async with readers(side, 0) as [reader]:
        await reader.reach(10)
        await side.cut()
        await asyncio.sleep(0)
        await side.append(10)
        await side.mend()
        await reader.reach(20)
        await side.append(5)
        await reader.reach(25)
        await reader.check()


async def test_a_reader_whose_history_ended_is_told(side: SubscriptionSide) -> None:
    await side.append(10)
    async with readers(side, 0) as [reader]:
        await reader.reach(10)
        await side.end_history()
        with pytest.raises(HistoryEnded):
            async with within(15):
                await asyncio.shield(reader.task)
    async with readers(side, 3) as [again]:
        await again.reach(10)
        await again.check()
