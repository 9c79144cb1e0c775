"""Events of runs into rows: a batch reads and writes the rows that its events change, each kind with one statement."""

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any
from uuid import UUID

from psycopg.sql import SQL, Identifier

from domain import agent_runs, invocations, runs
from domain.failures import Failure
from domain.kernel import RecordedEvent, who_asked
from projections.kernel import Connection, decoded, in_turns
from projections.runs import documents
from projections.runs.fold import CHANGES_A_CALL, CHANGES_A_STEP, evolve
from projections.runs.tables import CALL_COLUMNS, RUN_COLUMNS, STEP_COLUMNS, CallRow, RunRow, StepRow

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
CALLS_OFF = frozenset({runs.RunFailed.TOPIC, runs.RunCancelled.TOPIC})
ENDS_A_STEP = frozenset({runs.StepCompleted.TOPIC, runs.StepFailed.TOPIC})


class Rows:
    """The rows of the runs of one batch."""

    def __init__(self) -> None:
        self.runs: dict[UUID, RunRow] = {}
        self.steps: dict[UUID, dict[UUID, StepRow]] = {}
        """Run → agent run → step."""
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
        ended = {r.root_id for r in known if r.topic in CALLS_OFF}
        steps = {part for r in known if r.root_id not in ended and (part := self._step_of(r)) is not None}
        cursors = [
            await connection.execute(FIND_RUNS, [list({r.root_id for r in known})], binary=True),
            await connection.execute(FIND_STEPS, _columns(steps), binary=True) if steps else None,
            await connection.execute(FIND_STEPS_OF, [list(ended)], binary=True) if ended else None,
            await connection.execute(FIND_CALLS, _columns(calls), binary=True) if calls else None,
        ]
        found_runs, *found_steps, found_calls = [await cursor.fetchall() if cursor is not None else [] for cursor in cursors]
        for self.documents, *columns, view in found_runs:
            if view is not None:
                self.stored[columns[0]] = view
            elif columns[0] is not None:
                row = RunRow(*columns)
                self.runs[row.run_id] = row
        for step in (StepRow(*columns) for found in found_steps for columns in found):
            assert step.agent_run_id is not None
            self.steps.setdefault(step.run_id, {})[step.agent_run_id] = step
        for call in (CallRow(*columns) for columns in found_calls):
            self.calls[call.run_id, call.invocation_id] = call

    def _step_of(self, recorded: RecordedEvent) -> tuple[UUID, UUID] | None:
        """The key of the row of a step that an event changes."""
        if recorded.topic in CHANGES_A_STEP:
            return recorded.root_id, recorded.stream_id
        if recorded.topic in ENDS_A_STEP:
            event = decoded(recorded)
            return recorded.root_id, _agent_run_of(recorded.root_id, event.step, event.agent_run_id)
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
            agents=" ".join(filter(None, [step.agent for step in event.plan.steps])), actor=actor, on_behalf_of=on_behalf_of,
        )  # fmt: skip


class RunParts:
    """The parts of one run, for the fold. Rows that the fold asks for are written."""

    def __init__(self, rows: Rows, run: RunRow) -> None:
        self._rows = rows
        self._run = run
        self._steps = rows.steps.setdefault(run.run_id, {})
        self.changed_steps: dict[UUID, StepRow] = {}
        self.changed_calls: dict[UUID, CallRow] = {}

    def step(self, key: str, agent_run_id: UUID | None) -> StepRow:
        run, part = self._run, _agent_run_of(self._run.run_id, key, agent_run_id)
        if part not in self._steps:
            self._steps[part] = StepRow(
                run.run_id, part, run.tenant_id, None, None, None, None, None, None, 0, 0, 0, "pending", key, None
            )
        return self._change(part)

    def step_of(self, agent_run_id: UUID) -> StepRow | None:
        return self._change(agent_run_id) if agent_run_id in self._steps else None

    def _change(self, part: UUID) -> StepRow:
        step = self.changed_steps[part] = self._steps[part]
        step.now = self._run.position
        return step

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
        self._rows.calls[recorded.root_id, event.invocation_id] = self.changed_calls[event.invocation_id] = call

    def open_steps(self) -> Iterable[StepRow]:
        return [self._change(part) for part, step in self._steps.items() if step.status not in ("completed", "failed")]

    def keep_result(self, step: StepRow, event: runs.StepCompleted, recorded: RecordedEvent) -> None:
        step.result_position = None if event.result is None else recorded.position

    def keep_error(self, part: RunRow | StepRow | CallRow, error: Failure | None, recorded: RecordedEvent) -> None:
        if isinstance(part, RunRow):
            part.end_position = recorded.position
        else:
            part.error_position = None if error is None else recorded.position

    def keep_resolution(self, call: CallRow, event: invocations.InvocationResolved, recorded: RecordedEvent) -> None:
        call.resolution_position = recorded.position

    def keep_compensation(self, run: RunRow, recorded: RecordedEvent) -> None:
        run.compensation_position = recorded.position


def _agent_run_of(run_id: UUID, step: str, agent_run_id: UUID | None) -> UUID:
    """The key of a step's row. A step that failed before its work was requested has no agent run, and none will come."""
    return runs.agent_run_id_of(run_id, step) if agent_run_id is None else agent_run_id


def _columns(keys: Collection[tuple[UUID, UUID]]) -> list[list[UUID]]:
    return [list(column) for column in zip(*keys, strict=True)]


# --- writing ------------------------------------------------------------------------------------------------------------

INSERT_RUNS = """
INSERT INTO run (
    run_id, tenant_id, project_id, status, degraded, position, created_at, updated_at, finished_at, start_position, end_position,
    version, event_count, message_count, call_count, priority, missing, compensation_position, agents, actor,
    on_behalf_of
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::timestamptz[],
    %b::timestamptz[], %b::bigint[], %b::bigint[], %b::integer[], %b::integer[], %b::integer[], %b::integer[], %b::text[],
    %b::text[], %b::bigint[], %b::text[], %b::text[], %b::text[]
)
"""
UPDATE_RUNS = """
UPDATE run SET status = u.status, degraded = u.degraded, position = u.position, updated_at = u.updated_at,
    finished_at = u.finished_at, end_position = u.end_position, version = u.version, event_count = u.event_count,
    message_count = u.message_count, call_count = u.call_count, missing = u.missing,
    compensation_position = u.compensation_position
FROM unnest(
    %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::integer[],
    %b::integer[], %b::integer[], %b::integer[], %b::text[], %b::bigint[]
) AS u (
    run_id, status, degraded, position, updated_at, finished_at, end_position, version, event_count, message_count, call_count,
    missing, compensation_position
)
WHERE run.run_id = u.run_id
"""
RUN_FIELDS = attrgetter(
    "run_id", "tenant_id", "project_id", "status", "degraded", "position", "created_at", "updated_at", "finished_at",
    "start_position", "end_position", "version", "event_count", "message_count", "call_count", "priority", "missing_keys",
    "compensation_position", "agents", "actor", "on_behalf_of",
)  # fmt: skip
CHANGED_FIELDS = attrgetter(
    "run_id", "status", "degraded", "position", "updated_at", "finished_at", "end_position", "version", "event_count",
    "message_count", "call_count", "missing_keys", "compensation_position",
)  # fmt: skip
WRITE_STEPS = """
INSERT INTO run_step (
    run_id, agent_run_id, tenant_id, scheduled_at, started_at, finished_at, result_position, error_position, unused_position,
    attempt, recorded_steps, call_count, status, step, worker_id
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[],
    %b::bigint[], %b::integer[], %b::integer[], %b::integer[], %b::text[], %b::text[], %b::text[]
)
ON CONFLICT (run_id, agent_run_id) DO UPDATE
SET scheduled_at = EXCLUDED.scheduled_at, started_at = EXCLUDED.started_at, finished_at = EXCLUDED.finished_at,
    result_position = EXCLUDED.result_position, error_position = EXCLUDED.error_position,
    unused_position = EXCLUDED.unused_position, attempt = EXCLUDED.attempt, recorded_steps = EXCLUDED.recorded_steps,
    call_count = EXCLUDED.call_count, status = EXCLUDED.status, worker_id = EXCLUDED.worker_id
"""
STEP_FIELDS = attrgetter(
    "run_id", "agent_run_id", "tenant_id", "scheduled_at", "started_at", "finished_at", "result_position", "error_position",
    "unused_position", "attempt", "recorded_steps", "call_count", "status", "step", "worker_id",
)  # fmt: skip
WRITE_CALLS = """
INSERT INTO run_call (
    run_id, invocation_id, tenant_id, agent_run_id, position, started_at, finished_at, error_position, resolution_position,
    attempts, cancel_requested, status, key, tool, worker_id, effect, fallback
)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::uuid[], %b::bigint[], %b::timestamptz[], %b::timestamptz[], %b::bigint[], %b::bigint[],
    %b::integer[], %b::boolean[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[]
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
    "fallback",
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
    await _write(connection, WRITE_CALLS, CALL_FIELDS, [call for part in parts.values() for call in part.changed_calls.values()])


async def _write(connection: Connection, statement: str, fields: Callable[[Any], tuple[Any, ...]], rows: Sequence[Any]) -> None:
    """`fields`: gives the parameters of a row, in the order of the statement."""
    if rows:
        await connection.execute(statement.encode(), [list(column) for column in zip(*map(fields, rows), strict=True)])
