"""Runs of Tidelog beside other systems of durable execution: three steps of 200 bytes, started and awaited by one HTTP request.

`python -m benchmarks.run_peers [--rounds 3] [--seconds 2] [--steps 1000] [--large]`; part of `make bench-peers`. All systems are
up at once on this machine and take turns. At the end each has one run of many steps: what a step costs, by its number. Each step's
result is on disk (fsync) before the next step begins. The client is the same program for all, and its processor time is left out.
A system that cannot be installed is skipped.

- Tidelog: `tidelog up` and `tidelog worker`, PostgreSQL and NATS;
- Restate: its server as it is shipped (one node, fsync of its log on), and a service of its TypeScript SDK under Node.js;
- DBOS: a workflow of its Python library, called by a bare ASGI server in the same process, on the same PostgreSQL;
- LangGraph: a graph of three nodes with its PostgreSQL checkpointer and `durability="sync"`, in the same kind of server; twenty
  graphs, each with a connection of its own. Many steps are one node in a loop; its state holds all results. No worker takes over
  a run whose process has ended: the caller must ask again.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.peer_packages import Skipped, node, npm_packages, python_packages
from benchmarks.peers import as_url, create_database
from benchmarks.run_load import Load, Order, Target
from benchmarks.run_server import Tidelog, child, run, target, until_answers, until_listens
from benchmarks.runs import BURST, LARGE_BURST, PARTS, Measured, by_part, faults, measured, middle, turns
from benchmarks.servers import embedded, free_port, make_wal, quiet

HERE = Path(__file__).parent
OURS = "Tidelog"
RESTATE = ("@restatedev/restate-server@1.7.12", "@restatedev/restate-sdk@1.17.2")
SERVER = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "psycopg[binary,pool]==3.3.9")
DBOS = ("dbos==3.4.0", *SERVER)
LANGGRAPH = ("langgraph==1.2.22", "langgraph-checkpoint-postgres==3.2.0", *SERVER)
IN_FLIGHT = (1, 16, 64)
WARM_UP_S = 1.0
BURSTS_S = 120.0
"""Seconds after which bursts are not repeated any more."""


@dataclass(frozen=True)
class Contestant:
    """`parts`: the parts of its system whose processor time counts. `many`: the body of a run of so many steps."""

    load: Load
    body: object
    parts: tuple[str, ...]
    many: Callable[[int], object] = lambda steps: {"steps": steps}

    def order(self, in_flight: int, *, seconds: float | None = None, count: int | None = None) -> Measured:
        return measured(self.load, Order(self.body, in_flight, seconds, count), self.parts)

    def tenths(self, steps: int) -> list[float]:
        """One run of so many steps, a multiple of ten: the milliseconds of a step in each tenth."""
        outcome = self.load.order(Order(self.many(steps), 1, count=1, keep=True))
        if not outcome.answers:
            raise RuntimeError(f"a run of {steps} steps came to nothing{faults([outcome])}")
        answer = outcome.answers[0]
        return [seconds * 1e3 * 10 / steps for seconds in answer.get("run", {"result": answer})["result"]["tenths_s"]]


@contextmanager
def tidelog(services: EmbeddedServices, folder: Path) -> Iterator[Contestant]:
    installation = Tidelog(services, folder)
    with installation.up() as url, installation.worker(url), Load.started(target(url)) as load:
        yield Contestant(load, run("three-steps"), PARTS, lambda steps: run("many-steps", steps=steps, at_once=1))


@contextmanager
def restate(services: EmbeddedServices, folder: Path) -> Iterator[Contestant]:
    program, packages = node(), npm_packages("restate", *RESTATE)
    servers = sorted(packages.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not servers:
        raise Skipped("there is no server of it for this machine")
    ingress, admin, internal, service = (free_port() for _ in range(4))
    settings = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{internal}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{internal}",
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BASE_DIR": str(folder / "restate"),
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error,octocrab=off",
        "RESTATE_SHUTDOWN_TIMEOUT": "3s",
        "DO_NOT_TRACK": "1",
    }
    command = [program, str(HERE / "restate.mjs"), str(packages), str(service)]
    with child([str(servers[0]), "--no-logo"], settings) as process, child(command, {}) as offered:
        until_answers(admin, "/health", process)
        until_answers(ingress, "/restate/health", process)
        until_listens(service, offered)
        register(admin, service)
        headers = {"Content-Type": "application/json"}
        with Load.started(Target(f"http://127.0.0.1:{ingress}/Runs/start", headers)) as load:
            yield Contestant(load, {}, ("server", "service"))


def register(admin: int, service: int) -> None:
    """Tells Restate where its service is. No proxy is asked."""
    body = json.dumps({"uri": f"http://127.0.0.1:{service}"}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/deployments", body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
        pass


@contextmanager
def library(kind: str, packages: tuple[str, ...], services: EmbeddedServices, folder: Path) -> Iterator[Contestant]:
    """A library in a server of its own, on the same PostgreSQL."""
    python = python_packages(kind, *packages)
    url = as_url(asyncio.run(create_database(services, f"peer_{kind}")))
    port = free_port()
    with child([str(python), "-P", str(HERE / "peer_server.py"), kind, str(port)], {}, input=url) as process:
        until_answers(port, "/", process)
        with Load.started(Target(f"http://127.0.0.1:{port}/", {})) as load:
            yield Contestant(load, {}, ("service", "PostgreSQL"))


PEERS: dict[str, Callable[[EmbeddedServices, Path], AbstractContextManager[Contestant]]] = {
    OURS: tidelog,
    "Restate": restate,
    "DBOS": partial(library, "dbos", DBOS),
    "LangGraph": partial(library, "langgraph", LANGGRAPH),
}


def measure(services: EmbeddedServices, folder: Path, rounds: int, seconds: float, bursts: tuple[int, ...], steps: int) -> None:
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for name, prepare in PEERS.items():
            try:
                contestants[name] = stack.enter_context(prepare(services, folder))
            except Skipped as reason:
                print(f"{name}: skipped, {reason}")
        found: dict[int, dict[str, list[Measured]]] = {in_flight: {name: [] for name in contestants} for in_flight in IN_FLIGHT}
        order = list(contestants)
        for name in order:
            contestants[name].order(16, seconds=WARM_UP_S)
        for _ in range(rounds):
            for in_flight, results in found.items():
                for name in order:
                    results[name].append(contestants[name].order(in_flight, seconds=seconds))
            order.append(order.pop(0))
        at_once: dict[int, dict[str, list[Measured]]] = {count: {name: [] for name in contestants} for count in bursts}
        for count, results in at_once.items():
            for _ in turns(rounds, BURSTS_S):
                for name in order:
                    results[name].append(contestants[name].order(count, count=count))
                order.append(order.pop(0))
        by_number = {name: one.tenths(steps) for name, one in contestants.items()}
    for in_flight, results in found.items():
        report(f"{in_flight} in flight", results)
        add_rows(f"{in_flight} in flight", results, 2.0 if in_flight > 1 else None)
    for count, results in at_once.items():
        report(f"{count:,} at once", results)
        add_rows(f"{count:,} at once", results, 1.0)
    report_steps(by_number, steps)


def rate(one: Measured) -> float:
    return one.outcome.rate


def report(title: str, results: dict[str, list[Measured]]) -> None:
    print(f"\n{title:18}{'runs/s':>9}{'p50 ms':>10}{'p99 ms':>10}{'seconds':>9}{'ours is':>9}   processor, ms a run")
    for name, rounds in results.items():
        p50, p99 = (middle(rounds, of) for of in (lambda one: one.outcome.p50_ms, lambda one: one.outcome.p99_ms))
        took, cpu = middle(rounds, lambda one: one.outcome.seconds), middle(rounds, lambda one: one.cpu_ms)
        ours = f"{ratio(results, name):.2f}x"
        print(
            f"{name:18}{middle(rounds, rate):>9,.0f}{p50:>10,.1f}{p99:>10,.1f}{took:>9.2f}{ours:>9}   {cpu:.2f} ({by_part(rounds)})"
            f"{faults(one.outcome for one in rounds)}"
        )


def ratio(results: dict[str, list[Measured]], name: str) -> float:
    """How many times the other's rate ours is: the median over the rounds. Not a number if the other completed nothing."""
    pairs = zip(results[OURS], results[name], strict=True)
    return statistics.median(rate(ours) / rate(other) if rate(other) else float("nan") for ours, other in pairs)


def add_rows(title: str, results: dict[str, list[Measured]], reach: float | None) -> None:
    """`reach`: how many times Restate's rate ours should be."""
    ours = results[OURS]
    for name, rounds in results.items():
        if name != OURS:
            times = ratio(results, name)
            goal = f"≥ {reach:g} ×" if reach is not None and name == "Restate" else ""
            table.row(
                f"runs of three steps over HTTP, {title}, beside {name}",
                f"{text(ours)}{faults(one.outcome for one in ours)}",
                f"{times:.2f} × its {text(rounds)}",
                goal,
                met=times >= (reach or 0) if goal else None,
            )


def report_steps(by_number: dict[str, list[float]], steps: int) -> None:
    """What a step costs, by its number."""
    print(f"\nOne run of {steps:,} steps: milliseconds of a step, by its number")
    print(f"{'up to':18}{''.join(f'{steps * (tenth + 1) // 10:>8,}' for tenth in range(10))}   last by first tenth")
    for name, tenths in by_number.items():
        growth = f"{tenths[-1] / tenths[0]:.2f} ×"
        print(f"{name:18}{''.join(f'{one:>8.2f}' for one in tenths)}   {growth}")
        cost = f"{tenths[0]:.1f} ms a step in the first tenth, {tenths[-1]:.1f} in the last, {growth}"
        ours = name == OURS
        table.row(
            f"one run of {steps:,} steps, {name}",
            cost,
            "",
            "≤ 1.2 ×" if ours else "",
            met=tenths[-1] <= 1.2 * tenths[0] if ours else None,
        )


def text(rounds: list[Measured]) -> str:
    p50, p99 = (middle(rounds, of) for of in (lambda one: one.outcome.p50_ms, lambda one: one.outcome.p99_ms))
    return f"{middle(rounds, rate):,.0f}/s, p50 {p50:,.1f} ms, p99 {p99:,.1f} ms"


def multiple_of_ten(given: str) -> int:
    number = int(given)
    if number < 20 or number % 10:
        raise argparse.ArgumentTypeError("a multiple of ten from 20 on")
    return number


async def main(given: argparse.Namespace) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            bursts = (BURST, LARGE_BURST) if given.large else (BURST,)
            await asyncio.to_thread(measure, services, Path(folder), given.rounds, given.seconds, bursts, given.steps)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--steps", type=multiple_of_ten, default=1_000, help="of the long run, a multiple of ten")
    parser.add_argument("--large", action="store_true", help="also 10,000 runs at once")
    asyncio.run(main(parser.parse_args()))
