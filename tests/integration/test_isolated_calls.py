"""Isolated tools in a worker process with the real server: their results, their lines, their end, and what a machine lacks."""

import asyncio
import fcntl
from functools import partial
from pathlib import Path
from uuid import UUID

import httpx2

from tests.integration.sdk_kit import KEY, end_of, outcome, serving, worker_process
from tests.integration.system_kit import eventually
from tests.pace import ANSWER_S, Deadline
from tidelog import Client, tool
from tidelog.isolation.kernel import Kernel
from tidelog.isolation.tool import Isolating
from tidelog.worker import Worker

FILES = {
    "_util": "def shout(text): return text.upper()",
    "tools": '''
import fcntl, time
from pathlib import Path
from tidelog import ToolContext, tool
from _util import shout

@tool("shout", isolation="process", idempotent=True)
def loud(ctx: ToolContext, text: str) -> str:
    """Shout."""
    print("shouting")
    ctx.log.warning("loud", text=text)
    ctx.usage(money="0.002", tokens=7)
    ctx.usage(tokens=1)
    return shout(text)

@tool("hold", isolation="process", timeout_s=600)
def hold(path: str) -> None:
    file = open(path, "w")
    fcntl.flock(file, fcntl.LOCK_EX)
    Path(path + ".held").touch()
    time.sleep(600)

@tool("end", isolation="process", max_attempts=1)
def end(ctx: ToolContext) -> None:
    import os
    ctx.usage(money="0.5")
    os.abort()
''',
    "agents": """
from tidelog import Agent

class Caller(Agent):
    async def execute(self, ctx):
        return await ctx.tool(ctx.input["tool"], **ctx.input["arguments"])
""",
}


async def free(lock: Path, seconds: float) -> bool:
    deadline = Deadline(seconds)
    while True:
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                return True
        if await deadline.over():
            return False
        await asyncio.sleep(0.02)


async def test_calls_of_a_worker_process(database_url: str, nats_url: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / f"{name}.py").write_text(text)
    lock, held = tmp_path / "lock", tmp_path / "lock.held"
    async with serving(database_url, nats_url, tmp_path) as server, Client(server.url, KEY) as client:
        async with worker_process(server.url, tmp_path):
            run = await outcome(client, agent="caller", input={"tool": "shout", "arguments": {"text": "hi"}})
            assert (run.status, run.result) == ("completed", "HI")
            await lines_of(client, run.run_id, {("info", "shouting"), ("warning", "loud text=hi")})
            ended = await outcome(client, agent="caller", input={"tool": "end", "arguments": {}})
            [call] = await client.calls(ended.run_id)
            assert (call.error["type"], call.error["kind"]) == ("ProcessCrashedError", "transient")
            used = {}
            for each in (run, ended):
                [row] = await eventually(partial(client.budgets.usage, "run", run_id=each.run_id), "what was used")
                used[each.run_id] = (str(row.money), row.tokens)
            assert used == {run.run_id: ("0.002", 8), ended.run_id: ("0.5", 0)}, "also what was said before its process died"

            started = await client.start_run(agent="caller", input={"tool": "hold", "arguments": {"path": str(lock)}})
            deadline = Deadline(ANSWER_S)
            while not held.exists():
                assert not await deadline.over()
                await asyncio.sleep(0.02)
            await client.cancel_run(started.run_id)
            assert await free(lock, 2), "the process of a cancelled call is killed"
            assert (await end_of(client, started.run_id)).status == "cancelled"
        await look_at_problems(server.url)


async def lines_of(client: Client, run_id: UUID, wanted: set[tuple[str, str]]) -> None:
    deadline = Deadline(20)
    found: set[tuple[str, str]] = set()
    while not wanted <= found:
        assert not await deadline.over(), found
        found = {(line.level, line.text) for line in await client.run_logs(run_id)}


@tool("offline", isolation="process", network=False)
def offline() -> None:
    """Wants no network."""


async def look_at_problems(url: str) -> None:
    """A worker on a machine that has no namespaces says so, and doctor, lists and readiness have it from there."""
    worker = Worker(url=url, api_key=KEY)
    worker._isolating = Isolating(Kernel(reason="no namespaces here"))
    worker.add([], [offline])
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        deadline, told = Deadline(20), ""
        async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=ANSWER_S) as http:
            while "isolation-incomplete" not in told:
                assert not await deadline.over(), told
                told = (await http.get("/v1/workers/problems")).text
        assert "it has a network all the same" in told and "no namespaces here" in told
    finally:
        stop.set()
        await task
