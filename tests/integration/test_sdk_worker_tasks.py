"""The worker's connection is made again when it ends unexpectedly, and work goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, outcome, running, serving, until
from tests.integration.system_kit import empty_work_queue, fresh_database
from tidelog import Agent, Client, Context
from tidelog.session.driver import Driver
from tidelog.worker import Worker


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, folder) as server,
    ):
        yield server


class Echo(Agent):
    async def execute(self, ctx: Context) -> Any:
        return ctx.input


async def works(client: Client) -> None:
    assert (await outcome(client, agent="echo", input="again")).result == "again"


def driver_of(worker: Worker) -> Driver:
    assert worker._api.session is not None and worker._api.session._driver is not None
    return worker._api.session._driver


@pytest.mark.parametrize("how", ["it broke", "it said nonsense", "the server did not understand"])
async def test_a_connection_that_died_is_replaced(server: Server, how: str) -> None:
    async with Client(server.url, KEY) as client, running(server.url, Echo) as worker:
        await works(client)
        driver = driver_of(worker)
        talk = driver._current
        assert talk is not None
        if how == "it broke":
            driver._loop.call_soon_threadsafe(talk._link.abort)
        elif how == "it said nonsense":
            asyncio.run_coroutine_threadsafe(talk._give_up(4400, "nonsense"), driver._loop)
        else:
            asyncio.run_coroutine_threadsafe(talk._link.send(b"[{}]"), driver._loop)
        await until(lambda: driver._current not in (None, talk))
        await works(client)


async def test_a_session_whose_thread_ended_ends_the_worker(server: Server) -> None:
    """The worker's process ends then, and is started again."""
    with pytest.raises(RuntimeError, match="session ended by itself"):
        async with running(server.url, Echo) as worker:
            driver = driver_of(worker)

            def cancel_all() -> None:
                for task in asyncio.all_tasks(driver._loop):
                    task.cancel()

            driver._loop.call_soon_threadsafe(cancel_all)
            assert worker._api.session is not None
            await asyncio.wait({worker._api.session.ended})
