"""Idempotency keys of the release before, in memory."""

from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.clock import Clock
from adapters.memory.log import MemoryLog

KEPT = timedelta(hours=24)


class MemoryIdempotencyKeys:
    """Implements `application.engine.ports.idempotency.IdempotencyKeys`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self._clock = clock or log.clock
        self.begun: dict[UUID, datetime] = {}
        """Key id → the time when its request began."""

    async def expire(self) -> int:
        self.log.reach()
        before = self._clock.now() - KEPT
        old = [key_id for key_id, begun_at in self.begun.items() if begun_at < before]
        for key_id in old:
            del self.begun[key_id]
        return len(old)
