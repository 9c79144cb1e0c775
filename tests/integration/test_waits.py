"""Agents that wait, with the real server: they leave their worker, and come back when something has come for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, events_of, outcome, running, serving, until
from tests.integration.system_kit import empty_work_queue, fresh_database
from tests.pace import within
from tidelog import Agent, Client, Context, PermanentError, ToolContext, plans, tool
from tidelog.errors import ChildRunError, ConflictError, NotFoundError, TidelogAPIError
from tidelog.models import Event


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


GATE: dict[str, asyncio.Event] = {}
ALIVE: list[str] = []
"""The executions that are in memory now."""


@contextlib.contextmanager
def alive(name: str) -> Any:
    ALIVE.append(name)
    try:
        yield
    finally:
        ALIVE.remove(name)


class Sleeper(Agent):
    async def execute(self, ctx: Context) -> Any:
        with alive("sleeper"):
            before = await ctx.step("before", lambda: 1)
            ctx.progress(ctx.attempt, 2, "sleeps")
            await ctx.sleep(ctx.input)
            return [before, ctx.attempt]


async def test_an_agent_that_sleeps_is_in_no_worker_meanwhile_and_goes_on_when_the_time_has_come(
    server: Server, client: Client
) -> None:
    async with running(server.url, Sleeper, suspend_after_s=0):
        started = await client.start_run(agent="sleeper", input=1.0)
        await event_of(client, started.run_id, "agent_run.suspended")
        await until(lambda: not ALIVE)
        run = await end_of(client, started.run_id)
    assert run.result == [1, 2]
    [waited] = await events_of(client, run.run_id, "agent_run.wait_started")
    [finished] = await events_of(client, run.run_id, "agent_run.wait_finished")
    assert (finished.time - waited.time) >= timedelta(seconds=1)
    said = [event.data["done"] for event in await events_of(client, run.run_id, "agent_run.progressed")]
    assert said == [1, 2], "it was told before the agent left its worker, and before it ended"
    progress = run.steps[0].progress
    assert progress is not None and (progress.done, progress.total, progress.message, progress.attempt) == (2, 2, "sleeps", 2)


async def test_short_sleeps_are_waited_for_in_place(server: Server, client: Client) -> None:
    async with running(server.url, Sleeper):
        assert (await outcome(client, agent="sleeper", input=0)).result == [1, 1]
        assert (await outcome(client, agent="sleeper", input="0.02s")).result == [1, 1]


class Alarm(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.sleep(datetime.now(UTC) + timedelta(seconds=0.5), key="until")
        return ctx.attempt


async def test_a_worker_that_is_gone_does_not_make_a_sleep_longer(server: Server, client: Client) -> None:
    async with running(server.url, Alarm):
        started = await client.start_run(agent="alarm")
        await event_of(client, started.run_id, "agent_run.suspended")  # a time is not waited for in place
    await event_of(client, started.run_id, "agent_run.resumed", reason="woken")
    async with running(server.url, Alarm):
        assert (await end_of(client, started.run_id)).result == 2


class Asking(Agent):
    async def execute(self, ctx: Context) -> Any:
        got = await ctx.receive(timeout_s=60)
        late = await ctx.receive(timeout_s=0.3, key="late")
        return [None if got is None else got.body, late, ctx.attempt]


class Telling(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.sleep(0.2)
        await ctx.send("asking", "hello")


async def test_mail_and_the_end_of_a_receive_wake_an_agent(server: Server, client: Client) -> None:
    async with running(server.url, Asking, Telling, suspend_after_s=0):
        run = await outcome(client, plan=plans.parallel("asking", "telling"))
    assert run.step("asking").result == ["hello", None, 3]


@tool("held", idempotent=True)
async def held(ctx: ToolContext, name: str) -> str:
    await GATE.setdefault(name, asyncio.Event()).wait()
    return name


class Both(Agent):
    async def execute(self, ctx: Context) -> Any:
        return [*await asyncio.gather(ctx.tool("held", name="a"), ctx.sleep("0.1s"), ctx.tool("held", name="b")), ctx.attempt]


async def suspended_after(client: Client, before: Event, run_id: UUID) -> Event:
    """Waits until the agent has left its worker once more."""
    async with within(30):
        async for event in client.events(run_id):
            if event.type == "agent_run.suspended" and event.position > before.position:
                return event
    raise AssertionError("the run ended without another suspension")


async def test_waits_side_by_side_wake_an_agent_one_by_one(server: Server, client: Client) -> None:
    """The sleep may be over before the agent is suspended for the first time."""
    GATE.clear()
    async with running(server.url, Both, held, suspend_after_s=0):
        started = await client.start_run(agent="both")
        slept = await event_of(client, started.run_id, "agent_run.wait_finished")
        await suspended_after(client, slept, started.run_id)
        GATE.setdefault("b", asyncio.Event()).set()
        called = await event_of(client, started.run_id, "agent_run.call_finished")
        last = await suspended_after(client, called, started.run_id)
        GATE.setdefault("a", asyncio.Event()).set()
        run = await end_of(client, started.run_id)
    assert run.result == ["a", None, "b", last.data["attempt"] + 1]


class Beside(Agent):
    async def execute(self, ctx: Context) -> Any:
        async def beside() -> int:
            await GATE.setdefault("beside", asyncio.Event()).wait()
            return ctx.attempt

        return await asyncio.gather(beside(), ctx.sleep("0.05s"))


async def test_an_agent_that_does_something_beside_its_wait_stays(server: Server, client: Client) -> None:
    GATE.clear()
    async with running(server.url, Beside, suspend_after_s=0):
        started = await client.start_run(agent="beside")
        await event_of(client, started.run_id, "agent_run.wait_finished")
        GATE.setdefault("beside", asyncio.Event()).set()
        assert (await end_of(client, started.run_id)).result == [1, None]
    assert not await events_of(client, started.run_id, "agent_run.suspended")


class Listening(Agent):
    async def execute(self, ctx: Context) -> Any:
        first = await ctx.signal("go")
        try:
            await ctx.signal("go", timeout_s=ctx.input or 0.05)
        except TimeoutError as error:
            return [first, str(error), await ctx.signal("end"), ctx.attempt]


async def test_a_signal_wakes_the_agent_that_waits_for_it_and_is_received_once(server: Server, client: Client) -> None:
    async with running(server.url, Listening, suspend_after_s=0):
        run_id = (await client.start_run(agent="listening")).run_id
        await event_of(client, run_id, "agent_run.suspended")
        [wait] = await client.run_waits(run_id)
        assert (wait.waits_for, wait.key, wait.detail) == ("signal", "signal:go#1", "its agent waits as signal:go#1")
        sent = await client.signal_run(run_id, "end", {"early": True}, id="e")
        assert (await client.signal_run(run_id, "end", {"early": True}, id="e")).signal_id == sent.signal_id
        with pytest.raises(TidelogAPIError, match="a signal with this id was sent before, and this one differs"):
            await client.signal_run(run_id, "end", id="e")
        await client.signal_run(run_id, "go", ["payload"], step="listening")
        run = await end_of(client, run_id)
    assert run.result[:3] == [["payload"], "no signal 'go' came within 0.05 s", {"early": True}]
    signalled = await events_of(client, run_id, "run.signalled")
    assert [event.data["received_by"] is None for event in signalled] == [True, False]
    [kept] = await events_of(client, run_id, "run.signal_received")
    assert kept.data["signal_id"] == str(sent.signal_id)


async def test_signals_that_cannot_be_received_are_refused(server: Server, client: Client) -> None:
    async with running(server.url, Listening):
        run_id = (await client.start_run(agent="listening", input=60)).run_id
        await event_of(client, run_id, "run.signal_awaited")
        for name, given, why in (
            ("go", {"step": "nobody"}, "the run has no step 'nobody'"),
            ("", {}, "name"),
            ("go\0", {}, "name"),
            ("go", {"payload": "x" * 70_000}, "the payload has 70,002 bytes, 65,536 are allowed"),
        ):
            with pytest.raises(TidelogAPIError, match=why):
                await client.signal_run(run_id, name, **given)
        with pytest.raises(NotFoundError):
            await client.signal_run(uuid4(), "go")
        await client.cancel_run(run_id)
    with pytest.raises(ConflictError, match="the run is cancelled: nobody waits for a signal"):
        await client.signal_run(run_id, "go")
    [ended] = await events_of(client, run_id, "agent_run.cancelled")
    assert ended.data["open_waits"] == [{"key": "signal:go#1", "kind": "signal"}]


async def test_a_worker_that_is_told_to_stop_lets_go_at_once_of_what_only_waits(server: Server, client: Client) -> None:
    async with running(server.url, Listening, suspend_after_s=3600, grace_s=60):
        run_id = (await client.start_run(agent="listening")).run_id
        await event_of(client, run_id, "run.signal_awaited")
    [left] = await events_of(client, run_id, "agent_run.suspended")
    assert left.data["attempt"] == 1
    await client.signal_run(run_id, "go", 1)
    await client.signal_run(run_id, "end", 2)
    async with running(server.url, Listening, suspend_after_s=3600):
        run = await end_of(client, run_id)
    assert run.result == [1, "no signal 'go' came within 0.05 s", 2, 2]
    assert all(event.data["lapsed"] is None for event in await events_of(client, run_id, "agent_run.resumed"))


class Editor(Agent):
    async def execute(self, ctx: Context) -> Any:
        drafts = await asyncio.gather(*(ctx.child("writer", number) for number in range(2)))
        steps = plans.agent("writer", key="first"), plans.agent("writer", key="second", after="first")
        flow = plans.graph(*steps, result="steps.second.result")
        drafts.append(await ctx.child(plan=flow, input="now"))
        for faulty in ({"steps": [{"key": "a", "agent": "nobody"}]}, {"steps": [{"key": "a", "agent": 7, "when": 8}]}):
            try:
                await ctx.child(plan=faulty)
            except PermanentError as error:
                drafts.append(str(error))
        try:
            await ctx.child("writer", "fail")
        except ChildRunError as error:
            return [drafts, error.type, error.reason, ctx.attempt > 1]


class Writer(Agent):
    async def execute(self, ctx: Context) -> Any:
        if ctx.input == "fail":
            raise PermanentError("no idea")
        if ctx.input != "now":
            await ctx.signal("write", timeout_s=60)
        return ctx.input


async def test_an_agent_starts_runs_once_and_waits_for_their_ends(server: Server, client: Client) -> None:
    async with running(server.url, Editor, Writer, suspend_after_s=0):
        run_id = (await client.start_run(agent="editor", metadata={"a": 1})).run_id
        await event_of(client, run_id, "agent_run.suspended")
        children = await client.children(run_id)
        for child in children:
            await client.signal_run(child.run_id, "write")
        run = await end_of(client, run_id)
        [first, second, planned, unknown, malformed], *rest = run.result
        assert ([first, second, planned], rest) == ([0, 1, "now"], ["PermanentError", "no idea", True])
        assert "no agent 'nobody' is registered" in unknown
        assert "/plan/steps/0/agent" in malformed and "/plan/steps/0/when" in malformed, "all faults at once"
        [child] = [one for one in await client.children(run_id) if len((await client.get_run(one.run_id)).steps) == 2]
        assert (await client.get_run(child.run_id)).status == "completed"
        assert len(children) == 2
        orphan = (await client.start_run(agent="editor")).run_id
        await event_of(client, orphan, "agent_run.suspended")
        [one, other] = [child.run_id for child in await client.children(orphan)]
        await client.cancel_run(orphan)
        assert [(await end_of(client, each)).status for each in (one, other)] == ["cancelled", "cancelled"]
    refused = await events_of(client, run_id, "run.failed")
    assert not refused


class Nobodys(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.child("nobody")


async def test_a_child_run_of_an_agent_that_is_not_there_is_a_clear_error(server: Server, client: Client) -> None:
    async with running(server.url, Nobodys):
        run = await outcome(client, agent="nobodys")
    assert "no agent 'nobody' is registered" in str(run.error)


DONE: list[str] = []


class Counts(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.step("before", lambda: DONE.append(f"before {ctx.run_id}"))
        got = await ctx.signal("go")
        await ctx.step("after", lambda: DONE.append(f"after {ctx.run_id}"))
        return got


async def test_a_server_that_is_killed_loses_no_wait_and_no_signal(server: Server, client: Client) -> None:
    DONE.clear()
    async with running(server.url, Counts, suspend_after_s=0):
        run_ids = [(await client.start_run(agent="counts")).run_id for _ in range(8)]
        await server.kill()
        await server.start()
        await asyncio.gather(*(client.signal_run(run_id, "go", str(run_id), id="once") for run_id in run_ids[:4]))
        await server.kill()
        await server.start()
        for run_id in run_ids:  # those of before are repeats, which count for nothing
            await client.signal_run(run_id, "go", str(run_id), id="once")
        await server.kill()
        await server.start()
        ended = [await end_of(client, run_id, 60) for run_id in run_ids]
    assert [run.result for run in ended] == [str(run_id) for run_id in run_ids]
    assert sorted(DONE) == sorted(f"{when} {run_id}" for when in ("before", "after") for run_id in run_ids)
