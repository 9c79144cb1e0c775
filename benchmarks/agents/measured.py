"""The agents and the tool that `benchmarks.runs` lets a worker run."""

import asyncio
import itertools
import os
import time
from typing import Any

from tidelog import Agent, Breaker, Context, Cost, Policy, Rate, ToolError, TransientError, tool

TEXT = "x" * 200
DONE = "benchmark-done"
SUFFIX = os.environ.get("BENCHMARK_AGENTS", "")
"""Ends the names of the agents, so that two workers can have agents of their own."""


def text() -> str:
    return TEXT


@tool("benchmark.echo", idempotent=True)
async def echo(given: str) -> str:
    """The given text."""
    return given


@tool("benchmark.guarded", idempotent=True, policy=Policy(breaker=Breaker(failures=1_000, rate=0.9)))
async def guarded(given: str) -> str:
    """The given text, with a breaker."""
    return given


@tool("benchmark.down", idempotent=True, max_attempts=1, policy=Policy(breaker=Breaker(failures=50, open_s=3_600)))
async def down(given: str) -> str:
    """Fails."""
    raise TransientError("the service is down")


@tool("benchmark.limited", idempotent=True, policy=Policy(max_parallel=500, rate=Rate(calls=100_000, per_s=1.0)))
async def limited(given: str) -> str:
    """The given text. The limits are in force, and not reached."""
    return given


@tool("benchmark.costly", idempotent=True, policy=Policy(max_cost=Cost(money="0.001")))
async def costly(given: str) -> str:
    """The given text, at a price."""
    return given


class WorksOn(Agent):
    """A step after the other, until somebody stops it."""

    name = f"works-on{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        for number in range(100_000):
            await ctx.step(f"step-{number}", text)
            await asyncio.sleep(1.0)
        return DONE


class ThreeStepsAndCall(Agent):
    """Three steps, and a call of a tool."""

    name = f"three-steps-and-call{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        for number in range(3):
            await ctx.step(f"step-{number}", text)
        await ctx.tool(ctx.input["tool"], given=TEXT)
        return DONE


class ThreeSteps(Agent):
    """The run that is compared with other systems."""

    name = f"three-steps{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        for number in range(3):
            await ctx.step(f"step-{number}", text)
        return DONE


class ManySteps(Agent):
    """Many steps, `at_once` of them at a time."""

    name = f"many-steps{SUFFIX}"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        steps, at_once = ctx.input["steps"], ctx.input["at_once"]
        at = []
        for first in range(0, steps, at_once):
            at.append(time.perf_counter())
            await asyncio.gather(*(ctx.step(f"step-{number}", text) for number in range(first, min(first + at_once, steps))))
        at.append(time.perf_counter())
        places = [(len(at) - 1) * tenth // 10 for tenth in range(11)]
        tenths_s = [at[after] - at[before] for before, after in itertools.pairwise(places)]
        return {"said": DONE, "seconds": at[-1] - at[0], "tenths_s": tenths_s}


class ManyCalls(Agent):
    """Calls of a tool, one after the other."""

    name = f"many-calls{SUFFIX}"

    async def execute(self, ctx: Context) -> dict[str, Any]:
        waits = []
        for _ in range(ctx.input["calls"]):
            began = time.perf_counter()
            await ctx.tool(ctx.input.get("tool", "benchmark.echo"), given=TEXT)
            waits.append((time.perf_counter() - began) * 1e3)
        return {"said": DONE, "waits_ms": waits}


class CallsUntilOpen(Agent):
    """Calls of a tool that fails, side by side, until its breaker is open."""

    name = f"calls-until-open{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        async def call(lane: int) -> None:
            for number in itertools.count():
                try:
                    await ctx.tool("benchmark.down", key=f"{lane}/{number}", given="x")
                except ToolError as error:
                    if "BreakerOpen" in str(error):
                        return

        await asyncio.gather(*(call(lane) for lane in range(ctx.input["lanes"])))
        return DONE


class Quick(Agent):
    """A step of a plan that does nothing."""

    name = f"quick{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        return DONE


class Sender(Agent):
    """Sends messages to another step, ten at a time."""

    name = f"sender{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        for first in range(0, ctx.input["messages"], 10):
            await asyncio.gather(*(ctx.send(ctx.input["to"], TEXT, key=f"m{first + n}") for n in range(10)))
        return DONE


class Receiver(Agent):
    """Receives as many messages."""

    name = f"receiver{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        for _ in range(ctx.input["messages"]):
            assert await ctx.receive(timeout_s=60) is not None
        return DONE


class SecondTime(Agent):
    """Fails at its first attempt. A timer brings the second one."""

    name = f"second-time{SUFFIX}"

    async def execute(self, ctx: Context) -> str:
        if ctx.attempt == 1:
            raise TransientError("not yet")
        return DONE


class SleepsOrListens(Agent):
    """Waits for a year, or for a signal. The result is the time at which the agent went on."""

    name = f"sleeps-or-listens{SUFFIX}"

    async def execute(self, ctx: Context) -> float:
        await ctx.step("before", text)
        if ctx.input["sleeps"]:
            await ctx.sleep("365d")
        else:
            await ctx.signal("go")
        return await ctx.step("now", time.time)
