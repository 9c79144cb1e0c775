"""The main job from end to end: runs of one agent with three steps of 200 bytes, started and awaited over HTTP, durable.

`python -m benchmarks.runs [--rounds 3] [--seconds 2] [--large] [--idle-workers 64] [--profile]`. All processes are those of users:
PostgreSQL, NATS, `tidelog up` and `tidelog worker`. The client is a process of its own, whose processor time is reported apart.

`--large` adds 10,000 runs at once. `--idle-workers` measures only the cost of so many idle workers. `--profile` measures nothing
and prints the hottest functions of each process.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded import EmbeddedServices
from api.settings import Settings
from benchmarks import idle_workers, own_writes, table
from benchmarks.machine import cpu_by_part, growth_mb
from benchmarks.profiling import profiled
from benchmarks.run_load import Load, Order, Outcome, quantile
from benchmarks.run_server import Tidelog, run, target
from benchmarks.servers import embedded, make_wal, quiet

PARTS = ("api", "engine", "worker", "PostgreSQL", "NATS")
BURST, LARGE_BURST = 1_000, 10_000
TURNS_S = 20.0
"""Seconds after which a slow order is not repeated any more."""
GROWN_MB = 150
PROFILE_S = 10.0


@dataclass(frozen=True)
class Size:
    """`calls` and `steps`: of one run. The last of `in_flight` is also the number of runs with calls or steps side by side."""

    rounds: int = 3
    seconds: float = 2.0
    in_flight: tuple[int, ...] = (1, 16, 64)
    calls: int = 20
    steps: int = 100

    @property
    def most(self) -> int:
        return self.in_flight[-1]


@dataclass(frozen=True)
class Measured:
    """One order, and the processor time of each part of the system meanwhile, in milliseconds a run."""

    outcome: Outcome
    cpu: dict[str, float]

    @property
    def cpu_ms(self) -> float:
        return sum(self.cpu.values())


def measured(load: Load, order: Order, parts: Iterable[str] = PARTS) -> Measured:
    before = cpu_by_part([os.getpid()])
    outcome = load.order(order)
    after = cpu_by_part([os.getpid()])
    runs = max(1, outcome.completed)
    return Measured(outcome, {part: (after.get(part, 0.0) - before.get(part, 0.0)) * 1e3 / runs for part in parts})


def turns(rounds: int, seconds: float = TURNS_S) -> Iterator[int]:
    """The numbers of the rounds. No round begins after so many seconds, so that a slow machine or version is measured, too."""
    began = time.monotonic()
    for number in range(rounds):
        if number and time.monotonic() - began > seconds:
            return
        yield number


def middle(rounds: Iterable[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(map(of, rounds))


def by_part(rounds: list[Measured]) -> str:
    return ", ".join(f"{part} {middle(rounds, lambda one: one.cpu[part]):.2f}" for part in rounds[0].cpu)  # noqa: B023  # used at once


def faults(outcomes: Iterable[Outcome]) -> str:
    """What was refused or failed; empty if all went well."""
    found = list(outcomes)
    refused, failed = sum(one.refused for one in found), sum(one.failed for one in found)
    for why in dict.fromkeys(why for one in found for why in one.why):
        print(f"    {why}")
    return f"; {refused:,} refused, {failed:,} failed" if refused or failed else ""


def rates(load: Load, size: Size) -> dict[int, list[Measured]]:
    load.order(Order(run("three-steps"), 16, seconds=size.seconds / 2))
    found: dict[int, list[Measured]] = {in_flight: [] for in_flight in size.in_flight}
    for _ in range(size.rounds):
        for in_flight in size.in_flight:
            found[in_flight].append(measured(load, Order(run("three-steps"), in_flight, seconds=size.seconds)))
    return found


def report_rates(found: dict[int, list[Measured]]) -> None:
    print("\nRuns of three steps, started and awaited over HTTP (medians); processor time in ms a run")
    for in_flight, rounds in found.items():
        rate, p50, p99, cpu, client = (
            middle(rounds, of)
            for of in (
                lambda one: one.outcome.rate,
                lambda one: one.outcome.p50_ms,
                lambda one: one.outcome.p99_ms,
                lambda one: one.cpu_ms,
                lambda one: one.outcome.cpu * 1e3 / max(1, one.outcome.completed),
            )
        )
        wrong = faults(one.outcome for one in rounds)
        text = f"{rate:,.0f} runs/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        print(f"  {in_flight:3} in flight: {text}{wrong}")
        print(f"       processor: {cpu:.2f} ms ({by_part(rounds)}); client {client:.2f}")
        reach, met = ("p50 ≤ 6 ms", p50 <= 6) if in_flight == 1 else ("", None)
        name = "a run of three steps over HTTP, one at a time" if in_flight == 1 else f"the same, {in_flight} in flight"
        table.row(name, text + wrong, "", reach, met=met)
        if in_flight == max(found):
            costs = f"{cpu:.1f} ms ({by_part(rounds)})"
            table.row(f"the same, {in_flight} in flight: processor", costs, f"client {client:.2f} ms", "≤ 3.5 ms", met=cpu <= 3.5)


def burst(load: Load, size: Size, count: int) -> None:
    outcomes: list[Outcome] = []
    grown: list[float] = []
    for _ in turns(size.rounds):
        with growth_mb([os.getpid()]) as parts:
            outcomes.append(load.order(Order(run("three-steps"), count, count=count)))
        grown.append(max(parts.get("api", 0.0), parts.get("engine", 0.0)))
        growth = ", ".join(f"{part} {parts.get(part, 0.0):+.0f} MB" for part in ("api", "engine", "worker"))
        print(f"  {count:,} at once: {outcomes[-1].completed:,} completed after {outcomes[-1].seconds:.2f} s; {growth}")
    wrong = faults(outcomes)
    middle_one = sorted(outcomes, key=lambda one: one.seconds)[len(outcomes) // 2]
    text = f"{middle_one.completed:,} completed after {middle_one.seconds:.1f} s ({middle_one.rate:,.0f}/s){wrong}"
    met = all(one.completed == count for one in outcomes) and max(grown) <= GROWN_MB
    beside = f"api or engine {max(grown):+.0f} MB at most"
    table.row(f"{count:,} runs at once", text, beside, f"none refused, ≤ {GROWN_MB} MB more", met=met)


def calls(load: Load, size: Size) -> None:
    """Calls of a tool. A worker carries each call out, and the result is in the log when the agent goes on."""
    alone: list[float] = []
    many: list[tuple[float, float, float]] = []
    outcomes = []
    body = run("many-calls", calls=size.calls)
    for _ in turns(size.rounds):
        outcomes.append(load.order(Order(body, 1, count=1, keep=True)))
        alone += waits(outcomes[-1])
        outcomes.append(load.order(Order(body, size.most, count=size.most, keep=True)))
        found = waits(outcomes[-1])
        many.append((len(found) / outcomes[-1].seconds, quantile(found, 0.5), quantile(found, 0.99)))
    rate, p50, p99 = map(statistics.median, zip(*many, strict=True))
    one = quantile(sorted(alone), 0.5)
    wrong = faults(outcomes)
    print(f"\nCalls of a tool: one at a time p50 {one:.1f} ms{wrong}")
    print(f"  {size.most} in flight {rate:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    table.row("a tool call through the whole saga, one at a time", f"p50 {one:.1f} ms", "", "p50 ≤ 8 ms", met=one <= 8)
    table.row(f"the same, {size.most} in flight", f"{rate:,.0f}/s, p50 {p50:.1f} ms{wrong}", "", "≥ 800/s", met=rate >= 800)


def waits(outcome: Outcome) -> list[float]:
    """How long each call of the runs took, in milliseconds, ascending."""
    return sorted(wait for answer in outcome.answers for wait in answer["run"]["result"]["waits_ms"])


def steps(load: Load, size: Size) -> None:
    variants = {
        "steps of one agent, one after the other": (1, 1, 800),
        f"the same, {size.most} runs side by side": (size.most, 1, 5_000),
        f"the same, {size.most} runs, ten steps of each at a time": (size.most, 10, None),
    }
    print()
    for name, (at_once, together, reach) in variants.items():
        found, outcomes = [], []
        for _ in turns(size.rounds):
            outcome = load.order(Order(run("many-steps", steps=size.steps, at_once=together), at_once, count=at_once, keep=True))
            outcomes.append(outcome)
            took = outcome.answers[0]["run"]["result"]["seconds"] if at_once == 1 and outcome.answers else outcome.seconds
            found.append(outcome.completed * size.steps / took)
        rate, wrong = statistics.median(found), faults(outcomes)
        print(f"  {name}: {rate:,.0f} steps/s{wrong}")
        goal = "" if reach is None else f"≥ {reach:,}/s"
        table.row(name, f"{rate:,.0f} steps/s{wrong}", "", goal, met=None if reach is None else rate >= reach)


def two_apis(tidelog: Tidelog, load: Load, size: Size, one: float) -> None:
    """The client speaks to the first api process, the worker to the second. `one`: runs a second with one api process."""
    with tidelog.up("--roles", "api") as url, tidelog.worker(url, "-far"):
        load.order(Order(run("three-steps-far"), 16, seconds=1.0))
        found = [measured(load, Order(run("three-steps-far"), size.most, seconds=size.seconds)) for _ in range(size.rounds)]
    rate, wrong = middle(found, lambda round: round.outcome.rate), faults(round.outcome for round in found)
    ratio = rate / one if one else float("nan")
    print(f"\nTwo api processes, the worker at the other one: {rate:,.0f} runs/s, {ratio:.2f} × of one{wrong}")
    print(f"       processor: {middle(found, lambda round: round.cpu_ms):.2f} ms ({by_part(found)})")
    table.row(
        f"two api processes, the worker at the other one, {size.most} in flight",
        f"{rate:,.0f} runs/s{wrong}", f"{ratio:.2f} × of one", "≥ 0.8 ×", met=ratio >= 0.8,
    )  # fmt: skip


def slow_way(tidelog: Tidelog, size: Size) -> None:
    """Runs whose sagas react after the append, as they do after a failure."""
    with tidelog.up(TIDELOG_REACTIONS_IN_APPEND="false") as url, tidelog.worker(url), Load.started(target(url)) as load:
        load.order(Order(run("three-steps"), 16, seconds=size.seconds / 2))
        found = [measured(load, Order(run("three-steps"), size.most, seconds=size.seconds)) for _ in range(size.rounds)]
    rate, wrong = middle(found, lambda one: one.outcome.rate), faults(one.outcome for one in found)
    print(f"\nReactions in the append switched off: {rate:,.0f} runs/s{wrong}")
    print(f"       processor: {middle(found, lambda one: one.cpu_ms):.2f} ms ({by_part(found)})")
    name = f"reactions in the append switched off, {size.most} in flight"
    table.row(name, f"{rate:,.0f} runs/s{wrong}", "", "≥ 100/s", met=rate >= 100)


def profile(services: EmbeddedServices, folder: Path) -> None:
    tidelog, in_flight = Tidelog(services, folder), Size().most
    with tidelog.up() as url, tidelog.worker(url), Load.started(target(url)) as load:
        load.order(Order(run("three-steps"), in_flight, seconds=PROFILE_S / 5))
        with profiled(PROFILE_S):
            outcome = load.order(Order(run("three-steps"), in_flight, seconds=PROFILE_S))
        print(f"\n{in_flight} in flight under the profiler: {outcome.rate:,.0f} runs/s{faults([outcome])}")


def measure(services: EmbeddedServices, folder: Path, size: Size, bursts: tuple[int, ...]) -> None:
    tidelog = Tidelog(services, folder)
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        load = stack.enter_context(Load.started(target(url)))
        with tidelog.worker(url):
            found = rates(load, size)
            report_rates(found)
            for in_flight in (0, size.most):
                own_writes.measure(load, url, in_flight, seconds=2 * size.seconds)
            for count in bursts:
                burst(load, size, count)
            calls(load, size)
            steps(load, size)
        two_apis(tidelog, load, size, middle(found[size.most], lambda one: one.outcome.rate))
    if "reactions_in_append" in Settings.model_fields:
        slow_way(tidelog, size)


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            if given.idle_workers:
                await asyncio.to_thread(idle_workers.measure, services, Path(folder), given.idle_workers)
                return
            if given.profile:
                await asyncio.to_thread(profile, services, Path(folder))
                return
            bursts = (BURST, LARGE_BURST) if given.large else (BURST,)
            await asyncio.to_thread(measure, services, Path(folder), Size(given.rounds, given.seconds), bursts)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=Size.rounds)
    parser.add_argument("--seconds", type=float, default=Size.seconds)
    parser.add_argument("--large", action="store_true", help="also 10,000 runs at once")
    parser.add_argument("--profile", action="store_true", help="print the hottest functions of each process")
    parser.add_argument("--idle-workers", type=int, default=0, metavar="N")
    asyncio.run(main(parser.parse_args()))
