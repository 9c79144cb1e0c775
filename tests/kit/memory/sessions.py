"""Sessions of workers in memory: one board for all processes. Each operation follows the statements of the adapter."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import (
    KEPT_S,
    LEASE_S,
    MOST_LISTED,
    READY_S,
    HeldWork,
    KnownWork,
    LapsedWork,
    ListedSession,
    Look,
    Offered,
    Seen,
    UnofferedWork,
    WorkerSession,
    WorkInHand,
)
from tests.kit.memory.work import MemoryOpenWork


@dataclass(frozen=True)
class SessionRow:
    session: WorkerSession
    secret: str
    member_id: UUID
    since: datetime
    seen_at: datetime
    ended: tuple[datetime, Literal["left", "lost"]] | None = None
    offered: Offered | None = None

    def offers(self, kind: str) -> Mapping[str, str]:
        offered = self.offered or Offered()
        return offered.agents if kind == "agent" else offered.tools


@dataclass
class SessionBoard:
    """All sessions, the processes that take sessions, and the read model of the work."""

    open_work: MemoryOpenWork
    rows: dict[UUID, SessionRow] = field(default_factory=dict)
    hosts: dict[UUID, datetime] = field(default_factory=dict)

    def now(self) -> datetime:
        """Raises Unavailable while the database is away."""
        self.open_work.log.reach()
        return self.open_work.clock.now()

    def held(self) -> list[HeldWork]:
        rows = self.open_work.rows
        claims = [(rows[work_id][1], *claim) for work_id, claim in self.open_work.claims.items() if work_id in rows]
        return [_held(item, session_id, attempt) for item, session_id, attempt in claims]

    def is_over(self, session_id: UUID) -> bool:
        return session_id not in self.rows or self.rows[session_id].ended is not None

    def end(self, session_id: UUID, reason: Literal["left", "lost"]) -> None:
        self.rows[session_id] = replace(self.rows[session_id], ended=(self.now(), reason))


def _held(item: WorkItem, session_id: UUID, attempt: int) -> HeldWork:
    return HeldWork(item.tenant_id, item.kind, item.work_id, item.root_id, attempt, session_id)


class MemoryInstallationSecrets:
    """Implements `application.engine.ports.sessions.InstallationSecrets`."""

    def __init__(self, secret: bytes = b"s" * 32) -> None:
        self._secret = secret

    async def secret(self) -> bytes:
        return self._secret


class MemoryWorkerSessions:
    """Implements `application.engine.ports.sessions.WorkerSessions` for one process."""

    def __init__(self, board: SessionBoard, *, member_id: UUID | None = None) -> None:
        self.board = board
        self.member_id = member_id or uuid4()

    async def open(self, session: WorkerSession, secret: str, *, most_of_actor: int, most_of_tenant: int) -> bool:
        now, rows = self.board.now(), self.board.rows
        known = rows.get(session.session_id)
        others = [row for id, row in rows.items() if id != session.session_id and row.ended is None]
        of_tenant = [row for row in others if row.session.tenant_id == session.tenant_id]
        of_actor = [r for r in of_tenant if r.session.actor == session.actor]
        if len(of_tenant) >= most_of_tenant or len(of_actor) >= most_of_actor or (known is not None and known.secret != secret):
            return False
        fresh = SessionRow(session, secret, self.member_id, now, now)
        rows[session.session_id] = fresh if known is None else replace(known, seen_at=now)
        return True

    async def resume(self, tenant_id: UUID, session_id: UUID, secret: str, incarnation: UUID) -> WorkerSession | None:
        now, row = self.board.now(), self.board.rows.get(session_id)
        if row is None or row.ended is not None or row.secret != secret:
            return None
        if (row.session.tenant_id, row.session.incarnation) != (tenant_id, incarnation):
            return None
        self.board.rows[session_id] = replace(row, member_id=self.member_id, seen_at=now)
        return row.session

    def _mine(self, session_ids: Sequence[UUID]) -> list[UUID]:
        rows = ((id, self.board.rows.get(id)) for id in session_ids)
        return [id for id, row in rows if row is not None and row.ended is None and row.member_id == self.member_id]

    async def seen(self, session_ids: Sequence[UUID]) -> Seen:
        now, mine = self.board.now(), self._mine(session_ids)
        self.board.hosts[self.member_id] = now
        for id in mine:
            self.board.rows[id] = replace(self.board.rows[id], seen_at=now)
        return Seen(frozenset(mine), bool(self.board.rows))

    async def withdraw(self) -> None:
        self.board.now()
        self.board.hosts.pop(self.member_id, None)

    async def end(self, session_ids: Sequence[UUID]) -> None:
        self.board.now()
        for id in self._mine(session_ids):
            self.board.end(id, "left")

    def _going_on(self, tenant_id: UUID) -> list[SessionRow]:
        return [row for row in self.board.rows.values() if row.session.tenant_id == tenant_id and row.ended is None]

    async def offer(self, session_id: UUID, offered: Offered) -> None:
        self.board.now()
        if session_id in self.board.rows:
            self.board.rows[session_id] = replace(self.board.rows[session_id], offered=offered)

    async def of_tenant(
        self, tenant_id: UUID, *, limit: int = MOST_LISTED, after: tuple[str, UUID] | None = None
    ) -> list[ListedSession]:
        self.board.now()
        held = self.board.held()
        listed = [
            ListedSession(
                row.session,
                row.since,
                row.seen_at,
                sum(work.kind == "agent" for work in held if work.session_id == row.session.session_id),
                sum(work.kind == "tool" for work in held if work.session_id == row.session.session_id),
                row.offered,
            )
            for row in self._going_on(tenant_id)
            if after is None or (row.session.worker_id, row.session.session_id) > after
        ]
        return sorted(listed, key=lambda one: (one.session.worker_id, one.session.session_id))[:limit]

    async def in_hand(self, tenant_id: UUID, session_id: UUID, *, limit: int) -> list[WorkInHand] | None:
        self.board.now()
        if all(row.session.session_id != session_id for row in self._going_on(tenant_id)):
            return None
        rows, claims = self.board.open_work.rows, self.board.open_work.claims
        found = [(*rows[id], attempt) for id, (session, attempt) in claims.items() if session == session_id and id in rows]
        mine = sorted((row for row in found if row[1].tenant_id == tenant_id), key=lambda row: (row[0], row[1].work_id))
        return [WorkInHand(item.kind, item.pool, item.work_id, item.root_id, attempt, at) for at, item, attempt in mine[:limit]]

    async def offering(self, tenant_id: UUID, kind: str, names: Sequence[str]) -> Mapping[str, int]:
        self.board.now()
        offers = {(row.session.worker_id, name) for row in self._going_on(tenant_id) for name in row.offers(kind)}
        return dict(Counter(name for _, name in offers if name in names))

    async def unoffered(self, *, waiting_s: float, limit: int) -> list[UnofferedWork]:
        now, found = self.board.now(), dict[tuple[str, str], list[float]]()
        for work_id, (at, item) in self.board.open_work.rows.items():
            waits_s = (now - at).total_seconds()
            sessions = self._going_on(item.tenant_id)
            offered = any(row.offered is None or item.pool in row.offers(item.kind) for row in sessions)
            if work_id not in self.board.open_work.claims and waits_s > waiting_s and not offered:
                found.setdefault((item.kind, item.pool), []).append(waits_s)
        queues = [UnofferedWork(kind, name, len(waits), max(waits)) for (kind, name), waits in found.items()]
        return sorted(queues, key=lambda queue: (-queue.oldest_waiting_s, queue.kind, queue.name))[:limit]

    async def held_by(self, session_ids: Sequence[UUID]) -> KnownWork:
        self.board.now()
        table = self.board.open_work
        position = table.log.head if table.stands_at is None else table.stands_at
        found = [work for work in self.board.held() if work.session_id in session_ids]
        return KnownWork(position, sorted(found, key=lambda work: (work.session_id, work.work_id)))

    async def over(self, session_ids: Sequence[UUID]) -> frozenset[UUID]:
        self.board.now()
        return frozenset(id for id in session_ids if self.board.is_over(id))

    def _unseen(self, lease_s: float) -> set[UUID]:
        now, lease = self.board.now(), timedelta(seconds=lease_s)
        going_on = {id: row for id, row in self.board.rows.items() if row.ended is None}
        return {id for id, row in going_on.items() if not now - lease <= row.seen_at <= now + lease}

    async def look(self, *, lease_s: float = LEASE_S, ready_s: float = READY_S) -> Look:
        now, ready = self.board.now(), timedelta(seconds=ready_s)
        hosts = sum(now - ready <= at <= now + ready for at in self.board.hosts.values())
        over = sum(row.ended is not None for row in self.board.rows.values())
        return Look(now, hosts, len(self.board.rows) - over, over, frozenset(self._unseen(lease_s)))

    async def lose(self, session_ids: Sequence[UUID], *, lease_s: float = LEASE_S) -> None:
        for id in self._unseen(lease_s) & set(session_ids):
            self.board.end(id, "lost")

    async def lapsed(self, *, after: UUID | None, limit: int) -> list[LapsedWork]:
        self.board.now()
        found = []
        for work in sorted(self.board.held(), key=lambda work: work.work_id):
            if self.board.is_over(work.session_id) and (after is None or work.work_id > after):
                row = self.board.rows.get(work.session_id)
                found.append(LapsedWork(work, row.ended[1] if row is not None and row.ended is not None else "lost"))
        return found[:limit]

    async def tidy(self, *, kept_s: float = KEPT_S) -> None:
        now, busy = self.board.now(), {work.session_id for work in self.board.held()}
        old = [
            id
            for id, row in self.board.rows.items()
            if row.ended is not None and row.ended[0] < now - timedelta(seconds=kept_s) and id not in busy
        ]
        for id in old:
            del self.board.rows[id]
        minute = timedelta(minutes=1)
        self.board.hosts = {id: at for id, at in self.board.hosts.items() if now - minute <= at <= now + minute}
