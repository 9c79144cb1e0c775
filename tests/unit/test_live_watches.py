"""The live feed over a log in memory: watchers of a stream, and the order in which they are woken."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading import live as reading
from application.engine.reading.watches import Watch
from tests.kit.live import Live, living
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within

OTHER = new_id()


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with living() as live:
        yield live


# --- watches --------------------------------------------------------------------------------------------------------------


def to(live: Live, stream: UUID, topic: str = "a") -> None:
    version = len(live.log.streams[stream])
    live.log.add(one_command(TENANT, new_id(), (StreamAppend(stream, stream, version, (NewEvent(topic, 1, b"{}"),)),), "{}"))


async def happened(watch: Any) -> bool:
    async with within(15):
        return bool(await watch.next(60))


async def test_a_called_watch_ends_when_its_caller_says_so(live: Live) -> None:
    ours, told = new_id(), list[int]()
    unwatch = live.live.call(ours, frozenset({"a"}), told.append)
    to(live, ours)
    await until(lambda: told, "a call")
    unwatch()
    assert live.live.watched(ours) == live.live.watches == 0


async def test_a_watch_whose_time_was_over_is_woken_later() -> None:
    watch = Watch(None)
    assert not await watch.next(0.001)
    watch.wake()
    assert await watch.next(60) and not await watch.next(0)


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
    """A watcher that notes when it is woken, or raises."""

    def __init__(self, woken: list[int], number: int, *, broken: bool = False) -> None:
        super().__init__(None)
        self._woken, self._number, self._broken = woken, number, broken

    def wake(self) -> None:
        if self._broken:
            raise RuntimeError("broken")
        self._woken.append(self._number)


async def test_many_are_woken_in_turns_and_in_the_order_of_their_coming(live: Live) -> None:
    """Watchers are woken in small groups, so that the next event and every other request wait for one group only."""
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
    live.live._wake_in_turn(watches[:3])  # due already: one wake is enough
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
