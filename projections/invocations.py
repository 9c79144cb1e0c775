"""Tool calls: a list, to find calls that wait for a person, and a single call as the fold of its own events."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.invocations import InvocationSummary, InvocationView, ResolutionView
from domain.invocations import (
    AttemptStarted,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationRequested,
    InvocationRequeued,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
)
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, in_turns, topics_of

# --- the fold ---------------------------------------------------------------------------------------------------------


def changes(recorded: RecordedEvent) -> dict[str, Any]:
    """The fields of a call that an event after the first one changes."""
    match decoded(recorded):
        case AttemptStarted() as event:
            return {"status": "running", "attempt": event.attempt, "worker_id": event.worker_id}
        case InvocationRetryScheduled() as event:
            return {"status": "retrying", "error": event.error}
        case InvocationRequeued(lapsed=int()):
            return {"status": "requested"}
        case InvocationSucceeded() as event:
            return {"status": "succeeded", "result": event.result, "error": None}
        case InvocationFailed() as event:
            return {"status": "failed", "error": event.error}
        case InvocationBecameAmbiguous():
            return {"status": "ambiguous"}
        case InvocationResolved() as event:
            said = resolution_of(event, recorded.recorded_at)
            return {"status": event.outcome, "result": event.result, "error": event.error, "resolution": said}
        case InvocationCancelRequested():
            return {"cancel_requested": True}
        case InvocationCancelled() as event:
            return {"status": "cancelled", "effect": event.effect}
        case _:
            return {}


def resolution_of(event: InvocationResolved, at: datetime) -> ResolutionView:
    return ResolutionView(by=event.by, reason=event.reason, evidence=event.evidence, at=at)


def replay(events: Iterable[RecordedEvent]) -> InvocationView | None:
    """A call after the given events of its stream, in order. None if the events are of another slice."""
    view: InvocationView | None = None
    for recorded in events:
        if recorded.topic == InvocationRequested.TOPIC:
            event: InvocationRequested = decoded(recorded)
            view = InvocationView(
                invocation_id=recorded.stream_id, status="requested", since=recorded.recorded_at, version=recorded.version,
                requested_at=recorded.recorded_at,
                **event.model_dump(include={"run_id", "agent_run_id", "key", "tool", "arguments", "idempotent"}),
            )  # fmt: skip
        elif view is not None:
            changed = changes(recorded)
            since = {"since": recorded.recorded_at} if "status" in changed else {}
            view = view.model_copy(update={**changed, **since, "version": recorded.version})
    return view


# --- rows -------------------------------------------------------------------------------------------------------------

INSERT = """
INSERT INTO invocation (tenant_id, invocation_id, run_id, agent_run_id, key, tool, status, since, attempt, cancel_requested)
SELECT tenant, id, run, agent_run, key, tool, 'requested', at, 0, false
FROM unnest(%b::uuid[], %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::timestamptz[])
    AS u (tenant, id, run, agent_run, key, tool, at)
"""
UPDATE = """
UPDATE invocation SET status = coalesce(u.status, invocation.status), since = coalesce(u.since, invocation.since),
    attempt = coalesce(u.attempt, invocation.attempt), cancel_requested = invocation.cancel_requested OR u.cancelled
FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::timestamptz[], %b::int[], %b::boolean[])
    AS u (tenant, id, status, since, attempt, cancelled)
WHERE invocation.tenant_id = u.tenant AND invocation.invocation_id = u.id
"""


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """Two statements for a batch: one inserts new calls, the other updates calls that are known by then."""
    new: list[tuple[RecordedEvent, InvocationRequested]] = []
    changed: dict[tuple[UUID, UUID], dict[str, Any]] = {}
    async for recorded in in_turns(batch):
        if recorded.topic == InvocationRequested.TOPIC:
            new.append((recorded, decoded(recorded)))
            continue
        row, change = changed.setdefault((recorded.tenant_id, recorded.stream_id), {}), changes(recorded)
        row |= change | ({"since": recorded.recorded_at} if "status" in change else {})
    if new:
        await connection.execute(
            INSERT,
            (
                [r.tenant_id for r, _ in new], [r.stream_id for r, _ in new], [e.run_id for _, e in new],
                [e.agent_run_id for _, e in new], [e.key for _, e in new], [e.tool for _, e in new],
                [r.recorded_at for r, _ in new],
            ),
        )  # fmt: skip
    if changed:
        rows = list(changed.items())
        await connection.execute(
            UPDATE,
            (
                [tenant_id for (tenant_id, _), _ in rows], [stream_id for (_, stream_id), _ in rows],
                [row.get("status") for _, row in rows], [row.get("since") for _, row in rows],
                [row.get("attempt") for _, row in rows], [row.get("cancel_requested", False) for _, row in rows],
            ),
        )  # fmt: skip


PROJECTION = Projection(
    "invocations",
    topics_of(
        InvocationRequested, AttemptStarted, InvocationRetryScheduled, InvocationRequeued, InvocationSucceeded,
        InvocationFailed, InvocationBecameAmbiguous, InvocationResolved, InvocationCancelRequested, InvocationCancelled,
    ),
    ("invocation",),
    apply,
)  # fmt: skip


# --- queries ----------------------------------------------------------------------------------------------------------

# A statement for each combination of filters, so that each can use its index; bounds and order name all its columns, see runs.
COLUMNS = "invocation_id, run_id, agent_run_id, key, tool, status, since, attempt, cancel_requested"
ALL = f"""
SELECT {COLUMNS} FROM invocation WHERE (tenant_id, invocation_id) < (%(tenant)s, %(before)s)
  AND (tenant_id, invocation_id) >= (%(tenant)s, '00000000-0000-0000-0000-000000000000')
ORDER BY tenant_id DESC, invocation_id DESC LIMIT %(limit)s
"""
OF_STATUS = f"""
SELECT {COLUMNS} FROM invocation WHERE tenant_id = %(tenant)s AND status = %(status)s AND invocation_id < %(before)s
ORDER BY tenant_id DESC, status DESC, invocation_id DESC LIMIT %(limit)s
"""
OF_RUN = f"""
SELECT {COLUMNS} FROM invocation WHERE tenant_id = %(tenant)s AND run_id = %(run)s AND invocation_id < %(before)s
ORDER BY tenant_id DESC, run_id DESC, invocation_id DESC LIMIT %(limit)s
"""
OF_RUN_AND_STATUS = f"""
SELECT {COLUMNS} FROM invocation
WHERE tenant_id = %(tenant)s AND run_id = %(run)s AND invocation_id < %(before)s AND status = %(status)s
ORDER BY tenant_id DESC, run_id DESC, invocation_id DESC LIMIT %(limit)s
"""


async def list_invocations(
    connection: Connection, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, run_id: UUID | None
) -> Page[InvocationSummary]:
    """Calls of the newest runs first."""
    parameters = {
        "tenant": tenant_id, "before": before or UUID(int=2**128 - 1), "status": status, "run": run_id, "limit": limit + 1,
    }  # fmt: skip
    sql = (ALL if status is None else OF_STATUS) if run_id is None else (OF_RUN if status is None else OF_RUN_AND_STATUS)
    # Not prepared: only with the status known does the planner see how few calls it leaves.
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    names = COLUMNS.split(", ")
    data = [InvocationSummary.model_validate(dict(zip(names, row, strict=True))) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].invocation_id)) if len(rows) > limit else None)


class InvocationQueries:
    """The port `InvocationReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(
        self, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, run_id: UUID | None
    ) -> Positioned[Page[InvocationSummary]]:
        async with reading(self._database, PROJECTION.name) as (connection, position):
            return Positioned(
                await list_invocations(connection, tenant_id, limit=limit, before=before, status=status, run_id=run_id), position
            )

    def replay(self, events: Sequence[RecordedEvent]) -> InvocationView | None:
        return replay(events)
