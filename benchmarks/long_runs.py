"""Whether a step costs the same whatever came before: the last tenth of long work beside its first tenth.

`python -m benchmarks.long_runs [--share 1.0] [--only steps]`: one agent run of 10,000 steps, a run of 5,000 calls of a tool, a plan
of 1,000 steps, 10,000 messages to one mailbox. `--share 0.1`: a tenth of each. All processes are those of users. The log says when
each step was recorded; a thread notes meanwhile what the servers have written and what all processes have used.
"""

import argparse
import asyncio
import http.client
import json
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import command, cpu_by_part, part_of, stats, tree
from benchmarks.run_server import KEY, Tidelog, run
from benchmarks.servers import embedded, make_wal, quiet

PARTS, WARM_UP = 10, 100
REACH = 1.2
LOOK_S = 0.1
END_S = 900.0


class Work(NamedTuple):
    name: str
    topic: str
    """Each event of this topic in the run is one step of the work."""
    number: int
    body: Callable[[int], dict[str, Any]]


def plan_of(number: int) -> dict[str, Any]:
    """Ten chains of steps side by side."""
    steps = [{"key": f"s{n}", "agent": "quick", "after": [f"s{n - 10}"] if n >= 10 else []} for n in range(number)]
    return {"plan": {"kind": "graph", "steps": steps}}


def mail_of(number: int) -> dict[str, Any]:
    steps = [{"key": "sender", "agent": "sender"}, {"key": "receiver", "agent": "receiver"}]
    return {"plan": {"kind": "graph", "steps": steps}, "input": {"messages": number, "to": "receiver"}}


WORK = {
    "steps": Work("steps of one agent", "agent_run.step_recorded", 10_000, lambda n: run("many-steps", steps=n, at_once=1)),
    "calls": Work("calls of a tool in one run", "agent_run.call_finished", 5_000, lambda n: run("many-calls", calls=n)),
    "plan": Work("steps of one plan", "run.step_completed", 1_000, plan_of),
    "mail": Work("messages to one mailbox", "agent_run.mail_delivered", 10_000, mail_of),
}


WRITTEN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn, pg_database_size(%s)"


@dataclass
class Watch:
    """What was written and used, at each look: all as sums since the begin."""

    database: str
    at: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    """Of the database on disk."""
    queued: list[float] = field(default_factory=list)
    """What NATS has given to the disk."""
    cpu: list[dict[str, float]] = field(default_factory=list)

    def look(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute(WRITTEN, (self.database,)).fetchone()
        assert row is not None
        self.at.append(time.time())
        self.wal.append(float(row[0]))
        self.size.append(float(row[1]))
        self.queued.append(bytes_of_nats())
        self.cpu.append(cpu_by_part([os.getpid()]))

    def between(self, begin: float, end: float, values: Sequence[float]) -> float:
        return self._value(end, values) - self._value(begin, values)

    def _value(self, at: float, values: Sequence[float]) -> float:
        """A sum at a time between two looks."""
        place = min(max(bisect_left(self.at, at), 1), len(self.at) - 1)
        before, after = self.at[place - 1], self.at[place]
        share = (at - before) / (after - before) if after > before else 0.0
        return values[place - 1] + (values[place] - values[place - 1]) * min(max(share, 0.0), 1.0)


def bytes_of_nats() -> float:
    total = 0
    for pid in tree(os.getpid(), stats()):
        try:
            if part_of(command(pid)) == "NATS":
                text = Path(f"/proc/{pid}/io").read_text()
                total += int(next(line for line in text.splitlines() if line.startswith("write_bytes")).split()[1])
        except (OSError, StopIteration):
            continue  # the process has ended
    return float(total)


@contextmanager
def watched(services: EmbeddedServices) -> Iterator[Watch]:
    watch, over = Watch(str(conninfo_to_dict(services.database_url)["dbname"])), Event()
    with psycopg.connect(services.admin_database_url, autocommit=True) as connection:

        def loop() -> None:
            while not over.wait(LOOK_S):
                watch.look(connection)

        watch.look(connection)
        thread = Thread(target=loop)
        thread.start()
        try:
            yield watch
        finally:
            over.set()
            thread.join()
            watch.look(connection)


def ask(url: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer}")
        return answer
    finally:
        connection.close()


MARKS = """
    SELECT extract(epoch FROM recorded_at)::float8 FROM event WHERE root_id = %s AND topic = %s ORDER BY notification_id
"""
ENDED = "SELECT topic FROM event WHERE originator_id = %s AND topic IN ('run.completed', 'run.failed', 'run.cancelled')"


def until_ended(connection: psycopg.Connection[Any], run_id: str) -> None:
    """Waits for the end of a run. Asks the log, so that the answer costs the same at any length."""
    deadline = time.monotonic() + END_S
    while (row := connection.execute(ENDED, (run_id,)).fetchone()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"run {run_id} has not ended after {END_S:g} s")
        time.sleep(0.2)
    if row[0] != "run.completed":
        raise RuntimeError(f"{row[0]}: {run_id}")


def measure(services: EmbeddedServices, url: str, work: Work, share: float) -> None:
    number = max(PARTS, round(work.number * share))
    with psycopg.connect(services.database_url, autocommit=True) as connection:
        with watched(services) as watch:
            began = time.time()
            run_id = ask(url, "POST", "/v1/runs", work.body(number))["run_id"]
            until_ended(connection, run_id)
        at = [row[0] for row in connection.execute(MARKS, (run_id, work.topic)).fetchall()]
    assert len(at) == number, f"{len(at)} of {number}"
    size = number // PARTS
    first, last = (began, at[size - 1]), (at[number - size - 1], at[-1])
    report(work, number, size, watch, first, last)


def report(work: Work, number: int, size: int, watch: Watch, first: tuple[float, float], last: tuple[float, float]) -> None:
    columns: dict[str, list[float]] = {"WAL, bytes": watch.wal, "database, bytes": watch.size, "NATS, bytes": watch.queued}
    for part in sorted({part for look in watch.cpu for part in look}):
        columns[f"processor of {part}, ms"] = [look.get(part, 0.0) * 1e3 for look in watch.cpu]
    columns["processor of all, ms"] = [sum(look.values()) * 1e3 for look in watch.cpu]
    figures = {"time, ms": ((first[1] - first[0]) * 1e3 / size, (last[1] - last[0]) * 1e3 / size)}
    figures |= {name: (watch.between(*first, sums) / size, watch.between(*last, sums) / size) for name, sums in columns.items()}
    print(f"\n{number:,} {work.name}: per step, in the first and in the last tenth")
    for name, (before, now) in figures.items():
        print(f"  {name:28}{before:12,.2f}{now:12,.2f}   {now / before if before else 0:6.2f} ×", flush=True)
    ratios = {name: now / before for name, (before, now) in figures.items() if before and not name.startswith("processor of")}
    worst = max(ratios.values())
    told = ", ".join(f"{name.partition(',')[0]} {ratio:.2f} ×" for name, ratio in ratios.items())
    table.row(f"{number:,} {work.name}: the last tenth beside the first", told, "", f"≤ {REACH:g} ×", met=worst <= REACH)


def measure_all(services: EmbeddedServices, folder: Path, share: float, names: Sequence[str]) -> None:
    tidelog = Tidelog(services, folder)
    with tidelog.up() as url, tidelog.worker(url):
        with psycopg.connect(services.database_url, autocommit=True) as connection:
            for name in names:
                until_ended(connection, ask(url, "POST", "/v1/runs", WORK[name].body(WARM_UP))["run_id"])
        for name in names:
            measure(services, url, WORK[name], share)


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure_all, services, Path(folder), given.share, given.only or list(WORK))


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", action="append", choices=list(WORK))
    asyncio.run(main(parser.parse_args()))
