"""The audit trail: a row for each entry. Entries never change."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import MAX_POSITION, Page, encode_cursor
from application.reads import AuditWanted, Positioned
from application.views.audit import AuditEntryView
from domain.audit import ActionRecorded, RefusalsCounted
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, by_topic, decoded, topics_of

LOOKED_AT = 2_000
"""Entries that a page looks at."""


async def on_action_recorded(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO audit_entry (tenant_id, position, entry_id, recorded_at, kind, actor, on_behalf_of, action, operation, target_kind,
        target_id, reason, address, result, code, count, others)
    SELECT tenant_id, position, entry_id, recorded_at, 'action', actor, on_behalf_of, action, operation, target_kind, target_id,
        reason, address, result, code, 1, false
    FROM unnest(%b::uuid[], %b::bigint[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
    AS entry (tenant_id, position, entry_id, recorded_at, actor, on_behalf_of, action, operation, target_kind, target_id, reason,
        address, result, code)
    """
    events: list[ActionRecorded] = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [e.tenant_id for e in batch], [e.position for e in batch], [e.stream_id for e in batch], [e.recorded_at for e in batch],
            [e.actor for e in events], [e.on_behalf_of for e in events], [e.action for e in events], [e.operation for e in events],
            [e.target_kind for e in events], [e.target_id for e in events], [e.reason for e in events], [e.address for e in events],
            [e.result for e in events], [e.code for e in events],
        ),
    )  # fmt: skip


async def on_refusals_counted(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO audit_entry (tenant_id, position, entry_id, recorded_at, kind, actor, action, address, result, count, since, until,
        others)
    SELECT tenant_id, position, entry_id, recorded_at, 'refusals', actor, action, address, 'refused', count, since, until, others
    FROM unnest(%b::uuid[], %b::bigint[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::bigint[],
        %b::timestamptz[], %b::timestamptz[], %b::boolean[])
    AS entry (tenant_id, position, entry_id, recorded_at, actor, action, address, count, since, until, others)
    """
    events: list[RefusalsCounted] = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [e.tenant_id for e in batch], [e.position for e in batch], [e.stream_id for e in batch], [e.recorded_at for e in batch],
            [e.actor for e in events], [e.action for e in events], [e.address for e in events], [e.count for e in events],
            [e.since for e in events], [e.until for e in events], [e.others for e in events],
        ),
    )  # fmt: skip


PROJECTION = Projection(
    "audit",
    topics_of(ActionRecorded, RefusalsCounted),
    ("audit_entry",),
    by_topic((ActionRecorded, on_action_recorded), (RefusalsCounted, on_refusals_counted)),
)


COLUMNS = """entry_id, position, recorded_at, kind, actor, on_behalf_of, action, operation, target_kind, target_id, reason, address,
    result, code, count, since, until, others"""

# A page walks over one index, of the filter that leaves the fewest entries as a rule, and looks at a bounded number of them. The
# order names all columns of the index, so that the planner takes no other one.
PLACE = "tenant_id = %(tenant)s AND position < %(before)s AND position > %(after)s"
WALKS = {
    "target": (f"{PLACE} AND target_id = %(target)s", "tenant_id DESC, target_id DESC, position DESC"),
    "on_behalf_of": (f"{PLACE} AND on_behalf_of = %(on_behalf_of)s", "tenant_id DESC, on_behalf_of DESC, position DESC"),
    "actor": (f"{PLACE} AND actor = %(actor)s", "tenant_id DESC, actor DESC, position DESC"),
    "action": (f"{PLACE} AND action = %(action)s", "tenant_id DESC, action DESC, position DESC"),
    "result": (f"{PLACE} AND result = %(result)s", "tenant_id DESC, result DESC, position DESC"),
    None: (PLACE, "tenant_id DESC, position DESC"),
}
"""What is walked over, by filter. The filter that stands first here is walked over, the others are looked at in its entries."""


def _list(where: str, by: str) -> str:
    return f"""
    SELECT {COLUMNS} FROM (SELECT {COLUMNS} FROM audit_entry WHERE {where} ORDER BY {by} LIMIT %(looked)s) AS looked
    WHERE (%(target)s::text IS NULL OR target_id = %(target)s)
      AND (%(on_behalf_of)s::text IS NULL OR on_behalf_of = %(on_behalf_of)s)
      AND (%(actor)s::text IS NULL OR actor = %(actor)s) AND (%(action)s::text IS NULL OR action = %(action)s)
      AND (%(result)s::text IS NULL OR result = %(result)s)
    ORDER BY position DESC LIMIT %(limit)s
    """


def _end(where: str, by: str) -> str:
    """The last position that a page looked at. No row: it looked at all."""
    return f"SELECT position FROM audit_entry WHERE {where} ORDER BY {by} OFFSET %(looked)s - 1 LIMIT 1"


LIST = {filtered: _list(*walk) for filtered, walk in WALKS.items()}
END = {filtered: _end(*walk) for filtered, walk in WALKS.items()}


async def list_entries(connection: Connection, tenant_id: UUID, wanted: AuditWanted, reached: int) -> Page[AuditEntryView]:
    """Newest first. `reached`: the position of the read model."""
    above = min(reached, MAX_POSITION - 1) + 1
    above = above if wanted.until is None else min(above, wanted.until + 1)
    given = {name: getattr(wanted, name) for name in WALKS if name is not None}
    parameters = {
        **given, "tenant": tenant_id, "before": above if wanted.before is None else min(above, wanted.before),
        "after": wanted.after, "looked": LOOKED_AT, "limit": wanted.limit + 1,
    }  # fmt: skip
    used = [name for name, value in given.items() if value is not None]
    walk = used[0] if used else None
    # Not prepared: only with the values known does the planner see how few entries they leave.
    rows = await (await connection.execute(LIST[walk], parameters, prepare=False)).fetchall()
    data = [_listed(row) for row in rows[: wanted.limit]]
    if len(rows) > wanted.limit:
        return Page(data, encode_cursor(str(data[-1].position)))
    if len(used) < 2:  # all that was looked at is in the page
        return Page(data, None)
    last = await (await connection.execute(END[walk], parameters, prepare=False)).fetchone()
    return Page(data, None if last is None else encode_cursor(str(last[0])))


def _listed(row: Sequence[Any]) -> AuditEntryView:
    return AuditEntryView(
        entry_id=row[0], position=row[1], recorded_at=row[2], kind=row[3], actor=row[4], on_behalf_of=row[5], action=row[6],
        operation=row[7], target_kind=row[8], target_id=row[9], reason=row[10], address=row[11], result=row[12], code=row[13],
        count=row[14], since=row[15], until=row[16], others=row[17],
    )  # fmt: skip


class AuditQueries:
    """The port `AuditReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, wanted: AuditWanted) -> Positioned[Page[AuditEntryView]]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_entries(connection, tenant_id, wanted, position), position)
