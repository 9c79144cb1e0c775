"""Each port twice: in memory, as unit tests use the port, and on its real server. A suite runs over both, so that both behave the
same."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.leases import PostgresLeases
from adapters.postgres.listener import listening
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.log.ids import PostgresLogIndex
from adapters.postgres.log.ranges import PostgresStreamRanges
from adapters.postgres.log.snapshots import PostgresSnapshots
from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.read_models.open_work import PostgresOpenWork
from adapters.postgres.read_models.timers import PostgresTimers
from adapters.postgres.worker_problems import PostgresWorkerProblems
from adapters.postgres.worker_sessions import PostgresWorkerSessions
from application.engine.ports.checkpoints import Checkpoints
from application.engine.ports.ids import LogIndex
from application.engine.ports.leases import Leases
from application.engine.ports.log import EventFeed, EventStore, StreamRanges
from application.engine.ports.problems import WorkerProblems
from application.engine.ports.queue import OpenWork, WorkItem
from application.engine.ports.sessions import WorkerSession
from application.engine.ports.snapshots import Snapshots
from application.engine.ports.timers import DueTimer, Timers
from application.engine.reading.histories import HistoryStore
from projections.engine.checkpoints import PostgresCheckpoints
from projections.timers import CHANNEL
from tests.contract.session_sides import MemorySessionSide, PostgresSessionSide, SessionSide
from tests.kit.memory import (
    LeaseBoard,
    ManualClock,
    MemoryCheckpoints,
    MemoryEventFeed,
    MemoryEventStore,
    MemoryHistories,
    MemoryLeases,
    MemoryLog,
    MemoryLogIndex,
    MemoryOpenWork,
    MemorySnapshots,
    MemoryStreamRanges,
    MemoryTimers,
    MemoryWorkerProblems,
)

LEASE_S = 60.0


class LogSide(Protocol):
    """The ports of a log, and the changes that a test makes to the database behind the ports."""

    store: EventStore
    feed: EventFeed
    index: LogIndex
    snapshots: Snapshots
    ranges: StreamRanges
    checkpoints: Checkpoints
    histories: HistoryStore

    async def empty(self) -> None:
        """Makes the log empty, as after its creation."""
        ...

    async def now(self) -> datetime: ...

    async def time_passes(self) -> None:
        """Lets time pass, so that the next events are later."""
        ...

    async def set_clock_back(self) -> None:
        """Sets the clock back by an hour: the newest event is an hour ahead of the clock."""
        ...

    async def parked(self) -> list[tuple[str, int, str]]:
        """Returns consumer, position and error of each parked event."""
        ...


class MemoryLogSide:
    def __init__(self) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.log = MemoryLog(self.clock)
        self.store, self.feed = MemoryEventStore(self.log), MemoryEventFeed(self.log)
        self.index = MemoryLogIndex(self.log)
        self.snapshots, self.ranges = MemorySnapshots(self.log), MemoryStreamRanges(self.log, page=7)
        self.checkpoints, self.histories = MemoryCheckpoints(self.log), MemoryHistories(self.log)

    async def empty(self) -> None:
        self.log.cut(0)

    async def now(self) -> datetime:
        return self.clock.now()

    async def time_passes(self) -> None:
        self.clock.advance(0.001)

    async def set_clock_back(self) -> None:
        self.log._recorded_at = self.clock.now()
        self.clock.advance(-3600)

    async def parked(self) -> list[tuple[str, int, str]]:
        return sorted((row.consumer, row.event.position, row.error) for row in self.checkpoints.parked.values())


class PostgresLogSide:
    def __init__(self, database_url: str, pool: Pool, ranges: PostgresStreamRanges) -> None:
        self.database_url = database_url
        self.store, self.feed = PostgresEventStore(database_url, pool), PostgresEventFeed(pool)
        self.index = PostgresLogIndex(pool)
        self.snapshots, self.ranges = PostgresSnapshots(pool), ranges
        self.checkpoints, self.histories = PostgresCheckpoints(PostgresDatabase(pool)), PostgresHistories(pool)

    async def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as connection:
            cursor = await connection.execute(statement.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

    async def empty(self) -> None:
        await self.sql("DELETE FROM event; DELETE FROM command; UPDATE log_head SET position = 0")

    async def now(self) -> datetime:
        [(now,)] = await self.sql("SELECT clock_timestamp()")
        return now  # type: ignore[no-any-return]

    async def time_passes(self) -> None:
        await self.sql("SELECT pg_sleep(0.001)")

    async def set_clock_back(self) -> None:
        await self.sql("UPDATE log_head SET recorded_at = now() + interval '1 hour'")

    async def parked(self) -> list[tuple[str, int, str]]:
        return await self.sql("SELECT consumer, position, error FROM parked_event ORDER BY 1, 2, 3")  # type: ignore[return-value]


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database_url, role="test", max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
def memory_log() -> MemoryLogSide:
    return MemoryLogSide()


@pytest_asyncio.fixture
async def postgres_log(database_url: str, pool: Pool) -> AsyncIterator[PostgresLogSide]:
    ranges = await asyncio.to_thread(PostgresStreamRanges.open, database_url)
    side = PostgresLogSide(database_url, pool, ranges)
    await side.store.start()
    yield side
    await side.store.close()
    await asyncio.to_thread(ranges.close)


@pytest.fixture(params=["memory", "postgres"])
def log(request: pytest.FixtureRequest) -> LogSide:
    side: LogSide = request.getfixturevalue(f"{request.param}_log")
    return side


@pytest.fixture
def store(log: LogSide) -> EventStore:
    return log.store


@pytest.fixture
def feed(log: LogSide) -> EventFeed:
    return log.feed


# --- timers and open work -------------------------------------------------------------------------------------------------


class TableSide(Protocol):
    """Tables of timers and of open work, and a clock for both."""

    timers: Timers
    open_work: OpenWork
    log: LogSide

    async def set(self, timer: DueTimer, due_in_s: float, *, delay_s: float = 86_400) -> None:
        """Sets a timer as the read model of timers does, with a notification. `delay_s` counts from the event that set it."""
        ...

    async def open(self, item: WorkItem, age_s: float) -> None:
        """Adds open work whose last dispatch is so many seconds ago."""
        ...

    async def pass_time(self, seconds: float) -> None: ...

    async def set_clock_back(self, seconds: float) -> None: ...

    async def parked(self) -> list[tuple[str, int, str]]:
        """Consumer, position and error of each event that was put aside."""
        ...


class MemoryTables:
    def __init__(self, log: MemoryLogSide) -> None:
        self.log, self.clock = log, log.clock
        self.timers, self.open_work = MemoryTimers(log.log), MemoryOpenWork(log.log)

    async def set(self, timer: DueTimer, due_in_s: float, *, delay_s: float = 86_400) -> None:
        self.timers.set(timer, self._in(due_in_s), set_at=self._in(due_in_s - delay_s))

    async def open(self, item: WorkItem, age_s: float) -> None:
        self.open_work.open(item, self._in(-age_s))

    def _in(self, seconds: float) -> datetime:
        later = ManualClock(self.clock.now())
        later.advance(seconds)
        return later.now()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def set_clock_back(self, seconds: float) -> None:
        self.clock.advance(-seconds)

    async def parked(self) -> list[tuple[str, int, str]]:
        return [(row.consumer, row.event.position, row.error) for row in self.timers.parked]


class PostgresTables:
    """Lets time pass: all times in the tables are moved back. To set the clock back, they are moved ahead."""

    def __init__(self, side: PostgresLogSide, pool: Pool, timers: PostgresTimers) -> None:
        self.log, self._sql, self.parked = side, side.sql, side.parked
        self.timers, self.open_work = timers, PostgresOpenWork(PostgresDatabase(pool))

    async def set(self, timer: DueTimer, due_in_s: float, *, delay_s: float = 86_400) -> None:
        await self._sql(
            """INSERT INTO timer (timer_id, tenant_id, root_id, stream_id, set_at, due_at, command, payload, correlation_id, cause)
               VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s), now() + make_interval(secs => %s), %s, %s, %s, %s)""",
            timer.timer_id, timer.tenant_id, timer.root_id, timer.root_id, due_in_s - delay_s, due_in_s, timer.command,
            timer.payload.decode(), timer.correlation_id, timer.cause,
        )  # fmt: skip
        await self._sql("SELECT pg_notify(%s, '')", CHANNEL)

    async def open(self, item: WorkItem, age_s: float) -> None:
        await self._sql(
            """INSERT INTO open_work (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at)
               VALUES (%s, %s, %s, %s, %s, %s, now() - make_interval(secs => %s))""",
            item.work_id, item.tenant_id, item.root_id, item.kind, item.pool, item.dispatch, age_s,
        )  # fmt: skip

    async def pass_time(self, seconds: float) -> None:
        await self._sql(
            """UPDATE timer SET due_at = due_at - passed, set_at = set_at - passed, no_later_than = no_later_than - passed
               FROM make_interval(secs => %s) AS passed""",
            seconds,
        )
        await self._sql("UPDATE open_work SET dispatched_at = dispatched_at - make_interval(secs => %s)", seconds)

    async def set_clock_back(self, seconds: float) -> None:
        await self.pass_time(-seconds)


@pytest.fixture
def memory_tables(memory_log: MemoryLogSide) -> MemoryTables:
    return MemoryTables(memory_log)


@pytest_asyncio.fixture
async def postgres_tables(database_url: str, postgres_log: PostgresLogSide, pool: Pool) -> AsyncIterator[PostgresTables]:
    async with listening(database_url, CHANNEL) as listener:
        yield PostgresTables(postgres_log, pool, PostgresTimers(PostgresDatabase(pool), listener))


@pytest.fixture(params=["memory", "postgres"])
def tables(request: pytest.FixtureRequest) -> TableSide:
    side: TableSide = request.getfixturevalue(f"{request.param}_tables")
    return side


# --- reports of workers ---------------------------------------------------------------------------------------------------


class ProblemSide(Protocol):
    """Reports of workers, and the time that passes for them."""

    problems: WorkerProblems

    async def pass_time(self, seconds: float) -> None: ...


class MemoryProblemSide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.problems = MemoryWorkerProblems(MemoryLog(self.clock))

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class PostgresProblemSide:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.problems = PostgresWorkerProblems(PostgresDatabase(pool))

    async def pass_time(self, seconds: float) -> None:
        async with self._pool.connection() as connection:
            sql = """
            UPDATE worker_problem SET (reported_at, expires_at) = (reported_at - past, expires_at - past)
            FROM make_interval(secs => %s) AS past
            """
            await connection.execute(sql, [seconds])


@pytest.fixture
def memory_problems() -> MemoryProblemSide:
    return MemoryProblemSide()


@pytest.fixture
def postgres_problems(pool: Pool) -> PostgresProblemSide:
    return PostgresProblemSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def reports(request: pytest.FixtureRequest) -> ProblemSide:
    side: ProblemSide = request.getfixturevalue(f"{request.param}_problems")
    return side


# --- sessions of workers --------------------------------------------------------------------------------------------------


@pytest.fixture
def memory_sessions() -> MemorySessionSide:
    return MemorySessionSide()


@pytest.fixture
def postgres_sessions(pool: Pool) -> PostgresSessionSide:
    return PostgresSessionSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def sessions(request: pytest.FixtureRequest) -> SessionSide:
    side: SessionSide = request.getfixturevalue(f"{request.param}_sessions")
    return side


# --- leases ---------------------------------------------------------------------------------------------------------------


class LeaseSide(Protocol):
    """One table of leases, and its members. A lease lasts `LEASE_S` seconds."""

    def member(self, member_id: UUID | None = None) -> Leases: ...

    async def open_session(self) -> None:
        """Some worker opens a session."""
        ...

    async def pass_time(self, seconds: float) -> None: ...


@dataclass
class MemoryLeaseSide:
    board: LeaseBoard
    clock: ManualClock

    def member(self, member_id: UUID | None = None) -> Leases:
        return MemoryLeases(self.board, lease_s=LEASE_S, member_id=member_id)

    async def open_session(self) -> None:
        self.board.any_session = True

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


@dataclass
class PostgresLeaseSide:
    pool: Pool

    def member(self, member_id: UUID | None = None) -> Leases:
        return PostgresLeases(self.pool, lease_s=LEASE_S, member_id=member_id)

    async def open_session(self) -> None:
        session = WorkerSession(uuid4(), uuid4(), "w", "key:test", uuid4(), "0.9.0")
        assert await PostgresWorkerSessions(PostgresDatabase(self.pool)).open(session, "s", most_of_actor=1, most_of_tenant=1)

    async def pass_time(self, seconds: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE member SET alive_until = alive_until - make_interval(secs => %s)", [seconds])


@pytest.fixture
def memory_leases() -> MemoryLeaseSide:
    clock = ManualClock()
    return MemoryLeaseSide(LeaseBoard(clock), clock)


@pytest.fixture
def postgres_leases(pool: Pool) -> PostgresLeaseSide:
    return PostgresLeaseSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def shared_leases(request: pytest.FixtureRequest) -> LeaseSide:
    side: LeaseSide = request.getfixturevalue(f"{request.param}_leases")
    return side


def positions(events: Sequence[Any]) -> list[int]:
    return [event.position for event in events]
