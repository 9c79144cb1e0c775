"""Tasks that must go on: the owner of a task learns of every kind of end."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from application.engine.background import Background, OnDemand, TaskEnded, with_pauses
from domain.errors import Unavailable
from tests.kit.waiting import turns, until
from tests.pace import within


async def returns() -> None:
    await asyncio.sleep(0)


async def raises() -> None:
    raise ValueError("a defect")


async def awaits_what_is_cancelled() -> None:
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    await cancelled


async def goes_on() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("work", "told"),
    [(returns, "'the work' ended"), (raises, "ValueError: a defect"), (awaits_what_is_cancelled, "'the work' was cancelled")],
)
async def test_whatever_ends_it_is_told(work: Callable[[], Coroutine[Any, Any, None]], told: str) -> None:
    background = Background("the work", work)
    background.start()
    with pytest.raises(TaskEnded, match=told):
        async with within(5):
            await background.failed()
    assert not background.running
    await background.close()


async def test_an_end_that_its_owner_wanted_is_none_to_be_told() -> None:
    background = Background("the work", goes_on)
    background.start()
    background.start()
    failed = asyncio.create_task(background.failed())
    assert background.running
    await background.close()
    for _ in range(10):  # turns in which the owner would be told
        await asyncio.sleep(0)
    assert not background.running and not failed.done()
    failed.cancel()


async def test_it_may_end_by_itself_while_it_is_closed() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0.01)
        ended.set()

    background = Background("the work", work)
    background.start()
    await background.close(grace_s=5)
    assert ended.is_set()
    await Background("never started", goes_on).close()


async def test_a_close_waits_for_its_grace_alone() -> None:
    at_once = Background("the work", goes_on)
    at_once.start()
    closing = asyncio.create_task(at_once.close())
    await turns()
    assert closing.done(), "without a grace there is nothing to wait for"
    stubborn = Background("the work", goes_on)
    stubborn.start()
    async with within(15):
        await stubborn.close(grace_s=0.001)
    assert not stubborn.running


# --- tasks that exist while they have work ----------------------------------------------------------------------------

TOLD: contextvars.ContextVar[str] = contextvars.ContextVar("TOLD", default="nothing")


async def test_a_task_on_demand_does_what_has_come_and_is_started_again_for_more() -> None:
    waiting, done = [1, 2], list[int]()

    async def work() -> None:
        while waiting:
            done.append(waiting.pop(0))
            await asyncio.sleep(0)

    on_demand = OnDemand(work, "the work")
    assert not on_demand.running
    on_demand.start()
    on_demand.start()
    assert on_demand.running
    await until(lambda: not on_demand.running)
    waiting.append(3)
    on_demand.start()
    await until(lambda: not on_demand.running)
    assert done == [1, 2, 3]
    await on_demand.close()


async def test_a_task_on_demand_knows_nothing_of_the_request_that_started_it() -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(TOLD.get())

    TOLD.set("of a request")
    on_demand = OnDemand(work, "the work")
    on_demand.start()
    await until(lambda: seen)
    assert seen == ["nothing"]
    await on_demand.close()


async def test_a_closed_task_on_demand_has_ended_and_takes_no_more() -> None:
    on_demand = OnDemand(goes_on, "the work")
    on_demand.start()
    await turns(2)
    async with within(15):
        await on_demand.close()
    assert not on_demand.running
    with pytest.raises(Unavailable, match="stops"):
        on_demand.start()
    never_started = OnDemand(goes_on, "the work")
    await never_started.close()
    with pytest.raises(Unavailable):
        never_started.start()


# --- pauses of a source ---------------------------------------------------------------------------------------------------


async def test_a_pause_is_told_once_after_the_items_that_came_before_it() -> None:
    given: asyncio.Queue[int] = asyncio.Queue()

    async def source() -> AsyncGenerator[int, None]:
        while (item := await given.get()) >= 0:
            yield item

    seen: list[int | None] = []

    async def read() -> None:
        items = source()
        async with aclosing(items), aclosing(with_pauses(items, 0.01)) as paused:
            async for item in paused:
                seen.append(item)

    for item in (1, 2):
        given.put_nowait(item)
    reading = asyncio.create_task(read())
    await until(lambda: seen == [1, 2, None])
    await asyncio.sleep(0.03)
    assert seen == [1, 2, None], "a silence that goes on is told once"
    given.put_nowait(3)
    await until(lambda: seen == [1, 2, None, 3, None])
    given.put_nowait(-1)
    await reading


async def test_who_leaves_a_source_with_pauses_leaves_no_task_behind() -> None:
    left = asyncio.Event()

    async def source() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            left.set()

    before = asyncio.all_tasks()
    items = source()
    with pytest.raises(ValueError, match="enough"):
        async with aclosing(items), aclosing(with_pauses(items, 0.0)) as paused:
            async for item in paused:
                if item is None:  # the next item is being waited for
                    raise ValueError("enough")
    assert left.is_set() and asyncio.all_tasks() == before
