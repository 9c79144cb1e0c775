"""Another session holds a snapshot, so no row that is gone can be vacuumed: what the engine asks all the time costs the same."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from psycopg import AsyncConnection

from adapters.embedded import EmbeddedServices
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import ChannelListener
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.read_models import timers as reading
from adapters.postgres.read_models.timers import PostgresTimers
from adapters.postgres.worker_sessions import PostgresWorkerSessions
from application.engine.ports.checkpoints import Checkpoint, LostOwnership
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.views.activity import OpenRunCount
from domain.agent_runs import AgentRunRequested
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from domain.runs import RunStarted, sequential
from projections import activity
from projections.activity import ActivityQueries
from projections.engine import positions
from projections.engine.checkpoints import PostgresCheckpoints, position_of
from tests.integration.plans_kit import explained
from tests.integration.system_kit import new_id
from tests.kit.waiting import TENANT

BATCHES, BATCH = 10, 1_000
PAGES = 60
"""Pages of 8 KiB that the looks may read. Those with the timers of a test are nearly 200."""


@dataclass
class Held:
    """A database on which another session holds a snapshot, and the plans of what runs on `connection`, with the pages read."""

    connection: AsyncConnection[Any]
    database: PostgresDatabase
    plans: list[dict[str, Any]] = field(default_factory=list)
    positions: int = 0

    async def least(self, look: Callable[[], Awaitable[object]]) -> int:
        """The least number of pages that a look reads. The first looks, and those with a new plan, read the catalog, too."""
        read = []
        for _ in range(4):
            self.pages()
            await look()
            read.append(self.pages())
        return min(read)

    def pages(self) -> int:
        """Pages read since the last call."""
        read: int = sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in self.plans)
        self.plans.clear()
        return read

    async def set(self, count: int, due: timedelta, *, behind: timedelta = timedelta()) -> list[Any]:
        """Sets timers as the read model does: the event is in the log, and the checkpoint moves with the rows.

        `behind`: how long ago their event was recorded.
        """
        async with self.connection.transaction():
            self.positions += 1
            await self.connection.execute(
                """INSERT INTO event (notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id, topic,
                                      metadata, state)
                   VALUES (%s, 1, now() - %s, %s, %s, %s, 'x', '{}', '{}')""",
                [self.positions, behind, new_id(), new_id(), new_id()],
            )
            rows = await self.connection.execute(
                """INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, set_at, due_at, command, payload, correlation_id,
                                      cause)
                   SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - %s, now() - %s + %s,
                          'Ring', '{}', gen_random_uuid(), 'x' FROM generate_series(1, %s) RETURNING timer_id""",
                [behind, behind, due, count],
            )
            await self.connection.execute(
                """INSERT INTO checkpoint (name, position) VALUES ('timers', %(to)s)
                   ON CONFLICT (name) DO UPDATE SET position = %(to)s""",
                {"to": self.positions},
            )
            return [row[0] for row in await rows.fetchall()]


@pytest_asyncio.fixture
async def held(services: EmbeddedServices, database_url: str) -> AsyncIterator[Held]:
    counted = {"log_analyze": "on", "log_buffers": "on", "log_timing": "off", "log_nested_statements": "off"}
    async with await AsyncConnection.connect(database_url) as other, explained(services, database_url, **counted) as found:
        await other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await other.execute("SELECT FROM checkpoint")
        yield Held(found.connection, PostgresDatabase(found.pool), found.plans)


@pytest.fixture
def timers(held: Held, monkeypatch: pytest.MonkeyPatch) -> PostgresTimers:
    """Only the first look is a whole one: a minute of a busy machine would bring another, with all of its pages."""
    monkeypatch.setattr(reading, "WHOLE_EVERY_S", 1e9)
    return PostgresTimers(held.database, ChannelListener("", "unused"))


async def test_looks_for_timers_do_not_walk_over_those_that_were_called_off(held: Held, timers: PostgresTimers) -> None:
    """Each run in time takes the timer of its time-out along."""
    for _ in range(BATCHES):
        gone = await held.set(BATCH, timedelta(hours=1))
        await timers.delete(gone)
        assert await timers.due(10) == []
    [last] = await held.set(1, timedelta(hours=2))
    assert await timers.due(10) == [] and await timers.seconds_until_next() == pytest.approx(7_200, abs=60)
    held.pages()
    assert await timers.due(10) == [] and await timers.seconds_until_next() == pytest.approx(7_200, abs=60)
    assert held.pages() < PAGES
    await timers.delete([last])
    assert await timers.due(10) == [] and await timers.seconds_until_next() is None
    assert held.pages() < PAGES


async def test_looks_for_timers_do_not_walk_over_those_that_fired(held: Held, timers: PostgresTimers) -> None:
    for _ in range(BATCHES):
        await held.set(BATCH, timedelta(seconds=-1))
        due = await timers.due(BATCH)
        assert len(due) == BATCH
        await timers.delete([timer.timer_id for timer in due])
    await timers.due(10)  # walks over the last ones
    await held.set(1, timedelta(hours=2))
    await timers.due(10)
    held.pages()
    assert await timers.due(10) == []
    assert held.pages() < PAGES


async def test_a_timer_that_comes_late_is_found_although_it_fires_before_the_known_ones(held: Held, timers: PostgresTimers) -> None:
    """The read model of timers is behind: an event of a minute ago sets a timer that is due by now."""
    await held.set(1, timedelta(hours=1), behind=timedelta(minutes=2))
    assert await timers.due(10) == [] and await timers.seconds_until_next() == pytest.approx(3_480, abs=60)
    late = await held.set(1, timedelta(seconds=20), behind=timedelta(minutes=1))
    assert [timer.timer_id for timer in await timers.due(10)] == late
    assert [timer.timer_id for timer in await timers.due(10)] == late, "due until deleted"
    await timers.delete(late)
    assert await timers.due(10) == [] and await timers.seconds_until_next() == pytest.approx(3_480, abs=60)
    again = await held.set(1, timedelta(seconds=-1))
    assert [timer.timer_id for timer in await timers.due(10)] == again


async def test_a_timer_that_comes_back_with_its_old_time_is_found_by_a_whole_look(
    held: Held, timers: PostgresTimers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read model that is built anew, or that lost its last rows in a crash, may bring back a timer that fired before."""
    await held.set(1, timedelta(hours=1))
    await timers.due(10)
    back = await held.set(1, timedelta(seconds=5), behind=timedelta(hours=1))
    assert await timers.due(10) == [], "it is in the past of the log"
    monkeypatch.setattr(reading, "WHOLE_EVERY_S", 0.0)
    assert [timer.timer_id for timer in await timers.due(10)] == back


async def test_checkpoints_move_without_a_walk_over_their_moves_of_before(held: Held) -> None:
    """A place that is not right any more costs a look by the name, and nothing else."""
    port = PostgresCheckpoints(held.database)
    names = [f"sagas:{number}" for number in range(4)]
    await port.take(names)
    await held.connection.execute(
        "DO $$ BEGIN FOR i IN 1..2000 LOOP UPDATE checkpoint SET updated_at = clock_timestamp(); COMMIT; END LOOP; END $$"
    )
    known = await port.take(names)
    held.pages()
    known = await port.advance(known, 401)
    assert held.pages() < PAGES
    for place in (known["sagas:1"].place, "(99999,1)"):
        known = await port.advance(known | {"sagas:0": replace(known["sagas:0"], place=place)}, known["sagas:0"].position + 1)
    assert set(known.values()) == {Checkpoint(403, 2)}
    assert await port.take(names) == dict.fromkeys(names, Checkpoint(403, 3))
    with pytest.raises(LostOwnership):
        await port.advance(known, 404)
    assert await port.take(names) == dict.fromkeys(names, Checkpoint(403, 4))


async def test_looks_at_checkpoints_of_others_do_not_walk_over_their_moves(held: Held, timers: PostgresTimers) -> None:
    """Whoever asks how far a read model has come: readers, those who wait for a position, timers, and the look at held work."""
    names = ["timers", "work", "runs", *(f"other{number}" for number in range(10))]
    await held.connection.execute("INSERT INTO checkpoint (name, position, epoch) SELECT unnest(%s::text[]), 0, 1", [names])
    await held.connection.execute("DO $$ BEGIN FOR i IN 1..2000 LOOP UPDATE checkpoint SET position = i; COMMIT; END LOOP; END $$")
    await held.connection.execute("ANALYZE checkpoint")  # as autovacuum does: the planner then prefers another way
    sessions, sums = PostgresWorkerSessions(held.database), ActivityQueries(held.database)

    async def by_name() -> None:
        assert await position_of(held.connection, "runs") == 2_000 and await position_of(held.connection, "unknown") == 0

    async def by_names() -> None:
        read = await held.connection.execute(positions.READ, [["unknown", "runs", "work"]])
        assert await read.fetchall() == [("runs", 2_000), ("work", 2_000)]

    async def due_timers() -> None:
        assert await timers.due(10) == []

    async def open_runs() -> None:
        assert await sums.open_runs(by_tenant=False) == OpenRunCount(0, {}, 0)

    async def held_work() -> None:
        assert (await sessions.held_by([new_id()])).position == 2_000

    for look in (by_name, by_names, due_timers, open_runs, held_work):
        assert await held.least(look) < 20, look


async def test_sums_are_added_without_a_walk_over_those_of_before(held: Held) -> None:
    async def begin(number: int, agent: str = "alpha") -> None:
        run = RunStarted(project_id=new_id(), plan=sequential((agent,)))
        requested = [AgentRunRequested(run_id=new_id(), step="a", agent=agent, agent_version=None) for _ in range(number)]
        await activity.apply(held.connection, [recorded(event) for event in (run, *requested)])

    await begin(2)
    await held.connection.execute(
        "DO $$ BEGIN FOR i IN 1..2000 LOOP UPDATE activity_total SET running = running; COMMIT; END LOOP; END $$"
    )
    await held.connection.execute("ANALYZE activity_total")
    assert await held.least(lambda: begin(2)) < PAGES
    await begin(1, "beta")
    queries = ActivityQueries(held.database)
    assert (await queries.open_runs(by_tenant=False)).total == 6
    assert await held.least(lambda: queries.open_runs(by_tenant=False)) < 10
    assert {(one.kind, one.label): one.started for one in (await queries.now()).totals} == {
        ("run", ""): 6, ("agent", "alpha"): 10, ("agent", "beta"): 1
    }  # fmt: skip


def recorded(event: Event) -> RecordedEvent:
    id_ = new_id()
    return RecordedEvent(1, TENANT, id_, 1, id_, event.TOPIC, event.VERSION, REGISTRY.encode(event), "{}", datetime.now(UTC))


async def test_an_append_and_the_head_do_not_walk_over_the_heads_of_before(held: Held) -> None:
    """Neither does an append that another session has overtaken."""
    await held.connection.execute(
        "DO $$ BEGIN FOR i IN 1..8000 LOOP UPDATE log_head SET recorded_at = clock_timestamp(); COMMIT; END LOOP; END $$"
    )

    async def after_another() -> None:
        await held.connection.execute("UPDATE log_head SET recorded_at = clock_timestamp()")  # this session does not know the place
        held.pages()
        await _append(held)

    await _append(held)
    await _append(held, conflicting=True)
    assert await held.least(lambda: _append(held)) < 30
    assert await held.least(after_another) < 30
    feed, histories = PostgresEventFeed(held.database._pool), PostgresHistories(held.database)
    assert await feed.head() == (await histories.read()).head == 10
    assert await held.least(feed.head) < 20 and await held.least(histories.read) < 20


async def _append(held: Held, *, conflicting: bool = False) -> None:
    """`conflicting`: one of two requests is refused, so the append takes fewer positions than it asked for."""
    new = (NewEvent("x", 1, b"{}"),)
    streams = [StreamAppend(new_id(), new_id(), version, new) for version in ((0, 7) if conflicting else (0,))]
    batch = [EncodedAppend.of(one_command(new_id(), new_id(), (stream,), "{}")) for stream in streams]
    rows = await (await held.connection.execute(APPEND_SQL, parameters(batch))).fetchall()
    assert sorted(row[1] for row in rows) == ["accepted", "conflict"][: len(rows)]
