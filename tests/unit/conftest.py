"""An engine in memory that runs, and a worker for it; a scripted server for the SDK's session."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.engine import Engine, PlayedWorker
from tests.kit.session_server import Heard, ScriptedServer, scripted
from tidelog.session import driver


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    async with engine.running():
        yield engine


@pytest.fixture
async def worker(engine: Engine) -> PlayedWorker:
    worker = engine.worker()
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    await worker.register(
        "alpha", "beta", "gamma", tools_={"add": {"parameters": parameters, "max_attempts": 3}, "mail": {"idempotent": False}}
    )
    return worker


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedServer]:
    """Sessions of the test come back to it after short pauses."""
    monkeypatch.setattr(driver, "SHORTEST_PAUSE_S", 0.001)
    monkeypatch.setattr(driver, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(driver, "LONGEST_PAUSE_S", 0.02)
    async with scripted() as server:
        yield server


@pytest.fixture
def heard() -> Heard:
    return Heard()
