"""Fixtures that the tests of faults share."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.system_kit import System, empty_work_queue, issue_key, running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens time-outs of seconds to tenths of seconds: the tests check that the time-outs exist, not their length."""
    for name, seconds in {
        "adapters.nats.log.publisher.ACK_TIMEOUT": 0.4,
        "adapters.nats.log.pull.HEARTBEAT": 0.3,
        "adapters.nats.log.pull.SILENCE_LIMIT": 0.7,
        "adapters.nats.connection._WATCH_INTERVAL": 0.2,
        "adapters.nats.connection._WATCH_TIMEOUT": 0.4,
        "adapters.nats.connection.REQUEST_TIMEOUT": 1.0,
        "adapters.nats.log.relay._LONGEST_PAUSE": 0.3,
        "adapters.nats.log.relay._LONGEST_WAIT": 0.4,
    }.items():
        monkeypatch.setattr(name, seconds)


@pytest_asyncio.fixture
async def system(database_url: str, nats_url: str) -> AsyncIterator[System]:
    """A server with all roles, set up, and a client with a valid key."""
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        await system.worker().register("alpha")
        yield system
