"""PostgreSQL is killed with all its processes at random moments under readers that do not wait for the disk."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from projections.engine.runner import ProjectionRunner
from tests.chaos.faults_kit import rounds, seeded
from tests.integration.durable_kit import database_on, durable_server
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import eventually
from tests.integration.test_commits_of_readers import GROUP, crashed, together, until_head
from tests.integration.test_projections import working

pytestmark = pytest.mark.chaos


@pytest_asyncio.fixture
async def server() -> AsyncIterator[EmbeddedServices]:
    async with durable_server() as server:
        yield server


async def test_crashes_at_random_moments_leave_exact_rows(server: EmbeddedServices) -> None:
    chance, stepped_back = seeded(), 0
    async with log_on(await database_on(server, synchronous_commit="on")) as log:
        await log.rows("CREATE TABLE seen (position bigint, name text)")
        for number in range(rounds(4, 20)):
            runner = ProjectionRunner(GROUP, log.database, log)
            async with working(runner):
                writing = asyncio.create_task(_write(log, 3, f"p{number}"))
                if number % 2:  # what readers have moved since the last append is surely lost
                    await writing
                    await until_head(log, *GROUP)
                else:
                    await eventually(lambda runner=runner: _moved(runner), "the first moves")
                    await asyncio.sleep(chance.uniform(0, 0.2))
                reached = runner.position
                crashing = asyncio.create_task(crashed(server, log))
                await asyncio.wait({writing, crashing})
            await crashing
            found = await together(log)
            stepped_back += min(found.values()) < reached
        assert stepped_back > 0, "no commit was lost, so nothing was tried"
        async with working(ProjectionRunner(GROUP, log.database, log)):
            await until_head(log, *GROUP)
        assert set((await together(log)).values()) == {await log.feed.head()}


async def _write(log: Log, count: int, name: str) -> None:
    for one in range(count):
        await log.create(f"{name}-{one}")
        await log.run(steps=2)


async def _moved(runner: ProjectionRunner) -> bool:
    return runner.position > 0
