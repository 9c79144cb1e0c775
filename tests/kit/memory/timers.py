"""Durable timers in memory: a table of commands by due time, and a clock to move."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from adapters.memory.clock import Clock
from adapters.memory.log import MemoryLog
from application.engine.ports.timers import PARKED_AS, DueTimer
from tests.kit.memory.checkpoints import Parked


class MemoryTimers:
    """Implements `application.engine.ports.timers.Timers`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self.clock = clock or log.clock
        self.rows: dict[UUID, tuple[datetime, DueTimer]] = {}
        self.set_at: dict[UUID, datetime] = {}
        self.parked: list[Parked] = []
        self._no_later_than: dict[UUID, datetime] = {}
        self._changed = asyncio.Event()

    def set(self, timer: DueTimer, due_at: datetime, *, set_at: datetime | None = None) -> None:
        """Sets a timer and wakes the waiters. An existing timer stays as it is. `set_at`: by default now."""
        self.rows.setdefault(timer.timer_id, (due_at, timer))
        self.set_at.setdefault(timer.timer_id, set_at or self.clock.now())
        self._changed.set()

    async def due(self, limit: int) -> list[DueTimer]:
        self.log.reach()
        await asyncio.sleep(0)
        now = self.clock.now()
        for timer_id, (due_at, _) in self.rows.items():
            self._look_at_the_future(timer_id, due_at, now)
        due = sorted((at, timer) for at, timer in self._by_time() if at <= now)
        return [self.rows[timer_id][1] for _, timer_id in due[:limit]]

    def _look_at_the_future(self, timer_id: UUID, due_at: datetime, now: datetime) -> None:
        set_at = self.set_at.get(timer_id)
        if set_at is not None and set_at > now:
            noted = self._no_later_than.get(timer_id)
            if noted is None or noted > now + (due_at - set_at):
                self._no_later_than[timer_id] = now + (due_at - set_at)

    def _by_time(self) -> list[tuple[datetime, UUID]]:
        return [(min(due_at, self._no_later_than.get(timer_id, due_at)), timer_id) for timer_id, (due_at, _) in self.rows.items()]

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        self.log.reach()
        await asyncio.sleep(0)
        for timer_id in timer_ids:
            self.rows.pop(timer_id, None)

    async def park(self, timer: DueTimer, error: str) -> None:
        self.log.reach()
        await asyncio.sleep(0)
        stream, _, version = timer.cause.rpartition(":")
        if self.rows.pop(timer.timer_id, None) is not None:
            event = next((e for e in self.log.streams.get(UUID(stream), ()) if e.version == int(version)), None)
            if event is not None and event.tenant_id == timer.tenant_id:
                self.parked.append(Parked(PARKED_AS, event, error[:10_000].replace("\x00", "")))

    async def seconds_until_next(self) -> float | None:
        self.log.reach()
        first = min(self._by_time(), default=None)
        return None if first is None else (first[0] - self.clock.now()).total_seconds()

    async def wait_for_change(self, timeout: float) -> None:
        await self.clock.wait(self._changed, timeout)
        self._changed.clear()
