"""Durable timers: commands that events schedule for later, as a table by due time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from application.engine.ports.timers import DueTimer
from domain import agent_runs, allowances, approvals, invocations, runs
from domain.kernel import Metadata, RecordedEvent, derive_id
from projections.kernel import Connection, Projection, decoded, topics_of

CHANNEL = "tidelog_timers"
"""NOTIFY channel: timers were set. A hint only. The payload is the time at which the first of them is due; empty: look yourself."""
# Times of the log lie in the future while the database's clock is set back. Then a timer may fire before it is due.
NOTIFY = "SELECT pg_notify(%s, CASE WHEN %s::timestamptz > now() THEN '' ELSE %s END)"

ENDS = topics_of(
    agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled, approvals.ApprovalWithdrawn,
) | runs.ENDS  # fmt: skip


def timer_of(recorded: RecordedEvent) -> tuple[datetime, DueTimer] | None:
    """The timer that an event sets, and the time at which the timer is due. None for other events."""
    event = decoded(recorded)
    scheduled = (
        agent_runs.scheduled_by(event, recorded.stream_id)
        or invocations.scheduled_by(event, recorded.stream_id)
        or runs.scheduled_by(event, recorded.stream_id)
        or approvals.scheduled_by(event, recorded.stream_id)
        or allowances.scheduled_by(event, recorded.stream_id)
    )
    if scheduled is None:
        return None
    timer = DueTimer(
        timer_id=derive_id(recorded.stream_id, f"timer:{recorded.version}"),
        tenant_id=recorded.tenant_id,
        root_id=recorded.root_id,
        command=type(scheduled.command).__name__,
        payload=scheduled.command.model_dump_json().encode(),
        correlation_id=Metadata.model_validate_json(recorded.metadata).correlation_id,
        cause=recorded.name,
    )
    return scheduled.at or recorded.recorded_at + timedelta(seconds=scheduled.delay_s), timer


def set_by(recorded: RecordedEvent) -> DueTimer | None:
    """The timer that an event sets. None for other events."""
    found = timer_of(recorded)
    return found and found[1]


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    ended = {recorded.stream_id: recorded.version for recorded in batch if recorded.topic in ENDS}
    open_events = [recorded for recorded in batch if recorded.version > ended.get(recorded.stream_id, 0)]  # a retry may follow
    timers = [(recorded, *timer) for recorded in open_events if (timer := timer_of(recorded)) is not None]
    if ended:
        await connection.execute("DELETE FROM timer WHERE stream_id = ANY (%s)", [list(ended)])
    if timers:
        sql = """
        INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, set_at, due_at, command, payload, correlation_id, cause)
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[], %s::timestamptz[], %s::text[],
                             %s::text[], %s::uuid[], %s::text[])
        ON CONFLICT DO NOTHING
        """
        await connection.execute(
            sql,
            (
                [t.timer_id for _, _, t in timers], [t.tenant_id for _, _, t in timers], [t.root_id for _, _, t in timers],
                [e.stream_id for e, _, _ in timers], [e.recorded_at for e, _, _ in timers], [due for _, due, _ in timers],
                [t.command for _, _, t in timers], [t.payload.decode() for _, _, t in timers],
                [t.correlation_id for _, _, t in timers], [t.cause for _, _, t in timers],
            ),
        )  # fmt: skip
        last_set, first_due = max(e.recorded_at for e, _, _ in timers), min(due for _, due, _ in timers)
        await connection.execute(NOTIFY, [CHANNEL, last_set, first_due.isoformat()])


RETRIES = topics_of(agent_runs.AgentRunRetryScheduled, invocations.InvocationRetryScheduled, invocations.InvocationReconcileFailed)
GIVING_UP = topics_of(invocations.InvocationReconcileRequested)
WAITS = topics_of(agent_runs.WaitStarted, agent_runs.AgentRunSuspended, runs.SignalAwaited)
PROJECTION = Projection(
    "timers",
    topics_of(agent_runs.AgentRunRequested, agent_runs.AgentRunUnpaused, agent_runs.AgentRunReopened)
    | topics_of(
        runs.StepStarted,
        runs.DeadlineSet,
        approvals.ApprovalRequested,
        approvals.NoticePlanned,
        allowances.AllowanceOpened,
    )
    | WAITS
    | RETRIES
    | GIVING_UP
    | ENDS,
    ("timer",),
    apply,
    hurried=RETRIES | WAITS,
    taken_when_due={"timer": "due_at"},
    not_of_the_log={"timer": frozenset({"set_at", "no_later_than"})},  # `set_at` is empty where a release before wrote the row
)
