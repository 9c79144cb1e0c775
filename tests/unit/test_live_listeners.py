"""The live feed over a log in memory: the seam between replay and live, overflow, a history that ends, and the order of turns."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest

from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import live as reading
from application.engine.reading.channels import Batch, Filter, TooSlow
from application.engine.reading.histories import HistoryEnded
from tests.kit.live import Listening, Live, living
from tests.kit.memory import MemoryLog
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within

OTHER = new_id()


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
    """The listener starts at a position of another process that this process has not read yet."""
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
    log.add(one_command(TENANT, new_id(), (append,), "{}"))
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
        log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("a", 1, b"%d" % number),)),), "{}"))
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


async def test_a_wake_for_events_that_were_taken_is_no_silence(live: Live) -> None:
    listening = await live.listen()
    for busy in range(4):  # the reader returns in different turns of the loop, before the wake and after it
        listening.free.clear()
        live.append()
        await turns(busy)
        listening.free.set()
        live.append()
        await turns(3)
    await listening.has(*range(1, 9))
    assert all(listening.batches), "no empty batch"


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
    """Another process began the history. This process knows, and its feed is about to restart."""
    await live.listen()
    await live.histories.restored("a test", 0)
    listening = Listening(live, Filter(TENANT), None, await live.history())
    await listening.joined()
    await until(lambda: live.live.listeners == 1)
    await listening.has(*live.append())
