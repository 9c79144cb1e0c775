"""What workers cannot use of the files that they were given: their reports, kept for a while."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

KEPT_S = 180.0
"""Seconds until a report expires. A worker reports again before, so only the reports of vanished workers expire."""
MAX_PROBLEMS = 100
"""Problems of one report."""
MAX_WORKERS = 200
"""Workers of a tenant whose reports are kept. The oldest report goes first."""


@dataclass(frozen=True, slots=True)
class WorkerProblem:
    """A file, or a definition in it, that a worker cannot use."""

    path: str
    kind: str
    """Stable, for programs: `import-failed`, `invalid-name`, …"""
    message: str
    """The place and the reason, for people."""


@dataclass(frozen=True, slots=True)
class ReportedProblem:
    worker_id: str
    reported_at: datetime
    problem: WorkerProblem


class WorkerProblems(Protocol):
    """The newest report of each worker."""

    async def report(self, tenant_id: UUID, worker_id: str, problems: Sequence[WorkerProblem]) -> None:
        """Replaces the report of a worker. Without problems the worker has none any more. Raises Unavailable."""
        ...

    async def of_tenant(self, tenant_id: UUID, limit: int) -> Sequence[ReportedProblem]:
        """Problems that have not expired, those of the newest report first. Raises Unavailable."""
        ...

    async def count(self) -> int:
        """Number of problems of all tenants that have not expired. Raises Unavailable."""
        ...
