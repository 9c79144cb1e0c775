"""Runs that are stored as one document each, as the release before stores them.

As long as a process of that release is among the members, new runs are stored so, because such a process reads and writes them. A
document holds all calls of its run. A rebuild of the read model leaves no document.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.views.large import json_bytes, most_of_results, path_of_call, path_of_step, place_of, put_value
from application.views.runs import NEWEST_CALLS, RunSummary, RunView
from domain import values
from domain.kernel import RecordedEvent
from projections.kernel import Connection, in_turns
from projections.runs.folded import evolve_view, parts_of
from projections.runs.values import UNKNOWN, Values, error_of_call

NOT_STORED = {"result", "large", "actor", "on_behalf_of"}
"""Computed from the steps, or read from the log, when the run is shown."""
STORE = """
INSERT INTO run (run_id, tenant_id, project_id, status, degraded, position, created_at, view)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::boolean[], %b::bigint[], %b::timestamptz[], %b::bytea[]
)
ON CONFLICT (run_id) DO UPDATE
SET status = EXCLUDED.status, degraded = EXCLUDED.degraded, position = EXCLUDED.position, view = EXCLUDED.view
"""


async def apply(connection: Connection, stored: Mapping[UUID, bytes], batch: Sequence[RecordedEvent]) -> None:
    """`stored`: the documents of the runs that began before the batch."""
    views: dict[UUID, RunView | None] = {}
    async for run_id, document in in_turns(stored.items()):
        views[run_id] = read(document)
    tenants = {}
    async for recorded in in_turns(batch):
        views[recorded.root_id] = evolve_view(views.get(recorded.root_id), recorded, keep=None, whole=True)
        tenants[recorded.root_id] = recorded.tenant_id
    changed = [(run_id, view) for run_id, view in views.items() if view is not None]
    documents = [_stored(view) async for _, view in in_turns(changed)]
    await connection.execute(
        STORE,
        (
            [run_id for run_id, _ in changed], [tenants[run_id] for run_id, _ in changed], [v.project_id for _, v in changed],
            [v.status for _, v in changed], [v.degraded for _, v in changed], [v.position for _, v in changed],
            [v.created_at for _, v in changed], documents,
        ),
    )  # fmt: skip


def _stored(view: RunView) -> bytes:
    return view.__pydantic_serializer__.to_json(view, exclude=NOT_STORED)


def content(document: bytes) -> bytes:
    """The document as this release stores it. Raises ValueError for a document that cannot be read."""
    return _stored(read(document))


def read(document: bytes) -> RunView:
    """The run with all its calls. Raises ValueError for a document that cannot be read."""
    view = values.read_model(RunView, document)
    for step in view.steps:  # the release before does not count the calls
        step.call_count = len(step.calls)
    view.call_count = sum(step.call_count for step in view.steps)
    return view


def shown(document: bytes) -> RunView:
    """The run as people see it, with the newest of its calls. Raises ValueError for a document that cannot be read."""
    view = read(document)
    if view.call_count > NEWEST_CALLS:
        newest = {call.view.invocation_id for call in list(parts_of(view).calls)[-NEWEST_CALLS:]}
        for step in view.steps:
            step.calls = [call for call in step.calls if call.invocation_id in newest]
    _refer(view)
    return view


def _refer(view: RunView) -> None:
    """Puts references in the place of large values. They name the position of the document, which does not know those of events."""
    at, most, values_of = view.position, most_of_results(len(view.steps)), Values(view.run_id, len(view.steps))
    values_of.start(view, view, at, UNKNOWN)
    values_of.error_of_run(view, view.error, at, UNKNOWN)
    for step in view.steps:
        if (size := json_bytes(step.result)) > most:
            step.put("result", None, place_of(path_of_step(view.run_id, step.key), "result", at, size))
        values_of.error_of_step(step, step.error, at, UNKNOWN)
        for call in step.calls:
            error_of_call(call, call.error, at, UNKNOWN)
            if call.resolution is not None:
                put_value(call.resolution, "evidence", call.resolution.evidence, path_of_call(call.invocation_id), at)


def summary(document: bytes) -> RunSummary:
    """The run as an entry of a list. Raises ValueError for a document that cannot be read."""
    view = values.read_model(RunView, document)
    return RunSummary(
        run_id=view.run_id,
        project_id=view.project_id,
        status=view.status,
        degraded=view.degraded,
        missing=view.missing,
        priority=view.priority,
        agents=[step.agent for step in view.steps if step.agent is not None],
        created_at=view.created_at,
        finished_at=view.finished_at,
        position=view.position,
        event_count=view.event_count,
    )
