"""A cancelled call is over, on the real queue, whether its worker answers, fails or vanishes after the cancel."""

import threading
from pathlib import Path
from typing import Any

import pytest

from adapters.embedded import EmbeddedServices
from tests.integration import sdk_kit
from tests.integration.played_worker import Claim, PlayedWorker
from tests.integration.system_kit import System, empty_work_queue, eventually, fresh_database
from tidelog import Agent, Client, Context, TransientError, tool

AGAIN = {"invocation.attempt_started", "invocation.retry_scheduled", "invocation.requeued"}


async def cancelled_call(system: System, worker: PlayedWorker, name: str) -> tuple[str, Claim]:
    """Makes a run that is cancelled while its call of a tool is under way.

    Returns the run's id and the claim of the tool's worker.
    """
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", name, a=1)
    call = await worker.next(name, "tool")
    response = await system.http.post(f"/v1/runs/{run_id}/cancel", json={"reason": "enough"})
    assert response.status_code == 202
    await system.until_topic(run_id, "invocation.cancel_requested")
    return run_id, call


async def nothing_is_left(system: System, worker: PlayedWorker, run_id: str, name: str) -> dict[str, Any]:
    """Asserts that the call is not on the queue, not due, not open and not retried. Returns the call as the run shows it."""
    await system.settled()
    topics = await system.topics(run_id)
    assert not AGAIN & set(topics[topics.index("invocation.cancel_requested") :])
    assert await worker.nothing_to_take(name, "tool")
    assert await system.sql("SELECT * FROM timer") == [] and await system.sql("SELECT * FROM open_work") == []
    [call] = (await system.run(run_id))["steps"][0]["calls"]
    return dict(call)


@pytest.mark.parametrize("outcome", ["result", "failure"])
async def test_the_outcome_of_the_attempt_is_recorded(system: System, worker: PlayedWorker, outcome: str) -> None:
    run_id, call = await cancelled_call(system, worker, "add")
    [shown] = (await system.run(run_id))["steps"][0]["calls"]
    assert (shown["status"], shown["cancel_requested"]) == ("running", True)
    if outcome == "result":
        await call.complete(3)
    else:
        await call.fail("transient", retry_after_s=0.01)  # without the cancel the call would be retried
    shown = await nothing_is_left(system, worker, run_id, "add")
    assert (shown["status"], shown["attempts"]) == ("succeeded" if outcome == "result" else "failed", 1)
    assert shown["cancel_requested"] and shown["effect"] is None


async def test_a_vanished_worker_of_an_idempotent_tool(system: System, worker: PlayedWorker) -> None:
    run_id, call = await cancelled_call(system, worker, "add")
    await system.settled()
    assert await system.sql("SELECT attempt FROM open_work WHERE session_id IS NOT NULL") == [(1,)], "its session has it still"
    await call.lose()
    shown = await nothing_is_left(system, worker, run_id, "add")
    assert (shown["status"], shown["effect"], shown["attempts"]) == ("cancelled", "unknown", 1)
    late = await call.post("complete", result=3)
    assert (late.status_code, late.json()["code"]) == (409, "work-over")


async def test_a_vanished_worker_of_a_tool_that_must_not_run_twice(system: System, worker: PlayedWorker) -> None:
    run_id, call = await cancelled_call(system, worker, "mail")
    await call.lose()
    shown = await nothing_is_left(system, worker, run_id, "mail")
    assert (shown["status"], shown["cancel_requested"], shown["effect"]) == ("ambiguous", True, None)
    [waiting] = (await system.http.get("/v1/invocations?status=ambiguous")).json()["data"]
    assert (waiting["invocation_id"], waiting["cancel_requested"]) == (call.work_id, True)
    said = {"error": {"type": "NotSent", "message": "not sent"}, "reason": "no trace of it"}
    assert (await system.http.post(f"/v1/invocations/{call.work_id}/resolve", json=said)).status_code == 200
    shown = await nothing_is_left(system, worker, run_id, "mail")
    assert (shown["status"], shown["resolution"]["reason"]) == ("failed", "no trace of it")


async def test_an_ambiguous_call_of_a_cancelled_run(system: System, worker: PlayedWorker) -> None:
    """The call still waits for a person, and shows that nobody waits for its answer."""
    run_id = await system.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail")
    await (await worker.next("mail", "tool")).lose()
    await system.http.post(f"/v1/runs/{run_id}/cancel", json={})
    await system.until_topic(run_id, "invocation.cancel_requested")
    await system.settled()
    call = (await system.http.get(f"/v1/invocations/{invocation_id}")).json()
    assert (call["status"], call["cancel_requested"]) == ("ambiguous", True)


# --- the worker of the SDK ----------------------------------------------------------------------------------------------

CALLED: list[int] = []


class Gates:
    """The events for which a test and its tool wait."""

    def __init__(self) -> None:
        self.called, self.cancelled = threading.Event(), threading.Event()


GATES = Gates()


@tool("stumble", idempotent=True, max_attempts=5)
def stumble() -> None:
    """Fails after the cancel, with an error that would be retried at once. A sync tool, because the worker cancels an async one."""
    CALLED.append(1)
    GATES.called.set()
    GATES.cancelled.wait(60)
    raise TransientError("later", retry_after_s=0.01)


class Stumbler(Agent):
    """Calls the tool."""

    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("stumble")


async def test_a_real_worker_calls_it_once(services: EmbeddedServices, tmp_path: Path) -> None:
    CALLED.clear()
    await empty_work_queue(services.nats_url)
    async with (
        fresh_database(services) as database_url,
        sdk_kit.serving(database_url, services.nats_url, tmp_path) as server,
        Client(server.url, sdk_kit.KEY) as client,
        sdk_kit.running(server.url, Stumbler, stumble, tool_concurrency=4),
    ):
        started = await client.start_run(agent="stumbler")
        await sdk_kit.until(GATES.called.is_set)

        async def listed() -> bool:
            return bool((await client.get_run(started.run_id)).step("stumbler").calls)

        await eventually(listed)  # the read model may be behind
        [call] = (await client.get_run(started.run_id)).step("stumbler").calls
        await client.cancel_run(started.run_id, "enough")

        assert call.invocation_id is not None
        invocation_id = call.invocation_id

        async def cancel_is_known() -> bool:
            return (await client.invocation(invocation_id)).cancel_requested

        await eventually(cancel_is_known)
        GATES.cancelled.set()

        async def over() -> bool:
            return (await client.invocation(invocation_id)).status != "running"

        await eventually(over)
        ended = await client.invocation(invocation_id)
        assert (ended.status, ended.attempt, ended.error and ended.error["message"].splitlines()[0]) == ("failed", 1, "later")
        assert await sdk_kit.events_of(client, started.run_id, *AGAIN - {"invocation.attempt_started"}) == []
    assert CALLED == [1], "with the worker stopped, nothing can follow"
