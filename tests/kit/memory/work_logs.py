"""Lines of agents and tools in memory."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.work_logs import KEPT_DAYS, MOST_LINES, PAGE_BYTES, LinePage, NewLines, WorkLine


@dataclass
class _OfRun:
    lines: list[tuple[int, WorkLine, datetime]] = field(default_factory=list)
    last = beyond = lost = 0
    changed_at: datetime | None = None


class MemoryWorkLogs:
    """Implements `application.engine.ports.work_logs.WorkLogs`."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.writes = 0
        self.runs: dict[tuple[UUID, UUID], _OfRun] = defaultdict(_OfRun)

    async def write(self, news: Sequence[NewLines]) -> Collection[tuple[UUID, UUID]]:
        self.log.reach()
        self.writes += 1
        now, full = self.log.clock.now(), set()
        for new in news:
            run = self.runs[new.tenant_id, new.run_id]
            room = max(0, MOST_LINES - run.last)
            for line in new.lines[:room]:
                run.last += 1
                run.lines.append((run.last, line, now))
            run.beyond += new.beyond + max(0, len(new.lines) - room)
            run.lost += new.lost
            run.changed_at = now
            if run.last >= MOST_LINES:
                full.add((new.tenant_id, new.run_id))
        return full

    async def page(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: int,
        limit: int,
        level: int = 0,
        agent: str | None = None,
        step: str | None = None,
    ) -> LinePage:
        self.log.reach()
        run = self.runs.get((tenant_id, run_id), _OfRun())
        found = [
            (number, line) for number, line, _ in run.lines
            if number > after and line.level >= level and agent in (None, line.author.agent) and step in (None, line.author.step)
        ]  # fmt: skip
        shown, size = 0, 0
        while shown < min(limit, len(found)) and size < PAGE_BYTES:
            size += len(found[shown][1].text.encode())
            shown += 1
        return LinePage(found[:shown], len(found) > shown, run.beyond, run.lost, run.changed_at)

    async def keep(self) -> int:
        self.log.reach()
        today = self.log.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
        before, gone = today - timedelta(days=KEPT_DAYS), 0
        for key, run in list(self.runs.items()):
            kept = [item for item in run.lines if item[2] >= before]
            gone += len(run.lines) - len(kept)
            run.lines = kept
            if run.changed_at is not None and run.changed_at < before:
                del self.runs[key]
        return gone
