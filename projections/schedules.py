"""Schedules by name, what came of their last times, and the table of those that are due."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned, SchedulesWanted
from application.views.schedules import OutcomeView, ScheduleStatus, ScheduleSummary, ScheduleView
from domain.kernel import Event, RecordedEvent, timestamp
from domain.schedules import (
    Definition,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleFinished,
    ScheduleFired,
    SchedulePaused,
    ScheduleQueued,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleSkipped,
    starts_at,
)
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, dump_json, listed, load_json, topics_of

CHANNEL = "tidelog_schedules"
"""NOTIFY channel: schedules have other times. A hint only. The payload is the first of them; empty: look yourself."""
MOST_RECENT = 10
"""Outcomes that are kept with a schedule."""

FIND = """
SELECT schedule_id, name, project_id, status, next_at, waiting_at, jitter_s, definition, document, made_in
FROM schedule WHERE schedule_id = ANY (%s)
"""
WRITE = """
INSERT INTO schedule (
    schedule_id, tenant_id, name, project_id, status, next_at, waiting_at, jitter_s, version, definition, document, made_in
) SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::int[],
                     %s::int[], %s::text[], %s::text[], %s::uuid[])
ON CONFLICT (schedule_id) DO UPDATE SET
    project_id = EXCLUDED.project_id, status = EXCLUDED.status, next_at = EXCLUDED.next_at, waiting_at = EXCLUDED.waiting_at,
    jitter_s = EXCLUDED.jitter_s, version = EXCLUDED.version, definition = EXCLUDED.definition, document = EXCLUDED.document,
    made_in = EXCLUDED.made_in
"""
WRITE_DUE = """
INSERT INTO schedule_due (schedule_id, tenant_id, starts_at, waits, version)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::bool[], %s::int[])
ON CONFLICT (schedule_id) DO UPDATE SET
    starts_at = EXCLUDED.starts_at, waits = EXCLUDED.waits, version = EXCLUDED.version, put_off_until = NULL
"""


@dataclass
class ScheduleRow:
    """A schedule, while a batch of events is read."""

    name: str = ""
    project_id: UUID | None = None
    status: str = "removed"
    next_at: datetime | None = None
    waiting_at: datetime | None = None
    jitter_s: int = 0
    definition: str = ""
    document: dict[str, Any] = field(default_factory=dict)
    made_in: UUID | None = None
    """The run whose agent has made it."""
    tenant_id: UUID | None = None
    version: int = 0

    def due(self, schedule_id: UUID) -> tuple[datetime | None, bool] | None:
        """When it is due, and whether a time of it waits. None: neither."""
        if self.status != "active" or (self.next_at is None and self.waiting_at is None):
            return None
        first = None if self.next_at is None else starts_at(schedule_id, self.jitter_s, self.next_at)
        return first, self.waiting_at is not None


def fold(row: ScheduleRow, recorded: RecordedEvent) -> ScheduleRow:
    """The row after an event. `domain.schedules.evolve` says the same of status and times."""
    event: Event = decoded(recorded)
    document = row.document
    match event:
        case ScheduleCreated():
            row = ScheduleRow(event.name, event.project_id, "paused" if event.paused else "active", event.next_at)
            row.document = {"created_at": timestamp(event.at), "created_by": event.by, "on_behalf_of": event.on_behalf_of}
            if (made_by := event.made_by) is not None:
                row.made_in = made_by.run_id
                row.document["made_by"] = made_by.model_dump(mode="json", exclude={"depth"})
            _define(row, event.definition)
        case ScheduleChanged():
            row.status = "active" if row.status == "finished" else row.status
            row.next_at = event.next_at
            document |= {"changed_at": timestamp(event.at), "refused": 0}
            _define(row, event.definition)
        case ScheduleFired():
            if event.by is None:
                row.next_at, row.waiting_at, document["refused"] = event.next_at, None, 0
            document["fired"] = document.get("fired", 0) + 1
            said = {"run_id": str(event.run_id), "caught_up": event.caught_up, "missed": event.missed, "by": event.by}
            _note(row, "fired", event.due_at, event.at, said)
        case ScheduleQueued():
            row.next_at, row.waiting_at = event.next_at, event.due_at
            said = {"run_id": str(event.behind), "caught_up": event.caught_up, "missed": event.missed}
            _note(row, "queued", event.due_at, event.at, said)
        case ScheduleSkipped():
            row.next_at = event.next_at
            row.waiting_at = None if row.waiting_at == event.due_at else row.waiting_at
            if event.reason == "refused":
                document["refused"] = document.get("refused", 0) + event.count
            document["skipped"] = document.get("skipped", 0) + event.count + event.caught_up
            several = {"until": timestamp(event.until), "count": event.count} if event.count > 1 else {}
            said = {"reason": event.reason, "code": event.code, "message": event.message, **several}
            said["caught_up"] = event.caught_up
            _note(row, "skipped", event.due_at, event.at, said)
        case SchedulePaused():
            row.status, row.waiting_at = "paused", None
            document |= {"paused_at": timestamp(event.at), "paused_by": event.by, "reason": event.reason}
        case ScheduleResumed():
            row.status, row.next_at = "active", event.next_at
            document |= {"refused": 0}
            for name in ("paused_at", "paused_by", "reason"):
                document.pop(name, None)
        case ScheduleFinished():
            row.status = "finished"
        case ScheduleRemoved():
            row.status, row.next_at, row.waiting_at = "removed", None, None
    row.tenant_id, row.version = recorded.tenant_id, recorded.version
    return row


def _define(row: ScheduleRow, definition: Definition) -> None:
    row.definition, row.jitter_s = definition.model_dump_json(exclude_defaults=True), definition.jitter_s


def _note(row: ScheduleRow, what: str, due_at: datetime, at: datetime, said: dict[str, Any]) -> None:
    told = {name: value for name, value in said.items() if value not in (None, False, 0)}
    outcome = {"what": what, "due_at": timestamp(due_at), "at": timestamp(at), **told}
    row.document["recent"] = [outcome, *row.document.get("recent", ())[: MOST_RECENT - 1]]


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One read and one write of each table for a batch."""
    begun = {recorded.stream_id for recorded in batch if recorded.topic == ScheduleCreated.TOPIC}
    asked = list({recorded.stream_id for recorded in batch} - begun)
    found = await (await connection.execute(FIND, [asked])).fetchall() if asked else []
    rows = {row[0]: ScheduleRow(*[*row[1:8], load_json(row[8]), row[9]]) for row in found}
    for recorded in batch:
        rows[recorded.stream_id] = fold(rows.get(recorded.stream_id, ScheduleRow()), recorded)
    there = [(id, row) for id, row in rows.items() if row.status != "removed"]
    due = [(id, row, at) for id, row in there if (at := row.due(id)) is not None]
    if gone := [id for id, row in rows.items() if row.status == "removed"]:
        await connection.execute("DELETE FROM schedule WHERE schedule_id = ANY (%s)", [gone])
    if not_due := list(rows.keys() - {id for id, _, _ in due}):
        await connection.execute("DELETE FROM schedule_due WHERE schedule_id = ANY (%s)", [not_due])
    if there:
        await connection.execute(
            WRITE,
            (
                [id for id, _ in there], [row.tenant_id for _, row in there], [row.name for _, row in there],
                [row.project_id for _, row in there], [row.status for _, row in there], [row.next_at for _, row in there],
                [row.waiting_at for _, row in there], [row.jitter_s for _, row in there], [row.version for _, row in there],
                [row.definition for _, row in there], [dump_json(row.document) for _, row in there],
                [row.made_in for _, row in there],
            ),
        )  # fmt: skip
    if due:
        await connection.execute(
            WRITE_DUE,
            (
                [id for id, _, _ in due], [row.tenant_id for _, row, _ in due], [at for _, _, (at, _) in due],
                [waits for _, _, (_, waits) in due], [row.version for _, row, _ in due],
            ),
        )  # fmt: skip
        waits = any(waits for _, _, (_, waits) in due)
        first = "" if waits else min(at for _, _, (at, _) in due if at is not None).isoformat()
        await connection.execute("SELECT pg_notify(%s, %s)", [CHANNEL, first])


EVENTS = (
    ScheduleCreated, ScheduleChanged, ScheduleFired, ScheduleQueued, ScheduleSkipped, SchedulePaused, ScheduleResumed,
    ScheduleFinished, ScheduleRemoved,
)  # fmt: skip
PROJECTION = Projection(
    "schedules",
    topics_of(*EVENTS),
    ("schedule", "schedule_due"),
    apply,
    hurried=topics_of(ScheduleCreated, ScheduleChanged, ScheduleFired, ScheduleResumed),
    taken_when_due={"schedule_due": "starts_at"},
    not_of_the_log={"schedule_due": frozenset({"put_off_until"})},
)

COLUMNS = "name, schedule_id, project_id, status, next_at, waiting_at, version, definition, document"
GET = f"SELECT {COLUMNS} FROM schedule WHERE tenant_id = %(tenant)s AND name = %(name)s"
OF_ALL = f"""
SELECT {COLUMNS} FROM schedule
WHERE tenant_id = %(tenant)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
"""
IN_STATUS = f"""
SELECT {COLUMNS} FROM schedule
WHERE tenant_id = %(tenant)s AND status = %(status)s AND name > %(after)s ORDER BY name LIMIT %(limit)s
"""
OF_PROJECTS = f"""
SELECT {COLUMNS} FROM unnest(%(projects)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM schedule
    WHERE tenant_id = %(tenant)s AND project_id = asked.project AND name > %(after)s ORDER BY name LIMIT %(limit)s
) AS found ORDER BY name LIMIT %(limit)s
"""
OF_PROJECTS_IN_STATUS = f"""
SELECT {COLUMNS} FROM unnest(%(projects)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM schedule
    WHERE tenant_id = %(tenant)s AND project_id = asked.project AND status = %(status)s AND name > %(after)s
    ORDER BY name LIMIT %(limit)s
) AS found ORDER BY name LIMIT %(limit)s
"""
MADE_BY_AGENTS = """
SELECT (SELECT count(*) FROM (
           SELECT 1 FROM schedule WHERE tenant_id = %(tenant)s AND made_in = %(run)s LIMIT %(most_of_run)s) AS of_run),
       (SELECT count(*) FROM (
           SELECT 1 FROM schedule
           WHERE tenant_id = %(tenant)s AND project_id = %(project)s AND made_in IS NOT NULL AND status <> 'finished'
           LIMIT %(most_of_project)s) AS of_project)
"""


class ScheduleQueries:
    """The port `ScheduleReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: UUID, name: str) -> Positioned[ScheduleView | None]:
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            row = await (await connection.execute(GET, {"tenant": tenant_id, "name": name})).fetchone()
        return Positioned(None if row is None else _view(row), position)

    async def list(self, tenant_id: UUID, wanted: SchedulesWanted) -> Positioned[Page[ScheduleSummary]]:
        projects = wanted.projects
        if projects is None:
            sql = OF_ALL if wanted.status is None else IN_STATUS
        else:
            sql = OF_PROJECTS if wanted.status is None else OF_PROJECTS_IN_STATUS
        parameters = {
            "tenant": tenant_id, "after": wanted.after or "", "limit": wanted.limit + 1, "status": wanted.status,
            "projects": None if projects is None else list(projects),
        }  # fmt: skip
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(sql, parameters)).fetchall()
        data = [_listed(row) for row in rows[: wanted.limit]]
        return Positioned(Page(data, encode_cursor(data[-1].name) if len(rows) > wanted.limit else None), position)

    async def made_by_agents(
        self, tenant_id: UUID, project_id: UUID, run_id: UUID, most_of_run: int, most_of_project: int
    ) -> tuple[int, int]:
        parameters = {
            "tenant": tenant_id, "project": project_id, "run": run_id, "most_of_run": most_of_run,
            "most_of_project": most_of_project,
        }  # fmt: skip
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, _):
            row = await (await connection.execute(MADE_BY_AGENTS, parameters)).fetchone()
        assert row is not None
        return row[0], row[1]


def _listed(row: Sequence[Any]) -> ScheduleSummary:
    def mark() -> ScheduleSummary:
        name, schedule_id, project_id, status, _, _, version, _, _ = row
        return ScheduleSummary(
            name=name, schedule_id=schedule_id, project_id=project_id, status=status, starts="", when=None, version=version,
            unreadable=True,
        )  # fmt: skip

    return listed("schedule", row[1], lambda: ScheduleSummary(**_summary(row)), mark)


def _summary(row: Sequence[Any]) -> dict[str, Any]:
    name, schedule_id, project_id, status, next_at, waiting_at, version, definition, document = row
    defined, said = load_json(definition), load_json(document)
    start, recent = defined["start"], said.get("recent", [])
    paused: ScheduleStatus = "paused"
    kinds = ("workflow", "agent")
    return {
        "name": name, "schedule_id": schedule_id, "project_id": project_id, "status": status,
        "starts": next((f"{kind} {start[kind]}" for kind in kinds if start.get(kind)), "plan"), "when": defined["when"],
        "description": defined.get("description"), "next_at": None if status == paused else next_at, "waiting_at": waiting_at,
        "last": OutcomeView.model_validate(recent[0]) if recent else None, "fired": said.get("fired", 0),
        "skipped": said.get("skipped", 0), "refused": said.get("refused", 0), "reason": said.get("reason"), "version": version,
    }  # fmt: skip


def _shown(start: dict[str, Any]) -> dict[str, Any]:
    """As the body of a request has it: the version of an agent stands behind its name."""
    version = start.pop("agent_version", None)
    return start if version is None else start | {"agent": f"{start['agent']}@{version}"}


def _view(row: Sequence[Any]) -> ScheduleView:
    definition, said = Definition.model_validate_json(row[7]), load_json(row[8])
    names = ("created_at", "created_by", "on_behalf_of", "made_by", "changed_at", "paused_at", "paused_by")
    fields = ("start_at", "end_at", "jitter_s", "catch_up", "catch_up_s", "late_after_s", "overlap")
    return ScheduleView(
        **_summary(row),
        **{name: getattr(definition, name) for name in fields},
        **{name: said.get(name) for name in names},
        start=_shown(load_json(row[7])["start"]),
        recent=[OutcomeView.model_validate(one) for one in said.get("recent", [])],
    )
