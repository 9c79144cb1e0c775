"""What many idle workers cost: with the same 100 agents each, and with 100 agents of its own each. Part of `benchmarks.runs`."""

import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from adapters.embedded import EmbeddedServices
from benchmarks import table
from benchmarks.machine import cpu_by_part, rss_mb
from benchmarks.run_server import Tidelog

AGENTS = 100
SETTLE_S, IDLE_S = 20.0, 30.0
SERVER = ("api", "engine")
FILE = """
from tidelog import Agent

async def execute(self, ctx):
    return None

for number in range({count}):
    name = f"agent-{worker}-{{number}}"
    globals()[f"Agent{{number}}"] = type(f"Agent{{number}}", (Agent,), {{"name": name, "execute": execute, "__module__": __name__}})
"""


def measure(services: EmbeddedServices, folder: Path, workers: int) -> None:
    for title, different in ((f"the same {AGENTS} agents", False), (f"{workers * AGENTS:,} different agents", True)):
        with ExitStack() as stack:
            tidelog = Tidelog(services, folder)
            url = stack.enter_context(tidelog.up())
            pids = []
            for number in range(workers):
                name = f"{'own' if different else 'same'}{number if different else ''}"
                agents = folder / name
                agents.mkdir(exist_ok=True)
                (agents / "idle.py").write_text(FILE.format(count=AGENTS, worker=name))
                pids.append(stack.enter_context(tidelog.worker(url, agents=agents, known=f"agent-{name}-0")))
            time.sleep(SETTLE_S)
            report(title, workers, pids)


def report(title: str, workers: int, pids: list[int]) -> None:
    before, began = cpu_by_part([os.getpid()]), time.monotonic()
    time.sleep(IDLE_S)
    took, after = time.monotonic() - began, cpu_by_part([os.getpid()])
    shares = {part: (after.get(part, 0.0) - before.get(part, 0.0)) / took for part in (*SERVER, "worker", "PostgreSQL", "NATS")}
    server = sum(shares[part] for part in SERVER)
    memory = [rss_mb(pid) for pid in pids]
    print(f"\n{workers} idle workers with {title}: {', '.join(f'{part} {share:.1%}' for part, share in shares.items())} of a core")
    print(f"  a worker {statistics.median(memory):.0f} MB, the largest {max(memory):.0f} MB")
    table.row(
        f"{workers} idle workers with {title}",
        f"server {server:.1%} of a core; a worker {max(memory):.0f} MB",
        f"all workers {shares['worker']:.1%}, PostgreSQL {shares['PostgreSQL']:.1%}, NATS {shares['NATS']:.1%}",
        "server ≤ 2 %, a worker ≤ 50 MB",
        met=server <= 0.02 and max(memory) <= 50,
    )
