"""What limits of a tool cost: calls of a tool with permits and a rate in force, which are not reached, beside one without.

`python -m benchmarks.permits [--rounds 3]`. The two take turns, one call at a time and 64 in flight.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.run_load import Load, Order, quantile
from benchmarks.run_server import Tidelog, run, target
from benchmarks.runs import faults, waits
from benchmarks.servers import embedded, make_wal, quiet

CALLS, MOST = 20, 64
ALLOWED = 1.1
"""A limited call may take so many times as long."""


def measure(services: EmbeddedServices, folder: Path, rounds: int) -> None:
    tidelog = Tidelog(services, folder)
    alone: dict[str, list[float]] = {"echo": [], "limited": []}
    many: dict[str, list[tuple[float, float]]] = {"echo": [], "limited": []}
    outcomes = []
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        load = stack.enter_context(Load.started(target(url)))
        stack.enter_context(tidelog.worker(url))
        for number in range(rounds + 1):
            for name in ("echo", "limited"):
                body = run("many-calls", calls=CALLS, tool=f"benchmark.{name}")
                one, crowd = (load.order(Order(body, at_once, count=at_once, keep=True)) for at_once in (1, MOST))
                outcomes += [one, crowd]
                if number:  # the first turn is for warmth
                    alone[name].append(quantile(waits(one), 0.5))
                    many[name].append((len(waits(crowd)) / crowd.seconds, quantile(waits(crowd), 0.5)))
    wrong = faults(outcomes)
    before, after = statistics.median(alone["echo"]), statistics.median(alone["limited"])
    rate_before, rate_after = (statistics.median(rate for rate, _ in many[name]) for name in ("echo", "limited"))
    print(f"one at a time: p50 {before:.2f} ms without limits, {after:.2f} ms with limits{wrong}")
    print(f"{MOST} in flight: {rate_before:,.0f}/s without limits, {rate_after:,.0f}/s with limits")
    row = f"{after / before - 1:+.0%} of {before:.1f} ms"
    table.row("a call of a tool with limits, one at a time", row, "", "≤ 8 ms, +10%", met=after <= min(8, before * ALLOWED))
    met = rate_after >= max(800, rate_before / ALLOWED)
    table.row(f"the same, {MOST} in flight", f"{rate_after:,.0f}/s", f"{rate_before:,.0f}/s without", "≥ 800/s, -10%", met=met)


async def main(rounds: int) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), rounds)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(main(parser.parse_args().rounds))
