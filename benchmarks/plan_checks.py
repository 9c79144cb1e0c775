"""What the check of a plan of 1,000 steps takes, in processor time: `make bench ARGS=plan_checks`. No server and no database.

Each step comes after the one before; where it has expressions, each of them is another one: a condition and a mapped value.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters.expressions import CelExpressions
from application.plans.check import PlanChecks
from application.plans.registry import FoundAgent, FoundWorkflow
from benchmarks import table

STEPS, ROUNDS = 1_000, 7
GOAL_MS = 200.0
RESULT = {"type": "object", "properties": {"score": {"type": "integer"}}, "additionalProperties": False}
INPUT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


class EveryAgent:
    """The registry of a tenant that has all agents."""

    has_workflows = False

    async def agent(self, name: str) -> FoundAgent:
        return FoundAgent(name, ("1",), INPUT if name == "taker" else None, RESULT)

    async def agent_names(self) -> Sequence[str]:
        return ()

    async def capabilities(self, wanted: Iterable[str]) -> Mapping[str, str]:
        return {}

    async def capability_names(self) -> Sequence[str]:
        return ()

    async def workflow(self, name: str, version: int | None) -> FoundWorkflow | None:
        return None

    async def workflow_names(self) -> Sequence[str]:
        return ()


def plan_of(kind: str) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"key": "s0", "agent": "giver"}]
    for number in range(1, STEPS):
        step: dict[str, Any] = {"key": f"s{number}", "agent": "giver", "after": [f"s{number - 1}"]}
        if kind != "plain":
            step["when"] = f"steps.s{number - 1}.status == 'completed' && input.n > {number}"
        if kind == "mapped":
            step |= {"agent": "taker", "input_from": {"n": f"steps.s{number - 1}.result.score + {number}"}}
        steps.append(step)
    return {"steps": steps}


async def measured(plan: dict[str, Any]) -> float:
    """Milliseconds of the processor, the median of some rounds. Each compiles its expressions anew."""
    rounds = []
    for _ in range(ROUNDS):
        checks = PlanChecks(CelExpressions())
        began = time.process_time()
        found = await checks.check(plan, EveryAgent())
        rounds.append((time.process_time() - began) * 1_000)
        assert found.valid and not found.warnings, found
    return statistics.median(rounds)


def main() -> None:
    for kind, what in (("plain", "agents only"), ("condition", "a condition each"), ("mapped", "a condition and a mapping each")):
        plan = plan_of(kind)
        ms = asyncio.run(measured(plan))
        print(f"{STEPS:,} steps, {what}: {ms:.0f} ms, {ms * 1_000 / STEPS:.0f} µs a step, {len(json.dumps(plan)) / 1_000:.0f} kB")
        if kind == "condition":
            what = "Check of a plan of 1,000 steps, each with a condition of its own"
            table.row(what, f"{ms:.0f} ms", reach=f"at most {GOAL_MS:.0f} ms", met=ms <= GOAL_MS)


if __name__ == "__main__":
    main()
