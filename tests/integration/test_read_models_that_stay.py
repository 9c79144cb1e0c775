"""A read model for which the log has nothing stays where it is. It loses and repeats nothing, and nobody waits for it in vain."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from application.engine.ports.checkpoints import LostOwnership
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from domain.kernel import RecordedEvent
from domain.tenants import DEFAULT_TENANT_ID
from projections.engine.positions import Positions
from projections.engine.runner import ProjectionRunner
from projections.kernel import Connection, Projection
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import eventually, issue_key, new_id, running
from tests.integration.test_projections import checkpoints_of, working
from tests.kit.memory import MemoryPositionCalls

NEVER_S = 3_600.0


def noting(name: str) -> Projection:
    """A read model of the events of one topic. An event that it took twice is there twice."""

    async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        rows = [event.position for event in batch]
        await connection.execute("INSERT INTO noted SELECT %s, * FROM unnest(%s::bigint[])", (name, rows))

    return Projection(name, frozenset({f"thing.{name}"}), ("noted",), apply)


GROUP = tuple(map(noting, "abc"))
TABLE = "CREATE TABLE noted (name text, position bigint)"


async def happen(log: Log, *names: str) -> int:
    """Appends an event of each topic. Returns the position of the last one."""
    for name in names:
        stream = new_id()
        append = StreamAppend(stream, stream, 0, (NewEvent(f"thing.{name}", 1, b"{}"),))
        await log.store.append(one_command(DEFAULT_TENANT_ID, new_id(), (append,), "{}"))
    return await log.feed.head()


async def noted(log: Log) -> list[tuple[str, int]]:
    return await log.rows("SELECT name, position FROM noted ORDER BY position")


def at(log: Log, **positions: int) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return await checkpoints_of(log) == positions

    return there


async def test_only_what_has_an_event_moves_and_who_is_asked_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.engine.runner.STAY_S", NEVER_S)
    calls = MemoryPositionCalls()
    async with log_on(database_url) as log:
        await log.rows(TABLE)
        positions = Positions(log.database, calls)
        runner = ProjectionRunner(GROUP, log.database, log, calls)
        async with working(runner):
            await happen(log, "a")
            await eventually(at(log, a=1, b=0, c=0), "the read model that has an event")
            await happen(log, "b")
            await eventually(at(log, a=1, b=2, c=0), "the other one")
            await happen(log, "x")
            await positions.until("c", 3, 60)
            assert await checkpoints_of(log) == {"a": 1, "b": 2, "c": 3}, "nothing was its own, and it was asked for"
            await positions.until("a", 2, 60)
            assert await checkpoints_of(log) == {"a": 3, "b": 2, "c": 3}, "it was asked for long after it had read the event"
            await eventually(lambda: _passed(runner, 3), "the batch of the event that is nobody's")
        assert await checkpoints_of(log) == {"a": 3, "b": 3, "c": 3}, "a runner that is stopped leaves nothing to be read again"
        await positions.close()
        assert await noted(log) == [("a", 1), ("b", 2)]


async def test_those_that_stay_move_after_a_while_and_then_all_is_silent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.engine.runner.STAY_S", 0.1)
    async with log_on(database_url) as log:
        await log.rows(TABLE)
        runner = ProjectionRunner(GROUP, log.database, log, MemoryPositionCalls())
        async with working(runner):
            await happen(log, *"axxb")
            await eventually(at(log, a=4, b=4, c=4), "all read models at the head")
            await eventually(lambda: _none(runner), "nothing that is due")
            moved = await log.rows("SELECT name, updated_at FROM checkpoint")
            await asyncio.sleep(0.3)
            assert await log.rows("SELECT name, updated_at FROM checkpoint") == moved


async def _passed(runner: ProjectionRunner, position: int) -> bool:
    return runner._stay.passed == position


async def _none(runner: ProjectionRunner) -> bool:
    return runner._stay.until is None


async def test_a_stay_is_bounded_by_events(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.engine.runner.STAY_S", NEVER_S)
    monkeypatch.setattr("application.engine.staying.STAY_EVENTS", 5)
    async with log_on(database_url) as log:
        await log.rows(TABLE)
        async with working(ProjectionRunner(GROUP, log.database, log, MemoryPositionCalls())):
            for head in range(1, 31):
                assert await happen(log, "a") == head
                await eventually(lambda head=head: _at_least(log, "a", head), "the read model with an event")  # type: ignore[misc]
                assert min((await checkpoints_of(log)).values()) >= head - 5


async def _at_least(log: Log, name: str, position: int) -> bool:
    return (await checkpoints_of(log)).get(name, 0) >= position


async def test_without_calls_each_batch_moves_all(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.engine.runner.STAY_S", NEVER_S)
    async with log_on(database_url) as log:
        await log.rows(TABLE)
        async with working(ProjectionRunner(GROUP, log.database, log)):
            await happen(log, "x")
            await eventually(at(log, a=1, b=1, c=1), "all read models at the head")


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_stays_moves_and_dies_each_event_takes_effect_once(database_url: str, seed: int) -> None:
    """Random events in random batches, some read models asked for, and owners that die between a stay and a move."""
    given = random.Random(seed)
    calls = MemoryPositionCalls()
    async with log_on(database_url) as log:
        await log.rows(TABLE)
        await happen(log, *given.choices("abcxy", weights=(6, 3, 1, 8, 8), k=80))
        events = await log.feed.read(after=0, limit=1_000)
        runner, read, owners = ProjectionRunner(GROUP, log.database, log, calls), 0, 1
        await runner._take()
        while read < len(events):
            batch = events[read : read + given.randint(1, 6)]
            early = given.random() < 0.3
            await runner.handle(batch, set(given.choices("abc", k=2)) if early else None)
            if not early:
                read += len(batch)
            if given.random() < 0.2:
                await runner._catch_up(given.choices("abc", k=given.randint(1, 3)))
            if given.random() < 0.25:
                before, runner = runner, ProjectionRunner(GROUP, log.database, log, calls)
                await runner._take()
                owners, read = owners + 1, runner.position
                with pytest.raises(LostOwnership):  # one that only seems dead changes nothing
                    await before.handle(events[read:], "abc")
            stored = await checkpoints_of(log)
            assert await noted(log) == [
                (name, e.position) for e in events for name in "abc" if e.topic == f"thing.{name}" and e.position <= stored[name]
            ], "rows are those of the checkpoints"
        assert owners > 3
        await runner._catch_up("abc")
        assert set((await checkpoints_of(log)).values()) == {len(events)}


async def test_lags_are_true_although_read_models_stay(database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks behind who has nothing to do: the report and the list of read models ask first."""
    monkeypatch.setattr("projections.engine.runner.STAY_S", NEVER_S)
    async with running(database_url, nats_url) as system:
        await issue_key(system)

        async def lags_of_the_report() -> set[int]:
            report = (await system.http.get("/health/ready")).json()
            return {consumer["lag"] for consumer in report["consumers"].values()}

        async def lags_of_the_list() -> set[int]:
            return {one["lag"] for one in (await system.http.get("/v1/projections")).json()["data"]}

        for lags in (lags_of_the_report, lags_of_the_list):
            for number in range(3):
                await system.http.post("/v1/projects", json={"name": f"{lags.__name__}{number}"})
            await eventually(lambda lags=lags: _no_lag(lags), "no lag")  # type: ignore[misc]


async def _no_lag(lags: Callable[[], Awaitable[set[int]]]) -> bool:
    return await lags() == {0}
