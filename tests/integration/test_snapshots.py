"""Snapshots on a real log: fewer events are read, and a snapshot with any content cannot make a state wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
import pytest

from adapters.postgres.log.event_store import LAST_POSITION, READ_PAGE_SQL, READ_STREAM_SQL, PostgresEventStore
from adapters.postgres.log.snapshots import READ_SQL, PostgresSnapshots
from adapters.postgres.pool import Pool, open_pool
from application.catalog import CATALOG
from application.engine.commands.cache import Loaded
from application.engine.commands.loop import CommandLoop
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.state_models import model_of
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.ports.snapshots import Snapshot
from domain import agent_runs, context, invocations, runs
from domain.failures import Retry
from domain.kernel import Decider, RecordedEvent
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID as TENANT
from tests.integration.system_kit import eventually, new_id, request_of, stopped
from tests.pace import in_time


class CountingSnapshots(PostgresSnapshots):
    """Records the number of events that each load read."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.loads: list[tuple[int | None, int]] = []
        """Version of the snapshot, and number of events after it."""
        self.refused = asyncio.Event()

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        try:
            await super().save(snapshots)
        except Exception:
            self.refused.set()
            raise

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, **options: Any) -> tuple[Snapshot | None, list[RecordedEvent]]:
        found, newer = await super().read_stream(tenant_id, stream_id, **options)
        self.loads.append((found and found.version, len(newer)))
        return found, newer


class CountingStore(PostgresEventStore):
    """Records the version after which events were read, and the number of events."""

    reads: list[tuple[int, int]]

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, *, after_version: int = 0, **options: Any) -> list[RecordedEvent]:
        events = await super().read_stream(tenant_id, stream_id, after_version=after_version, **options)
        self.reads.append((after_version, len(events)))
        return events


@dataclass
class Process:
    """A command loop with a cache of its own, as in a process of its own."""

    loop: CommandLoop
    store: CountingStore
    snapshots: CountingSnapshots
    pool: Pool

    async def load(self, stream_id: UUID, decider: Decider[Any] = context.DECIDER) -> Loaded:
        return await self.loop.load(decider, TENANT, stream_id)


@asynccontextmanager
async def process(database_url: str, *, every: int = 5, **limits: float) -> AsyncIterator[Process]:
    """`every=0`: no snapshots."""
    pool = await open_pool(database_url, role="test", max_size=4)
    store, stored = CountingStore(database_url, pool), CountingSnapshots(pool)
    store.reads = []
    await store.start()
    snapshotter = Snapshotter(stored, CATALOG.registry, every=every, **limits) if every else None
    task = asyncio.create_task(snapshotter.run()) if snapshotter else None
    try:
        yield Process(CommandLoop(store, CATALOG, snapshots=snapshotter), store, stored, pool)
    finally:
        if task is not None:
            await stopped(task)
        await store.close()
        await pool.close()


async def sql(database_url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        cursor = await connection.execute(statement.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def versions(database_url: str, stream_id: UUID) -> list[int]:
    rows = await sql(database_url, "SELECT version FROM snapshot WHERE stream_id = %s ORDER BY version", stream_id)
    return [row[0] for row in rows]


async def set_values(one: Process, stream_id: UUID, values: Sequence[int]) -> None:
    for value in values:
        command = context.SetContextValue(
            context_id=stream_id, run_id=stream_id, agent_run_id=stream_id, name=f"n{value % 7}", value={"n": value}
        )
        await one.loop.execute(request_of(), command)


async def stored(database_url: str, stream_id: UUID, *expected: int) -> None:
    async def all_there() -> bool:
        return await versions(database_url, stream_id) == list(expected)

    await eventually(all_there, f"snapshots {expected}")


async def test_a_long_stream_is_read_from_its_newest_snapshot(database_url: str) -> None:
    stream = new_id()
    async with process(database_url) as writer:
        for values, kept in ((range(6), [5]), (range(6, 11), [5, 10]), (range(11, 17), [10, 15])):
            await set_values(writer, stream, values)
            await stored(database_url, stream, *kept)
        async with process(database_url) as cold, process(database_url, every=0) as plain:
            loaded, full = await cold.load(stream), await plain.load(stream)
            assert cold.snapshots.loads == [(15, 2)]
            assert cold.store.reads == [], "one round trip"
            assert plain.store.reads == [(0, 17)]
            assert (loaded.state, loaded.version, loaded.position) == (full.state, 17, 17)

            await set_values(writer, stream, [17, 18])
            assert (await cold.load(stream)).state == (await writer.load(stream)).state
            assert cold.snapshots.loads == [(15, 2)]
            assert cold.store.reads == [(17, 2)], "what is cached is refreshed by the newer events only"


async def test_cache_is_refreshed_by_newer_events_on_every_path(database_url: str) -> None:
    """A stale cache at a load, at a conflict and at a refusal, and a command that was recorded before."""
    stream, run_id = new_id(), new_id()
    async with process(database_url) as here, process(database_url, every=0) as there:
        await set_values(here, stream, range(3))
        await set_values(there, stream, [3])
        here.store.reads.clear()
        await set_values(here, stream, [4])
        assert here.store.reads == [(3, 1)], "after the conflict"

        plan = runs.sequential(("alpha",))
        await here.loop.execute(request_of(), runs.StartRun(run_id=run_id, project_id=new_id(), plan=plan))
        cancel = request_of()
        await there.loop.execute(cancel, runs.CancelRun(run_id=run_id))
        here.store.reads.clear()
        done = runs.CompleteStep(run_id=run_id, step="alpha", agent_run_id=runs.agent_run_id_of(run_id, "alpha"))
        assert (await here.loop.execute(request_of(), done)).events == ()
        again = await here.loop.execute(cancel, runs.CancelRun(run_id=run_id))
        assert again.versions == {run_id: 3}
        assert here.store.reads[0] == (2, 1), "its cache would have completed the step"
        assert all(read == (3, 0) for read in here.store.reads[1:])


async def test_position_of_a_snapshot_is_that_of_its_own_stream(database_url: str) -> None:
    """An append over two streams ends behind the first one's last event."""
    agent_run_id, run_id = new_id(), new_id()
    invocation_id = agent_runs.invocation_id_of(agent_run_id, "k")
    async with process(database_url, every=3) as one:
        request = agent_runs.RequestAgentRun(agent_run_id=agent_run_id, run_id=run_id, step="s", agent="a")
        await one.loop.execute(request_of(), request)
        claim = agent_runs.ClaimAgentRun(agent_run_id=agent_run_id, worker_id="w", dispatch=1)
        await one.loop.execute(request_of(), claim)
        outcome = await one.loop.execute(
            request_of(),
            agent_runs.StartCall(agent_run_id=agent_run_id, attempt=1, key="k", tool="t"),
            invocations.RequestInvocation(
                invocation_id=invocation_id, run_id=run_id, agent_run_id=agent_run_id, key="k", tool="t",
                idempotent=True, timeout_s=1, retry=Retry(),
            ),
        )  # fmt: skip
        assert outcome.position == 4
        await stored(database_url, agent_run_id, 3)
        async with process(database_url, every=3) as cold:
            loaded = await cold.load(agent_run_id, agent_runs.DECIDER)
            assert cold.snapshots.loads == [(3, 0)]
            assert (loaded.version, loaded.position) == (3, 3)


@dataclass(frozen=True)
class NextContext:
    """The state of a release that counts the writes of values."""

    entries: dict[str, context.ContextEntry] = field(default_factory=dict)
    count: int = 0


def next_evolve(state: NextContext, event: context.ContextValueSet) -> NextContext:
    return NextContext({**state.entries, event.name: context.ContextEntry(event.value, event.value_version)}, state.count + 1)


async def test_another_model_reads_the_events_and_leaves_its_own_snapshot(database_url: str) -> None:
    stream = new_id()
    next_release: Decider[Any] = Decider("context", NextContext, context.decide, next_evolve)
    async with process(database_url) as writer:
        await set_values(writer, stream, range(6))
        await stored(database_url, stream, 5)
    async with process(database_url) as changed, process(database_url) as old:
        loaded = await changed.load(stream, next_release)
        assert changed.snapshots.loads == [(None, 6)]
        assert loaded.state.count == 6
        await stored(database_url, stream, 5, 6)
        assert dict((await old.load(stream)).state.entries) == dict(loaded.state.entries)
        assert old.snapshots.loads == [(5, 1)], "releases side by side take each their own"
    async with process(database_url) as again:
        assert (await again.load(stream, next_release)).state == loaded.state
        assert again.snapshots.loads == [(6, 0)]


DAMAGE = {
    "cut off": "state = substring(state FOR 20)",
    "another form": "state = '{\"entries\": 5}'",
    "ahead of the stream": "version = 50, position = 50",
    "of another history": "position = position - 1",
    "of another tenant": "tenant_id = gen_random_uuid()",
    "of another model": "model = 'other'",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_unusable_snapshot_is_ignored(database_url: str, damage: str) -> None:
    stream = new_id()
    async with process(database_url) as writer:
        await set_values(writer, stream, range(7))
        await stored(database_url, stream, 5)
        known = await writer.load(stream)
    await sql(database_url, f"UPDATE snapshot SET {DAMAGE[damage]}")
    async with process(database_url, every=2) as cold:
        loaded = await cold.load(stream)
        assert (loaded.state, loaded.version, loaded.position) == (known.state, 7, 7)
        assert cold.snapshots.loads[-1] == (None, 7)
        await set_values(cold, stream, [7])
        assert (await cold.load(stream)).version == 8


async def test_a_past_state_starts_from_a_snapshot_of_before(database_url: str) -> None:
    stream, model = new_id(), model_of(REGISTRY, context.DECIDER)
    async with process(database_url) as one:
        await set_values(one, stream, range(11))
        await stored(database_url, stream, 5, 10)
        for until, base in ((11, 10), (10, 10), (9, 5), (5, 5), (4, None)):
            found, newer = await one.snapshots.read_stream(
                TENANT, stream, slice_name="context", model=model.digest, until_position=until
            )
            assert (found and found.version) == base
            assert [event.version for event in newer] == list(range((base or 0) + 1, until + 1))
            assert await one.snapshots.read_stream(new_id(), stream, slice_name="context", model=model.digest) == (None, [])


async def test_snapshots_that_cannot_be_stored_harm_nobody(database_url: str) -> None:
    refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$"
    await sql(database_url, refuse)
    await sql(database_url, "CREATE TRIGGER refuse BEFORE INSERT ON snapshot FOR EACH ROW EXECUTE FUNCTION refuse()")
    stream = new_id()
    async with process(database_url, pause_s=0.01) as one:
        await set_values(one, stream, range(6))
        await in_time(one.snapshots.refused.wait(), 10)
        await sql(database_url, "DROP TRIGGER refuse ON snapshot")
        await set_values(one, stream, range(6, 12))
        await stored(database_url, stream, 10)
        assert (await one.load(stream)).version == 12


async def test_what_waits_is_bounded(database_url: str) -> None:
    async with process(database_url, every=0) as one:
        snapshotter = Snapshotter(one.snapshots, CATALOG.registry, every=1, max_waiting=3)  # no process stores snapshots yet
        streams = [new_id() for _ in range(5)]
        for stream in streams:
            await set_values(one, stream, [1])
            state = (await one.load(stream)).state
            snapshotter.offer(context.DECIDER, TENANT, stream, since=0, state=state, version=1, position=1, size=0)
        task = asyncio.create_task(snapshotter.run())
        await stored(database_url, streams[2], 1)
        assert [await versions(database_url, stream) for stream in streams] == [[1], [1], [1], [], []]
        await stopped(task)


async def test_a_stream_is_found_alone_before_the_tables_were_analyzed(database_url: str) -> None:
    """Without statistics the planner took the index of all events of the tenant for cheap, and read it, too."""
    await sql(database_url, "ALTER TABLE event SET (autovacuum_enabled = false)")
    async with process(database_url, every=0) as one:
        streams = [new_id() for _ in range(3)]
        for stream in streams:
            appends = [
                StreamAppend(other, other, 0, (NewEvent("thing.happened", 1, b"{}"),)) for other in (new_id() for _ in range(2_000))
            ]
            appends.append(StreamAppend(stream, stream, 0, (NewEvent("thing.happened", 1, b"{}"),) * 3))
            await one.store.append(one_command(TENANT, new_id(), tuple(appends), "{}"))
        assert len(await one.store.read_stream(TENANT, streams[0])) == 3
        async with one.pool.connection() as connection:
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            place = {"stream": streams[1], "tenant": TENANT, "slice": "s", "model": "m", "until": LAST_POSITION, "limit": 1_000}
            for statement, values in (
                (READ_SQL, place),
                (READ_STREAM_SQL, (streams[1], 0, 1_000, TENANT, LAST_POSITION, streams[1], TENANT)),
                (READ_PAGE_SQL, (streams[1], 0, 1_000, TENANT, streams[1], TENANT)),
            ):
                explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
                [[plan]] = await (await connection.execute(explain.encode(), values)).fetchall()
                assert plan[0]["Plan"]["Actual Rows"] == 3
                assert plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"] <= 12, statement
