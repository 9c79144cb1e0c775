"""Tools that are registered, by name: what their current versions declare."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import MOST_NAMES, DataTool, Positioned
from application.views.tools import Deprecation, ToolVersionView, ToolView
from domain.kernel import Json, RecordedEvent, timestamp
from domain.tools import DATA_KINDS, ToolDeprecated, ToolRegistered, ToolReinstated, ToolRemoved, later_fields_of
from projections import tool_versions
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
                      max_attempts, registered_at, more, stream_version)
    SELECT id, tenant, name, version, revision, description, ARRAY(SELECT jsonb_array_elements_text(capabilities)), parameters,
           idempotent, timeout_s, max_attempts, at, more, NULL
    FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::int[], %s::text[], %s::jsonb[], %s::text[], %s::boolean[],
                %s::float8[], %s::int[], %s::timestamptz[], %s::text[])
        AS u (id, tenant, name, version, revision, description, capabilities, parameters, idempotent, timeout_s, max_attempts, at,
              more)
    ON CONFLICT (tool_id) DO UPDATE SET (name, version, revision, description, capabilities, parameters, idempotent, timeout_s,
        max_attempts, registered_at, more, stream_version) = (EXCLUDED.name, EXCLUDED.version, EXCLUDED.revision,
        EXCLUDED.description, EXCLUDED.capabilities, EXCLUDED.parameters, EXCLUDED.idempotent, EXCLUDED.timeout_s,
        EXCLUDED.max_attempts, EXCLUDED.registered_at, EXCLUDED.more, EXCLUDED.stream_version)
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
            [dump_json(later) if (later := later_fields_of(t)) else None for t in tools],
        ),
    )  # fmt: skip


async def on_tool_deprecated(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    hints = {}
    for recorded in batch:
        event: ToolDeprecated = decoded(recorded)
        said = {"since": timestamp(recorded.recorded_at), "replaced_by": event.replaced_by, "note": event.note}
        hints[recorded.stream_id] = (recorded, dump_json(said))
    await _deprecate(connection, [recorded for recorded, _ in hints.values()], [said for _, said in hints.values()])


async def on_tool_reinstated(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    newest = list({recorded.stream_id: recorded for recorded in batch}.values())
    await _deprecate(connection, newest, [None for _ in newest])


async def _deprecate(connection: Connection, events: Sequence[RecordedEvent], hints: Sequence[str | None]) -> None:
    sql = """
    UPDATE tool SET deprecated = u.deprecated, stream_version = u.version
    FROM unnest(%s::uuid[], %s::text[], %s::int[]) AS u (id, deprecated, version) WHERE tool_id = u.id
    """
    await connection.execute(sql, ([e.stream_id for e in events], list(hints), [e.version for e in events]))


async def on_tool_removed(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    await connection.execute("DELETE FROM tool WHERE tool_id = ANY (%s)", [[recorded.stream_id for recorded in batch]])


PROJECTION = Projection(
    "tools",
    topics_of(ToolRegistered, ToolDeprecated, ToolReinstated, ToolRemoved),
    ("tool",),
    by_topic(
        (ToolRegistered, on_tool_registered),
        (ToolDeprecated, on_tool_deprecated),
        (ToolReinstated, on_tool_reinstated),
        (ToolRemoved, on_tool_removed),
    ),
)

_COLUMNS = (
    "tool_id", "name", "version", "revision", "description", "capabilities", "idempotent", "timeout_s", "max_attempts",
    "registered_at",
)  # fmt: skip


async def list_tools(connection: Connection, tenant_id: UUID, *, limit: int, after: str | None) -> Page[ToolView]:
    sql = """
    SELECT tool_id, name, version, revision, description, capabilities, idempotent, timeout_s, max_attempts, registered_at,
           parameters, more, deprecated, coalesce(stream_version, revision)
    FROM tool WHERE tenant_id = %(tenant)s AND (%(after)s::text IS NULL OR name > %(after)s) ORDER BY name LIMIT %(limit)s
    """
    parameters = {"tenant": tenant_id, "after": after, "limit": limit + 1}
    rows = await (await connection.execute(sql, parameters)).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(data[-1].name) if len(rows) > limit else None)


async def find_tool(connection: Connection, tenant_id: UUID, name: str) -> ToolView | None:
    sql = """
    SELECT tool_id, name, version, revision, description, capabilities, idempotent, timeout_s, max_attempts, registered_at,
           parameters, more, deprecated, coalesce(stream_version, revision)
    FROM tool WHERE tenant_id = %s AND name = %s
    """
    row = await (await connection.execute(sql, (tenant_id, name))).fetchone()
    return None if row is None else _listed(row)


async def list_data(connection: Connection, tenant_id: UUID, *, limit: int, after: str | None) -> list[DataTool]:
    """The tools that are data, and some others: `more` has the kind of each, and may have the same words elsewhere."""
    sql = """
    SELECT name, version, more FROM tool
    WHERE tenant_id = %(tenant)s AND (%(after)s::text IS NULL OR name > %(after)s)
        AND (strpos(more, %(http)s) > 0 OR strpos(more, %(builtin)s) > 0)
    ORDER BY name LIMIT %(limit)s
    """
    words = {kind: dump_json({"kind": kind})[1:-1] for kind in sorted(DATA_KINDS)}
    rows = await (await connection.execute(sql, {"tenant": tenant_id, "after": after, "limit": limit, **words})).fetchall()
    return [DataTool(name, version, load_json(more).get("kind", "python")) for name, version, more in rows]


def _listed(row: Sequence[Any]) -> ToolView:
    *columns, parameters, more, deprecated, stream_version = row
    plain: dict[str, Any] = {**dict(zip(_COLUMNS, columns, strict=True)), "stream_version": stream_version}

    def whole() -> ToolView:
        said: dict[str, Json] = {} if more is None else load_json(more)
        hint = None if deprecated is None else Deprecation.model_validate(load_json(deprecated))
        return ToolView(**plain, **said, parameters=load_json(parameters), deprecated=hint)

    return listed("tool", row[0], whole, lambda: ToolView(**plain, parameters={}, unreadable=True))


class ToolQueries:
    """The port `ToolReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[ToolView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_tools(connection, tenant_id, limit=limit, after=after), position)

    async def get(self, tenant_id: UUID, name: str) -> Positioned[ToolView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await find_tool(connection, tenant_id, name), position)

    async def versions(
        self, tenant_id: UUID, tool_id: UUID, *, limit: int, before: int | None
    ) -> Positioned[Page[ToolVersionView]]:
        async with reading(self._database, tool_versions.PROJECTION.name, tenant_id) as (connection, position):
            found = await tool_versions.list_versions(connection, tenant_id, tool_id, limit=limit, before=before)
            return Positioned(found, position)

    async def version(self, tenant_id: UUID, tool_id: UUID, version: str) -> Positioned[ToolVersionView | None]:
        async with reading(self._database, tool_versions.PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await tool_versions.find_version(connection, tenant_id, tool_id, version), position)

    async def data(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Sequence[DataTool]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_data(connection, tenant_id, limit=limit, after=after), position)

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        sql = "SELECT name FROM tool WHERE tenant_id = %s ORDER BY name LIMIT %s"
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(sql, [tenant_id, MOST_NAMES])).fetchall()
        return [row[0] for row in rows]
