"""Triggers by name, with what has come of them in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned, StoredTrigger
from application.views.triggers import TriggerView, view_of
from domain.kernel import RecordedEvent
from domain.triggers import (
    TriggerChanged,
    TriggerCreated,
    TriggerFired,
    TriggerLimited,
    TriggerMisfired,
    TriggerPaused,
    TriggerRemoved,
    TriggerResumed,
    bounds_of,
)
from projections.engine.checkpoints import position_of, reading
from projections.kernel import Connection, Database, Projection, decoded, dump_json, listed, load_json, topics_of

FIND = """
SELECT tenant_id, name, trigger_id, project_id, status, first, since, version, fired, misfired, limited, created_at, changed_at,
       fired_at, document, last_error
FROM trigger WHERE trigger_id = ANY (%s)
"""
WRITE = """
INSERT INTO trigger (tenant_id, name, trigger_id, project_id, status, first, since, version, fired, misfired, limited, created_at,
                     changed_at, fired_at, document, last_error, bounds)
SELECT tenant_id, name, trigger_id, project_id, status, first, since, version, fired, misfired, limited, created_at, changed_at,
       fired_at, document, last_error, bounds::uuid[]
FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::int[], %s::bigint[],
            %s::bigint[], %s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[], %s::text[], %s::text[],
            %s::text[])
     AS new (tenant_id, name, trigger_id, project_id, status, first, since, version, fired, misfired, limited, created_at,
             changed_at, fired_at, document, last_error, bounds)
ON CONFLICT (tenant_id, name) DO UPDATE SET
    project_id = EXCLUDED.project_id, status = EXCLUDED.status, first = EXCLUDED.first, since = EXCLUDED.since,
    version = EXCLUDED.version, fired = EXCLUDED.fired, misfired = EXCLUDED.misfired, limited = EXCLUDED.limited,
    created_at = EXCLUDED.created_at, changed_at = EXCLUDED.changed_at, fired_at = EXCLUDED.fired_at,
    document = EXCLUDED.document, last_error = EXCLUDED.last_error, bounds = EXCLUDED.bounds
"""
REMOVE = "DELETE FROM trigger WHERE trigger_id = ANY (%s)"


@dataclass(slots=True)
class _Row:
    tenant_id: UUID
    name: str
    trigger_id: UUID
    project_id: UUID
    status: str
    first: int
    since: int
    version: int
    fired: int
    misfired: int
    limited: int
    created_at: datetime
    changed_at: datetime
    fired_at: datetime | None
    document: dict[str, Any] = field(default_factory=dict)
    last_error: str | None = None

    def values(self) -> tuple[Any, ...]:
        return (
            self.tenant_id, self.name, self.trigger_id, self.project_id, self.status, self.first, self.since, self.version,
            self.fired, self.misfired, self.limited, self.created_at, self.changed_at, self.fired_at, dump_json(self.document),
            self.last_error, self._bounds(),
        )  # fmt: skip

    def _bounds(self) -> str | None:
        """As PostgreSQL writes an array."""
        within = self.document.get("within")
        bounds = bounds_of(self.document["definition"], None if within is None else tuple(map(UUID, within)))
        return None if bounds is None else f"{{{','.join(map(str, bounds))}}}"


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One read and one write for a batch."""
    rows = await (await connection.execute(FIND, [list({recorded.stream_id for recorded in batch})])).fetchall()
    known = {row[2]: _row(row) for row in rows}
    removed = set[UUID]()
    for recorded in batch:
        event, id = decoded(recorded), recorded.stream_id
        if isinstance(event, TriggerCreated):
            known[id] = _new(recorded, event)
        elif isinstance(event, TriggerRemoved):
            known.pop(id, None)
            removed.add(id)
        elif id in known:
            _change(known[id], recorded, event)
    if removed:
        await connection.execute(REMOVE, [list(removed)])
    if known:
        await connection.execute(WRITE, [list(column) for column in zip(*(row.values() for row in known.values()), strict=True)])


def _row(row: Sequence[Any]) -> _Row:
    return _Row(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11], row[12], row[13],
        load_json(row[14]), row[15],
    )  # fmt: skip


def _new(recorded: RecordedEvent, event: TriggerCreated) -> _Row:
    at, position = recorded.recorded_at, recorded.position
    document = {"definition": event.definition} | ({} if event.hook_id is None else {"hook_id": str(event.hook_id)})
    row = _Row(
        recorded.tenant_id, event.name, recorded.stream_id, _project_of(event), "active", position, position, recorded.version,
        0, 0, 0, at, at, None, document,
    )  # fmt: skip
    _note_bounds(row, event.within)
    return row


def _change(row: _Row, recorded: RecordedEvent, event: Any) -> None:
    row.version = recorded.version
    match event:
        case TriggerFired():
            row.fired, row.fired_at = row.fired + 1, recorded.recorded_at
            return
        case TriggerMisfired():
            row.misfired, row.last_error = row.misfired + 1, f"{event.code}: {event.error}"
            return
        case TriggerLimited():
            row.limited += event.count
            return
        case TriggerChanged():
            row.document["definition"], row.project_id = event.definition, _project_of(event)
            _note_bounds(row, event.within)
        case TriggerPaused():
            row.status = "paused"
            row.document |= {"because": event.because, "reason": event.reason}
        case TriggerResumed():
            row.status = "active"
            row.document.pop("because", None)
            row.document.pop("reason", None)
    row.since, row.changed_at = recorded.position, recorded.recorded_at


def _note_bounds(row: _Row, within: tuple[UUID, ...] | None) -> None:
    row.document.pop("within", None)
    if within is not None:
        row.document["within"] = [str(project_id) for project_id in within]


def _project_of(event: TriggerCreated | TriggerChanged) -> UUID:
    return UUID(event.definition["project_id"])


PROJECTION = Projection(
    "triggers",
    topics_of(
        TriggerCreated, TriggerChanged, TriggerPaused, TriggerResumed, TriggerRemoved, TriggerFired, TriggerMisfired, TriggerLimited
    ),
    ("trigger",),
    apply,
)

LIST = """
SELECT name, status, project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at, version, document
FROM trigger WHERE tenant_id = %(tenant)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
"""
LIST_IN_STATUS = """
SELECT name, status, project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at, version, document
FROM trigger WHERE tenant_id = %(tenant)s AND status = %(status)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
"""
# Of each project the first ones, so that a page does not cost what stands in the projects.
LIST_WITHIN = """
SELECT found.* FROM unnest(%(within)s::uuid[]) AS wanted (project_id) CROSS JOIN LATERAL (
    SELECT name, status, project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at, version, document
    FROM trigger
    WHERE tenant_id = %(tenant)s AND project_id = wanted.project_id AND bounds <@ %(within)s AND status = %(status)s
      AND name > %(after)s
    ORDER BY name LIMIT %(limit)s
) AS found ORDER BY found.name LIMIT %(limit)s
"""
LIST_ALL_WITHIN = """
SELECT found.* FROM unnest(%(within)s::uuid[]) AS wanted (project_id) CROSS JOIN (VALUES ('active'), ('paused')) AS one (status)
CROSS JOIN LATERAL (
    SELECT name, trigger.status, trigger.project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at,
           version, document
    FROM trigger
    WHERE tenant_id = %(tenant)s AND project_id = wanted.project_id AND bounds <@ %(within)s AND status = one.status
      AND name > %(after)s
    ORDER BY name LIMIT %(limit)s
) AS found ORDER BY found.name LIMIT %(limit)s
"""
ONE = """
SELECT name, status, project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at, version, document
FROM trigger WHERE tenant_id = %(tenant)s AND name = %(name)s
"""
ALL = "SELECT tenant_id, trigger_id, name, status, document, since, first FROM trigger"


def _listed(row: Sequence[Any]) -> TriggerView:
    name, status, project_id, fired, misfired, limited, fired_at, last_error, created_at, changed_at, version, document = row
    columns = {
        "status": status, "project_id": project_id, "fired": fired, "misfired": misfired, "limited": limited, "fired_at": fired_at,
        "last_error": last_error, "created_at": created_at, "changed_at": changed_at, "version": version,
    }  # fmt: skip
    return listed(
        "trigger",
        name,
        lambda: view_of(name, load_json(document), **columns),
        lambda: TriggerView(name=name, unreadable=True, **columns),
    )


class TriggerQueries:
    """The port `TriggerReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, status: str | None = None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[TriggerView]]:
        wanted: dict[str, Any] = {"tenant": tenant_id, "after": after or "", "limit": limit + 1, "status": status}
        if within is None:
            statement = LIST if status is None else LIST_IN_STATUS
        else:
            statement = LIST_ALL_WITHIN if status is None else LIST_WITHIN
            wanted["within"] = list(within)
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(statement, wanted)).fetchall()
        data = [_listed(row) for row in rows[:limit]]
        return Positioned(Page(data, encode_cursor(data[-1].name) if len(rows) > limit else None), position)

    async def get(self, tenant_id: UUID, name: str) -> Positioned[TriggerView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(ONE, {"tenant": tenant_id, "name": name})).fetchone()
        return Positioned(None if row is None else _listed(row), position)


class StoredTriggers:
    """The port `AllTriggers`, for the process that matches."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[Sequence[StoredTrigger], int]:
        async with self._database.connection() as connection, connection.transaction():
            position = await position_of(connection, PROJECTION.name)  # first: the rows are of then or later
            rows = await (await connection.execute(ALL)).fetchall()
        return [_stored(*row) for row in rows], position


def _stored(
    tenant_id: UUID, trigger_id: UUID, name: str, status: str, text: str, since: int, first: int
) -> StoredTrigger:  # fmt: skip
    document = load_json(text)
    hook_id, within = document.get("hook_id"), document.get("within")
    return StoredTrigger(
        tenant_id, trigger_id, name, status, document["definition"], None if hook_id is None else UUID(hook_id),
        None if within is None else tuple(map(UUID, within)), since, first,
    )  # fmt: skip
