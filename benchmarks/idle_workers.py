"""What many idle workers cost: with the same 100 agents each, and with 100 agents of its own each. Part of `benchmarks.runs`."""

import json
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import command, cpu_by_part, part_of, rss_mb, stats, tree
from benchmarks.run_server import Tidelog, answer

AGENTS = 100
AT_ONCE = 4
"""Workers that start at the same time. Each one takes some seconds of a processor to start."""
LATEST_S = 120.0
"""Seconds in which a worker at least must start, and offer all its agents."""
SETTLED_S, SETTLED_SHARE, SETTLE_S = 5.0, 0.3, 300.0
IDLE_S = 30.0
SERVER = ("api", "engine")
FILE = """
from tidelog import Agent

async def execute(self, ctx):
    return None

for number in range({count}):
    of = {{"name": f"agent-{worker}-{{number}}", "capabilities": ("{worker}",), "execute": execute, "__module__": __name__}}
    globals()[f"Agent{{number}}"] = type(f"Agent{{number}}", (Agent,), of)
"""


def measure(services: EmbeddedServices, folder: Path, workers: int) -> None:
    for title, different in ((f"the same {AGENTS} agents", False), (f"{workers * AGENTS:,} different agents", True)):
        with ExitStack() as stack:
            tidelog = Tidelog(services, folder)
            url = stack.enter_context(tidelog.up())
            pids = []
            before = cpu_by_part([os.getpid()])
            for number in range(workers):
                name = f"{'own' if different else 'same'}{number if different else ''}"
                agents = folder / name
                if not agents.exists():  # written anew, the file would be empty for a moment, while a worker before may read it
                    agents.mkdir()
                    (agents / "idle.py").write_text(FILE.format(count=AGENTS, worker=name))
                worker = tidelog.worker(url, agents=agents, among=f"?capability={name}", known=f"agent-{name}-0")
                pids.append(stack.enter_context(worker))
                until_offering(url, number + 1 - AT_ONCE)
            until_offering(url, workers)
            settle()
            after = cpu_by_part([os.getpid()])
            used = ", ".join(
                f"{part} {after.get(part, 0.0) - before.get(part, 0.0):.1f} s" for part in (*SERVER, "PostgreSQL", "NATS")
            )
            print(f"\nUntil {workers} workers offer {title}, processor: {used}")
            report(title, workers, pids)


def until_offering(url: str, workers: int) -> None:
    """Waits until so many workers offer all their agents. Raises TimeoutError if for a long time none more does."""
    found, end = -1, 0.0
    while (now := offering(url)) < workers:
        if now > found:
            found, end = now, time.monotonic() + LATEST_S
        elif time.monotonic() > end:
            raise TimeoutError(f"{now} of {workers} workers offer their agents, and none more since {LATEST_S:g} s")
        time.sleep(0.2)


def settle() -> None:
    """Waits until the workers use little of the processors. Raises TimeoutError."""
    end = time.monotonic() + SETTLE_S
    while (share := shares(SETTLED_S)["worker"]) > SETTLED_SHARE:
        if time.monotonic() > end:
            raise TimeoutError(f"idle workers use {share:.0%} of a core after {SETTLE_S:g} s")


def offering(url: str) -> int:
    """The number of workers that offer all their agents."""
    status, body = answer(int(url.rpartition(":")[2]), "/v1/workers?limit=1000")
    return sum(len(worker["agents"] or ()) == AGENTS for worker in json.loads(body)["data"]) if status == 200 else 0


def shares(seconds: float) -> dict[str, float]:
    """What each part uses of a core for some seconds from now on."""
    before, began = cpu_by_part([os.getpid()]), time.monotonic()
    time.sleep(seconds)
    took, after = time.monotonic() - began, cpu_by_part([os.getpid()])
    return {part: (after.get(part, 0.0) - before.get(part, 0.0)) / took for part in (*SERVER, "worker", "PostgreSQL", "NATS")}


def memory_of(part: str) -> float:
    """MB of all processes of a part."""
    return sum(rss_mb(pid) for pid in tree(os.getpid(), stats()) if part_of(command(pid)) == part)


def report(title: str, workers: int, pids: list[int]) -> None:
    found = shares(IDLE_S)
    server = sum(found[part] for part in SERVER)
    memory = [rss_mb(pid) for pid in pids]
    print(f"{workers} idle workers with {title}: {', '.join(f'{part} {share:.1%}' for part, share in found.items())} of a core")
    print(f"  a worker {statistics.median(memory):.0f} MB, the largest {max(memory):.0f} MB; NATS {memory_of('NATS'):.0f} MB")
    table.row(
        f"{workers} idle workers with {title}",
        f"server {server:.1%} of a core; a worker {max(memory):.0f} MB",
        f"all workers {found['worker']:.1%}, PostgreSQL {found['PostgreSQL']:.1%}, NATS {found['NATS']:.1%}",
        "server ≤ 2 %, a worker ≤ 50 MB",
        met=server <= 0.02 and max(memory) <= 50,
    )
