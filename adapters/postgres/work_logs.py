"""Lines of agents and tools in PostgreSQL (`WorkLogs`): a partition for each day, and a row for each run that counts its lines."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from psycopg.errors import CheckViolation

from adapters.postgres.database import Database
from application.engine.ports.work_logs import KEPT_DAYS, MOST_LINES, PAGE_BYTES, Author, LinePage, NewLines, WorkLine

AHEAD_DAYS = 7

# Numbers are given under the lock of the run's row. So a reader who has seen a number has seen all before it.
WRITE = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenants)s::uuid[], %(runs)s::uuid[], %(numbers)s::integer[], %(times)s::timestamptz[], %(steps)s::text[],
        %(agents)s::text[], %(tools)s::text[], %(calls)s::uuid[], %(attempts)s::bigint[], %(levels)s::smallint[], %(texts)s::text[]
    ) AS given (tenant_id, run_id, number, written_at, step, agent, tool, invocation_id, attempt, level, text)
), tally AS (
    INSERT INTO work_log_tally AS t (tenant_id, run_id, lines, added, beyond, lost, changed_at)
    SELECT tenant_id, run_id, least(count, %(most)s), least(count, %(most)s), beyond + greatest(count - %(most)s, 0), lost, now()
    FROM unnest(
        %(of_tenants)s::uuid[], %(of_runs)s::uuid[], %(counts)s::integer[], %(beyonds)s::bigint[], %(losts)s::bigint[]
    ) AS new (tenant_id, run_id, count, beyond, lost)
    ORDER BY tenant_id, run_id
    ON CONFLICT (tenant_id, run_id) DO UPDATE SET
        lines = least(t.lines + EXCLUDED.added, greatest(t.lines, %(most)s)),
        added = least(EXCLUDED.added, greatest(%(most)s - t.lines, 0)),
        beyond = t.beyond + EXCLUDED.beyond + EXCLUDED.added - least(EXCLUDED.added, greatest(%(most)s - t.lines, 0)),
        lost = t.lost + EXCLUDED.lost, changed_at = EXCLUDED.changed_at
    RETURNING tenant_id, run_id, lines, added
), written AS (
    INSERT INTO work_log (tenant_id, run_id, line, received_at, written_at, step, agent, tool, invocation_id, attempt, level, text)
    SELECT g.tenant_id, g.run_id, t.lines - t.added + g.number, now(), g.written_at, g.step, g.agent, g.tool, g.invocation_id,
           g.attempt, g.level, g.text
    FROM given AS g JOIN tally AS t USING (tenant_id, run_id) WHERE g.number <= t.added
)
SELECT set_config('synchronous_commit', 'off', true), tenant_id, run_id FROM tally WHERE lines >= %(most)s
UNION ALL SELECT set_config('synchronous_commit', 'off', true), NULL, NULL
"""
PAGE = """
SELECT line, written_at, level, text, step, agent, attempt, tool, invocation_id, found FROM (
    SELECT page.*, sum(octet_length(text)) OVER (ORDER BY line) - octet_length(text) AS before, count(*) OVER () AS found FROM (
        SELECT line, written_at, level, text, step, agent, attempt, tool, invocation_id FROM work_log
        WHERE tenant_id = %(tenant)s AND run_id = %(run)s AND line > %(after)s AND level >= %(level)s
          AND (%(agent)s::text IS NULL OR agent = %(agent)s) AND (%(step)s::text IS NULL OR step = %(step)s)
        ORDER BY line LIMIT %(limit)s
    ) AS page
) AS sized WHERE before < %(bytes)s ORDER BY line
"""
TALLY = "SELECT beyond, lost, changed_at FROM work_log_tally WHERE tenant_id = %s AND run_id = %s"
KEEP = "SELECT keep_work_logs(%s, %s)"


class PostgresWorkLogs:
    """Implements the port `WorkLogs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, news: Sequence[NewLines]) -> Collection[tuple[UUID, UUID]]:
        values = _values(news)
        try:
            rows = await self._write(values)
        except CheckViolation:  # the upkeep has not run for so long that today has no partition
            await self.keep()
            rows = await self._write(values)
        return {(tenant_id, run_id) for _, tenant_id, run_id in rows if run_id is not None}

    async def _write(self, values: dict[str, Any]) -> Sequence[tuple[Any, ...]]:
        async with self._database.connection() as connection:
            return await (await connection.execute(WRITE, values)).fetchall()

    async def page(
        self,
        tenant_id: UUID,
        run_id: UUID,
        *,
        after: int,
        limit: int,
        level: int = 0,
        agent: str | None = None,
        step: str | None = None,
    ) -> LinePage:
        wanted = {
            "tenant": tenant_id, "run": run_id, "after": after, "level": level, "agent": agent, "step": step, "limit": limit + 1,
            "bytes": PAGE_BYTES,
        }  # fmt: skip
        async with self._database.connection(tenant_id) as connection:
            # The tally first: lines that are recorded in between are then on the page, and what it counts is not too much.
            tally = await (await connection.execute(TALLY, [tenant_id, run_id])).fetchone()
            rows = await (await connection.execute(PAGE, wanted)).fetchall()
        lines = [
            (line, WorkLine(Author(tenant_id, run_id, step, agent, attempt, tool, call), written_at, level, text))
            for line, written_at, level, text, step, agent, attempt, tool, call, _ in rows[:limit]
        ]
        beyond, lost, changed_at = tally if tally is not None else (0, 0, None)
        return LinePage(lines, bool(rows) and rows[0][-1] > len(lines), beyond, lost, changed_at)

    async def keep(self) -> int:
        async with self._database.connection() as connection:
            row = await (await connection.execute(KEEP, [AHEAD_DAYS, KEPT_DAYS])).fetchone()
        return int(row[0]) if row else 0


def _values(news: Sequence[NewLines]) -> dict[str, Any]:
    numbered = [(number, line) for new in news for number, line in enumerate(new.lines, 1)]
    authors = [line.author for _, line in numbered]
    return {
        "most": MOST_LINES,
        "of_tenants": [new.tenant_id for new in news],
        "of_runs": [new.run_id for new in news],
        "counts": [len(new.lines) for new in news],
        "beyonds": [new.beyond for new in news],
        "losts": [new.lost for new in news],
        "numbers": [number for number, _ in numbered],
        "times": [line.written_at for _, line in numbered],
        "levels": [line.level for _, line in numbered],
        "texts": [line.text for _, line in numbered],
        "tenants": [author.tenant_id for author in authors],
        "runs": [author.run_id for author in authors],
        "steps": [author.step for author in authors],
        "agents": [author.agent for author in authors],
        "tools": [author.tool for author in authors],
        "calls": [author.invocation_id for author in authors],
        "attempts": [author.attempt for author in authors],
    }
