"""The contract of the port `DueStreams`, in memory and on PostgreSQL, each filled by the read model of schedules."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import pytest
import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import listening
from adapters.postgres.pool import Pool
from adapters.postgres.read_models.schedules import PostgresDueSchedules
from application.engine.ports.due import DueLook, DueStream, DueStreams
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from domain.schedules import Definition, ScheduleChanged, ScheduleCreated, SchedulePaused, ScheduleQueued
from projections import schedules
from tests.contract.conftest import PostgresLogSide
from tests.kit.memory import ManualClock, MemoryLog
from tests.kit.memory.schedules import MemoryDueSchedules
from tests.pace import within

DEFINITION = Definition.model_validate({"when": {"every_s": 60}, "start": {"agent": "a"}})
TENANT = uuid7()


class DueSide(Protocol):
    due: DueStreams

    async def now(self) -> datetime: ...

    async def apply(self, *events: RecordedEvent) -> None:
        """As the read model does when it reads the events."""
        ...

    async def pass_time(self, seconds: float) -> None: ...


class MemoryDue:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(self.clock)
        self.memory = MemoryDueSchedules(self.log)
        self.due: DueStreams = self.memory

    async def now(self) -> datetime:
        return self.clock.now()

    async def apply(self, *events: RecordedEvent) -> None:
        for follow in self.log.followers:
            follow(events)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class PostgresDue:
    """Lets time pass: all times in the table are moved back, and whoever looks is told that they have changed."""

    def __init__(self, log: PostgresLogSide, pool: Pool, due: DueStreams) -> None:
        self.due, self._sql, self._pool = due, log.sql, pool

    async def now(self) -> datetime:
        [(now,)] = await self._sql("SELECT now()")
        assert isinstance(now, datetime)
        return now

    async def apply(self, *events: RecordedEvent) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            await schedules.apply(connection, events)

    async def pass_time(self, seconds: float) -> None:
        await self._sql(
            """UPDATE schedule_due SET starts_at = starts_at - passed, put_off_until = put_off_until - passed
               FROM make_interval(secs => %s) AS passed""",
            seconds,
        )
        await self._sql("SELECT pg_notify(%s, '')", schedules.CHANNEL)


@pytest.fixture
def memory_due() -> MemoryDue:
    return MemoryDue()


@pytest_asyncio.fixture
async def postgres_due(database_url: str, postgres_log: PostgresLogSide, pool: Pool) -> AsyncIterator[PostgresDue]:
    async with listening(database_url, schedules.CHANNEL) as listener:
        yield PostgresDue(postgres_log, pool, PostgresDueSchedules(PostgresDatabase(pool), listener))


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> DueSide:
    found: DueSide = request.getfixturevalue(f"{request.param}_due")
    return found


class Stream:
    """A schedule whose events the test makes."""

    def __init__(self, side: DueSide, id: UUID | None = None) -> None:
        self.id, self.version, self._side = id or uuid7(), 0, side

    @property
    def row(self) -> DueStream:
        return DueStream(self.id, TENANT, self.version)

    async def say(self, event: Event) -> None:
        self.version += 1
        state = REGISTRY.encode(event)
        at = await self._side.now()
        recorded = RecordedEvent(1, TENANT, self.id, self.version, self.id, event.TOPIC, event.VERSION, state, "{}", at)
        await self._side.apply(recorded)

    async def due_in(self, seconds: float) -> "Stream":
        now = await self._side.now()
        at = now + timedelta(seconds=seconds)
        if not self.version:
            made = ScheduleCreated(name=self.id.hex, project_id=TENANT, definition=DEFINITION, next_at=at, at=now, by="x")
            await self.say(made)
        else:
            await self.say(ScheduleChanged(definition=DEFINITION, next_at=at, at=now, by="x"))
        return self

    async def waits(self) -> "Stream":
        now = await self._side.now()
        await self.say(ScheduleQueued(due_at=now, behind=uuid7(), at=now, next_at=now + timedelta(days=1)))
        return self


async def look(side: DueSide, limit: int = 10) -> DueLook:
    return await side.due.look(limit, limit)


async def looked(side: DueSide, fits: Callable[[DueLook], bool]) -> DueLook:
    """A look that fits. One may be earlier than the word that something has come: then that word ends the wait."""
    async with within(15):
        while not fits(found := await look(side)):
            await side.due.wait_for_change(15)
    return found


async def test_what_is_due_comes_in_the_order_of_its_time(side: DueSide) -> None:
    last, first, later = [await Stream(side).due_in(seconds) for seconds in (-1, -50, 3_600)]
    found = await look(side)
    assert (found.due, found.waiting) == ([first.row, last.row], [])
    assert (await look(side, 1)).due == [first.row]
    await side.pass_time(3_601)
    await looked(side, lambda found: found.due == [first.row, last.row, later.row])


async def test_without_anything_due_a_look_says_how_long_nobody_needs_to_look(side: DueSide) -> None:
    assert (await look(side)).next_in_s is None
    await Stream(side).due_in(600)
    await Stream(side).due_in(60)
    found = await looked(side, lambda found: found.next_in_s == pytest.approx(60, abs=20))
    assert found.due == []
    await side.pass_time(100)
    found = await looked(side, lambda found: len(found.due) == 1)
    assert abs((found.now - await side.now()).total_seconds()) < 20


async def test_what_is_done_does_not_come_again_unless_the_stream_has_gone_on(side: DueSide) -> None:
    one, other = [await Stream(side).due_in(-10) for _ in range(2)]
    seen = [one.row, other.row]
    await other.due_in(-5)
    await side.due.done(seen)
    assert (await look(side)).due == [other.row]
    await side.due.done([other.row, DueStream(uuid7(), TENANT, 1)])
    await side.due.done([])
    assert (await look(side)).due == []


async def test_what_is_put_off_comes_later(side: DueSide) -> None:
    one, other = await Stream(side).due_in(-10), await Stream(side).due_in(-5)
    await side.due.put_off([one.row], 60)
    assert (await look(side)).due == [other.row]
    await side.due.done([other.row])
    found = await look(side)
    assert found.due == [] and found.next_in_s == pytest.approx(60, abs=20)
    await side.pass_time(61)
    await looked(side, lambda found: found.due == [one.row])


async def test_news_of_a_stream_that_was_put_off_bring_it_back(side: DueSide) -> None:
    one = await Stream(side).due_in(-10)
    await side.due.put_off([one.row], 3_600)
    await one.due_in(-1)
    assert (await look(side)).due == [one.row]


async def test_what_is_paused_is_not_due(side: DueSide) -> None:
    one = await Stream(side).due_in(-10)
    await one.say(SchedulePaused(at=await side.now()))
    found = await look(side)
    assert (found.due, found.waiting, found.next_in_s) == ([], [], None)


async def test_those_that_wait_for_something_without_a_time_are_told_apart(side: DueSide) -> None:
    one = await (await Stream(side).due_in(-10)).waits()
    found = await look(side)
    assert (found.due, found.waiting) == ([], [one.row])
    assert (await look(side)).waiting == [one.row], "each look has them"
    await side.due.put_off([one.row], 60)
    assert (await look(side)).waiting == []
    await side.pass_time(61)
    await looked(side, lambda found: found.waiting == [one.row])


async def test_many_that_wait_come_in_turns(side: DueSide) -> None:
    ids = sorted(uuid7() for _ in range(3))
    for id in ids:
        await (await Stream(side, id).due_in(-10)).waits()
    found = {row.stream_id for _ in range(4) for row in (await look(side, 2)).waiting}
    assert found == set(ids)


async def test_what_is_due_earlier_wakes_who_waits(side: DueSide) -> None:
    await Stream(side).due_in(3_600)
    await look(side)
    waiting = asyncio.create_task(side.due.wait_for_change(3_000))
    await asyncio.sleep(0)
    await Stream(side).due_in(1)
    async with within(15):
        await waiting


async def test_what_came_after_the_look_is_not_missed(side: DueSide) -> None:
    await look(side)
    await Stream(side).due_in(1)
    async with within(15):
        await side.due.wait_for_change(3_000)


async def test_without_a_change_the_wait_ends_with_its_time(side: DueSide) -> None:
    waiting = asyncio.create_task(side.due.wait_for_change(0.05))
    await asyncio.sleep(0)
    if isinstance(side, MemoryDue):
        await side.pass_time(0.05)
    async with within(15):
        await waiting
