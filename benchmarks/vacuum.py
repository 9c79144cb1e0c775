"""Whether anything gets slower while another session holds a snapshot, so that nothing can be vacuumed: runs, timers, the queue.

`python -m benchmarks.vacuum [--minutes 10] [--window 30]`. Three kinds of runs go on side by side: runs of three steps, each with a
timer for its time-out; runs whose first attempt fails, so that a timer brings the second; runs that call a tool. The last window
under the snapshot is compared with a window before it and a window after it. All processes are those of users.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import cpu_by_part
from benchmarks.run_load import Load, Order, Outcome
from benchmarks.run_server import Tidelog, run, target
from benchmarks.runs import faults
from benchmarks.servers import embedded, make_wal, quiet

WITHIN = 0.10
WARM_S, VACUUM_S = 5.0, 5.0
RETRY = {"max_attempts": 2, "initial_s": 0.5, "max_s": 0.5}


def step(agent: str, **more: Any) -> dict[str, Any]:
    return {"plan": {"kind": "graph", "steps": [{"key": "a", "agent": agent, **more}]}}


LOADS: tuple[tuple[Any, int], ...] = (
    (step("three-steps", timeout_s=3_600), 16),
    (step("second-time", retry=RETRY), 32),
    (run("many-calls", calls=5), 8),
)
"""Each kind of run, and how many are in flight."""
# Each timer brings back the agent run whose attempt failed: its next event.
LATE = """
SELECT extract(epoch FROM after.recorded_at - failed.recorded_at)::float8
       - (convert_from(failed.state, 'UTF8')::jsonb ->> 'delay_s')::float8
FROM event AS failed JOIN event AS after
  ON after.originator_id = failed.originator_id AND after.originator_version = failed.originator_version + 1
WHERE failed.topic = 'agent_run.retry_scheduled' AND after.topic = 'agent_run.resumed' AND after.notification_id > %s
"""
CALLS = "SELECT count(*) FROM event WHERE topic = 'invocation.attempt_started' AND notification_id > %s"
HEAD = "SELECT position FROM log_head"
PAGES = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
STATISTICS_S = 2.0
"""After this time all sessions have reported their numbers."""
DEAD = "SELECT relname, n_dead_tup FROM pg_stat_user_tables WHERE n_dead_tup > 1000 ORDER BY n_dead_tup DESC LIMIT 6"


@dataclass(frozen=True)
class Window:
    """What a window of time had. Rates are by second."""

    runs: float
    timers: float
    late_ms: float
    """Median of the lateness of timers, from the time at which each is due to the event of its command."""
    calls: float
    cpu_ms: float
    """Processor time of all parts for each run of any kind."""
    pages: float
    """Pages that PostgreSQL looked at for each run of any kind. Other work of the machine does not change their number."""
    wrong: str

    def __str__(self) -> str:
        text = f"{self.runs:,.0f} runs/s, {self.timers:,.1f} timers/s, {self.late_ms:,.0f} ms late, {self.calls:,.0f} calls/s"
        return f"{text}; processor {self.cpu_ms:.2f} ms and {self.pages:,.0f} pages a run{self.wrong}"


def go_on(loads: Sequence[Load], seconds: float) -> list[Outcome]:
    with ThreadPoolExecutor(len(loads)) as threads:
        orders = [Order(body, in_flight, seconds=seconds) for body, in_flight in LOADS]
        return list(threads.map(lambda load, order: load.order(order), loads, orders))


def window(loads: Sequence[Load], database: psycopg.Connection[Any], seconds: float) -> Window:
    [(head,)] = database.execute(HEAD).fetchall()
    [(pages,)] = database.execute(PAGES).fetchall()
    before = cpu_by_part([os.getpid()])
    outcomes = go_on(loads, seconds)
    after = cpu_by_part([os.getpid()])
    time.sleep(STATISTICS_S)
    [(pages_after,)] = database.execute(PAGES).fetchall()
    late = [row[0] * 1e3 for row in database.execute(LATE, (head,)).fetchall()]
    [(calls,)] = database.execute(CALLS, (head,)).fetchall()
    took = max(outcome.seconds for outcome in outcomes)
    parts = ("api", "engine", "worker", "PostgreSQL", "NATS")
    cpu = sum(after.get(part, 0.0) - before.get(part, 0.0) for part in parts) * 1e3
    completed = max(1, sum(outcome.completed for outcome in outcomes))
    late_ms = statistics.median(late) if late else float("nan")
    looked_at = (pages_after - pages) / completed
    return Window(outcomes[0].rate, len(late) / took, late_ms, calls / took, cpu / completed, looked_at, faults(outcomes))


def measure(services: EmbeddedServices, folder: Path, minutes: float, seconds: float) -> None:
    tidelog = Tidelog(services, folder)
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        stack.enter_context(tidelog.worker(url, silent=True))
        loads = [stack.enter_context(Load.started(target(url))) for _ in LOADS]
        database = stack.enter_context(psycopg.connect(services.database_url, autocommit=True))
        go_on(loads, WARM_S)
        windows = {"before": window(loads, database, seconds)}
        with psycopg.connect(services.database_url) as other:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT FROM checkpoint")
            go_on(loads, max(1.0, minutes * 60 - seconds))
            windows["held"] = window(loads, database, seconds)
            dead = database.execute(DEAD).fetchall()
        database.execute("VACUUM")
        go_on(loads, VACUUM_S)
        windows["after"] = window(loads, database, seconds)
    report(windows, minutes, dead)


def report(windows: dict[str, Window], minutes: float, dead: Sequence[tuple[str, int]]) -> None:
    print(f"\nAnother session holds a snapshot for {minutes:g} minutes; the window is the last one under the snapshot")
    for name, found in windows.items():
        print(f"  {name:7}{found}")
    print(f"  rows that are gone and stay: {', '.join(f'{name} {count:,}' for name, count in dead)}")
    free, held = [windows["before"], windows["after"]], windows["held"]
    name = f"a snapshot of another session held for {minutes:g} minutes"

    def beside(of: Callable[[Window], float]) -> float:
        return statistics.mean(map(of, free))

    rates: dict[str, Callable[[Window], float]] = {
        "runs/s": lambda one: one.runs, "timers fired/s": lambda one: one.timers, "tool calls/s": lambda one: one.calls,
    }  # fmt: skip
    for what, of in rates.items():
        without = beside(of)
        ratio = of(held) / without if without else float("nan")
        met = ratio >= 1 - WITHIN
        table.row(f"{name}: {what}", f"{of(held):,.1f}", f"{without:,.1f} without, {ratio:.2f} ×", "≥ 0.9 ×", met=met)
    late, cpu = beside(lambda one: one.late_ms), beside(lambda one: one.cpu_ms)
    met = held.late_ms <= late * (1 + WITHIN)
    table.row(f"{name}: timers late", f"p50 {held.late_ms:.0f} ms", f"{late:.0f} ms without", "≤ 1.1 ×", met=met)
    met = held.cpu_ms <= cpu * (1 + WITHIN)
    table.row(f"{name}: processor of a run", f"{held.cpu_ms:.2f} ms", f"{cpu:.2f} ms without", "≤ 1.1 ×", met=met)
    table.row(
        f"{name}: pages that PostgreSQL looks at for a run", f"{held.pages:,.0f}", f"{beside(lambda one: one.pages):,.0f} without"
    )


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), given.minutes, given.window)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--window", type=float, default=30.0, help="seconds")
    asyncio.run(main(parser.parse_args()))
