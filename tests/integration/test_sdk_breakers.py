"""The page that tells how to stop calling a service that is down, run by a worker of the SDK."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pages import block
from tidelog import Client
from tidelog.models import Run

PAGE = "docs/how-to/stop-calling-a-service-that-is-down.md"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


async def test_the_page_says_what_happens(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(block(PAGE, "weather"))
    down = tmp_path / "service-is-down"

    async def forecast() -> Run:
        return await end_of(client, (await client.start_run(agent="forecaster", input="Bergen")).run_id, 40)

    async with worker_process(server.url, tmp_path):
        assert (await forecast()).result == "Bergen: sun"
        down.touch()
        for _ in range(3):
            run = await forecast()
            [call] = run.steps[0].calls
            assert (run.result, call.tool, call.fallback) == ("Bergen: rain, as yesterday", "weather.now", "weather.cached")

        async def opened() -> bool:
            return (await client.breaker("weather.now")).because in ("failures", "probe")

        await eventually(opened, "the breaker opened")
        assert (await forecast()).result == "Bergen: rain, as yesterday"
        down.unlink()

        async def sun() -> bool:
            return (await forecast()).result == "Bergen: sun"

        await eventually(sun, "a call that is tried")

        async def closed() -> bool:
            return (await client.breaker("weather.now")).state == "closed"

        await eventually(closed, "the breaker closed")
        await client.force_breaker("weather.now", "open", reason="they asked us to stop until Monday")
        assert (await forecast()).result == "Bergen: rain, as yesterday"
