"""What agents cost that wait: memory and processor time of all processes, and how soon a signal reaches its agent.

`python -m benchmarks.waits [--agents 10000] [--warm 4000] [--signals 200] [--seconds 20]`. Half of the agents sleep for a year,
half wait for a signal. Before, so many runs of three steps are carried out: what grows with the runs that a process has seen, grew
then. Memory is that of the kernel's count (PSS: shared pages count once), summed over all processes: server, worker, PostgreSQL and
NATS. The clock of a signal goes from its request to the first line of the agent after its wait.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import command, cpu_by_part, part_of, pss_mb, stats, tree
from benchmarks.run_load import quantile
from benchmarks.run_server import KEY, Tidelog, run
from benchmarks.servers import embedded, make_wal, quiet

AT_ONCE = 32
SETTLED_S = 15.0
SUSPENDED = "SELECT count(DISTINCT originator_id) FROM event WHERE topic = 'agent_run.suspended'"
LISTENING = """
SELECT root_id FROM event WHERE topic = 'run.signal_awaited'
"""


def asked(url: str, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(  # of this machine
        f"{url}{path}", None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Prefer": "wait=30"}, method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def memory(root: int) -> dict[str, float]:
    """Megabytes of each part."""
    parts: dict[str, float] = {}
    for pid in tree(root, stats()):
        try:
            part = part_of(command(pid))
            parts[part] = parts.get(part, 0.0) + pss_mb(pid)
        except (OSError, StopIteration):
            continue  # the process has ended
    return parts


def measure(services: EmbeddedServices, url: str, agents: int, warm: int, signals: int, seconds: float) -> None:
    me = os.getpid()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for started in [pool.submit(asked, url, "POST", "/v1/runs", run("three-steps")) for _ in range(warm)]:
            started.result()
    time.sleep(SETTLED_S)
    before, used_before = memory(me), cpu_by_part([me])
    time.sleep(seconds)
    idle = {part: (used - used_before.get(part, 0.0)) / seconds for part, used in cpu_by_part([me]).items()}
    begun = time.monotonic()
    for number in range(agents):
        body = {"agent": "sleeps-or-listens", "input": {"sleeps": number % 2 == 0}}
        request = urllib.request.Request(
            f"{url}/v1/runs", json.dumps(body).encode(), {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=60).close()
    with psycopg.connect(services.admin_database_url, autocommit=True) as connection:
        while (row := connection.execute(SUSPENDED).fetchone()) is None or row[0] < agents:
            if time.monotonic() - begun > 600:
                raise TimeoutError(f"only {row and row[0]} agents were suspended in ten minutes")
            time.sleep(0.2)
        took = time.monotonic() - begun
        time.sleep(SETTLED_S)
        after, used_before = memory(me), cpu_by_part([me])
        time.sleep(seconds)
        used = {part: (used - used_before.get(part, 0.0)) / seconds for part, used in cpu_by_part([me]).items()}
        listening = [str(row[0]) for row in connection.execute(LISTENING).fetchmany(signals)]
    grown = {part: mb - before.get(part, 0.0) for part, mb in after.items() if part != "other"}
    more = sum(grown.values())
    cpu = sum(max(0.0, used.get(part, 0.0) - idle.get(part, 0.0)) for part in grown)
    print(f"\n{agents:,} agents that wait (started and suspended in {took:.0f} s)")
    print(f"  memory: {more:+.0f} MB ({', '.join(f'{part} {mb:+.0f}' for part, mb in grown.items())}) (reach: <= 100 MB)")
    print(f"  processor: {cpu:+.2%} of one core beside {sum(idle[part] for part in grown if part in idle):.2%} before")
    times = []
    for run_id in listening:
        sent = time.time()
        asked(url, "POST", f"/v1/runs/{run_id}/signals", {"name": "go"})
        times.append((asked(url, "GET", f"/v1/runs/{run_id}")["result"] - sent) * 1000)
    times.sort()
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    print(f"  signal to agent: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(times)} (reach: p50 <= 20 ms)")
    table.row(
        f"{agents:,} agents that sleep or wait for a signal", f"{more:+.0f} MB, {cpu:+.2%} of one core", "", "≤ 100 MB, ≤ 1 %",
        met=more <= 100 and cpu <= 0.01,
    )  # fmt: skip
    table.row("a signal reaches its agent, which is in no process", f"p50 {p50:.1f} ms", f"p99 {p99:.1f} ms", "p50 ≤ 20 ms",
              met=p50 <= 20)  # fmt: skip


def with_servers(services: EmbeddedServices, folder: Path, agents: int, warm: int, signals: int, seconds: float) -> None:
    with ExitStack() as stack:
        tidelog = Tidelog(services, folder)
        url = stack.enter_context(tidelog.up())
        stack.enter_context(tidelog.worker(url, options=("--suspend-after", "0.1")))
        measure(services, url, agents, warm, signals, seconds)


async def main(agents: int, warm: int, signals: int, seconds: float) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(with_servers, services, Path(folder), agents, warm, signals, seconds)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--warm", type=int, default=4_000)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    asyncio.run(main(given.agents, given.warm, given.signals, given.seconds))
