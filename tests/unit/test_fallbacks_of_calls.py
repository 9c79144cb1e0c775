"""Fallbacks of a call: looked up when an agent calls, as they are declared then, and left out where they cannot take its place."""

from typing import Any
from uuid import UUID

from domain.invocations import FallbackTool, Invocation
from domain.kernel import Json
from domain.tool_policy import ToolPolicy
from domain.tools import RegisterTool, RemoveTool, tool_id_of
from tests.kit.engine import Claim, Engine
from tests.kit.waiting import TENANT

NEEDS_TO = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}


async def called(engine: Engine, work: Claim, key: str, tool: str, **arguments: Json) -> Invocation:
    call_id: UUID = await work.call(key, tool, **arguments)
    return await engine.invocation(call_id)


async def declare(engine: Engine, name: str, **fields: Any) -> None:
    said = {"parameters": {"type": "object"}, "idempotent": True, **fields}
    await engine.give(RegisterTool(tool_id=tool_id_of(TENANT, name), name=name, **said))


async def test_fallbacks_are_those_that_are_there_and_take_the_arguments() -> None:
    engine = Engine()
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", tools_={
            "a": {"policy": ToolPolicy(fallbacks=("gone", "letter", "b"))},
            "letter": {"parameters": NEEDS_TO},
            "b": {"idempotent": False, "timeout_s": 7, "max_attempts": 2, "version": "3", "reconcile_timeout_s": 4},
        })  # fmt: skip
        await engine.start("alpha")
        work = await worker.next("alpha")
        b = FallbackTool(tool="b", tool_version="3", idempotent=False, timeout_s=7, max_attempts=2, reconcile_timeout_s=4)
        first = (await called(engine, work, "one", "a")).requested
        assert first is not None and first.fallbacks == (b,)
        assert first.fallbacks_skipped.keys() == {"gone", "letter"}
        assert first.fallbacks_skipped["gone"] == "there is no such tool" and "to" in first.fallbacks_skipped["letter"]
        fits = (await called(engine, work, "two", "a", to="ann")).requested
        assert fits is not None and [one.tool for one in fits.fallbacks] == ["letter", "b"]
        plain = (await called(engine, work, "three", "b")).requested
        assert plain is not None and (plain.fallbacks, plain.fallbacks_skipped) == ((), {})


async def test_a_fallback_that_another_process_changed_is_looked_at_again() -> None:
    engine = Engine()
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", tools_={"a": {"policy": ToolPolicy(fallbacks=("b", "c"))}, "b": {}, "c": {}})
        await engine.start("alpha")
        work = await worker.next("alpha")
        await called(engine, work, "one", "a")  # this process knows the tools now
        other = engine.another()
        await declare(other, "b", timeout_s=9, version="2")
        await other.give(RemoveTool(tool_id=tool_id_of(TENANT, "c"), name="c"))
        again = (await called(engine, work, "two", "a")).requested
        assert again is not None and [(one.tool, one.tool_version, one.timeout_s) for one in again.fallbacks] == [("b", "2", 9)]
        assert again.fallbacks_skipped == {"c": "there is no such tool"}
