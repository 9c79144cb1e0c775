"""Bulk actions, and how far each has come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from application.engine.ports.pages import MAX_POSITION, Page, encode_cursor
from application.reads import OpenBulkAction, Positioned
from application.views.bulk_actions import BulkActionView
from domain.bulk_actions import (
    BulkActionAdvanced,
    BulkActionCancelled,
    BulkActionCompleted,
    BulkActionFailed,
    BulkActionStarted,
    RunsSelected,
)
from domain.kernel import Event, RecordedEvent, timestamp
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, dump_json, listed, load_json, topics_of

CHANNEL = "tidelog_bulk_actions"
"""NOTIFY channel: a bulk action has begun. A hint only."""
FIND = """
SELECT bulk_action_id, tenant_id, position, status, verb, within::text[], version, document
FROM bulk_action WHERE bulk_action_id = ANY (%s)
"""
WRITE = """
INSERT INTO bulk_action (bulk_action_id, tenant_id, position, status, verb, within, version, document)
SELECT bulk_action_id, tenant_id, position, status, verb, within::uuid[], version, document
FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::int[], %s::text[])
    AS new (bulk_action_id, tenant_id, position, status, verb, within, version, document)
ON CONFLICT (bulk_action_id) DO UPDATE SET
    status = EXCLUDED.status, version = EXCLUDED.version, document = EXCLUDED.document
"""


@dataclass
class BulkActionRow:
    """A bulk action, while a batch of events is read."""

    tenant_id: UUID | None = None
    position: int = 0
    status: str = "selecting"
    verb: str = ""
    within: list[str] | None = None
    version: int = 0
    document: dict[str, Any] = field(default_factory=dict)


def fold(row: BulkActionRow, recorded: RecordedEvent) -> BulkActionRow:
    """The row after an event. `domain.bulk_actions.evolve` says the same of the status."""
    event: Event = decoded(recorded)
    at = timestamp(recorded.recorded_at)
    match event:
        case BulkActionStarted():
            order = dict(event.order)
            within = None if event.within is None else sorted(map(str, event.within))
            row = BulkActionRow(recorded.tenant_id, recorded.position, "selecting", order.pop("verb"), within)
            row.document = {
                "reason": order.pop("reason", None), "options": order, "filter": event.filter, "by": event.by,
                "on_behalf_of": event.on_behalf_of, "started_at": at,
            }  # fmt: skip
        case RunsSelected():
            row.document["matched"] = row.document.get("matched", 0) + len(event.runs)
            if event.complete:
                row.status = "acting"
        case BulkActionAdvanced():
            _advance(row.document, event)
        case BulkActionCompleted():
            row.status, row.document["finished_at"] = "completed", at
        case BulkActionCancelled():
            row.status = "cancelled"
            row.document |= {"finished_at": at, "cancelled_by": event.by, "cancel_reason": event.reason}
        case BulkActionFailed():
            row.status = "failed"
            row.document |= {"finished_at": at, "error": f"{event.code}: {event.message}"}
    row.version = recorded.version
    return row


def _advance(document: dict[str, Any], event: BulkActionAdvanced) -> None:
    document["handled"] = event.handled
    document["done"] = document.get("done", 0) + event.done
    document["unchanged"] = document.get("unchanged", 0) + event.unchanged
    refused = document.setdefault("refused", {})
    for code, number in event.refused.items():
        refused[code] = refused.get(code, 0) + number
    document.setdefault("examples", []).extend(each.model_dump(mode="json") for each in event.examples)


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One read and one write for a batch."""
    begun = {recorded.stream_id for recorded in batch if recorded.topic == BulkActionStarted.TOPIC}
    asked = list({recorded.stream_id for recorded in batch} - begun)
    found = await (await connection.execute(FIND, [asked])).fetchall() if asked else []
    rows = {row[0]: BulkActionRow(row[1], row[2], row[3], row[4], row[5], row[6], load_json(row[7])) for row in found}
    for recorded in batch:
        rows[recorded.stream_id] = fold(rows.get(recorded.stream_id, BulkActionRow()), recorded)
    there = list(rows.items())
    await connection.execute(
        WRITE,
        (
            [id for id, _ in there], [row.tenant_id for _, row in there], [row.position for _, row in there],
            [row.status for _, row in there], [row.verb for _, row in there],
            [None if row.within is None else f"{{{','.join(row.within)}}}" for _, row in there],
            [row.version for _, row in there], [dump_json(row.document) for _, row in there],
        ),
    )  # fmt: skip
    if begun:
        await connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])


PROJECTION = Projection(
    "bulk_actions",
    topics_of(BulkActionStarted, RunsSelected, BulkActionAdvanced, BulkActionCompleted, BulkActionCancelled, BulkActionFailed),
    ("bulk_action",),
    apply,
)

COLUMNS = "bulk_action_id, position, status, verb, within, version, document"
NEWEST = "ORDER BY position DESC LIMIT %(limit)s"
OF_ALL = f"SELECT {COLUMNS} FROM bulk_action WHERE tenant_id = %(tenant)s AND position < %(before)s {NEWEST}"
IN_STATUS = f"""
SELECT {COLUMNS} FROM bulk_action WHERE tenant_id = %(tenant)s AND status = %(status)s AND position < %(before)s {NEWEST}
"""
# Those whose first project is one of the key's, and the others too. So no bulk action of foreign projects is looked at.
WITHIN = f"""
SELECT {COLUMNS} FROM unnest(%(within)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM bulk_action
    WHERE tenant_id = %(tenant)s AND within[1] = asked.project AND position < %(before)s AND within <@ %(within)s::uuid[]
    AND (%(status)s::text IS NULL OR status = %(status)s) {NEWEST}
) AS found {NEWEST}
"""
ONE = f"SELECT {COLUMNS} FROM bulk_action WHERE tenant_id = %(tenant)s AND bulk_action_id = %(id)s"
OPEN = """
SELECT tenant_id, bulk_action_id FROM bulk_action WHERE status IN ('selecting', 'acting') ORDER BY position LIMIT %s
"""


def _listed(row: Sequence[Any]) -> BulkActionView:
    id, position, status, verb, within, version, document = row
    columns = {"id": id, "position": position, "status": status, "action": verb, "projects": within, "version": version}

    def whole() -> BulkActionView:
        told = load_json(document)
        refused = [{"code": code, "count": count} for code, count in sorted(told.pop("refused", {}).items())]
        return BulkActionView(**columns, refused=refused, **told)

    def mark() -> BulkActionView:
        return BulkActionView(**columns, by="", started_at="1970-01-01T00:00:00Z", unreadable=True)

    return listed("bulk action", id, whole, mark)


class BulkActionQueries:
    """The port `BulkActionReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant_id: UUID, *, limit: int, before: int | None = None, status: str | None = None,
        within: Sequence[UUID] | None = None,
    ) -> Positioned[Page[BulkActionView]]:  # fmt: skip
        wanted: dict[str, Any] = {
            "tenant": tenant_id, "before": MAX_POSITION if before is None else before, "limit": limit + 1, "status": status,
        }  # fmt: skip
        if within is not None:
            statement, wanted["within"] = WITHIN, list(within)
        else:
            statement = OF_ALL if status is None else IN_STATUS
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            # Not prepared: a plan that fits any filters fits none of them.
            rows = await (await connection.execute(statement, wanted, prepare=False)).fetchall()
        cursor = encode_cursor(str(rows[limit - 1][1])) if len(rows) > limit else None
        return Positioned(Page([_listed(row) for row in rows[:limit]], cursor), position)

    async def get(self, tenant_id: UUID, bulk_action_id: UUID) -> Positioned[BulkActionView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(ONE, {"tenant": tenant_id, "id": bulk_action_id})).fetchone()
        return Positioned(None if row is None else _listed(row), position)


class StoredBulkActions:
    """The port `OpenBulkActions`, for the process that carries them out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self, limit: int) -> Sequence[OpenBulkAction]:
        async with self._database.connection() as connection:
            return [OpenBulkAction(*row) for row in await (await connection.execute(OPEN, [limit])).fetchall()]
