"""The reconciler puts open work on the queue again, in case the queue lost it."""

import asyncio

from application.engine.ports.queue import OpenWork, WorkQueue
from application.engine.retry import persistently

SWEEP_EVERY_S = 30.0
SWEEP_OLDER_THAN_S = 15.0
SWEEP_PAGE = 500


class WorkReconciler:
    """Puts open work on the queue again. The queue itself ignores an item that still waits there."""

    def __init__(self, open_work: OpenWork, queue: WorkQueue) -> None:
        self._open_work = open_work
        self._queue = queue

    async def run(self) -> None:
        while True:
            await persistently(self.sweep)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def sweep(self) -> None:
        after = None
        while True:
            page = await self._open_work.older_than(SWEEP_OLDER_THAN_S, after=after, limit=SWEEP_PAGE)
            if not page:
                return
            await self._queue.publish(page)
            after = page[-1].work_id
