"""The saga loop by itself: a reaction is decided anew each time and still recorded once, at whatever moment the process dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from application.engine.ports.checkpoints import Checkpoint
from application.engine.sagas.manager import SagaManager
from projections.engine.checkpoints import PostgresCheckpoints
from tests.integration.saga_kit import Ledger, StoppingStore, ledger_on
from tests.integration.system_kit import eventually, stopped
from tests.kit.budget import TOTALS, Stops
from tests.pace import within

MOMENTS = ["before the append", "after the append", "before the checkpoint", "after the checkpoint"]


@pytest_asyncio.fixture
async def ledger(database_url: str, nats_url: str) -> AsyncIterator[Ledger]:
    async with ledger_on(database_url, nats_url) as ledger:
        yield ledger


@asynccontextmanager
async def working(manager: SagaManager) -> AsyncIterator[None]:
    """Runs a manager and kills it at the end: its open call is never answered."""
    task = asyncio.create_task(manager.run())
    try:
        yield
        assert not task.done(), task
    finally:
        await stopped(task)


async def test_the_whole_log_read_again_adds_nothing(ledger: Ledger) -> None:
    """The rules record each reaction as often as it is decided, so only the command id shows that a reaction was recorded."""
    projects = [await ledger.project() for _ in range(10)]
    async with working(ledger.manager()):
        head = await ledger.settled()
    assert head == len(projects) * (1 + len(TOTALS))
    for _ in range(2):
        await ledger.system.sql("UPDATE checkpoint SET position = 0 WHERE name LIKE 'sagas:%%'")
        async with working(ledger.manager()):
            assert await ledger.settled() == head
    for project in projects:
        assert await ledger.reserved(project) == TOTALS
    assert await ledger.system.sql("SELECT * FROM parked_event") == []


class StoppingCheckpoints(PostgresCheckpoints):
    def __init__(self, ledger: Ledger, stops: Stops) -> None:
        super().__init__(ledger.system.container.database)
        self._stops = stops

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        await self._stops.at("before the checkpoint")
        advanced = await super().advance(known, position)
        await self._stops.at("after the checkpoint")
        return advanced


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_process_that_dies_at_any_moment_leaves_each_reaction_once(ledger: Ledger, moment: str) -> None:
    """The process dies before the reaction, between reaction and checkpoint, or with an answer under way.

    Another process does the rest.
    """
    project, stops = await ledger.project(), Stops(moment)
    doomed = ledger.manager(store=StoppingStore(ledger.store, stops), checkpoints=StoppingCheckpoints(ledger, stops))
    async with working(doomed):
        async with within(15):
            await stops.reached.wait()
        done = await ledger.reserved(project)
        assert done == {"before the append": [], "after the append": TOTALS[:1]}.get(moment, TOTALS)
        if moment != "after the checkpoint":
            assert set(await ledger.checkpoints()) == {0}, "the checkpoint moves when all that it stands for is recorded"
    async with working(ledger.manager()):
        await ledger.settled()
        assert await ledger.reserved(project) == TOTALS
        later = await ledger.project()

        async def reacted() -> bool:
            return await ledger.reserved(later) == TOTALS

        await eventually(reacted, "reactions to what came later")
