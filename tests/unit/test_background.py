"""Tasks that must go on: whatever ends one of them, its owner is told."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from application.engine.background import Background, TaskEnded
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
    for _ in range(10):  # turns in which it would be told
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
