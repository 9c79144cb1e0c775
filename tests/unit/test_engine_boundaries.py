"""Boundary cases of the live feed, histories, leases and repeats."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from application.catalog import CATALOG
from application.engine import leases
from application.engine.background import end
from application.engine.commands.loop import CommandLoop
from application.engine.leases import Group, Membership, UnitWorker
from application.engine.ports.leases import Share
from application.engine.ports.pages import decode_cursor, encode_cursor
from application.engine.reading.channels import Batch, Channel, Filter, LiveListener
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.histories import Cursor, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import HistoryReplaced, RepeatedDifferently
from domain.kernel import RecordedEvent
from tests.kit.commands import CountingStore, elsewhere, put
from tests.kit.live import Live, living
from tests.kit.memory import LeaseBoard, ManualClock, MemoryEventFeed, MemoryHistories, MemoryLeases, MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of, turns, until
from tests.pace import within

OTHER = UUID(int=TENANT.int + 1)


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with living() as live:
        yield live


# --- the live feed ----------------------------------------------------------------------------------------------------


async def test_a_replay_ends_where_the_log_has_events_of_others_alone(live: Live) -> None:
    mine = live.append(3)
    live.append(2, tenant=OTHER)
    listening = await live.listen(after=0)
    await listening.has(*mine, *live.append())


async def test_an_event_that_comes_while_the_replay_is_read_comes_once(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, read_tenant = live.append(2), MemoryEventFeed.read_tenant

    async def meanwhile(feed: MemoryEventFeed, *arguments: Any, **options: Any) -> list[RecordedEvent]:
        monkeypatch.undo()
        expected.extend(live.append())
        return await read_tenant(feed, *arguments, **options)

    monkeypatch.setattr(MemoryEventFeed, "read_tenant", meanwhile)
    listening = await live.listen(after=0)
    await until(lambda: len(listening.positions) >= 3)
    await listening.has(*expected, *live.append())


@pytest.mark.parametrize("ahead", [1, 2, 3])
async def test_a_listener_ahead_of_the_feed_waits_for_the_next_event(live: Live, ahead: int) -> None:
    await live.listen()
    live.subscription.away = True
    live.append(ahead)
    listening = await live.listen(after=ahead)
    live.subscription.away = False
    live.log.wake()
    await until(lambda: live.live.position == ahead)
    await turns()
    assert listening.positions == [] and not listening.task.done()
    await listening.has(*live.append())


def events(count: int) -> list[RecordedEvent]:
    live = Live()
    live.append(count)
    return live.log.events


def test_a_channel_gives_each_place_what_is_after_it() -> None:
    channel, (one, two, three, four, five) = Channel(), events(5)
    first = channel.end
    for event in (one, two):
        channel.offer(Batch([event]))
    second = channel.end
    assert channel.after(first) == [one, two] and channel.after(first) is channel.after(first)
    for event in (three, four):
        channel.offer(Batch([event]))
    assert channel.after(second) == [three, four]
    assert channel.after(first) == [one, two, three, four]
    last = channel.end
    channel.offer(Batch([five]))
    assert channel.after(last) == [five]


async def test_a_listener_may_be_woken_whether_it_waits_or_not() -> None:
    channel, [event] = Channel(), events(1)
    listener = LiveListener(channel, 10, 1_000)
    listener.wake()
    for _ in range(2):
        waiting = asyncio.create_task(listener.wait())
        await turns(2)
        assert not waiting.done()
        listener.wake()
        listener.wake()  # before the listener had its turn
        async with within(15):
            await waiting
        listener.wake()
    channel.offer(Batch([event]))
    assert (listener.queued, listener.take(), listener.queued, listener.take()) == (1, [event], 0, [])
    listener.close()


async def test_a_silence_is_a_whole_beat_without_an_event() -> None:
    listener = LiveListener(Channel(), 10, 1_000)
    for began in (False, True):
        if began:
            listener.wake()
        waiting = asyncio.create_task(listener.wait())
        await turns(2)
        listener._beat()
        await turns(2)
        assert not waiting.done(), "it came, or was woken, in the beat that ends here"
        listener._beat()
        async with within(15):
            await waiting
    listener.close()


def test_data_of_our_own_topics_is_not_looked_at() -> None:
    [event] = events(1)
    odd = event._replace(state=b'{"a": 1}{')
    assert b'"data":{"a": 1}{}' in CloudEventEncoder({"a"}).encode(odd)
    assert b'"data_base64"' in CloudEventEncoder({"b"}).encode(odd)


# --- histories --------------------------------------------------------------------------------------------------------


class Kept:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.live = Live()
        self.live.log.clock = self.clock
        self.store = MemoryHistories(self.live.log)
        self.keeper = HistoryKeeper(self.store)

    @property
    def begun(self) -> list[tuple[str, int]]:
        return [(each.cause, each.last_common) for each in self.store.all[1:]]


@pytest.fixture
def kept() -> Kept:
    return Kept()


async def test_a_cursor_of_a_later_history_proves_a_loss_too(kept: Kept) -> None:
    kept.live.append(5)
    _, second = await kept.keeper.restored("a test", 5)
    cursor = Cursor.parse(second.cursor(5))
    kept.live.log.cut(3)
    with pytest.raises(HistoryReplaced):
        await kept.keeper.admit(cursor)
    assert [cause for cause, _ in kept.begun] == ["restored", "reader"]


async def test_a_history_that_is_back_was_not_lost(kept: Kept) -> None:
    """A wrong backup was restored for a moment."""
    kept.live.append(2)
    await kept.keeper.restored("a test", 2)
    with_it = list(kept.store.all)
    kept.store.all = with_it[:1]
    await kept.keeper.fresh()
    kept.store.all = list(with_it)
    await kept.keeper.check()
    assert kept.store.all == with_it


async def test_a_mark_of_a_server_that_this_process_does_not_know_is_not_certain(kept: Kept) -> None:
    kept.live.append(5)
    await HistoryKeeper(kept.store).check()
    kept.keeper.saw(5, kept.keeper.changes)
    kept.live.log.cut(4)
    await kept.keeper.check()
    assert kept.begun == [("reader", 0)]


async def test_nor_is_a_mark_of_a_later_start(kept: Kept) -> None:
    kept.live.append(3)
    await kept.keeper.check()
    kept.clock.advance(60)
    kept.store.restart()
    kept.live.append(2)
    await HistoryKeeper(kept.store).check()
    kept.keeper.saw(5, kept.keeper.changes)
    kept.live.log.cut(4)
    await kept.keeper.check()
    assert kept.begun == [("reader", 0)]


# --- leases -----------------------------------------------------------------------------------------------------------


async def never(units: frozenset[str]) -> None:
    await asyncio.Event().wait()


async def test_a_goodbye_that_is_not_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_TIMEOUT_S", 0.01)

    class Silent(MemoryLeases):
        async def leave(self) -> None:
            await asyncio.Event().wait()

    membership = Membership(Silent(LeaseBoard(ManualClock()), lease_s=leases.LEASE_S), [Group("things", ("a",), never)])
    task = asyncio.create_task(membership.run())
    await until(membership.joined.is_set)
    async with within(15):
        task.cancel()
        await asyncio.wait({task})


async def test_a_worker_leaves_no_task_behind() -> None:
    worker = UnitWorker(Group("things", ("a", "b"), never), asyncio.Event())
    before = asyncio.all_tasks()
    running = asyncio.create_task(worker.run())
    for units in (("a",), ("a", "b"), ("b",)):
        worker.take(Share(len(units), frozenset(units)))
        await turns()
        assert len(asyncio.all_tasks() - before) == 3, "the worker, its work, and its wait for other units"
    await end(running)
    assert asyncio.all_tasks() == before


# --- repeats and cursors ----------------------------------------------------------------------------------------------


async def test_a_repeat_that_says_something_else_is_refused_as_such() -> None:
    """The repeat is refused also when the rules refuse the other command for another reason."""
    log = MemoryLog()
    loop, stream, request = CommandLoop(CountingStore(log), CATALOG), new_id(), request_of(repeatable=True)
    await loop.execute(request, put(stream, 1).model_copy(update={"expect": 0}))
    for process in (loop, elsewhere(log)):
        with pytest.raises(RepeatedDifferently, match="another value"):
            await process.execute(request, put(stream, 2).model_copy(update={"expect": 0}))
    assert log.head == 1


@pytest.mark.parametrize(("text", "cursor"), [("abW", "YWJX"), ("aX", "YVg"), ("X", "WA")])
def test_a_cursor_loses_its_padding_and_nothing_else(text: str, cursor: str) -> None:
    assert encode_cursor(text) == cursor and decode_cursor(cursor) == text


async def test_a_reader_of_an_ended_history_is_told_so(live: Live) -> None:
    live.append(2)
    history = await live.history()
    await live.listen()
    await live.histories.restored("a test", 1)
    await until(lambda: live.live.listeners == 0)
    with pytest.raises(HistoryEnded):
        async with within(15):
            await anext(aiter(live.live.events(Filter(TENANT), after=None, history=history)))
