"""What may be written after a start of PostgreSQL, when processes that live have not said anything yet."""

from collections.abc import Sequence

import psycopg
from psycopg.sql import SQL

from adapters.embedded import EmbeddedServices
from adapters.postgres.leases import formats_of_all
from adapters.postgres.pool import open_pool
from tests.integration.durable_kit import administer, crash, database_on

HOUR_S = 3600.0


class Installation:
    """A database, its members, and what one of them may write now."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def do(self, *statements: str) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                await connection.execute(statement.encode())

    async def says(self, formats: Sequence[int], alive: str = "1 hour") -> None:
        """A process says that it lives."""
        await self.do(
            "INSERT INTO member (member_id, place, groups, joined_at, alive_until, lease_seconds, formats) VALUES "
            f"(gen_random_uuid(), 'here', '{{}}', clock_timestamp(), clock_timestamp() + interval '{alive}', 3600, "
            f"ARRAY[{', '.join(map(str, formats))}])"
        )

    async def is_of_before(self) -> None:
        await self.do("UPDATE schema_migration SET applied_at = '2020-01-01'")

    async def readable(self, *, settling_s: float = HOUR_S, most_away_s: float = HOUR_S) -> frozenset[int]:
        pool = await open_pool(self.url, role="test", max_size=1)
        try:
            return await formats_of_all(pool, settling_s, most_away_s)
        finally:
            await pool.close()


async def restart(durable: EmbeddedServices) -> None:
    await durable.stop()
    await durable.start()


async def test_a_new_database_has_no_processes_of_before(durable: EmbeddedServices) -> None:
    made = Installation(await database_on(durable))
    await made.says([1, 2])
    assert await made.readable() == {1, 2}
    await made.is_of_before()
    assert await made.readable(most_away_s=-HOUR_S) == {1}, "restored from a dump, say"
    assert await made.readable(most_away_s=-HOUR_S, settling_s=0) == {1, 2}


async def test_after_a_shutdown_in_order_the_rows_of_before_say_who_lives(durable: EmbeddedServices) -> None:
    one = Installation(await database_on(durable))
    await one.is_of_before()
    await one.says([1, 2], alive="1 millisecond")
    await restart(durable)
    assert await one.readable() == {1, 2}
    assert await one.readable(settling_s=0) == {1}, "its row looks dead, and nobody else is there"
    assert await one.readable(most_away_s=-HOUR_S) == {1}, "rows may have been removed while PostgreSQL was away"
    await one.says([1], alive="1 millisecond")
    assert await one.readable() == {1}, "a process of the release before, which may live although its row looks dead"
    await one.do("DELETE FROM member WHERE formats = '{1}'")
    assert await one.readable() == {1, 2}
    await administer(durable, SQL("CHECKPOINT"))
    assert await one.readable() == {1}, "it cannot be seen any more how PostgreSQL was shut down"


async def test_after_a_crash_processes_are_waited_for(durable: EmbeddedServices) -> None:
    """The table of the members is empty then. The recovery makes a checkpoint, often in the second of the start."""
    one = Installation(await database_on(durable))
    await one.is_of_before()
    for _ in range(2):
        await one.says([1, 2])
        await administer(durable, SQL("CHECKPOINT"))  # as in any system that runs for longer than a few minutes
        crash(durable)
        await durable.stop()
        await durable.start()
        async with await psycopg.AsyncConnection.connect(one.url) as connection:
            assert await (await connection.execute("SELECT FROM member")).fetchall() == []
        await one.says([1, 2])
        assert await one.readable() == {1}
        assert await one.readable(settling_s=0) == {1, 2}


async def test_an_old_process_that_says_something_after_the_start_is_heeded(durable: EmbeddedServices) -> None:
    one = Installation(await database_on(durable))
    await one.is_of_before()
    await one.says([1, 2])
    await restart(durable)
    assert await one.readable() == {1, 2}
    await one.says([1])
    assert await one.readable() == await one.readable(settling_s=0) == {1}
