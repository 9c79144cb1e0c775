"""One run: the document that people see, put together from its rows and the events that the rows name."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.large import LARGE_BYTES
from application.views.runs import NEWEST_CALLS, CallView, RunCallView, RunView, StepView
from domain import runs
from domain.kernel import who_asked
from domain.registry import REGISTRY
from projections.engine.checkpoints import POSITION_OF
from projections.kernel import Connection
from projections.runs import documents
from projections.runs.fold import compensation_brief, steps_of
from projections.runs.starters import NOBODY_KNOWN, starters
from projections.runs.tables import CALL_COLUMNS, RUN_COLUMNS, RUN_WIDTH, STEP_COLUMNS, CallRow, RunRow, StepRow
from projections.runs.values import ROOM, Values, error_of_call, resolution_of_call

READ_MODEL = "runs"
FIND_RUN = f"""
SELECT ({POSITION_OF}), r.view, {RUN_COLUMNS}, {STEP_COLUMNS}
FROM (SELECT) AS always LEFT JOIN run AS r ON r.tenant_id = %(tenant)s AND r.run_id = %(run)s
LEFT JOIN run_step AS s ON s.run_id = r.run_id AND s.tenant_id = r.tenant_id
"""
NEWEST_CALLS_OF_RUN = f"""
SELECT {CALL_COLUMNS} FROM run_call AS c WHERE c.run_id = %s AND c.tenant_id = %s ORDER BY c.run_id DESC, c.position DESC LIMIT %s
"""
IN_ROWS = "SELECT 1 FROM run WHERE tenant_id = %s AND run_id = %s AND view IS NULL"
CALLS_OF_RUN = f"""
SELECT s.step, {CALL_COLUMNS} FROM run_call AS c JOIN run_step AS s ON s.run_id = c.run_id AND s.agent_run_id = c.agent_run_id
WHERE c.run_id = %s AND c.tenant_id = %s AND c.position > %s ORDER BY c.run_id, c.position LIMIT %s
"""
# A large result is not read: the length of a value is known without the value.
EVENTS = """
SELECT notification_id, topic, schema_version, CASE WHEN topic <> %s OR octet_length(state) <= %s THEN state END,
    octet_length(state), recorded_at, metadata
FROM event WHERE notification_id = ANY (%s)
"""
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class Kept(NamedTuple):
    """An event that rows name by its position."""

    event: Any
    """None: the event of a large result, which was not read."""
    recorded_at: datetime
    position: int
    size: int
    """Bytes of the stored event."""
    metadata: str


Events = Mapping[int, Kept]


@dataclass(slots=True)
class _Found:
    """What the tables hold of a run, at a position of the read model."""

    position: int
    document: bytes | None = None
    run: RunRow | None = None
    steps: list[StepRow] = field(default_factory=list)
    calls: list[CallRow] = field(default_factory=list)


async def get_run(connection: Connection, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
    """The run as it is at the position of the read model. The connection commits each statement by itself.

    Raises ValueError for stored values that cannot be read.
    """
    found = await _find(connection, tenant_id, run_id)
    if found.document is not None:
        view = documents.shown(found.document)
        view.actor, view.on_behalf_of = (await starters(connection, tenant_id, [run_id])).get(run_id, NOBODY_KNOWN)
        return Positioned(view, found.position)
    if found.run is not None and found.run.call_count:  # calls take a second statement: both must see the same moment
        async with connection.transaction():
            await connection.execute(ONE_SNAPSHOT)
            found = await _find(connection, tenant_id, run_id)
            cursor = await connection.execute(NEWEST_CALLS_OF_RUN, [run_id, tenant_id, NEWEST_CALLS], binary=True)
            found.calls = [CallRow(*row) for row in await cursor.fetchall()]
    if found.run is None:
        return Positioned(None, found.position)
    events = await read_events(connection, positions_of(found.run, found.steps, found.calls))
    return Positioned(assembled(found.run, found.steps, found.calls, events), found.position)


async def _find(connection: Connection, tenant_id: UUID, run_id: UUID) -> _Found:
    """The run with its steps, by one statement."""
    rows = await (
        await connection.execute(FIND_RUN, {"name": READ_MODEL, "tenant": tenant_id, "run": run_id}, binary=True)
    ).fetchall()
    position, document, *columns = rows[0]
    found = _Found(position or 0, document)
    if document is None and columns[0] is not None:
        found.run = RunRow(*columns[:RUN_WIDTH])
        found.steps = [StepRow(*row[2 + RUN_WIDTH :]) for row in rows if row[2 + RUN_WIDTH] is not None]
    return found


async def read_calls(connection: Connection, tenant_id: UUID, run_id: UUID, *, limit: int, after: int) -> Page[RunCallView] | None:
    """In the caller's transaction, which has one snapshot. None: the run is not in rows."""
    found = await (await connection.execute(IN_ROWS, [tenant_id, run_id])).fetchone()
    if found is None:
        return None
    cursor = await connection.execute(CALLS_OF_RUN, [run_id, tenant_id, after, limit + 1], binary=True)
    rows = [(step, CallRow(*columns)) for step, *columns in await cursor.fetchall()]
    shown = rows[:limit]
    events = await read_events(connection, positions_of_parts((), [call for _, call in shown]))
    data = [
        RunCallView(
            **dict(call_view(call, events)), step=step, agent_run_id=call.agent_run_id, position=call.position
        ) for step, call in shown
    ]  # fmt: skip
    return Page(data, encode_cursor(str(data[-1].position)) if len(rows) > limit else None)


async def read_events(connection: Connection, positions: Collection[int]) -> dict[int, Kept]:
    """Raises ValueError, UnknownEvent."""
    cursor = await connection.execute(EVENTS, [runs.StepCompleted.TOPIC, LARGE_BYTES + ROOM, list(positions)], binary=True)
    return {
        position: Kept(None if state is None else REGISTRY.decode(topic, version, state), recorded_at, position, size, metadata)
        for position, topic, version, state, size, recorded_at, metadata in await cursor.fetchall()
    }


def positions_of(run: RunRow, steps: Iterable[StepRow], calls: Iterable[CallRow]) -> set[int]:
    """Positions of the events that a run is put together from."""
    own = (run.start_position, run.end_position, run.compensation_position)
    return positions_of_parts(steps, calls) | {position for position in own if position is not None}


def positions_of_parts(steps: Iterable[StepRow], calls: Iterable[CallRow]) -> set[int]:
    wanted: set[int | None] = set()
    for step in steps:
        wanted |= {step.result_position, step.error_position, step.unused_position}
    for call in calls:
        wanted |= {call.error_position, call.resolution_position}
    return {position for position in wanted if position is not None}


def assembled(run: RunRow, steps: Iterable[StepRow], calls: Iterable[CallRow], events: Events) -> RunView:
    """The document of a run. `calls`: the newest ones, in any order."""
    first = events[run.start_position]
    started: runs.RunStarted = first.event
    end = None if run.end_position is None else events[run.end_position]
    shown, values = steps_of(started), Values(run.run_id, len(started.plan.steps))
    of_step = {step.step: step for step in steps}
    of_agent_run: dict[UUID | None, StepView] = {}
    for view in shown:
        if (row := of_step.get(view.key)) is not None:
            _fill(view, row, events, values)
            of_agent_run[row.agent_run_id] = view
        elif run.status in ("failed", "cancelled"):
            view.status = "cancelled"
    for call in sorted(calls, key=lambda call: call.position):
        of_agent_run[call.agent_run_id].calls.append(call_view(call, events))
    actor, on_behalf_of = who_asked(first.metadata)
    document = RunView(
        run_id=run.run_id, project_id=run.project_id, status=run.status, degraded=run.degraded, missing=run.missing,
        plan=started.plan, priority=run.priority, actor=actor, on_behalf_of=on_behalf_of, compensate=started.compensate,
        compensation=None if run.compensation_position is None else compensation_brief(events[run.compensation_position].event),
        cancel_reason=end.event.reason if end is not None and isinstance(end.event, runs.RunCancelled) else None,
        created_at=run.created_at, updated_at=run.updated_at, finished_at=run.finished_at, version=run.version,
        position=run.position, event_count=run.event_count, message_count=run.message_count, call_count=run.call_count,
        steps=shown,
    )  # fmt: skip
    values.start(document, started, first.position, first.size)
    if end is not None and isinstance(end.event, runs.RunFailed):
        values.error_of_run(document, end.event.error, end.position, end.size)
    return document


def _fill(view: StepView, row: StepRow, events: Events, values: Values) -> None:
    view.status, view.attempt, view.worker_id = row.status, row.attempt, row.worker_id
    view.recorded_steps, view.call_count = row.recorded_steps, row.call_count
    view.scheduled_at, view.started_at, view.finished_at = row.scheduled_at, row.started_at, row.finished_at
    if row.scheduled_at is not None:
        view.agent_run_id = row.agent_run_id
    if row.result_position is not None:
        held = events[row.result_position]
        values.result(view, held.event.result if held.event is not None else None, row.agent_run_id, held.position, held.size)
    if row.error_position is not None:
        held = events[row.error_position]
        values.error_of_step(view, held.event.error, held.position, held.size)
    if row.unused_position is not None:
        view.unused_keys = list(events[row.unused_position].event.unused_keys)


def call_view(row: CallRow, events: Events) -> CallView:
    view = CallView(
        key=row.key, tool=row.tool, invocation_id=row.invocation_id, status=row.status, attempts=row.attempts,
        worker_id=row.worker_id, cancel_requested=row.cancel_requested, effect=row.effect, started_at=row.started_at,
        finished_at=row.finished_at, fallback=row.fallback,
    )  # fmt: skip
    if row.error_position is not None:
        held = events[row.error_position]
        error_of_call(view, held.event.error, held.position, held.size)
    if row.resolution_position is not None:
        held = events[row.resolution_position]
        resolution_of_call(view, held.event, held.recorded_at, held.position, held.size)
    return view
