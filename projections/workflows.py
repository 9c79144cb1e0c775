"""Workflows by name: their current versions and drafts, and what each version says."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import MOST_NAMES, Positioned, WorkflowsWanted
from application.views.slash_commands import OwnCommand
from application.views.workflows import (
    WorkflowDeprecation,
    WorkflowDraftView,
    WorkflowSummary,
    WorkflowVersionSummary,
    WorkflowVersionView,
    WorkflowView,
)
from domain.kernel import Json, RecordedEvent, timestamp, who_asked
from domain.workflows import (
    WorkflowDeprecated,
    WorkflowDraftDiscarded,
    WorkflowDrafted,
    WorkflowPublished,
    WorkflowReinstated,
)
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, by_topic, decoded, dump_json, listed, load_json, topics_of

LAST_OF_NAMES = "~"
"""Behind every character that a name may have."""


async def on_workflow_drafted(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO workflow (tenant_id, name, workflow_id, stream_version, draft, drafted_at, drafted_by, description, command)
    SELECT * FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::int[], %s::text[], %s::timestamptz[], %s::text[], %s::text[],
                         %s::text[])
    ON CONFLICT (tenant_id, name) DO UPDATE SET
        stream_version = EXCLUDED.stream_version, draft = EXCLUDED.draft, drafted_at = EXCLUDED.drafted_at,
        drafted_by = EXCLUDED.drafted_by,
        description = CASE WHEN workflow.version IS NULL THEN EXCLUDED.description ELSE workflow.description END,
        command = CASE WHEN workflow.version IS NULL THEN EXCLUDED.command ELSE workflow.command END
    """
    newest = _newest(batch)
    drafted: list[WorkflowDrafted] = [decoded(recorded) for recorded in newest]
    await connection.execute(
        sql,
        (
            [e.tenant_id for e in newest], [d.name for d in drafted], [e.stream_id for e in newest], [e.version for e in newest],
            [dump_json(d.definition) for d in drafted], [e.recorded_at for e in newest], [_who(e) for e in newest],
            [_description(d.definition) for d in drafted], [_command(d.definition) for d in drafted],
        ),
    )  # fmt: skip


async def on_workflow_draft_discarded(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    discard = """
    UPDATE workflow SET draft = NULL, drafted_at = NULL, drafted_by = NULL, stream_version = u.version
    FROM unnest(%s::uuid[], %s::text[], %s::int[]) AS u (tenant, name, version)
    WHERE tenant_id = u.tenant AND workflow.name = u.name
    """
    remove = """
    DELETE FROM workflow USING unnest(%s::uuid[], %s::text[]) AS u (tenant, name)
    WHERE tenant_id = u.tenant AND workflow.name = u.name AND version IS NULL AND draft IS NULL
    """
    newest = _newest(batch)
    names = [decoded(recorded).name for recorded in newest]
    tenants = [e.tenant_id for e in newest]
    await connection.execute(discard, (tenants, names, [e.version for e in newest]))
    await connection.execute(remove, (tenants, names))


async def on_workflow_published(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    versions = """
    INSERT INTO workflow_version (tenant_id, workflow_id, version, name, definition, note, reverted_from, published_at,
                                  published_by)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::int[], %s::timestamptz[],
                         %s::text[])
    """
    current = """
    INSERT INTO workflow (tenant_id, name, workflow_id, stream_version, version, definition, published_at, description, command)
    SELECT tenant, name, id, stream_version, version, definition, at, description, command
    FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::int[], %s::int[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
        AS u (tenant, name, id, stream_version, version, definition, at, description, command)
    ON CONFLICT (tenant_id, name) DO UPDATE SET
        stream_version = EXCLUDED.stream_version, version = EXCLUDED.version, definition = EXCLUDED.definition,
        published_at = EXCLUDED.published_at, description = EXCLUDED.description, command = EXCLUDED.command
    """
    no_draft = """
    UPDATE workflow SET draft = NULL, drafted_at = NULL, drafted_by = NULL
    FROM unnest(%s::uuid[], %s::text[]) AS u (tenant, name) WHERE tenant_id = u.tenant AND workflow.name = u.name
    """
    published: list[tuple[RecordedEvent, WorkflowPublished]] = [(recorded, decoded(recorded)) for recorded in batch]
    await connection.execute(
        versions,
        (
            [e.tenant_id for e, _ in published], [e.stream_id for e, _ in published], [p.version for _, p in published],
            [p.name for _, p in published], [dump_json(p.definition) for _, p in published], [p.note for _, p in published],
            [p.reverted_from for _, p in published], [e.recorded_at for e, _ in published], [_who(e) for e, _ in published],
        ),
    )  # fmt: skip
    newest = list({recorded.stream_id: (recorded, said) for recorded, said in published}.values())
    await connection.execute(
        current,
        (
            [e.tenant_id for e, _ in newest], [p.name for _, p in newest], [e.stream_id for e, _ in newest],
            [e.version for e, _ in newest], [p.version for _, p in newest], [dump_json(p.definition) for _, p in newest],
            [e.recorded_at for e, _ in newest], [_description(p.definition) for _, p in newest],
            [_command(p.definition) for _, p in newest],
        ),
    )  # fmt: skip
    of_draft = [(e.tenant_id, p.name) for e, p in published if p.of_draft]
    if of_draft:
        await connection.execute(no_draft, ([tenant for tenant, _ in of_draft], [name for _, name in of_draft]))


async def on_workflow_deprecated(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    hints = []
    for recorded in batch:
        event: WorkflowDeprecated = decoded(recorded)
        said = dump_json({"since": timestamp(recorded.recorded_at), "reason": event.reason})
        hints.append((recorded, event.name, event.version, said))
    await _deprecate(connection, hints)


async def on_workflow_reinstated(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    events: list[tuple[RecordedEvent, WorkflowReinstated]] = [(recorded, decoded(recorded)) for recorded in batch]
    await _deprecate(connection, [(recorded, event.name, event.version, None) for recorded, event in events])


async def _deprecate(connection: Connection, hints: Sequence[tuple[RecordedEvent, str, int | None, str | None]]) -> None:
    whole = """
    UPDATE workflow SET deprecated = CASE WHEN u.is_whole THEN u.deprecated ELSE workflow.deprecated END, stream_version = u.version
    FROM unnest(%s::uuid[], %s::text[], %s::boolean[], %s::text[], %s::int[]) AS u (tenant, name, is_whole, deprecated, version)
    WHERE tenant_id = u.tenant AND workflow.name = u.name
    """
    one = """
    UPDATE workflow_version SET deprecated = u.deprecated
    FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::text[]) AS u (tenant, id, version, deprecated)
    WHERE tenant_id = u.tenant AND workflow_id = u.id AND workflow_version.version = u.version
    """
    of_whole: dict[UUID, tuple[str | None, bool]] = {}
    last: dict[UUID, tuple[RecordedEvent, str]] = {}
    of_versions: dict[tuple[UUID, int], tuple[UUID, str | None]] = {}
    for recorded, name, version, said in hints:
        last[recorded.stream_id] = recorded, name
        if version is None:
            of_whole[recorded.stream_id] = said, True
        else:
            of_versions[recorded.stream_id, version] = recorded.tenant_id, said
    said_of = [of_whole.get(id, (None, False)) for id in last]
    rows = list(last.values())
    await connection.execute(
        whole,
        (
            [e.tenant_id for e, _ in rows], [name for _, name in rows], [is_whole for _, is_whole in said_of],
            [said for said, _ in said_of], [e.version for e, _ in rows],
        ),
    )  # fmt: skip
    if of_versions:
        keys = list(of_versions)
        found = list(of_versions.values())
        await connection.execute(
            one, ([tenant for tenant, _ in found], [id for id, _ in keys], [n for _, n in keys], [said for _, said in found])
        )


def _newest(batch: Iterable[RecordedEvent]) -> list[RecordedEvent]:
    """The last event of each stream."""
    return list({recorded.stream_id: recorded for recorded in batch}.values())


def _who(recorded: RecordedEvent) -> str | None:
    return who_asked(recorded.metadata)[0]


def _description(definition: Json) -> str:
    said = definition.get("description") if isinstance(definition, dict) else None
    return said if isinstance(said, str) else ""


def _command(definition: Json) -> str | None:
    said = definition.get("command") if isinstance(definition, dict) else None
    return None if said is None else dump_json(said)


PROJECTION = Projection(
    "workflows",
    topics_of(WorkflowDrafted, WorkflowDraftDiscarded, WorkflowPublished, WorkflowDeprecated, WorkflowReinstated),
    ("workflow", "workflow_version"),
    by_topic(
        (WorkflowDrafted, on_workflow_drafted),
        (WorkflowDraftDiscarded, on_workflow_draft_discarded),
        (WorkflowPublished, on_workflow_published),
        (WorkflowDeprecated, on_workflow_deprecated),
        (WorkflowReinstated, on_workflow_reinstated),
    ),
)

LIST = """
SELECT workflow_id, name, version, description, command, deprecated, draft IS NOT NULL, published_at, stream_version
FROM workflow WHERE tenant_id = %(tenant)s AND name > %(after)s AND name >= %(first)s AND name < %(end)s
ORDER BY name LIMIT %(limit)s
"""
LIST_DEPRECATED = """
SELECT workflow_id, name, version, description, command, deprecated, draft IS NOT NULL, published_at, stream_version
FROM workflow WHERE tenant_id = %(tenant)s AND name > %(after)s AND name >= %(first)s AND name < %(end)s
    AND deprecated IS NOT NULL
ORDER BY name LIMIT %(limit)s
"""
LIST_IN_USE = """
SELECT workflow_id, name, version, description, command, deprecated, draft IS NOT NULL, published_at, stream_version
FROM workflow WHERE tenant_id = %(tenant)s AND name > %(after)s AND name >= %(first)s AND name < %(end)s
    AND deprecated IS NULL
ORDER BY name LIMIT %(limit)s
"""
COMMANDS = """
SELECT name, version, command, CASE WHEN length(definition) <= %(most)s THEN definition END
FROM workflow WHERE tenant_id = %(tenant)s AND name > %(after)s AND command IS NOT NULL AND version IS NOT NULL
    AND deprecated IS NULL
ORDER BY name LIMIT %(limit)s
"""
MOST_LISTED = 16 * 1024
"""Characters of a definition in the list of commands."""
GET = """
SELECT workflow_id, name, version, description, command, deprecated, draft IS NOT NULL, published_at, stream_version, definition,
       draft, drafted_at, drafted_by
FROM workflow WHERE tenant_id = %s AND name = %s
"""
VERSIONS = """
SELECT name, version, note, reverted_from, published_at, published_by, deprecated
FROM workflow_version WHERE tenant_id = %(tenant)s AND workflow_id = %(id)s AND version < %(before)s
ORDER BY version DESC LIMIT %(limit)s
"""
VERSION = """
SELECT name, version, note, reverted_from, published_at, published_by, deprecated, definition
FROM workflow_version WHERE tenant_id = %s AND workflow_id = %s AND version = %s
"""
LAST_VERSION = 2**31 - 1

_COLUMNS = ("workflow_id", "name", "version", "description", "has_draft", "published_at", "stream_version")


def _summary_of(row: Sequence[Any]) -> dict[str, Any]:
    id, name, version, description, _, _, *rest = row
    return dict(zip(_COLUMNS, (id, name, version, description, *rest), strict=True))


def _listed(row: Sequence[Any]) -> WorkflowSummary:
    plain = _summary_of(row)

    def whole() -> WorkflowSummary:
        return WorkflowSummary(**plain, command=_json(row[4]), deprecated=_deprecation(row[5]))

    return listed("workflow", row[0], whole, lambda: WorkflowSummary(**plain, unreadable=True))


def _shown(row: Sequence[Any]) -> WorkflowView:
    *summary, definition, draft, drafted_at, drafted_by = row
    plain = _summary_of(summary)

    def whole() -> WorkflowView:
        of_draft = None
        if draft is not None:
            of_draft = WorkflowDraftView(definition=load_json(draft), drafted_at=drafted_at, drafted_by=drafted_by)
        return WorkflowView(
            **plain, command=_json(row[4]), deprecated=_deprecation(row[5]), definition=_json(definition), draft=of_draft
        )

    return listed("workflow", row[0], whole, lambda: WorkflowView(**plain, unreadable=True))


_VERSION_COLUMNS = ("name", "version", "note", "reverted_from", "published_at", "published_by")


def _listed_version(row: Sequence[Any]) -> WorkflowVersionSummary:
    plain = dict(zip(_VERSION_COLUMNS, row[:6], strict=True))
    return listed(
        "workflow_version",
        row[0],
        lambda: WorkflowVersionSummary(**plain, deprecated=_deprecation(row[6])),
        lambda: WorkflowVersionSummary(**plain, unreadable=True),
    )


def _shown_version(row: Sequence[Any]) -> WorkflowVersionView:
    plain = dict(zip(_VERSION_COLUMNS, row[:6], strict=True))
    return listed(
        "workflow_version",
        row[0],
        lambda: WorkflowVersionView(**plain, deprecated=_deprecation(row[6]), definition=load_json(row[7])),
        lambda: WorkflowVersionView(**plain, unreadable=True),
    )


def _own_command(row: Sequence[Any]) -> OwnCommand:
    name, version, command, definition = row
    return listed(
        "workflow",
        name,
        lambda: OwnCommand(name=name, version=version, command=_json(command), definition=_json(definition)),
        lambda: OwnCommand(name=name, version=version, unreadable=True),
    )


def _json(text: str | None) -> Json:
    return None if text is None else load_json(text)


def _deprecation(text: str | None) -> WorkflowDeprecation | None:
    return None if text is None else WorkflowDeprecation.model_validate(load_json(text))


class WorkflowQueries:
    """The port `WorkflowReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, wanted: WorkflowsWanted) -> Positioned[Page[WorkflowSummary]]:
        sql = LIST if wanted.deprecated is None else LIST_DEPRECATED if wanted.deprecated else LIST_IN_USE
        parameters = {
            "tenant": tenant_id, "after": wanted.after or "", "first": wanted.prefix, "end": wanted.prefix + LAST_OF_NAMES,
            "limit": wanted.limit + 1,
        }  # fmt: skip
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(sql, parameters)).fetchall()
        data = [_listed(row) for row in rows[: wanted.limit]]
        return Positioned(Page(data, encode_cursor(data[-1].name) if len(rows) > wanted.limit else None), position)

    async def get(self, tenant_id: UUID, name: str) -> Positioned[WorkflowView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(GET, (tenant_id, name))).fetchone()
        return Positioned(None if row is None else _shown(row), position)

    async def commands(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[OwnCommand]]:
        parameters = {"tenant": tenant_id, "after": after or "", "limit": limit + 1, "most": MOST_LISTED}
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(COMMANDS, parameters)).fetchall()
        data = [_own_command(row) for row in rows[:limit]]
        return Positioned(Page(data, encode_cursor(data[-1].name) if len(rows) > limit else None), position)

    async def versions(
        self, tenant_id: UUID, workflow_id: UUID, *, limit: int, before: int | None
    ) -> Positioned[Page[WorkflowVersionSummary]]:
        end = min(before or LAST_VERSION, LAST_VERSION)
        parameters = {"tenant": tenant_id, "id": workflow_id, "before": end, "limit": limit + 1}
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(VERSIONS, parameters)).fetchall()
        data = [_listed_version(row) for row in rows[:limit]]
        return Positioned(Page(data, encode_cursor(str(data[-1].version)) if len(rows) > limit else None), position)

    async def version(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Positioned[WorkflowVersionView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(VERSION, (tenant_id, workflow_id, version))).fetchone()
        return Positioned(None if row is None else _shown_version(row), position)

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        found = (await self.version(tenant_id, workflow_id, version)).value
        return None if found is None else found.definition

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        sql = "SELECT name FROM workflow WHERE tenant_id = %s ORDER BY name LIMIT %s"
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(sql, [tenant_id, MOST_NAMES])).fetchall()
        return [row[0] for row in rows]
