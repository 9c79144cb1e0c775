"""Reports take effect in the order sent for each piece of work, and side by side for different pieces."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from application.engine.background import end
from application.workers.hosting.messages import AnyReport


class Lanes:
    """A queue for each piece of work about which reports wait. `handle` gets the reports of one piece that wait together.

    `handle` answers each of the reports, and returns how many of them it has answered, from the first on, at least one. It raises
    nothing.
    """

    def __init__(self, handle: Callable[[Sequence[AnyReport]], Awaitable[int]]) -> None:
        self._handle = handle
        self._waiting: dict[UUID, deque[tuple[AnyReport, int]]] = {}
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._closed = False
        self.open = 0
        """Reports that have no answer yet."""
        self.bytes = 0
        """Their size."""
        self.idle = asyncio.Event()
        self.idle.set()

    def put(self, report: AnyReport, size: int) -> None:
        self.open += 1
        self.bytes += size
        self.idle.clear()
        waiting = self._waiting.get(report.work)
        if waiting is not None:
            waiting.append((report, size))
            return
        self._waiting[report.work] = deque([(report, size)])
        self._tasks[report.work] = asyncio.create_task(self._run(report.work), name=f"reports-{report.work}")

    def waits(self, work_id: UUID) -> bool:
        """Whether reports about a piece of work have no answer yet."""
        return work_id in self._waiting

    async def _run(self, work_id: UUID) -> None:
        waiting = self._waiting[work_id]
        try:
            while waiting and not self._closed:
                answered = await self._handle([report for report, _ in waiting])
                for _ in range(answered):
                    _, size = waiting.popleft()
                    self.open -= 1
                    self.bytes -= size
        finally:
            del self._waiting[work_id], self._tasks[work_id]
            for _, size in waiting:
                self.open -= 1
                self.bytes -= size
            if not self._waiting:
                self.idle.set()

    async def close(self, grace_s: float) -> None:
        """What is under way may come to its end within the grace; what waits behind it has no effect any more."""
        self._closed = True
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
            await end(*tasks)
