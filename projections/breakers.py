"""Breakers of tools, by the tool's name: those that have ever changed."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.breakers import BreakerView, view_of
from domain.breakers import BreakerClosed, BreakerForced, BreakerHalfOpened, BreakerOpened, Status, ToolBreaker, evolve
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, dump_json, listed, load_json, topics_of

FIND = "SELECT breaker_id, changes, document FROM breaker WHERE breaker_id = ANY (%s)"
WRITE = """
INSERT INTO breaker (tenant_id, tool, breaker_id, state, changes, document)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::int[], %s::text[])
ON CONFLICT (tenant_id, tool) DO UPDATE SET state = EXCLUDED.state, changes = EXCLUDED.changes, document = EXCLUDED.document
"""


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One read and one write for a batch. Breakers change seldom."""
    tenants = {recorded.stream_id: recorded.tenant_id for recorded in batch}
    rows = await (await connection.execute(FIND, [list(tenants)])).fetchall()
    known = {row[0]: _read(row[1], load_json(row[2])) for row in rows}
    for recorded in batch:
        known[recorded.stream_id] = evolve(known.get(recorded.stream_id, ToolBreaker()), decoded(recorded))
    changed = list(known.items())
    await connection.execute(
        WRITE,
        (
            [tenants[id] for id, _ in changed], [breaker.tool for _, breaker in changed], [id for id, _ in changed],
            [breaker.in_force for _, breaker in changed], [breaker.changes for _, breaker in changed],
            [dump_json(_written(breaker)) for _, breaker in changed],
        ),
    )  # fmt: skip


def _written(breaker: ToolBreaker) -> dict[str, Any]:
    parts = {"opened": breaker.opened, "trying": breaker.trying, "forced": breaker.forced}
    said = {name: part.model_dump(mode="json") for name, part in parts.items() if part is not None}
    return {"tool": breaker.tool, "status": breaker.status, **said}


def _read(changes: int, document: dict[str, Any]) -> ToolBreaker:
    opened, trying, forced = document.get("opened"), document.get("trying"), document.get("forced")
    return ToolBreaker(
        tool=document["tool"],
        status=document["status"],
        changes=changes,
        opened=opened and BreakerOpened.model_validate(opened),
        trying=trying and BreakerHalfOpened.model_validate(trying),
        forced=forced and BreakerForced.model_validate(forced),
    )


PROJECTION = Projection("breakers", topics_of(BreakerOpened, BreakerHalfOpened, BreakerClosed, BreakerForced), ("breaker",), apply)

LIST = """
SELECT tool, state, changes, document FROM breaker
WHERE tenant_id = %(tenant)s AND (%(after)s::text IS NULL OR tool > %(after)s) ORDER BY tool LIMIT %(limit)s
"""
LIST_IN_STATE = """
SELECT tool, state, changes, document FROM breaker
WHERE tenant_id = %(tenant)s AND state = %(state)s AND (%(after)s::text IS NULL OR tool > %(after)s) ORDER BY tool LIMIT %(limit)s
"""


def _listed(row: Sequence[Any]) -> BreakerView:
    tool, state, changes, document = row
    return listed(
        "breaker",
        tool,
        lambda: view_of(tool, _read(changes, load_json(document))),
        lambda: BreakerView(tool=tool, state=state, version=changes, unreadable=True),
    )


class BreakerQueries:
    """The port `BreakerReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, state: Status | None = None
    ) -> Positioned[Page[BreakerView]]:
        wanted = {"tenant": tenant_id, "after": after, "limit": limit + 1, "state": state}
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(LIST if state is None else LIST_IN_STATE, wanted)).fetchall()
        data = [_listed(row) for row in rows[:limit]]
        return Positioned(Page(data, encode_cursor(data[-1].tool) if len(rows) > limit else None), position)
