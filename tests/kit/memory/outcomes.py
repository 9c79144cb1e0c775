"""Counts of how calls ended, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from adapters.memory.log import MemoryLog
from application.engine.ports.outcomes import CountedOutcomes, NewOutcomes


@dataclass
class _Row:
    changes: int
    turn: int
    calls: int
    failures: int
    in_a_row: int
    changed_at: datetime


@dataclass
class MemoryOutcomeCounts:
    """Implements `application.engine.ports.outcomes.OutcomeCounts`."""

    log: MemoryLog
    rows: dict[tuple[UUID, UUID], _Row] = field(default_factory=dict)

    def _turn(self, window_s: float) -> int:
        return int(self.log.clock.now().timestamp() // window_s)

    async def add(self, news: Sequence[NewOutcomes]) -> Sequence[CountedOutcomes]:
        self.log.reach()
        return [self._add(new) for new in news]

    def _add(self, new: NewOutcomes) -> CountedOutcomes:
        turn, now = self._turn(new.window_s), self.log.clock.now()
        row = self.rows.setdefault((new.tenant_id, new.breaker_id), _Row(new.changes, turn, 0, 0, 0, now))
        row.changed_at = now
        if row.changes <= new.changes:
            if row.changes < new.changes:
                row.in_a_row = 0
            if (row.changes, row.turn) != (new.changes, turn):
                row.calls = row.failures = 0
            row.changes, row.turn = new.changes, turn
            row.calls += new.calls
            row.failures += new.failures
            row.in_a_row = new.in_a_row + (0 if new.succeeded else row.in_a_row)
        return CountedOutcomes(new.breaker_id, row.changes, row.calls, row.failures, row.in_a_row)

    async def of(self, tenant_id: UUID, breaker_id: UUID, window_s: float) -> CountedOutcomes | None:
        self.log.reach()
        row = self.rows.get((tenant_id, breaker_id))
        if row is None:
            return None
        same = row.turn == self._turn(window_s)
        return CountedOutcomes(breaker_id, row.changes, row.calls if same else 0, row.failures if same else 0, row.in_a_row)

    async def prune(self, older_than_s: float) -> int:
        self.log.reach()
        now = self.log.clock.now()
        old = [key for key, row in self.rows.items() if (now - row.changed_at).total_seconds() > older_than_s]
        for key in old:
            del self.rows[key]
        return len(old)
