"""The SDK's testing kit does with a fault of a tool what a server does: the same result, attempts, questions and effects."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, running, serving, until, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.kit.scenarios import A_PERSON_SAYS, IN_ONE_WORKER, OF_A_VANISHED_WORKER
from tidelog import Agent, Client, Context, Reconciled, ToolError
from tidelog.testing import ScriptedTool, TestClock, run_agent

AGENT = """
from tests.integration.test_sdk_kit_and_server import Plays
from tests.kit.scenarios import OF_A_VANISHED_WORKER
from pathlib import Path

__all__ = ["played", "Scene"]
played = OF_A_VANISHED_WORKER[{scene!r}]({scene!r}, Path({file!r}))

class Scene(Plays):
    name = "plays-{scene}"
"""


class Plays(Agent):
    """Calls the tools that are named, side by side, and says how each call ended."""

    async def execute(self, ctx: Context) -> Any:
        return await asyncio.gather(*(self._call(ctx, name) for name in ctx.input))

    async def _call(self, ctx: Context, name: str) -> Any:
        try:
            return await ctx.tool(name, key=name, order=7)
        except ToolError as error:
            return f"{error.kind}: {error.type}: {error.reason}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: Any) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    async with fresh_database(services) as url, serving(url, services.nats_url, tmp_path_factory.mktemp("server")) as server:
        yield server


def seen(results: Iterable[Any], tools: Mapping[str, ScriptedTool]) -> dict[str, Any]:
    """What is compared of each scene."""
    return {
        name: {
            "result": result,
            "attempts": [call.attempt for call in tool.calls],
            "arguments": [call.arguments for call in tool.calls],
            "asked": [call.attempt for call in tool.asked],
            "keys": len({call.idempotency_key for call in [*tool.calls, *tool.asked]}),
            "effects": len(tool.effects),
        }
        for (name, tool), result in zip(tools.items(), results, strict=True)
    }


async def in_the_kit(scenes: Mapping[str, Any]) -> dict[str, Any]:
    tools = {name: scene(name, None) for name, scene in scenes.items()}
    outcome = await run_agent(
        Plays,
        list(tools),
        tools=list(tools.values()),
        clock=TestClock(),
        resolve=lambda call: Reconciled.succeeded(A_PERSON_SAYS),
    )
    return seen(outcome.result, tools)


async def a_person_answers(client: Client, run_id: Any, count: int) -> None:
    """A person says of so many calls that they took effect."""

    async def all_wait() -> bool:
        return len(await client.invocations(status="ambiguous", run_id=run_id)) == count

    await eventually(all_wait, f"{count} ambiguous calls", 60)
    for call in await client.invocations(status="ambiguous", run_id=run_id):
        await client.resolve(call.invocation_id, result=A_PERSON_SAYS, reason="a look into the books")


async def test_faults_lead_to_the_same_in_the_kit_and_on_a_server(server: Server) -> None:
    tools = {name: scene(name, None) for name, scene in IN_ONE_WORKER.items()}
    async with Client(server.url, KEY) as client, running(server.url, Plays, *tools.values(), tool_concurrency=32):
        started = await client.start_run(agent="plays", input=list(tools))
        await a_person_answers(client, started.run_id, 2)
        run = await end_of(client, started.run_id, 60)
        calls = {call.key: str(call.invocation_id) for call in await client.calls(run.run_id)}
    assert seen(run.result, tools) == await in_the_kit(IN_ONE_WORKER)
    assert all({call.idempotency_key for call in tool.calls} == {calls[name]} for name, tool in tools.items())


async def test_vanished_workers_lead_to_the_same_in_the_kit_and_on_a_server(server: Server, tmp_path: Path) -> None:
    tools = {name: scene(name, tmp_path / f"{name}.calls") for name, scene in OF_A_VANISHED_WORKER.items()}
    (tmp_path / "all").mkdir()
    async with Client(server.url, KEY) as client, AsyncExitStack() as stack:
        runs = []
        for name in tools:
            folder = tmp_path / name
            folder.mkdir()
            for place in (folder, tmp_path / "all"):
                file = place / f"{name.replace('-', '_')}.py"
                file.write_text(AGENT.format(scene=name, file=str(tmp_path / f"{name}.calls")))
        workers = await asyncio.gather(*(stack.enter_async_context(worker_process(server.url, tmp_path / name)) for name in tools))
        for name in tools:
            runs.append(await client.start_run(agent=f"plays-{name}", input=[name]))
        await until(lambda: all(worker.returncode == 70 for worker in workers), 60)
        await stack.enter_async_context(worker_process(server.url, tmp_path / "all"))
        await a_person_answers(client, runs[list(tools).index("vanishes")].run_id, 1)
        ended = [await end_of(client, run.run_id, 60) for run in runs]
    assert seen([run.result[0] for run in ended], tools) == await in_the_kit(OF_A_VANISHED_WORKER)
