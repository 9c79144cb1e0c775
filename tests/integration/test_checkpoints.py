"""The three defences of a read model against applying an event twice, each tested without the other two."""

import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from application.engine.ports.checkpoints import LostOwnership
from projections.engine import checkpoints
from projections.engine.runner import ProjectionRunner
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import eventually
from tests.integration.test_projections import SEEN, LosesAnswers, working

EPOCH = "epoch = known_epoch"
POSITION = "(position = known_position OR (%(repeatable)s AND position = %(new)s))"
NAMES = [f"p{number}" for number in range(40)]


@pytest_asyncio.fixture
async def log(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Log]:
    for wait in ("LINGER_S", "PACE_S"):  # each page of the log is a transaction, whose answer may be lost
        monkeypatch.setattr(f"projections.engine.runner.{wait}", 0.0)
    async with log_on(database_url, page=7) as log:
        await log.rows("CREATE TABLE seen (position bigint, name text)")
        await log.create(*NAMES)
        yield log


def without(monkeypatch: pytest.MonkeyPatch, *conditions: str) -> None:
    """Removes conditions from the compare-and-set."""
    for condition in conditions:
        for name in ("ADVANCE", "ADVANCE_AT"):
            statement = getattr(checkpoints, name)
            assert condition in statement
            monkeypatch.setattr(checkpoints, name, statement.replace(condition, "true"))


class Trusting(ProjectionRunner):
    """A runner that does not read its checkpoint again after a lost answer, but goes on from the position that it assumes."""

    async def _look_again(self) -> None:
        self._in_doubt = False


async def exact(log: Log) -> None:
    assert await log.rows("SELECT position, name FROM seen ORDER BY position") == list(enumerate(NAMES, 1))


async def test_the_position_alone_keeps_rows_exact(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise: rows move only from their present position. A runner that assumes another position loses its place."""
    without(monkeypatch, EPOCH)
    database, lost = LosesAnswers(log.database, random.Random(1)), 0
    while await checkpoint(log) < len(NAMES):
        async with working(Trusting((SEEN,), database, log)) as task:

            async def over(task: object = task) -> bool:
                return task.done() or await checkpoint(log) == len(NAMES)  # type: ignore[attr-defined]

            await eventually(over, "the end of the log, or of the runner")
            if task.done():
                assert isinstance(task.exception(), LostOwnership), task
                lost += 1
    assert lost > 0, "no answer was lost, so nothing was tried"
    await exact(log)


async def test_the_position_alone_stops_the_slower_of_two_owners(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, EPOCH)
    events = await log.feed.read(after=0, limit=len(NAMES))
    slow, quick = (Trusting((SEEN,), log.database, log) for _ in range(2))
    for runner in (slow, quick):
        await runner._take()
    await quick.handle(events[:10])
    with pytest.raises(LostOwnership):
        await slow.handle(events[:5])
    await quick.handle(events[10:])
    await exact(log)


async def test_the_epoch_alone_stops_who_lost_its_place(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds also before the new owner has written anything, when the position shows no difference."""
    without(monkeypatch, POSITION)
    events = await log.feed.read(after=0, limit=len(NAMES))
    old, new = (Trusting((SEEN,), log.database, log) for _ in range(2))
    await old._take()
    await old.handle(events[:10])
    await new._take()
    with pytest.raises(LostOwnership):
        await old.handle(events[10:20])
    await new.handle(events[10:])
    await exact(log)


async def test_looking_again_alone_repeats_no_commit_whose_answer_was_lost(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner keeps its place, although the position alone would make it lose the place."""
    without(monkeypatch, EPOCH, POSITION)
    database = LosesAnswers(log.database, random.Random(1))
    async with working(ProjectionRunner((SEEN,), database, log)) as task:
        await log.until("seen")
        assert not task.done()
    assert database.lost > 0, "no answer was lost, so nothing was tried"
    await exact(log)


async def checkpoint(log: Log) -> int:
    rows = await log.rows("SELECT position FROM checkpoint WHERE name = 'seen'")
    return int(rows[0][0]) if rows else 0
