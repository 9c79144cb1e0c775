"""Ending work: no cancellation gets lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from application.engine import background
from application.engine.background import end, side_by_side
from tidelog import calling
from tidelog.calling import end_tasks

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (background, calling):
        monkeypatch.setattr(module, "CANCEL_AGAIN_S", 0.05)


async def deaf(times: int) -> None:
    """Swallows so many cancellations, as a client does with a cancellation at the wrong moment."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


async def started(*work: Any) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(each) for each in work]
    await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("ending", [end, end_tasks])
async def test_a_cancellation_that_was_lost_is_repeated(ending: Callable[..., Awaitable[None]]) -> None:
    tasks = await started(deaf(2), deaf(0))
    async with asyncio.timeout(PATIENCE_S):
        await ending(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_ending_is_not_left_before_the_end() -> None:
    """A task that is ended while it ends other tasks leaves nothing running."""
    tasks = await started(deaf(3))
    [ending] = await started(end(*tasks))
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(PATIENCE_S):
            await ending
    assert tasks[0].cancelled()


async def test_side_by_side_all_run_to_their_ends() -> None:
    """Each task waits for the next one, so none could end if they ran one after the other."""
    order: list[int] = []
    over = [asyncio.Event() for _ in range(4)]
    over[3].set()

    async def work(number: int) -> None:
        await over[number + 1].wait()
        order.append(number)
        over[number].set()

    async with asyncio.timeout(PATIENCE_S):
        await side_by_side(work(0), work(1), work(2))
    assert order == [2, 1, 0]


async def test_side_by_side_a_task_that_something_else_cancelled_is_a_failure() -> None:
    """The awaited future was cancelled, not the task. Without a check nobody would learn of the end, and the others would go on."""

    async def work() -> None:
        cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    with pytest.raises(RuntimeError, match="cancelled"):
        async with asyncio.timeout(5):
            await side_by_side(work(), deaf(0))


async def test_side_by_side_a_failure_ends_the_others() -> None:
    beside = asyncio.Event()

    async def fails() -> None:
        raise ArithmeticError

    async def others() -> None:
        try:
            await deaf(1)
        finally:
            beside.set()

    with pytest.raises(ArithmeticError):
        async with asyncio.timeout(PATIENCE_S):
            await side_by_side(others(), fails())
    assert beside.is_set()


async def test_side_by_side_is_cancelled_as_a_whole() -> None:
    left = 2

    async def work() -> None:
        nonlocal left
        try:
            await deaf(1)
        finally:
            left -= 1

    tasks = await started(side_by_side(work(), work()))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await end(*tasks)
    assert left == 0 and tasks[0].cancelled()
