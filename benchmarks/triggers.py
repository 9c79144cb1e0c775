"""What triggers cost those who append: runs of three steps, with 1,000 triggers and without, in turns; and what a firing takes.

`python -m benchmarks.triggers [--rounds 3] [--triggers 1000]`. Most triggers are about other events than those of runs; ten are
about the ends of runs, with a condition that does not hold. The clock of a run goes from its request to the answer with its end:
through appends, the reader of the log, workers and back. The clock of a firing goes from the event to `trigger.fired`, by the log.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.run_load import Load, Order, quantile
from benchmarks.run_server import KEY, Tidelog, run, target
from benchmarks.runs import faults, measured
from benchmarks.servers import embedded, make_wal, quiet

TOPICS = ("project.removed", "tool.removed", "breaker.opened", "message.sent", "context.value_set", "chain.failed")
ON_RUNS = 10
AT_ONCE = (1, 16)
STATES = (("without", "pause"), ("with", "resume"))
ALLOWED = 1.05
FIRED = 50
READ_S = 3.0
"""Seconds in which all readers of the log have read that a thousand triggers changed."""


def asked(url: str, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(  # of this machine
        f"{url}{path}", None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}, method=method,
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def create(url: str, number: int) -> str:
    name, on = f"benchmark.{number}", {"topics": [TOPICS[number % len(TOPICS)]]}
    if number < ON_RUNS:
        on = {"topics": ["run.completed"], "when": f"event.actor == 'nobody-{number}'"}  # type: ignore[dict-item]
    asked(url, "POST", "/v1/triggers", {"name": name, "on": on, "start": {"agent": "three-steps"}})
    return name


def each(url: str, names: Sequence[str], what: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for answer in [pool.submit(asked, url, "POST", f"/v1/triggers/{name}/{what}", {}) for name in names]:
            answer.result()
    time.sleep(READ_S)


def firing(url: str, load: Load) -> list[float]:
    """Milliseconds from an event to the firing that it brings."""
    on = {"topics": ["run.started"], "when": "event.actor.startsWith('key:')"}
    asked(url, "POST", "/v1/triggers", {"name": "measured", "on": on, "start": {"agent": "three-steps"}})
    load.order(Order(run("three-steps"), 1, count=FIRED))
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while len(found) < FIRED and time.monotonic() < deadline:
        found = asked(url, "GET", "/v1/triggers/measured/firings?limit=1000")["data"]
    took = []
    for one in found:
        if one["kind"] != "fired":
            raise RuntimeError(f"the trigger did not fire: {one}")
        event = asked(url, "GET", f"/v1/events?root_id={one['event'].partition(':')[0]}&types=run.started")["data"][0]
        took.append((datetime.fromisoformat(one["at"]) - datetime.fromisoformat(event["time"])).total_seconds() * 1e3)
    asked(url, "DELETE", "/v1/triggers/measured")
    return took


def measure(services: EmbeddedServices, folder: Path, rounds: int, triggers: int) -> None:
    tidelog = Tidelog(services, folder)
    found: dict[tuple[int, str], list[float]] = {}
    spent: dict[tuple[int, str], list[float]] = {}
    outcomes = []
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        load = stack.enter_context(Load.started(target(url)))
        stack.enter_context(tidelog.worker(url))
        names = [create(url, number) for number in range(triggers)]
        for number in range(rounds + 1):
            for state, what in STATES if number % 2 else STATES[::-1]:
                each(url, names, what)
                for at_once in AT_ONCE:
                    one = measured(load, Order(run("three-steps"), at_once, count=300 if at_once > 1 else 150))
                    outcomes.append(one.outcome)
                    if number:  # the first turn is for warmth
                        found.setdefault((at_once, state), []).append(one.outcome.p50_ms)
                        spent.setdefault((at_once, state), []).append(one.cpu["engine"])
        took = firing(url, load)
    print(f"\nRuns of three steps, with {triggers:,} triggers and without{faults(outcomes)}")
    for at_once in AT_ONCE:
        before, after = (statistics.median(found[at_once, state]) for state in ("without", "with"))
        print(f"  {at_once:>3} in flight: p50 {before:.2f} ms without, {after:.2f} ms with, {after / before - 1:+.1%}")
        cpu_before, cpu_after = (statistics.median(spent[at_once, state]) for state in ("without", "with"))
        print(f"      of the engine, processor time a run: {cpu_before:.2f} ms without, {cpu_after:.2f} ms with")
        row = f"{after / before - 1:+.0%} of {before:.1f} ms"
        table.row(f"a run with {triggers:,} triggers, {at_once} in flight, p50", row, "", "+5%", met=after <= before * ALLOWED)
    p50, p99 = quantile(sorted(took), 0.5), quantile(sorted(took), 0.99)
    print(f"  from the event to the firing: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    table.row("from an event to what a trigger starts", f"{p50:.1f} ms", f"p99 {p99:.1f} ms", "", met=True)


async def main(rounds: int, triggers: int) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), rounds, triggers)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--triggers", type=int, default=1_000)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.triggers))
