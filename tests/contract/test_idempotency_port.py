"""The contract of the port `IdempotencyKeys`, in memory and on PostgreSQL."""

from typing import Protocol

import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.pool import Pool
from application.engine.ports.idempotency import IdempotencyKeys
from tests.contract.conftest import MemoryLogSide, PostgresLogSide
from tests.kit.memory import MemoryIdempotencyKeys

DAY_S = 24 * 3_600


class KeySide(Protocol):
    keys: IdempotencyKeys

    async def begin(self) -> None:
        """A process of the release before takes a key for a request."""
        ...

    async def pass_time(self, seconds: float) -> None: ...


class MemorySide:
    def __init__(self, log: MemoryLogSide) -> None:
        self._clock = log.clock
        self.keys = MemoryIdempotencyKeys(log.log)

    async def begin(self) -> None:
        self.keys.begun[uuid7()] = self._clock.now()

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class PostgresSide:
    def __init__(self, log: PostgresLogSide, pool: Pool) -> None:
        self._sql = log.sql
        self.keys = PostgresIdempotencyKeys(pool)

    async def begin(self) -> None:
        statement = "INSERT INTO idempotency_key (key_id, tenant_id, body_sha256, token) VALUES (%s, %s, 'x', %s)"
        await self._sql(statement, uuid7(), uuid7(), uuid7())

    async def pass_time(self, seconds: float) -> None:
        await self._sql("UPDATE idempotency_key SET begun_at = begun_at - make_interval(secs => %s)", seconds)


@pytest.fixture
def memory_side(memory_log: MemoryLogSide) -> MemorySide:
    return MemorySide(memory_log)


@pytest.fixture
def postgres_side(postgres_log: PostgresLogSide, pool: Pool) -> PostgresSide:
    return PostgresSide(postgres_log, pool)


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> KeySide:
    found: KeySide = request.getfixturevalue(f"{request.param}_side")
    return found


async def test_keys_older_than_a_day_are_deleted(side: KeySide) -> None:
    for _ in range(3):
        await side.begin()
    await side.pass_time(DAY_S - 60)
    assert await side.keys.expire() == 0
    await side.begin()
    await side.pass_time(120)
    assert await side.keys.expire() == 3
    assert await side.keys.expire() == 0
