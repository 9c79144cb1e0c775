"""For tests of read models without the rest of the server: a log of runs in a database of its own, a runner, a builder."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.listener import ChannelListener
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.pool import open_pool
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.ports.pages import Page, uuid_cursor
from application.engine.ports.projections import Kind, Purpose
from application.reads import Positioned
from domain import agent_runs, projects, runs
from domain.errors import Unavailable
from domain.kernel import Command, Event, RecordedEvent
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections.engine.positions import Positions
from projections.engine.rebuild import jobs
from projections.engine.rebuild.builder import ProjectionBuilder
from projections.engine.rebuild.jobs import Build
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection, Database, Projection
from tests.integration.system_kit import eventually, new_id, request_of, stopped
from tests.kit.memory import MemoryLog, MemorySubscription
from tests.pace import within

T = TypeVar("T")
V = TypeVar("V", bound=BaseModel, covariant=True)
W = TypeVar("W", contravariant=True)

PROJECT = UUID("01920000-0000-7000-8000-000000000001")
PLAN = runs.Plan(steps=(runs.Step(key="write", agent="editor"),))
OLD_MEMBER = """
INSERT INTO member (member_id, place, groups, joined_at, alive_until, formats)
VALUES (gen_random_uuid(), 'old', '{}', now(), now(), '{1}')
"""
"""A process of the release before. While there is one, runs are stored as documents."""
NO_OLD_MEMBER = "DELETE FROM member WHERE place = 'old'"


class CountedDatabase:
    """A database that counts its uses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.asked = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.asked += 1
        async with self._database.connection() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        raise AssertionError
        yield


class Log:
    """A log that is read page by page, and the parts that runners and builders need."""

    def __init__(self, url: str, database: PostgresDatabase, feed: PostgresEventFeed, store: PostgresEventStore, page: int) -> None:
        self.url, self.database, self.feed, self.store = url, database, feed, store
        self._page = page
        self.commands = CommandLoop(store, CATALOG)
        self._appended: asyncio.Condition = asyncio.Condition()

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """The port `Subscription`, read straight from the database. Outages are waited out."""
        while True:
            try:
                events = await self.feed.read(after=after, limit=self._page)
            except Unavailable:
                events = []
            if events:
                after = events[-1].position
                yield events
            else:
                await asyncio.sleep(0.005)

    async def append(self, root: UUID, *streams: tuple[UUID, int, Sequence[Event]]) -> int:
        """Appends events to streams (id, expected version, events) of one root, without the domain's rules."""
        appends = tuple(
            StreamAppend(stream, root, version, tuple(NewEvent(e.TOPIC, e.VERSION, REGISTRY.encode(e)) for e in events))
            for stream, version, events in streams
        )
        request = request_of()
        result = await self.store.append(one_command(DEFAULT_TENANT_ID, request.command_id, appends, request.metadata()))
        return result.last_position

    async def run(self, steps: int = 4, *, end: bool = True) -> UUID:
        """Appends a run of one agent with so many recorded steps.

        A run that ends has 6 more events, a run that does not end has 4.
        """
        run_id, agent_run_id = new_id(), new_id()
        started = runs.RunStarted(project_id=PROJECT, plan=PLAN, input={"text": "x" * 200})
        scheduled = runs.StepScheduled(step="write", agent="editor", agent_version=None, agent_run_id=agent_run_id)
        requested = agent_runs.AgentRunRequested(run_id=run_id, step="write", agent="editor", agent_version=None)
        claimed = agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1)
        recorded = [agent_runs.StepRecorded(attempt=1, key=f"s{i}", kind="step", result={"n": i}) for i in range(steps)]
        await self.append(run_id, (run_id, 0, [started, scheduled]), (agent_run_id, 0, [requested, claimed, *recorded]))
        if end:
            done = runs.StepCompleted(step="write", agent_run_id=agent_run_id, result={"text": "y" * 100})
            await self.append(run_id, (run_id, 2, [done, runs.RunCompleted()]))
        return run_id

    async def runs(self, count: int, steps: int = 4) -> list[UUID]:
        return list(await asyncio.gather(*(self.run(steps) for _ in range(count))))

    async def create(self, *names: str) -> list[UUID]:
        """Appends projects, one event each."""
        ids = [new_id() for _ in names]
        for project_id, name in zip(ids, names, strict=True):
            await self.commands.execute(request_of(), projects.CreateProject(project_id=project_id, name=name))
        return ids

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(query.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

    async def until(self, name: str) -> None:
        async with within(15):
            await Positions(self.database).until(name, await self.feed.head(), 600)

    async def ask(self, projection: Projection, kind: Kind, *, swap: bool = False) -> None:
        async with self.database.connection() as connection, connection.transaction():
            await jobs.ask(connection, projection, kind, swap=swap)

    async def ask_swap(self, name: str) -> None:
        async with self.database.connection() as connection, connection.transaction():
            await jobs.ask_swap(connection, name)

    async def build(self, name: str, purpose: Purpose = "version") -> Build:
        async with self.database.connection() as connection:
            found = await jobs.find(connection, name, purpose)
        assert found is not None
        return found

    async def until_status(self, name: str, *statuses: str, purpose: Purpose = "version") -> Build:
        async def there() -> Build | None:
            found = await self.build(name, purpose)
            assert found.status in statuses or found.status in jobs.OPEN, found
            return found if found.status in statuses else None

        return await eventually(there, f"{name} {statuses}", 20)


@asynccontextmanager
async def log_on(database_url: str, *, page: int = 100) -> AsyncIterator[Log]:
    """`page`: the number of events in a batch of the subscription."""
    pool = await open_pool(database_url, role="test", max_size=8)
    store = PostgresEventStore(database_url, pool)
    await store.start()
    try:
        yield Log(database_url, PostgresDatabase(pool), PostgresEventFeed(pool), store, page)
    finally:
        await store.close()
        await pool.close()


@asynccontextmanager
async def task(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Runs work beside the test. If the work fails, the test is interrupted, because the test may be waiting for the work."""
    test = asyncio.current_task()
    assert test is not None
    wanted = True

    def interrupt(beside: asyncio.Task[None]) -> None:
        if wanted and not beside.cancelled() and beside.exception() is not None:
            test.cancel()

    beside = asyncio.create_task(work())
    beside.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        if not beside.done():
            raise
        test.uncancel()
    finally:
        wanted, failed = False, beside.done()
        [error] = await stopped(beside)
    if failed and error is not None:
        raise error


@asynccontextmanager
async def projecting(log: Log, *projections: Projection) -> AsyncIterator[None]:
    """Runs the runner, and starts it again when ownership is lost, as the process does while it holds the lease."""

    async def run() -> None:
        while True:
            try:
                await ProjectionRunner(projections, log.database, log).run()
            except LostOwnership:
                continue

    async with task(run):
        yield


@asynccontextmanager
async def building(log: Log, *projections: Projection, database: Database | None = None) -> AsyncIterator[None]:
    listener = ChannelListener(log.url, jobs.CHANNEL)
    await listener.start()
    try:
        builder = ProjectionBuilder(projections, database or log.database, log.feed, listener)
        async with task(builder.run):
            yield
    finally:
        await listener.close()


async def nothing(_: RecordedEvent) -> None:
    """What happens before an event, if nothing does."""


async def at_every_position(
    log: Log,
    projection: Projection,
    look: Callable[[], Awaitable[T]],
    before: Callable[[RecordedEvent], Awaitable[None]] = nothing,
) -> dict[int, T]:
    """What a read model answers at each position of the log: it takes one event at a time, so that it is at every position once."""
    runner = ProjectionRunner([projection], log.database, MemorySubscription(MemoryLog()))
    await runner._take()
    found = {0: await look()}
    for recorded in await log.feed.read(after=0, limit=1_000):
        await before(recorded)
        await runner.handle([recorded])
        found[recorded.position] = await look()
    return found


async def handled(log: Log, projection: Projection) -> None:
    """Brings a read model to the head."""
    runner = ProjectionRunner([projection], log.database, MemorySubscription(MemoryLog()))
    await runner._take()
    await runner.handle(await log.feed.read(after=0, limit=1_000))


class ListsOfThen(Protocol[W, V]):
    """Queries of a read model with a list, now and as of a position."""

    async def list(self, tenant_id: UUID, wanted: W) -> Positioned[Page[V]]: ...

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: W) -> Page[V]: ...


async def all_pages(
    reads: ListsOfThen[W, V], position: int | None, limit: int, wanted: Callable[[UUID | None], W]
) -> list[dict[str, Any]]:
    """The entries of a list, now or at a position, from all of its pages. `wanted`: the page of `limit` entries behind an id."""
    shown: list[dict[str, Any]] = []
    before: UUID | None = None
    while True:
        if position is None:
            page = (await reads.list(DEFAULT_TENANT_ID, wanted(before))).value
        else:
            page = await reads.list_as_of(DEFAULT_TENANT_ID, position, wanted(before))
        assert len(page.data) <= limit
        shown += [entry.model_dump(mode="json") for entry in page.data]
        if page.next_cursor is None:
            return shown
        before = uuid_cursor(page.next_cursor)


async def in_random_order(log: Log, seed: int, lives: list[list[Command]], *, reactions: bool = True) -> None:
    """Carries out the commands of each life in order, and the lives at random between one another and at the same time."""
    given = random.Random(seed)
    commands = log.commands if reactions else CommandLoop(log.store, CATALOG, reactions=False)
    while lives:
        chosen = given.sample(lives, min(len(lives), given.randint(1, 3)))
        await asyncio.gather(*(commands.execute(request_of(), life.pop(0)) for life in chosen))
        lives = [life for life in lives if life]
