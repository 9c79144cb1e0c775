"""Clocks of the ports in memory: the machine's clock, or a clock that stands still until a test moves it."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Protocol

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    def now(self) -> datetime: ...

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        """Returns when the event is set, or after so many seconds of this clock."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime = BEGINNING) -> None:
        self._now = start
        self._waiting: set[tuple[datetime, asyncio.Event]] = set()

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock, also back, and wakes every waiter whose moment has come."""
        self._now += timedelta(seconds=seconds)
        for until, over in self._waiting:
            if until <= self._now:
                over.set()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        over = asyncio.Event()
        entry = (self._now + timedelta(seconds=seconds), over)
        if entry[0] <= self._now:
            return
        self._waiting.add(entry)
        tasks = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(entry)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def next_moment(self) -> datetime | None:
        """The earliest moment of all waiters."""
        return min((until for until, _ in self._waiting), default=None)
