"""The worker's own tasks: they restart after every end, and stop when their owner stops them."""

import asyncio
import logging

import pytest

from tests.pace import within
from tidelog.calling import end_tasks
from tidelog.worker import tasks
from tidelog.worker.tasks import going_on


async def test_whatever_ends_it_it_begins_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tasks, "AGAIN_AFTER_S", 0.01)
    begun, gone_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise RuntimeError("a defect")
        if begun == 2:
            cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        if begun == 4:
            gone_on.set()
            await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR, "tidelog"):
        task = asyncio.create_task(going_on("work", work))
        async with within(5):
            await gone_on.wait()
            await end_tasks(task)
    assert task.cancelled() and begun == 4
    assert caplog.messages == ["background_task_failed"] * 3
