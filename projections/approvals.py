"""Approvals, with what people said of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import ApprovalsWanted, Positioned
from application.views.approvals import ApprovalSummary
from application.views.budgets import amounts_view, question_view
from domain.access import Action, roles_that_may
from domain.approval_rules import Demand
from domain.approvals import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalRequested,
    ApprovalWithdrawn,
    NoticeEnded,
    NoticePlanned,
    NoticeStarted,
)
from domain.kernel import Event, RecordedEvent, timestamp
from domain.notices import BoundNotice
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, dump_json, listed, load_json, topics_of

FIND = """
SELECT approval_id, position, run_id, project_id, tool, status, roles, deciders, document FROM approval WHERE approval_id = ANY (%s)
"""
WRITE = """
INSERT INTO approval (approval_id, tenant_id, position, run_id, project_id, tool, status, roles, deciders, version, document)
SELECT approval_id, tenant_id, position, run_id, project_id, tool, status, roles,
       coalesce(string_to_array(NULLIF(deciders, ''), E'\\n'), '{}'), version, document
FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],
            %s::text[])
    AS new (approval_id, tenant_id, position, run_id, project_id, tool, status, roles, deciders, version, document)
ON CONFLICT (approval_id) DO UPDATE SET
    status = EXCLUDED.status, deciders = EXCLUDED.deciders, version = EXCLUDED.version, document = EXCLUDED.document
"""


@dataclass
class ApprovalRow:
    """An approval, while a batch of events is read."""

    position: int = 0
    run_id: UUID | None = None
    project_id: UUID | None = None
    tool: str = ""
    status: str = "open"
    roles: str = ""
    deciders: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    tenant_id: UUID | None = None
    version: int = 0


def fold(row: ApprovalRow, recorded: RecordedEvent) -> ApprovalRow:
    """The row after an event. `domain.approvals.evolve` says the same of the status."""
    event: Event = decoded(recorded)
    document, at = row.document, timestamp(recorded.recorded_at)
    match event:
        case ApprovalRequested(demand=demand):
            row = ApprovalRow(recorded.position, event.run_id, demand.project_id, event.tool, "open", ",".join(demand.roles))
            row.document = _asked(event, demand, recorded)
        case ApprovalDecided():
            words = document.setdefault("words", [])
            if event.arguments is not None:
                row.deciders = []
                for word in words:
                    word["counts"] = False
            words.append(_said(event, at))
            if event.decision == "approve":
                row.deciders = [*row.deciders, event.by]
            document["arguments_hash"] = event.arguments_hash
            if event.outcome is not None:
                row.status, document["settled_at"] = event.outcome, at
        case ApprovalExpired():
            row.status = event.outcome
            document |= {"settled_at": at, "expired": True}
        case ApprovalWithdrawn():
            row.status, document["settled_at"] = "withdrawn", at
        case NoticePlanned():
            _notice(document, event.number)["status"] = "planned"
        case NoticeStarted():
            _notice(document, event.number).update(status="sending", begun_at=at, invocation_id=str(event.invocation_id))
        case NoticeEnded():
            _notice(document, event.number).update(status=event.outcome, ended_at=at, error=event.error)
    if row.status != "open":
        for notice in document.get("notices", ()):
            if notice.get("status", "planned") == "planned":
                notice["status"] = "cancelled"
    row.tenant_id, row.version = recorded.tenant_id, recorded.version
    return row


def _asked(event: ApprovalRequested, demand: Demand, recorded: RecordedEvent) -> dict[str, Any]:
    deadline = None if demand.deadline_s is None else timestamp(recorded.recorded_at + timedelta(seconds=demand.deadline_s))
    return {
        "tool_version": event.tool_version,
        "invocation_id": None if event.invocation_id is None else str(event.invocation_id), "agent_run_id": str(event.agent_run_id),
        "key": event.key, "asked_by": event.asked_by, "on_behalf_of": event.on_behalf_of, "arguments_hash": event.arguments_hash,
        "requested_at": timestamp(recorded.recorded_at), "deadline_at": deadline,
        "demand": demand.model_dump(mode="json", exclude_defaults=True, exclude={"notices"}),
        **({} if event.kind == "call" else {"kind": event.kind, "title": event.title}),
        **({"notices": [_told(n, notice, recorded) for n, notice in enumerate(demand.notices)]} if demand.notices else {}),
        **({} if event.budget is None else {"budget": question_view(event.budget).model_dump(mode="json")}),
    }  # fmt: skip


def _told(number: int, notice: BoundNotice, recorded: RecordedEvent) -> dict[str, Any]:
    said = {
        "number": number, "policy": notice.policy, "tool": notice.tool, "key": None if notice.key is None else str(notice.key),
        "address": notice.address, "due_at": timestamp(recorded.recorded_at + timedelta(seconds=notice.after_s)),
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


def _notice(document: dict[str, Any], number: int) -> dict[str, Any]:
    found: dict[str, Any] = document["notices"][number]
    return found


def _said(event: ApprovalDecided, at: str) -> dict[str, Any]:
    said = {
        "decision": event.decision, "by": event.by, "role": event.role, "on_behalf_of": event.on_behalf_of, "reason": event.reason,
        "changed": event.arguments is not None, "at": at, "add": _added(event), "via": event.via,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value not in (None, False)}


def _added(event: ApprovalDecided) -> dict[str, Any] | None:
    return None if event.budget is None or not event.budget.add else amounts_view(event.budget.add).model_dump(mode="json")


def replay(events: Sequence[RecordedEvent]) -> ApprovalSummary | None:
    """The approval after the events of its stream. None: the events are of something else."""
    row = ApprovalRow()
    for recorded in events:
        if recorded.topic not in PROJECTION.topics:
            return None
        row = fold(row, recorded)
    return summary(events[0].stream_id, row) if events else None


def summary(approval_id: UUID, row: ApprovalRow) -> ApprovalSummary:
    said = dict(row.document)
    demand = Demand.model_validate(said.pop("demand"))
    for notice in said.get("notices", ()):
        notice.setdefault("status", "cancelled" if row.status != "open" else "planned")
    return ApprovalSummary(
        approval_id=approval_id, status=row.status, tool=row.tool, run_id=row.run_id, project_id=row.project_id,
        requirements=list(demand.requirements), roles=list(demand.roles), needed=demand.needed, approvals=len(row.deciders),
        four_eyes=demand.four_eyes, tainted=demand.tainted, because=list(demand.because), default=demand.default,
        version=row.version, **said,
    )  # fmt: skip


def _read(row: Sequence[Any]) -> ApprovalRow:
    _, position, run_id, project_id, tool, status, roles, deciders, document = row
    return ApprovalRow(position, run_id, project_id, tool, status, roles, list(deciders), load_json(document))


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One read and one write for a batch."""
    begun = {recorded.stream_id for recorded in batch if recorded.topic == ApprovalRequested.TOPIC}
    asked = list({recorded.stream_id for recorded in batch} - begun)
    found = await (await connection.execute(FIND, [asked])).fetchall() if asked else []
    rows = {row[0]: _read(row) for row in found}
    for recorded in batch:
        rows[recorded.stream_id] = fold(rows.get(recorded.stream_id, ApprovalRow()), recorded)
    there = list(rows.items())
    await connection.execute(
        WRITE,
        (
            [id for id, _ in there], [row.tenant_id for _, row in there], [row.position for _, row in there],
            [row.run_id for _, row in there], [row.project_id for _, row in there], [row.tool for _, row in there],
            [row.status for _, row in there], [row.roles for _, row in there],
            ["\n".join(row.deciders) for _, row in there], [row.version for _, row in there],
            [dump_json(row.document) for _, row in there],
        ),
    )  # fmt: skip


PROJECTION = Projection(
    "approvals",
    topics_of(ApprovalRequested, ApprovalDecided, ApprovalExpired, ApprovalWithdrawn, NoticePlanned, NoticeStarted, NoticeEnded),
    ("approval",),
    apply,
)

COLUMNS = "approval_id, position, run_id, project_id, tool, status, roles, deciders, version, document"
BEFORE = "tenant_id = %(tenant)s AND position < %(before)s"
NEWEST = "ORDER BY position DESC LIMIT %(limit)s"
REST = """
AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(status)s::text IS NULL OR status = %(status)s)
AND (%(within)s::uuid[] IS NULL OR project_id = ANY (%(within)s))
"""
OF_ALL = f"SELECT {COLUMNS} FROM approval WHERE {BEFORE} {NEWEST}"
IN_STATUS = f"SELECT {COLUMNS} FROM approval WHERE {BEFORE} AND status = %(status)s {NEWEST}"
OF_RUN = f"SELECT {COLUMNS} FROM approval WHERE {BEFORE} AND run_id = %(run)s {REST} {NEWEST}"
OF_TOOL = f"""
SELECT {COLUMNS} FROM approval
WHERE {BEFORE} AND tool = %(tool)s {NEWEST}
"""
OF_TOOL_IN_STATUS = f"""
SELECT {COLUMNS} FROM approval
WHERE {BEFORE} AND tool = %(tool)s AND status = %(status)s {NEWEST}
"""
OF_PROJECTS_OF_TOOL = f"""
SELECT {COLUMNS} FROM unnest(%(within)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM approval
    WHERE {BEFORE} AND project_id = asked.project AND tool = %(tool)s
    AND (%(status)s::text IS NULL OR status = %(status)s) {NEWEST}
) AS found {NEWEST}
"""
OF_PROJECTS = f"""
SELECT {COLUMNS} FROM unnest(%(within)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM approval WHERE {BEFORE} AND project_id = asked.project {NEWEST}
) AS found {NEWEST}
"""
OF_PROJECTS_IN_STATUS = f"""
SELECT {COLUMNS} FROM unnest(%(within)s::uuid[]) AS asked (project) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM approval WHERE {BEFORE} AND project_id = asked.project AND status = %(status)s {NEWEST}
) AS found {NEWEST}
"""
MINE = f"""
SELECT {COLUMNS} FROM unnest(%(roles)s::text[]) AS asked (those) CROSS JOIN LATERAL (
    SELECT {COLUMNS} FROM approval
    WHERE {BEFORE} AND status = 'open' AND roles = asked.those AND NOT %(actor)s = ANY (deciders) {REST}
    AND (%(run)s::uuid IS NULL OR run_id = %(run)s) {NEWEST}
) AS found {NEWEST}
"""
_DECIDING = [str(role) for role in roles_that_may(Action.APPROVALS_DECIDE)]


def _sets_with(role: str) -> list[str]:
    """The sets of roles with this one, as the column has them."""
    sets = range(1, 2 ** len(_DECIDING))
    named = [[each for place, each in enumerate(_DECIDING) if number >> place & 1] for number in sets]
    return [",".join(names) for names in named if role in names]


WALKS = {
    "all": OF_ALL, "status": IN_STATUS, "run": OF_RUN, "tool": OF_TOOL, "tool status": OF_TOOL_IN_STATUS, "projects": OF_PROJECTS,
    "projects tool": OF_PROJECTS_OF_TOOL,
    "projects status": OF_PROJECTS_IN_STATUS, "mine": MINE,
}  # fmt: skip


def _walk(wanted: ApprovalsWanted) -> str:
    """The walk whose index the filters can use."""
    if wanted.mine is not None:
        return "mine"
    if wanted.run_id is not None:
        return "run"
    if wanted.tool is not None and wanted.projects is not None:
        return "projects tool"
    first = "tool" if wanted.tool is not None else "projects" if wanted.projects is not None else ""
    if wanted.status is None:
        return first or "all"
    return f"{first} status".strip()


class ApprovalQueries:
    """The port `ApprovalReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, tenant_id: UUID, wanted: ApprovalsWanted) -> Positioned[Page[ApprovalSummary]]:
        mine = wanted.mine
        parameters = {
            "tenant": tenant_id, "before": wanted.before or 2**63 - 1, "limit": wanted.limit + 1, "status": wanted.status,
            "tool": wanted.tool, "run": wanted.run_id, "within": None if wanted.projects is None else list(wanted.projects),
            "roles": [] if mine is None else _sets_with(mine.role), "actor": None if mine is None else mine.actor,
        }  # fmt: skip
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            # Not prepared: a plan that fits any filters fits none of them.
            rows = await (await connection.execute(WALKS[_walk(wanted)], parameters, prepare=False)).fetchall()
        data = [_listed(row) for row in rows[: wanted.limit]]
        cursor = encode_cursor(str(rows[wanted.limit - 1][1])) if len(rows) > wanted.limit else None
        return Positioned(Page(data, cursor), position)

    def replay(self, events: Sequence[RecordedEvent]) -> ApprovalSummary | None:
        return replay(events)


def _listed(row: Sequence[Any]) -> ApprovalSummary:
    approval_id, position, run_id, project_id, tool, status, roles, deciders, version, document = row

    def whole() -> ApprovalSummary:
        known = ApprovalRow(position, run_id, project_id, tool, status, roles, list(deciders), load_json(document), None, version)
        return summary(approval_id, known)

    def mark() -> ApprovalSummary:
        return ApprovalSummary(
            approval_id=approval_id, status=status, tool=tool, run_id=run_id, project_id=project_id, invocation_id=approval_id,
            agent_run_id=approval_id, key="", arguments_hash="", requirements=[], roles=roles.split(","), needed=1,
            requested_at="1970-01-01T00:00:00Z", version=version, unreadable=True,
        )  # fmt: skip

    return listed("approval", approval_id, whole, mark)
