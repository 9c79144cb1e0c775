"""Time-outs in seconds of an idle machine. On a busy machine the time-outs grow by the factor by which the machine is slower."""

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

BEAT_S = 0.1
ANSWER_S = 60.0
"""For code that takes plain seconds, as clients of NATS do: a server that lives answers within these on any machine."""
LONGEST = 30.0
"""The largest factor. A test that hangs must end, however slow the machine is."""


async def slowness() -> float:
    """The factor by which work now takes longer than on an idle machine, at least 1. It is measured over a tenth of a second."""
    return await asyncio.to_thread(_slowness)


async def slowness_lately() -> float:
    """The larger of the slowness now and that of the last minute. For what took its time before."""
    return await asyncio.to_thread(_slowness_lately)


def _slowness_lately() -> float:
    return max(_slowness(), _load())


def _load() -> float:
    """Threads for each processor that wanted to run, averaged over the last minute. At most `LONGEST`."""
    return min(LONGEST, os.getloadavg()[0] / (os.cpu_count() or 1))


def _slowness() -> float:
    began, worked = time.monotonic(), time.thread_time()
    while time.thread_time() - worked < BEAT_S:
        pass
    return min(LONGEST, max(1.0, (time.monotonic() - began) / BEAT_S))


class Deadline:
    """A deadline that begins when the object is made.

    The slowness of the machine is looked at only after the plain seconds are over. The machine may have been busy until just then.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._slowest = 1.0

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, with the slowness measured so far. Negative after the deadline."""
        return self._began + self._seconds * self._slowest - time.monotonic()

    async def over(self) -> bool:
        return self.left_s <= 0 and await asyncio.to_thread(self.over_here)

    def over_here(self) -> bool:
        """The same for code without an event loop. The call blocks for a measurement once the plain seconds are over."""
        if self.left_s <= 0:
            self._slowest = max(self._slowest, _slowness_lately())
        return self.left_s <= 0


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout` with seconds of an idle machine. Raises TimeoutError."""
    loop, deadline, judges = asyncio.get_running_loop(), Deadline(seconds), list[asyncio.Task[None]]()
    async with asyncio.timeout(None) as limit:

        async def judge() -> None:
            while not await deadline.over():  # noqa: ASYNC110  # only the passing of time ends this wait
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
    """Returns the result of the awaitable. After the seconds the awaitable is cancelled. Raises TimeoutError."""
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
    """Waits for the end of a task and raises the task's exception. Raises TimeoutError after the seconds; the task then goes on."""
    deadline = Deadline(seconds)
    while not task.done():
        if await deadline.over():
            raise TimeoutError(f"{task.get_name()} did not end within {seconds:g} s of an idle machine")
        await asyncio.wait({task}, timeout=0.5)
    await task


def finished(
    command: Sequence[str | Path],
    seconds: float,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    given: str | None = None,
    account: tuple[int, int] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and returns its output. `given`: its input, instead of `stdin`. `account`: its user and group.

    Raises TimeoutExpired after seconds of an idle machine; the command is ended.
    """
    pipe, deadline = subprocess.PIPE, Deadline(seconds)
    source = stdin if given is None else pipe
    user, group, others = (None, None, None) if account is None else (*account, [])
    with subprocess.Popen(
        command, cwd=cwd, env=env, stdin=source, stdout=pipe, stderr=pipe, text=True, user=user, group=group, extra_groups=others
    ) as process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                text, given = given, None  # a second call must not name it again
                out, err = process.communicate(text, timeout=max(0.1, deadline.left_s))
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            if deadline.over_here():
                process.kill()
                raise subprocess.TimeoutExpired(command, seconds, *process.communicate())
