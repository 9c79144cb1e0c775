"""Idempotency keys in memory."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from application.engine.ports.idempotency import Begun, KeyInUse, StoredAnswer
from tests.kit.memory.clock import Clock
from tests.kit.memory.log import MemoryLog

KEPT = timedelta(hours=24)
DEAD_AFTER = timedelta(seconds=30)
"""A request without an answer at this time counts as dead."""


@dataclass
class _Row:
    body_sha256: str
    command_id: UUID
    begun_at: datetime
    released: bool = False
    answer: StoredAnswer | None = None


class MemoryIdempotencyKeys:
    """Implements `application.engine.ports.idempotency.IdempotencyKeys`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self._clock = clock or log.clock
        self.rows: dict[UUID, _Row] = {}

    async def begin(self, key_id: UUID, *, tenant_id: UUID, body_sha256: str, command_id: UUID) -> Begun | KeyInUse:
        self.log.reach()
        now, row = self._clock.now(), self.rows.get(key_id)
        if row is None or row.begun_at < now - KEPT:
            self.rows[key_id] = _Row(body_sha256, command_id, now)
            return Begun(command_id)
        gone = row.released or abs(now - row.begun_at) > DEAD_AFTER
        if row.answer is None and row.body_sha256 == body_sha256 and gone:
            row.begun_at, row.released = now, False
            return Begun(row.command_id)
        return KeyInUse(row.body_sha256, row.answer)

    async def finish(self, key_id: UUID, answer: StoredAnswer) -> None:
        self.log.reach()
        if (row := self.rows.get(key_id)) is not None:
            row.answer = answer

    async def forget(self, key_id: UUID) -> None:
        self.log.reach()
        if (row := self.rows.get(key_id)) is not None and row.answer is None:
            del self.rows[key_id]

    async def release(self, key_id: UUID) -> None:
        self.log.reach()
        if (row := self.rows.get(key_id)) is not None and row.answer is None:
            row.released = True

    async def expire(self) -> int:
        self.log.reach()
        before = self._clock.now() - KEPT
        old = [key_id for key_id, row in self.rows.items() if row.begun_at < before]
        for key_id in old:
            del self.rows[key_id]
        return len(old)
