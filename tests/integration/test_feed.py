"""Reading by position: filters, time, plans of the hot queries, and the signal that wakes readers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio
from psycopg.sql import SQL, Identifier, Literal
from uuid_utils.compat import uuid7

from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.log.event_store import FIND_COMMAND_SQL, READ_STREAM_SQL, PostgresEventStore
from adapters.postgres.log.feed import POSITION_AT_SQL, READ_SQL, ROOTS_SQL, PostgresEventFeed, tenant_query
from adapters.postgres.pool import open_pool
from application.engine.ports.log import AppendResult, NewEvent, StreamAppend, one_command
from tests.integration.system_kit import eventually
from tests.pace import in_time, within

A, B = uuid7(), uuid7()
NEVER_S = 3_600.0


def new_id() -> UUID:
    return uuid7()


class Log:
    """A store and a feed on one database."""

    def __init__(self, store: PostgresEventStore, feed: PostgresEventFeed) -> None:
        self.store, self.feed = store, feed

    async def append(self, tenant: UUID, *topics: str, root: UUID | None = None, stream: UUID | None = None) -> AppendResult:
        stream = stream or new_id()
        events = tuple(NewEvent(topic, 1, b"{}") for topic in topics)
        return await self.store.append(one_command(tenant, new_id(), (StreamAppend(stream, root or stream, 0, events),), "{}"))


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    pool = await open_pool(database_url, role="test", max_size=4)
    store = PostgresEventStore(database_url, pool)
    await store.start()
    yield Log(store, PostgresEventFeed(pool))
    await store.close()
    await pool.close()


async def test_the_events_of_runs_are_found_without_statistics(log: Log, database_url: str) -> None:
    """A young log has no statistics. Its planner would take the index of tenants, and read the whole log once for each run."""
    roots = [new_id() for _ in range(1_000)]
    await asyncio.gather(*(log.append(A, "a", "b", "c", "d", stream=root) for root in roots))
    of_one, values = tenant_query(A, after=0, limit=500, until=None, root_id=roots[0], topics=None, newest_first=False)
    queries: list[tuple[str, list[Any]]] = [(of_one, values), (ROOTS_SQL, [[A] * 256, roots[:256], [0] * 256, 32])]
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for query, given in queries:
            plan = await (await connection.execute(f"EXPLAIN {query}".encode(), given)).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert "event_root_idx" in text and "event_tenant_idx" not in text, text
    assert len(await log.feed.read_roots([(A, root, 0) for root in roots[:256]], limit=32)) == 4 * 256
    assert await log.feed.read_roots([(B, root, 0) for root in roots[:256]], limit=32) == []


TENANTS, STREAMS, ROOTS, COMMANDS = ([UUID(int=kind * 1_000_000 + n) for n in range(5_000)] for kind in (1, 2, 3, 4))


async def fill(database_url: str) -> None:
    """50,000 events. A big tenant has every second event, and one of the small tenants has only old events."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection, connection.cursor() as cursor:
        columns = "notification_id, originator_version, recorded_at, originator_id, tenant_id, root_id, topic, metadata, state"
        async with cursor.copy(f"COPY event ({columns}) FROM STDIN") as copy:
            for n in range(50_000):
                tenant = TENANTS[0] if n % 2 else TENANTS[1] if n < 2_000 else TENANTS[2 + n % 20]
                at, stream, root = START + timedelta(seconds=n), STREAMS[n // 10], ROOTS[n // 100]
                await copy.write_row((n + 1, 1 + n % 10, at, stream, tenant, root, f"topic{n % 5}", "{}", b"{}"))
        async with cursor.copy("COPY command (tenant_id, command_id, last_position, recorded_at, event_count) FROM STDIN") as copy:
            for n in range(5_000):
                await copy.write_row((TENANTS[n % 20], COMMANDS[n], n, START, 1))
        await cursor.execute("UPDATE log_head SET position = 50000, recorded_at = now()")
        await cursor.execute("VACUUM ANALYZE event, command")


START = datetime(2026, 1, 1, tzinfo=UTC)


def by_tenant(tenant: UUID, **filters: Any) -> tuple[str, Sequence[Any]]:
    given: dict[str, Any] = {"after": 30_000, "limit": 100, "until": None, "root_id": None, "topics": None, "newest_first": False}
    return tenant_query(tenant, **given | filters)


HOT_QUERIES: dict[str, tuple[tuple[str, Sequence[Any]], str, int]] = {
    "read": ((READ_SQL, (25_000, 256)), "event_pkey", 20),
    "read_tenant, big": (by_tenant(TENANTS[0]), "event_tenant_idx", 20),
    "read_tenant, nothing new": (by_tenant(TENANTS[1]), "event_tenant_idx", 10),
    "read_tenant, newest first": (by_tenant(TENANTS[3], after=0, newest_first=True), "event_tenant_idx", 120),
    "read_tenant, one run": (by_tenant(TENANTS[0], root_id=ROOTS[400]), "event_root_idx", 20),
    "read_stream": (
        (READ_STREAM_SQL, (STREAMS[700], 4, 2**31 - 1, TENANTS[0], 2**63 - 1, STREAMS[700], TENANTS[0])),
        "event_stream_key",
        20,
    ),
    "find_command": ((FIND_COMMAND_SQL, (TENANTS[7], COMMANDS[7])), "command_pkey", 10),
    "position_at": ((POSITION_AT_SQL, (START + timedelta(hours=6), TENANTS[0], TENANTS[0])), "event_tenant_idx", 100),
}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


async def test_hot_queries_use_their_indexes(database_url: str) -> None:
    """Checks the plans and the number of pages that each query reads, planned with known values and without."""
    await fill(database_url)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for number, (label, ((query, parameters), index, most_pages)) in enumerate(HOT_QUERIES.items()):
            places = [f"${place}" for place in range(1, 1 + query.count("%s"))]
            await connection.execute(f"PREPARE hot_{number} AS {query.replace('%s', '{}').format(*places)}")
            values = SQL(", ").join(Literal(value) for value in parameters)
            explain = SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {}({})").format(Identifier(f"hot_{number}"), values)
            for mode in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}")
                [([explained],)] = await (await connection.execute(explain)).fetchall()
                plan = explained["Plan"]
                used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
                whole = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Relation Name"] != "log_head"]
                pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                assert used - {"log_head_pkey"} == {index} and not whole and pages <= most_pages, (mode, label, pages, plan)


async def test_people_can_read_the_log(log: Log, database_url: str) -> None:
    events = (NewEvent("a", 1, b'{"n":1}'), NewEvent("b", 1, b"\xff"))
    await log.store.append(one_command(A, new_id(), (StreamAppend(new_id(), new_id(), 0, events),), "{}"))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT position, topic, state, metadata FROM event_readable ORDER BY position")
        assert await cursor.fetchall() == [(1, "a", {"n": 1}, {}), (2, "b", "/w==", {})]


# ---- the signal -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def signal(database_url: str) -> AsyncIterator[AppendSignal]:
    signal = AppendSignal(database_url, poll_s=NEVER_S, check_s=NEVER_S)
    await signal.start()
    await in_time(signal.listening.wait(), 5)
    yield signal
    await signal.close()


async def woken(signal: AppendSignal, after: int) -> None:
    """Waits until a notification wakes the reader; the wait has no end of its own."""
    await in_time(signal.wait(after, NEVER_S), 20)


async def waited(signal: AppendSignal, after: int, timeout: float) -> float:
    started = time.perf_counter()
    await signal.wait(after, timeout)
    return time.perf_counter() - started


async def test_the_signal_wakes_those_that_wait_for_what_comes(log: Log, signal: AppendSignal) -> None:
    assert await waited(signal, 0, 0.2) >= 0.19
    waiting = asyncio.gather(woken(signal, 0), woken(signal, 0))
    later = asyncio.create_task(waited(signal, 1, 0.3))
    await asyncio.sleep(0)
    await log.append(A, "run.started")
    await waiting
    assert await later >= 0.29
    await woken(signal, 0)  # the position is known already


async def test_a_refused_batch_notifies_nobody(log: Log, signal: AppendSignal, database_url: str) -> None:
    stream = new_id()
    await log.append(A, "run.started", stream=stream)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("LISTEN tidelog_log")
        with pytest.raises(Exception, match="is at version 1"):
            await log.append(A, "run.started", stream=stream)
        await asyncio.gather(*(log.append(A, "run.started", "run.started") for _ in range(5)))
        await connection.execute("NOTIFY tidelog_log, 'the last one'")
        told: list[str] = []
        async with within(20):
            while "the last one" not in told:
                told += [notify.payload async for notify in connection.notifies(timeout=0.2)]
        assert told == ["11", "the last one"], "one for the batch that was written, none for the one that was refused"


LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidelog-listener' AND datname = current_database()"


async def test_the_signal_survives_the_loss_of_its_connection(log: Log, signal: AppendSignal, database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        [(lost,)] = await (await connection.execute(LISTENERS)).fetchall()
        await connection.execute("SELECT pg_terminate_backend(%s, 5000)", [lost])
        await log.append(A, "run.started")  # perhaps at a moment when nobody listens
        await woken(signal, 0)

        async def another() -> bool:
            return await (await connection.execute(LISTENERS)).fetchall() not in ([], [(lost,)])

        await eventually(another)
    await in_time(signal.listening.wait(), 5)
    waiting = asyncio.create_task(woken(signal, 1))
    await asyncio.sleep(0)
    await log.append(A, "run.started")
    await waiting


async def test_without_a_database_the_signal_lets_its_callers_look_now_and_then(tmp_path: str) -> None:
    signal = AppendSignal(f"postgresql:///none?host={tmp_path}")
    await signal.start()
    async with within(20):
        sleeps = [await waited(signal, 0, NEVER_S) for _ in range(4)]
    assert min(sleeps) >= 0.09, "it would ask all the time"
    await signal.close()
