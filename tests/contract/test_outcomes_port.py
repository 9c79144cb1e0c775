"""What the port `OutcomeCounts` promises; in memory and on PostgreSQL."""

import asyncio
from typing import Any, Protocol
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.outcomes import PostgresOutcomeCounts
from adapters.postgres.pool import Pool
from application.engine.ports.outcomes import CountedOutcomes, NewOutcomes, OutcomeCounts
from tests.kit.memory import ManualClock, MemoryLog, MemoryOutcomeCounts

WINDOW_S = 1e9
"""So long that no test meets its edge."""


class CountsSide(Protocol):
    counts: OutcomeCounts

    async def next_window(self) -> None:
        """What was counted is of the window before."""
        ...

    async def pass_time(self, seconds: float) -> None: ...


class MemorySide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.counts = MemoryOutcomeCounts(MemoryLog(self.clock))

    async def next_window(self) -> None:
        self.clock.advance(WINDOW_S)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class PostgresSide:
    """Time passes by moving the rows back."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.counts = PostgresOutcomeCounts(PostgresDatabase(pool))

    async def next_window(self) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(b"UPDATE breaker_count SET turn = turn - 1")

    async def pass_time(self, seconds: float) -> None:
        async with self._pool.connection() as connection:
            await connection.execute("UPDATE breaker_count SET changed_at = changed_at - make_interval(secs => %s)", [seconds])


@pytest.fixture
def memory_counts() -> MemorySide:
    return MemorySide()


@pytest.fixture
def postgres_counts(pool: Pool) -> PostgresSide:
    return PostgresSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> CountsSide:
    found: CountsSide = request.getfixturevalue(f"{request.param}_counts")
    return found


def new(tenant_id: UUID, breaker_id: UUID, **fields: Any) -> NewOutcomes:
    said = {"changes": 0, "window_s": WINDOW_S, "calls": 2, "failures": 1, "succeeded": False, "in_a_row": 1, **fields}
    return NewOutcomes(tenant_id, breaker_id, **said)


async def add(side: CountsSide, *news: NewOutcomes) -> list[tuple[int, int, int, int]]:
    """Changes, calls, failures and failures in a row of each, in the order of the ids."""
    return [counted[1:] for counted in sorted(await side.counts.add(news))]


async def test_counts_of_all_processes_are_added(side: CountsSide) -> None:
    tenant_id, one, two = uuid7(), uuid7(), uuid7()
    assert await side.counts.of(tenant_id, one, WINDOW_S) is None
    assert await add(side, new(tenant_id, one), new(tenant_id, two, calls=5)) == [(0, 2, 1, 1), (0, 5, 1, 1)]
    assert await add(side, new(tenant_id, one, failures=2, in_a_row=2)) == [(0, 4, 3, 3)]
    assert await side.counts.of(tenant_id, one, WINDOW_S) == CountedOutcomes(one, 0, 4, 3, 3)
    assert await side.counts.of(uuid7(), one, WINDOW_S) is None, "of another tenant"


async def test_a_success_begins_the_row_of_failures_anew(side: CountsSide) -> None:
    tenant_id, one = uuid7(), uuid7()
    await add(side, new(tenant_id, one, in_a_row=4))
    assert await add(side, new(tenant_id, one, succeeded=True, in_a_row=0)) == [(0, 4, 2, 0)]
    assert await add(side, new(tenant_id, one, succeeded=True, in_a_row=2)) == [(0, 6, 3, 2)]


async def test_a_window_begins_anew_and_the_row_of_failures_goes_on(side: CountsSide) -> None:
    tenant_id, one = uuid7(), uuid7()
    await add(side, new(tenant_id, one))
    await side.next_window()
    assert await side.counts.of(tenant_id, one, WINDOW_S) == CountedOutcomes(one, 0, 0, 0, 1)
    assert await add(side, new(tenant_id, one)) == [(0, 2, 1, 2)]


async def test_a_change_of_the_breaker_begins_all_anew_and_what_was_counted_before_is_left_out(side: CountsSide) -> None:
    tenant_id, one = uuid7(), uuid7()
    await add(side, new(tenant_id, one, in_a_row=4))
    assert await add(side, new(tenant_id, one, changes=3)) == [(3, 2, 1, 1)]
    assert await add(side, new(tenant_id, one, changes=2, calls=9, in_a_row=9)) == [(3, 2, 1, 1)]
    assert await add(side, new(tenant_id, one, changes=2, succeeded=True, in_a_row=0)) == [(3, 2, 1, 1)]


async def test_processes_that_add_at_once_lose_nothing(side: CountsSide) -> None:
    tenant_id, ids = uuid7(), [uuid7() for _ in range(5)]
    rounds = [[new(tenant_id, one, calls=1) for one in (ids if number % 2 else reversed(ids))] for number in range(20)]
    await asyncio.gather(*(side.counts.add(news) for news in rounds))
    for one in ids:
        assert await side.counts.of(tenant_id, one, WINDOW_S) == CountedOutcomes(one, 0, 20, 20, 20)


async def test_rows_that_nobody_adds_to_go(side: CountsSide) -> None:
    tenant_id, old, fresh = uuid7(), uuid7(), uuid7()
    await add(side, new(tenant_id, old))
    await side.pass_time(100)
    await add(side, new(tenant_id, fresh))
    assert (await side.counts.prune(1e7), await side.counts.prune(50)) == (0, 1)
    assert await side.counts.of(tenant_id, old, WINDOW_S) is None
    assert await side.counts.of(tenant_id, fresh, WINDOW_S) is not None
