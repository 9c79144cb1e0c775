"""Lists of tool calls as of a position of the log.

The order of calls, their runs and tools never change, and a call that has ended stays as it is. So the rows of the present give the
list of any earlier position. A row whose status is older than the position is as it was. Of other rows the log has what the calls
had become.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import MAX_POSITION, Page
from application.reads import InvocationsWanted
from application.views.invocations import InvocationSummary
from domain.errors import PayloadTooLarge
from domain.invocations import (
    TERMINAL,
    AttemptStarted,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationFellBack,
    InvocationHeld,
    InvocationNotHappened,
    InvocationReconciled,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationReconcileStarted,
    InvocationReleased,
    InvocationRequested,
    InvocationRequeued,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
)
from domain.kernel import RecordedEvent
from projections import moments
from projections.invocations.fold import TOPICS, changes
from projections.invocations.lists import BY_TENANT, COLUMNS, IN_PROJECTS, NARROWED, WALKS, floor_of, parameters_of, summary_of
from projections.invocations.previews import put_previews
from projections.kernel import Connection, topics_of
from projections.moments import moment_of, page_of_then

LAST_EVENTS = {
    "requested": topics_of(InvocationRequested, InvocationRequeued, InvocationFellBack, InvocationReleased),
    "held": topics_of(InvocationHeld),
    "running": topics_of(AttemptStarted, InvocationCancelRequested),
    "retrying": topics_of(InvocationRetryScheduled, InvocationRequeued),
    "ambiguous": topics_of(InvocationBecameAmbiguous, InvocationCancelRequested, InvocationReconciled, InvocationNotHappened),
    "reconciling": topics_of(
        InvocationReconcileRequested,
        InvocationReconcileStarted,
        InvocationReconcileFailed,
        InvocationReconciled,
        InvocationCancelRequested,
        InvocationNotHappened,
    ),
    "succeeded": topics_of(InvocationSucceeded, InvocationResolved),
    "failed": topics_of(InvocationFailed, InvocationResolved),
    "cancelled": topics_of(InvocationCancelled),
    None: TOPICS,
}
"""Status → the topics that the last event of a call may have in this status."""


# `fits`: whether the call may belong to the list. The last call that is looked at is always among the rows. The log is asked about
# calls that have changed since, or that are of the position's time.
def _statement(where: str, by: str, also: str = "true") -> str:
    return f"""
    SELECT {COLUMNS}, fits, number FROM (
        SELECT {COLUMNS}, tenant_id, {also} AND CASE
            WHEN since < %(time)s THEN %(status)s::text IS NULL OR status = %(status)s
            WHEN %(ended)s AND since > %(time)s THEN false
            ELSE (
                SELECT e.topic FROM event AS e
                WHERE e.originator_id = invocation_id AND e.tenant_id = %(tenant)s AND e.notification_id <= %(position)s
                ORDER BY e.originator_version DESC LIMIT 1
            ) = ANY (%(topics)s)
        END AS fits, row_number() OVER (ORDER BY {by}) AS number
        FROM invocation WHERE {where} ORDER BY {by} LIMIT %(looked_at)s
    ) AS looked_at WHERE fits OR number = %(looked_at)s
    ORDER BY {by if by == BY_TENANT else "invocation_id DESC"} LIMIT %(limit)s
    """


LIST_AS_OF = {filters: _statement(*walk) for filters, walk in WALKS.items()}
NARROWED_AS_OF = {filters: _statement(*walk, IN_PROJECTS) for filters, walk in NARROWED.items()}

# Without the values of calls, which may be large and which lists do not show.
EVENTS = """
SELECT notification_id, tenant_id, originator_id, originator_version, root_id, topic, schema_version,
    CASE WHEN topic = ANY (%(read)s) THEN state ELSE ''::bytea END, '', recorded_at
FROM event
WHERE originator_id = ANY (%(calls)s) AND tenant_id = %(tenant)s AND notification_id <= %(position)s
ORDER BY originator_id, originator_version LIMIT %(most)s
"""
READ = topics_of(
    AttemptStarted, InvocationRequeued, InvocationBecameAmbiguous, InvocationCancelRequested, InvocationCancelled,
    InvocationReconcileRequested, InvocationFellBack, InvocationHeld, InvocationReleased,
)  # fmt: skip
"""Events that change what a list shows."""
CHANGE_NOTHING = topics_of(InvocationReconcileStarted, InvocationReconcileFailed, InvocationReconciled, InvocationNotHappened)
ENDS = topics_of(InvocationSucceeded, InvocationFailed, InvocationResolved, InvocationCancelled)


async def list_invocations_as_of(
    connection: Connection, tenant_id: UUID, position: int, wanted: InvocationsWanted
) -> Page[InvocationSummary]:
    """The list as the read model had it at a position that it has reached. A page before the last one may be short.

    Raises PayloadTooLarge.
    """
    limit, _, status, run_id, within, asked_by = wanted
    moment = await moment_of(connection, position)
    if moment is None or (within is not None and not within):
        return Page([], None)
    ended = status in TERMINAL
    parameters = parameters_of(tenant_id, wanted) | {
        "position": position, "time": moment.time, "ended": ended, "topics": list(LAST_EVENTS[status]),
        "looked_at": moments.LOOKED_AT,
    }  # fmt: skip
    sql, floor, looked_at = LIST_AS_OF[ended, run_id is not None, asked_by is not None], None, moments.LOOKED_AT
    if within is not None and run_id is None:  # the floor bounds what is looked at, and the last row is one that the key sees
        sql, looked_at = NARROWED_AS_OF[ended, asked_by is not None], MAX_POSITION
        floor = await floor_of(connection, parameters, ended, asked_by is not None)
        parameters["looked_at"] = looked_at
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    now = [summary_of(row[:-2]) for row in rows if row[-2]]
    changed = [call.invocation_id for call in now if call.cancel_requested or call.since >= moment.time]
    events = await _events(connection, tenant_id, position, changed) if changed else {}
    then = [_at(call, events[call.invocation_id]) if call.invocation_id in events else call for call in now]
    shown = [call for call in then if status in (None, call.status)]
    more = len(rows) > limit or (rows and rows[-1][-1] == looked_at)
    page = page_of_then(shown, limit, lambda call: call.invocation_id, rows[-1][0] if more else floor)
    await put_previews(connection, tenant_id, page.data)
    return page


async def _events(
    connection: Connection, tenant_id: UUID, position: int, calls: Sequence[UUID]
) -> Mapping[UUID, Sequence[RecordedEvent]]:
    """The events of calls up to a position, by call. Raises PayloadTooLarge."""
    parameters: dict[str, Any] = {
        "tenant": tenant_id, "position": position, "calls": list(calls), "read": list(READ), "most": moments.MAX_EVENTS + 1,
    }  # fmt: skip
    rows = await (await connection.execute(EVENTS, parameters)).fetchall()
    if len(rows) > moments.MAX_EVENTS:
        raise PayloadTooLarge(f"the calls of the page have more than {moments.MAX_EVENTS:,} events; ask for fewer with `limit`")
    found: dict[UUID, list[RecordedEvent]] = defaultdict(list)
    for row in rows:
        found[row[2]].append(RecordedEvent(*row))
    return found


def _at(now: InvocationSummary, events: Sequence[RecordedEvent]) -> InvocationSummary:
    """A call after its first events. `now`: the call after all of its events."""
    if any(event.topic in ENDS for event in events):
        return now
    then: dict[str, Any] = {"status": "requested", "since": events[0].recorded_at, "attempt": 0, "cancel_requested": False}
    then["fallback"] = None
    for recorded in events[1:]:
        if recorded.topic in CHANGE_NOTHING:
            continue
        changed = {"status": "retrying"} if recorded.topic == InvocationRetryScheduled.TOPIC else changes(recorded)
        then |= {name: value for name, value in changed.items() if name in then}
        if "status" in changed:
            then["since"] = recorded.recorded_at
    return now.model_copy(update=then)
