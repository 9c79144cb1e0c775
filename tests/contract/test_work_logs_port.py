"""What the port `WorkLogs` promises; in memory and on PostgreSQL."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from uuid import UUID

import psycopg
import pytest
from uuid_utils.compat import uuid7

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Pool
from adapters.postgres.work_logs import AHEAD_DAYS, PostgresWorkLogs
from application.engine.ports.work_logs import KEPT_DAYS, MOST_LINES, PAGE_BYTES, Author, LinePage, NewLines, WorkLine, WorkLogs
from tests.kit.memory import ManualClock, MemoryLog, MemoryWorkLogs

TENANT = uuid7()
AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


class LogsSide(Protocol):
    logs: WorkLogs

    async def pass_days(self, days: int) -> None:
        """For the lines that are recorded."""
        ...


class MemorySide:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.logs = MemoryWorkLogs(MemoryLog(self.clock))

    async def pass_days(self, days: int) -> None:
        self.clock.advance(timedelta(days=days).total_seconds())


class PostgresSide:
    """Time passes by moving the lines, the partitions with their names, and the tallies back."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.logs = PostgresWorkLogs(PostgresDatabase(pool))

    async def sql(self, statement: str) -> list[tuple[object, ...]]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def partitions(self) -> list[str]:
        rows = await self.sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'work_log'::regclass ORDER BY 1")
        return [str(name) for (name,) in rows]

    async def pass_days(self, days: int) -> None:
        for name in await self.partitions():
            day = date.fromisoformat(name[-8:])
            moved = day - timedelta(days=days)
            before = f"work_log_{moved:%Y%m%d}"
            await self.sql(f"ALTER TABLE work_log DETACH PARTITION {name}")
            await self.sql(f"ALTER TABLE {name} RENAME TO {before}")
            await self.sql(f"UPDATE {before} SET received_at = received_at - interval '{days} days'")
            end = moved + timedelta(days=1)
            await self.sql(f"ALTER TABLE work_log ATTACH PARTITION {before} FOR VALUES FROM ('{moved} 00:00Z') TO ('{end} 00:00Z')")
        await self.sql(f"UPDATE work_log_tally SET changed_at = changed_at - interval '{days} days'")


@pytest.fixture
def memory_side() -> MemorySide:
    return MemorySide()


@pytest.fixture
def postgres_side(pool: Pool) -> PostgresSide:
    return PostgresSide(pool)


@pytest.fixture(params=["memory", "postgres"])
def side(request: pytest.FixtureRequest) -> LogsSide:
    found: LogsSide = request.getfixturevalue(f"{request.param}_side")
    return found


def author(run_id: UUID, agent: str = "writer", **more: object) -> Author:
    return Author(TENANT, run_id, f"{agent}-step", agent, 1, **more)  # type: ignore[arg-type]  # fields of the dataclass


def new(run_id: UUID, *texts: str, level: int = 20, beyond: int = 0, lost: int = 0, by: Author | None = None) -> NewLines:
    lines = [WorkLine(by or author(run_id), AT, level, text) for text in texts]
    return NewLines(TENANT, run_id, lines, beyond, lost)


def texts(page: LinePage) -> list[tuple[int, str]]:
    return [(number, line.text) for number, line in page.lines]


async def test_lines_are_numbered_within_their_run_and_come_back_as_they_were(side: LogsSide) -> None:
    run, other, call = uuid7(), uuid7(), uuid7()
    tool = author(run, tool="mail.send", invocation_id=call)
    assert await side.logs.write([new(run, "a", "b"), new(other, "x")]) == set()
    await side.logs.write([new(run, "c\n\ttab \N{WATER WAVE}\ufffd", by=tool, level=40)])
    page = await side.logs.page(TENANT, run, after=0, limit=10)
    assert (texts(page), page.more) == ([(1, "a"), (2, "b"), (3, "c\n\ttab \N{WATER WAVE}\ufffd")], False)
    assert page.lines[2][1] == WorkLine(tool, AT, 40, "c\n\ttab \N{WATER WAVE}\ufffd")
    assert texts(await side.logs.page(TENANT, other, after=0, limit=10)) == [(1, "x")]
    first = await side.logs.page(TENANT, run, after=0, limit=2)
    assert (texts(first), first.more) == ([(1, "a"), (2, "b")], True)
    assert texts(await side.logs.page(TENANT, run, after=2, limit=2))[0][0] == 3


async def test_another_tenant_reads_nothing(side: LogsSide) -> None:
    run = uuid7()
    await side.logs.write([new(run, "secret", lost=1)])
    page = await side.logs.page(uuid7(), run, after=0, limit=10)
    assert (page.lines, page.lost, page.changed_at) == ([], 0, None)


async def test_filters(side: LogsSide) -> None:
    run = uuid7()
    await side.logs.write(
        [
            new(run, "low", level=10),
        ]
    )
    await side.logs.write([new(run, "high", level=40, by=author(run, "critic"))])
    for given, expected in (
        ({"level": 20}, ["high"]),
        ({"agent": "writer"}, ["low"]),
        ({"step": "critic-step"}, ["high"]),
        ({"agent": "writer", "level": 40}, []),
    ):
        page = await side.logs.page(TENANT, run, after=0, limit=10, **given)  # type: ignore[arg-type]
        assert [line.text for _, line in page.lines] == expected, given


async def test_a_run_keeps_so_many_lines_and_counts_the_others(side: LogsSide) -> None:
    run, other = uuid7(), uuid7()
    for start in range(0, MOST_LINES - 1_000, 3_000):
        assert await side.logs.write([new(run, *(str(n) for n in range(start, start + 3_000)))]) == set()
    assert await side.logs.write([new(run, *(str(n) for n in range(9_000, 12_000))), new(other, "x")]) == {(TENANT, run)}
    assert await side.logs.write([new(run, "late", "later", beyond=5, lost=7), new(other, lost=2)]) == {(TENANT, run)}
    page = await side.logs.page(TENANT, run, after=MOST_LINES - 2, limit=10)
    assert texts(page) == [(MOST_LINES - 1, "9998"), (MOST_LINES, "9999")]
    assert (page.more, page.beyond, page.lost) == (False, 2_007, 7)
    page = await side.logs.page(TENANT, other, after=0, limit=10)
    assert (texts(page), page.beyond, page.lost) == ([(1, "x")], 0, 2)


async def test_a_page_has_a_bounded_size(side: LogsSide) -> None:
    run, line = uuid7(), "x" * 16_384
    await side.logs.write([new(run, *([line] * 100))])
    page = await side.logs.page(TENANT, run, after=0, limit=1_000)
    assert (len(page.lines), page.more) == (PAGE_BYTES // 16_384, True)
    page = await side.logs.page(TENANT, run, after=64, limit=1_000)
    assert (len(page.lines), page.more) == (36, False)


async def test_writers_side_by_side_give_each_line_a_number_of_its_own(side: LogsSide) -> None:
    runs = [uuid7() for _ in range(5)]

    async def write(which: int) -> None:
        for turn in range(5):
            order = runs if which % 2 else runs[::-1]
            await side.logs.write([new(run, f"{which} {turn}") for run in order])

    await asyncio.gather(*map(write, range(4)))
    for run in runs:
        page = await side.logs.page(TENANT, run, after=0, limit=100)
        assert [number for number, _ in page.lines] == list(range(1, 21))
        assert len({line.text for _, line in page.lines}) == 20


async def test_old_days_are_dropped(side: LogsSide) -> None:
    old, mixed = uuid7(), uuid7()
    await side.logs.write([new(old, "old"), new(mixed, "first")])
    await side.pass_days(KEPT_DAYS)
    await side.logs.keep()
    assert texts(await side.logs.page(TENANT, old, after=0, limit=10)) == [(1, "old")]
    await side.logs.write([new(mixed, "second")])
    await side.pass_days(1)
    await side.logs.keep()
    assert (await side.logs.page(TENANT, old, after=0, limit=10)).changed_at is None
    await side.logs.write([new(mixed, "third")])
    assert texts(await side.logs.page(TENANT, mixed, after=0, limit=10)) == [(2, "second"), (3, "third")]


async def test_days_to_come_have_their_partitions(postgres_side: PostgresSide) -> None:
    names = await postgres_side.partitions()
    today = datetime.now(UTC).date()
    assert {f"work_log_{today + timedelta(days=ahead):%Y%m%d}" for ahead in range(AHEAD_DAYS)} <= set(names)
    await postgres_side.logs.keep()
    await postgres_side.logs.keep()
    assert set(await postgres_side.partitions()) >= set(names)


async def test_a_day_without_a_partition_gets_one_with_its_first_line(postgres_side: PostgresSide) -> None:
    for name in await postgres_side.partitions():
        await postgres_side.sql(f"DROP TABLE {name}")
    run = uuid7()
    await postgres_side.logs.write([new(run, "first")])
    assert texts(await postgres_side.logs.page(TENANT, run, after=0, limit=10)) == [(1, "first")]


async def test_lines_do_not_wait_for_the_disk(postgres_side: PostgresSide) -> None:
    run = uuid7()
    async with postgres_side.pool.connection() as connection, connection.transaction():
        inside = PostgresWorkLogs(_Bound(connection))  # type: ignore[arg-type]  # a database of one connection
        await inside.write([new(run, "a")])
        row = await (await connection.execute("SELECT current_setting('synchronous_commit')")).fetchone()
        assert row == ("off",)


class _Bound:
    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._connection = connection

    def connection(self) -> "_Bound":
        return self

    async def __aenter__(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return self._connection

    async def __aexit__(self, *error: object) -> None:
        return None
