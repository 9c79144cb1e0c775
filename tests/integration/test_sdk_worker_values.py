"""Code of users in a worker with the real server: values, failures, mail, open calls and long waits."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, outcome, running, serving, until
from tests.integration.system_kit import empty_work_queue, fresh_database
from tests.pace import in_time
from tidelog import Agent, Client, Context, PermanentError, RecipientOverError, TransientError, tool
from tidelog.worker import slots


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One server for the module: each test has agents of its own."""
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, tmp_path_factory.mktemp("server")) as server,
    ):
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


STARTED: list[str] = []


class Gates:
    """Events for which a test and its tools wait."""

    def __init__(self) -> None:
        self.begun, self.go_on, self.end = asyncio.Event(), asyncio.Event(), threading.Event()


GATES = Gates()


@pytest.fixture(autouse=True)
def gates() -> Iterator[Gates]:
    global GATES  # asyncio events belong to the loop of the test
    STARTED.clear()
    GATES = Gates()
    yield GATES
    GATES.end.set()


# --- failures ---------------------------------------------------------------------------------------------------------


class ApiError(Exception):
    def __str__(self) -> str:
        return {"code": 7}  # type: ignore[return-value]


@tool("v.update")
def update() -> str:
    STARTED.append("tool")
    raise ApiError


class Caller(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("v.update")


class Raiser(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("agent")
        raise ApiError


async def test_an_exception_whose_text_cannot_be_made_fails_at_once(server: Server, client: Client) -> None:
    async with running(server.url, Caller, Raiser, update):
        called, raised = await asyncio.gather(outcome(client, agent="caller"), outcome(client, agent="raiser"))
    assert sorted(STARTED) == ["agent", "tool"], "one execution each"
    [call] = called.step("caller").calls
    assert (called.status, call.status, raised.status) == ("failed", "failed", "failed")
    for error in (call.error, raised.error):
        assert error is not None
        assert (error["type"], error["message"], error["file"]) == ("ApiError", "<exception text not available>", __file__)


@tool("v.pay", idempotent=True, max_attempts=3)
async def pay() -> None:
    async def declined() -> None:
        STARTED.append("pay")
        raise PermanentError("card declined")

    async with asyncio.TaskGroup() as group:
        group.create_task(declined())


class Payer(Agent):
    async def execute(self, ctx: Context) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.tool("v.pay"))


class Busy(Agent):
    async def execute(self, ctx: Context) -> Any:
        async def busy() -> None:
            STARTED.append("busy")
            raise TransientError("busy", retry_after_s=0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(busy())


async def test_a_group_of_errors_has_the_kind_of_its_leaves_and_names_them(server: Server, client: Client) -> None:
    retry = {"max_attempts": 3, "initial_s": 0.01}
    plan = {"kind": "graph", "steps": [{"key": "b", "agent": "busy", "retry": retry}]}
    async with running(server.url, Payer, Busy, pay):
        paid, busy = await asyncio.gather(outcome(client, agent="payer"), outcome(client, plan=plan))
    assert sorted(STARTED) == ["busy"] * 3 + ["pay"]
    [call] = paid.step("payer").calls
    assert call.error is not None and call.error["kind"] == "permanent"
    assert call.error["message"] == "unhandled errors in a TaskGroup (1 sub-exception): PermanentError: card declined"
    assert busy.error is not None and busy.error["message"].endswith(": TransientError: busy")
    assert paid.error is not None and "card declined" in paid.error["message"]
    chain = [(cause["relation"], cause["type"]) for cause in paid.error["causes"]]
    assert chain == [("member", "ToolError"), ("cause", "ExceptionGroup")], "the tool's exception is behind the agent's"
    assert [error["file"] for error in (paid.error, paid.error["causes"][1], call.error)] == [__file__] * 3


# --- open calls -------------------------------------------------------------------------------------------------------


LOOPS: list[asyncio.AbstractEventLoop] = []


@tool("v.late")
def late() -> str:
    """A sync tool goes on when its call is cancelled; an async one would be cancelled, too."""
    STARTED.append("late")
    LOOPS[-1].call_soon_threadsafe(GATES.begun.set)
    GATES.end.wait(60)
    return "done"


class Racer(Agent):
    async def execute(self, ctx: Context) -> str:
        LOOPS.append(asyncio.get_running_loop())
        slow = asyncio.create_task(ctx.tool("v.late"))
        await asyncio.wait({asyncio.create_task(GATES.begun.wait()), slow}, return_when=asyncio.FIRST_COMPLETED)
        return "quick"


async def test_an_agent_that_ends_with_open_calls(server: Server, client: Client) -> None:
    async with running(server.url, Racer, late):
        started = await client.start_run(agent="racer")
        types: list[str] = []

        async def read() -> None:
            async for event in client.events(started.run_id):
                types.append(event.type)

        reading = asyncio.create_task(read())
        run = await end_of(client, started.run_id)
        [call] = run.step("racer").calls
        assert (run.status, run.result, call.status, call.cancel_requested) == ("completed", "quick", "running", True)
        await until(lambda: "run.completed" in types)
        assert not reading.done(), "the attempt is under way"
        GATES.end.set()
        await in_time(reading, 20)
    assert types[-1] == "invocation.succeeded" and types.count("run.completed") == 1
    assert types == [event.type async for event in client.events(started.run_id, follow=False)], "nothing comes after the end"


class Hasty(Agent):
    async def execute(self, ctx: Context) -> str:
        left = asyncio.create_task(ctx.tool("v.late"))
        while not ctx.open_calls():  # noqa: ASYNC110  # until the call is recorded
            await asyncio.sleep(0.01)
        return str(left.done())


async def test_a_tool_that_had_no_worker_is_not_started_for_a_run_that_is_over(server: Server, client: Client) -> None:
    async with running(server.url, late):
        pass  # the server knows the tool now
    async with running(server.url, Hasty):
        run = await outcome(client, agent="hasty")
    [call] = run.step("hasty").calls
    assert (run.status, call.status) == ("completed", "cancelled")
    async with running(server.url, Racer, late):
        await outcome(client, agent="racer")
        GATES.end.set()
    assert STARTED == ["late"], "of the second run"


# --- mail -------------------------------------------------------------------------------------------------------------


class Ends(Agent):
    async def execute(self, ctx: Context) -> str:
        return "over"


class Writes(Agent):
    async def execute(self, ctx: Context) -> Any:
        await GATES.go_on.wait()
        try:
            await ctx.send("ends", "hi")
        except RecipientOverError as error:
            return str(error)
        return "sent"


async def test_a_message_to_a_step_that_is_over_is_an_error_of_its_sender(server: Server, client: Client) -> None:
    async with running(server.url, Ends, Writes):
        started = await client.start_run(plan={"kind": "parallel", "agents": ["ends", "writes"]})
        await event_of(client, started.run_id, "run.step_completed", step="ends")
        GATES.go_on.set()
        run = await end_of(client, started.run_id)
    assert run.result["writes"] == "the message to 'ends' was not sent: the recipient is completed"
    assert await client.messages(started.run_id) == []


# --- waits ------------------------------------------------------------------------------------------------------------


@tool("v.slow")
async def slow() -> str:
    return "at last"


class Waits(Agent):
    async def execute(self, ctx: Context) -> Any:
        STARTED.append("waits")
        return await ctx.tool("v.slow")


class Quick(Agent):
    async def execute(self, ctx: Context) -> str:
        return "quick"


async def test_agents_that_wait_hold_no_slot(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """As calls that wait for a person: until now two of them stopped a worker with two slots."""
    monkeypatch.setattr(slots, "GIVE_BACK_AFTER_S", 0.05)
    async with running(server.url, slow):
        pass  # the server knows the tool now
    async with running(server.url, Waits, Quick, concurrency=2):
        waiting = [await client.start_run(agent="waits") for _ in range(4)]
        await until(lambda: len(STARTED) == 4)
        assert (await outcome(client, agent="quick")).result == "quick"
        async with running(server.url, slow):
            runs = [await end_of(client, started.run_id) for started in waiting]
    assert [(run.status, run.result) for run in runs] == [("completed", "at last")] * 4
    assert STARTED == ["waits"] * 4, "each was executed once: the coroutines stayed"


# --- values -----------------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    True, False, None, 0, 1, -1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1.0, -0.0, 1e308, 5e-324, 0.1, 1e16, "",
    "\u2028", "\\u0000", "\x1b[31m", "🌊", "e\u0301", "\N{REPLACEMENT CHARACTER}", {}, [], {"": {"1": 1, "true": True}}, [[], [[]]],
]  # fmt: skip


@tool("v.echo", idempotent=True)
def echo(value: Any) -> Any:
    return value


class Everything(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.state.set("value", ctx.input)
        await ctx.send("everything", ctx.input)
        message = await ctx.receive(timeout_s=300)
        return {
            "input": ctx.input,
            "step": await ctx.step("step", lambda: ctx.input),
            "tool": await ctx.tool("v.echo", value=ctx.input),
            "state": await ctx.state.get("value"),
            "message": message.body if message else "none",
        }


async def test_values_come_back_as_they_were(server: Server, client: Client) -> None:
    async with running(server.url, Everything, echo):
        run = await outcome(client, agent="everything", input=VALUES, metadata={"values": VALUES})
    assert run.status == "completed", run.error
    assert run.metadata is not None
    seen = {"metadata": run.metadata["values"], "read": run.input, **run.result}
    for way, value in seen.items():
        assert json.dumps(value) == json.dumps(VALUES), way  # `==` would take True for 1, and 0.0 for -0.0
    [mail] = await client.messages(run.run_id)
    assert json.dumps(mail.body) == json.dumps(VALUES)
    [call] = run.step("everything").calls
    assert call.invocation_id is not None
    invocation = await client.invocation(call.invocation_id)
    assert json.dumps([invocation.arguments["value"], invocation.result]) == json.dumps([VALUES, VALUES])
