"""An event of a large run costs the read model what an event of a small run costs: statements, rows and WAL."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any
from uuid import UUID

import pytest

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import open_pool
from application.views.runs import FIRST_PARTS, RunView
from domain import agent_runs, invocations, runs
from domain.failures import Failure
from domain.kernel import Event, RecordedEvent
from domain.plans import Each
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections.runs import PROJECTION, replay
from projections.runs.queries import FIRST_PARTS_OF_RUN, Kept, assembled, positions_of
from projections.runs.tables import CALL_COLUMNS, RUN_COLUMNS, STEP_COLUMNS, CallRow, PartRow, RunRow, StepRow
from tests.integration.projection_kit import PROJECT
from tests.integration.system_kit import new_id

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
FAILURE = Failure(type="E", message="broken")
PARTS = 200
WATCHED = 10
WAL = "SELECT wal_bytes, wal_records FROM pg_stat_get_backend_wal(pg_backend_pid())"


class Story:
    """The events of one run, as the log would hold them."""

    def __init__(self) -> None:
        self.run_id = new_id()
        self.events: list[RecordedEvent] = []
        self._versions: dict[UUID, int] = {}

    def add(self, stream_id: UUID, event: Event) -> None:
        version = self._versions[stream_id] = self._versions.get(stream_id, 0) + 1
        position, state = len(self.events) + 1, REGISTRY.encode(event)
        self.events.append(
            RecordedEvent(position, DEFAULT_TENANT_ID, stream_id, version, self.run_id, event.TOPIC, event.VERSION, state, "{}", AT)
        )

    def begin(self, steps: int) -> Iterator[tuple[str, UUID]]:
        plan = runs.Plan(steps=tuple(runs.Step(key=f"s{n}", agent="a") for n in range(steps)))
        self.add(self.run_id, runs.RunStarted(project_id=PROJECT, plan=plan, input="x" * 50_000))
        for step in plan.steps:
            yield step.key, runs.agent_run_id_of(self.run_id, step.key)

    def schedule(self, key: str, agent_run_id: UUID) -> None:
        scheduled = runs.StepScheduled(step=key, agent="a", agent_version=None, agent_run_id=agent_run_id)
        self.add(self.run_id, scheduled)
        self.add(agent_run_id, agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1))


def many_recorded() -> Story:
    story = Story()
    [(key, agent_run_id)] = story.begin(1)
    story.schedule(key, agent_run_id)
    for n in range(5 * PARTS):
        story.add(agent_run_id, agent_runs.StepRecorded(attempt=1, key=f"k{n}", kind="step", result="y" * 200))
    return story


def many_calls() -> Story:
    story = Story()
    [(key, agent_run_id)] = story.begin(1)
    story.schedule(key, agent_run_id)
    for n in range(PARTS):
        call = new_id()
        story.add(agent_run_id, agent_runs.CallStarted(attempt=1, key=f"k{n}", tool="t", invocation_id=call))
        story.add(call, invocations.AttemptStarted(attempt=1, worker_id="w", dispatch=1))
        story.add(call, invocations.InvocationSucceeded(agent_run_id=agent_run_id, key=f"k{n}", attempt=1, result="y" * 200))
    return story


def many_steps() -> Story:
    story = Story()
    for key, agent_run_id in list(story.begin(PARTS)):
        story.schedule(key, agent_run_id)
        story.add(story.run_id, runs.StepCompleted(step=key, agent_run_id=agent_run_id, result="y" * 200))
    return story


def many_parts() -> Story:
    story = Story()
    plan = runs.Plan(steps=(runs.Step(key="map", agent="a", each=Each(over="input")),))
    story.add(story.run_id, runs.RunStarted(project_id=PROJECT, plan=plan, input="x" * 50_000))
    story.add(story.run_id, runs.StepStarted(step="map", form="each", items=tuple(range(PARTS))))
    story.add(story.run_id, agent_runs.MailDelivered(message_id=new_id(), sender="a", sent_at=AT))
    for n in range(PARTS):
        id = new_id()
        story.add(story.run_id, runs.PartScheduled(step="map", part=n, agent_run_id=id, agent="a", input=n))
        story.add(id, agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1))
        story.add(story.run_id, runs.PartCompleted(step="map", part=n, execution_id=id, result="y" * 200))
    return story


@pytest.mark.parametrize("make", [many_recorded, many_calls, many_steps, many_parts])
async def test_the_last_events_of_a_large_run_cost_what_the_first_ones_cost(database_url: str, make: Callable[[], Story]) -> None:
    story = make()
    head, last = story.events[:3], story.events[-WATCHED * 3 :]
    first, between = story.events[3 : 3 + WATCHED * 3], story.events[3 + WATCHED * 3 : -WATCHED * 3]
    pool = await open_pool(database_url, role="test", max_size=1)
    try:
        database = PostgresDatabase(pool)
        await apply(database, [head])
        cost_of_first = await apply(database, [[event] for event in first])
        await apply(database, [between])
        cost_of_last = await apply(database, [[event] for event in last])
        assert cost_of_first[1] == cost_of_last[1], "records of the WAL"
        assert 100 < cost_of_last[0] <= 1.1 * cost_of_first[0] < 1_500, "bytes"
        expected = replay(story.events)
        assert expected is not None and (await stored(database, story)).model_dump() == expected.model_dump()
    finally:
        await pool.close()


def called_off(end: Event) -> Story:
    """A run that ends while steps are open: completed, failed, failed before its work was requested, running, retried, pending."""
    story = Story()
    done, failed, never, running, retried, _ = story.begin(6)
    for key, agent_run_id in (done, failed, running, retried):
        story.schedule(key, agent_run_id)
    story.add(story.run_id, runs.StepCompleted(step=done[0], agent_run_id=done[1], result={"n": 1}))
    story.add(story.run_id, runs.StepFailed(step=failed[0], agent_run_id=failed[1], error=FAILURE, tolerated=True))
    story.add(story.run_id, runs.StepFailed(step=never[0], agent_run_id=None, error=FAILURE, tolerated=True))
    story.add(retried[1], agent_runs.AgentRunRetryScheduled(attempt=1, error=FAILURE, delay_s=1.0, dispatch=2))
    story.add(retried[1], agent_runs.AgentRunResumed(run_id=story.run_id, agent="a", dispatch=2))
    story.add(done[1], agent_runs.AgentRunCompleted(run_id=story.run_id, step=done[0], attempt=1, unused_keys=("k 1",)))
    story.add(story.run_id, end)
    story.add(running[1], agent_runs.AgentRunCancelled())
    return story


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    "end", [runs.RunFailed(step="s1", error=FAILURE), runs.RunCancelled(reason="enough"), runs.RunCompleted(missing=("s1", "s2"))]
)
async def test_the_steps_that_an_end_calls_off_are_those_of_the_replay(database_url: str, end: Event, size: int) -> None:
    story = called_off(end)
    pool = await open_pool(database_url, role="test", max_size=1)
    try:
        database = PostgresDatabase(pool)
        await apply(database, [story.events[first : first + size] for first in range(0, len(story.events), size)])
        expected = replay(story.events)
        assert expected is not None and (await stored(database, story)).model_dump() == expected.model_dump()
    finally:
        await pool.close()


async def apply(database: PostgresDatabase, batches: Sequence[Sequence[RecordedEvent]]) -> tuple[float, float]:
    """The median bytes and records of the WAL of a batch."""
    costs = []
    for batch in batches:
        before = await wal(database)
        async with database.transaction() as connection:
            await PROJECTION.apply(connection, batch)
        after = await wal(database)
        costs.append((after[0] - before[0], after[1] - before[1]))
    return median(size for size, _ in costs), median(records for _, records in costs)


async def wal(database: PostgresDatabase) -> tuple[int, int]:
    async with database.connection() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        row = await (await connection.execute(WAL)).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


async def stored(database: PostgresDatabase, story: Story) -> RunView:
    """The run as its query puts it together, with the events of the story in place of the log."""
    async with database.connection() as connection:

        async def rows(query: str) -> list[tuple[Any, ...]]:
            return await (await connection.execute(query.encode(), [story.run_id])).fetchall()

        [found] = await rows(f"SELECT {RUN_COLUMNS} FROM run AS r WHERE r.run_id = %s")
        steps = [StepRow(*row) for row in await rows(f"SELECT {STEP_COLUMNS} FROM run_step AS s WHERE s.run_id = %s")]
        calls = [
            CallRow(*row)
            for row in await rows(f"SELECT {CALL_COLUMNS} FROM run_call AS c WHERE c.run_id = %s ORDER BY c.position DESC LIMIT 50")
        ]
        shown = {"run": story.run_id, "tenant": DEFAULT_TENANT_ID, "limit": FIRST_PARTS}
        parts = [PartRow(*row) for row in await (await connection.execute(FIRST_PARTS_OF_RUN, shown)).fetchall()]
    run = RunRow(*found)
    wanted = positions_of(run, steps, calls)
    events = {
        e.position: Kept(REGISTRY.decoded(e), e.recorded_at, e.position, len(e.state), e.metadata)
        for e in story.events
        if e.position in wanted
    }
    return assembled(run, steps, calls, events, parts)
