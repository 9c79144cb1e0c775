"""Time-outs in seconds of a machine that has nothing else to do. Where others work beside us, they are that many times longer."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")

BEAT_S = 0.1
LONGEST = 30.0
"""However slow the machine is: a test that hangs must end."""


async def slowness() -> float:
    """How many times longer work takes just now than on an idle machine: what a tenth of a second of it really took; at least 1."""
    return await asyncio.to_thread(_slowness)


def _slowness() -> float:
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < BEAT_S:
        pass
    return min(LONGEST, max(1.0, (time.monotonic() - began) / BEAT_S))


class Deadline:
    """Begins when it is made. How slow the machine is, is only asked once the plain seconds are over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._slowest = 1.0

    @property
    def left_s(self) -> float:
        """Seconds of this machine, as slow as it has been found until now; below zero when they are over."""
        return self._began + self._seconds * self._slowest - time.monotonic()

    async def over(self) -> bool:
        return self.left_s <= 0 and await asyncio.to_thread(self.over_here)

    def over_here(self) -> bool:
        """The same for code without an event loop: it blocks for a beat once the plain seconds are over."""
        if self.left_s <= 0:
            self._slowest = max(self._slowest, _slowness())
        return self.left_s <= 0


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """What `asyncio.timeout` is. Raises TimeoutError."""
    loop, deadline, judges = asyncio.get_running_loop(), Deadline(seconds), list[asyncio.Task[None]]()
    async with asyncio.timeout(None) as limit:

        async def judge() -> None:
            while not await deadline.over():  # noqa: ASYNC110  # nothing but time tells
                await asyncio.sleep(deadline.left_s)
            limit.reschedule(loop.time())

        timer = loop.call_later(seconds, lambda: judges.append(loop.create_task(judge())))
        try:
            yield
        finally:
            timer.cancel()
            for task in judges:
                task.cancel()


async def in_time(awaited: Awaitable[T], seconds: float) -> T:
    """What is awaited. Raises TimeoutError, and cancels it, after the seconds."""
    async with within(seconds):
        return await awaited


async def until(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Raises TimeoutError."""
    deadline = Deadline(seconds)
    while not await condition():
        if await deadline.over():
            raise TimeoutError(f"{condition.__qualname__} did not come true within {seconds:g} s of an idle machine")
        await asyncio.sleep(0.05)


async def ended(task: asyncio.Task[None], seconds: float) -> None:
    """The end of a task, with what it raises. Raises TimeoutError; the task goes on then."""
    deadline = Deadline(seconds)
    while not task.done():
        if await deadline.over():
            raise TimeoutError(f"{task.get_name()} did not end within {seconds:g} s of an idle machine")
        await asyncio.wait({task}, timeout=0.5)
    await task
