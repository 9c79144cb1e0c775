"""Time-outs in seconds of a machine that has nothing else to do. Where others work beside us, they are that many times longer."""

import asyncio
import time
from collections.abc import Awaitable, Callable

BEAT_S = 0.1
LONGEST = 30.0
"""However slow the machine is: a test that hangs must end."""


async def slowness() -> float:
    """How many times longer work takes just now than on an idle machine: what a tenth of a second of it really took; at least 1."""
    return min(LONGEST, max(1.0, await asyncio.to_thread(_beat)))


def _beat() -> float:
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < BEAT_S:
        pass
    return (time.monotonic() - began) / BEAT_S


class Deadline:
    """Begins when it is made. How slow the machine is, is only asked once the plain seconds are over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._slowest = 1.0

    async def over(self) -> bool:
        if time.monotonic() - self._began < self._seconds * self._slowest:
            return False
        self._slowest = max(self._slowest, await slowness())
        return time.monotonic() - self._began >= self._seconds * self._slowest


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
