"""Durable timers in memory: a table of commands by due time, and a clock to move."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from application.engine.ports.timers import DueTimer
from tests.kit.memory.clock import Clock
from tests.kit.memory.log import MemoryLog


class MemoryTimers:
    """Implements `application.engine.ports.timers.Timers`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self.clock = clock or log.clock
        self.rows: dict[UUID, tuple[datetime, DueTimer]] = {}
        self._changed = asyncio.Event()

    def set(self, timer: DueTimer, due_at: datetime) -> None:
        """Sets a timer and wakes the waiters. An existing timer stays as it is."""
        self.rows.setdefault(timer.timer_id, (due_at, timer))
        self._changed.set()

    async def due(self, limit: int) -> list[DueTimer]:
        self.log.reach()
        await asyncio.sleep(0)
        now = self.clock.now()
        due = sorted((row for row in self.rows.values() if row[0] <= now), key=lambda row: row[0])
        return [timer for _, timer in due[:limit]]

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        self.log.reach()
        await asyncio.sleep(0)
        for timer_id in timer_ids:
            self.rows.pop(timer_id, None)

    async def seconds_until_next(self) -> float | None:
        self.log.reach()
        first = min((due_at for due_at, _ in self.rows.values()), default=None)
        return None if first is None else (first - self.clock.now()).total_seconds()

    async def wait_for_change(self, timeout: float) -> None:
        await self.clock.wait(self._changed, timeout)
        self._changed.clear()
