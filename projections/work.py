"""Open work: agent runs and invocations that wait for a worker or have one. The reconciler refills the queue from this table."""

from collections.abc import Sequence

from application.engine.ports.queue import WorkItem
from domain import agent_runs, invocations
from domain.kernel import RecordedEvent
from projections.kernel import Connection, Projection, decoded, topics_of

OPENED = topics_of(
    agent_runs.AgentRunRequested, agent_runs.AgentRunResumed, invocations.InvocationRequested, invocations.InvocationRequeued
)
# Not InvocationCancelRequested: while the last attempt is under way, its item in the queue shows whether the worker has vanished. A
# worker that claims the item then gets no attempt.
CLOSED = topics_of(
    agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled,
    invocations.InvocationRetryScheduled, invocations.InvocationSucceeded, invocations.InvocationFailed,
    invocations.InvocationBecameAmbiguous, invocations.InvocationResolved, invocations.InvocationCancelled,
)  # fmt: skip


def opened(recorded: RecordedEvent) -> WorkItem:
    match decoded(recorded):
        case agent_runs.AgentRunRequested() as event:
            kind, pool, dispatch = "agent", event.agent, 1
        case agent_runs.AgentRunResumed() as event:
            kind, pool, dispatch = "agent", event.agent, event.dispatch
        case invocations.InvocationRequested() as event:
            kind, pool, dispatch = "tool", event.tool, 1
        case invocations.InvocationRequeued() as event:
            kind, pool, dispatch = "tool", event.tool, event.dispatch
        case other:
            raise TypeError(f"{type(other).__name__} opens no work")
    return WorkItem(recorded.tenant_id, kind, pool, recorded.stream_id, dispatch, recorded.root_id)


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    newest = {recorded.stream_id: recorded for recorded in batch}
    closed = [stream_id for stream_id, recorded in newest.items() if recorded.topic in CLOSED]
    items = [(opened(recorded), recorded.recorded_at) for recorded in newest.values() if recorded.topic in OPENED]
    if closed:
        await connection.execute("DELETE FROM open_work WHERE work_id = ANY (%s)", [closed])
    if items:
        sql = """
        INSERT INTO open_work (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at)
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::int[], %s::timestamptz[])
        ON CONFLICT (work_id) DO UPDATE SET dispatch = EXCLUDED.dispatch, dispatched_at = EXCLUDED.dispatched_at
        """
        await connection.execute(
            sql,
            (
                [i.work_id for i, _ in items], [i.tenant_id for i, _ in items], [i.root_id for i, _ in items],
                [i.kind for i, _ in items], [i.pool for i, _ in items], [i.dispatch for i, _ in items], [at for _, at in items],
            ),
        )  # fmt: skip


PROJECTION = Projection("work", OPENED | CLOSED, ("open_work",), apply)
