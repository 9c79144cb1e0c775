"""A whole server in the process of the tests: all roles on real Postgres and NATS, and a client with a valid key."""

from collections.abc import AsyncIterator

import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.durable_kit import durable_server
from tests.integration.nats_kit import Log, open_log
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, empty_work_queue, fresh_database, issue_key, running


@pytest_asyncio.fixture
async def system(database_url: str, nats_url: str) -> AsyncIterator[System]:
    """All roles, set up, with a client that holds a valid key. The log has only the events of the set-up."""
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(services: EmbeddedServices) -> AsyncIterator[System]:
    """The same system for all tests of a module, for tests that may find other events in the log."""
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as database_url, running(database_url, services.nats_url) as system:
        await issue_key(system)
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def durable() -> AsyncIterator[EmbeddedServices]:
    """A PostgreSQL server of the module's own that flushes."""
    async with durable_server() as server:
        yield server


@pytest_asyncio.fixture
async def worker(system: System) -> PlayedWorker:
    """A worker that has registered the agents `alpha`, `beta`, `gamma` and the tools `add` (idempotent) and `mail` (not)."""
    worker = system.worker()
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
    await worker.register(
        "alpha", "beta", "gamma", tools=[{"name": "add", "parameters": parameters}, {"name": "mail", "idempotent": False}]
    )
    return worker


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    """A log that the test fills, without a server."""
    async with open_log(database_url) as log:
        yield log
