"""The live feed over a log in memory: the seam between replay and live, overflow, a history that ends, and whose turn it is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from application.engine.background import end
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend
from application.engine.reading import live as reading
from application.engine.reading.channels import Batch, Filter, TooSlow
from application.engine.reading.histories import History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.engine.reading.watches import Watch
from tests.kit.memory import MemoryEventFeed, MemoryHistories, MemoryLog, MemorySubscription
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within

OTHER = new_id()


class Live:
    """A live feed that runs, on a log that the test writes."""

    def __init__(self, **limits: Any) -> None:
        self.log = MemoryLog()
        self.feed = MemoryEventFeed(self.log)
        self.histories = HistoryKeeper(MemoryHistories(self.log))
        self.subscription = MemorySubscription(self.log, self.histories)
        self.live = LiveFeed(self.feed, self.subscription, self.histories, **limits)
        self.listening: list[Listening] = []

    def append(self, count: int = 1, *, topic: str = "a", root: UUID | None = None, tenant: UUID = TENANT) -> list[int]:
        """One append of a new stream; its positions."""
        stream = new_id()
        append = StreamAppend(stream, root or stream, 0, tuple(NewEvent(topic, 1, b"{}") for _ in range(count)))
        result = self.log.add(AppendRequest(tenant, new_id(), (append,), "{}"))
        return list(range(result.last_position - count + 1, result.last_position + 1))

    async def history(self) -> History:
        return (await self.histories.fresh()).histories.current

    async def listen(self, wanted: Filter | None = None, *, after: int | None = None) -> "Listening":
        """A listener that has joined."""
        listening = Listening(self, wanted or Filter(TENANT), after, await self.history())
        await listening.joined()
        return listening


class Listening:
    """Takes what comes, unless it is held."""

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


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with living() as live:
        yield live


# --- the seam -------------------------------------------------------------------------------------------------------------


async def test_from_now_on_means_from_now_on(live: Live) -> None:
    live.append(3)
    listening = await live.listen()
    await listening.has(*live.append(2))


async def test_what_was_before_comes_first_and_then_what_is_live(live: Live) -> None:
    before = live.append(3)
    listening = await live.listen(after=0)
    await listening.has(*before, *live.append(2))


@pytest.mark.parametrize("after", range(6))
async def test_a_listener_goes_on_from_where_it_was(live: Live, after: int) -> None:
    live.append(5)
    listening = await live.listen(after=after)
    await turns()
    last = live.append()
    await listening.has(*range(after + 1, 6), *last)


async def test_replay_is_read_in_pages(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 3)
    expected = [position for _ in range(4) for position in live.append(2)]  # two pages and a short one
    listening = await live.listen(after=0)
    await listening.has(*expected)
    assert [len(batch) for batch in listening.batches] == [3, 3, 2]


async def test_a_replay_that_ends_with_a_full_page_ends(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 3)
    expected = live.append(6)
    listening = await live.listen(after=0)
    await listening.has(*expected, *live.append())


async def test_events_during_the_replay_are_neither_lost_nor_doubled(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 2)
    expected = live.append(6)
    history = await live.history()
    events = live.live.events(Filter(TENANT), after=0, history=history)
    positions: list[int] = []
    async with aclosing(events):
        async for batch in events:
            positions += [event.position for event in batch]
            if len(positions) < 12:
                expected += live.append()
                await turns(5)
            if positions == expected and len(positions) >= 12:
                break
    assert positions == expected == list(range(1, len(expected) + 1))


async def test_a_listener_ahead_of_the_feed_is_given_nothing_twice(live: Live) -> None:
    """It was told a position by another process, which this one has not read up to yet."""
    await live.listen()
    live.subscription.away = True
    live.append(4)
    listening = await live.listen(after=3)
    live.subscription.away = False
    live.log.wake()
    await listening.has(4, *live.append())


# --- filters --------------------------------------------------------------------------------------------------------------


async def test_only_what_is_wanted_comes(live: Live) -> None:
    root = new_id()
    wanted = Filter(TENANT, root, frozenset({"a", "b"}))

    def some() -> list[int]:
        live.append(tenant=OTHER, root=root)
        live.append(root=root, topic="c")
        live.append(topic="a")
        return [*live.append(root=root, topic="a"), *live.append(root=root, topic="b")]

    before = some()
    listening = await live.listen(wanted, after=0)
    await listening.has(*before, *some())


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Filter(TENANT), True),
        (Filter(OTHER), False),
        (Filter(TENANT, UUID(int=1)), True),
        (Filter(TENANT, UUID(int=2)), False),
        (Filter(TENANT, topics=frozenset({"a", "b"})), True),
        (Filter(TENANT, topics=frozenset({"b"})), False),
        (Filter(TENANT, topics=frozenset()), False),
        (Filter(TENANT, UUID(int=1), frozenset({"b"})), False),
    ],
)
def test_a_filter(wanted: Filter, takes: bool) -> None:
    log = MemoryLog()
    append = StreamAppend(new_id(), UUID(int=1), 0, (NewEvent("a", 1, b"{}"),))
    log.add(AppendRequest(TENANT, new_id(), (append,), "{}"))
    assert wanted(log.events[0]) is takes


async def test_listeners_that_want_the_same_share_what_they_are_given(live: Live) -> None:
    one, other = await live.listen(), await live.listen()
    expected = live.append(2)
    await one.has(*expected)
    await other.has(*expected)
    assert one.batches[0] is other.batches[0]
    made = []

    def make(events: Any) -> bytes:
        made.append(len(events))
        return b"x" * len(events)

    assert [each.batches[0].once(make) for each in (one, other)] == [b"xx", b"xx"] and made == [2]


def test_the_form_of_a_whole_is_those_of_its_parts() -> None:
    log, made = MemoryLog(), []
    for number in range(3):
        stream = new_id()
        log.add(AppendRequest(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("a", 1, b"%d" % number),)),), "{}"))
    parts = [Batch([event]) for event in log.events]

    def make(events: Any) -> bytes:
        made.append(len(events))
        return b"".join(event.state for event in events)

    assert parts[1].once(make) == b"1"
    whole = Batch.joined(parts)
    assert (list(whole), whole.once(make), whole.once(make)) == (log.events, b"012", b"012")
    assert made == [1, 1, 1], "each event once"


# --- slow listeners -------------------------------------------------------------------------------------------------------


async def test_a_slow_listener_gets_what_waits_as_one_batch(live: Live) -> None:
    listening = await live.listen()
    listening.free.clear()
    expected = live.append()
    await listening.has(*expected)
    expected += [position for _ in range(5) for position in live.append(2)]
    await turns()
    listening.free.set()
    await listening.has(*expected)
    assert [len(batch) for batch in listening.batches] == [1, 10]


@pytest.mark.parametrize(("waiting", "kept_up"), [(10, True), (11, False)])
async def test_more_than_its_queue_holds_is_too_much(waiting: int, kept_up: bool) -> None:
    async with living(queue_events=10) as live:
        listening, quick = await live.listen(), await live.listen()
        listening.free.clear()
        [first] = live.append()
        await listening.has(first)
        for _ in range(waiting):
            live.append()
            await turns(3)
        assert live.live.most_queued == (waiting if kept_up else 0), "who will never read it does not hold it"
        listening.free.set()
        if kept_up:
            await listening.has(*range(first, first + waiting + 1))
        else:
            assert isinstance(await listening.raised(), TooSlow)
            assert listening.positions == [first]
        await quick.has(*range(first, first + waiting + 1))


async def test_silence_is_told() -> None:
    async with living(silence_s=0.005) as live:
        listening = await live.listen()
        await until(lambda: len(listening.batches) >= 2)
        assert listening.positions == []
        await listening.has(*live.append())


# --- coming and going -----------------------------------------------------------------------------------------------------


async def test_a_listener_that_goes_is_forgotten(live: Live) -> None:
    one, other = await live.listen(), await live.listen(Filter(TENANT, new_id()))
    await end(one.task)
    assert live.live.listeners == 1
    await end(other.task)
    assert live.live.listeners == 0


async def test_the_log_is_read_only_while_somebody_needs_it() -> None:
    async with living(linger_s=-1.0) as live:
        live.append()
        await turns()
        assert live.subscription.readers == 0 and not live.live.reading
        listening = await live.listen()
        assert live.subscription.readers == 1 and live.live.reading
        await end(listening.task)
        live.append()
        await turns()
        assert live.subscription.readers == 1, "the first batch without anybody begins the time"
        live.append()
        await until(lambda: live.subscription.readers == 0 and not live.live.reading)
        again = await live.listen()
        await again.has(*live.append())


async def test_a_watch_is_reason_enough_to_read_the_log() -> None:
    async with living(linger_s=-1.0) as live:
        with live.live.watch(new_id()):
            await until(lambda: live.live.reading)
            for _ in range(4):
                live.append()
                await turns(5)
            assert live.live.reading and live.live.watches == 1
        live.append()
        await turns(5)
        live.append()
        await until(lambda: not live.live.reading)


async def test_a_short_pause_ends_no_reading(live: Live) -> None:
    listening = await live.listen()
    await end(listening.task)
    for _ in range(5):
        live.append()
        await turns(5)
    assert live.subscription.readers == 1
    again = await live.listen()
    await again.has(*live.append())


async def test_the_head_is_waited_for_while_the_database_is_away(live: Live) -> None:
    history = await live.history()
    live.log.away = True
    events = live.live.events(Filter(TENANT), after=None, history=history)
    first = asyncio.ensure_future(anext(events))
    await turns()
    assert not first.done() and live.subscription.readers == 0
    live.log.away = False
    await until(lambda: live.live.listeners == 1)
    position = live.append()
    async with within(15):
        assert [event.position for event in await first] == position
    await events.aclose()


async def test_all_streams_end_when_the_process_is_about_to(live: Live) -> None:
    one, other = await live.listen(), await live.listen(Filter(TENANT, new_id()))
    live.live.close()
    assert (await one.raised(), await other.raised()) == (None, None)
    late = Listening(live, Filter(TENANT), None, await live.history())
    assert await late.raised() is None and late.batches == []


async def test_a_listener_that_waits_for_a_log_out_of_reach_ends_with_the_process(live: Live) -> None:
    history = await live.history()
    live.log.away = True
    waiting = Listening(live, Filter(TENANT), 0, history)
    await turns()
    assert not waiting.task.done()
    live.live.close()
    assert await waiting.raised() is None


# --- histories ------------------------------------------------------------------------------------------------------------


async def test_a_history_that_ends_ends_its_streams(live: Live) -> None:
    listening = await live.listen()
    await listening.has(*live.append())
    await live.histories.restored("a test", 0)
    assert isinstance(await listening.raised(), HistoryEnded)
    again = await live.listen()
    await again.has(*live.append())


async def test_a_reader_of_an_older_history_is_refused(live: Live) -> None:
    before = await live.history()
    await live.listen()
    await live.histories.restored("a test", 0)
    await turns()
    late = Listening(live, Filter(TENANT), 0, before)
    assert isinstance(await late.raised(), HistoryEnded)


async def test_a_reader_of_a_history_that_this_feed_does_not_read_yet_waits_for_it(live: Live) -> None:
    """Another process began it, and this one has heard so; its feed is about to begin anew."""
    await live.listen()
    await live.histories.restored("a test", 0)
    listening = Listening(live, Filter(TENANT), None, await live.history())
    await listening.joined()
    await until(lambda: live.live.listeners == 1)
    await listening.has(*live.append())


# --- watches --------------------------------------------------------------------------------------------------------------


def to(live: Live, stream: UUID, topic: str = "a") -> None:
    version = len(live.log.streams[stream])
    live.log.add(AppendRequest(TENANT, new_id(), (StreamAppend(stream, stream, version, (NewEvent(topic, 1, b"{}"),)),), "{}"))


async def happened(watch: Any) -> bool:
    async with within(15):
        return bool(await watch.next(60))


async def test_a_watch_is_woken_by_its_stream_and_topics_only(live: Live) -> None:
    await live.listen()
    ours, other = new_id(), new_id()
    with live.live.watch(ours) as any_topic, live.live.watch(ours, frozenset({"end"})) as the_end:
        assert live.live.watched(ours) == 2 and live.live.watched(other) == 0
        to(live, other)
        to(live, ours, "begin")
        assert await happened(any_topic)
        await turns()
        assert not await the_end.next(0) and not await any_topic.next(0), "each change is told once"
        to(live, ours, "end")
        assert await happened(the_end) and await happened(any_topic)
    assert live.live.watched(ours) == 0


async def test_a_watch_that_begins_before_the_log_is_read_is_woken_once_without_a_cause(live: Live) -> None:
    with live.live.watch(new_id()) as watch:
        assert await happened(watch)
        await turns()
        assert not await watch.next(0)


async def test_what_happens_before_somebody_waits_is_not_missed(live: Live) -> None:
    await live.listen()
    stream = new_id()
    with live.live.watch(stream) as watch:
        to(live, stream)
        await turns()
        assert await watch.next(0) or await happened(watch)


async def test_a_history_that_ends_wakes_all_watches(live: Live) -> None:
    await live.listen()
    with live.live.watch(new_id()) as watch:
        await turns()
        await watch.next(0)
        await live.histories.restored("a test", 0)
        assert await happened(watch)


async def test_a_process_that_is_about_to_stop_wakes_all_watches(live: Live) -> None:
    await live.listen()
    with live.live.watch(new_id()) as watch:
        live.live.close()
        assert await happened(watch)


# --- turns ----------------------------------------------------------------------------------------------------------------


class Noting(Watch):
    """Notes when it is woken, or breaks."""

    def __init__(self, woken: list[int], number: int, *, broken: bool = False) -> None:
        super().__init__(None)
        self._woken, self._number, self._broken = woken, number, broken

    def wake(self) -> None:
        if self._broken:
            raise RuntimeError("broken")
        self._woken.append(self._number)


async def test_many_are_woken_in_turns_and_in_the_order_of_their_coming(live: Live) -> None:
    """So that the next event, and every other request, waits for a few of them and not for all."""
    count = 2 * reading.WOKEN_AT_ONCE + 5
    woken: list[int] = []
    sizes: list[int] = []
    loop = asyncio.get_running_loop()

    def between() -> None:
        sizes.append(len(woken))
        if len(woken) < count:
            loop.call_soon(between)

    watches = [Noting(woken, number) for number in range(count)]
    live.live._wake_in_turn(watches)
    live.live._wake_in_turn(watches[:3])  # due already: once is enough
    loop.call_soon(between)
    await until(lambda: sizes[-1:] == [count])
    await turns(5)
    assert woken == list(range(count))
    assert sorted(set(sizes)) == [reading.WOKEN_AT_ONCE, 2 * reading.WOKEN_AT_ONCE, count]
    live.live._wake_in_turn(watches[:2])
    await until(lambda: woken[count:] == [0, 1], "another turn for those who had theirs")


async def test_one_that_cannot_be_woken_costs_those_after_its_turn_nothing(live: Live) -> None:
    woken: list[int] = []
    problems: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    try:
        live.live._wake_in_turn([Noting(woken, 0), Noting(woken, 1, broken=True), Noting(woken, 2)])
        await until(lambda: woken == [0, 2])
        assert len(problems) == 1
    finally:
        loop.set_exception_handler(None)
