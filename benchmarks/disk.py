"""How much disk a run takes: the tables and indexes of the log, those of the read models, and the streams of NATS.

`python -m benchmarks.disk [--runs 2000]`. Runs of one agent with three steps of 200 bytes, as in `benchmarks.runs`. All tables are
vacuumed after a first share of the runs, and again after the others; what grew in between counts. Space that is used again (old
versions of rows, the write-ahead log) is no part of the figures.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nats
import psycopg

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.run_load import Load, Order
from benchmarks.run_server import Tidelog, run, target
from benchmarks.servers import embedded, quiet

RUNS, FIRST_SHARE, IN_FLIGHT = 2_000, 0.25, 64
LOG = frozenset({"event", "command", "log_head", "tracking"})
"""Tables of the log. All others can be made anew from these, or hold work under way."""
LOG_REACH, ALL_REACH = 9 * 1024, 20 * 1024
QUIET_S, SETTLE_S = 2.0, 60.0

SIZES = """
    SELECT owner.relname, relation.relname, pg_table_size(relation.oid)
    FROM pg_class AS relation
    LEFT JOIN pg_index ON pg_index.indexrelid = relation.oid
    JOIN pg_class AS owner ON owner.oid = coalesce(pg_index.indrelid, relation.oid)
    WHERE relation.relnamespace = 'public'::regnamespace AND relation.relkind IN ('r', 'i')
"""
CHANGES = "SELECT coalesce(sum(n_tup_ins), 0) FROM pg_stat_user_tables"


@dataclass(frozen=True)
class Disk:
    relations: Counter[tuple[str, str]]
    """(table, table or index) → bytes."""
    streams: Counter[str]
    """Stream of NATS → bytes of its messages and their headers."""
    nats: int
    """Bytes of all files of NATS."""

    @property
    def log(self) -> int:
        return sum(size for (owner, _), size in self.relations.items() if owner in LOG)

    @property
    def all(self) -> int:
        return sum(self.relations.values()) + self.nats

    def since(self, before: "Disk") -> "Disk":
        relations, streams = Counter(self.relations), Counter(self.streams)
        relations.subtract(before.relations)
        streams.subtract(before.streams)
        return Disk(relations, streams, self.nats - before.nats)


def settle(url: str) -> Counter[tuple[str, str]]:
    """Waits until nothing is written any more, vacuums all tables, and returns their sizes."""
    with psycopg.connect(url, autocommit=True) as connection:
        deadline, last = time.monotonic() + SETTLE_S, -1
        while time.monotonic() < deadline:
            row = connection.execute(CHANGES).fetchone()
            assert row is not None
            if int(row[0]) == last:
                break
            last = int(row[0])
            time.sleep(QUIET_S)
        connection.execute("VACUUM")
        connection.execute("CHECKPOINT")
        return Counter({(owner, name): int(size) for owner, name, size in connection.execute(SIZES).fetchall()})


async def stream_sizes(url: str) -> Counter[str]:
    client = await nats.connect(url)
    try:
        return Counter({str(info.config.name): info.state.bytes for info in await client.jetstream().streams_info()})
    finally:
        await client.close()


def disk(services: EmbeddedServices) -> Disk:
    relations = settle(services.admin_database_url)
    files = sum(path.stat().st_blocks * 512 for path in (services.home / "nats").rglob("*") if path.is_file())
    return Disk(relations, asyncio.run(stream_sizes(services.nats_url)), files)


def measure(services: EmbeddedServices, folder: Path, runs: int) -> None:
    first = max(1, round(runs * FIRST_SHARE))
    tidelog = Tidelog(services, folder)
    with tidelog.up() as url, tidelog.worker(url), Load.started(target(url)) as load:
        assert load.order(Order(run("three-steps"), IN_FLIGHT, count=first)).completed == first
        before = disk(services)
        assert load.order(Order(run("three-steps"), IN_FLIGHT, count=runs)).completed == runs
        report(disk(services).since(before), runs)


def report(grown: Disk, runs: int) -> None:
    print(f"\nDisk of a run of three steps, after vacuum ({runs:,} runs): bytes a run")
    for (owner, name), size in sorted(grown.relations.items(), key=lambda item: (item[0][0], -item[1])):
        if size:
            print(f"  {owner:24}{'' if name == owner else name:36}{size / runs:10,.0f}")
    for stream, size in grown.streams.items():
        print(f"  NATS, messages of {stream:42}{size / runs:10,.0f}")
    log, database, queue = (size / runs for size in (grown.log, sum(grown.relations.values()), grown.nats))
    print(f"  log {log:,.0f}, PostgreSQL {database:,.0f}, files of NATS {queue:,.0f}")
    name = "disk of a run of three steps, after vacuum"
    table.row(f"{name}: tables and indexes of the log", f"{log / 1024:.1f} KB", "", "≤ 9 KB", met=log <= LOG_REACH)
    told = f"PostgreSQL {database / 1024:.1f} KB, NATS {queue / 1024:.1f} KB"
    table.row(f"{name}: PostgreSQL and NATS", told, "", "≤ 20 KB in all", met=grown.all / runs <= ALL_REACH)


async def main(runs: int) -> None:
    async with embedded() as services:
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), runs)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    asyncio.run(main(parser.parse_args().runs))
