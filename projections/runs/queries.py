"""One run: the document that people see, put together from its rows and the events that the rows name."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.large import LARGE_BYTES
from application.views.runs import (
    FIRST_PARTS,
    NEWEST_CALLS,
    CallView,
    PartsView,
    PartView,
    ProgressView,
    RunCallView,
    RunView,
    StepView,
)
from domain import runs
from domain.errors import NotFound
from domain.kernel import who_asked
from domain.registry import REGISTRY
from projections.engine.checkpoints import POSITION_OF
from projections.kernel import Connection
from projections.runs import documents
from projections.runs.fold import compensation_brief, pause_view
from projections.runs.folded import steps_of
from projections.runs.forms import brief_of, fields_of, total_of, tried, why_of
from projections.runs.starters import NOBODY_KNOWN, starters
from projections.runs.tables import (
    CALL_COLUMNS,
    PART_COLUMNS,
    RUN_COLUMNS,
    RUN_WIDTH,
    STEP_COLUMNS,
    CallRow,
    PartRow,
    RunRow,
    StepRow,
)
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
SELECT coalesce(c.step, s.step), {CALL_COLUMNS}
FROM run_call AS c LEFT JOIN run_step AS s ON s.run_id = c.run_id AND s.agent_run_id = c.agent_run_id
WHERE c.run_id = %s AND c.tenant_id = %s AND c.position > %s ORDER BY c.run_id, c.position LIMIT %s
"""
PARTS_OF_STEP = f"""
SELECT {PART_COLUMNS} FROM run_part AS p WHERE p.run_id = %(run)s AND p.tenant_id = %(tenant)s AND p.step = %(step)s
    AND p.number > %(after)s ORDER BY p.run_id, p.step, p.number LIMIT %(limit)s
"""
FIRST_PARTS_OF_RUN = f"""
SELECT {PART_COLUMNS} FROM run_step AS s CROSS JOIN LATERAL (
    SELECT {PART_COLUMNS} FROM run_part AS p WHERE p.run_id = s.run_id AND p.step = s.step AND p.number >= 0
    ORDER BY p.run_id, p.step, p.number LIMIT %(limit)s
) AS p WHERE s.run_id = %(run)s AND s.tenant_id = %(tenant)s AND s.form IS NOT NULL
"""
PLAN_OF_RUN = "SELECT start_position FROM run WHERE tenant_id = %s AND run_id = %s AND view IS NULL"
# A large result or input is not read: the length of a value is known without the value.
EVENTS = """
SELECT notification_id, topic, schema_version, CASE WHEN NOT topic = ANY (%s) OR octet_length(state) <= %s THEN state END,
    octet_length(state), recorded_at, metadata
FROM event WHERE notification_id = ANY (%s)
"""
MAY_BE_LARGE = [kind.TOPIC for kind in (runs.StepCompleted, runs.StepScheduled, runs.PartCompleted, runs.PartScheduled)]
ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class Kept(NamedTuple):
    """An event that rows name by its position."""

    event: Any
    """None: the event of a large value, which was not read."""
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
    parts: list[PartRow] = field(default_factory=list)
    """The first ones of each step."""
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
    if found.run is not None and (found.run.call_count or found.run.has_parts):
        async with connection.transaction():  # they take further statements: all must see the same moment
            await connection.execute(ONE_SNAPSHOT)
            found = await _find(connection, tenant_id, run_id)
            cursor = await connection.execute(NEWEST_CALLS_OF_RUN, [run_id, tenant_id, NEWEST_CALLS], binary=True)
            found.calls = [CallRow(*row) for row in await cursor.fetchall()]
            if found.run is not None and found.run.has_parts:
                first = {"run": run_id, "tenant": tenant_id, "limit": FIRST_PARTS}
                found.parts = [
                    PartRow(*row) for row in await (await connection.execute(FIRST_PARTS_OF_RUN, first, binary=True)).fetchall()
                ]
    if found.run is None:
        return Positioned(None, found.position)
    events = await read_events(connection, positions_of(found.run, found.steps, found.calls))
    return Positioned(assembled(found.run, found.steps, found.calls, events, found.parts), found.position)


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


async def read_parts(
    connection: Connection, tenant_id: UUID, run_id: UUID, step: str, *, limit: int, after: int
) -> Page[PartView] | None:
    """In the caller's transaction, which has one snapshot. None: the run is not in rows. Raises NotFound if it has no such step."""
    begun = await (await connection.execute(PLAN_OF_RUN, [tenant_id, run_id])).fetchone()
    if begun is None:
        return None
    wanted = {"run": run_id, "tenant": tenant_id, "step": step, "after": after, "limit": limit + 1}
    rows = [PartRow(*row) for row in await (await connection.execute(PARTS_OF_STEP, wanted, binary=True)).fetchall()]
    if not rows:
        started = (await read_events(connection, begun))[begun[0]].event
        must_be_a_step(started.plan, run_id, step)
    return await page_of_parts(connection, rows, limit)


async def page_of_parts(connection: Connection, rows: Sequence[PartRow], limit: int) -> Page[PartView]:
    """`rows`: one more than `limit` if there is a next page."""
    shown = rows[:limit]
    named = [(row.scheduled_position, row.result_position, row.error_position) for row in shown]
    events = await read_events(connection, {position for row in named for position in row if position is not None})
    return Page([part_view(row, events) for row in shown], encode_cursor(str(shown[-1].number)) if len(rows) > limit else None)


def part_view(row: PartRow, events: Events) -> PartView:
    view, values = PartView(**fields_of(row)), Values(row.run_id, 1)
    held = events[row.scheduled_position]
    if not isinstance(held.event, runs.PartTakenOver):  # its input stays in the other run
        given = None if held.event is None else held.event.input
        values.of_part(view, row.step, "input", given, held.position, held.size)
    if row.result_position is not None:
        held = events[row.result_position]
        values.of_part(view, row.step, "result", None if held.event is None else held.event.result, held.position, held.size)
    if row.error_position is not None:
        held = events[row.error_position]
        values.error_of_part(view, row.step, held.event.error, held.position, held.size)
    return view


def must_be_a_step(plan: runs.Plan, run_id: UUID, key: str) -> None:
    if all(step.key != key for step in plan.steps):
        raise NotFound(f"run {run_id} has no step {key}")


async def read_events(connection: Connection, positions: Collection[int]) -> dict[int, Kept]:
    """Raises ValueError, UnknownEvent."""
    cursor = await connection.execute(EVENTS, [MAY_BE_LARGE, LARGE_BYTES + ROOM, list(positions)], binary=True)
    return {
        position: Kept(None if state is None else REGISTRY.decode(topic, version, state), recorded_at, position, size, metadata)
        for position, topic, version, state, size, recorded_at, metadata in await cursor.fetchall()
    }


def positions_of(run: RunRow, steps: Iterable[StepRow], calls: Iterable[CallRow]) -> set[int]:
    """Positions of the events that a run is put together from."""
    own = (run.start_position, run.end_position, run.compensation_position, run.pause_position)
    return positions_of_parts(steps, calls) | {position for position in own if position is not None}


def positions_of_parts(steps: Iterable[StepRow], calls: Iterable[CallRow]) -> set[int]:
    wanted: set[int | None] = set()
    for step in steps:
        wanted |= {step.result_position, step.error_position, step.unused_position}
        if step.has_form:
            wanted |= {step.form.input, *step.form.fallbacks}
    for call in calls:
        wanted |= {call.error_position, call.resolution_position}
    return {position for position in wanted if position is not None}


def assembled(
    run: RunRow, steps: Iterable[StepRow], calls: Iterable[CallRow], events: Events, parts: Iterable[PartRow] = ()
) -> RunView:
    """The document of a run. `calls`: the newest ones, in any order. `parts`: the first ones of each step."""
    first = events[run.start_position]
    started: runs.RunStarted = first.event
    end = None if run.end_position is None else events[run.end_position]
    shown, values = steps_of(started), Values(run.run_id, len(started.plan.steps))
    of_step = {step.step: step for step in steps}
    of_agent_run: dict[UUID | None, StepView] = {}
    by_key = {view.key: view for view in shown} if run.has_parts else {}
    for planned, view in zip(started.plan.steps, shown, strict=True):
        if (row := of_step.get(view.key)) is not None:
            _fill(view, row, events, values)
            of_agent_run[row.agent_run_id] = view
            if run.has_parts or row.has_form:
                _fill_form(planned, view, row, events, values)
        elif run.status in ("failed", "cancelled"):
            view.status = "cancelled"
    for call in sorted(calls, key=lambda call: call.position):
        view = of_agent_run[call.agent_run_id] if call.step is None else by_key[call.step]
        view.calls.append(call_view(call, events))
    for part in sorted(parts, key=lambda part: part.number):
        if (counted := by_key[part.step].parts) is not None:
            counted.first.append(brief_of(part))
    actor, on_behalf_of = who_asked(first.metadata)
    document = RunView(
        run_id=run.run_id, project_id=run.project_id, status=run.status, degraded=run.degraded, missing=run.missing,
        plan=started.plan, priority=run.priority, actor=actor, on_behalf_of=on_behalf_of, compensate=started.compensate,
        compensation=None if run.compensation_position is None else compensation_brief(events[run.compensation_position].event),
        retries=run.retries, deadline_at=run.deadline_at,
        cancel_reason=end.event.reason if end is not None and isinstance(end.event, runs.RunCancelled) else None,
        created_at=run.created_at, updated_at=run.updated_at, finished_at=run.finished_at, version=run.version,
        position=run.position, event_count=run.event_count, message_count=run.message_count, call_count=run.call_count,
        steps=shown, parent=started.parent, workflow=started.workflow, origin=started.origin,
        forked_from=started.forked_from, concurrency=None if started.concurrency is None else started.concurrency.said,
    )  # fmt: skip
    if run.pause_position is not None:
        held = events[run.pause_position]
        document.pause = pause_view(held.event, held.recorded_at)
    values.start(document, started, first.position, first.size)
    if end is not None and isinstance(end.event, runs.RunFailed):
        values.error_of_run(document, end.event.error, end.position, end.size)
    if end is not None and isinstance(end.event, runs.RunCompleted) and started.plan.result is not None:
        values.result_of_run(document, end.event.result, end.position, end.size)
    return document


def _fill(view: StepView, row: StepRow, events: Events, values: Values) -> None:
    view.status, view.attempt, view.worker_id = row.status, row.attempt, row.worker_id
    view.recorded_steps, view.call_count = row.recorded_steps, row.call_count
    view.scheduled_at, view.started_at, view.finished_at = row.scheduled_at, row.started_at, row.finished_at
    if row.scheduled_at is not None:
        view.agent_run_id = row.agent_run_id
    if row.result_position is not None:
        held = events[row.result_position]
        if isinstance(held.event, runs.StepTakenOver):
            values.measured_result(view, held.event.result, held.position)
        else:
            values.result(view, held.event.result if held.event is not None else None, held.position, held.size)
    if row.error_position is not None:
        held = events[row.error_position]
        values.error_of_step(view, held.event.error, held.position, held.size)
    if row.unused_position is not None:
        view.unused_keys = list(events[row.unused_position].event.unused_keys)


def _fill_form(planned: runs.Step, view: StepView, row: StepRow, events: Events, values: Values) -> None:
    """What a step has that is more than one execution of an agent."""
    form = row.form
    if form.why is not None or row.scheduled_at is not None or row.status == "completed":
        view.why = why_of(planned, form.why)
    if form.input is not None:
        held = events[form.input]
        values.input(view, None if held.event is None else held.event.input, held.position, held.size)
    if form.until is not None:
        view.waits_until = datetime.fromisoformat(form.until)
    if form.progress is not None:
        view.progress = ProgressView.model_validate(form.progress)
    if form.counted:
        view.parts = PartsView(
            total=total_of(planned) if form.total is None else form.total, started=form.started, completed=form.completed,
            failed=form.failed, cancelled=form.cancelled, first=[],
        )  # fmt: skip
    if form.fallbacks:
        view.fallbacks = [tried(events[position].event, events[position].recorded_at) for position in form.fallbacks]
    view.exhausted = form.exhausted
    if form.execution is not None:
        view.agent_run_id = UUID(form.execution)
    elif view.form != "agent":
        view.agent_run_id = None
    if form.taken is not None:
        view.taken_over, view.agent_run_id = True, UUID(form.taken) if form.taken else None


def call_view(row: CallRow, events: Events) -> CallView:
    view = CallView(
        key=row.key, tool=row.tool, invocation_id=row.invocation_id, status=row.status, attempts=row.attempts,
        worker_id=row.worker_id, cancel_requested=row.cancel_requested, effect=row.effect, started_at=row.started_at,
        finished_at=row.finished_at, fallback=row.fallback, part=row.part,
    )  # fmt: skip
    if row.error_position is not None:
        held = events[row.error_position]
        error_of_call(view, held.event.error, held.position, held.size)
    if row.resolution_position is not None:
        held = events[row.resolution_position]
        resolution_of_call(view, held.event, held.recorded_at, held.position, held.size)
    return view
