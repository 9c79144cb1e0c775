"""Runs as the HTTP interface shows them: one document for each run, the fold of all events inside it.

The read model and a replay to any position are the same function over the same events, so they cannot tell different stories.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned
from application.views.runs import DEGRADED, CallView, RunSummary, RunView, StepView
from domain import agent_runs, invocations, runs, values
from domain.errors import InvalidCommand
from domain.kernel import RecordedEvent
from domain.registry import SLICES
from projections.engine.checkpoints import reading
from projections.invocations import resolution_of
from projections.kernel import Connection, Database, Projection, decoded, in_turns, listed

# --- the fold ---------------------------------------------------------------------------------------------------------


def evolve_view(view: RunView | None, recorded: RecordedEvent) -> RunView | None:
    """The document after one more event of the run. Changes the given document in place; None before the run started."""
    if recorded.topic == runs.RunStarted.TOPIC:
        return _started(decoded(recorded), recorded)
    if view is None:
        return None
    event = decoded(recorded)
    view.event_count += 1
    view.position, view.updated_at = recorded.position, recorded.recorded_at
    if recorded.stream_id == view.run_id:
        view.version = recorded.version
        _on_run_event(view, event, recorded.recorded_at)
    elif recorded.topic.startswith("agent_run."):
        _on_agent_run_event(view, event, recorded)
    elif recorded.topic.startswith("invocation."):
        _on_invocation_event(view, event, recorded)
    elif recorded.topic == "message.sent":
        view.message_count += 1
    return view


def _started(event: runs.RunStarted, recorded: RecordedEvent) -> RunView:
    asked = event.versions_asked
    steps = [
        StepView(key=s.key, agent=s.agent, agent_version=s.agent_version, version_asked=s.key in asked, after=list(s.after))
        for s in event.plan.steps
    ]
    return RunView(
        run_id=recorded.stream_id,
        project_id=event.project_id,
        status="running",
        plan=event.plan,
        input=event.input,
        metadata=event.metadata,
        priority=event.priority,
        created_at=recorded.recorded_at,
        updated_at=recorded.recorded_at,
        version=recorded.version,
        position=recorded.position,
        event_count=1,
        steps=steps,
    )


def _on_run_event(view: RunView, event: Any, at: datetime) -> None:
    match event:
        case runs.StepScheduled():
            step = _step(view, event.step)
            step.status, step.agent_run_id, step.scheduled_at = "scheduled", event.agent_run_id, at
        case runs.StepCompleted():
            step = _step(view, event.step)
            step.status, step.result, step.finished_at = "completed", event.result, at
        case runs.StepFailed():
            step = _step(view, event.step)
            step.status, step.error, step.finished_at = "failed", event.error, at
        case runs.RunCompleted():
            view.status, view.degraded, view.missing, view.finished_at = "completed", event.degraded, list(event.missing), at
        case runs.RunFailed():
            view.status, view.error, view.finished_at = "failed", event.error, at
            _call_off(view, at)
        case runs.RunCancelled():
            view.status, view.cancel_reason, view.finished_at = "cancelled", event.reason, at
            _call_off(view, at)


def _call_off(view: RunView, at: datetime) -> None:
    """Closes the steps of a run that has ended. An outcome that arrives later does not count."""
    for step in view.steps:
        if step.status not in ("completed", "failed"):
            step.status = "cancelled"
            step.finished_at = at if step.started_at is not None else None


def _on_agent_run_event(view: RunView, event: Any, recorded: RecordedEvent) -> None:
    step = next((s for s in view.steps if s.agent_run_id == recorded.stream_id), None)
    if step is None:
        return  # the message is for a step that is not scheduled yet
    at = recorded.recorded_at
    match event:
        case agent_runs.AgentRunClaimed():
            step.attempt, step.worker_id, step.started_at = event.attempt, event.worker_id, step.started_at or at
            if view.status == "running":
                step.status = "running"
        case agent_runs.StepRecorded():
            step.recorded_steps += 1
        case agent_runs.CallStarted():
            step.calls.append(CallView(key=event.key, tool=event.tool, invocation_id=event.invocation_id, started_at=at))
        case agent_runs.AgentRunRetryScheduled():
            step.error = event.error
            if view.status == "running":
                step.status = "retrying"
        case agent_runs.AgentRunResumed():
            step.scheduled_at = at
            if event.lapsed is not None and view.status == "running":
                step.status = "scheduled"
        case agent_runs.AgentRunCompleted():
            step.unused_keys = list(event.unused_keys)
        case agent_runs.AgentRunCancelled():
            step.status, step.finished_at = "cancelled", at


def _on_invocation_event(view: RunView, event: Any, recorded: RecordedEvent) -> None:
    calls = (call for step in view.steps for call in reversed(step.calls))
    call = next((c for c in calls if c.invocation_id == recorded.stream_id), None)
    if call is None:
        return
    at = recorded.recorded_at
    match event:
        case invocations.AttemptStarted():
            call.status, call.attempts, call.worker_id = "running", event.attempt, event.worker_id
        case invocations.InvocationRetryScheduled():
            call.status, call.error = "retrying", event.error
        case invocations.InvocationRequeued() if event.lapsed is not None:
            call.status = "requested"
        case invocations.InvocationSucceeded():
            call.status, call.error, call.finished_at = "succeeded", None, at
        case invocations.InvocationFailed():
            call.status, call.error, call.finished_at = "failed", event.error, at
        case invocations.InvocationBecameAmbiguous():
            call.status = "ambiguous"
        case invocations.InvocationResolved():
            call.status, call.error, call.finished_at = event.outcome, event.error, at
            call.resolution = resolution_of(event, recorded)
        case invocations.InvocationCancelRequested():
            call.cancel_requested = True
        case invocations.InvocationCancelled():
            call.status, call.effect, call.finished_at = "cancelled", event.effect, at


def _step(view: RunView, key: str) -> StepView:
    return next(step for step in view.steps if step.key == key)


def replay(events: Iterable[RecordedEvent]) -> RunView | None:
    """The document after the given events of one run, in order."""
    view: RunView | None = None
    for recorded in events:
        view = evolve_view(view, recorded)
    return view


# --- rows -------------------------------------------------------------------------------------------------------------


NOT_STORED = {"result"}
"""Computed from the steps when the run is shown."""


class WrittenViews:
    """The views that this process has written last, by their documents. To parse a document takes longer than all that follows.

    The document says which view it is. So a view is right whoever has read the row, and in whatever version of the table.
    """

    def __init__(self, *, most: int = 1_000, largest: int = 16 * 1024) -> None:
        """`most`: how many are kept. `largest`: bytes of the largest document that is worth its memory."""
        self._most, self._largest = most, largest
        self._views: dict[bytes, RunView] = {}

    def take(self, document: bytes) -> RunView:
        """The view of a stored document. The caller may change the view. Raises ValueError for a document that cannot be read."""
        view = self._views.pop(document, None)
        return values.read_model(RunView, document) if view is None else view

    def put(self, document: bytes, view: RunView) -> None:
        """Hands over a view that the caller will not change any more."""
        if view.status == "running" and len(document) <= self._largest:
            self._views[document] = view
            if len(self._views) > self._most:
                del self._views[next(iter(self._views))]


WRITTEN = WrittenViews()


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    run_ids = list({recorded.root_id for recorded in batch})
    views: dict[UUID, RunView | None] = {}
    known = run_ids if len(batch) > 1 or batch[0].topic != runs.RunStarted.TOPIC else []
    if known:
        cursor = await connection.execute("SELECT run_id, view FROM run WHERE run_id = ANY (%s)", [known], binary=True)
        async for run_id, view in in_turns(await cursor.fetchall()):
            views[run_id] = WRITTEN.take(view)
    tenants = {}
    async for recorded in in_turns(batch):
        views[recorded.root_id] = evolve_view(views.get(recorded.root_id), recorded)
        tenants[recorded.root_id] = recorded.tenant_id
    changed = [(run_id, view) for run_id, view in views.items() if view is not None]
    documents = [view.__pydantic_serializer__.to_json(view, exclude=NOT_STORED) async for _, view in in_turns(changed)]
    sql = """
    INSERT INTO run (run_id, tenant_id, project_id, status, degraded, position, created_at, view)
    SELECT * FROM unnest(
        %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::bytea[]
    )
    ON CONFLICT (run_id) DO UPDATE
    SET status = EXCLUDED.status, degraded = EXCLUDED.degraded, position = EXCLUDED.position, view = EXCLUDED.view
    """
    await connection.execute(
        sql,
        (
            [run_id for run_id, _ in changed], [tenants[run_id] for run_id, _ in changed], [v.project_id for _, v in changed],
            [v.status for _, v in changed], [v.degraded for _, v in changed], [v.position for _, v in changed],
            [v.created_at for _, v in changed], documents,
        ),
    )  # fmt: skip
    for document, (_, view) in zip(documents, changed, strict=True):
        WRITTEN.put(document, view)


INSIDE_RUNS = frozenset(
    event.TOPIC for name in ("runs", "agent_runs", "invocations", "messages", "context") for event in SLICES[name]
)

PROJECTION = Projection("runs", INSIDE_RUNS, ("run",), apply)


# --- queries ----------------------------------------------------------------------------------------------------------


async def get_run(connection: Connection, tenant_id: UUID, run_id: UUID) -> RunView | None:
    """Raises ValueError for a stored document that cannot be read."""
    sql = "SELECT view FROM run WHERE tenant_id = %s AND run_id = %s"
    row = await (await connection.execute(sql, [tenant_id, run_id])).fetchone()
    return values.read_model(RunView, row[0]) if row else None


# A statement for each combination of filters, so that each can use its index. Bounds and order name all columns of the index: with
# `tenant_id = ... ORDER BY created_at` the planner may walk over the runs of all tenants to find the few of a small one.
LIST = {
    (None, False): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE (tenant_id, created_at, run_id) < (%(tenant)s, %(at)s::timestamptz, %(before)s)
          AND (tenant_id, created_at, run_id) >= (%(tenant)s, '-infinity', '00000000-0000-0000-0000-000000000000')
        ORDER BY tenant_id DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
    ("status", False): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE tenant_id = %(tenant)s AND status = %(status)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)
        ORDER BY tenant_id DESC, status DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
    ("degraded", False): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE (tenant_id, created_at, run_id) < (%(tenant)s, %(at)s::timestamptz, %(before)s)
          AND (tenant_id, created_at, run_id) >= (%(tenant)s, '-infinity', '00000000-0000-0000-0000-000000000000') AND degraded
        ORDER BY tenant_id DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
    (None, True): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE tenant_id = %(tenant)s AND project_id = %(project)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)
        ORDER BY tenant_id DESC, project_id DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
    ("status", True): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE tenant_id = %(tenant)s AND project_id = %(project)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)
          AND status = %(status)s
        ORDER BY tenant_id DESC, project_id DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
    ("degraded", True): """
        SELECT view, run_id, project_id, status, degraded, position, created_at FROM run
        WHERE tenant_id = %(tenant)s AND project_id = %(project)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)
          AND degraded
        ORDER BY tenant_id DESC, project_id DESC, created_at DESC, run_id DESC LIMIT %(limit)s
    """,
}


async def list_runs(
    connection: Connection, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, project_id: UUID | None
) -> Page[RunSummary]:
    """Newest first, by the time of the start; runs of the same time by id. `status`: see `RunReads.list`.

    Raises InvalidCommand if there is no run `before`.
    """
    at, before = await _place(connection, tenant_id, before)
    parameters = {
        "tenant": tenant_id, "at": at, "before": before, "status": status, "project": project_id, "limit": limit + 1,
    }  # fmt: skip
    sql = LIST[status if status in (None, DEGRADED) else "status", project_id is not None]
    # Not prepared: only with the status known does the planner see how few runs it leaves.
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    data = [_listed(row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].run_id)) if len(rows) > limit else None)


async def _place(connection: Connection, tenant_id: UUID, before: UUID | None) -> tuple[datetime | str, UUID]:
    """The place in the order of runs from which a page goes on. Without a run: the place above all runs."""
    if before is None:
        return "infinity", UUID(int=2**128 - 1)
    sql = "SELECT created_at FROM run WHERE tenant_id = %s AND run_id = %s"
    row = await (await connection.execute(sql, [tenant_id, before])).fetchone()
    if row is None:
        raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
    return row[0], before


def _listed(row: Sequence[Any]) -> RunSummary:
    def mark() -> RunSummary:
        return RunSummary(
            run_id=row[1], project_id=row[2], status=row[3], degraded=row[4], agents=[], created_at=row[6], finished_at=None,
            position=row[5], event_count=0, unreadable=True,
        )  # fmt: skip

    return listed("run", row[1], lambda: _summary(values.read_model(RunView, row[0])), mark)


def _summary(view: RunView) -> RunSummary:
    return RunSummary(
        run_id=view.run_id,
        project_id=view.project_id,
        status=view.status,
        degraded=view.degraded,
        missing=view.missing,
        priority=view.priority,
        agents=[step.agent for step in view.steps],
        created_at=view.created_at,
        finished_at=view.finished_at,
        position=view.position,
        event_count=view.event_count,
    )


class RunQueries:
    """The port `RunReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
        async with reading(self._database, PROJECTION.name) as (connection, position):
            return Positioned(await get_run(connection, tenant_id, run_id), position)

    async def list(
        self, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, project_id: UUID | None
    ) -> Positioned[Page[RunSummary]]:
        async with reading(self._database, PROJECTION.name) as (connection, position):
            return Positioned(
                await list_runs(connection, tenant_id, limit=limit, before=before, status=status, project_id=project_id), position
            )

    def evolve(self, view: RunView | None, recorded: RecordedEvent) -> RunView | None:
        return evolve_view(view, recorded)
