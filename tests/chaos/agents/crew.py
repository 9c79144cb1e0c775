"""Agents that use all features: local steps, tools, messages, shared context. Each agent returns what it saw under each key."""

import asyncio
from typing import Any

from tidelog import Agent, Context, TransientError

from ._witness import note, work_for

PATIENCE_S = 300


async def local(ctx: Context, key: str, most_s: float = 0.15) -> Any:
    """A local step that notes its execution with the witness."""

    def act() -> str:
        word = note("step", str(ctx.agent_run_id), key, ctx.attempt)
        work_for(0.01, most_s)
        return word

    return await ctx.step(key, act)


class Gatherer(Agent):
    """Steps in sequence and tools side by side."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        first = await local(ctx, "first")
        near, far = await asyncio.gather(ctx.tool("chaos.look", key="near"), ctx.tool("chaos.flaky", key="far"))
        second = await local(ctx, "second")
        await ctx.state.set(f"found:{ctx.step_key}", second)
        return {"first": first, "near": near, "far": far, "second": second}


class Clerk(Agent):
    """Effects that must not happen twice."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        posted = await ctx.tool("chaos.post", key="posted", subject="one")
        between = await local(ctx, "between")
        signed = await ctx.tool("chaos.post", key="signed", subject="two")
        return {"posted": posted, "between": between, "signed": signed}


class Speaker(Agent):
    """Sends what it does to the step `listener`."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        seen = {}
        for number in range(3):
            key = f"said-{number}"
            seen[key] = await local(ctx, key, most_s=0.05)
            await ctx.send("listener", {"number": number, "word": seen[key]})
        return seen


class Listener(Agent):
    """Receives three messages of each speaker and returns them by sender, in order."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        heard: dict[str, list[Any]] = {}
        for _ in range(3 * int(ctx.input["speakers"])):
            message = await ctx.receive(timeout_s=PATIENCE_S)
            if message is None:
                raise RuntimeError(f"no message within {PATIENCE_S} s; heard so far: {heard}")
            heard.setdefault(message.sender, []).append(message.body)
        noted = await local(ctx, "noted")
        return {"noted": noted, "heard": heard}


class Editor(Agent):
    """Gathers the results of the earlier steps and the values that those steps left in the shared context."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        names = [key for key in ctx.results if key.startswith("gatherer")]
        values = await asyncio.gather(*(ctx.state.get(f"found:{name}") for name in names))
        closing = await local(ctx, "closing")
        return {
            "closing": closing,
            "results": dict(ctx.results),
            "found": dict(zip(names, values, strict=True)),
            "missing": ctx.missing,
        }


class Moody(Agent):
    """Fails at first; a timer retries the run."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        kept = await local(ctx, "kept")
        if ctx.attempt == 1:
            raise TransientError("not in the mood")
        return {"kept": kept}


class Broken(Agent):
    """Always fails."""

    async def execute(self, ctx: Context) -> None:
        await local(ctx, "tried")
        raise RuntimeError("broken on purpose")


class Waiter(Agent):
    """Waits for a message that never comes, until the run is cancelled."""

    async def execute(self, ctx: Context) -> None:
        await local(ctx, "sat")
        await ctx.receive(timeout_s=PATIENCE_S)


class Steady(Agent):
    """One step, one long tool call of the kind the input names, one step."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        first = await local(ctx, "first")
        called = await ctx.tool(str(ctx.input["tool"]), key="called", seconds=float(ctx.input["seconds"]))
        last = await local(ctx, "last")
        return {"first": first, "called": called, "last": last}


class Holder(Agent):
    """One tool call that ends when a file is there, between two steps."""

    async def execute(self, ctx: Context) -> dict[str, Any]:
        first = await local(ctx, "first")
        held = await ctx.tool("chaos.hold", key="held", file=str(ctx.input["file"]))
        return {"first": first, "held": held, "last": await local(ctx, "last")}
