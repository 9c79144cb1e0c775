"""Counts of how calls ended (`OutcomeCounts`): a row for each breaker, to which all processes add."""

from collections.abc import Sequence
from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.outcomes import CountedOutcomes, NewOutcomes

# In the order of the ids, so that two processes that add to the same rows wait for one another and do not deadlock. What a process
# counted for an older change of the breaker than the row knows is left out.
ADD = """
INSERT INTO breaker_count AS c (tenant_id, breaker_id, changes, turn, calls, failures, in_a_row, changed_at)
SELECT tenant, id, changes, floor(extract(epoch FROM now()) / window_s), calls, failures, in_a_row, now()
FROM unnest(%(tenants)s::uuid[], %(ids)s::uuid[], %(changes)s::int[], %(windows)s::float8[], %(calls)s::int[], %(failures)s::int[],
            %(rows)s::int[])
    AS n (tenant, id, changes, window_s, calls, failures, in_a_row), set_config('synchronous_commit', 'off', true)
ORDER BY tenant, id
ON CONFLICT (tenant_id, breaker_id) DO UPDATE SET
    changes = greatest(c.changes, EXCLUDED.changes),
    turn = CASE WHEN c.changes > EXCLUDED.changes THEN c.turn ELSE EXCLUDED.turn END,
    calls = CASE WHEN c.changes > EXCLUDED.changes THEN c.calls
                 WHEN (c.changes, c.turn) = (EXCLUDED.changes, EXCLUDED.turn) THEN c.calls + EXCLUDED.calls
                 ELSE EXCLUDED.calls END,
    failures = CASE WHEN c.changes > EXCLUDED.changes THEN c.failures
                    WHEN (c.changes, c.turn) = (EXCLUDED.changes, EXCLUDED.turn) THEN c.failures + EXCLUDED.failures
                    ELSE EXCLUDED.failures END,
    in_a_row = CASE WHEN c.changes > EXCLUDED.changes THEN c.in_a_row
                    WHEN c.changes = EXCLUDED.changes AND NOT EXCLUDED.breaker_id = ANY (%(succeeded)s)
                    THEN c.in_a_row + EXCLUDED.in_a_row ELSE EXCLUDED.in_a_row END,
    changed_at = now()
RETURNING breaker_id, changes, calls, failures, in_a_row
"""
OF = """
SELECT breaker_id, changes, CASE WHEN same THEN calls ELSE 0 END, CASE WHEN same THEN failures ELSE 0 END, in_a_row
FROM (
    SELECT *, turn = floor(extract(epoch FROM now()) / %(window)s) AS same FROM breaker_count
    WHERE tenant_id = %(tenant)s AND breaker_id = %(id)s
) AS counted
"""
PRUNE = "DELETE FROM breaker_count WHERE changed_at < now() - make_interval(secs => %s)"


class PostgresOutcomeCounts:
    """Implements the port `OutcomeCounts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, news: Sequence[NewOutcomes]) -> Sequence[CountedOutcomes]:
        values = {
            "tenants": [new.tenant_id for new in news],
            "ids": [new.breaker_id for new in news],
            "changes": [new.changes for new in news],
            "windows": [new.window_s for new in news],
            "calls": [new.calls for new in news],
            "failures": [new.failures for new in news],
            "rows": [new.in_a_row for new in news],
            "succeeded": [new.breaker_id for new in news if new.succeeded],
        }
        async with self._database.connection() as connection:
            return [CountedOutcomes(*row) for row in await (await connection.execute(ADD, values)).fetchall()]

    async def of(self, tenant_id: UUID, breaker_id: UUID, window_s: float) -> CountedOutcomes | None:
        values = {"tenant": tenant_id, "id": breaker_id, "window": window_s}
        async with self._database.connection(tenant_id) as connection:
            row = await (await connection.execute(OF, values)).fetchone()
        return None if row is None else CountedOutcomes(*row)

    async def prune(self, older_than_s: float) -> int:
        async with self._database.connection() as connection:
            return (await connection.execute(PRUNE, [older_than_s])).rowcount
