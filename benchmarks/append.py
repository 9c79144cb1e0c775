"""The rate at which the log takes events, beside the limit of the machine and beside the recorder of the `eventsourcing` library.

    python -m benchmarks.append

The server is one embedded Postgres with flushing on that has made its WAL files. Events have 300 bytes, and each append has one
event. The contestants take turns in short rounds, so that other work of the machine hits all of them. The medians of the rounds are
printed.

- limit: 1,000 events in one transaction with one unnest insert into a table with the log's columns and primary key, one connection.
- limit with the log's indexes: the same into a table with all four indexes that reading the log needs.
- store: `PostgresEventStore.append` from 16, 64 and 256 callers, each waiting for its answer.
- processes: the same from 2 and from 4 processes at once, each with a writer of its own, beside one process of 64 callers.
- library: `PostgresApplicationRecorder.insert_events` from 64 threads, each waiting for its answer.
"""

import asyncio
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
import structlog
import uvloop
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.arrays import (
    ByteaArray,
    Int8Array,
    UuidArray,
    bytes_element,
    int8_element,
    register_arrays,
    uuid_element,
)
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.migrate import migrate
from adapters.postgres.pool import connect, open_pool
from benchmarks import table
from benchmarks.servers import make_wal
from benchmarks.writers import METADATA, STATE, TENANT, Round, Writers, new_id, store_round

ROUNDS = 5
ROUND_SECONDS = 1.2
WARM_UP_SECONDS = 0.2
LIBRARY_THREADS = 64
LIMIT = "limit: 1,000 events per transaction"
INDEXED_LIMIT = "limit with the log's indexes"
LIBRARY = f"library, {LIBRARY_THREADS} callers"
PROCESSES = {
    "2 processes, 32 callers each": (2, 32),
    "2 processes, 64 callers each": (2, 64),
    "4 processes, 16 callers each": (4, 16),
    "4 processes, 64 callers each": (4, 64),
}
"""The number of processes, and of callers in each process."""
ONE_PROCESS = "store, 64 callers"


async def limit_round(connection: psycopg.AsyncConnection[tuple[object, ...]], table: str, seconds: float) -> Round:
    insert = SQL("""
        INSERT INTO {}
        SELECT n, 1, now(), id, %s, id, 1, 'thing.happened', %s, state, 0 FROM unnest(%s, %s, %s) AS u (n, id, state)
    """).format(Identifier(table))
    waits: list[float] = []
    started = time.perf_counter()
    cursor = await connection.execute(SQL("SELECT coalesce(max(notification_id), 0) FROM {}").format(Identifier(table)))
    [last] = await cursor.fetchone() or (0,)
    assert isinstance(last, int)
    while time.perf_counter() < started + seconds:
        before = time.perf_counter()
        numbers = Int8Array.of([int8_element(number) for number in range(last + 1, last + 1001)], 1_000)
        ids = UuidArray.of([uuid_element(new_id()) for _ in range(1_000)], 1_000)
        states = ByteaArray.of([bytes_element(STATE)] * 1_000, 1_000)
        await connection.execute(insert, (TENANT, METADATA, numbers, ids, states), prepare=True)
        waits.append(time.perf_counter() - before)
        last += 1_000
    return Round.of(waits, 1_000 * len(waits), time.perf_counter() - started)


def library_round(recorder: PostgresApplicationRecorder, seconds: float, callers: int = LIBRARY_THREADS) -> Round:
    waits: list[float] = []
    started = time.perf_counter()

    def caller() -> None:
        while time.perf_counter() < started + seconds:
            event = StoredEvent(new_id(), 1, "thing.happened", STATE)
            before = time.perf_counter()
            recorder.insert_events([event])
            waits.append(time.perf_counter() - before)

    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Round.of(waits, len(waits), time.perf_counter() - started)


def open_library(database_url: str) -> PostgresApplicationRecorder:
    given = conninfo_to_dict(database_url)
    place = [str(given.get(key) or "") for key in ("dbname", "host", "port", "user", "password")]
    datastore = PostgresDatastore(*place, pool_size=LIBRARY_THREADS, originator_id_type="uuid")
    recorder = PostgresApplicationRecorder(datastore)
    recorder.create_table()
    return recorder


def _in_thread(writers: Writers) -> Callable[[float], Awaitable[Round]]:
    return lambda seconds: asyncio.to_thread(writers.round, seconds)


async def measure(database_url: str) -> dict[str, list[Round]]:
    await migrate(database_url)
    connection = await connect(database_url, role="benchmark")
    register_arrays(connection)
    await connection.execute("CREATE TABLE raw_limit (LIKE event)")
    await connection.execute("ALTER TABLE raw_limit ADD PRIMARY KEY (notification_id)")
    await connection.execute("CREATE TABLE indexed_limit (LIKE event INCLUDING INDEXES)")
    pool = await open_pool(database_url, role="benchmark", max_size=2)
    store = PostgresEventStore(database_url, pool)
    await store.start()
    library = open_library(database_url)
    stack = ExitStack()
    writers = {
        name: stack.enter_context(Writers.started(database_url, processes=processes, callers=callers))
        for name, (processes, callers) in PROCESSES.items()
    }
    contestants: dict[str, Callable[[float], Awaitable[Round]]] = {
        LIMIT: lambda seconds: limit_round(connection, "raw_limit", seconds),
        INDEXED_LIMIT: lambda seconds: limit_round(connection, "indexed_limit", seconds),
        "store, 16 callers": lambda seconds: store_round(store, 16, seconds),
        "store, 64 callers": lambda seconds: store_round(store, 64, seconds),
        "store, 256 callers": lambda seconds: store_round(store, 256, seconds),
        **{name: _in_thread(one) for name, one in writers.items()},
        LIBRARY: lambda seconds: asyncio.to_thread(library_round, library, seconds),
    }
    results: dict[str, list[Round]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(ROUNDS):
        for name in order:
            await contestants[name](WARM_UP_SECONDS)
            results[name].append(await contestants[name](ROUND_SECONDS))
        order.append(order.pop(0))  # so that no contestant always runs after the contestant that leaves the most to flush
    stack.close()
    await store.close()
    await pool.close()
    await connection.close()
    library.datastore.close()
    return results


def report(results: dict[str, list[Round]]) -> None:
    rates = {name: statistics.median(one.rate for one in rounds) for name, rounds in results.items()}
    title = f"medians of {ROUNDS} rounds"
    print(f"{title:<38}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'of limit':>10}{'x library':>11}{'client CPU ms/1,000':>21}")
    for name, rounds in results.items():
        p50, p99 = (1_000 * statistics.median(values) for values in zip(*((one.p50, one.p99) for one in rounds), strict=True))
        cpu = 1_000 * statistics.median(one.cpu for one in rounds)
        of_limit, of_library = rates[name] / rates[LIMIT], rates[name] / rates[LIBRARY]
        print(f"{name:<38}{rates[name]:>10,.0f}{p50:>9.2f}{p99:>9.2f}{of_limit:>10.0%}{of_library:>11.1f}{cpu:>21.1f}")
    most = "store, 256 callers"
    indexed, bare = rates[most] / rates[INDEXED_LIMIT], rates[most] / rates[LIMIT]
    print(f"  {most}: {indexed:.0%} of the {INDEXED_LIMIT}, {bare:.0%} of that without (reach: 60 %)")
    for name in PROCESSES:
        ratio = statistics.median(many.rate / one.rate for many, one in zip(results[name], results[ONE_PROCESS], strict=True))
        reach = (
            " (reach: no lower in total than one process)"
            if "64" in name
            else " (the same callers as one process: smaller batches)"
        )
        print(f"  {name}: {ratio:.2f} x {ONE_PROCESS}{reach}")
    add_rows(results, rates)


def add_rows(results: dict[str, list[Round]], rates: dict[str, float]) -> None:
    def measured(name: str) -> str:
        p50 = 1_000 * statistics.median(one.p50 for one in results[name])
        return f"{rates[name]:,.0f}/s, p50 {p50:.1f} ms"

    few, some, most = (f"store, {callers} callers" for callers in (16, 64, 256))
    of_library, of_limit = rates[some] / rates[LIBRARY], rates[most] / rates[LIMIT]
    p50 = statistics.median(one.p50 for one in results[few])
    beside = f"{of_library:.0f} × the `eventsourcing` library's recorder ({rates[LIBRARY]:,.0f}/s)"
    limits = (
        f"{of_limit:.0%} of raw inserts of 1,000 rows in a transaction ({rates[LIMIT]:,.0f}/s); "
        f"{rates[most] / rates[INDEXED_LIMIT]:.0%} of the same with the log's indexes ({rates[INDEXED_LIMIT]:,.0f}/s)"
    )
    table.row("durable append of 300-byte events, 16 callers", measured(few), "", "p50 ≤ 2 ms", met=p50 <= 0.002)
    table.row("the same, 64 callers", measured(some), beside, "≥ 20 ×", met=of_library >= 20)
    table.row("the same, 256 callers", measured(most), limits, "≥ 60 %", met=of_limit >= 0.6)
    for name in PROCESSES:
        if "64" in name:
            ratio = statistics.median(many.rate / one.rate for many, one in zip(results[name], results[ONE_PROCESS], strict=True))
            beside = f"{ratio:.2f} × one process of 64 callers"
            table.row(f"the same, {name}", measured(name), beside, "≥ 1 ×", met=ratio >= 1)


async def run(state_dir: Path) -> None:
    services = EmbeddedServices(state_dir, want_nats=False)
    await services.start()
    try:
        await make_wal(services)
        report(await measure(services.database_url))
    finally:
        await services.stop()


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        Path(folder).chmod(0o711)  # a server that root starts runs under another account, which must reach the folder
        uvloop.run(run(Path(folder) / "state"))


if __name__ == "__main__":
    main()
