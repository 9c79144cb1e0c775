"""The costs of an idle `tidelog up`, and the time of its start: memory, CPU, database statements, seconds to ready.

`python -m benchmarks.idle [--seconds 20]`. Memory is the resident memory of the kernel's count (RSS), summed over the supervisor
and the role processes, without Postgres and NATS. Shared pages count once for each process.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
import psycopg

from benchmarks import table
from benchmarks.machine import cpu_seconds, python_processes, rss_mb
from benchmarks.servers import free_port

SETTLED_S = 12.0
"""A process of PostgreSQL reports its transactions up to ten seconds late, once it is idle: those of the start are not counted."""


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int, float]:
    """Starts the real command; returns it, its port, and the seconds until it was ready."""
    port, began = free_port(), time.perf_counter()
    command = [sys.executable, "-m", "api.cli.main", "up", "--port", str(port), "--data-dir", str(folder), "--no-worker"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while time.perf_counter() - began < 60:
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health/ready", timeout=1.0).status_code == 200:
                return child, port, time.perf_counter() - began
        except httpx2.HTTPError:
            pass
        if child.poll() is not None:
            raise RuntimeError(f"`tidelog up` ended with status {child.returncode}")
        time.sleep(0.02)
    raise TimeoutError("`tidelog up` was not ready after 60 s")


def stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)
    child.wait(30)


def statements(url: str) -> tuple[int, float]:
    """The number of transactions so far, and the time. Each statement of the server is a transaction of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return row[0], time.perf_counter()


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix="tidelog-bench-") as base:
        os.chmod(base, 0o711)
        folder = Path(base) / "data"
        child, _, cold = start(folder)
        stop(child)
        warm = []
        for _ in range(3):
            child, _, took = start(folder)
            warm.append(took)
            if len(warm) < 3:
                stop(child)
        try:
            measure(child, seconds)
        finally:
            stop(child)
        ready = statistics.median(warm)
        print(f"  start to ready: cold {cold:.2f} s, warm {ready:.2f} s (reach: ≤ 3 s)")
        table.row("`tidelog up` to ready", f"warm {ready:.1f} s, cold {cold:.1f} s", "", "warm ≤ 3 s", met=ready <= 3)


def measure(child: subprocess.Popen[bytes], seconds: float) -> None:
    time.sleep(SETTLED_S)
    pids = python_processes(child.pid)
    url = database_url(pids)
    before, (count, began) = {pid: cpu_seconds(pid) for pid in pids}, statements(url)
    time.sleep(seconds)
    (after_count, ended) = statements(url)
    cpu = sum(cpu_seconds(pid) - before[pid] for pid in pids) / (ended - began)
    rate = (after_count - count - 2) / (ended - began)  # without the two statements of this benchmark
    memory = {pid: rss_mb(pid) for pid in pids}
    print(f"\nIdle for {seconds:g} s: {len(pids)} processes")
    print(f"  resident memory {sum(memory.values()):.0f} MB ({', '.join(f'{mb:.0f}' for mb in memory.values())}) (reach: ≤ 200 MB)")
    print(f"  CPU {cpu:.1%} of one core (reach: ≤ 3 %)")
    print(f"  database transactions {rate:.1f}/s (reach: ≤ 5/s)")
    table.row(
        "idle: all roles, without PostgreSQL and NATS",
        f"{sum(memory.values()):.0f} MB, {cpu:.1%} of one core, {rate:.1f} transactions/s",
        "",
        "≤ 200 MB, ≤ 3 %, ≤ 5/s",
        met=sum(memory.values()) <= 200 and cpu <= 0.03 and rate <= 5,
    )


def database_url(pids: list[int]) -> str:
    """The URL of the running server's database, from the environment of its role processes."""
    for pid in pids:
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == b"TIDELOG_DATABASE_URL":
                return value.decode()
    raise LookupError("no role process was given a database")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    main(parser.parse_args().seconds)
