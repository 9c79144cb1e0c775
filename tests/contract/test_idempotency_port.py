"""The contract of the port `IdempotencyKeys`, in memory and on PostgreSQL."""

import asyncio
from typing import Protocol
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.pool import Pool
from application.engine.ports.idempotency import Begun, IdempotencyKeys, KeyInUse, StoredAnswer
from tests.contract.conftest import MemoryLogSide, PostgresLogSide
from tests.kit.memory import MemoryIdempotencyKeys

TENANT = uuid7()
BODY, OTHER_BODY = "a" * 64, "b" * 64
ANSWER = StoredAnswer(201, {"location": "/v1/runs/1", "etag": '"2: x"'}, b'{"a": "\xc3\xbc"}')
DAY_S = 24 * 3_600


class KeySide(Protocol):
    keys: IdempotencyKeys

    async def pass_time(self, seconds: float) -> None: ...


class MemorySide:
    def __init__(self, log: MemoryLogSide) -> None:
        self._clock = log.clock
        self.keys = MemoryIdempotencyKeys(log.log)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class PostgresSide:
    def __init__(self, log: PostgresLogSide, pool: Pool) -> None:
        self._sql = log.sql
        self.keys = PostgresIdempotencyKeys(pool)

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


async def begin(side: KeySide, key: UUID, command: UUID | None = None, body: str = BODY) -> Begun | KeyInUse:
    return await side.keys.begin(key, tenant_id=TENANT, body_sha256=body, command_id=command or uuid7())


async def test_a_new_key_is_taken_with_the_command_that_is_offered(side: KeySide) -> None:
    key, other, command = uuid7(), uuid7(), uuid7()
    assert await begin(side, key, command) == Begun(command)
    assert isinstance(await begin(side, other), Begun), "each key by itself"


async def test_while_the_first_is_running_the_key_is_in_use(side: KeySide) -> None:
    key = uuid7()
    await begin(side, key)
    for body in (BODY, OTHER_BODY):
        assert await begin(side, key, body=body) == KeyInUse(BODY, None)


async def test_the_answer_is_given_again_whole(side: KeySide) -> None:
    key = uuid7()
    await begin(side, key)
    await side.keys.finish(key, ANSWER)
    for body in (BODY, OTHER_BODY):
        assert await begin(side, key, body=body) == KeyInUse(BODY, ANSWER)
    await side.pass_time(DAY_S - 60)
    assert await begin(side, key) == KeyInUse(BODY, ANSWER)


async def test_an_answer_without_body_and_headers(side: KeySide) -> None:
    key = uuid7()
    await begin(side, key)
    await side.keys.finish(key, StoredAnswer(204, {}, b""))
    assert await begin(side, key) == KeyInUse(BODY, StoredAnswer(204, {}, b""))


async def test_of_many_at_once_one_takes_the_key(side: KeySide) -> None:
    key = uuid7()
    taken = await asyncio.gather(*(begin(side, key) for _ in range(8)))
    assert sum(isinstance(each, Begun) for each in taken) == 1


async def test_after_a_refusal_the_key_is_new(side: KeySide) -> None:
    key, command = uuid7(), uuid7()
    await begin(side, key)
    await side.keys.forget(key)
    assert await begin(side, key, command, OTHER_BODY) == Begun(command)


async def test_what_has_an_answer_is_neither_forgotten_nor_released(side: KeySide) -> None:
    key = uuid7()
    await begin(side, key)
    await side.keys.finish(key, ANSWER)
    await side.keys.forget(key)
    await side.keys.release(key)
    assert await begin(side, key) == KeyInUse(BODY, ANSWER)


async def test_a_failed_request_is_repeated_at_once_as_the_same_command(side: KeySide) -> None:
    key, command = uuid7(), uuid7()
    await begin(side, key, command)
    await side.keys.release(key)
    assert await begin(side, key, body=OTHER_BODY) == KeyInUse(BODY, None), "only by the same request"
    assert await begin(side, key) == Begun(command)
    assert await begin(side, key) == KeyInUse(BODY, None), "the repeat is running now"


async def test_a_request_that_is_silent_for_half_a_minute_is_dead(side: KeySide) -> None:
    key, command = uuid7(), uuid7()
    await begin(side, key, command)
    await side.pass_time(20)
    assert await begin(side, key) == KeyInUse(BODY, None)
    await side.pass_time(11)
    assert await begin(side, key, body=OTHER_BODY) == KeyInUse(BODY, None)
    assert await begin(side, key) == Begun(command)
    assert await begin(side, key) == KeyInUse(BODY, None), "its time begins anew"


async def test_a_clock_that_is_set_back_does_not_keep_a_dead_request_alive(side: KeySide) -> None:
    key, command = uuid7(), uuid7()
    await begin(side, key, command)
    await side.pass_time(-20)
    assert await begin(side, key) == KeyInUse(BODY, None)
    await side.pass_time(-3_600)
    assert await begin(side, key, body=OTHER_BODY) == KeyInUse(BODY, None)
    assert await begin(side, key) == Begun(command)
    assert await begin(side, key) == KeyInUse(BODY, None), "its time begins anew"


@pytest.mark.parametrize("answered", [False, True])
async def test_after_a_day_a_key_is_new(side: KeySide, answered: bool) -> None:
    key, command = uuid7(), uuid7()
    await begin(side, key)
    if answered:
        await side.keys.finish(key, ANSWER)
    await side.pass_time(DAY_S + 60)
    assert await begin(side, key, command, OTHER_BODY) == Begun(command)
    assert await begin(side, key) == KeyInUse(OTHER_BODY, None)


async def test_keys_older_than_a_day_are_deleted(side: KeySide) -> None:
    old = [uuid7() for _ in range(3)]
    for key in old:
        await begin(side, key)
    await side.keys.finish(old[0], ANSWER)
    await side.pass_time(DAY_S + 60)
    young = uuid7()
    await begin(side, young)
    assert await side.keys.expire() == 3
    assert await side.keys.expire() == 0
    assert await begin(side, young) == KeyInUse(BODY, None)


async def test_what_is_said_of_a_key_that_is_gone_changes_nothing(side: KeySide) -> None:
    key = uuid7()
    for saying in (side.keys.finish(key, ANSWER), side.keys.forget(key), side.keys.release(key)):
        await saying
    assert isinstance(await begin(side, key), Begun)
