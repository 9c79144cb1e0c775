"""An engine in memory that runs, and a worker for it."""

from collections.abc import AsyncIterator

import pytest

from tests.kit.engine import Engine, PlayedWorker


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
