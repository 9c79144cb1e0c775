"""Reports of workers about files that they cannot use (`WorkerProblems`): a row for each worker, which expires."""

from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

import orjson

from adapters.postgres.database import Database
from application.engine.ports.problems import KEPT_S, MAX_PROBLEMS, MAX_WORKERS, ReportedProblem, WorkerProblem

KEEP = """
INSERT INTO worker_problem (tenant_id, worker_id, problems, count, reported_at, expires_at)
VALUES (%(tenant)s, %(worker)s, %(problems)s, %(count)s, now(), now() + make_interval(secs => %(kept)s))
ON CONFLICT (tenant_id, worker_id) DO UPDATE SET problems = EXCLUDED.problems, count = EXCLUDED.count,
    reported_at = EXCLUDED.reported_at, expires_at = EXCLUDED.expires_at
"""
PRUNE = """
DELETE FROM worker_problem WHERE expires_at < now() OR tenant_id = %(tenant)s AND worker_id IN (
    SELECT worker_id FROM worker_problem WHERE tenant_id = %(tenant)s ORDER BY reported_at DESC OFFSET %(most)s
)
"""
FORGET = "DELETE FROM worker_problem WHERE tenant_id = %s AND worker_id = %s"
OF_TENANT = """
SELECT worker_id, reported_at, problems FROM worker_problem WHERE tenant_id = %s AND expires_at >= now()
ORDER BY reported_at DESC, worker_id LIMIT %s
"""
COUNT = "SELECT coalesce(sum(count), 0) FROM worker_problem WHERE expires_at >= now()"


class PostgresWorkerProblems:
    """Implements the port `WorkerProblems`."""

    def __init__(self, database: Database, *, health: Database | None = None, kept_s: float = KEPT_S) -> None:
        """`health`: counts over these connections, so that health does not wait behind commands."""
        self._database = database
        self._health = health or database
        self._kept_s = kept_s

    async def report(self, tenant_id: UUID, worker_id: str, problems: Sequence[WorkerProblem]) -> None:
        kept = problems[:MAX_PROBLEMS]
        async with self._database.connection() as connection:
            if not kept:
                await connection.execute(FORGET, [tenant_id, worker_id])
                return
            text = orjson.dumps([asdict(problem) for problem in kept]).decode()
            values = {"tenant": tenant_id, "worker": worker_id, "problems": text, "count": len(kept), "kept": self._kept_s}
            await connection.execute(KEEP, values)
            await connection.execute(PRUNE, {"tenant": tenant_id, "most": MAX_WORKERS})

    async def of_tenant(self, tenant_id: UUID, limit: int) -> Sequence[ReportedProblem]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(OF_TENANT, [tenant_id, limit])).fetchall()
        found = [
            ReportedProblem(worker_id, reported_at, WorkerProblem(**problem))
            for worker_id, reported_at, problems in rows
            for problem in orjson.loads(problems)
        ]
        return found[:limit]

    async def count(self) -> int:
        async with self._health.connection() as connection:
            row = await (await connection.execute(COUNT)).fetchone()
        return int(row[0]) if row else 0
