"""Tools that are registered, by name."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import MOST_NAMES, Positioned
from application.views.tools import ToolView
from domain.kernel import Json, RecordedEvent
from domain.tools import ToolRegistered
from projections.engine.checkpoints import reading
from projections.kernel import (
    Connection,
    Database,
    Projection,
    by_topic,
    decoded,
    dump_json,
    listed,
    load_json,
    topics_of,
)


async def on_tool_registered(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO tool (tool_id, tenant_id, name, version, revision, description, capabilities, parameters, idempotent, timeout_s,
                      max_attempts, registered_at)
    SELECT id, tenant, name, version, revision, description, ARRAY(SELECT jsonb_array_elements_text(capabilities)), parameters,
           idempotent, timeout_s, max_attempts, at
    FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::int[], %s::text[], %s::jsonb[], %s::text[], %s::boolean[],
                %s::float8[], %s::int[], %s::timestamptz[])
        AS u (id, tenant, name, version, revision, description, capabilities, parameters, idempotent, timeout_s, max_attempts, at)
    ON CONFLICT (tool_id) DO UPDATE SET (name, version, revision, description, capabilities, parameters, idempotent, timeout_s,
        max_attempts, registered_at) = (EXCLUDED.name, EXCLUDED.version, EXCLUDED.revision, EXCLUDED.description,
        EXCLUDED.capabilities, EXCLUDED.parameters, EXCLUDED.idempotent, EXCLUDED.timeout_s, EXCLUDED.max_attempts,
        EXCLUDED.registered_at)
    """
    newest = list({recorded.stream_id: recorded for recorded in batch}.values())
    tools: list[ToolRegistered] = [decoded(recorded) for recorded in newest]
    await connection.execute(
        sql,
        (
            [e.stream_id for e in newest], [e.tenant_id for e in newest], [t.name for t in tools], [t.version for t in tools],
            [e.version for e in newest], [t.description for t in tools], [dump_json(t.capabilities) for t in tools],
            [dump_json(t.parameters) for t in tools], [t.idempotent for t in tools], [t.timeout_s for t in tools],
            [t.max_attempts for t in tools], [e.recorded_at for e in newest],
        ),
    )  # fmt: skip


PROJECTION = Projection("tools", topics_of(ToolRegistered), ("tool",), by_topic((ToolRegistered, on_tool_registered)))


async def list_tools(connection: Connection, tenant_id: UUID, *, limit: int, after: str | None) -> Page[ToolView]:
    sql = """
    SELECT tool_id, name, version, revision, description, capabilities, parameters, idempotent, timeout_s, max_attempts,
           registered_at
    FROM tool WHERE tenant_id = %(tenant)s AND (%(after)s::text IS NULL OR name > %(after)s) ORDER BY name LIMIT %(limit)s
    """
    parameters = {"tenant": tenant_id, "after": after, "limit": limit + 1}
    rows = await (await connection.execute(sql, parameters)).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(data[-1].name) if len(rows) > limit else None)


def _listed(row: Sequence[Any]) -> ToolView:
    def view(parameters: Json, *, unreadable: bool = False) -> ToolView:
        return ToolView(
            tool_id=row[0], name=row[1], version=row[2], revision=row[3], description=row[4], capabilities=row[5],
            parameters=parameters, idempotent=row[7], timeout_s=row[8], max_attempts=row[9], registered_at=row[10],
            unreadable=unreadable,
        )  # fmt: skip

    return listed("tool", row[0], lambda: view(load_json(row[6])), lambda: view({}, unreadable=True))


class ToolQueries:
    """The port `ToolReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[ToolView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_tools(connection, tenant_id, limit=limit, after=after), position)

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        sql = "SELECT name FROM tool WHERE tenant_id = %s ORDER BY name LIMIT %s"
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(sql, [tenant_id, MOST_NAMES])).fetchall()
        return [row[0] for row in rows]
