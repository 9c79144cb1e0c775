"""How soon a pause of many running runs by a filter holds: until nothing new begins, and until all of them are paused.

`python -m benchmarks.pauses [--runs 10000]`. Some of the runs are with a worker, and record a step every few milliseconds; the
others wait for it. What begins is an agent run that is claimed, and a step that is recorded. The clock goes from the request.
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
from benchmarks.machine import cpu_by_part
from benchmarks.run_server import KEY, Tidelog, run
from benchmarks.servers import embedded, make_wal, quiet
from benchmarks.waits import AT_ONCE, asked

REACH_S = 5.0
SETTLED_S = 5.0
LAST = {
    "claim": "SELECT max(extract(epoch FROM recorded_at) * 1000)::float8 FROM event WHERE topic = 'agent_run.claimed'",
    "step": "SELECT max(extract(epoch FROM recorded_at) * 1000)::float8 FROM event WHERE topic = 'agent_run.step_recorded'",
    "pause": "SELECT max(extract(epoch FROM recorded_at) * 1000)::float8 FROM event WHERE topic = 'run.paused'",
}
"""The last time at which something happened."""


def start(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/v1/runs",
        json.dumps(run("works-on")).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()


def act(url: str, action: str, runs: int) -> tuple[float, float, dict[str, Any]]:
    """Seconds until the bulk action has ended, the time of its request in milliseconds, and what came of it."""
    body = {"action": action, "filter": {"agent": "works-on"}, "reason": "measured"}
    found = asked(url, "POST", "/v1/bulk-actions", {**body, "dry_run": True})
    if found["matched"] != runs:
        raise RuntimeError(f"{found['matched']} runs are found instead of {runs}")
    begun, at = time.monotonic(), time.time() * 1000
    id = asked(url, "POST", "/v1/bulk-actions", body)["id"]
    while time.monotonic() - begun < 120:
        time.sleep(0.05)
        for shown in asked(url, "GET", "/v1/bulk-actions?limit=1")["data"]:
            if shown["id"] == id and shown["status"] == "completed":
                return time.monotonic() - begun, at, shown
    raise TimeoutError(f"bulk action {id} has not ended in two minutes")


def measure(services: EmbeddedServices, url: str, runs: int) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for started in [pool.submit(start, url) for _ in range(runs)]:
            started.result()
    time.sleep(SETTLED_S)
    before, load = cpu_by_part([os.getpid()]), os.getloadavg()[0]
    took, at, shown = act(url, "pause", runs)
    used = {part: spent - before.get(part, 0.0) for part, spent in cpu_by_part([os.getpid()]).items()}
    time.sleep(SETTLED_S)
    with psycopg.connect(services.admin_database_url, autocommit=True) as connection:
        found = {name: connection.execute(sql).fetchone() for name, sql in LAST.items()}
    seconds = {name: (row[0] - at) / 1000 for name, row in found.items() if row is not None and row[0] is not None}
    held = max(seconds["claim"], seconds["pause"])
    print(
        f"\npause of {runs:,} running runs: nothing begins after {held:.2f} s ({shown['done']:,} paused), told after {took:.2f} s"
    )
    print(f"  {', '.join(f'the last {name} after {after:.2f} s' for name, after in seconds.items())}; load {load:.1f}")
    print(f"  processor time: {', '.join(f'{part} {spent:.1f} s' for part, spent in used.items())}")
    print(f"  all resumed after {act(url, 'resume', runs)[0]:.2f} s")
    name = f"a pause of {runs:,} running runs by a filter, until nothing begins"
    table.row(name, f"{held:.1f} s", "", f"≤ {REACH_S:g} s", met=held <= REACH_S)


def with_servers(services: EmbeddedServices, folder: Path, runs: int) -> None:
    with ExitStack() as stack:
        tidelog = Tidelog(services, folder)
        url = stack.enter_context(tidelog.up())
        stack.enter_context(tidelog.worker(url))
        measure(services, url, runs)


async def main(runs: int) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(with_servers, services, Path(folder), runs)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    asyncio.run(main(parser.parse_args().runs))
