"""Tasks that must go on: the owner of a task learns of every kind of end."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from application.engine.background import Background, OnDemand, TaskEnded
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
