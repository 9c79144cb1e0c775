"""The worker's own tasks and its connection: each that ends unexpectedly is made again, and work goes on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, outcome, running, serving
from tests.integration.system_kit import empty_work_queue, fresh_database
from tidelog import Agent, Client, Context


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, services.worker_nats_url, folder) as server,
    ):
        yield server


class Echo(Agent):
    async def execute(self, ctx: Context) -> Any:
        return ctx.input


async def works(client: Client) -> None:
    assert (await outcome(client, agent="echo", input="again")).result == "again"


async def test_a_puller_that_ended_is_made_again(server: Server) -> None:
    """The task is cancelled from outside. Without a new task no work would ever come again, and the worker would wait for ever."""
    async with Client(server.url, KEY) as client, running(server.url, Echo):
        await works(client)
        [puller] = [task for task in asyncio.all_tasks() if task.get_name() == "pull agent echo"]
        puller.cancel()
        await works(client)


@pytest.mark.parametrize("how", ["it stopped to read", "it was closed"])
async def test_a_connection_that_died_is_replaced(server: Server, how: str) -> None:
    async with Client(server.url, KEY) as client, running(server.url, Echo) as worker:
        await works(client)
        connection = worker._nats
        assert connection is not None
        if how == "it was closed":
            await connection.close()
        else:
            parser = connection._ps

            async def breaks_once(data: bytes) -> None:
                del parser.parse
                raise ValueError("a defect of the client")

            parser.parse = breaks_once
            await connection._send_ping()
        await works(client)


async def test_a_session_that_was_cancelled_ends_the_worker(server: Server) -> None:
    """The worker's process ends then, and is started again."""
    with pytest.raises(RuntimeError, match="session was cancelled"):
        async with running(server.url, Echo):
            [session] = [task for task in asyncio.all_tasks() if task.get_name() == "session"]
            session.cancel()
            await asyncio.wait({session})
