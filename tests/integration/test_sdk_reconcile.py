"""Tools with a `reconcile` function, run by workers of the SDK: the page that tells how to write one, and what one may do."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, events_of, running, serving, until, worker_process
from tests.integration.system_kit import empty_work_queue, fresh_database
from tests.pages import block
from tidelog import Agent, Client, Context, PermanentError, Reconciled, ToolContext, ToolError, tool

PAGE = "docs/how-to/make-an-effect-happen-once.md"
OF_DOUBT = ("invocation.reconcile_requested", "invocation.reconcile_failed", "invocation.reconciled")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


async def test_the_page_says_what_happens(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "hotel.py").write_text(block(PAGE, "hotel"))
    async with worker_process(server.url, tmp_path) as first:
        started = await client.start_run(agent="traveller", input="12")
        await until(lambda: list((tmp_path / "bookings").glob("*")) if (tmp_path / "bookings").exists() else [])
        first.kill()
        await first.wait()
    async with worker_process(server.url, tmp_path):
        run = await end_of(client, started.run_id, 40)
    [booking] = (tmp_path / "bookings").iterdir()
    assert run.result == json.loads(booking.read_text()) == {"room": "12", "key": booking.name}
    asked, reconciled = await events_of(client, started.run_id, *OF_DOUBT)
    assert (asked.data["reason"], reconciled.data["outcome"]) == ("lost", "succeeded")
    call = await client.invocation(booking.name)
    assert call.status == "succeeded", "the key is the call's id"


EFFECTS: list[str] = []
CALLS: list[tuple[str, int]] = []
TOLD: list[str] = []


@pytest.fixture(autouse=True)
def nothing_happened() -> None:
    for noted in (EFFECTS, CALLS, TOLD):
        noted.clear()


async def tells(ctx: ToolContext, how: str) -> Reconciled:
    TOLD.append(ctx.idempotency_key)
    if how == "broken":
        raise PermanentError("no such table")
    if how == "busy" and len(TOLD) == 1:
        raise ConnectionError("try again")
    if how == "unknown":
        return Reconciled.unknown()
    return Reconciled.succeeded("found") if EFFECTS else Reconciled.not_happened()


@tool("d.slow", timeout_s=0.3, max_attempts=2, reconcile=tells, reconcile_timeout_s=5)
async def slow(ctx: ToolContext, how: str, other: int = 1) -> str:
    CALLS.append((ctx.idempotency_key, ctx.attempt))
    if how in ("took effect", "busy", "waits"):
        EFFECTS.append(ctx.idempotency_key)
    if how == "late" and len(CALLS) == 2:
        return "done"
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


class CallsOne(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            return await ctx.tool("d.slow", how=ctx.input)
        except ToolError as error:
            return f"failed: {error.kind}"


@pytest.mark.parametrize(
    ("how", "result", "found", "calls", "times"),
    [
        ("took effect", "found", ["succeeded"], 1, 1),
        ("busy", "found", ["succeeded"], 1, 2),
        ("late", "done", ["not_happened"], 2, 1),
        ("never", "failed: transient", ["not_happened", "not_happened"], 2, 2),
    ],
)
async def test_a_tool_that_ran_out_of_time_is_asked_about(
    server: Server, client: Client, how: str, result: str, found: list[str], calls: int, times: int
) -> None:
    async with running(server.url, CallsOne, slow):
        started = await client.start_run(agent="calls-one", input=how)
        run = await end_of(client, started.run_id)
    assert run.result == result
    answers = await events_of(client, started.run_id, "invocation.reconciled")
    assert [event.data["outcome"] for event in answers] == found
    assert len(CALLS) == calls and len(TOLD) == times
    assert len({*TOLD, *(key for key, _ in CALLS)}) == 1, "the key is always the same"


@pytest.mark.parametrize("how", ["unknown", "broken"])
async def test_a_person_is_asked_where_the_function_does_not_know(server: Server, client: Client, how: str) -> None:
    async with running(server.url, CallsOne, slow):
        started = await client.start_run(agent="calls-one", input=how)
        became = await event_of(client, started.run_id, "invocation.became_ambiguous")
        assert "no such table" in became.data["reason"] if how == "broken" else "does not know" in became.data["reason"]
        [waiting] = await client.invocations(status="ambiguous", run_id=started.run_id)
        assert (waiting.tool, waiting.arguments_preview) == ("d.slow", f'{{"how":"{how}"}}')
        await client.cancel_run(started.run_id)


async def test_a_cancelled_call_is_asked_about_and_never_called_again(server: Server, client: Client) -> None:
    async with running(server.url, CallsOne, slow_to_end):
        started = await client.start_run(agent="calls-one", input="waits")
        await until(lambda: CALLS)
        await client.cancel_run(started.run_id)
        reconciled = await event_of(client, started.run_id, "invocation.reconciled")
        assert reconciled.data["outcome"] == "succeeded"
    [ended] = await events_of(client, started.run_id, "invocation.succeeded")
    assert ended.data["result"] == "found" and len(CALLS) == 1


slow_to_end = tool("d.slow", timeout_s=60, reconcile=tells)(slow.function)
