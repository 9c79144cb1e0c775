"""Whether the log stays as fast when it grows, and how much disk an event takes: a small and a large log on one server, in turns.

`python -m benchmarks.growth [--events 1000000]`; 10,000,000 events take some 10 minutes and 20 GB. The logs are filled through the
append function that writers use: appends of two events take turns on 500 open streams, with ten events to a stream and ten streams
to a run. The measurements then alternate between the two logs, so that other work of the machine hits both.
"""

import argparse
import logging
import random
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
import structlog
import uvloop
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.append_batch import APPEND_SQL, EncodedAppend, parameters
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.migrate import migrate
from adapters.postgres.pool import Pool, connect, open_pool
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from benchmarks import table
from benchmarks.servers import embedded
from benchmarks.writers import METADATA, STATE, new_id, store_round
from domain.registry import REGISTRY
from domain.runs import RunStarted, sequential
from projections import runs

SMALL = 100_000
OPEN_STREAMS = 500
EVENTS_PER_STREAM, EVENTS_PER_APPEND, STREAMS_PER_RUN = 10, 2, 10
ROUNDS, ROUND_SECONDS, READS = 5, 1.0, 200
CALLERS = 64
TENANTS = [new_id() for _ in range(20)]
PROJECT, PLAN = new_id(), sequential(("greeter",))
BYTES_ON_DISK = 2_500
"""The limit per event: tables, indexes, and the kept part of the write-ahead log."""


@dataclass
class Log:
    """A filled log, and some of its known content."""

    events: int
    url: str
    pool: Pool
    store: PostgresEventStore
    feed: PostgresEventFeed
    streams: list[tuple[UUID, UUID]]
    """Some streams, each as tenant and stream id."""
    runs: list[tuple[UUID, UUID]]

    async def read_stream(self) -> None:
        assert len(await self.store.read_stream(*random.choice(self.streams))) == EVENTS_PER_STREAM

    async def read_page(self) -> None:
        page = await self.feed.read_tenant(random.choice(TENANTS), after=random.randrange(self.events * 9 // 10), limit=100)
        assert len(page) == 100

    async def get_run(self) -> None:
        async with self.pool.connection() as connection:
            assert (await runs.get_run(connection, *random.choice(self.runs))).value is not None


async def fill(url: str, events: int) -> tuple[list[tuple[UUID, UUID]], list[tuple[UUID, UUID]]]:
    """Fills the log. Returns at most a thousand streams and a thousand runs, each with its tenant."""
    streams: list[tuple[UUID, UUID]] = []
    run_ids: list[tuple[UUID, UUID]] = []
    connection = await connect(url, role="benchmark", statement_timeout=60, options={"plan_cache_mode": "force_generic_plan"})
    register_arrays(connection)
    new = (NewEvent("thing.happened", 1, STATE),) * EVENTS_PER_APPEND
    async with connection, connection.cursor(binary=True) as cursor:
        for _ in range(events // (OPEN_STREAMS * EVENTS_PER_STREAM)):
            roots = [(random.choice(TENANTS), new_id()) for _ in range(OPEN_STREAMS // STREAMS_PER_RUN)]
            opened = [(*roots[n // STREAMS_PER_RUN], new_id()) for n in range(OPEN_STREAMS)]
            for version in range(0, EVENTS_PER_STREAM, EVENTS_PER_APPEND):
                batch = [
                    EncodedAppend.of(one_command(tenant, new_id(), (StreamAppend(stream, root, version, new),), METADATA))
                    for tenant, root, stream in opened
                ]
                await cursor.execute(APPEND_SQL, parameters(batch), prepare=True)
                assert len(await cursor.fetchall()) == 1
            await add_runs(connection, roots)
            streams += [(tenant, stream) for tenant, _, stream in opened[:5]]
            run_ids += roots[:5]
        await cursor.execute("VACUUM ANALYZE")
    return random.sample(streams, min(1_000, len(streams))), random.sample(run_ids, min(1_000, len(run_ids)))


async def add_runs(connection: psycopg.AsyncConnection[tuple[object, ...]], roots: list[tuple[UUID, UUID]]) -> None:
    """Starts runs, and adds their rows of the read model."""
    started = NewEvent(RunStarted.TOPIC, RunStarted.VERSION, REGISTRY.encode(RunStarted(project_id=PROJECT, plan=PLAN)))
    batch = [
        EncodedAppend.of(one_command(tenant, root, (StreamAppend(root, root, 0, (started,)),), METADATA)) for tenant, root in roots
    ]
    await connection.execute(APPEND_SQL, parameters(batch))
    await connection.execute(
        """
        INSERT INTO run (
            run_id, tenant_id, project_id, status, degraded, position, created_at, updated_at, start_position,
            version, event_count, message_count, call_count, priority, agents
        )
        SELECT originator_id, tenant_id, originator_id, 'running', false, notification_id, recorded_at, recorded_at,
               notification_id, 1, 1, 0, 0, 'normal', 'greeter'
        FROM event WHERE originator_id = ANY (%s) AND originator_version = 1
        """,
        [[root for _, root in roots]],
    )


@asynccontextmanager
async def filled(services: EmbeddedServices, events: int) -> AsyncIterator[Log]:
    name, owner = f"log_{events}", str(conninfo_to_dict(services.database_url)["user"])
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        await connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(owner)))
    url = make_conninfo(services.database_url, dbname=name)
    await migrate(url)
    began = time.perf_counter()
    streams, run_ids = await fill(url, events)
    print(f"  {events:,} events filled in {time.perf_counter() - began:.0f} s", flush=True)
    pool = await open_pool(url, role="benchmark", max_size=2)
    store = PostgresEventStore(url, pool)
    await store.start()
    try:
        yield Log(events, url, pool, store, PostgresEventFeed(pool), streams, run_ids)
    finally:
        await store.close()
        await pool.close()


async def read_p50(read: Callable[[], Awaitable[None]]) -> float:
    waits = []
    for _ in range(READS):
        before = time.perf_counter()
        await read()
        waits.append(time.perf_counter() - before)
    return statistics.median(waits) * 1_000


async def one_round(log: Log) -> dict[str, float]:
    appended = await store_round(log.store, CALLERS, ROUND_SECONDS)
    return {
        "append, events/s": appended.rate,
        "append, p50 ms": appended.p50 * 1_000,
        "append, p99 ms": appended.p99 * 1_000,
        "read a stream of 10, p50 ms": await read_p50(log.read_stream),
        "a page of 100 of the tenant's feed, p50 ms": await read_p50(log.read_page),
        "GET a run's query, p50 ms": await read_p50(log.get_run),
    }


SIZES = """
    SELECT c.relname, c.relkind = 'i', pg_table_size(c.oid) FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
    WHERE c.relname IN ('event', 'command') AND c.relkind = 'r'
       OR i.indrelid IN ('event'::regclass, 'command'::regclass) ORDER BY coalesce(i.indrelid, c.oid), c.relkind DESC, c.relname
"""
PAYLOAD = """
    SELECT avg(octet_length(state) + octet_length(metadata))::float8, (SELECT count(*) FROM event), (SELECT count(*) FROM command)
    FROM (SELECT state, metadata FROM event ORDER BY notification_id LIMIT 10000) AS oldest
"""


async def print_sizes(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        sizes = await (await connection.execute(SIZES)).fetchall()
        row = await (await connection.execute(PAYLOAD)).fetchone()
    assert row is not None
    payload, events, commands = row
    print(f"\nBytes on disk for an event with a payload of {payload:.0f} bytes (state and metadata), one event to a command")
    total = 0.0
    for name, is_index, size in sizes:
        per_row = size / (commands if name.startswith("command") else events)
        total += per_row
        print(f"  {'index' if is_index else 'table'} {name:30} {per_row:8.0f}")
    reach = 2 * payload + 200
    table.row(
        f"bytes on disk for an event with a payload of {payload:.0f}", f"{total:.0f}", "", "≤ 2 × payload + 200", met=total <= reach
    )
    print(f"  {'in all':36} {total:8.0f}  {total / reach:.0%} of 2 x payload + 200 = {reach:.0f} (reach: ≤ 100 %)")
    fixed = total - payload
    print(f"  {fixed:.0f} bytes come with any payload: that is reached where the payload has {fixed - 200:.0f} bytes or more")


async def main(events: int) -> None:
    needed, free = (SMALL + events) * BYTES_ON_DISK, shutil.disk_usage("/tmp").free
    if free < needed:
        raise SystemExit(f"{events:,} events need {needed / 1e9:.0f} GB of disk; {free / 1e9:.0f} GB are free")
    async with embedded() as services, filled(services, SMALL) as small, filled(services, events) as large:
        await print_sizes(large.url)
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        for number in range(ROUNDS + 1):
            if number % 2:
                second, first = await one_round(large), await one_round(small)
            else:
                first, second = await one_round(small), await one_round(large)
            rounds.append((first, second))
        report(rounds[1:], events)  # the first measurement warms up


def report(rounds: list[tuple[dict[str, float], dict[str, float]]], events: int) -> None:
    title = f"medians of {ROUNDS} rounds, events in the log:"
    print(f"\n{title:46}{SMALL:>12,}{events:>14,}     ratio (reach: within 20 %)")
    for name in rounds[0][0]:
        first, second = (statistics.median(one[side][name] for one in rounds) for side in (0, 1))
        ratio = statistics.median(one[1][name] / one[0][name] for one in rounds)
        worse = 1 / ratio if name.endswith("events/s") else ratio
        print(f"  {name:44}{first:>12,.2f}{second:>14,.2f}{ratio:>10.2f}  {'' if worse <= 1.2 else 'OVER'}")
        small, large = (f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in (first, second))
        beside = f"{ratio:.2f} × that with {SMALL:,} ({small})"
        table.row(f"with {events:,} events in the log: {name}", large, beside, "within 20 %", met=worse <= 1.2)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    uvloop.run(main(parser.parse_args().events))
