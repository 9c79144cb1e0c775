"""Reports of workers in memory."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from adapters.memory.clock import Clock
from adapters.memory.log import MemoryLog
from application.engine.ports.problems import KEPT_S, MAX_PROBLEMS, MAX_WORKERS, ReportedProblem, WorkerProblem


class MemoryWorkerProblems:
    """Implements `application.engine.ports.problems.WorkerProblems`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self.clock = clock or log.clock
        self.reports: dict[tuple[UUID, str], tuple[datetime, list[WorkerProblem]]] = {}

    async def report(self, tenant_id: UUID, worker_id: str, problems: Sequence[WorkerProblem]) -> None:
        self.log.reach()
        self.reports.pop((tenant_id, worker_id), None)
        if problems:
            self.reports[tenant_id, worker_id] = self.clock.now(), list(problems[:MAX_PROBLEMS])
            for key in [key for key in self.reports if key[0] == tenant_id][:-MAX_WORKERS]:
                del self.reports[key]

    async def of_tenant(self, tenant_id: UUID, limit: int) -> Sequence[ReportedProblem]:
        self.log.reach()
        found = [(at, worker_id, problems) for (tenant, worker_id), (at, problems) in self._kept().items() if tenant == tenant_id]
        listed = [ReportedProblem(worker_id, at, problem) for at, worker_id, problems in reversed(found) for problem in problems]
        return listed[:limit]

    async def count(self) -> int:
        self.log.reach()
        return sum(len(problems) for _, problems in self._kept().values())

    def _kept(self) -> dict[tuple[UUID, str], tuple[datetime, list[WorkerProblem]]]:
        since = self.clock.now() - timedelta(seconds=KEPT_S)
        return {key: report for key, report in self.reports.items() if report[0] >= since}
