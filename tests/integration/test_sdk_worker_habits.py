"""Habits of user code in a worker: it swallows cancellations, does not come back, or asks the process to exit."""

import asyncio
import signal
import textwrap
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, log_lines, outcome, running, serving, until, worker_process
from tests.integration.system_kit import empty_work_queue, fresh_database
from tests.pace import in_time
from tidelog import Agent, Client, Context, ToolError, tool
from tidelog.worker import Worker, bench


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, folder) as server,
    ):
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


GO, STARTED = threading.Event(), list[str]()


@pytest.fixture(autouse=True)
def code_goes_on_after_the_test() -> Any:
    GO.clear()
    STARTED.clear()
    yield
    GO.set()


async def stubborn() -> None:
    """Swallows every cancellation."""
    while not GO.is_set():
        try:  # noqa: SIM105  # as users write it
            await asyncio.sleep(0.05)
        except BaseException:  # noqa: BLE001, S110  # the habit under test
            pass


class Stubborn(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("stubborn")
        await stubborn()


class Threaded(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("threaded")
        await ctx.step("wait", GO.wait, 60)


def held(worker: Worker, kind: str = "agent") -> list[str]:
    return worker.slots_held()[kind]


@pytest.mark.parametrize("agent", [Stubborn, Threaded])
async def test_code_that_does_not_stop_keeps_its_slot_and_is_shown(
    server: Server, client: Client, agent: type[Agent], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench, "FIRST_REMINDER_S", 0.1)
    async with running(server.url, agent, concurrency=1) as worker:
        first = await client.start_run(agent=agent.name)
        await until(lambda: len(STARTED) == 1)
        await client.cancel_run(first.run_id)
        await until(lambda: held(worker))
        await client.start_run(agent=agent.name)
        await until(lambda: "code_does_not_stop" in caplog.messages)
        line = next(record.__dict__["fields"] for record in caplog.records if record.getMessage() == "code_does_not_stop")
        assert (line["slots_held"], line["slots"], str(line["run_id"])) == (1, 1, str(first.run_id))
        assert "test_sdk_worker_habits.py, line" in line["code"][0] or "GO.wait" in line["code"][0] or "wait" in line["code"][0]
        assert len(STARTED) == 1, "the slot was given away"
        GO.set()
        await until(lambda: len(STARTED) == 2)
        assert not held(worker)


@tool("habits.async", timeout_s=0.3, max_attempts=1)
async def never_async() -> None:
    await stubborn()


@tool("habits.sync", timeout_s=0.3, max_attempts=1)
def never_sync() -> None:
    GO.wait(60)


class Caller(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            await ctx.tool(ctx.input)
        except ToolError as error:
            return str(error)


@pytest.mark.parametrize("name", ["habits.async", "habits.sync"])
async def test_the_time_out_of_a_tool_holds_and_its_slot_waits_for_the_code(server: Server, client: Client, name: str) -> None:
    async with running(server.url, Caller, never_async, never_sync, tool_concurrency=1) as worker:
        run = await outcome(client, agent="caller", input=name)
        assert "ToolTimeoutError: no result within 0.3 s" in run.result
        await until(lambda: len(held(worker, "tool")) == 1)
        GO.set()
        await until(lambda: not held(worker, "tool"))


PROCESS = """
    import asyncio, sys, threading, time
    from pathlib import Path
    from tidelog import Agent, Context, ToolContext, tool

    class Swallows(Agent):
        async def execute(self, ctx: Context):
            while True:
                try:
                    Path(ctx.input).touch()
                    await asyncio.sleep(1000)
                except BaseException:
                    pass

    class Thread(Agent):
        async def execute(self, ctx: Context):
            threading.Thread(target=time.sleep, args=(1000,)).start()
            Path(ctx.input).touch()

    class Blocks(Agent):
        async def execute(self, ctx: Context):
            Path(ctx.input).touch()
            time.sleep(1000)

    def leave(*_):
        sys.exit("CRM_KEY is not set")

    class Init(Agent):
        def __init__(self):
            leave()
        async def execute(self, ctx: Context):
            return "never"

    class Body(Agent):
        async def execute(self, ctx: Context):
            leave()

    class Task(Agent):
        async def execute(self, ctx: Context):
            async def work():
                leave()
            await asyncio.create_task(work())

    class Lonely(Agent):
        async def execute(self, ctx: Context):
            async def work():
                leave()
            kept = asyncio.create_task(work())
            await asyncio.Event().wait()

    class Callback(Agent):
        async def execute(self, ctx: Context):
            asyncio.get_running_loop().call_later(0.01, leave)
            await asyncio.Event().wait()

    class Pool(Agent):
        async def execute(self, ctx: Context):
            await asyncio.to_thread(leave)

    class Step(Agent):
        async def execute(self, ctx: Context):
            await ctx.step("leave", leave)

    @tool("habits.slow", timeout_s=60)
    def slow(ctx: ToolContext) -> str:
        while not (ctx.workspace / "go").exists():
            time.sleep(0.02)
        return "done"

    class Bystander(Agent):
        async def execute(self, ctx: Context) -> str:
            return await ctx.tool("habits.slow")
"""
EXITS = ("init", "body", "task", "lonely", "callback", "pool", "step")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "habits.py").write_text(textwrap.dedent(PROCESS))
    return tmp_path


async def test_an_exit_anywhere_fails_its_own_run_and_nobody_else_notices(server: Server, client: Client, folder: Path) -> None:
    async with worker_process(server.url, folder) as process:
        bystander = asyncio.create_task(outcome(client, agent="bystander"))
        await until(lambda: log_lines(folder, "tool_started"))
        runs = await asyncio.gather(*(outcome(client, agent=agent) for agent in EXITS))
        (folder / "go").touch()
        assert (await bystander).result == "done"
        assert process.returncode is None
    failed = {run.steps[0].agent: run.error or {} for run in runs}
    assert {agent: error.get("type") for agent, error in failed.items()} == dict.fromkeys(EXITS, "ProcessExitError")
    assert all("CRM_KEY is not set" in error["message"] for error in failed.values())


@pytest.mark.parametrize("agent", ["swallows", "thread", "blocks"])
async def test_the_worker_ends_in_time_whatever_an_agent_does(server: Server, client: Client, folder: Path, agent: str) -> None:
    async with worker_process(server.url, folder, "--grace", "0.2") as process:
        started = await client.start_run(agent=agent, input=str(folder / "begun"))
        await until((folder / "begun").exists)
        process.send_signal(signal.SIGTERM)
        assert await in_time(process.wait(), 5) == (1 if agent == "blocks" else 0)
        assert agent == "swallows" or log_lines(folder, "process_ended_by_force")
    if agent != "thread":
        await client.cancel_run(started.run_id)
