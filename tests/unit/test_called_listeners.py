"""Listeners of the live feed that are called, not awaited: what they take at once, what is too much, and how they go."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import channels, live
from application.engine.reading.channels import Batch, Channel, FeedListener, Filter
from domain.kernel import RecordedEvent
from tests.kit.live import Live, living
from tests.kit.memory import MemoryLog
from tests.kit.waiting import TENANT, new_id, until

WANTED = Filter(TENANT)


def events(*sizes: int) -> list[RecordedEvent]:
    """Events with so many bytes of data each."""
    log = MemoryLog()
    for size in sizes:
        stream = new_id()
        log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, (NewEvent("a", 1, b"x" * size),)),), "{}"))
    return log.events


def positions(*batches: Batch) -> list[list[int]]:
    return [[event.position for event in batch] for batch in batches]


class Woken:
    """A listener on a channel of its own, and how often it was called."""

    def __init__(self, bound: int = 100) -> None:
        self.channel = Channel()
        self.times = 0
        self.listener = FeedListener(self.channel, bound, self._woken)

    def _woken(self) -> None:
        self.times += 1

    def offered(self, *batches: list[RecordedEvent]) -> FeedListener:
        for batch in batches:
            self.channel.offer(Batch(batch))
            self.listener.wake()
        return self.listener


# --- what it takes --------------------------------------------------------------------------------------------------------


def test_it_takes_everything_if_that_is_not_too_much() -> None:
    one = Woken()
    a, b, c, d = events(10, 10, 10, 10)
    listener = one.offered([a], [b, c], [d])
    assert (one.times, listener.queued, listener.overflowed, listener.ended, listener.due) == (3, 4, False, False, False)
    assert positions(listener.take_some(4, 40), listener.take_some(4, 40)) == [[1, 2, 3, 4], []]


@pytest.mark.parametrize(
    ("most", "size", "taken"),
    [
        (3, 1_000, [[1], [2, 3]]), (4, 39, [[1], [2, 3]]), (4, 30, [[1], [2, 3]]), (2, 1_000, [[1]]), (1, 1_000, [[1]]),
        (3, 29, [[1]]), (1, 10, [[1]]), (0, 0, [[1]]),
    ],
)  # fmt: skip
def test_it_takes_whole_batches_up_to_a_bound(most: int, size: int, taken: list[list[int]]) -> None:
    one = Woken()
    a, b, c, d = events(10, 10, 10, 10)
    listener = one.offered([a], [b, c], [d])
    batch = listener.take_some(most, size)
    assert positions(batch) == [[position for part in taken for position in part]]
    assert listener.queued == 4 - len(batch)
    assert positions(listener.take_some(100, 1_000)) == [[n for n in (1, 2, 3, 4) if n > len(batch)]]
    assert listener.queued == 0


def test_one_batch_is_taken_as_it_is_so_that_all_share_it() -> None:
    one = Woken()
    a, b, c = events(10, 10, 10)
    first = Batch([a, b])
    one.channel.offer(first)
    one.channel.offer(Batch([c]))
    assert one.listener.take_some(1, 5) is first


def test_what_it_takes_counts_from_its_own_place() -> None:
    one = Woken()
    a, b, c, d = events(10, 10, 10, 10)
    listener = one.offered([a], [b])
    listener.take()
    one.offered([c], [d])
    assert positions(listener.take_some(2, 20)) == [[3, 4]]


# --- too much -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "kept_up"), [(3, True), (4, False)])
def test_too_many_events_are_too_much(count: int, kept_up: bool) -> None:
    one = Woken(bound=3)
    listener = one.offered(*([event] for event in events(*[1] * count)))
    assert (listener.overflowed, listener.queued) == (not kept_up, count if kept_up else 0)


@pytest.mark.parametrize(("sizes", "kept_up"), [((50, 50), True), ((50, 51), False)])
def test_too_many_bytes_are_too_much(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], kept_up: bool) -> None:
    monkeypatch.setattr(channels, "MOST_BYTES", 100)
    one = Woken()
    first, *others = events(99, *sizes)
    one.offered([first]).take()
    listener = one.offered(*([event] for event in others))
    assert (listener.overflowed, listener.queued) == (not kept_up, 2 if kept_up else 0)


def test_who_has_closed_is_not_called() -> None:
    one = Woken()
    one.listener.close()
    one.offered(events(1))
    assert one.times == 0


# --- parts of batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "most", "size", "parts"),
    [
        ((10, 10, 10), 3, 30, [[1, 2, 3]]),
        ((10, 10, 10), 2, 30, [[1, 2], [3]]),
        ((10, 10, 10), 3, 29, [[1, 2], [3]]),
        ((10, 10, 10), 1, 30, [[1], [2], [3]]),
        ((10, 50, 10), 3, 20, [[1], [2], [3]]),
        ((50, 10, 10), 3, 20, [[1], [2, 3]]),
        ((10, 10, 20, 20), 3, 20, [[1, 2], [3], [4]]),
        ((), 3, 20, [[]]),
    ],
)
def test_a_batch_is_split_into_parts_of_a_number_and_a_size(
    sizes: tuple[int, ...], most: int, size: int, parts: list[list[int]]
) -> None:
    batch = Batch(events(*sizes))
    found = batch.split(most, size)
    assert positions(*found) == parts and all(isinstance(part, Batch) for part in found)
    assert (found[0] is batch) is (len(found) == 1)
    assert [part.size for part in found] == [sum(len(event.state) for event in part) for part in found]


def test_a_batch_has_forms_by_their_names() -> None:
    made: list[str] = []

    def make(name: str) -> bytes:
        made.append(name)
        return name.encode()

    a, b = events(1, 1)
    whole = Batch.joined([Batch([a]), Batch([b])])
    for _ in range(2):
        assert whole.once(lambda _: make("x")) == b"xx"
        assert whole.once(lambda _: make("y"), "other") == b"yy"
        assert whole.once(lambda given: make(f"{len(given)}"), "whole", whole=True) == b"2"
    assert made == ["x", "x", "y", "y", "2"]


# --- on the feed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def feed() -> AsyncIterator[Live]:
    async with living(queue_events=5) as feed:
        yield feed


async def test_it_is_called_for_what_comes_after_it_has_joined(feed: Live) -> None:
    feed.append(2)
    history = await feed.history()
    await feed.live.joined(history)
    got: list[list[int]] = []
    listener = feed.live.listen(WANTED, lambda: got.extend(positions(listener.take())))
    assert (feed.live.position, feed.live.listeners) == (2, 1)
    [third] = feed.append()
    await until(lambda: bool(got))
    feed.live.leave(WANTED, listener)
    assert feed.live.listeners == 0
    feed.append()
    with_other = await feed.listen()
    await with_other.has(*feed.append())
    assert got == [[third]]


async def test_it_is_bounded_as_those_that_are_awaited(feed: Live) -> None:
    await feed.live.joined(await feed.history())
    listener = feed.live.listen(WANTED, lambda: None)
    feed.append(5)
    await until(lambda: listener.queued == 5)
    assert not listener.overflowed
    feed.append()
    await until(lambda: listener.overflowed)


@pytest.mark.parametrize("end", ["history", "process"])
async def test_those_that_leave_when_they_are_called_disturb_nobody(feed: Live, end: str) -> None:
    await feed.live.joined(await feed.history())
    listeners: list[FeedListener] = []
    gone: list[bool] = []

    def leave(number: int) -> None:
        gone.append(listeners[number].ended)
        feed.live.leave(WANTED, listeners[number])

    for number in range(3):
        listeners.append(feed.live.listen(WANTED, partial(leave, number)))
    if end == "process":
        feed.live.close()
        assert gone == [False] * 3
    else:
        await feed.histories.restored("a test", 0)
        await until(lambda: len(gone) == 3, "all to be called")
        assert gone == [True] * 3
        await feed.live.joined(await feed.history())  # it goes on
    assert feed.live.listeners == 0


async def test_what_is_stored_is_read_in_pages_up_to_a_position(feed: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAGE", 2)
    feed.append(7)
    for after, until_, pages in ((0, 7, [[1, 2], [3, 4], [5, 6], [7]]), (2, 6, [[3, 4], [5, 6]]), (3, 3, []), (5, 3, [])):
        assert positions(*[page async for page in feed.live.replay(WANTED, after, until_)]) == pages
    assert [page async for page in feed.live.replay(Filter(new_id()), 0, 7)] == []
