"""Durable timers: commands that events schedule for later, as a table by due time."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from domain import agent_runs, invocations
from domain.kernel import Command, Metadata, RecordedEvent, derive_id
from projections.kernel import Connection, Projection, decoded, topics_of

CHANNEL = "tidelog_timers"
"""NOTIFY channel: timers were set. A hint only."""

ENDS = topics_of(agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled)


def timer_of(recorded: RecordedEvent) -> tuple[datetime, Command] | None:
    """The command that an event schedules, and the time at which it is due. None for other events."""
    event = decoded(recorded)
    scheduled = agent_runs.scheduled_by(event, recorded.stream_id) or invocations.scheduled_by(event, recorded.stream_id)
    return None if scheduled is None else (recorded.recorded_at + timedelta(seconds=scheduled.delay_s), scheduled.command)


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    ended = {recorded.stream_id for recorded in batch if recorded.topic in ENDS}
    open_events = [recorded for recorded in batch if recorded.stream_id not in ended]
    timers = [(recorded, *timer) for recorded in open_events if (timer := timer_of(recorded)) is not None]
    if ended:
        await connection.execute("DELETE FROM timer WHERE stream_id = ANY (%s)", [list(ended)])
    if timers:
        sql = """
        INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, due_at, command, payload, correlation_id, cause)
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[], %s::text[], %s::text[], %s::uuid[],
                             %s::text[])
        ON CONFLICT DO NOTHING
        """
        await connection.execute(
            sql,
            (
                [derive_id(e.stream_id, f"timer:{e.version}") for e, _, _ in timers], [e.tenant_id for e, _, _ in timers],
                [e.root_id for e, _, _ in timers], [e.stream_id for e, _, _ in timers], [due for _, due, _ in timers],
                [type(command).__name__ for _, _, command in timers], [command.model_dump_json() for _, _, command in timers],
                [Metadata.model_validate_json(e.metadata).correlation_id for e, _, _ in timers], [e.name for e, _, _ in timers],
            ),
        )  # fmt: skip
        await connection.execute("SELECT pg_notify(%s, '')", [CHANNEL])


PROJECTION = Projection(
    "timers",
    topics_of(agent_runs.AgentRunRequested, agent_runs.AgentRunRetryScheduled, invocations.InvocationRetryScheduled) | ENDS,
    ("timer",),
    apply,
    taken_when_due={"timer": "due_at"},
)
