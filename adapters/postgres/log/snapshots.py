"""Snapshots beside the log (the port `Snapshots`): read together with the events after them, in one statement."""

from collections.abc import Sequence
from itertools import takewhile
from operator import itemgetter
from typing import Any
from uuid import UUID

from adapters.postgres.log.event_store import EVENT_COLUMNS, LAST_POSITION, OWNER_OF_WANTED_STREAM
from adapters.postgres.pool import Connections, translate_errors
from application.engine.ports.snapshots import Snapshot, SnapshotPlace, StreamSince
from domain.kernel import RecordedEvent

# The rows of the snapshot come first and have no topic: a whole state, then the changes after it, each found by the one behind it.
# As everywhere in the log the tenant of an event is hidden from the planner (see `READ_STREAM_SQL`).
# A row counts only if its last event stands in the log at the same place: in a database restored from backups of different times a
# snapshot may be ahead of the stream, or beside it. A chain without its begin does not count, and all events are read.
_AS_EVENT = """
    position AS notification_id, NULL::uuid AS tenant_id, NULL::uuid AS originator_id, version AS originator_version,
    NULL::uuid AS root_id, NULL::text AS topic, NULL::smallint AS schema_version, state, NULL::text AS metadata,
    NULL::timestamptz AS recorded_at, 0::bigint AS settled
"""
_IN_LOG = """
    EXISTS (
        SELECT FROM event WHERE originator_id = snapshot.stream_id AND originator_version = snapshot.version
          AND notification_id = snapshot.position AND tenant_id = snapshot.tenant_id
    )
"""
READ_SQL = f"""
    WITH RECURSIVE mine AS MATERIALIZED (
        SELECT WHERE (
            SELECT tenant_id FROM event WHERE originator_id = %(stream)s ORDER BY originator_version LIMIT 1
        ) IS NOT DISTINCT FROM %(tenant)s
    ), chain AS (
        (SELECT version, position, since, state FROM snapshot
         WHERE EXISTS (SELECT FROM mine)
           AND stream_id = %(stream)s AND tenant_id = %(tenant)s AND slice = %(slice)s AND model = %(model)s
           AND position <= %(until)s AND {_IN_LOG}
         ORDER BY version DESC LIMIT 1)
        UNION ALL
        SELECT snapshot.version, snapshot.position, snapshot.since, snapshot.state
        FROM chain JOIN snapshot ON snapshot.stream_id = %(stream)s AND snapshot.version = chain.since
        WHERE chain.since > 0 AND chain.since < chain.version AND snapshot.tenant_id = %(tenant)s AND snapshot.slice = %(slice)s
          AND snapshot.model = %(model)s AND {_IN_LOG}
    ), base AS MATERIALIZED (SELECT max(version) AS version FROM chain HAVING min(since) = 0)
    SELECT {_AS_EVENT} FROM chain WHERE EXISTS (SELECT FROM base)
    UNION ALL
    SELECT {EVENT_COLUMNS} FROM event
    WHERE EXISTS (SELECT FROM mine)
      AND originator_id = %(stream)s AND originator_version > coalesce((SELECT version FROM base), 0)
      AND originator_version <= coalesce((SELECT version FROM base), 0) + %(limit)s
      AND tenant_id IS NOT DISTINCT FROM %(tenant)s AND notification_id <= %(until)s
    ORDER BY originator_version
"""
# As above, for several streams: each with its place, and the rows of a snapshot again without a topic.
READ_STREAMS_SQL = f"""
    WITH RECURSIVE wanted AS MATERIALIZED (
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[])
        WITH ORDINALITY AS wanted (tenant_id, stream_id, slice, model, place)
        WHERE ({OWNER_OF_WANTED_STREAM}) IS NOT DISTINCT FROM wanted.tenant_id
    ), chain AS (
        SELECT wanted.place, newest.* FROM wanted CROSS JOIN LATERAL (
            SELECT version, position, since, state FROM snapshot
            WHERE stream_id = wanted.stream_id AND tenant_id = wanted.tenant_id AND slice = wanted.slice AND model = wanted.model
              AND {_IN_LOG}
            ORDER BY version DESC LIMIT 1
        ) AS newest
        UNION ALL
        SELECT chain.place, snapshot.version, snapshot.position, snapshot.since, snapshot.state
        FROM chain JOIN wanted ON wanted.place = chain.place
        JOIN snapshot ON snapshot.stream_id = wanted.stream_id AND snapshot.version = chain.since
        WHERE chain.since > 0 AND chain.since < chain.version AND snapshot.tenant_id = wanted.tenant_id
          AND snapshot.slice = wanted.slice AND snapshot.model = wanted.model AND {_IN_LOG}
    ), base AS MATERIALIZED (SELECT place, max(version) AS version FROM chain GROUP BY place HAVING min(since) = 0)
    SELECT place, {_AS_EVENT} FROM chain WHERE place IN (SELECT place FROM base)
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
    INSERT INTO snapshot (stream_id, version, position, tenant_id, slice, model, state, since)
    SELECT * FROM unnest(
        %s::uuid[], %s::bigint[], %s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::bytea[], %s::bigint[]
    )
    ON CONFLICT (stream_id, version) DO UPDATE SET (position, tenant_id, slice, model, state, taken_at, since)
        = (EXCLUDED.position, EXCLUDED.tenant_id, EXCLUDED.slice, EXCLUDED.model, EXCLUDED.state, EXCLUDED.taken_at, EXCLUDED.since)
"""
# The newest whole state and the one before are kept, with the changes after them.
PRUNE_SQL = """
    DELETE FROM snapshot AS old USING unnest(%s::uuid[]) AS stream (id)
    WHERE old.stream_id = stream.id AND old.version < (
        SELECT version FROM snapshot WHERE stream_id = stream.id AND since = 0 ORDER BY version DESC OFFSET 1 LIMIT 1
    )
"""
MAX_EVENTS = 2**53
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
        limit = MAX_EVENTS if limit is None else limit
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
            [s.since for s in snapshots],
        )  # fmt: skip
        whole = [s.stream_id for s in snapshots if not s.since]
        with translate_errors():
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                await connection.execute(SAVE_SQL, columns, binary=True)
                if whole:
                    await connection.execute(PRUNE_SQL, (whole,), binary=True)


def _found(place: SnapshotPlace, rows: Sequence[tuple[Any, ...]]) -> StreamSince:
    """The rows of one stream: those of a snapshot come first, if there is one, and have no topic."""
    chain = list(takewhile(_is_of_snapshot, rows))
    events = [RecordedEvent._make(row) for row in rows[len(chain) :]]
    if not chain:
        return None, events
    tenant_id, stream_id, slice_name, model = place
    whole, *changes = [row[7] for row in chain]
    last = chain[-1]
    return Snapshot(tenant_id, stream_id, last[3], last[0], slice_name, model, whole, changes=tuple(changes)), events


def _is_of_snapshot(row: tuple[Any, ...]) -> bool:
    return row[5] is None
