"""What each version of a tool declares, the version that was registered last first."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.views.tools import ToolVersionView
from domain.kernel import RecordedEvent
from domain.tools import ToolRegistered, ToolRemoved
from projections.kernel import Connection, Projection, by_topic, decoded, dump_json, listed, load_json, topics_of


async def on_tool_registered(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO tool_version (tenant_id, tool_id, version, revision, declaration, registered_at, last_registered_at)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::int[], %s::text[], %s::timestamptz[], %s::timestamptz[])
    ON CONFLICT (tenant_id, tool_id, version) DO UPDATE SET (revision, declaration, last_registered_at) =
        (EXCLUDED.revision, EXCLUDED.declaration, EXCLUDED.last_registered_at)
    """
    newest: dict[tuple[UUID, str], tuple[RecordedEvent, RecordedEvent, ToolRegistered]] = {}
    for recorded in batch:
        declared: ToolRegistered = decoded(recorded)
        key = (recorded.stream_id, declared.version)
        first = newest[key][0] if key in newest else recorded
        newest[key] = (first, recorded, declared)
    rows = list(newest.values())
    await connection.execute(
        sql,
        (
            [last.tenant_id for _, last, _ in rows], [last.stream_id for _, last, _ in rows], [t.version for *_, t in rows],
            [last.version for _, last, _ in rows], [dump_json(t.model_dump()) for *_, t in rows],
            [first.recorded_at for first, *_ in rows], [last.recorded_at for _, last, _ in rows],
        ),
    )  # fmt: skip


async def on_tool_removed(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    DELETE FROM tool_version USING unnest(%s::uuid[], %s::uuid[]) AS u (tenant, tool)
    WHERE tenant_id = u.tenant AND tool_id = u.tool
    """
    await connection.execute(sql, ([e.tenant_id for e in batch], [e.stream_id for e in batch]))


PROJECTION = Projection(
    "tool_versions",
    topics_of(ToolRegistered, ToolRemoved),
    ("tool_version",),
    by_topic((ToolRegistered, on_tool_registered), (ToolRemoved, on_tool_removed)),
)


async def list_versions(
    connection: Connection, tenant_id: UUID, tool_id: UUID, *, limit: int, before: int | None
) -> Page[ToolVersionView]:
    sql = """
    SELECT tool_id, version, revision, declaration, registered_at, last_registered_at
    FROM tool_version WHERE tenant_id = %s AND tool_id = %s AND (%s::bigint IS NULL OR revision < %s)
    ORDER BY revision DESC LIMIT %s
    """
    rows = await (await connection.execute(sql, (tenant_id, tool_id, before, before, limit + 1))).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].revision)) if len(rows) > limit else None)


async def find_version(connection: Connection, tenant_id: UUID, tool_id: UUID, version: str) -> ToolVersionView | None:
    sql = """
    SELECT tool_id, version, revision, declaration, registered_at, last_registered_at
    FROM tool_version WHERE tenant_id = %s AND tool_id = %s AND version = %s
    """
    row = await (await connection.execute(sql, (tenant_id, tool_id, version))).fetchone()
    return None if row is None else _listed(row)


def _listed(row: Sequence[Any]) -> ToolVersionView:
    tool_id, version, revision, declaration, registered_at, last_registered_at = row
    known = {
        "tool_id": tool_id, "version": version, "revision": revision, "registered_at": registered_at,
        "last_registered_at": last_registered_at,
    }  # fmt: skip
    nothing = {
        "name": "", "description": "", "capabilities": [], "parameters": {}, "idempotent": False, "timeout_s": 0.0,
        "max_attempts": 0,
    }  # fmt: skip
    return listed(
        "tool_version",
        tool_id,
        lambda: ToolVersionView(**{**load_json(declaration), **known}),
        lambda: ToolVersionView(**nothing, **known, unreadable=True),
    )
