"""What budgets cost: runs of three steps and a call with budgets in force beside runs without; many runs of one budget of a day.

`python -m benchmarks.budgets [--rounds 3] [--crowd 1000]`. The kinds take turns. The budget of the crowd is just enough for all.
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.run_load import Load, Order
from benchmarks.run_server import Tidelog, run, target
from benchmarks.runs import faults
from benchmarks.servers import embedded, make_wal, quiet

COUNT, MOST = 100, 64
ALLOWED, ALLOWED_CROWD = 1.1, 1.15
PRICE = 1_000
"""Millionths of one call."""
ENOUGH = {"money": "100", "calls": 100_000}
KINDS = ("none", "run", "day", "all")
"""`all`: a budget of the run, of the day, of the agent's day and of the agent in the run, and policies of approvals that hold other
calls."""
OF_AGENT = {"scope": "agent", "agent": "three-steps-and-call", "limits": {"calls": 10_000_000}}
POLICIES = [{"tools": ["other.*"]}, {"tools": ["benchmark.costly"], "when": "cost > 1.0"}]


class Budgets:
    """The budget of the tenant and day."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url, self._headers = url, headers

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(self._url + path, data, headers, method=method), timeout=30) as answer:
            return json.loads(answer.read())

    def set(self, calls: int) -> None:
        """So many calls may be made from now on."""
        self.put(10_000_000)  # makes the allowance of today, if nobody has
        calls += int(self.today()["spent"]["calls"])
        self.put(calls)

    def put(self, calls: int) -> None:
        limits = {"calls": calls, "money": f"{calls * PRICE / 1_000_000:.6f}"}
        self.ask("PUT", "/v1/budgets", {"scope": "tenant", "limits": limits})

    def all(self) -> None:
        self.put(10_000_000)
        for per in ("day", "run"):
            self.ask("PUT", "/v1/budgets", {**OF_AGENT, "per": per})
        self.ask("PUT", "/v1/approval-policies/benchmark", {"rules": POLICIES, "reason": "measured"})

    def remove(self) -> None:
        for policy in self.ask("GET", "/v1/approval-policies")["data"]:
            self.ask("DELETE", f"/v1/approval-policies/{policy['name']}")
        for budget in self.ask("GET", "/v1/budgets")["data"]:
            self.ask("DELETE", f"/v1/budgets/{budget['id']}")

    def today(self) -> Any:
        return self.ask("GET", "/v1/budgets")["data"][0]["today"]


def measure(services: EmbeddedServices, folder: Path, rounds: int, crowd: int) -> None:
    tidelog = Tidelog(services, folder)
    alone: dict[str, list[float]] = {kind: [] for kind in KINDS}
    many: dict[str, list[float]] = {kind: [] for kind in KINDS}
    crowds: dict[str, list[float]] = {"none": [], "day": []}
    outcomes, overrun = [], ""
    with ExitStack() as stack:
        url = stack.enter_context(tidelog.up())
        load = stack.enter_context(Load.started(target(url)))
        stack.enter_context(tidelog.worker(url))
        budgets = Budgets(url, target(url).headers)
        for number in range(rounds + 1):
            for kind in KINDS:
                body = run("three-steps-and-call", tool="benchmark.costly")
                if kind in ("run", "all"):
                    body |= {"budget": ENOUGH}
                if kind == "day":
                    budgets.put(10_000_000)
                if kind == "all":
                    budgets.all()
                one, some = (load.order(Order(body, at_once, count=COUNT)) for at_once in (1, MOST))
                outcomes += [one, some]
                if kind in ("day", "all"):
                    budgets.remove()
                if number:  # the first turn is for warmth
                    alone[kind].append(one.p50_ms)
                    many[kind].append(some.rate)
            for kind in ("none", "day"):
                if kind == "day":
                    budgets.set(crowd)
                found = load.order(Order(run("three-steps-and-call", tool="benchmark.costly"), crowd, count=crowd))
                outcomes.append(found)
                if number:
                    crowds[kind].append(found.seconds)
                if kind == "day":
                    today = budgets.today()
                    overrun = (
                        f"{found.completed} of {crowd} completed, {today['spent']['calls']} calls of {today['limits']['calls']}"
                    )
                    budgets.remove()
    wrong = faults(outcomes)
    p50 = {kind: statistics.median(alone[kind]) for kind in KINDS}
    rate = {kind: statistics.median(many[kind]) for kind in KINDS}
    seconds = {kind: statistics.median(crowds[kind]) for kind in crowds}
    print(f"one at a time, p50: {', '.join(f'{kind} {ms:.2f} ms' for kind, ms in p50.items())}{wrong}")
    print(f"{MOST} in flight: {', '.join(f'{kind} {each:,.0f}/s' for kind, each in rate.items())}")
    print(f"{crowd} at once: {', '.join(f'{kind} {each:.2f} s' for kind, each in seconds.items())}; {overrun}")
    for kind, name in (("run", "a budget of their own"), ("day", "a budget of the day"), ("all", "four budgets and policies")):
        row = f"{p50[kind] / p50['none'] - 1:+.0%}, {MOST} in flight {rate[kind] / rate['none'] - 1:+.0%}"
        met = p50[kind] <= p50["none"] * ALLOWED and rate[kind] >= rate["none"] / ALLOWED
        table.row(f"runs of three steps and a call with {name}", row, f"{p50['none']:.1f} ms without", "±10%", met=met)
    row = f"{seconds['day'] / seconds['none'] - 1:+.0%}; {overrun}"
    met = seconds["day"] <= seconds["none"] * ALLOWED_CROWD and f"{crowd} of {crowd}" in overrun
    table.row(f"{crowd:,} runs at once of one budget of the day", row, f"{seconds['none']:.2f} s without", "+15%, all", met=met)


async def main(rounds: int, crowd: int) -> None:
    async with embedded() as services:
        await make_wal(services)
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            os.chmod(folder, 0o711)
            await asyncio.to_thread(measure, services, Path(folder), rounds, crowd)


if __name__ == "__main__":
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crowd", type=int, default=1_000)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.crowd))
