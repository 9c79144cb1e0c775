"""Open work: agent runs and invocations that wait for a worker or have one, and the session that has claimed each.

The reconciler refills the queue from this table. The sweeper finds in it what a lost session leaves behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from application.engine.ports.queue import WorkItem
from domain import agent_runs, invocations
from domain.approval_rules import Demand
from domain.kernel import RecordedEvent
from projections.kernel import Connection, Projection, decoded, topics_of

OPENED = topics_of(
    agent_runs.AgentRunRequested, agent_runs.AgentRunResumed, agent_runs.AgentRunReopened, invocations.InvocationRequested,
    invocations.InvocationRequeued, invocations.InvocationFellBack, invocations.InvocationReconcileRequested,
    invocations.InvocationReleased,
)  # fmt: skip
CLAIMED = topics_of(agent_runs.AgentRunClaimed, invocations.AttemptStarted, invocations.InvocationReconcileStarted)
# Not InvocationCancelRequested: while the last attempt is under way, its item in the queue shows whether the worker has vanished. A
# worker that claims the item then gets no attempt. The attempt of a session lapses with the session.
CLOSED = topics_of(
    agent_runs.AgentRunRetryScheduled, agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled,
    agent_runs.AgentRunPaused, agent_runs.AgentRunSuspended, invocations.InvocationPaused,
    invocations.InvocationRetryScheduled, invocations.InvocationSucceeded, invocations.InvocationFailed,
    invocations.InvocationBecameAmbiguous, invocations.InvocationResolved, invocations.InvocationCancelled,
    invocations.InvocationReconcileFailed, invocations.InvocationHeld,
)  # fmt: skip


def opened(recorded: RecordedEvent) -> WorkItem | None:
    """The work that an event opens. None: it is no work for a worker, but for a chain."""
    event = decoded(recorded)
    match event:
        case agent_runs.AgentRunRequested():
            kind, pool, dispatch = "agent", event.agent, 1
        case agent_runs.AgentRunResumed() | agent_runs.AgentRunReopened():
            kind, pool, dispatch = "agent", event.agent, event.dispatch
        case invocations.InvocationRequested(chain_id=UUID()) | invocations.InvocationReleased(chain_id=UUID()):
            return None
        case invocations.InvocationRequested(approval=Demand()):  # it is held
            return None
        case invocations.InvocationRequested():
            kind, pool, dispatch = "tool", event.tool, 1
        case invocations.InvocationRequeued() | invocations.InvocationFellBack() | invocations.InvocationReleased():
            kind, pool, dispatch = "tool", event.tool, event.dispatch
        case invocations.InvocationReconcileRequested():
            kind, pool, dispatch = "reconcile", event.tool, event.dispatch
        case other:
            raise TypeError(f"{type(other).__name__} opens no work")
    return WorkItem(recorded.tenant_id, kind, pool, recorded.stream_id, dispatch, recorded.root_id, event.priority)


@dataclass(frozen=True, slots=True)
class Claim:
    session_id: UUID
    attempt: int
    permit_holder: UUID | None = None


def claimed(recorded: RecordedEvent) -> Claim | None:
    """The claim of a session. None: a worker without a session has claimed the work, and the queue keeps its lease."""
    event: agent_runs.AgentRunClaimed | invocations.AttemptStarted | invocations.InvocationReconcileStarted = decoded(recorded)
    if event.session_id is None:
        return None
    return Claim(event.session_id, event.attempt, event.permit_holder if isinstance(event, invocations.AttemptStarted) else None)


@dataclass(slots=True)
class Changes:
    """What a batch changes, in the order of the statements that write it."""

    closed: set[UUID]
    claims: dict[UUID, Claim]
    """Claims of work that was opened before the batch."""
    opened: dict[UUID, tuple[WorkItem, datetime, Claim | None]]

    def add(self, recorded: RecordedEvent) -> None:
        id = recorded.stream_id
        if recorded.topic in CLAIMED:
            if (claim := claimed(recorded)) is None:
                return
            if id in self.opened:
                self.opened[id] = (*self.opened[id][:2], claim)
            else:
                self.claims[id] = claim
            return
        if recorded.topic in CLOSED:
            self.opened.pop(id, None)
            self.closed.add(id)
        else:
            if (item := opened(recorded)) is not None:
                self.opened[id] = (item, recorded.recorded_at, None)


OPEN = """
INSERT INTO open_work
    (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at, session_id, attempt, priority, permit_holder)
SELECT * FROM unnest(
    %b::uuid[], %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::int[], %b::timestamptz[], %b::uuid[], %b::int[], %b::text[],
    %b::uuid[]
)
ON CONFLICT (work_id) DO UPDATE SET kind = EXCLUDED.kind, pool = EXCLUDED.pool, dispatch = EXCLUDED.dispatch,
    dispatched_at = EXCLUDED.dispatched_at, session_id = EXCLUDED.session_id, attempt = EXCLUDED.attempt,
    priority = EXCLUDED.priority, permit_holder = EXCLUDED.permit_holder
"""
CLAIM = """
UPDATE open_work AS w SET session_id = c.session_id, attempt = c.attempt, permit_holder = c.permit_holder
FROM unnest(%b::uuid[], %b::uuid[], %b::int[], %b::uuid[]) AS c (work_id, session_id, attempt, permit_holder)
WHERE w.work_id = c.work_id
"""


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    changes = Changes(closed=set(), claims={}, opened={})
    for recorded in batch:
        changes.add(recorded)
    if changes.closed:
        await connection.execute("DELETE FROM open_work WHERE work_id = ANY (%s)", [list(changes.closed)])
    if changes.claims:
        claims = changes.claims.values()
        values = ([claim.session_id for claim in claims], [claim.attempt for claim in claims], [c.permit_holder for c in claims])
        await connection.execute(CLAIM, (list(changes.claims), *values))
    if rows := list(changes.opened.values()):
        items = [item for item, _, _ in rows]
        await connection.execute(
            OPEN,
            (
                [i.work_id for i in items], [i.tenant_id for i in items], [i.root_id for i in items], [i.kind for i in items],
                [i.pool for i in items], [i.dispatch for i in items], [at for _, at, _ in rows],
                [claim and claim.session_id for _, _, claim in rows], [claim and claim.attempt for _, _, claim in rows],
                [i.priority for i in items], [claim and claim.permit_holder for _, _, claim in rows],
            ),
        )  # fmt: skip


PROJECTION = Projection("work", OPENED | CLAIMED | CLOSED, ("open_work",), apply)
