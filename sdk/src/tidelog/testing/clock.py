"""The clocks of the testing kit: one that tests move, and one that goes by itself."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

TURNS = 25
"""So many turns of the event loop without anything new, and nobody is at work any more."""
PATIENCE_S = 30.0
"""Real seconds that `move` waits for somebody to move the clock for."""


class KitClock(Protocol):
    """What the kit asks of a clock. A `tidelog.context.Clock`, too."""

    def now(self) -> datetime: ...

    def seconds(self) -> float:
        """Seconds since some moment."""
        ...

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None: ...

    async def pause(self, seconds: float) -> None:
        """The pause before another attempt."""
        ...

    def working(self, *, step: bool = False) -> Any:
        """A block in which code of users is at work."""
        ...

    def idle(self) -> Any:
        """A block within `working` that only waits until its time is over."""
        ...


class RealClock:
    """Time as it passes. The pauses between attempts are left out."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def seconds(self) -> float:
        return time.monotonic()

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        await asyncio.wait({future}, timeout=timeout_s)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)

    @contextmanager
    def working(self, *, step: bool = False) -> Iterator[None]:
        yield

    @contextmanager
    def idle(self) -> Iterator[None]:
        yield


class TestClock:
    """A clock for `run_agent(..., clock=clock)`: time-outs of `receive` and of tools, and pauses between attempts, pass at once.

    The clock goes by itself to the next moment that somebody waits for, as soon as nothing is at work: no step, no tool. With
    `by_hand=True` it stands until the test moves it: `await clock.move(30)`.

    A tool that really works has its `timeout_s` in real seconds, too. Do without `asyncio.sleep` and the like beside a `receive`:
    the clock cannot see that the agent waits for something else.
    """

    __test__ = False  # pytest takes no class of this name for tests

    def __init__(self, start: datetime | None = None, *, by_hand: bool = False) -> None:
        """`start`: the time at the beginning; default: the first moment of 2030 (UTC)."""
        self._start = start or datetime(2030, 1, 1, tzinfo=UTC)
        self._by_hand = by_hand
        self._passed_s = 0.0
        self._waits: list[tuple[float, asyncio.Future[None]]] = []
        self._steps = 0
        self._tools = 0
        self._changes = 0
        self._watch: asyncio.Task[None] | None = None

    @property
    def passed_s(self) -> float:
        """Seconds since the start."""
        return self._passed_s

    @property
    def is_idle(self) -> bool:
        """Whether nobody is at work, and nobody waits for the clock, which goes by itself."""
        return not (self._by_hand or self._waits or self._steps or self._tools)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed_s)

    def seconds(self) -> float:
        return self._passed_s

    async def move(self, seconds: float) -> None:
        """Move the clock, past each moment on the way that somebody waits for. Waits first until somebody waits for the clock.

        Raises:
            TimeoutError: nobody waits for the clock.
        """
        await self._somebody_waits()
        end = self._passed_s + seconds
        while (due := self._next()) is not None and due <= end:
            self._go_to(due)
            await self._settled()
        self._passed_s = max(self._passed_s, end)

    async def wait(self, future: "asyncio.Future[Any]", timeout_s: float | None) -> None:
        if timeout_s is None:
            await asyncio.wait({future})
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (self._passed_s + timeout_s, over)
        self._waits.append(waiting)
        self._changed()
        try:
            await asyncio.wait({future, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if waiting in self._waits:
                self._waits.remove(waiting)
            self._changed()

    async def pause(self, seconds: float) -> None:
        await self.wait(asyncio.get_running_loop().create_future(), seconds)

    @contextmanager
    def working(self, *, step: bool = False) -> Iterator[None]:
        self._count(1, step)
        try:
            yield
        finally:
            self._count(-1, step)

    @contextmanager
    def idle(self) -> Iterator[None]:
        self._count(-1, False)
        try:
            yield
        finally:
            self._count(1, False)

    def _count(self, change: int, step: bool) -> None:
        if step:
            self._steps += change
        else:
            self._tools += change
        self._changed()

    def _changed(self) -> None:
        self._changes += 1
        if not self._by_hand and self._waits and (self._watch is None or self._watch.done()):
            self._watch = asyncio.get_running_loop().create_task(self._go(), name="test clock")

    async def _go(self) -> None:
        """Goes on by itself for as long as somebody waits and nobody is at work. Whoever stops working calls again."""
        while self._waits and not self._steps and not self._tools:
            seen = self._changes
            for _ in range(TURNS):
                await asyncio.sleep(0)
            due = self._next()
            if seen == self._changes and due is not None:
                self._go_to(due)
                self._changes += 1

    async def _settled(self) -> None:
        """Returns when no step is at work, and nothing new has come for some turns. Tools are not waited for: one may hang."""
        limit = time.monotonic() + PATIENCE_S
        seen = -1
        while (seen != self._changes or self._steps) and time.monotonic() < limit:
            seen = self._changes
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if self._steps:
                await asyncio.sleep(0.001)

    async def _somebody_waits(self) -> None:
        limit = time.monotonic() + PATIENCE_S
        await self._settled()
        while not self._waits:
            if time.monotonic() > limit:
                raise TimeoutError(f"nobody waits for the clock after {PATIENCE_S:g} real seconds; was it given to run_agent?")
            await asyncio.sleep(0.001)

    def _next(self) -> float | None:
        return min((due for due, over in self._waits if not over.done()), default=None)

    def _go_to(self, due: float) -> None:
        self._passed_s = max(self._passed_s, due)
        for moment, over in self._waits:
            if moment <= self._passed_s and not over.done():
                over.set_result(None)
