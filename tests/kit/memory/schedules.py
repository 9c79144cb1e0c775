"""Schedules that are due in memory: the rows of the read model, by the same rules, and a clock to move."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.clock import Clock
from adapters.memory.log import MemoryLog
from application.engine.ports.due import DueLook, DueStream
from domain.kernel import RecordedEvent
from projections.schedules import PROJECTION, ScheduleRow, fold


class MemoryDueSchedules:
    """Implements `application.engine.ports.due.DueStreams`. Hears of events at once, unless it `stands`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self.clock = clock or log.clock
        self.rows: dict[UUID, ScheduleRow] = {}
        self.due: dict[UUID, tuple[datetime | None, bool, DueStream]] = {}
        """Schedule → when it is due, whether a time of it waits, and the row."""
        self.late: dict[UUID, datetime] = {}
        self.stands = False
        self._after = UUID(int=0)
        """The last of those that wait which was looked at: many come in turns."""
        self._changed = asyncio.Event()
        log.followers.append(self._follow)

    def _follow(self, events: Sequence[RecordedEvent]) -> None:
        for recorded in events if not self.stands else ():
            if recorded.topic not in PROJECTION.topics:
                continue
            id = recorded.stream_id
            row = self.rows[id] = fold(self.rows.get(id, ScheduleRow()), recorded)
            self.late.pop(id, None)
            if (at := row.due(id)) is None:
                self.due.pop(id, None)
            else:
                self.due[id] = (*at, DueStream(id, recorded.tenant_id, recorded.version))
            self._changed.set()

    def _times(self) -> list[tuple[datetime, DueStream]]:
        times = [(at, row) for at, _, row in self.due.values() if at is not None]
        return sorted((max(at, self.late.get(row.stream_id, at)), row) for at, row in times)

    async def look(self, limit: int, most_waiting: int) -> DueLook:
        self.log.reach()
        await asyncio.sleep(0)
        now, times = self.clock.now(), self._times()
        due = [row for at, row in times if at <= now]
        waiting = [row for _, waits, row in self.due.values() if waits and self.late.get(row.stream_id, now) <= now]
        waiting = sorted(row for row in waiting if row.stream_id > self._after)[:most_waiting]
        self._after = waiting[-1].stream_id if len(waiting) == most_waiting else UUID(int=0)
        return DueLook(now, due[:limit], waiting, (times[0][0] - now).total_seconds() if times else None)

    async def done(self, streams: Sequence[DueStream]) -> None:
        self.log.reach()
        for stream in streams:
            if stream.stream_id in self.due and self.due[stream.stream_id][2].version <= stream.version:
                del self.due[stream.stream_id]

    async def put_off(self, streams: Sequence[DueStream], seconds: float) -> None:
        self.log.reach()
        for stream in streams:
            self.late[stream.stream_id] = self.clock.now() + timedelta(seconds=seconds)

    async def wait_for_change(self, timeout: float) -> None:
        await self.clock.wait(self._changed, timeout)
        self._changed.clear()


class MemorySchedules:
    """Implements `application.reads.MadeByAgents`, as new as the log."""

    def __init__(self, log: MemoryLog) -> None:
        self._rows: dict[UUID, ScheduleRow] = {}
        log.followers.append(self._follow)

    def _follow(self, events: Sequence[RecordedEvent]) -> None:
        for recorded in events:
            if recorded.topic in PROJECTION.topics:
                self._rows[recorded.stream_id] = fold(self._rows.get(recorded.stream_id, ScheduleRow()), recorded)

    async def made_by_agents(
        self, tenant_id: UUID, project_id: UUID, run_id: UUID, most_of_run: int, most_of_project: int
    ) -> tuple[int, int]:
        made = [row for row in self._rows.values() if row.tenant_id == tenant_id and row.made_in and row.status != "removed"]
        of_run = sum(row.made_in == run_id for row in made)
        of_project = sum(row.project_id == project_id and row.status != "finished" for row in made)
        return min(of_run, most_of_run), min(of_project, most_of_project)


class NoStoredVersions:
    """A read model of workflows that has nothing yet: the log is asked."""

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> None:
        return None

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return ()
