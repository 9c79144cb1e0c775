"""The worker against a real NATS server and a real HTTP server that keeps the contract between server and workers."""

import asyncio
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.sdk_kit import (
    ACK_WAIT_S,
    TWO_STEPS,
    NatsServer,
    StandIn,
    all_acknowledged,
    finished,
    running,
    start_process,
    until,
)
from tidelog import Agent, Context, PermanentError, ToolContext, ToolError, TransientError, tool
from tidelog.worker import Worker
from tidelog.worker.runtime import RefusedError


@pytest.fixture
async def nats_server() -> AsyncIterator[NatsServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder))
        await server.start()
        yield server
        await server.stop()


@pytest.fixture
async def server(nats_server: NatsServer) -> AsyncIterator[StandIn]:
    stand_in = StandIn(nats_server)
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


# --- agents and tools of the tests ------------------------------------------------------------------------------------


@tool("math.add", idempotent=True)
def add(ctx: ToolContext, a: int, b: int = 1) -> dict[str, Any]:
    return {"sum": a + b, "key": ctx.idempotency_key, "workspace": str(ctx.workspace)}


@tool
async def explode(how: str) -> None:
    if how == "permanent":
        raise PermanentError("no use")
    if how == "exit":
        sys.exit(3)
    if how == "slow":
        await asyncio.sleep(30)
    raise TransientError("later", retry_after_s=7)


class Adder(Agent):
    async def execute(self, ctx: Context) -> Any:
        sums = await asyncio.gather(*(ctx.tool("math.add", a=number, b=10) for number in ctx.input))
        return [part["sum"] for part in sums]


class Asker(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.send("answerer", {"question": 41})
        answer = await ctx.receive(timeout_s=10, sender="answerer")
        nothing = await ctx.receive(timeout_s=0.1)
        await ctx.state.set("answer", answer.body if answer else None)
        return [await ctx.state.get("answer"), await ctx.state.get("none", default="-"), nothing]


class Answerer(Agent):
    async def execute(self, ctx: Context) -> Any:
        question = await ctx.receive(timeout_s=10)
        assert question is not None
        await ctx.send(question.sender, question.body["question"] + 1)
        return "sent"


async def test_an_agent_gets_the_results_of_tools_that_run_side_by_side(server: StandIn) -> None:
    async with running(server, Adder, add):
        run = await finished(await server.start_agent("adder", [1, 2, 3]))
    assert run["result"] == [11, 12, 13]
    assert list(run["journal"]) == ["math.add#1", "math.add#2", "math.add#3"]
    # One long poll at a time serves all three: the journal was not polled once per call and round.
    assert server.requests.count("GET agent-runs/*/journal") <= 7


async def test_agents_talk_and_share_state(server: StandIn) -> None:
    async with running(server, Asker, Answerer):
        await server.start_agent("answerer")
        run = await finished(await server.start_agent("asker"))
    assert run["result"] == [42, "-", None]


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


async def test_failures_of_tools_reach_the_agent_with_their_kind(server: StandIn) -> None:
    async with running(server, Prodder, explode):
        run = await finished(await server.start_agent("prodder"))
    assert run["result"] == [
        ["permanent", "PermanentError"],
        ["transient", "TransientError"],
        ["permanent", "ProcessExitError"],
        ["invalid", "InvalidArgumentsError"],
        ["permanent", "there is no tool nothing"],
    ]
    errors = [invocation["error"] for invocation in server.invocations.values()]
    assert errors[1]["retry_after_s"] == 7
    assert "line" in errors[0]["message"] and "raise PermanentError" in errors[0]["message"]


class Slow(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            await ctx.tool("slow")
        except ToolError as error:
            return [error.kind, str(error)]
        return "no time-out"


@tool(timeout_s=0.3)
def slow() -> None:
    time.sleep(3)


async def test_the_timeout_of_a_sync_tool_is_enforced(server: StandIn) -> None:
    async with running(server, Slow, slow):
        run = await finished(await server.start_agent("slow"), 5)
    assert run["result"][0] == "transient" and "within 0.3 s" in run["result"][1]


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
async def test_an_exception_fails_the_agent_run_and_not_the_worker(server: StandIn, input: str, type: str, kind: str) -> None:
    async with running(server, Failing, Adder, add):
        run = await finished(await server.start_agent("failing", input))
        assert (run["status"], run["error"]["type"], run["error"]["kind"]) == ("failed", type, kind)
        assert len(run["error"]["message"].encode()) <= 4096
        assert "hunter2" not in run["error"]["message"]
        assert (await finished(await server.start_agent("adder", [1])))["result"] == [11]


STARTED: list[str] = []


class Waiter(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("waiter")
        try:
            await ctx.receive(timeout_s=60)
        except asyncio.CancelledError:
            STARTED.append("stopped")
            raise


async def test_cancelling_a_run_stops_the_agent_that_waits(server: StandIn) -> None:
    STARTED.clear()
    async with running(server, Waiter):
        run = await server.start_agent("waiter")
        await until(lambda: STARTED)
        await until(lambda: "GET agent-runs/*/journal" in server.requests)
        server.cancel(run)
        await until(lambda: STARTED == ["waiter", "stopped"], 5)
        await all_acknowledged(server)


async def test_a_newer_attempt_elsewhere_ends_this_one(server: StandIn) -> None:
    class Stepper(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("stepping")
            await ctx.step("first", asyncio.sleep, 0.3)
            STARTED.append("never")

    STARTED.clear()
    async with running(server, Stepper):
        run = await server.start_agent("stepper")
        await until(lambda: STARTED)
        run["attempt"] += 1  # as if another worker had claimed it
        await all_acknowledged(server)
    assert STARTED == ["stepping"]
    assert server.requests[-1].endswith("/journal")  # no report of its own: the newer attempt has the say
    assert run["journal"] == {} and run["status"] == "running"


async def test_work_survives_an_outage_of_the_server(server: StandIn) -> None:
    class Patient(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("started")
            return [await ctx.step(f"s{number}", asyncio.sleep, 0.1, number) for number in range(3)]

    STARTED.clear()
    async with running(server, Patient):
        run = await server.start_agent("patient")
        await until(lambda: STARTED)
        server.down = True
        await asyncio.sleep(2)
        server.down = False
        assert (await finished(run))["result"] == [0, 1, 2]
    assert STARTED == ["started"] and run["attempt"] == 1


async def test_a_lost_stream_and_a_restarted_nats_are_survived(server: StandIn, nats_server: NatsServer) -> None:
    async with running(server, Adder, add):
        await server.jetstream.delete_stream("WORK")
        await server.make_stream()
        await until(lambda: len(server.registrations) >= 2)
        assert (await finished(await server.start_agent("adder", [1])))["result"] == [11]
        await nats_server.stop()
        await asyncio.sleep(0.5)
        await nats_server.start()
        await until(lambda: server.connection.is_connected)
        # Well before the missing heartbeats of the pulls that the old server took with it are noticed.
        assert (await finished(await server.start_agent("adder", [2]), 9))["result"] == [12]


async def test_a_wrong_key_ends_the_worker_with_a_clear_error(server: StandIn) -> None:
    with pytest.raises(RefusedError, match="401 unauthenticated"):
        await asyncio.wait_for(Worker(url=server.url, api_key="wrong", agents=[Adder]).run(asyncio.Event()), 10)


async def test_agents_beyond_the_concurrency_wait_their_turn(server: StandIn) -> None:
    class Counter(Agent):
        running = 0
        most = 0

        async def execute(self, ctx: Context) -> Any:
            Counter.running += 1
            Counter.most = max(Counter.most, Counter.running)
            await asyncio.sleep(0.1)
            Counter.running -= 1

    async with running(server, Counter, concurrency=2):
        runs = [await server.start_agent("counter") for _ in range(8)]
        for run in runs:
            assert (await finished(run))["status"] == "completed"
    assert Counter.most == 2


async def test_a_full_worker_takes_work_of_all_its_queues_in_turn(server: StandIn) -> None:
    class One(Agent):
        async def execute(self, ctx: Context) -> Any:
            await asyncio.sleep(0.2)

    class Two(One):
        pass

    async with running(server, One, Two, concurrency=1):
        runs = [await server.start_agent(name) for name in ("one", "two", "one", "two")]
        for run in runs:
            assert (await finished(run))["status"] == "completed"
            assert run["attempt"] == 1


async def test_work_that_is_delivered_again_to_its_own_worker_is_not_started_twice(
    server: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    class Blocking(Agent):
        async def execute(self, ctx: Context) -> Any:
            STARTED.append("blocking")
            await asyncio.sleep(0.1)
            time.sleep(ACK_WAIT_S + 1.5)  # noqa: ASYNC251  # the mistake that is tried: no heartbeat goes out meanwhile
            await ctx.step("next", asyncio.sleep, 1)
            return "done"

    STARTED.clear()
    async with running(server, Blocking):
        run = await finished(await server.start_agent("blocking"))
    assert run["result"] == "done" and run["attempt"] == 1 and STARTED == ["blocking"]
    assert "event_loop_blocked" in caplog.messages


# --- the worker as a process ---


async def test_after_a_sigkill_another_worker_does_not_repeat_the_finished_step(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO_STEPS))
    (tmp_path / "broken.py").write_text("raise SystemExit(9)")
    first = await start_process(server, tmp_path)
    run = await server.start_agent("two-steps", str(tmp_path))
    await until(lambda: "first" in run["journal"])
    await until(lambda: "GET agent-runs/*/journal" in server.requests)
    first.kill()
    await first.wait()
    second = await start_process(server, tmp_path)
    try:
        await until(lambda: run["attempt"] == 2, 30)
        server.deliver_mail(run, "test", "go on")
        assert (await finished(run))["result"] == ["FIRST", "SECOND"]
        assert (tmp_path / "effects").read_text() == "first\nsecond\n"
        assert run["workers"][0] != run["workers"][1]
    finally:
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 10) == 0


async def test_a_worker_that_is_told_to_stop_hands_its_work_over_at_once(server: StandIn, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(textwrap.dedent(TWO_STEPS))
    first = await start_process(server, tmp_path)
    run = await server.start_agent("two-steps", str(tmp_path))
    await until(lambda: "first" in run["journal"])
    second = await start_process(server, tmp_path)
    try:
        await until(lambda: len(server.registrations) == 2)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(first.wait(), 10) == 0
        await until(lambda: run["attempt"] == 2, 2)  # less than the ack wait
        server.deliver_mail(run, "test", "go on")
        assert (await finished(run))["result"] == ["FIRST", "SECOND"]
    finally:
        second.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(second.wait(), 10) == 0
