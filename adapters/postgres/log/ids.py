"""The log by ids (`LogIndex`)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from adapters.postgres.pool import Connection, Connections, translate_errors
from application.engine.ports.ids import StreamStart

# From one stream to the next by the index event_stream_key: a stream costs one look-up, however many events it has. A condition on
# the tenant inside would make the look-up go on through the streams of others.
STREAMS_SQL = """
    WITH RECURSIVE found AS (
        (SELECT originator_id, root_id, topic, notification_id, tenant_id, 1 AS number FROM event
         WHERE originator_id >= %(first)s AND originator_id <= %(last)s ORDER BY originator_id, originator_version LIMIT 1)
        UNION ALL
        SELECT following.*, found.number + 1 FROM found
        CROSS JOIN LATERAL (
            SELECT originator_id, root_id, topic, notification_id, tenant_id FROM event
            WHERE originator_id > found.originator_id AND originator_id <= %(last)s
            ORDER BY originator_id, originator_version LIMIT 1
        ) AS following
        WHERE found.number <= %(limit)s
    )
    SELECT originator_id, root_id, topic, notification_id, tenant_id = %(tenant)s FROM found
"""
OF_COMMAND_SQL = "SELECT last_position, event_count FROM command WHERE tenant_id = %s AND command_id = %s"
OF_EVENT_SQL = "SELECT notification_id, tenant_id = %s FROM event WHERE originator_id = %s AND originator_version = %s"


class PostgresLogIndex:
    """Implements the port `LogIndex`."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    async def streams(self, tenant_id: UUID, first: UUID, last: UUID, *, limit: int) -> tuple[list[StreamStart], bool]:
        asked = {"tenant": tenant_id, "first": first, "last": last, "limit": limit}
        async with self._connection() as connection:
            rows = sorted(await (await connection.execute(STREAMS_SQL, asked)).fetchall())
        return [StreamStart(*row[:4]) for row in rows[:limit] if row[4]], len(rows) <= limit

    async def of_command(self, tenant_id: UUID, command_id: UUID) -> range | None:
        async with self._connection() as connection:
            row = await (await connection.execute(OF_COMMAND_SQL, (tenant_id, command_id))).fetchone()
        return None if row is None else range(row[0] - row[1] + 1, row[0] + 1)

    async def of_event(self, tenant_id: UUID, stream_id: UUID, version: int) -> int | None:
        async with self._connection() as connection:
            row = await (await connection.execute(OF_EVENT_SQL, (tenant_id, stream_id, version))).fetchone()
        return int(row[0]) if row is not None and row[1] else None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        with translate_errors():
            async with self._pool.connection() as connection:
                yield connection
