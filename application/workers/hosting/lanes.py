"""Reports take effect in the order sent for each piece of work, and side by side for different pieces."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from application.engine.background import end
from application.engine.ports.log_context import about
from application.workers.hosting.messages import AnyReport

MOST_IDLE = 32
"""Tasks of a session that wait for work. A further task ends with its work."""


class Lanes:
    """A queue for each piece of work about which reports wait. `handle` gets the reports of one piece that wait together.

    `handle` answers each of the reports, and returns how many of them it has answered, from the first on, at least one. It raises
    nothing. A task whose queue is empty goes on with the next piece of work: a new task would cost as much as reading a report.
    """

    def __init__(self, handle: Callable[[Sequence[AnyReport]], Awaitable[int]]) -> None:
        self._handle = handle
        self._waiting: dict[UUID, deque[tuple[AnyReport, int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[UUID]] = []
        """Where tasks without work wait for it."""
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
        if self._idle:
            self._idle.pop().set_result(report.work)
            return
        task = asyncio.create_task(self._run(report.work), name="reports")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def waits(self, work_id: UUID) -> bool:
        """Whether reports about a piece of work have no answer yet."""
        return work_id in self._waiting

    async def _run(self, work_id: UUID) -> None:
        while True:
            await self._work_off(work_id)
            if self._closed or len(self._idle) >= MOST_IDLE:
                return
            about()  # nothing of the work before stands on lines about the next one
            turn: asyncio.Future[UUID] = asyncio.get_running_loop().create_future()
            self._idle.append(turn)
            work_id = await turn

    async def _work_off(self, work_id: UUID) -> None:
        waiting = self._waiting[work_id]
        try:
            while waiting and not self._closed:
                answered = await self._handle([report for report, _ in waiting])
                for _ in range(answered):
                    _, size = waiting.popleft()
                    self.open -= 1
                    self.bytes -= size
        finally:
            del self._waiting[work_id]
            for _, size in waiting:
                self.open -= 1
                self.bytes -= size
            if not self._waiting:
                self.idle.set()

    async def close(self, grace_s: float) -> None:
        """What is under way may come to its end within the grace; what waits behind it has no effect any more."""
        self._closed = True
        for turn in self._idle:
            turn.cancel()
        self._idle = []
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=grace_s)
            await end(*tasks)
