"""Breakers: how soon the workers of two api processes obey, and what a breaker costs calls that succeed.

`python -m benchmarks.breaker [--rounds 3] [--calls 25]`. The times of the first part are those of the log: from the report that
reaches the threshold to the last attempt that any worker began.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.run_load import Load, Order
from benchmarks.run_server import KEY, Tidelog, run, target
from benchmarks.runs import faults, waits
from benchmarks.servers import embedded, make_wal, quiet

LANES = 16
THRESHOLD = 50
IN_FLIGHT = 64
OPENED = "breaker.opened"


def asked(url: str, path: str, body: Any = None, *, wait: bool = False) -> Any:
    request = urllib.request.Request(  # of this machine
        f"{url}{path}", None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **({"Prefer": "wait=30"} if wait else {})},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def events(url: str, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = 0
    types = "invocation.attempt_started,invocation.failed"
    while True:
        page = asked(url, f"/v1/runs/{run_id}/events?types={types}&limit=1000&after={after}")["data"]
        found += page
        if len(page) < 1000:
            return found
        after = page[-1]["position"]


def obeyed(url: str, far: str) -> tuple[float, int]:
    """Milliseconds from the report that reaches the threshold to the last attempt, and the attempts begun in that time."""
    started = [asked(each, "/v1/runs", run(agent, lanes=LANES)) for each, agent in (
        (url, "calls-until-open"), (far, "calls-until-open-far"),
    )]  # fmt: skip
    for one in started:
        assert asked(url, f"/v1/runs/{one['run_id']}", wait=True)["status"] == "completed"
    told = [event for one in started for event in events(url, one["run_id"])]
    told.sort(key=lambda event: int(event["position"]))
    reports = [event for event in told if event["type"] == "invocation.failed" and event["data"]["error"]["type"] != "BreakerOpen"]
    begun = [event for event in told if event["type"] == "invocation.attempt_started"]
    assert len({event["data"]["worker_id"] for event in begun}) == 2, "both workers call"
    at = datetime.fromisoformat(reports[THRESHOLD - 1]["time"])
    late = [event for event in begun if datetime.fromisoformat(event["time"]) > at]
    last = max((datetime.fromisoformat(event["time"]) for event in late), default=at)
    for state in ("closed", "auto"):
        asked(url, "/v1/tools/benchmark.down/breaker", {"state": state, "reason": "the next round"})
    return (last - at).total_seconds() * 1e3, len(late)


def how_soon(tidelog: Tidelog, url: str, rounds: int) -> None:
    with tidelog.up("--roles", "api") as far, tidelog.worker(far, "-far", silent=True):
        found = [obeyed(url, far) for _ in range(rounds)]
    took = [ms for ms, _ in found]
    print(f"\nFrom the report to the last attempt, two api processes: {', '.join(f'{ms:.0f} ms' for ms in took)}")
    print(f"  attempts begun meanwhile: {', '.join(str(late) for _, late in found)}, of {2 * LANES} callers")
    table.row(
        "an open breaker is obeyed by all workers of two api processes", f"after {max(took):.0f} ms at most",
        f"{statistics.median(took):.0f} ms in the middle", "≤ 100 ms", met=max(took) <= 100,
    )  # fmt: skip


def what_it_costs(load: Load, rounds: int, calls: int) -> None:
    found: dict[str, list[float]] = {"benchmark.echo": [], "benchmark.guarded": []}
    outcomes = []
    for number in range(rounds + 1):
        for tool in sorted(found, reverse=number % 2 == 1):
            outcome = load.order(Order(run("many-calls", calls=calls, tool=tool), IN_FLIGHT, count=IN_FLIGHT, keep=True))
            outcomes.append(outcome)
            if number:  # the first turn warms up
                found[tool].append(len(waits(outcome)) / outcome.seconds)
    without, guarded = (statistics.median(found[tool]) for tool in ("benchmark.echo", "benchmark.guarded"))
    wrong = faults(outcomes)
    print(f"\nCalls a second, {IN_FLIGHT} in flight: {guarded:,.0f} with a breaker, {without:,.0f} without{wrong}")
    table.row(
        f"calls of a tool with a breaker, {IN_FLIGHT} in flight", f"{guarded:,.0f}/s{wrong}",
        f"{guarded / without:.2f} × of {without:,.0f}/s without", "≥ 0.9 ×", met=guarded >= 0.9 * without,
    )  # fmt: skip


def measure(services: EmbeddedServices, folder: Path, rounds: int, calls: int) -> None:
    tidelog = Tidelog(services, folder)
    with tidelog.up() as url, tidelog.worker(url, silent=True), Load.started(target(url)) as load:
        what_it_costs(load, rounds, calls)
        how_soon(tidelog, url, rounds)


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), given.rounds, given.calls)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=25)
    asyncio.run(main(parser.parse_args()))
