"""The SDK with the real server: a process with all roles on real Postgres and NATS, the SDK's client and worker on this side."""

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from adapters.embedded import EmbeddedServices
from tidelog import Agent, Client, Context, ToolError, TransientError, tool
from tidelog.errors import AuthenticationError, InvalidRequestError, NotFoundError
from tidelog.worker import Worker

KEY = "tl_test_key_of_the_sdk_tests"
SERVE = """
import asyncio
from api.roles import serve
from api.settings import ROLES, load_settings
asyncio.run(serve(load_settings(), set(ROLES)))
"""


@pytest.fixture
async def server(services: EmbeddedServices, database_url: str, tmp_path: Path) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "TIDELOG_DATABASE_URL": database_url,
        "TIDELOG_NATS_URL": services.nats_url,
        "TIDELOG_PORT": str(port),
        "TIDELOG_WORKER_NATS_URL": services.worker_nats_url,
        "TIDELOG_LOG_FORMAT": "console",
        "TIDELOG_BOOTSTRAP_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest(),
    }
    log = (tmp_path / "server.log").open("wb")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVE, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(30), Client(url, KEY, patience_s=0) as client:
            while True:
                assert process.returncode is None, (tmp_path / "server.log").read_text()[-4000:]
                with contextlib.suppress(Exception):
                    await client.agents()
                    break
                await asyncio.sleep(0.2)
        yield url
    finally:
        log.close()
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        finally:
            if process.returncode is None:
                process.kill()
            print((tmp_path / "server.log").read_text()[-8000:])  # shown by pytest when the test fails


@pytest.fixture
async def client(server: str) -> AsyncIterator[Client]:
    async with Client(server, KEY) as client:
        yield client


@contextlib.asynccontextmanager
async def running(url: str, *parts: Any) -> AsyncIterator[Worker]:
    worker = Worker(
        url=url,
        api_key=KEY,
        agents=[part for part in parts if isinstance(part, type)],
        tools=[part for part in parts if not isinstance(part, type)],
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        await asyncio.wait_for(worker.registered.wait(), 15)
        yield worker
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


@tool("math.add", idempotent=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TRIES: list[int] = []


@tool("flaky", idempotent=True)
def flaky() -> int:
    TRIES.append(1)
    if len(TRIES) < 2:
        raise TransientError("once more")
    return len(TRIES)


class Everything(Agent):
    """Uses every call of the context."""

    async def execute(self, ctx: Context) -> Any:
        parsed = await ctx.step("parse", int, ctx.input["number"])
        sums = await asyncio.gather(*(ctx.tool("math.add", a=parsed, b=b) for b in range(3)))
        tries = await ctx.tool("flaky")
        errors = []
        wrong: tuple[tuple[str, dict[str, Any]], ...] = (("math.add", {"a": "x", "b": 1}), ("no.such", {}))
        for name, arguments in wrong:
            try:
                await ctx.tool(name, **arguments)
            except ToolError as error:
                errors.append(error.kind)
        await ctx.send("partner", {"number": parsed})
        reply = await ctx.receive(timeout_s=20, sender="partner")
        await ctx.state.set("seen", reply.body if reply else None)
        seen = await ctx.state.get("seen")
        nothing = await ctx.receive(timeout_s=0.2)
        return {"sums": sums, "tries": tries, "errors": errors, "seen": seen, "nothing": nothing, "peers": list(ctx.peers)}


class Partner(Agent):
    async def execute(self, ctx: Context) -> str:
        message = await ctx.receive(timeout_s=20)
        assert message is not None
        await ctx.send(message.sender, message.body["number"] + 1)
        return "answered"


async def test_a_run_that_uses_every_call_of_the_context(server: str, client: Client) -> None:
    async with running(server, Everything, Partner, add, flaky):
        plan = {"kind": "parallel", "agents": ["everything", "partner"]}
        started = await client.start_run(plan=plan, input={"number": "41"})
        run = await client.wait(started.run_id, timeout=40)
    assert run.status == "completed", run.error
    assert run.result["everything"] == {
        "sums": [41, 42, 43],
        "tries": 2,
        "errors": ["invalid", "permanent"],
        "seen": 42,
        "nothing": None,
        "peers": ["partner"],
    }
    step = run.step("everything")
    assert [call.tool for call in step.calls] == ["math.add", "math.add", "math.add", "flaky"]
    assert [(m.sender, m.body, m.status) for m in await client.messages(started.run_id)] == [
        ("everything", {"number": 41}, "received"),
        ("partner", 42, "received"),
    ]
    assert {agent.name for agent in await client.agents()} == {"everything", "partner"}
    assert {tool.name for tool in await client.tools()} == {"math.add", "flaky"}


async def test_the_log_of_a_run_is_the_same_live_and_afterwards(server: str, client: Client) -> None:
    async with running(server, Partner):
        started = await client.start_run(agent="partner")
        live = asyncio.create_task(_collect(client, started.run_id))
        await asyncio.sleep(0.5)
        await client.cancel_run(started.run_id, "enough")
        seen = await asyncio.wait_for(live, 20)
    run = await client.get_run(started.run_id)
    assert run.status == "cancelled"
    again = [event async for event in client.events(started.run_id, follow=False)]
    assert [event.id for event in seen] == [event.id for event in again]
    assert seen[0].type == "run.started" and "run.cancelled" in {event.type for event in seen}
    past = await client.get_run(started.run_id, as_of=seen[0].position)
    assert past.status == "running" and past.position <= seen[0].position


async def _collect(client: Client, run_id: Any) -> list[Any]:
    return [event async for event in client.events(run_id)]


async def test_what_the_server_refuses_is_typed(server: str, client: Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.start_run(plan={"kind": "graph", "steps": [{"key": "a", "agent": "a", "after": ["nowhere"]}]})
    assert caught.value.status == 422
    with pytest.raises(NotFoundError):
        await client.get_run(uuid4())
    async with Client(server, "wrong") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.agents()
    project = await client.create_project("Reviews")
    assert project.project_id in {known.project_id for known in await client.projects()}
    with pytest.raises(NotFoundError, match="unknown-agent"):
        await client.start_run(agent="nobody-has-it")


async def test_one_idempotency_key_starts_one_run(server: str, client: Client) -> None:
    project = await client.create_project("Once")
    async with running(server, Partner):
        started = [await client.start_run(agent="partner", idempotency_key="same", project_id=project.project_id) for _ in range(2)]
        assert started[0].run_id == started[1].run_id
        assert [run.run_id for run in (await client.list_runs(project_id=project.project_id)).data] == [started[0].run_id]
        await client.cancel_run(started[0].run_id)


CRASHING = """
    import asyncio
    from pathlib import Path
    from tidelog import Agent, Context

    def note(folder: str, what: str) -> str:
        with (Path(folder) / "effects").open("a") as file:
            file.write(what + "\\n")
        return what.upper()

    class TwoSteps(Agent):
        async def execute(self, ctx: Context) -> list:
            mail = await ctx.receive(timeout_s=30, key="mail")
            first = await ctx.step("first", note, ctx.input, "first")
            while not (Path(ctx.input) / "go").exists():
                await asyncio.sleep(0.05)
            return [mail.body, first, await ctx.step("second", note, ctx.input, "second")]

    class Sender(Agent):
        async def execute(self, ctx: Context) -> None:
            await ctx.send("two-steps", "hello")
"""


async def test_after_a_sigkill_another_worker_continues_without_repeating(server: str, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "two.py").write_text(textwrap.dedent(CRASHING))

    async with worker_process(server, folder, client) as first:
        started = await client.start_run(plan={"kind": "parallel", "agents": ["two-steps", "sender"]}, input=str(folder))
        async with asyncio.timeout(30):
            async for event in client.events(started.run_id):
                if event.type == "agent_run.step_recorded" and event.data["key"] == "first":
                    break
        first.kill()
        await first.wait()
    (folder / "go").touch()
    async with worker_process(server, folder, client) as second:
        run = await client.wait(started.run_id, timeout=40)
        second.terminate()
        assert await asyncio.wait_for(second.wait(), 15) == 0
    assert run.status == "completed", run.error
    assert run.result["two-steps"] == ["hello", "FIRST", "SECOND"]
    assert (folder / "effects").read_text() == "first\nsecond\n"
    assert run.step("two-steps").attempt == 2


@contextlib.asynccontextmanager
async def worker_process(url: str, folder: Path, client: Client) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process for a folder; its agents are known to the server when the block begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidelog.worker",
        "--agents",
        str(folder),
        "--workspace",
        str(folder),
        env={**os.environ, "TIDELOG_URL": url, "TIDELOG_API_KEY": KEY},
    )
    try:
        async with asyncio.timeout(20):
            while True:
                if "two-steps" in {agent.name for agent in await client.agents()}:
                    break
                await asyncio.sleep(0.1)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
