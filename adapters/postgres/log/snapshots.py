"""Snapshots beside the log (the port `Snapshots`): read together with the events after them, in one statement."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

from adapters.postgres.log.event_store import EVENT_COLUMNS, LAST_POSITION
from adapters.postgres.pool import Connections, translate_errors
from application.engine.ports.snapshots import Snapshot, SnapshotPlace, StreamSince
from domain.kernel import RecordedEvent

# The row of the snapshot, if there is one, comes first and has no topic. The snapshot counts only if its last event stands in the
# log at the same place: in a database restored from backups of different times a snapshot may be ahead of the stream, or beside it.
READ_SQL = f"""
    WITH base AS MATERIALIZED (
        SELECT version, position, state FROM snapshot
        WHERE stream_id = %(stream)s AND tenant_id = %(tenant)s AND slice = %(slice)s AND model = %(model)s
          AND position <= %(until)s AND EXISTS (
              SELECT FROM event WHERE originator_id = snapshot.stream_id AND originator_version = snapshot.version
                AND notification_id = snapshot.position AND tenant_id = snapshot.tenant_id
          )
        ORDER BY version DESC LIMIT 1
    )
    SELECT position AS notification_id, NULL::uuid AS tenant_id, NULL::uuid AS originator_id, version AS originator_version,
           NULL::uuid AS root_id, NULL::text AS topic, NULL::smallint AS schema_version, state, NULL::text AS metadata,
           NULL::timestamptz AS recorded_at, 0::bigint AS settled
    FROM base
    UNION ALL
    (SELECT {EVENT_COLUMNS} FROM event
     WHERE originator_id = %(stream)s AND originator_version > coalesce((SELECT version FROM base), 0)
       AND tenant_id = %(tenant)s AND notification_id <= %(until)s
     ORDER BY originator_version LIMIT %(limit)s::bigint)
    ORDER BY originator_version
"""
# As above, for several streams: each with its place, and the row of a snapshot again without a topic.
READ_STREAMS_SQL = f"""
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[])
        WITH ORDINALITY AS wanted (tenant_id, stream_id, slice, model, place)
    ), base AS MATERIALIZED (
        SELECT wanted.place, newest.* FROM wanted CROSS JOIN LATERAL (
            SELECT version, position, state FROM snapshot
            WHERE stream_id = wanted.stream_id AND tenant_id = wanted.tenant_id AND slice = wanted.slice AND model = wanted.model
              AND EXISTS (
                  SELECT FROM event WHERE originator_id = snapshot.stream_id AND originator_version = snapshot.version
                    AND notification_id = snapshot.position AND tenant_id = snapshot.tenant_id
              )
            ORDER BY version DESC LIMIT 1
        ) AS newest
    )
    SELECT place, position AS notification_id, NULL::uuid AS tenant_id, NULL::uuid AS originator_id, version AS originator_version,
           NULL::uuid AS root_id, NULL::text AS topic, NULL::smallint AS schema_version, state, NULL::text AS metadata,
           NULL::timestamptz AS recorded_at, 0::bigint AS settled
    FROM base
    UNION ALL
    SELECT wanted.place, newer.* FROM wanted LEFT JOIN base ON base.place = wanted.place CROSS JOIN LATERAL (
        SELECT {EVENT_COLUMNS} FROM event
        WHERE originator_id = wanted.stream_id AND originator_version > coalesce(base.version, 0)
          AND tenant_id IS NOT DISTINCT FROM wanted.tenant_id
        ORDER BY originator_version
    ) AS newer
"""
# A stored snapshot of the same version is of another model, or damaged. The new one replaces it.
SAVE_SQL = """
    INSERT INTO snapshot (stream_id, version, position, tenant_id, slice, model, state)
    SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::bytea[])
    ON CONFLICT (stream_id, version) DO UPDATE SET (position, tenant_id, slice, model, state, taken_at)
        = (EXCLUDED.position, EXCLUDED.tenant_id, EXCLUDED.slice, EXCLUDED.model, EXCLUDED.state, EXCLUDED.taken_at)
"""
# The newest snapshot and the one before are kept.
PRUNE_SQL = """
    DELETE FROM snapshot AS old USING unnest(%s::uuid[]) AS stream (id)
    WHERE old.stream_id = stream.id AND old.version < (
        SELECT version FROM snapshot WHERE stream_id = stream.id ORDER BY version DESC OFFSET 1 LIMIT 1
    )
"""
_VERSION = itemgetter(3)


class PostgresSnapshots:
    """Implements the port `Snapshots`. The pool is the caller's."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    async def read_stream(
        self, tenant_id: UUID, stream_id: UUID, *,
        slice_name: str, model: str, until_position: int | None = None, limit: int | None = None,
    ) -> StreamSince:  # fmt: skip
        until = LAST_POSITION if until_position is None else until_position
        values = {"stream": stream_id, "tenant": tenant_id, "slice": slice_name, "model": model, "until": until, "limit": limit}
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(READ_SQL, values, prepare=True)
                rows = await cursor.fetchall()
        return _found(SnapshotPlace(tenant_id, stream_id, slice_name, model), rows)

    async def read_streams(self, places: Sequence[SnapshotPlace]) -> list[StreamSince]:
        columns = tuple(map(list, zip(*places, strict=True)))
        found: list[list[tuple[Any, ...]]] = [[] for _ in places]
        with translate_errors():
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(READ_STREAMS_SQL, columns, prepare=True)
                for place, *row in await cursor.fetchall():
                    found[place - 1].append(tuple(row))
        return [_found(place, sorted(rows, key=_VERSION)) for place, rows in zip(places, found, strict=True)]

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        stream_ids = [s.stream_id for s in snapshots]
        columns = (
            stream_ids, [s.version for s in snapshots], [s.position for s in snapshots], [s.tenant_id for s in snapshots],
            [s.slice_name for s in snapshots], [s.model for s in snapshots], [s.state for s in snapshots],
        )  # fmt: skip
        with translate_errors():
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(SAVE_SQL, columns, binary=True)
                await connection.execute(PRUNE_SQL, (stream_ids,), binary=True)


def _found(place: SnapshotPlace, rows: Sequence[tuple[Any, ...]]) -> StreamSince:
    """The rows of one stream: that of a snapshot comes first, if there is one, and has no topic."""
    if not rows or rows[0][5] is not None:
        return None, [RecordedEvent._make(row) for row in rows]
    tenant_id, stream_id, slice_name, model = place
    first = rows[0]
    snapshot = Snapshot(tenant_id, stream_id, first[3], first[0], slice_name, model, first[7])
    return snapshot, [RecordedEvent._make(row) for row in rows[1:]]
