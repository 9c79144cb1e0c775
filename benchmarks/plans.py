"""What plans of many steps cost: `python -m benchmarks.plans [--steps 1000] [--only each]`.

A chain, a fan-out and a list of so many items, and so many child runs of one parent, each as one run: seconds, and processor time
of all processes for a step. Before them the time of one decision in a plan of so many steps, without any process.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from adapters.expressions.evaluator import CelExpressions
from application.functions import RuleFunctions
from benchmarks import table
from benchmarks.machine import cpu_by_part
from benchmarks.run_server import KEY, Tidelog
from benchmarks.servers import embedded, quiet
from domain import runs
from domain.plans import Plan
from tidelog import Client

AGENT = """
from tidelog import Agent, Context


class Quick(Agent):
    async def execute(self, ctx: Context) -> object:
        return ctx.input
"""
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
END_S = 300.0


def chain(number: int) -> dict[str, Any]:
    """Every second step is a condition that looks at the step before, and an input that is mapped from it."""
    steps: list[dict[str, Any]] = [{"key": "s0", "agent": "quick"}]
    for n in range(1, number):
        step = {"key": f"s{n}", "agent": "quick", "after": [f"s{n - 1}"]}
        if n % 2:
            step |= {"when": f"steps.s{n - 1}.status == 'completed'", "input_from": f"steps.s{n - 1}.result"}
        steps.append(step)
    return {"kind": "graph", "steps": steps}


def fan_out(number: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"key": f"s{n}", "agent": "quick"} for n in range(number - 1)]
    last = {"key": "all", "gather": {"mode": "all"}, "after": [step["key"] for step in steps]}
    return {"kind": "graph", "steps": [*steps, last]}


def each(number: int) -> dict[str, Any]:
    return {"kind": "graph", "steps": [{"key": "items", "agent": "quick", "each": {"over": "input", "max_parallel": 100}}]}


def children(number: int) -> dict[str, Any]:
    body = {"steps": [{"key": "one", "agent": "quick"}]}
    return {"kind": "graph", "steps": [{"key": "runs", "run": {"plan": body}, "each": {"over": "input", "max_parallel": 1_000}}]}


def empty_children(number: int) -> dict[str, Any]:
    body = {"steps": [{"key": "one", "value": "input"}]}
    return {"kind": "graph", "steps": [{"key": "runs", "run": {"plan": body}, "each": {"over": "input", "max_parallel": 1_000}}]}


SHAPES = {"chain": chain, "fan-out": fan_out, "each": each, "children": children, "children of values": empty_children}


def decisions(number: int) -> None:
    """How long one outcome takes to be decided, at the beginning and at the end of plans of so many steps."""
    functions = RuleFunctions(CelExpressions())
    for name in ("chain", "fan-out"):
        plan = Plan.model_validate({"steps": SHAPES[name](number)["steps"]})
        run = runs.DECIDER.fold(
            runs.Run(), runs.DECIDER.events(runs.Run(), runs.StartRun(run_id=RUN, project_id=RUN, plan=plan), functions)
        )
        took: list[float] = []
        for step in plan.steps:  # the check of a plan at its start compiles its expressions
            for expression in filter(None, (step.when, step.input_from)):
                functions.evaluate(expression, {"input": None, "metadata": {}, "steps": {}})
        for step in plan.steps:
            if step.agent is None:
                continue
            done = runs.CompleteStep(run_id=RUN, step=step.key, agent_run_id=runs.agent_run_id_of(RUN, step.key), result={"n": 1})
            begin = time.perf_counter()
            events = runs.DECIDER.events(run, done, functions)
            took.append(time.perf_counter() - begin)
            run = runs.DECIDER.fold(run, events)
        tenth = len(took) // 10
        first, last = (statistics.median(some) * 1_000 for some in (took[1:tenth], took[-tenth:-1]))
        worst = statistics.quantiles(took[1:-1], n=100)[98] * 1_000
        said = f"first tenth {first:.3f} ms, last tenth {last:.3f} ms, p99 {worst:.3f} ms"
        table.row(f"one outcome decided, {name} of {number:,} steps", said, reach="≤ 1 ms", met=last <= 1)


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--only", choices=sorted(SHAPES))
    given = parser.parse_args()
    quiet()
    decisions(given.steps)
    async with embedded() as services:
        with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
            agents = Path(folder) / "agents"
            agents.mkdir()
            (agents / "quick.py").write_text(AGENT)
            tidelog = Tidelog(services, Path(folder))
            with tidelog.up() as url, tidelog.worker(url, agents=agents, known="quick", silent=True):
                async with Client(url, KEY) as client:
                    await _measured(client, "chain", 20)
                    for name in SHAPES if given.only is None else [given.only]:
                        await _row(client, name, given.steps)
    return 0


async def _row(client: Client, name: str, number: int) -> None:
    seconds, cpu = await _measured(client, name, number)
    said = f"{seconds:.2f} s, {cpu * 1_000 / number:.2f} ms of processor time each"
    if name.startswith("children"):
        table.row(f"{number:,} {name} of one parent", said, reach="≤ 3 s for 1,000", met=seconds <= 3 * number / 1_000)
    else:
        table.row(f"a plan of {number:,} steps: {name}", said, reach="≤ 3 ms a step", met=cpu * 1_000 / number <= 3)


async def _measured(client: Client, name: str, number: int) -> tuple[float, float]:
    takes_list = name.startswith(("each", "children"))
    before, begin = sum(cpu_by_part([os.getpid()]).values()), time.perf_counter()
    started = await client.start_run(plan=SHAPES[name](number), input=list(range(number)) if takes_list else 1)
    async with asyncio.timeout(END_S):
        ends = [event async for event in client.events(started.run_id, types=sorted(runs.ENDS))]
    took = time.perf_counter() - begin
    if ends[0].type != runs.RunCompleted.TOPIC:
        raise SystemExit(f"{name}: {ends[0].type}: {ends[0].data}")
    return took, sum(cpu_by_part([os.getpid()]).values()) - before


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
