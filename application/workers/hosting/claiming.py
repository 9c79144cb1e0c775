"""The work that a process is claiming at this moment."""

import asyncio
from uuid import UUID


class Claiming:
    """Ids of work whose claims by this process have no answer yet, or whose hand-over is still to come."""

    def __init__(self) -> None:
        self._ids: set[UUID] = set()
        self._over: dict[UUID, asyncio.Event] = {}
        """Where somebody waits."""

    def __contains__(self, work_id: UUID) -> bool:
        return work_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, work_id: UUID) -> None:
        self._ids.add(work_id)

    def discard(self, work_id: UUID) -> None:
        self._ids.discard(work_id)
        if (over := self._over.pop(work_id, None)) is not None:
            over.set()

    async def over(self, work_id: UUID) -> None:
        """Returns when this process does not claim the work."""
        while work_id in self._ids:
            await self._over.setdefault(work_id, asyncio.Event()).wait()
