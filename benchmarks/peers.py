"""Tidelog's event store beside others on the same Postgres: one event to an append, flushing on, WAL files made, in turns.

`python -m benchmarks.peers [--rounds 3] [--seconds 1.5]`, or `make bench-peers`, which then measures runs beside other systems
(`benchmarks.run_peers`). npm installs the packages of peers into the ignored folder .venv-peers. A peer that cannot be installed is
skipped. Each peer has a database of its own and uses the client that
it ships:

- eventsourcing: `PostgresApplicationRecorder.insert_events`, with a thread for each caller;
- Message DB: its SQL function `write_message`, with a connection for each caller. In the first variant each caller has a stream
  category of its own, so that no caller waits for another's lock (the best case; events then have no common order). In the second
  all callers share one category;
- Emmett: `appendToStream` of its PostgreSQL store under Node.js, with a connection for each caller.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import uvloop
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.pool import open_pool
from benchmarks import table
from benchmarks.append import library_round, open_library
from benchmarks.peer_packages import Skipped, node, npm_packages
from benchmarks.servers import embedded, make_wal, quiet
from benchmarks.writers import METADATA, STATE, Round, store_round

HERE = Path(__file__).parent
MESSAGE_DB, EMMETT = "@eventide/message-db@1.3.1", "@event-driven-io/emmett-postgresql@0.42.0"
CALLERS = (16, 64)
WARM_UP_SECONDS = 0.5
OURS = "tidelog"

Contestant = Callable[[int, float], Awaitable[Round]]
"""Takes the number of callers and the seconds. Opens its connections and closes them: all connections at once are too many."""


async def create_database(services: EmbeddedServices, name: str) -> str:
    owner = str(conninfo_to_dict(services.database_url)["user"])
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        await connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(owner)))
    return make_conninfo(services.database_url, dbname=name)


def as_url(conninfo: str) -> str:
    """The same address for libraries that know only URLs."""
    given = conninfo_to_dict(conninfo)
    login = f"{quote(str(given['user']))}:{quote(str(given.get('password') or ''))}"
    return f"postgresql://{login}@/{given['dbname']}?host={given['host']}&port={given.get('port') or 5432}"


async def tidelog(services: EmbeddedServices) -> Contestant:
    async def run(callers: int, seconds: float) -> Round:
        pool = await open_pool(services.database_url, role="benchmark", max_size=1)
        store = PostgresEventStore(services.database_url, pool)
        await store.start()
        try:
            await store_round(store, callers, WARM_UP_SECONDS)
            return await store_round(store, callers, seconds)
        finally:
            await store.close()
            await pool.close()

    return run


async def eventsourcing(services: EmbeddedServices) -> Contestant:
    url = await create_database(services, "peer_eventsourcing")

    async def run(callers: int, seconds: float) -> Round:
        recorder = await asyncio.to_thread(open_library, url)
        try:
            await asyncio.to_thread(library_round, recorder, WARM_UP_SECONDS, callers)
            return await asyncio.to_thread(library_round, recorder, seconds, callers)
        finally:
            recorder.datastore.close()

    return run


async def message_db(services: EmbeddedServices, *, categories: bool = True) -> Contestant:
    folder = await asyncio.to_thread(npm_packages, "message-db", MESSAGE_DB)
    sources = folder / "node_modules" / MESSAGE_DB.rsplit("@", 1)[0] / "database"
    url = await create_database(services, f"peer_message_db_{categories}".lower())
    url = make_conninfo(url, options="-c search_path=message_store,public")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for script in ("install.sh", "install-functions.sh", "install-indexes.sh"):  # in the order of the peer's own installation
            for path in re.findall(r"\$base/((?:schema|tables|types|functions|indexes)/\S+\.sql)", (sources / script).read_text()):
                await connection.execute((sources / path).read_bytes())
    write = "SELECT write_message(%s, %s, 'thing.happened', %s::jsonb, %s::jsonb, -1)"

    async def run(callers: int, seconds: float) -> Round:
        connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(callers)]

        async def caller(number: int, until: float, waits: list[float]) -> None:
            while time.perf_counter() < until:
                stream, message = f"thing{number if categories else ''}-{uuid4()}", str(uuid4())
                before = time.perf_counter()
                await connections[number].execute(write, (message, stream, STATE.decode(), METADATA), prepare=True)
                waits.append(time.perf_counter() - before)

        async def round_of(length: float) -> Round:
            waits: list[float] = []
            started = time.perf_counter()
            await asyncio.gather(*(caller(number, started + length, waits) for number in range(callers)))
            return Round.of(waits, len(waits), time.perf_counter() - started)

        try:
            await round_of(WARM_UP_SECONDS)
            return await round_of(seconds)
        finally:
            for one in connections:
                await one.close()

    return run


async def emmett(services: EmbeddedServices) -> Contestant:
    program, folder = node(), await asyncio.to_thread(npm_packages, "emmett", EMMETT)
    address = as_url(await create_database(services, "peer_emmett"))

    async def run(callers: int, seconds: float) -> Round:
        command = [program, str(HERE / "emmett.mjs"), str(folder), str(callers), str(WARM_UP_SECONDS), str(seconds)]
        done = await asyncio.to_thread(
            subprocess.run, command, input=address, stdout=subprocess.PIPE, text=True, timeout=seconds + 60, check=True
        )
        return Round(**json.loads(done.stdout))

    return run


PEERS: dict[str, Callable[[EmbeddedServices], Awaitable[Contestant]]] = {
    OURS: tidelog,
    "eventsourcing": eventsourcing,
    "Message DB": message_db,
    "Message DB, one category": partial(message_db, categories=False),
    "Emmett": emmett,
}


async def main(rounds: int, seconds: float) -> None:
    async with embedded() as services:
        await make_wal(services)
        contestants: dict[str, Contestant] = {}
        for name, prepare in PEERS.items():
            try:
                contestants[name] = await prepare(services)
            except Skipped as reason:
                print(f"{name}: skipped, {reason}")
        results: dict[tuple[str, int], list[Round]] = {}
        order = list(contestants)
        for _ in range(rounds):
            for callers in CALLERS:
                for name in order:
                    results.setdefault((name, callers), []).append(await contestants[name](callers, seconds))
            order.append(order.pop(0))
    report(results, rounds)


def add_rows(results: dict[tuple[str, int], list[Round]], best: dict[int, float]) -> None:
    callers = CALLERS[-1]
    ours = results[OURS, callers]
    for (name, count), found in results.items():
        if count == callers and name != OURS:
            rate, beside = (statistics.median(one.rate for one in rounds) for rounds in (ours, found))
            ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, found, strict=True))
            is_best = ratio <= best[callers]
            table.row(
                f"durable append, {callers} callers, beside {name}",
                f"{rate:,.0f}/s",
                f"{ratio:.1f} × its {beside:,.0f}/s",
                "≥ 8 ×" if is_best else "",
                met=ratio >= 8 if is_best else None,
            )


def report(results: dict[tuple[str, int], list[Round]], rounds: int) -> None:
    print(f"\n{f'medians of {rounds} rounds':28}{'callers':>8}{'events/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'ours is':>10}")
    best: dict[int, float] = {}
    for (name, callers), found in sorted(results.items(), key=lambda item: item[0][1]):
        rate, p50, p99 = (
            statistics.median(values) for values in zip(*((one.rate, one.p50, one.p99) for one in found), strict=True)
        )
        ratio = statistics.median(ours.rate / one.rate for ours, one in zip(results[OURS, callers], found, strict=True))
        print(f"{name:28}{callers:>8}{rate:>10,.0f}{p50 * 1e3:>9.2f}{p99 * 1e3:>9.2f}{ratio:>9.1f}x")
        if name != OURS:
            best[callers] = min(best.get(callers, ratio), ratio)
    add_rows(results, best)
    for callers, ratio in best.items():
        print(f"  {ratio:.1f} x the best peer at {callers} callers{' (reach: ≥ 8 x)' if callers == 64 else ''}")


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--large", action="store_true", help="for the runs beside other systems only")
    arguments = parser.parse_args()
    uvloop.run(main(arguments.rounds, arguments.seconds))
