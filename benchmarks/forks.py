"""What a fork costs: `python -m benchmarks.forks [--steps 1000] [--rounds 5]`.

A run of so many steps is forked at nine tenths of them: from the request to the first new step, by the time of the log. Once the
steps are those of a plan, and once those of one agent.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks import table
from benchmarks.run_server import KEY, Tidelog
from benchmarks.servers import embedded, quiet
from tidelog import Client

AGENTS = """
from tidelog import Agent, Context


class Quick(Agent):
    async def execute(self, ctx: Context) -> object:
        return {"n": 1}


class Long(Agent):
    async def execute(self, ctx: Context) -> object:
        for number in range(ctx.input):
            await ctx.step(f"s{number}", dict, n=number)
"""
END_S = 300.0


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    quiet()
    async with embedded() as services:
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            agents = Path(folder) / "agents"
            agents.mkdir()
            (agents / "forked.py").write_text(AGENTS)
            tidelog = Tidelog(services, Path(folder))
            with tidelog.up() as url, tidelog.worker(url, agents=agents, known="quick", silent=True):
                async with Client(url, KEY) as client:
                    await _of_plan(client, given.steps, given.rounds)
                    await _of_agent(client, given.steps, given.rounds)
    return 0


async def _of_plan(client: Client, steps: int, rounds: int) -> None:
    plan = [{"key": f"s{n}", "agent": "quick", "after": [f"s{n - 1}"] if n else []} for n in range(steps)]
    started = await client.start_run(plan={"kind": "graph", "steps": plan})
    await client.wait(started.run_id, timeout=END_S)
    await _measured(client, started.run_id, f"a plan of {steps:,} steps", "agent_run.claimed", rounds, before=f"s{steps * 9 // 10}")


async def _of_agent(client: Client, steps: int, rounds: int) -> None:
    started = await client.start_run(agent="long", input=steps)
    await client.wait(started.run_id, timeout=END_S)
    journal = await client.journal(started.run_id)
    at = journal[steps * 9 // 10 - 1].position
    await _measured(client, started.run_id, f"an agent of {steps:,} steps", "agent_run.step_recorded", rounds, position=at)


async def _measured(client: Client, run_id: UUID, what: str, topic: str, rounds: int, **at: Any) -> None:
    took: list[float] = []
    for _ in range(rounds + 1):
        begin = time.time()
        forked = await client.fork_run(run_id, **at)
        async for event in client.events(forked.run_id):
            if event.type == topic:
                took.append((event.time.timestamp() - begin) * 1_000)
                break
        await client.wait(forked.run_id, timeout=END_S)
    warm = took[1:]
    said = f"p50 {statistics.median(warm):.0f} ms, slowest {max(warm):.0f} ms, first {took[0]:.0f} ms"
    table.row(f"fork of {what} at nine tenths, to the first new step", said, reach="≤ 500 ms", met=statistics.median(warm) <= 500)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
