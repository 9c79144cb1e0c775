"""Durable timers over the table that the projection `timers` keeps.

`set_at` and `due_at` come from the log, whose times never go back. If the database's clock is set back, they lie in the future by
as much. `due` then notes in `no_later_than` that the timer fires one delay after the look that found it so. If the clock is set
back again, the time that was noted lies in the future too, and is noted anew.
"""

from collections.abc import Sequence
from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.database import Listener
from application.engine.ports.timers import PARKED_AS, DueTimer

# The delay is added in seconds: a difference of timestamps has days, and a day may have 23 hours in the time zone of a session.
OF_THE_FUTURE = """
UPDATE timer SET no_later_than = now() + make_interval(secs => extract(epoch FROM due_at - set_at)::float8)
WHERE set_at > now() AND (
    no_later_than IS NULL OR no_later_than > now() + make_interval(secs => extract(epoch FROM due_at - set_at)::float8)
)
"""
DUE = """
SELECT timer_id, tenant_id, root_id, command, payload, correlation_id, cause FROM timer
WHERE LEAST(due_at, no_later_than) <= now() ORDER BY LEAST(due_at, no_later_than) LIMIT %s
"""
NEXT = "SELECT extract(epoch FROM min(LEAST(due_at, no_later_than)) - now())::float8 FROM timer"
DELETE = "DELETE FROM timer WHERE timer_id = ANY (%s)"
PARK = """
WITH gone AS (DELETE FROM timer WHERE timer_id = %(timer)s RETURNING stream_id, cause)
INSERT INTO parked_event (consumer, position, root_id, tenant_id, topic, error)
SELECT %(consumer)s, notification_id, root_id, tenant_id, topic, %(error)s FROM event
WHERE tenant_id = %(tenant)s AND originator_id = %(stream)s AND originator_version = %(version)s AND EXISTS (SELECT FROM gone)
ON CONFLICT DO NOTHING
"""


class PostgresTimers:
    """The `Timers` port over the table."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener

    async def due(self, limit: int) -> list[DueTimer]:
        async with self._database.connection() as connection:
            await connection.execute(OF_THE_FUTURE)
            rows = await (await connection.execute(DUE, [limit])).fetchall()
        return [DueTimer(r[0], r[1], r[2], r[3], r[4].encode(), r[5], r[6]) for r in rows]

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(DELETE, [list(timer_ids)])

    async def park(self, timer: DueTimer, error: str) -> None:
        stream, _, version = timer.cause.rpartition(":")
        parameters = {
            "timer": timer.timer_id, "consumer": PARKED_AS, "tenant": timer.tenant_id, "stream": UUID(stream),
            "version": int(version), "error": error[:10_000].replace("\x00", ""),
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(PARK, parameters)

    async def seconds_until_next(self) -> float | None:
        async with self._database.connection() as connection:
            row = await (await connection.execute(NEXT)).fetchone()
        return row[0] if row else None

    async def wait_for_change(self, timeout: float) -> None:
        await self._listener.wait(timeout)
