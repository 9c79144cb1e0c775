"""The SDK's worker with the real server: its behaviour for agents and tools, and while a part of the system is away."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import (
    KEY,
    Server,
    administering,
    end_of,
    event_of,
    events_of,
    outcome,
    queued,
    running,
    serving,
    until,
    worker_process,
)
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database, work_stream_of
from tests.pace import in_time
from tidelog import Agent, Client, Context, PermanentError, ToolContext, ToolError, TransientError, tool
from tidelog.worker import Worker
from tidelog.worker.runtime import RefusedError


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server_of_all(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, folder) as server,
    ):
        yield server


@pytest.fixture
async def server(server_of_all: Server) -> AsyncIterator[Server]:
    """One server for all tests. The server's log lines during a test are shown with that test."""
    server_of_all.new_log()
    yield server_of_all
    print(server_of_all.new_log())


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


STARTED: list[str] = []
"""The executions that the agents of a test started in this process."""


@pytest.fixture(autouse=True)
def nothing_started() -> None:
    STARTED.clear()


# --- agents and tools -------------------------------------------------------------------------------------------------


@tool("math.add", idempotent=True)
def add(ctx: ToolContext, a: int, b: int = 1) -> dict[str, Any]:
    return {"sum": a + b, "key": ctx.idempotency_key, "workspace": str(ctx.workspace)}


class Adder(Agent):
    async def execute(self, ctx: Context) -> Any:
        return list(await asyncio.gather(*(ctx.tool("math.add", a=number, b=10) for number in ctx.input)))


async def test_an_agent_gets_the_results_of_tools_that_run_side_by_side(server: Server, client: Client, tmp_path: Path) -> None:
    async with running(server.url, Adder, add, workspace=tmp_path):
        run = await outcome(client, agent="adder", input=[1, 2, 3])
    invocations = {call.key: str(call.invocation_id) for call in run.step("adder").calls}
    assert run.result == [
        {"sum": 10 + number, "key": invocations[f"math.add#{number}"], "workspace": str(tmp_path)} for number in (1, 2, 3)
    ]


@tool(idempotent=True)
def whom(ctx: ToolContext) -> Any:
    return ctx.on_behalf_of


class Asker(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [ctx.on_behalf_of, await ctx.tool("whom")]


async def test_agents_and_tools_read_for_whom_the_run_is(server: Server, client: Client) -> None:
    async with running(server.url, Asker, whom):
        run = await outcome(client, agent="asker", on_behalf_of="Ada Ångström")
        nobody = await outcome(client, agent="asker")
    assert (run.result, run.on_behalf_of) == (["Ada Ångström"] * 2, "Ada Ångström") and (run.actor or "").startswith("key:")
    assert (nobody.result, nobody.on_behalf_of) == ([None, None], None)
    assert {event.onbehalfof async for event in client.events(run.run_id)} == {"Ada Ångström"}


@tool(idempotent=True, max_attempts=2)
async def explode(how: str) -> None:
    if how == "permanent":
        raise PermanentError("no use")
    if how == "exit":
        sys.exit(3)
    raise TransientError("later", retry_after_s=0.8)


class Prodder(Agent):
    async def execute(self, ctx: Context) -> Any:
        kinds = []
        for name, arguments in (
            ("explode", {"how": "permanent"}),
            ("explode", {"how": "transient"}),
            ("explode", {"how": "exit"}),
            ("explode", {"wrong": 1}),
            ("nothing", {}),
        ):
            try:
                await ctx.tool(name, **arguments)
            except ToolError as error:
                kinds.append((error.kind, str(error).split(":")[0]))
        return kinds


async def test_failures_of_tools_reach_the_agent_with_their_kind(server: Server, client: Client) -> None:
    async with running(server.url, Prodder, explode):
        run = await outcome(client, agent="prodder")
    assert run.result == [
        ["permanent", "PermanentError"],
        ["transient", "TransientError"],
        ["permanent", "ProcessExitError"],
        ["invalid", "arguments of tool 'explode'"],
        ["permanent", "no tool 'nothing' is registered"],
    ]
    assert [(call.status, call.attempts) for call in run.step("prodder").calls] == [("failed", 1), ("failed", 2), ("failed", 1)]
    [retry] = await events_of(client, run.run_id, "invocation.retry_scheduled")
    assert retry.data["error"]["retry_after_s"] == 0.8 and retry.data["delay_s"] >= 0.8
    first, *_ = await events_of(client, run.run_id, "invocation.failed")
    error = first.data["error"]
    assert (error["type"], error["message"], error["file"]) == ("PermanentError", "no use", __file__)
    assert f"line {error['line']}" in error["traceback"] and "raise PermanentError" in error["traceback"]


class Slow(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            await ctx.tool("slow")
        except ToolError as error:
            return [error.kind, str(error)]
        return "no time-out"


LET_GO = threading.Event()


@tool(timeout_s=0.3, max_attempts=1)
def slow() -> None:
    LET_GO.wait(60)


async def test_the_timeout_of_a_sync_tool_is_enforced(server: Server, client: Client) -> None:
    async with running(server.url, Slow, slow):
        try:
            run = await outcome(client, agent="slow")
        finally:
            LET_GO.set()
    assert run.result[0] == "transient" and "within 0.3 s" in run.result[1]


class Failing(Agent):
    async def execute(self, ctx: Context) -> Any:
        if ctx.input == "exit":
            sys.exit(1)
        if ctx.input == "transient":
            raise TransientError("try again")
        if ctx.input == "large":
            return "x" * 300_000
        secret_local = "hunter2"
        raise ValueError(f"broken {len(secret_local)}")


@pytest.mark.parametrize(
    ("input", "type", "kind"),
    [
        ("value", "ValueError", "permanent"),
        ("exit", "ProcessExitError", "permanent"),
        ("transient", "TransientError", "transient"),
        ("large", "ValueTooLargeError", "permanent"),
    ],
)
async def test_an_exception_fails_the_agent_run_and_not_the_worker(
    server: Server, client: Client, input: str, type: str, kind: str
) -> None:
    async with running(server.url, Failing, Adder, add):
        run = await outcome(client, agent="failing", input=input)
        error = run.step("failing").error
        assert run.status == "failed" and error is not None
        assert (error["type"], error["kind"]) == (type, kind)
        assert len(error["message"].encode()) <= 4096
        assert "hunter2" not in error["message"]
        assert (await outcome(client, agent="adder", input=[1])).result[0]["sum"] == 11


# --- slots ------------------------------------------------------------------------------------------------------------


async def test_agents_beyond_the_concurrency_wait_their_turn(server: Server, client: Client, nats_url: str) -> None:
    go = asyncio.Event()

    class Counter(Agent):
        running = 0
        most = 0

        async def execute(self, ctx: Context) -> Any:
            Counter.running += 1
            Counter.most = max(Counter.most, Counter.running)
            await go.wait()
            Counter.running -= 1

    async with running(server.url, Counter, concurrency=2), administering(nats_url) as jetstream:
        ends = asyncio.gather(*(outcome(client, agent="counter") for _ in range(8)))

        async def all_wait() -> bool:
            return Counter.running == 2 and await queued(jetstream, "counter") == 6

        await eventually(all_wait, "two at work, and the work of the others on the queue")
        go.set()
        runs = await ends
    assert [run.status for run in runs] == ["completed"] * 8
    assert Counter.most == 2


async def test_a_full_worker_takes_work_of_all_its_queues_in_turn(server: Server, client: Client) -> None:
    class One(Agent):
        async def execute(self, ctx: Context) -> Any:
            await asyncio.sleep(0.2)

    class Two(One):
        pass

    async with running(server.url, One, Two, concurrency=1):
        runs = await asyncio.gather(*(outcome(client, agent=name) for name in ("one", "two", "one", "two")))
    assert [(run.status, run.steps[0].attempt) for run in runs] == [("completed", 1)] * 4


# --- work that another worker has taken over --------------------------------------------------------------------------


class Waiter(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("waiter")
        try:
            await ctx.receive(timeout_s=60)
        except asyncio.CancelledError:
            STARTED.append("stopped")
            raise


async def test_cancelling_a_run_stops_the_agent_that_waits(server: Server, client: Client) -> None:
    async with running(server.url, Waiter):
        started = await client.start_run(agent="waiter")
        await until(lambda: STARTED)
        await client.cancel_run(started.run_id)
        await until(lambda: STARTED == ["waiter", "stopped"], 5)


@tool("w.waits", idempotent=True)
async def waits() -> None:
    STARTED.append("waits")
    try:
        await asyncio.Event().wait()
    finally:
        STARTED.append("stopped")


@tool("w.looks", idempotent=True)
def looks(ctx: ToolContext) -> None:
    STARTED.append("looks")
    while not ctx.cancelled:
        time.sleep(0.01)
    STARTED.append("stopped")


class CallsOne(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.tool(ctx.input)


@pytest.mark.parametrize("name", ["w.waits", "w.looks"])
async def test_cancelling_a_run_reaches_the_tool_that_runs(server: Server, client: Client, name: str) -> None:
    async with running(server.url, CallsOne, waits, looks):
        started = await client.start_run(agent="calls-one", input=name)
        await until(lambda: STARTED)
        await client.cancel_run(started.run_id)
        await until(lambda: STARTED[1:] == ["stopped"], 5)


# --- a system with parts that go away ---------------------------------------------------------------------------------


async def test_a_wrong_key_ends_the_worker_with_a_clear_error(server: Server) -> None:
    with pytest.raises(RefusedError, match="401 unauthenticated"):
        await in_time(Worker(url=server.url, api_key="wrong", agents=[Adder]).run(asyncio.Event()), 10)


async def test_work_survives_an_outage_of_the_server(server: Server, client: Client) -> None:
    down = asyncio.Event()

    class Patient(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("started")
            await down.wait()
            return [await ctx.step(f"s{number}", asyncio.sleep, 0.1, number) for number in range(3)]

    async with running(server.url, Patient):
        started = await client.start_run(agent="patient")
        await until(lambda: STARTED)
        try:
            await server.kill()
            down.set()
            await asyncio.sleep(1)  # the outage: the worker's attempts fail
        finally:
            await server.start()
        run = await end_of(client, started.run_id, 30)
    assert run.result == [0, 1, 2]
    assert STARTED == ["started"] and run.step("patient").attempt == 1


@pytest.fixture
async def own_nats() -> AsyncIterator[EmbeddedServices]:
    """A NATS server that the test ends, in a folder that the server's account can reach."""
    folder = tempfile.mkdtemp(prefix="tidelog-test-")
    os.chmod(folder, 0o711)
    services = EmbeddedServices(Path(folder) / "state", durable=False, want_postgres=False)
    await services.start()
    try:
        yield services
    finally:
        await services.stop()
        shutil.rmtree(folder)


async def found_work_stream(jetstream: JetStreamContext) -> str | None:
    with contextlib.suppress(NotFoundError):
        return await work_stream_of(jetstream)
    return None


async def test_a_lost_stream_and_a_restarted_nats_are_nothing_to_the_worker(
    own_nats: EmbeddedServices, database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tidelog")
    async with (
        serving(database_url, own_nats.nats_url, tmp_path) as server,
        Client(server.url, KEY) as client,
        running(server.url, Adder, add),
    ):
        async with administering(own_nats.nats_url) as jetstream:
            await jetstream.delete_stream(
                await eventually(lambda: found_work_stream(jetstream), "the queue of the session's agents")
            )
        assert (await outcome(client, agent="adder", input=[1])).result[0]["sum"] == 11
        os.kill(own_nats.describe()["nats"]["pid"], signal.SIGKILL)
        await asyncio.sleep(0.5)
        await own_nats.restart("nats")
        assert (await outcome(client, agent="adder", input=[2])).result[0]["sum"] == 12
        assert caplog.messages.count("worker_registered") == 1, "its session stayed"


# --- the worker as a process ------------------------------------------------------------------------------------------

TWO_STEPS = """
    import asyncio
    from pathlib import Path
    from tidelog import Agent, Context

    def note(folder: str, what: str) -> str:
        with (Path(folder) / "effects").open("a") as file:
            file.write(what + "\\n")
        return what.upper()

    class TwoSteps(Agent):
        async def execute(self, ctx: Context) -> list:
            first = await ctx.step("first", note, ctx.input, "first")
            mail = await ctx.receive(timeout_s=120, key="go")
            return [first, mail.body, await ctx.step("second", note, ctx.input, "second")]

    class Sender(Agent):
        async def execute(self, ctx: Context) -> None:
            while not (Path(ctx.input) / "go").exists():
                await asyncio.sleep(0.05)
            await ctx.send("two-steps", "go on")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO_STEPS))
    (tmp_path / "broken.py").write_text("raise SystemExit(9)")
    return tmp_path


PLAN = {"kind": "parallel", "agents": ["two-steps", "sender"]}


async def test_after_a_sigkill_another_worker_does_not_repeat_the_finished_step(
    server: Server, client: Client, folder: Path
) -> None:
    async with worker_process(server.url, folder) as first:
        started = await client.start_run(plan=PLAN, input=str(folder))
        await event_of(client, started.run_id, "agent_run.step_recorded", key="first")
        before = (await client.get_run(started.run_id)).step("two-steps")
        first.kill()
        await first.wait()
    async with worker_process(server.url, folder) as second:
        (folder / "go").touch()
        run = await end_of(client, started.run_id, 40)
        second.send_signal(signal.SIGTERM)
        assert await in_time(second.wait(), 10) == 0
    assert run.result["two-steps"] == ["FIRST", "go on", "SECOND"]
    assert (folder / "effects").read_text() == "first\nsecond\n"
    after = run.step("two-steps")
    assert (before.attempt, after.attempt) == (1, 2) and after.worker_id not in (None, before.worker_id)


async def test_a_worker_that_is_told_to_stop_hands_its_work_over_at_once(server: Server, client: Client, folder: Path) -> None:
    async with worker_process(server.url, folder) as first:
        started = await client.start_run(plan=PLAN, input=str(folder))
        await event_of(client, started.run_id, "agent_run.step_recorded", key="first")
        async with worker_process(server.url, folder) as second:
            first.send_signal(signal.SIGTERM)
            assert await in_time(first.wait(), 10) == 0

            async def handed_over() -> bool:
                run = await client.get_run(started.run_id)
                return run.step("sender").attempt == 2 and run.step("two-steps").status == "suspended"

            await eventually(handed_over, "the hand-over", 5)  # before any lease is over
            (folder / "go").touch()
            run = await end_of(client, started.run_id)
            assert run.step("two-steps").attempt == 2
            second.send_signal(signal.SIGTERM)
            assert await in_time(second.wait(), 10) == 0
    assert run.result["two-steps"] == ["FIRST", "go on", "SECOND"]
    assert (folder / "effects").read_text() == "first\nsecond\n"
