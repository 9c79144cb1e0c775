"""The read side of the log by position (`EventFeed`)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from adapters.postgres.log import rows, walks
from adapters.postgres.log.event_store import EVENT_COLUMNS, LAST_POSITION
from adapters.postgres.pool import Connections, read_for, translate_errors
from application.engine.ports.log import AskedBy, FoundEvents
from domain.errors import NotFound
from domain.kernel import RecordedEvent

HEAD_SQL = "SELECT log_position()"  # not the newest event: a connection that reads for one tenant does not see it
READ_SQL = f"SELECT {EVENT_COLUMNS} FROM event WHERE notification_id > %s ORDER BY notification_id LIMIT %s"
AT_SQL = f"""
    SELECT {EVENT_COLUMNS} FROM event WHERE notification_id = ANY (%s) AND tenant_id = coalesce(%s, tenant_id)
    ORDER BY notification_id
"""
# All inside a root is of one tenant, and the root is a stream itself: its first event says of which (see `OWNER_OF_STREAM` in
# event_store.py). The first event with this root would not do: a connection that reads for another tenant sees none of them, and
# would look at all.
OWNER_OF_ROOT = "SELECT tenant_id FROM event WHERE originator_id = %s AND originator_version = 1"
# `IS NOT DISTINCT FROM` hides the tenant from the planner. Without statistics, as in a young log, the planner would otherwise read
# the tenant's whole log for each run, by event_tenant_idx.
ROOTS_SQL = f"""
    SELECT found.* FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[]) AS wanted (tenant_id, root_id, after)
    CROSS JOIN LATERAL (
        SELECT {EVENT_COLUMNS} FROM event
        WHERE root_id = wanted.root_id AND notification_id > wanted.after AND tenant_id IS NOT DISTINCT FROM wanted.tenant_id
        ORDER BY root_id, notification_id LIMIT %s
    ) AS found
    ORDER BY found.notification_id
"""

# recorded_at never decreases with the position, so halving finds the last event of a time. A position counts as the tenant's next
# position: so the tenant's own events are looked at, and no other's.
POSITION_AT_SQL = """
    WITH RECURSIVE search (low, high) AS (
        SELECT 0::bigint, position FROM log_head
        UNION ALL
        SELECT CASE WHEN probe.early THEN middle ELSE low END, CASE WHEN probe.early THEN high ELSE middle - 1 END
        FROM search
        CROSS JOIN LATERAL (SELECT (low + high + 1) / 2) AS half (middle)
        CROSS JOIN LATERAL (
            SELECT max(recorded_at) <= %s FROM (
                SELECT recorded_at FROM event
                WHERE (tenant_id, notification_id) >= (%s, middle) AND (tenant_id, notification_id) <= (%s, high)
                ORDER BY tenant_id, notification_id LIMIT 1
            ) AS following
        ) AS probe (early)
        WHERE low < high
    )
    SELECT low FROM search WHERE low = high
"""


class PostgresEventFeed:
    """Implements the port `EventFeed`. Raises Unavailable while the database is away."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    async def read(self, *, after: int, limit: int) -> list[RecordedEvent]:
        return [RecordedEvent._make(row) for row in await self._fetch(READ_SQL, (after, limit))]

    async def at(self, positions: Sequence[int], *, tenant_id: UUID | None = None) -> list[RecordedEvent]:
        found = [RecordedEvent._make(row) for row in await self._fetch(AT_SQL, (list(positions), tenant_id), tenant_id)]
        if missing := set(positions) - {event.position for event in found}:
            raise NotFound(f"the log has no event at position {min(missing)}")
        return found

    async def read_tenant(
        self,
        tenant_id: UUID,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
        newest_first: bool = False,
        rooted: bool = False,
    ) -> list[RecordedEvent]:
        query, parameters = tenant_query(
            tenant_id,
            after=after,
            limit=limit,
            until=until,
            root_id=root_id,
            topics=topics,
            newest_first=newest_first,
            rooted=rooted,
        )
        return [RecordedEvent._make(row) for row in await self._fetch(query, parameters, tenant_id)]

    async def look_through(
        self,
        tenant_id: UUID,
        asked: AskedBy,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
    ) -> FoundEvents:
        parameters = {
            "tenant": tenant_id, "root": root_id, "after": after, "until": LAST_POSITION if until is None else until,
            "topics": None if topics is None else list(topics), "limit": limit, "looked": walks.LOOKED_AT,
            "actor": asked.actor, "actor_in_json": _in_json(asked.actor),
            "on_behalf_of": asked.on_behalf_of, "on_behalf_of_in_json": _in_json(asked.on_behalf_of),
        }  # fmt: skip
        rows = await self._fetch(walks.IN_TENANT_SQL if root_id is None else walks.IN_RUN_SQL, parameters, tenant_id)
        found = [RecordedEvent._make(row[2:]) for row in rows if row[2] is not None]
        return FoundEvents(found, rows[0][1] if rows[0][0] == walks.LOOKED_AT else None)

    async def read_roots(
        self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int, tenant_id: UUID | None = None
    ) -> list[RecordedEvent]:
        tenants, root_ids, afters = zip(*roots, strict=True)
        parameters = (list(tenants), list(root_ids), list(afters), limit)
        return [RecordedEvent._make(row) for row in await self._fetch(ROOTS_SQL, parameters, tenant_id)]

    async def rows(
        self,
        tenant_id: UUID,
        root_id: UUID | None,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        skip: int = 0,
        topics: Sequence[str] | None = None,
    ) -> list[RecordedEvent]:
        query, parameters = tenant_query(
            tenant_id, after=after, limit=limit, until=until, root_id=root_id, topics=topics, newest_first=False, rooted=True,
            columns=rows.HEADS,
        )  # fmt: skip
        found = await self._fetch(f"{query} OFFSET %s", [*parameters, skip], tenant_id)
        return [RecordedEvent._make(row) for row in found]

    async def named(self, tenant_id: UUID, names: Sequence[tuple[UUID, int]]) -> list[RecordedEvent]:
        streams, versions = [stream for stream, _ in names], [version for _, version in names]
        found = await self._fetch(rows.NAMED_SQL, (streams, versions, tenant_id), tenant_id)
        return [RecordedEvent._make(row) for row in found]

    async def count(
        self,
        tenant_id: UUID,
        root_id: UUID,
        *,
        after: int,
        every: int,
        limit: int,
        until: int | None = None,
        topics: Sequence[str] | None = None,
    ) -> tuple[int, list[int]]:
        parameters = {
            "tenant": tenant_id, "root": root_id, "after": after, "until": LAST_POSITION if until is None else until,
            "every": every, "limit": limit, "topics": None if topics is None else list(topics),
        }  # fmt: skip
        [(count, marks)] = await self._fetch(rows.COUNT_SQL, parameters, tenant_id)
        return count, marks or []

    async def head(self) -> int:
        return int((await self._fetch(HEAD_SQL, ()))[0][0])

    async def position_at(self, tenant_id: UUID, at: datetime, *, root_id: UUID | None = None) -> int:
        [(until,)] = await self._fetch(POSITION_AT_SQL, (at, tenant_id, tenant_id), tenant_id)
        newest = await self.read_tenant(tenant_id, after=0, until=until, root_id=root_id, limit=1, newest_first=True)
        return newest[0].position if newest else 0

    async def _fetch(
        self, query: str, parameters: Sequence[Any] | dict[str, Any], tenant_id: UUID | None = None
    ) -> list[tuple[Any, ...]]:
        with translate_errors():
            async with self._pool.connection() as connection:
                await read_for(connection, tenant_id)
                async with connection.cursor(binary=True) as cursor:
                    await cursor.execute(query.encode(), parameters)
                    return await cursor.fetchall()


def _in_json(text: str | None) -> str:
    """A text as it stands inside of metadata. None: every metadata has it."""
    return "" if text is None else to_json(text).decode()


def tenant_query(
    tenant_id: UUID,
    *,
    after: int,
    limit: int,
    until: int | None,
    root_id: UUID | None,
    topics: Sequence[str] | None,
    newest_first: bool,
    rooted: bool = False,
    columns: str = EVENT_COLUMNS,
) -> tuple[str, list[Any]]:
    """The statement and parameters of `read_tenant`: by event_root_idx for one run, else by event_tenant_idx.

    For a tenant, bounds and order name both columns of the index: with `tenant_id = ... ORDER BY notification_id` the planner may
    walk the whole log for the few events of a small tenant, because it assumes that every tenant's events are spread evenly. For a
    run the planner would estimate such a row comparison at a quarter of the log.
    """
    until = LAST_POSITION if until is None else until
    if root_id is None:
        order_by = ("tenant_id", "notification_id")
        conditions = ["(tenant_id, notification_id) > (%s, %s)", "(tenant_id, notification_id) <= (%s, %s)"]
        parameters: list[Any] = [tenant_id, after, tenant_id, until]
    else:
        order_by = ("root_id", "notification_id")
        conditions = ["root_id = %s", "notification_id > %s", "notification_id <= %s", "tenant_id IS NOT DISTINCT FROM %s"]
        parameters = [root_id, after, until, tenant_id]
        if rooted:
            conditions.append(f"({OWNER_OF_ROOT}) IS NOT DISTINCT FROM %s")
            parameters += [root_id, tenant_id]
    if topics is not None:
        conditions.append("topic = ANY(%s)")
        parameters.append(list(topics))
    order = "DESC" if newest_first else "ASC"
    query = (
        f"SELECT {columns} FROM event WHERE {' AND '.join(conditions)} "
        f"ORDER BY {', '.join(f'{column} {order}' for column in order_by)} LIMIT %s"
    )
    return query, [*parameters, limit]
