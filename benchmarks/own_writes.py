"""Reads of one's own writes beside the runs of others: how long a run, and a list, with `Tidelog-Position` take right after a
start.

Part of `python -m benchmarks.runs`. Such a list waits until the read model has the position of the start. Beside it stand the same
reads without a position, which wait for nothing.
"""

import statistics
import threading
import time
from dataclasses import dataclass, field

import httpx2

from benchmarks import table
from benchmarks.run_load import Load, Order, Outcome, quantile
from benchmarks.run_server import KEY, run

REACH_MS = 10.0


@dataclass
class Reads:
    """Milliseconds of reads of one's own write, and of the same reads without a position."""

    own: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    stale: int = 0
    """Reads of one's own write that did not show the run. There must be none."""


Found = dict[str, Reads]


def read_own_writes(url: str, until: threading.Event) -> Found:
    """One client: it starts a run, reads it and the newest runs, and reads both again without a position."""
    found: Found = {"a run": Reads(), "the list of runs": Reads()}
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, trust_env=False) as client:
        while not until.is_set():
            for what, reads in found.items():
                started = client.post("/v1/runs", json=run("three-steps")).raise_for_status().json()
                path = f"/v1/runs/{started['run_id']}" if what == "a run" else "/v1/runs?limit=100"
                at = {"Tidelog-Position": str(started["position"])}
                for waits, headers in ((reads.own, at), (reads.plain, {})):
                    began = time.perf_counter()
                    answer = client.get(path, headers=headers)
                    waits.append((time.perf_counter() - began) * 1e3)
                    reads.stale += headers == at and started["run_id"] not in answer.text
    return found


def measure(load: Load, url: str, in_flight: int, seconds: float) -> None:
    """`in_flight`: runs of others beside the client; 0: none."""
    over, outcomes = threading.Event(), list[Outcome]()

    def others() -> None:
        try:
            if in_flight:
                outcomes.append(load.order(Order(run("three-steps"), in_flight, seconds=seconds)))
            else:
                over.wait(seconds)
        finally:
            over.set()

    beside = threading.Thread(target=others)
    beside.start()
    try:
        found = read_own_writes(url, over)
    finally:
        beside.join()
    for what, reads in found.items():
        report(what, reads, in_flight, outcomes[0].rate if outcomes else 0.0)


def report(what: str, found: Reads, in_flight: int, rate: float) -> None:
    found.own.sort()
    p50, p99, plain = statistics.median(found.own), quantile(found.own, 0.99), statistics.median(found.plain)
    wrong = f"; {found.stale} without the run" if found.stale else ""
    beside = f"{in_flight} runs in flight beside it" if in_flight else "nothing beside it"
    text = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms{wrong}"
    count = f"{len(found.own)} reads, {rate:,.0f} runs/s"
    print(f"  one's own write in {what}, {beside}: {text}; without a position p50 {plain:.1f} ms ({count})")
    table.row(
        f"one's own write in {what} (`Tidelog-Position`), {beside}", text, f"without a position: p50 {plain:.1f} ms",
        f"p50 ≤ {REACH_MS:g} ms", met=p50 <= REACH_MS and not found.stale,
    )  # fmt: skip
