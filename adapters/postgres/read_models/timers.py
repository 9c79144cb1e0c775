"""Durable timers over the table that the projection `timers` keeps."""

from collections.abc import Sequence
from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.database import Listener
from application.engine.ports.timers import DueTimer


class PostgresTimers:
    """The `Timers` port over the table."""

    def __init__(self, database: Database, listener: Listener) -> None:
        self._database = database
        self._listener = listener

    async def due(self, limit: int) -> list[DueTimer]:
        sql = """
        SELECT timer_id, tenant_id, root_id, command, payload, correlation_id, cause FROM timer
        WHERE due_at <= now() ORDER BY due_at LIMIT %s
        """
        async with self._database.connection() as connection:
            rows = await (await connection.execute(sql, [limit])).fetchall()
        return [DueTimer(r[0], r[1], r[2], r[3], r[4].encode(), r[5], r[6]) for r in rows]

    async def delete(self, timer_ids: Sequence[UUID]) -> None:
        async with self._database.connection() as connection:
            await connection.execute("DELETE FROM timer WHERE timer_id = ANY (%s)", [list(timer_ids)])

    async def seconds_until_next(self) -> float | None:
        async with self._database.connection() as connection:
            row = await (await connection.execute("SELECT extract(epoch FROM min(due_at) - now())::float8 FROM timer")).fetchone()
        return row[0] if row else None

    async def wait_for_change(self, timeout: float) -> None:
        await self._listener.wait(timeout)
