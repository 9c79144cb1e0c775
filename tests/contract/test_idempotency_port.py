"""What the port `IdempotencyKeys` promises; on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest_asyncio
from uuid_utils.compat import uuid7

from adapters.postgres.idempotency import PostgresIdempotencyKeys
from adapters.postgres.pool import Pool, open_pool
from application.engine.ports.idempotency import Begun, IdempotencyKeys, KeyInUse, StoredAnswer

ANSWER = StoredAnswer(201, {"location": "/v1/runs/1", "etag": '"v1"'}, b'{"position":1}')


@dataclass
class Side:
    keys: IdempotencyKeys
    pool: Pool

    async def begin(self, key_id: UUID, command_id: UUID | None = None, *, body: str = "sha") -> Begun | KeyInUse:
        return await self.keys.begin(key_id, tenant_id=uuid7(), body_sha256=body, command_id=command_id or uuid7())

    async def pass_time(self, seconds: float) -> None:
        async with self.pool.connection() as connection:
            await connection.execute("UPDATE idempotency_key SET begun_at = begun_at - make_interval(secs => %s)", [seconds])


@pytest_asyncio.fixture
async def side(database_url: str) -> AsyncIterator[Side]:
    pool = await open_pool(database_url, role="test", max_size=4)
    yield Side(PostgresIdempotencyKeys(pool), pool)
    await pool.close()


async def test_a_new_key_begins_with_the_given_command(side: Side) -> None:
    key, command = uuid7(), uuid7()
    assert await side.begin(key, command) == Begun(command)
    assert isinstance(await side.begin(uuid7()), Begun), "keys are apart"


async def test_while_it_runs_the_key_is_in_use(side: Side) -> None:
    key = uuid7()
    await side.begin(key)
    assert await side.begin(key) == KeyInUse("sha", None)
    assert await side.begin(key, body="other") == KeyInUse("sha", None), "the hash of the first body tells them apart"


async def test_of_many_at_once_one_begins(side: Side) -> None:
    key = uuid7()
    found = await asyncio.gather(*(side.begin(key) for _ in range(8)))
    assert sum(isinstance(begun, Begun) for begun in found) == 1
    assert all(begun == KeyInUse("sha", None) for begun in found if isinstance(begun, KeyInUse))


async def test_the_answer_is_kept_as_it_was(side: Side) -> None:
    key = uuid7()
    await side.begin(key)
    await side.keys.finish(key, ANSWER)
    await side.keys.release(key)
    await side.keys.forget(key)
    assert await side.begin(key) == await side.begin(key, body="other") == KeyInUse("sha", ANSWER)
    await side.pass_time(3600)
    assert await side.begin(key) == KeyInUse("sha", ANSWER)


async def test_an_answer_without_headers_and_body(side: Side) -> None:
    key = uuid7()
    await side.begin(key)
    await side.keys.finish(key, StoredAnswer(204, {}, b""))
    assert await side.begin(key) == KeyInUse("sha", StoredAnswer(204, {}, b""))


async def test_a_forgotten_key_is_new(side: Side) -> None:
    key, command = uuid7(), uuid7()
    await side.begin(key)
    await side.keys.forget(key)
    assert await side.begin(key, command, body="other") == Begun(command)


async def test_a_released_key_goes_on_as_the_same_command(side: Side) -> None:
    key, command = uuid7(), uuid7()
    await side.begin(key, command)
    await side.keys.release(key)
    assert await side.begin(key, body="other") == KeyInUse("sha", None)
    assert await side.begin(key) == Begun(command)
    assert await side.begin(key) == KeyInUse("sha", None), "it was released once"


async def test_who_says_nothing_for_half_a_minute_is_dead(side: Side) -> None:
    key, command = uuid7(), uuid7()
    await side.begin(key, command)
    await side.pass_time(20)
    assert await side.begin(key) == KeyInUse("sha", None)
    await side.pass_time(11)
    assert await side.begin(key, body="other") == KeyInUse("sha", None)
    assert await side.begin(key) == Begun(command)
    assert await side.begin(key) == KeyInUse("sha", None), "its time began anew"


async def test_after_a_day_a_key_is_new(side: Side) -> None:
    key, command = uuid7(), uuid7()
    await side.begin(key)
    await side.keys.finish(key, ANSWER)
    await side.pass_time(24 * 3600 + 1)
    assert await side.begin(key, command, body="other") == Begun(command)
    assert await side.begin(key) == KeyInUse("other", None), "the old answer is gone"


async def test_those_of_yesterday_expire(side: Side) -> None:
    old, new = [uuid7() for _ in range(3)], uuid7()
    for key in old:
        await side.begin(key)
    await side.keys.finish(old[0], ANSWER)
    await side.pass_time(24 * 3600 + 1)
    await side.begin(new)
    assert await side.keys.expire() == 3
    assert await side.keys.expire() == 0
    assert isinstance(await side.begin(new), KeyInUse)
