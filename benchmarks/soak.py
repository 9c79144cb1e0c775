"""Whether anything grows but the log, while runs go on evenly for a long time.

`python -m benchmarks.soak [--minutes 30] [--hours 0] [--rate 50]`. Each five seconds: memory, descriptors and threads of each part,
connections of PostgreSQL, the size of each table and of each folder. What grows is judged by the slope of the last two thirds: in
the first third caches fill. All processes are those of users.

The log may grow, and so may what holds what users made: the read models of runs, calls and messages, and the copy of the log in
JetStream. So may the dedupe keys of commands, which have a horizon, and WAL, which has a bound.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import psycopg

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import PROC, command, part_of, stats, tree
from benchmarks.run_load import Load, Order, Outcome
from benchmarks.run_server import Tidelog, run, target
from benchmarks.runs import faults
from benchmarks.servers import embedded, make_wal, quiet
from benchmarks.vacuum import RETRY, step

LOOK_S = 5.0
PARTS = ("api", "engine", "worker", "PostgreSQL", "NATS")
USERS = frozenset({"event", "command", "snapshot", "run", "run_step", "run_call", "invocation", "message", "work_log_tally"})
"""Tables of the log, and of what users made. `work_log`: its partitions have names of their own."""
GROWING_FOLDERS = frozenset({"pg_wal", "base", "pg_xact"})
"""Folders of PostgreSQL with WAL, tables (which are looked at one by one) and the states of transactions."""
COPIES, NO_COPY = "TIDELOG_", "TIDELOG_WORK_"
"""Streams with these names are copies of the log, but for those of the work queue."""
TABLES = """
SELECT relname, pg_total_relation_size(oid)::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
LOADS: tuple[tuple[Any, float], ...] = (
    (run("three-steps"), 0.8),
    (run("many-calls", calls=1), 0.1),
    (step("second-time", timeout_s=3_600, retry=RETRY), 0.1),
)
"""Each kind of run, and its share of the rate."""


class Kind(NamedTuple):
    unit: str
    size: float
    """Of the unit."""
    floor: float
    """Units by which a value may move without growing: a page, a buffer, a connection that is made again."""


KINDS = {
    "memory": Kind("MB", 1024 * 1024, 6.0),
    "descriptors": Kind("", 1, 4.0),
    "threads": Kind("", 1, 1.0),
    "connections": Kind("", 1, 2.0),
    "table": Kind("KB", 1024, 512.0),
    "files": Kind("KB", 1024, 1_024.0),
}
SHARE = 0.03
"""Of its mean that a value may move in the time that is judged."""


@dataclass
class Values:
    """What was seen of one thing, over time."""

    at: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def grown(self, begin: float) -> float:
        """The growth since a time, by the slope of all values since. 0 with fewer than three values."""
        pairs = [(at, value) for at, value in zip(self.at, self.seen, strict=True) if at >= begin]
        if len(pairs) < 3:
            return 0.0
        times, values = zip(*pairs, strict=True)
        middle, mean = sum(times) / len(times), sum(values) / len(values)
        spread = sum((at - middle) ** 2 for at in times)
        slope: float = sum((at - middle) * (value - mean) for at, value in pairs) / spread if spread else 0.0
        return slope * float(times[-1] - times[0])

    def mean(self, begin: float) -> float:
        values = [value for at, value in zip(self.at, self.seen, strict=True) if at >= begin]
        return sum(values) / len(values) if values else 0.0


class Soak:
    """Looks at everything that must not grow."""

    def __init__(self, folder: Path, homes: Sequence[Path]) -> None:
        self.began = time.monotonic()
        self.values: dict[tuple[str, str], Values] = defaultdict(Values)
        """By kind and name."""
        self._folders = [folder, *homes]

    def look(self, connection: psycopg.Connection[Any]) -> None:
        sums: dict[tuple[str, str], float] = defaultdict(float)
        for pid in tree(os.getpid(), stats()):
            part = part_of(command(pid))
            if part in PARTS:
                for kind, value in used(pid):
                    sums[kind, part] += value
        for name, size in connection.execute(TABLES).fetchall():
            if name not in USERS and not name.startswith("work_log_2"):
                sums["table", name] = size
        [(count,)] = connection.execute(CONNECTIONS).fetchall()
        sums["connections", "PostgreSQL"] = count
        for folder in self._folders:
            for name, size in sizes(folder):
                sums["files", name] += size
        now = time.monotonic() - self.began
        for key, value in sums.items():
            self.values[key].at.append(now)
            self.values[key].seen.append(value)

    def report(self, outcomes: Sequence[Outcome], minutes: float) -> None:
        begin = (time.monotonic() - self.began) / 3
        grew: dict[str, list[str]] = defaultdict(list)
        counts: dict[str, int] = defaultdict(int)
        for (kind, name), values in sorted(self.values.items()):
            unit, size, floor = KINDS[kind]
            mean, grown = values.mean(begin) / size, values.grown(begin) / size
            counts[kind] += 1
            too_much = grown > max(floor, mean * SHARE)
            if too_much:
                grew[kind].append(f"{name} {grown:+,.0f} {unit} to {values.seen[-1] / size:,.0f}".rstrip())
            if too_much or kind in ("memory", "descriptors", "threads", "connections") or grown > floor / 4:
                print(f"  {kind:12}{name:24}{mean:12,.1f} {unit:3}{grown:+10,.2f}{'  grows' if too_much else ''}")
        completed, rate = sum(one.completed for one in outcomes), sum(one.rate for one in outcomes)
        wrong = faults(outcomes)
        for kind, count in counts.items():
            found = "; ".join(grew[kind]) or "nothing grew"
            name = f"{rate:,.0f} runs/s for {minutes:g} minutes, {completed:,} runs: {kind}"
            table.row(name, f"{found}{wrong}", f"{count} looked at", "nothing grows", met=not grew[kind] and not wrong)


def used(pid: int) -> list[tuple[str, float]]:
    """Memory of the process alone (shared buffers of PostgreSQL are of all), descriptors, threads. Empty if it has ended."""
    try:
        status = dict(line.split(":", 1) for line in (PROC / str(pid) / "status").read_text().splitlines() if ":" in line)
        files = float(len(os.listdir(PROC / str(pid) / "fd")))
        return [
            ("memory", float(status["RssAnon"].split()[0]) * 1024),
            ("descriptors", files),
            ("threads", float(status["Threads"])),
        ]
    except (OSError, KeyError):
        return []


def sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """The folders with files in them, and the bytes, without the log and the tables of PostgreSQL."""
    for path, _, files in os.walk(folder):
        inside = Path(path).relative_to(folder)
        if any(name in GROWING_FOLDERS or (name.startswith(COPIES) and not name.startswith(NO_COPY)) for name in inside.parts):
            continue
        total = 0
        for file in files:
            try:
                total += os.stat(os.path.join(path, file)).st_size
            except OSError:
                continue  # the file has been removed
        if files:
            yield "/".join(inside.parts[-4:]) or ".", total


@contextmanager
def looked_at(soak: Soak, services: EmbeddedServices) -> Iterator[None]:
    over, failed = Event(), list[Exception]()
    with psycopg.connect(services.database_url, autocommit=True) as connection:

        def loop() -> None:
            try:
                while not over.wait(LOOK_S):
                    soak.look(connection)
            except Exception as error:  # noqa: BLE001  # raised at the end of the block
                failed.append(error)

        thread = Thread(target=loop)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
    if failed:
        raise failed[0]


def measure(services: EmbeddedServices, folder: Path, minutes: float, rate: float) -> None:
    tidelog = Tidelog(services, folder)
    places = services.describe()
    homes = [Path(str(places["home"]))]
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        stack.enter_context(tidelog.worker(url, silent=True))
        loads = [stack.enter_context(Load.started(target(url))) for _ in LOADS]
        orders = [Order(body, 32, seconds=minutes * 60, rate=rate * share) for body, share in LOADS]
        soak = Soak(folder, homes)
        print(f"\n{rate:g} runs/s for {minutes:g} minutes: mean and growth in the last two thirds")
        with looked_at(soak, services), ThreadPoolExecutor(len(loads)) as threads:
            outcomes = list(threads.map(lambda load, order: load.order(order), loads, orders))
        soak.report(outcomes, minutes)


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), given.hours * 60 or given.minutes, given.rate)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--hours", type=float, default=0.0, help="in place of minutes")
    parser.add_argument("--rate", type=float, default=50.0, help="runs a second")
    asyncio.run(main(parser.parse_args()))
