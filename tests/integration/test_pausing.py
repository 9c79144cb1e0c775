"""A paused run over HTTP, with the SDK's own worker on real servers: within a second nothing works on it, and it goes on later."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from tests.integration import sdk_kit
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tidelog import Agent, Client, Context, tool
from tidelog.errors import TidelogAPIError

DONE: list[str] = []
STOPPED: list[float] = []
GATES: dict[str, asyncio.Event] = {}


@tool("letter", idempotent=False)
async def letter(n: int) -> str:
    """An effect that must not happen twice, and that takes its time."""
    DONE.append(f"letter {n}")
    GATES["in the letter"].set()
    await GATES["letter may end"].wait()
    return f"letter {n}"


class Writer(Agent):
    """Writes one letter, and then thinks for long."""

    async def execute(self, ctx: Context) -> Any:
        first = await ctx.tool("letter", n=1)
        GATES["thinks"].set()
        try:
            await GATES["thought"].wait()
        except asyncio.CancelledError:
            STOPPED.append(time.monotonic())
            raise
        return [first, await ctx.step("last", lambda: "done")]


async def test_a_run_is_paused_and_goes_on(services: EmbeddedServices, tmp_path: Path) -> None:
    DONE.clear()
    STOPPED.clear()
    GATES.update({name: asyncio.Event() for name in ("in the letter", "letter may end", "thinks", "thought")})
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as database_url,
        sdk_kit.serving(database_url, services.nats_url, tmp_path) as server,
        Client(server.url, sdk_kit.KEY) as client,
        sdk_kit.running(server.url, Writer, letter, tool_concurrency=4),
    ):
        started = await client.start_run(agents=["writer", "writer"])
        run_id = started.run_id
        await asyncio.wait_for(GATES["in the letter"].wait(), 30)

        await client.change_priority(run_id, "high", "they wait")
        assert (await client.get_run(run_id)).priority == "high"

        # In the middle of a call: the call ends, and its outcome is recorded. Its agent gets no further.
        await client.pause_run(run_id, "look first")
        await client.pause_run(run_id, "look first")
        with pytest.raises(TidelogAPIError, match="another reason: look first"):
            await client.pause_run(run_id, "something else")
        GATES["letter may end"].set()

        async def call_ended() -> bool:
            return [call.status for call in await client.calls(run_id)] == ["succeeded"]

        await eventually(call_ended)
        run = await client.get_run(run_id)
        assert run.status == "paused" and run.pause is not None
        assert run.pause["reason"] == "look first" and run.pause["by"].startswith("key:")
        assert run.steps[0].status == "paused" and not run.finished
        assert not GATES["thinks"].is_set()
        assert [found.run_id for found in (await client.list_runs(status="paused")).data] == [run_id]
        assert [found.run_id for found in (await client.list_runs(status="running")).data] == []

        # Another server, and the run goes on: the letter is not written again.
        await server.kill()
        await server.start()
        await client.resume_run(run_id, "fine")
        await asyncio.wait_for(GATES["thinks"].wait(), 30)
        assert DONE == ["letter 1"]

        # In the middle of the agent's own code: it is stopped at once.
        at = time.monotonic()
        await client.pause_run(run_id)
        await sdk_kit.until(lambda: STOPPED)
        assert STOPPED[0] - at < 5.0, "a push, and no look by the clock"
        GATES["thought"].set()
        await client.resume_run(run_id)
        ended = await client.wait(run_id)
        assert ended.status == "completed" and ended.pause is None
        assert DONE == ["letter 1", "letter 1"], "one for each of the two steps"
        audited = await client.audit(action="runs.steer")
        assert [(entry.operation, entry.reason) for entry in audited][::-1] == [
            ("priority", "they wait"),
            ("pause", "look first"), ("pause", "something else"), ("resume", "fine"), ("pause", None), ("resume", None),
        ]  # fmt: skip
