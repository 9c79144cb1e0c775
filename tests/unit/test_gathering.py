"""A reader that waits for company: when its batches come, and who gets them at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from application.engine import gathering
from application.engine.asked import KEPT_S, AskedPositions
from application.engine.background import TaskEnded
from application.engine.gathering import Gathering
from application.engine.ports.positions import Asked
from domain.kernel import RecordedEvent
from tests.kit.memory import MemoryPositionCalls
from tests.kit.waiting import TENANT, new_id, turns, until

NEVER_S = 3600.0


def event(position: int, size: int = 2, topic: str = "thing.happened") -> RecordedEvent:
    id = new_id()
    return RecordedEvent(position, TENANT, id, 1, id, topic, 1, b"x" * size, "{}", datetime.now(UTC))


class HeldClock:
    """The clock and the timers of an event loop, which only a test moves."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._timers: list[tuple[float, asyncio.Handle, Callable[[], None]]] = []
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.Handle:
        handle = asyncio.Handle(callback, (), self._loop)
        self._timers.append((when, handle, callback))
        return handle

    def advance(self, seconds: float) -> None:
        self._now += seconds
        due = [timer for timer in self._timers if timer[0] <= self._now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, handle, callback in due:
            if not handle.cancelled():
                callback()


class Reader:
    """Takes what has gathered, and moves its checkpoint as soon as it has."""

    def __init__(
        self, *, pace_s: float = 0.0, linger_s: float = 0.0, lags: bool = False, early: bool = False, ahead: int = 1
    ) -> None:
        """`lags`: the checkpoint moves only with an empty batch. Events of the topic `thing.hurried` are urgent."""
        self.calls = MemoryPositionCalls()
        self.position = 0
        self.taken: list[list[int]] = []
        self.early: list[bool] = []
        self.asked = AskedPositions(self.calls, lambda: {"mine": self.position})
        self.gathering = Gathering(
            self.asked,
            pace_s=pace_s,
            linger_s=linger_s,
            hurries=lambda event: event.topic == "thing.hurried",
            early=early,
            ahead=ahead,
        )
        self.given: asyncio.Queue[Sequence[RecordedEvent] | Exception | None] = asyncio.Queue()
        self.closed = False
        self.heard: list[int] = []
        self._lags = lags
        self._seen = 0

    def on_held_clock(self) -> "HeldClock":
        """Only the test lets time pass from now on."""
        clock = HeldClock()
        self.gathering._loop = clock  # type: ignore[assignment]
        return clock

    def give(self, *positions: int, size: int = 2, topic: str = "thing.happened") -> None:
        self.given.put_nowait([event(position, size, topic) for position in positions])

    async def source(self) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        try:
            while (item := await self.given.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True

    async def run(self) -> None:
        async with self.gathering.of(self.source()) as gathered:
            async for batch in gathered:
                self.taken.append([one.position for one in batch])
                self.early.append(self.gathering.is_early)
                self._seen = batch[-1].position if batch else self._seen
                if not (batch and self._lags):
                    self.position = self._seen
                await self.asked.moved()

    async def ask(self, lowest: int, highest: int | None = None) -> None:
        async def told(reached: Mapping[str, int]) -> None:
            self.heard.append(reached["mine"])

        await self.calls.ask({"mine": Asked(lowest, highest or lowest), "another": Asked(1, 1)}, told)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[asyncio.Task[None]]:
        others = asyncio.all_tasks()
        task = asyncio.create_task(self.run())
        await turns()
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert self.closed and asyncio.all_tasks() <= others, "nothing is left behind"


async def test_the_first_events_after_a_quiet_time_go_on_at_once_and_the_next_ones_wait_for_company() -> None:
    reader = Reader(pace_s=0.05)
    clock = reader.on_held_clock()
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        for position in (2, 3, 4):
            reader.give(position)
            await turns()
        clock.advance(0.049)
        await turns()
        assert reader.taken == [[1]]
        clock.advance(0.002)
        await until(lambda: reader.taken == [[1], [2, 3, 4]])
        clock.advance(0.051)
        reader.give(5)
        await turns()
        assert reader.taken[2:] == [[5]], "it was quiet for longer than the pace"


async def test_the_first_events_after_a_quiet_time_linger_together_for_a_moment() -> None:
    reader = Reader(pace_s=0.001, linger_s=0.05)
    clock = reader.on_held_clock()
    async with reader.reading():
        for first in (1, 4):
            for position in range(first, first + 3):
                reader.give(position)
                await turns()
                clock.advance(0.016)
                await turns()
                assert reader.position < first
            clock.advance(0.003)
            last = first + 2
            await until(lambda: reader.position == last)  # noqa: B023  the function is awaited here
        assert reader.taken == [[1, 2, 3], [4, 5, 6]]


async def test_nothing_lingers_for_who_waits_nor_with_what_is_hurried() -> None:
    reader = Reader(pace_s=0.001, linger_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await turns()
        assert reader.taken == []
        await reader.ask(1)
        await until(lambda: reader.heard == [1])
        reader.give(2)
        await turns()
        reader.give(3, topic="thing.hurried")
        await until(lambda: reader.position == 3)
        reader.give(4)
        await turns()
        assert reader.taken == [[1], [2, 3]], "it lingers again"


async def test_what_is_hurried_keeps_the_pace() -> None:
    reader = Reader(pace_s=NEVER_S, linger_s=NEVER_S)
    async with reader.reading():
        reader.give(1, topic="thing.hurried")
        await until(lambda: reader.position == 1)
        reader.give(2, topic="thing.hurried")
        await turns()
        assert reader.taken == [[1]]


async def test_a_reader_that_takes_long_gets_more_company() -> None:
    reader = Reader(pace_s=0.001)
    clock, times = asyncio.get_running_loop().time, list[float]()
    async with reader.gathering.of(reader.source()) as gathered:
        for position in (1, 2):
            reader.give(position)
            assert [one.position for one in await anext(gathered)] == [position]
            times.append(clock())
            await asyncio.sleep(0.03)
    assert times[1] - times[0] > 0.1


async def test_who_waits_for_a_position_pulls_it_and_is_told() -> None:
    reader = Reader(pace_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        reader.give(2, 3)
        await reader.ask(3)
        await until(lambda: reader.heard == [3])
        assert reader.taken == [[1], [2, 3]]
        await reader.ask(2)
        assert reader.heard == [3, 3], "it is there already"
        await reader.ask(6)  # before its events have come
        reader.give(4, 5)
        await turns()
        assert reader.taken[2:] == [], "nobody waits for these"
        reader.give(6, 7)
        await until(lambda: reader.heard == [3, 3, 7])
        assert reader.taken[2:] == [[4, 5, 6, 7]]
        reader.give(8)
        await turns()
        assert reader.taken[3:] == [], "nobody waits any more"


async def test_of_several_who_wait_each_is_told_at_its_own_position() -> None:
    reader = Reader(pace_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        await reader.ask(2, 9)
        await reader.ask(4)
        reader.give(2, 3)
        await until(lambda: reader.heard == [3])
        reader.give(4)
        await until(lambda: reader.heard == [3, 4])
        reader.give(9)
        await until(lambda: reader.heard == [3, 4, 9])
        reader.give(10)
        await turns()
        assert reader.position == 9


async def test_a_question_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that died still stands in the questions: nobody may hurry for it for ever."""
    reader = Reader(pace_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        await reader.ask(2, 100)
        assert reader.asked.lowest == 2
        clock = asyncio.get_running_loop().time
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock() + KEPT_S + 1)
        await reader.asked.moved()
        assert reader.asked.lowest > 100


async def test_lost_calls_stop_nobody() -> None:
    reader = Reader(pace_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await reader.ask(2)
        reader.calls.away = True
        reader.give(2)
        await until(lambda: reader.position == 2)
        assert reader.heard == []


@pytest.mark.parametrize("much", ["events", "bytes"])
async def test_much_waits_for_no_more_and_is_read_ahead_within_bounds(monkeypatch: pytest.MonkeyPatch, much: str) -> None:
    monkeypatch.setattr(gathering, "MOST_EVENTS", 5 if much == "events" else 10_000)
    monkeypatch.setattr(gathering, "MOST_BYTES", 50 if much == "bytes" else 10_000_000)
    reader = Reader(pace_s=NEVER_S)
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        for position in range(2, 22):
            reader.give(position, size=10)
        await until(lambda: reader.position == 21)
    assert reader.taken == [[1], [2, 3, 4, 5, 6], [7, 8, 9, 10, 11], [12, 13, 14, 15, 16], [17, 18, 19, 20, 21]]


async def test_a_slow_reader_holds_its_source_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MOST_EVENTS", 5)
    reader = Reader()
    async with reader.gathering.of(reader.source()) as gathered:
        for position in range(1, 21):
            reader.give(position)
        await turns()
        assert reader.given.qsize() == 15
        assert [one.position for one in await anext(gathered)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("much", ["events", "bytes"])
async def test_a_reader_that_wants_more_gets_what_came_while_it_worked(monkeypatch: pytest.MonkeyPatch, much: str) -> None:
    monkeypatch.setattr(gathering, "MOST_EVENTS", 5 if much == "events" else 10_000)
    monkeypatch.setattr(gathering, "MOST_BYTES", 10 if much == "bytes" else 10_000_000)
    reader = Reader(pace_s=NEVER_S, ahead=3)
    async with reader.gathering.of(reader.source()) as gathered:
        reader.give(*range(1, 6))
        assert [one.position for one in await anext(gathered)] == [*range(1, 6)]
        for position in range(6, 31):
            reader.give(position)
        await turns()
        assert reader.given.qsize() == 10
        assert [one.position for one in await anext(gathered)] == [*range(6, 21)], "as one batch"


async def test_who_waits_for_what_was_taken_and_not_yet_moved_gets_a_turn() -> None:
    reader = Reader(lags=True)
    async with reader.reading():
        reader.give(1, 2)
        await until(lambda: reader.taken == [[1, 2]])
        await turns()
        assert reader.position == 0
        await reader.ask(2)
        await until(lambda: reader.heard == [2])
        assert reader.taken == [[1, 2], []]


@pytest.mark.parametrize("which", [0, 1])
async def test_the_loss_of_one_of_its_tasks_is_noticed(which: int) -> None:
    before = asyncio.all_tasks()
    reader = Reader()
    async with reader.reading() as task:
        others = sorted(asyncio.all_tasks() - before - {task}, key=lambda one: one.get_name())
        assert len(others) == 2
        others[which].cancel()
        await asyncio.wait({task})
        assert isinstance(task.exception(), TaskEnded)


@pytest.mark.parametrize("error", [ValueError("broken"), None])
async def test_the_end_of_the_source_comes_after_its_events_and_its_error_at_once(error: Exception | None) -> None:
    reader = Reader()
    async with reader.reading() as task:
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        reader.given.put_nowait(error)
        await asyncio.wait({task})
        assert task.exception() is error
        assert reader.taken == [[1]]


async def test_events_come_when_the_time_of_a_batch_has_nearly_come() -> None:
    reader = Reader(pace_s=0.001, linger_s=0.0002)
    async with reader.reading():
        reader.give(1)
        reader.give(2)
        await until(lambda: reader.position == 2)


async def test_who_waits_gets_an_early_batch_whose_events_come_again_in_their_time() -> None:
    reader = Reader(linger_s=NEVER_S, early=True)
    async with reader.reading():
        reader.give(1)
        reader.give(2)
        await turns()
        await reader.ask(1)
        await until(lambda: reader.heard == [2])
        assert (reader.taken, reader.early) == ([[1, 2]], [True])
        reader.give(3)
        await turns()
        assert reader.taken == [[1, 2]], "nobody waits for the third"
        await reader.ask(4)
        assert reader.asked.names(3) == frozenset() != reader.asked.names(4)
        await reader.ask(3)
        await until(lambda: reader.heard == [2, 3])
        assert reader.taken[1:] == [[1, 2, 3]]
        reader.give(4, topic="thing.hurried")
        await until(lambda: reader.taken[2:] == [[1, 2, 3, 4]])
        assert reader.early == [True, True, False]
        await reader.ask(4)
        reader.give(5)
        await turns()
        assert len(reader.taken) == 3, "what was given in its time does not come again"


async def test_a_full_batch_is_never_early() -> None:
    reader = Reader(linger_s=NEVER_S, early=True)
    async with reader.reading():
        await reader.ask(gathering.MOST_EVENTS)
        reader.give(*range(1, gathering.MOST_EVENTS + 1))
        await until(lambda: reader.heard == [gathering.MOST_EVENTS])
        assert reader.early == [False]


async def test_a_reader_that_left_something_for_later_gets_a_batch_then_once() -> None:
    reader = Reader()
    clock = reader.on_held_clock()
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        reader.gathering.rest_at = clock.time() + 2.0
        reader.give(2)  # the reader says it anew after each batch, and here it says nothing
        await until(lambda: reader.taken == [[1], [2]])
        assert reader.gathering.rest_at is None
        clock.advance(10.0)
        await turns()
        assert reader.taken == [[1], [2]]


class Resting(Reader):
    """Wants a batch two seconds after each one with events."""

    async def run(self) -> None:
        async with self.gathering.of(self.source()) as gathered:
            async for batch in gathered:
                self.taken.append([one.position for one in batch])
                gathered.rest_at = gathered._loop.time() + 2.0 if batch else None


async def test_an_empty_batch_comes_at_the_time_of_rest_and_then_nothing() -> None:
    reader = Resting()
    clock = reader.on_held_clock()
    async with reader.reading():
        reader.give(1)
        await until(lambda: reader.taken == [[1]])
        await turns()
        clock.advance(1.9)
        await turns()
        assert reader.taken == [[1]]
        clock.advance(0.2)
        await until(lambda: reader.taken == [[1], []])
        clock.advance(100.0)
        await turns()
        assert reader.taken == [[1], []], "no timer goes on"


async def test_at_the_time_of_rest_events_wait_for_no_more_company() -> None:
    reader = Resting(linger_s=5.0)
    clock = reader.on_held_clock()
    async with reader.reading():
        reader.give(1, topic="thing.hurried")
        await until(lambda: reader.taken == [[1]])
        reader.give(2)
        await turns()
        clock.advance(1.9)
        await turns()
        assert reader.taken == [[1]]
        clock.advance(0.2)
        await until(lambda: reader.taken == [[1], [2]])
