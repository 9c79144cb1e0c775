"""NATS or PostgreSQL is away for longer than the wait for a connection. After its return every role works again.

The times after which a connection is given up are tenths of seconds here. tests/chaos/test_outages.py uses the real times. An
outage is mostly a wait, so the systems of all cases wait side by side.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest

from adapters.embedded import EmbeddedServices
from domain.tenants import DEFAULT_TENANT_ID
from tests.chaos.faults_kit import Callers
from tests.integration.nats_kit import running_nats
from tests.integration.outage_kit import all_read, caught_up
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, fresh_database, issue_key, running
from tests.integration.wire_kit import wired

AWAY_S = 3.0
BACK_S = 30.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.nats.connection._WATCH_INTERVAL", 0.1)
    monkeypatch.setattr("adapters.nats.connection._GIVE_UP_AFTER", 0.6)
    monkeypatch.setattr("adapters.postgres.pool.RECONNECT_FOR", 0.5)


@asynccontextmanager
async def load(system: System, busy: bool) -> AsyncIterator[None]:
    """Commands and runs all the time, or no load at all."""
    stop = asyncio.Event()
    loading = asyncio.create_task(Callers(system).until(stop), name="load") if busy else None
    try:
        yield
    finally:
        stop.set()
        if loading is not None:
            await loading


async def works(system: System, worker: PlayedWorker) -> None:
    """Takes a run from its start through the sagas and the queue to its end."""
    run_id = await system.start("beta")
    await (await worker.next("beta")).complete()

    async def over() -> bool:
        return (await system.run(run_id))["status"] == "completed"

    await eventually(over, "the end of a run", BACK_S)


@pytest.mark.usefixtures("impatient")
async def test_every_role_is_back_after_an_outage(services: EmbeddedServices, tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as outages:
        for away, busy in product(("nats", "postgres"), (True, False)):
            folder = tmp_path / f"{away}-{'busy' if busy else 'idle'}"
            folder.mkdir()
            outages.create_task(back_after_an_outage(services, folder, away, busy=busy), name=folder.name)


async def back_after_an_outage(services: EmbeddedServices, folder: Path, away: str, *, busy: bool) -> None:
    async with (
        fresh_database(services) as database_url,
        running_nats(folder) as nats,
        wired(database_url) as (wire, url),
        running(url, nats.url, fanout=True) as system,
    ):
        await issue_key(system)
        worker = system.worker()
        await worker.register("alpha", "beta")
        await works(system, worker)
        with system.container.live.watch(DEFAULT_TENANT_ID):  # a client for which the api reads the log
            await eventually(lambda: all_read(nats.url, 1), "all readers at the stream")
            async with load(system, busy):
                await asyncio.sleep(0.5)
                await (nats.kill() if away == "nats" else wire.cut())
                await asyncio.sleep(AWAY_S)
                await (nats.start() if away == "nats" else wire.mend())
                position = (await system.sql("SELECT position FROM log_head"))[0][0]
                await eventually(lambda: caught_up(system.http, position), "all that copies and follows the log", BACK_S)
                await eventually(lambda: all_read(nats.url, 1), "all readers at the stream", BACK_S)
                await works(system, worker)
        for name, task in system.tasks.items():
            assert not task.done(), f"{name} ended: {task}"
