"""Events of runs into rows: a batch reads and writes the rows that its events change, each kind with one statement."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from psycopg.sql import SQL, Identifier

from application.views.runs import ProgressView
from domain import agent_runs, invocations, runs
from domain.failures import Failure
from domain.kernel import RecordedEvent, who_asked
from projections.kernel import Connection, decoded, in_turns
from projections.runs import documents
from projections.runs.fold import CHANGES_A_CALL, CHANGES_A_STEP, STEPS_OVER, evolve
from projections.runs.forms import part_row, said_of
from projections.runs.tables import (
    ALIAS,
    CALL_COLUMNS,
    PART_COLUMNS,
    RUN_COLUMNS,
    STEP_COLUMNS,
    CallRow,
    PartRow,
    RunRow,
    StepForm,
    StepRow,
)

# --- reading ------------------------------------------------------------------------------------------------------------

# A process of the release before reads and writes documents only. Such a process does not read format 2 of the log's messages.
# Its row stays for a minute after its last beat.
FIND_RUNS = f"""
SELECT known.documents, {RUN_COLUMNS}, r.view
FROM (SELECT EXISTS (SELECT FROM member WHERE formats IS NULL OR NOT 2 = ANY (formats))) AS known (documents)
LEFT JOIN run AS r ON r.run_id = ANY (%b)
"""
FIND_STEPS = f"""
SELECT {STEP_COLUMNS} FROM unnest(%b::uuid[], %b::uuid[]) AS u (run, part)
JOIN run_step AS s ON s.run_id = u.run AND s.agent_run_id = u.part
"""
FIND_STEPS_OF = f"SELECT {STEP_COLUMNS} FROM run_step AS s WHERE s.run_id = ANY (%b)"
FIND_CALLS = f"""
SELECT {CALL_COLUMNS} FROM unnest(%b::uuid[], %b::uuid[]) AS u (run, part)
JOIN run_call AS c ON c.run_id = u.run AND c.invocation_id = u.part
"""
FIND_PARTS = f"""
SELECT {PART_COLUMNS} FROM unnest(%b::uuid[], %b::uuid[]) AS u (run, execution)
JOIN run_part AS p ON p.run_id = u.run AND p.execution_id = u.execution
"""
FIND_PARTS_BY_NUMBER = f"""
SELECT {PART_COLUMNS} FROM unnest(%b::uuid[], %b::text[], %b::integer[]) AS u (run, step, number)
JOIN run_part AS p ON p.run_id = u.run AND p.step = u.step AND p.number = u.number
"""
CALLS_OFF = frozenset({runs.RunFailed.TOPIC, runs.RunCancelled.TOPIC})
OF_ALL_STEPS = CALLS_OFF | {runs.RunRetried.TOPIC}
"""Events that may change each step of their run."""
ENDS_A_STEP = frozenset({runs.StepCompleted.TOPIC, runs.StepFailed.TOPIC, runs.StepSkipped.TOPIC})
OF_A_PART = frozenset(
    kind.TOPIC for kind in (runs.PartScheduled, runs.PartCompleted, runs.PartFailed, runs.StepFellBack, runs.PartTakenOver)
)
OF_A_STEP = frozenset(kind.TOPIC for kind in (runs.StepScheduled, runs.StepStarted, runs.StepSkipped, runs.StepTakenOver))
NAMES_PARTS = OF_A_PART | ENDS_A_STEP | CALLS_OFF | OF_A_STEP
"""Events that name a step, parts of a step, or parts that are abandoned."""
ABANDONED = ("abandoned", "abandoned_runs")


class Rows:
    """The rows of the runs of one batch."""

    def __init__(self) -> None:
        self.runs: dict[UUID, RunRow] = {}
        self.steps: dict[UUID, dict[UUID, StepRow]] = {}
        """Run → agent run → step."""
        self.parts: dict[UUID, dict[tuple[str, int], PartRow]] = {}
        """Run → step and number → part."""
        self.calls: dict[tuple[UUID, UUID], CallRow] = {}
        self.begun: set[UUID] = set()
        """The runs that began in the batch."""
        self.stored: dict[UUID, bytes] = {}
        """Documents of runs that are stored as documents."""
        self.documents = False
        """Whether a process of the release before is among the members."""

    async def load(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        """Reads the rows that the events of the batch change."""
        begun = {recorded.root_id for recorded in batch if recorded.topic == runs.RunStarted.TOPIC}
        known = [recorded for recorded in batch if recorded.root_id not in begun]
        calls = {(r.root_id, r.stream_id) for r in known if r.topic in CHANGES_A_CALL}
        ended = {r.root_id for r in known if r.topic in OF_ALL_STEPS}
        steps = {part for r in known if r.root_id not in ended and (part := self._step_of(r)) is not None}
        cursor = await connection.execute(FIND_RUNS, [list({r.root_id for r in known})], binary=True)
        for self.documents, *columns, view in await cursor.fetchall():
            if view is not None:
                self.stored[columns[0]] = view
            elif columns[0] is not None:
                row = RunRow(*columns)
                self.runs[row.run_id] = row
        if of_parts := [r for r in known if (run := self.runs.get(r.root_id)) is not None and run.has_parts]:
            steps |= await self._load_parts(connection, of_parts, ended)
        cursors = [
            await connection.execute(FIND_STEPS, _columns(steps), binary=True) if steps else None,
            await connection.execute(FIND_STEPS_OF, [list(ended)], binary=True) if ended else None,
            await connection.execute(FIND_CALLS, _columns(calls), binary=True) if calls else None,
        ]
        *found_steps, found_calls = [await cursor.fetchall() if cursor is not None else [] for cursor in cursors]
        for step in (StepRow(*columns) for found in found_steps for columns in found):
            assert step.agent_run_id is not None
            self.steps.setdefault(step.run_id, {})[step.agent_run_id] = step
        for call in (CallRow(*columns) for columns in found_calls):
            self.calls[call.run_id, call.invocation_id] = call

    async def _load_parts(
        self, connection: Connection, known: Sequence[RecordedEvent], ended: Collection[UUID]
    ) -> set[tuple[UUID, UUID]]:
        """Reads the parts that events of runs with parts change. Returns the keys of the steps' rows that they change."""
        executions: set[tuple[UUID, UUID]] = set()
        numbers: set[tuple[UUID, str, int]] = set()
        steps: set[tuple[UUID, str]] = set()
        for recorded in known:
            run_id = recorded.root_id
            if recorded.topic in CHANGES_A_STEP:
                executions.add((run_id, recorded.stream_id))
            elif recorded.topic in NAMES_PARTS:
                event: Any = decoded(recorded)
                if recorded.topic not in CALLS_OFF:
                    steps.add((run_id, event.step))
                if recorded.topic in OF_A_PART:
                    numbers.add((run_id, event.step, ALIAS if event.part is None else event.part))
                executions |= {(run_id, id) for name in ABANDONED for id in getattr(event, name, ())}
        found = []
        if executions:
            found += await (await connection.execute(FIND_PARTS, _columns(executions), binary=True)).fetchall()
        if numbers:
            found += await (await connection.execute(FIND_PARTS_BY_NUMBER, _columns(numbers), binary=True)).fetchall()
        for part in (PartRow(*columns) for columns in found):
            of_run = self.parts.setdefault(part.run_id, {})
            of_run.setdefault((part.step, part.number), part)
            steps.add((part.run_id, part.step))
        return {(run_id, runs.agent_run_id_of(run_id, key)) for run_id, key in steps if run_id not in ended}

    def _step_of(self, recorded: RecordedEvent) -> tuple[UUID, UUID] | None:
        """The key of the row of a step that an event changes."""
        if recorded.topic in CHANGES_A_STEP:
            return recorded.root_id, recorded.stream_id
        if recorded.topic in ENDS_A_STEP:
            event = decoded(recorded)
            return recorded.root_id, _agent_run_of(recorded.root_id, event.step, getattr(event, "agent_run_id", None))
        return None

    def begin(self, recorded: RecordedEvent) -> None:
        event: runs.RunStarted = decoded(recorded)
        actor, on_behalf_of = (said if isinstance(said, str) else None for said in who_asked(recorded.metadata))
        self.begun.add(recorded.root_id)
        self.runs[recorded.root_id] = RunRow(
            run_id=recorded.root_id, tenant_id=recorded.tenant_id, project_id=event.project_id, status="running", degraded=False,
            position=recorded.position, created_at=recorded.recorded_at, updated_at=recorded.recorded_at, finished_at=None,
            start_position=recorded.position, end_position=None, version=recorded.version, event_count=1, message_count=0,
            call_count=0, priority=event.priority, missing_keys=None, compensation_position=None,
            has_parts=None if event.plan.is_plain and event.forked_from is None else True, stored_retries=None, deadline_at=None,
            agents=" ".join(filter(None, [step.agent for step in event.plan.steps])), actor=actor, on_behalf_of=on_behalf_of,
            parent_id=None if event.parent is None else event.parent.run_id,
            workflow=None if event.workflow is None else f"{event.workflow.name}@{event.workflow.version}",
            origin=None if event.origin is None else f"{event.origin.kind}:{event.origin.name}",
        )  # fmt: skip


class RunParts:
    """The parts of one run, for the fold. Rows that the fold asks for are written."""

    def __init__(self, rows: Rows, run: RunRow) -> None:
        self._rows = rows
        self._run = run
        self._steps = rows.steps.setdefault(run.run_id, {})
        self._parts = rows.parts.setdefault(run.run_id, {})
        self._executions = {part.execution_id: part for part in self._parts.values()}
        self.changed_steps: dict[UUID, StepRow] = {}
        self.changed_parts: dict[tuple[str, int], PartRow] = {}
        self.changed_calls: dict[UUID, CallRow] = {}

    def step(self, key: str, agent_run_id: UUID | None) -> StepRow:
        run = self._run
        part = _agent_run_of(run.run_id, key, None if run.has_parts else agent_run_id)
        if part not in self._steps:
            self._steps[part] = StepRow(
                run.run_id, part, run.tenant_id, None, None, None, None, None, None, 0, 0, 0, "pending", key, None
            )
        return self._change(part)

    def step_of(self, agent_run_id: UUID) -> StepRow | None:
        if (part := self._executions.get(agent_run_id)) is not None:
            return self.step(part.step, None)
        step = self._steps.get(agent_run_id)
        if step is None or (step.has_form and step.form.execution is not None):  # it went on with another agent run
            return None
        return self._change(agent_run_id)

    def _change(self, part: UUID) -> StepRow:
        step = self.changed_steps[part] = self._steps[part]
        step.now = self._run.position
        return step

    def part_of(self, execution_id: UUID) -> tuple[str, PartRow] | None:
        part = self._executions.get(execution_id)
        return None if part is None or part.number == ALIAS else (part.step, self.part(part.step, part.number))

    def part(self, key: str, number: int) -> PartRow:
        part = self.changed_parts[key, number] = self._parts[key, number]
        return part

    def known_part(self, key: str, number: int) -> PartRow | None:
        return self._parts.get((key, number))

    def counts(self, key: str) -> StepForm:
        form = self.step(key, None).form
        form.counted = True
        return form

    def schedule(self, step: StepRow, event: runs.StepScheduled, recorded: RecordedEvent) -> None:
        if event.mapped:
            step.form.input = recorded.position
        if event.agent_run_id != step.agent_run_id:
            step.form.execution = str(event.agent_run_id)
            again = runs.PartScheduled(step=event.step, part=ALIAS, agent_run_id=event.agent_run_id, agent=event.agent)
            self.schedule_part(again, recorded)

    def schedule_part(self, event: runs.PartScheduled, recorded: RecordedEvent) -> bool:
        before = self._parts.get((event.step, event.part))
        part = self._parts[event.step, event.part] = part_row(event, recorded, before)
        self.changed_parts[event.step, event.part] = part
        if before is not None:
            self._executions.pop(before.execution_id, None)
        self._executions[part.execution_id] = part
        return before is None

    def fall_back(self, step: StepRow, event: runs.StepFellBack, recorded: RecordedEvent) -> None:
        step.form.fallbacks.append(recorded.position)
        self.keep_error(step, event.error, recorded)

    def take_over(self, step: StepRow, event: runs.StepTakenOver, recorded: RecordedEvent) -> None:
        step.form.taken = "" if event.agent_run_id is None else str(event.agent_run_id)
        step.result_position = None if event.result is None else recorded.position

    def keep_why(self, step: StepRow, event: Any) -> None:
        if (said := said_of(event)) is not None:
            step.form.why = said

    def keep_wait(self, step: StepRow, until: datetime) -> None:
        step.form.until = until.isoformat()

    def keep_exhausted(self, step: StepRow) -> None:
        step.form.exhausted = True

    def keep_progress(self, step: StepRow, progress: ProgressView) -> None:
        step.form.progress = progress.model_dump(mode="json", exclude_none=True)

    def call_of(self, invocation_id: UUID) -> CallRow | None:
        call = self._rows.calls.get((self._run.run_id, invocation_id))
        if call is not None:
            self.changed_calls[invocation_id] = call
        return call

    def start_call(self, event: agent_runs.CallStarted, recorded: RecordedEvent) -> None:
        call = CallRow(
            recorded.root_id, event.invocation_id, recorded.tenant_id, recorded.stream_id, recorded.position, recorded.recorded_at,
            None, None, None, 0, False, "requested", event.key, event.tool, None, None,
        )  # fmt: skip
        if (part := self._executions.get(recorded.stream_id)) is not None:
            call.step, call.part = part.step, None if part.number == ALIAS else part.number
        self._rows.calls[recorded.root_id, event.invocation_id] = self.changed_calls[event.invocation_id] = call

    def open_steps(self) -> Iterable[StepRow]:
        return [self._change(part) for part, step in self._steps.items() if step.status not in STEPS_OVER]

    def keep_result(self, step: StepRow, event: runs.StepCompleted, recorded: RecordedEvent) -> None:
        step.result_position = None if event.result is None else recorded.position

    def keep_run_result(self, run: RunRow, event: runs.RunCompleted, recorded: RecordedEvent) -> None:
        if event.result is not None:
            run.end_position = recorded.position

    def keep_part_result(self, part: PartRow, event: runs.PartCompleted | runs.PartTakenOver, recorded: RecordedEvent) -> None:
        part.result_position = None if event.result is None else recorded.position

    def keep_error(self, part: RunRow | StepRow | PartRow | CallRow, error: Failure | None, recorded: RecordedEvent) -> None:
        if isinstance(part, RunRow):
            part.end_position = recorded.position
        else:
            part.error_position = None if error is None else recorded.position

    def keep_resolution(self, call: CallRow, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None:
        call.resolution_position = recorded.position

    def keep_compensation(self, run: RunRow, recorded: RecordedEvent) -> None:
        run.compensation_position = recorded.position

    def keep_pause(self, run: RunRow, recorded: RecordedEvent | None) -> None:
        run.pause_position = None if recorded is None else recorded.position

    def is_paused(self, run: RunRow) -> bool:
        return run.pause_position is not None

    def forget_end(self, run: RunRow) -> None:
        run.end_position = None

    def forget_step(self, step: StepRow, recorded: RecordedEvent) -> None:
        step.error_position = None
        if step.has_form:
            step.form.why, step.form.until, step.form.exhausted, step.form.execution = None, None, False, None
            step.form.progress = None


def _agent_run_of(run_id: UUID, step: str, agent_run_id: UUID | None) -> UUID:
    """The key of a step's row. A step that failed before its work was requested has no agent run, and none will come."""
    return runs.agent_run_id_of(run_id, step) if agent_run_id is None else agent_run_id


def _columns(keys: Collection[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*keys, strict=True)]


# --- writing ------------------------------------------------------------------------------------------------------------

INSERT_RUNS = """
INSERT INTO run (
    run_id, tenant_id, project_id, status, degraded, position, created_at, updated_at, finished_at, start_position, end_position,
    version, event_count, message_count, call_count, priority, missing, compensation_position, has_parts, retries, deadline_at,
    agents, actor, on_behalf_of, parent_id, workflow, origin
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
    %b::timestamptz[], %b::bigint[], %b::bigint[], %b::integer[], %b::integer[], %b::integer[], %b::integer[], %b::text[],
    %b::text[], %b::bigint[], %b::boolean[], %b::integer[], %b::timestamptz[], %b::text[], %b::text[], %b::text[], %b::uuid[],
    %b::text[], %b::text[]
)
"""
UPDATE_RUNS = """
UPDATE run SET status = u.status, degraded = u.degraded, position = u.position, updated_at = u.updated_at,
    finished_at = u.finished_at, end_position = u.end_position, version = u.version, event_count = u.event_count,
    message_count = u.message_count, call_count = u.call_count, missing = u.missing,
    compensation_position = u.compensation_position, retries = u.retries, deadline_at = u.deadline_at,
    pause_position = u.pause_position, priority = u.priority
FROM unnest(
    %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::integer[],
    %b::integer[], %b::integer[], %b::integer[], %b::text[], %b::bigint[], %b::integer[], %b::timestamptz[], %b::bigint[],
    %b::text[]
) AS u (
    run_id, status, degraded, position, updated_at, finished_at, end_position, version, event_count, message_count, call_count,
    missing, compensation_position, retries, deadline_at, pause_position, priority
)
WHERE run.run_id = u.run_id
"""
RUN_FIELDS = attrgetter(
    "run_id", "tenant_id", "project_id", "status", "degraded", "position", "created_at", "updated_at", "finished_at",
    "start_position", "end_position", "version", "event_count", "message_count", "call_count", "priority", "missing_keys",
    "compensation_position", "has_parts", "stored_retries", "deadline_at", "agents", "actor", "on_behalf_of", "parent_id",
    "workflow", "origin",
)  # fmt: skip
CHANGED_FIELDS = attrgetter(
    "run_id", "status", "degraded", "position", "updated_at", "finished_at", "end_position", "version", "event_count",
    "message_count", "call_count", "missing_keys", "compensation_position", "stored_retries", "deadline_at", "pause_position",
    "priority",
)  # fmt: skip
WRITE_STEPS = """
INSERT INTO run_step (
    run_id, agent_run_id, tenant_id, scheduled_at, started_at, finished_at, result_position, error_position, unused_position,
    attempt, recorded_steps, call_count, status, step, worker_id, form
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[],
    %b::bigint[], %b::integer[], %b::integer[], %b::integer[], %b::text[], %b::text[], %b::text[], %b::text[]
)
ON CONFLICT (run_id, agent_run_id) DO UPDATE
SET scheduled_at = EXCLUDED.scheduled_at, started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at,
    result_position = EXCLUDED.result_position, error_position = EXCLUDED.error_position,
    unused_position = EXCLUDED.unused_position, attempt = EXCLUDED.attempt, recorded_steps = EXCLUDED.recorded_steps,
    call_count = EXCLUDED.call_count, status = EXCLUDED.status, worker_id = EXCLUDED.worker_id, form = EXCLUDED.form
"""
STEP_FIELDS = attrgetter(
    "run_id", "agent_run_id", "tenant_id", "scheduled_at", "started_at", "finished_at", "result_position", "error_position",
    "unused_position", "attempt", "recorded_steps", "call_count", "status", "step", "worker_id", "form_text",
)  # fmt: skip
WRITE_PARTS = """
INSERT INTO run_part (
    run_id, step, number, tenant_id, execution_id, is_run, agent, agent_version, status, attempt, fallback, worker_id, scheduled_at,
    started_at, finished_at, scheduled_position, result_position, error_position, person
)
SELECT * FROM unnest(
    %b::uuid[], %b::text[], %b::integer[], %b::uuid[], %b::uuid[], %b::boolean[], %b::text[], %b::text[], %b::text[],
    %b::integer[], %b::integer[], %b::text[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[],
    %b::bigint[], %b::text[]
)
ON CONFLICT (run_id, step, number) DO UPDATE
SET execution_id = EXCLUDED.execution_id, agent = EXCLUDED.agent, agent_version = EXCLUDED.agent_version,
    status = EXCLUDED.status, attempt = EXCLUDED.attempt, fallback = EXCLUDED.fallback, worker_id = EXCLUDED.worker_id,
    scheduled_at = EXCLUDED.scheduled_at, started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at,
    scheduled_position = EXCLUDED.scheduled_position, result_position = EXCLUDED.result_position,
    error_position = EXCLUDED.error_position, person = EXCLUDED.person
"""
PART_FIELDS = attrgetter(
    "run_id", "step", "number", "tenant_id", "execution_id", "is_run", "agent", "agent_version", "status", "attempt", "fallback",
    "worker_id", "scheduled_at", "started_at", "finished_at", "scheduled_position", "result_position", "error_position", "person",
)  # fmt: skip
WRITE_CALLS = """
INSERT INTO run_call (
    run_id, invocation_id, tenant_id, agent_run_id, position, started_at, finished_at, error_position, resolution_position,
    attempts, cancel_requested, status, key, tool, worker_id, effect, fallback, step, part
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::uuid[], %b::bigint[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[],
    %b::integer[], %b::boolean[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::integer[]
)
ON CONFLICT (run_id, invocation_id) DO UPDATE
SET finished_at = EXCLUDED.finished_at, error_position = EXCLUDED.error_position,
    resolution_position = EXCLUDED.resolution_position, attempts = EXCLUDED.attempts,
    cancel_requested = EXCLUDED.cancel_requested, status = EXCLUDED.status, worker_id = EXCLUDED.worker_id,
    effect = EXCLUDED.effect, fallback = EXCLUDED.fallback
"""
CALL_FIELDS = attrgetter(
    "run_id", "invocation_id", "tenant_id", "agent_run_id", "position", "started_at", "finished_at", "error_position",
    "resolution_position", "attempts", "cancel_requested", "status", "key", "tool", "worker_id", "effect",
    "fallback", "step", "part",
)  # fmt: skip


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    await _apply(connection, batch, None)


async def apply_as_live(connection: Connection, live: str, batch: Sequence[RecordedEvent]) -> None:
    """For a verification: a run is a document if it is one in the schema of the live tables."""
    query = SQL("SELECT run_id FROM {} WHERE run_id = ANY (%s) AND view IS NOT NULL").format(Identifier(live, "run"))
    begun = [recorded.root_id for recorded in batch if recorded.topic == runs.RunStarted.TOPIC]
    cursor = await connection.execute(query, [begun])
    await _apply(connection, batch, {row[0] for row in await cursor.fetchall()})


async def _apply(connection: Connection, batch: Sequence[RecordedEvent], become_documents: Collection[UUID] | None) -> None:
    """`become_documents`: the runs that are stored as documents, of those that begin. None: as the members ask for."""
    rows = Rows()
    await rows.load(connection, batch)
    documented, of_documents = set(rows.stored), list[RecordedEvent]()
    parts: dict[UUID, RunParts] = {}
    async for recorded in in_turns(batch):
        root_id = recorded.root_id
        if recorded.topic == runs.RunStarted.TOPIC:
            if rows.documents if become_documents is None else root_id in become_documents:
                documented.add(root_id)
            else:
                rows.begin(recorded)
                continue
        if root_id in documented:
            of_documents.append(recorded)
        elif (run := rows.runs.get(root_id)) is not None:
            if root_id not in parts:
                parts[root_id] = RunParts(rows, run)
            evolve(run, parts[root_id], recorded)
    if of_documents:
        await documents.apply(connection, rows.stored, of_documents)
    await _write(connection, INSERT_RUNS, RUN_FIELDS, [rows.runs[run_id] for run_id in rows.begun])
    await _write(connection, UPDATE_RUNS, CHANGED_FIELDS, [run for run_id, run in rows.runs.items() if run_id not in rows.begun])
    await _write(connection, WRITE_STEPS, STEP_FIELDS, [step for part in parts.values() for step in part.changed_steps.values()])
    await _write(connection, WRITE_PARTS, PART_FIELDS, [row for part in parts.values() for row in part.changed_parts.values()])
    await _write(connection, WRITE_CALLS, CALL_FIELDS, [call for part in parts.values() for call in part.changed_calls.values()])


async def _write(connection: Connection, statement: str, fields: Callable[[Any], tuple[Any, ...]], rows: Sequence[Any]) -> None:
    """`fields`: gives the parameters of a row, in the order of the statement."""
    if rows:
        await connection.execute(statement.encode(), [list(column) for column in zip(*map(fields, rows), strict=True)])
