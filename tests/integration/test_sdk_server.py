"""The SDK with the real server: a process with all roles on real Postgres and NATS, the SDK's client and worker on this side."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, running, serving
from tests.integration.system_kit import fresh_database
from tests.pace import in_time
from tidelog import Agent, Client, Context, ToolError, TransientError, tool
from tidelog.errors import AuthenticationError, InvalidRequestError, NotFoundError


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One server for the module: each test uses runs and projects of its own."""
    async with (
        fresh_database(services) as database_url,
        serving(database_url, services.nats_url, tmp_path_factory.mktemp("server")) as server,
    ):
        yield server.url


@pytest.fixture
async def client(server: str) -> AsyncIterator[Client]:
    async with Client(server, KEY) as client:
        yield client


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
        reply = await ctx.receive(timeout_s=300, sender="partner")
        await ctx.state.set("seen", reply.body if reply else None)
        seen = await ctx.state.get("seen")
        unset = await ctx.state.get("none", default="-")
        nothing = await ctx.receive(timeout_s=0.2)
        return {"sums": sums, "tries": tries, "errors": errors, "seen": [seen, unset], "nothing": nothing, "peers": list(ctx.peers)}


class Partner(Agent):
    async def execute(self, ctx: Context) -> str:
        message = await ctx.receive(timeout_s=300)
        assert message is not None
        await ctx.send(message.sender, message.body["number"] + 1)
        return "answered"


async def test_a_run_that_uses_every_call_of_the_context(server: str, client: Client) -> None:
    async with running(server, Everything, Partner, add, flaky):
        plan = {"kind": "parallel", "agents": ["everything", "partner"]}
        started = await client.start_run(plan=plan, input={"number": "41"})
        run = await client.wait(started.run_id, timeout=300)
        [one] = await client.workers()
        assert one.agents is not None and {agent.name for agent in one.agents} == {"everything", "partner"}
        assert {agent.workers for agent in await client.agents()} == {1}
    assert run.status == "completed", run.error
    assert run.result["everything"] == {
        "sums": [41, 42, 43],
        "tries": 2,
        "errors": ["invalid", "permanent"],
        "seen": [42, "-"],
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
        begun = asyncio.Event()
        live = asyncio.create_task(_collect(client, started.run_id, begun))
        await in_time(begun.wait(), 20)
        await client.cancel_run(started.run_id, "enough")
        seen = await in_time(live, 20)
    run = await client.get_run(started.run_id)
    assert run.status == "cancelled"
    again = [event async for event in client.events(started.run_id, follow=False)]
    assert [event.id for event in seen] == [event.id for event in again]
    assert seen[0].type == "run.started" and "run.cancelled" in {event.type for event in seen}
    past = await client.get_run(started.run_id, as_of=seen[0].position)
    assert past.status == "running" and past.position <= seen[0].position


async def _collect(client: Client, run_id: Any, begun: asyncio.Event) -> list[Any]:
    events = []
    async for event in client.events(run_id):
        events.append(event)
        begun.set()
    return events


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
