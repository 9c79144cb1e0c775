"""Permits and tokens of tools in memory: one board for all processes. It follows the functions of migration 0048."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from application.engine.ports.permits import HOLDER_LEASE_S, LimitState, Settled, ToolLimits, Wanted
from tests.kit.memory.work import MemoryOpenWork

NOBODY = UUID(int=0)


@dataclass
class Part:
    """What one holder has of one tool."""

    held: int = 0
    wanted: int = 0
    waiting_since: datetime | None = None
    tokens: int = 0


@dataclass
class ToolRow:
    limits: ToolLimits
    filled_at: datetime
    tokens: float = 0.0
    held_until: datetime | None = None
    counted_since: datetime | None = None
    parts: dict[UUID, Part] = field(default_factory=dict)


class MemoryPermits:
    """Implements the ports `PermitBook` and `PermitNews`."""

    def __init__(self, open_work: MemoryOpenWork) -> None:
        self._open_work = open_work
        self.tools: dict[tuple[UUID, str], ToolRow] = {}
        self.seen_at: dict[UUID, datetime] = {}
        self.over: set[UUID] = set()
        self.settled = 0
        """Questions so far."""
        self._calls: list[tuple[Callable[[UUID, str, UUID], None], Callable[[], None]]] = []

    def _now(self) -> datetime:
        """Raises Unavailable while the database is away."""
        self._open_work.log.reach()
        return self._open_work.clock.now()

    def call(self, told: Callable[[UUID, str, UUID], None], missed: Callable[[], None]) -> Callable[[], None]:
        one = (told, missed)
        self._calls.append(one)
        return lambda: self._calls.remove(one)

    def _tell(self, tenant_id: UUID, tool: str, by: UUID) -> None:
        for told, _ in self._calls:
            told(tenant_id, tool, by)

    async def settle(self, tenant_id: UUID, tool: str, holder_id: UUID, limits: ToolLimits, wanted: Wanted) -> Settled | None:
        now = self._now()
        self.settled += 1
        if holder_id in self.over:
            return None
        self.seen_at.setdefault(holder_id, now)
        row = self.tools.setdefault((tenant_id, tool), ToolRow(ToolLimits(-1), now))
        news = _declare(row, limits, now)
        part = row.parts.setdefault(holder_id, Part())
        waited = part.waiting_since is not None
        if part.held > wanted.keep:
            part.waiting_since = None
        part.held, part.wanted = min(part.held, wanted.keep), wanted.want
        part.tokens = max(0, part.tokens - wanted.spent - wanted.back)
        part.waiting_since = (part.waiting_since or now) if part.wanted > part.held else None
        if wanted.hold_s > 0 and row.limits.calls is not None:
            row.held_until = max(row.held_until or now, now + timedelta(seconds=wanted.hold_s))
            news = True
        granted, wait_s, hold_s = _draw(row, part, wanted, now)
        news = self._give(tenant_id, tool, row, holder_id, now) or news
        free = (row.limits.max_parallel or 0) - sum(one.held for one in row.parts.values())
        others = any(one is not part and one.wanted > one.held for one in row.parts.values())
        if free > 0 and not others and row.counted_since is None:
            part.held = max(part.held, min(wanted.like, part.held + free))
        if not (part.held or part.wanted or part.tokens):
            del row.parts[holder_id]
        if news or (part.waiting_since is not None and not waited):
            self._tell(tenant_id, tool, holder_id)
        most, total = row.limits.max_parallel, sum(one.held for one in row.parts.values())
        others = any(one is not part and one.wanted > one.held for one in row.parts.values())
        contended = most is not None and (others or total > most)
        contenders = max(1, sum(one.wanted > 0 for one in row.parts.values()))
        share = 0 if most is None else -1 if total > most else most // contenders
        return Settled(row.limits, part.held, contended, share, granted, wait_s, hold_s, row.counted_since is not None)

    def _give(self, tenant_id: UUID, tool: str, row: ToolRow, mine: UUID, now: datetime) -> bool:
        most = row.limits.max_parallel
        if most is None:
            return False
        free = most - sum(part.held for part in row.parts.values())
        if row.counted_since is not None:
            before = len(self._attempts(tenant_id, tool, None))
            free -= before
            if not before and now >= row.counted_since + timedelta(seconds=5):
                row.counted_since = None
        share = max(1, most // max(1, sum(part.wanted > 0 for part in row.parts.values())))
        others = False
        for limit in (share, None):
            waiting = [(part.waiting_since, id == mine, id, part) for id, part in row.parts.items() if part.wanted > part.held]
            for _, _, id, part in sorted(waiting, key=lambda one: one[:3]):
                given = min(free, (part.wanted if limit is None else min(part.wanted, limit)) - part.held)
                if given > 0:
                    part.held += given
                    part.waiting_since = now if part.held < part.wanted else None
                    free -= given
                    others = others or id != mine
        return others

    def _attempts(self, tenant_id: UUID, tool: str, holder_id: UUID | None) -> list[UUID]:
        work = self._open_work
        return [
            work_id
            for work_id, (_, item) in work.rows.items()
            if (item.tenant_id, item.kind, item.pool) == (tenant_id, "tool", tool)
            and work_id in work.claims
            and work.permit_holders.get(work_id) == holder_id
        ]

    async def seen(self, holder_id: UUID) -> bool:
        now = self._now()
        if holder_id in self.over or holder_id not in self.seen_at:
            return False
        self.seen_at[holder_id] = now
        return True

    async def leave(self, holder_id: UUID) -> None:
        self._now()
        self.seen_at[holder_id] = datetime.min.replace(tzinfo=self._now().tzinfo)

    async def sweep(self, lease_s: float = HOLDER_LEASE_S) -> int:
        now = self._now()
        ready = set(self.over)
        self.over |= {id for id, at in self.seen_at.items() if abs((now - at).total_seconds()) > lease_s}
        for (tenant_id, tool), row in self.tools.items():
            gone = ready & row.parts.keys()
            for id in gone:
                held = min(row.parts[id].held, len(self._attempts(tenant_id, tool, id)))
                row.parts[id] = Part(held=held, wanted=-1)
                if not held:
                    del row.parts[id]
            if gone and self._give(tenant_id, tool, row, NOBODY, now):
                self._tell(tenant_id, tool, NOBODY)
        for id in ready:
            if not any(id in row.parts for row in self.tools.values()):
                self.seen_at.pop(id, None)
                self.over.discard(id)
        return len(self.seen_at)

    async def tidy(self) -> int:
        now = self._now()
        old = [key for key, row in self.tools.items() if not row.parts and now - row.filled_at > timedelta(days=3)]
        for key in old:
            del self.tools[key]
        return len(old)

    async def state(self, tenant_id: UUID, tool: str) -> LimitState | None:
        row, now = self.tools.get((tenant_id, tool)), self._now()
        if row is None:
            return None
        parts = row.parts.values()
        in_use = sum(len(self._attempts(tenant_id, tool, id)) for id in set(self._open_work.permit_holders.values()))
        held, waiting = sum(part.held for part in parts), sum(max(0, part.wanted - part.held) for part in parts)
        since = min((part.waiting_since for part in parts if part.waiting_since is not None), default=None)
        copy = replace(row)
        _fill(copy, now)
        held_until = row.held_until if row.held_until is not None and row.held_until > now else None
        return LimitState(in_use, held, waiting, since, copy.tokens if row.limits.calls is not None else None, held_until)


def _declare(row: ToolRow, limits: ToolLimits, now: datetime) -> bool:
    before = row.limits
    if limits.declared <= before.declared:
        return False
    if limits.max_parallel is not None and before.max_parallel is None and limits.declared != 1:
        row.counted_since = now
    if before.calls is None or limits.calls is None:
        row.tokens, row.filled_at = float(limits.calls or 0), now
    row.limits = limits
    return before.declared >= 0


def _fill(row: ToolRow, now: datetime, back: int = 0) -> None:
    calls, per_s = row.limits.calls, row.limits.per_s
    if calls is None or per_s is None:
        return
    passed = max(0.0, (now - row.filled_at).total_seconds())
    row.tokens = min(calls - sum(part.tokens for part in row.parts.values()), row.tokens + back + passed * calls / per_s)
    row.filled_at = max(row.filled_at, now)


def _draw(row: ToolRow, part: Part, wanted: Wanted, now: datetime) -> tuple[int, float, float]:
    calls, per_s = row.limits.calls, row.limits.per_s
    if calls is None or per_s is None:
        return 0, 0.0, 0.0
    _fill(row, now, wanted.back)
    hold_s = max(0.0, (row.held_until - now).total_seconds()) if row.held_until is not None else 0.0
    if not wanted.ask:
        return 0, 0.0, hold_s
    if hold_s:
        return 0, hold_s, hold_s
    if row.tokens >= 1:
        granted, wait_s = min(wanted.ask, math.floor(row.tokens + 1e-9)), 0.0
    else:
        granted = min(wanted.ask, max(1, math.floor(calls / per_s / 10)), calls)
        wait_s = (1 - row.tokens) * per_s / calls
    row.tokens -= granted
    part.tokens += granted
    return granted, wait_s, hold_s
