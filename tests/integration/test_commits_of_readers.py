"""Readers do not wait for the disk: PostgreSQL is killed with all its processes after readers have moved, and loses the moves.

Nothing is ever ahead of the log, a read model and its checkpoint are never apart, and what was lost is read from the log again.
"""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from application.engine.ports.checkpoints import SteppedBack
from domain.errors import Unavailable
from projections.engine import checkpoints
from projections.engine.runner import ProjectionRunner
from projections.kernel import Projection
from projections.registry import PROJECTIONS
from tests.integration.durable_kit import crash, database_on, unflushed
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import eventually
from tests.integration.test_projections import SEEN, working

GROUP = (SEEN, *PROJECTIONS)
FLUSHED = "SELECT pg_current_wal_flush_lsn() = pg_current_wal_insert_lsn()"


@pytest_asyncio.fixture
async def log(durable: EmbeddedServices) -> AsyncIterator[Log]:
    url = await database_on(durable, synchronous_commit="on")
    async with unflushed(durable), log_on(url) as log:
        await log.rows("CREATE TABLE seen (position bigint, name text)")
        yield log


async def crashed(durable: EmbeddedServices, log: Log) -> None:
    """Kills the database, starts it again, and returns when it has recovered."""
    crash(durable)
    await durable.restart("postgres")

    async def there() -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(log.url) as connection:
                await connection.execute("SELECT 1")
            await log.feed.head()  # the pool connects again, too
        except (psycopg.OperationalError, Unavailable):
            return False
        return True

    await eventually(there, "the database after its crash")


async def position_of(log: Log, name: str) -> int:
    rows = await log.rows("SELECT position FROM checkpoint WHERE name = %s", name)
    return int(rows[0][0]) if rows else 0


async def together(log: Log) -> dict[str, int]:
    """Positions by read model, after a check that the rows are those of exactly these positions, and that the log has them."""
    head = await log.feed.head()
    found = dict(await log.rows("SELECT name, position FROM checkpoint"))
    assert all(position <= head for position in found.values()), (found, head)
    events = await log.feed.read(after=0, limit=10_000)
    seen = [(e.position,) for e in events if e.topic == "project.created" and e.position <= found["seen"]]
    assert await log.rows("SELECT position FROM seen ORDER BY position") == seen
    begun = sum(e.topic == "run.started" and e.position <= found["activity"] for e in events)
    [(started,)] = await log.rows("SELECT coalesce(sum(started), 0)::int FROM activity_total WHERE kind = 'run'")
    assert started == begun
    shown = {e.root_id for e in events if e.topic == "run.started" and e.position <= found["runs"]}
    assert {row[0] for row in await log.rows("SELECT run_id FROM run")} == shown
    return found


async def until_head(log: Log, *projections: Projection) -> None:
    head = await log.feed.head()

    async def there() -> bool:
        return {await position_of(log, projection.name) for projection in projections} == {head}

    await eventually(there, "read models at the head of the log")


async def test_what_a_crash_takes_from_read_models_is_read_again(durable: EmbeddedServices, log: Log) -> None:
    await log.create("a")
    await log.run()
    runner = ProjectionRunner(GROUP, log.database, log)
    async with working(runner) as task:
        await until_head(log, *GROUP)
        head = runner.position
        assert head == await log.feed.head()
        assert await log.rows(FLUSHED) == [(False,)], "nobody has waited for the disk"
        await crashed(durable, log)
        assert await log.feed.head() == head, "the log has waited"
        found = await together(log)
        assert max(found.values()) < head, "nothing was lost, so nothing is tried"
        await log.create("b")
        await asyncio.wait({task}, timeout=60)
        assert isinstance(task.exception(), SteppedBack), "a runner that stepped back reads from there again"
    async with working(ProjectionRunner(GROUP, log.database, log)):
        await until_head(log, *GROUP)
    assert set((await together(log)).values()) == {await log.feed.head()}


async def test_a_runner_in_doubt_sees_that_its_checkpoint_stepped_back(durable: EmbeddedServices, log: Log) -> None:
    """The connection breaks with the database. A runner that went on from the older position would leave out what was lost."""
    await log.create(*"abc")
    events = await log.feed.read(after=0, limit=10)
    runner = ProjectionRunner((SEEN,), log.database, log)
    await runner._take()
    await runner.handle(events[:2])
    await crashed(durable, log)
    runner._in_doubt = True
    with pytest.raises(SteppedBack, match="lost the last moves of seen"):
        await runner.handle(events[2:])
    assert await log.rows("SELECT * FROM seen") == []


async def test_a_parked_event_waits_for_the_disk_and_so_does_what_it_holds_back(durable: EmbeddedServices, log: Log) -> None:
    await log.create("a", "bad", "c")
    async with working(ProjectionRunner((SEEN,), log.database, log)):
        await eventually(lambda: _parked(log, 1), "the parked event")
    await crashed(durable, log)
    assert await _parked(log, 1)
    assert await position_of(log, "seen") >= 2
    assert (await log.rows("SELECT position FROM seen"))[:1] == [(1,)]


async def _parked(log: Log, count: int) -> bool:
    return len(await log.rows("SELECT 1 FROM parked_event WHERE consumer = 'seen'")) == count


async def test_a_saga_checkpoint_that_a_crash_took_back_is_noticed(durable: EmbeddedServices, log: Log) -> None:
    port = checkpoints.PostgresCheckpoints(log.database)
    known = await port.take(["sagas:0"])
    moved = await port.advance(known, 5)
    assert await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    with pytest.raises(SteppedBack):
        await port.advance(moved, 7)
    again = await port.take(["sagas:0"])
    assert again["sagas:0"].position == 0
