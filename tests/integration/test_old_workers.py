"""Workers of 0.1.0 across the upgrade: what they had begun counts, and all else of their protocol is replaced."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx2
import pytest
from nats.aio.msg import Msg

from adapters.embedded import EmbeddedServices
from api.http.routes.reports import GONE
from application.engine.commands.request import Caller
from domain.agent_runs import ClaimAgentRun, StartCall
from domain.invocations import ClaimInvocation
from domain.runs import agent_run_id_of
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.played_worker import PlayedWorker
from tests.integration.session_kit import worker_at
from tests.integration.system_kit import System, empty_work_queue, issue_key, new_id, running
from tests.pace import slowness_lately

CALLER = Caller(DEFAULT_TENANT_ID, "key:test")
ACK_WAIT_S = 1.0
"""The queue takes a worker for lost after a second of an idle machine, not only after ten. The old worker is a part of this
process: where the process is held up for as long, the worker does not say that it lives."""
FAILURE = {"type": "TestError", "message": "broken", "kind": "permanent"}


@asynccontextmanager
async def kept(messages: dict[str, Msg], ack_wait_s: float) -> AsyncIterator[None]:
    """A worker of 0.1.0 lives, and says so of each message that it has, also of those that it gets meanwhile."""

    async def keep() -> None:
        while True:
            for message in list(messages.values()):
                await message.in_progress()
            await asyncio.sleep(ack_wait_s / 4)

    task = asyncio.create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def begun(system: System, worker: PlayedWorker, calls: int, messages: dict[str, Msg]) -> tuple[str, str]:
    """An agent run and calls of `mail` that a worker of 0.1.0 has begun: the events that it left, and the messages that it has.

    Adds the message of each call to `messages`. Returns the run and the agent run.
    """
    run_id = await system.start("alpha")
    agent_run_id = agent_run_id_of(UUID(run_id), "alpha")
    await (await worker.take("alpha")).ack()
    await system.command(ClaimAgentRun(agent_run_id=agent_run_id, worker_id="old", dispatch=1))
    for number in range(calls):
        start = StartCall(agent_run_id=agent_run_id, attempt=1, key=f"k{number}", tool="mail")
        call = (await system.container.workers.calls.call(CALLER, start, {})).invocation_id
        work = await worker.take("mail", "tool")
        assert work.work_id == str(call)
        await system.command(ClaimInvocation(invocation_id=call, worker_id="old", dispatch=1))
        messages[str(call)] = work.message
    return run_id, str(agent_run_id)


async def test_calls_in_hand_at_the_upgrade_are_reported_and_none_is_in_doubt_while_its_worker_lives(
    services: EmbeddedServices, database_url: str
) -> None:
    await empty_work_queue(services.nats_url)
    async with running(database_url, services.nats_url) as system:
        await issue_key(system)
        ack_wait_s = min(10.0, ACK_WAIT_S * await slowness_lately())
        system.container.work_queue.ack_wait_s = ack_wait_s  # type: ignore[misc]  # of the adapter: before it makes a queue
        worker = system.worker()
        await worker.register("alpha", tools=[{"name": "mail", "idempotent": False}])
        messages: dict[str, Msg] = {}
        async with worker_at(await system.url(), system.key, name="upgraded") as upgraded:
            async with kept(messages, ack_wait_s):
                run_id, agent_run_id = await begun(system, worker, 3, messages)
                done, failed, lost = messages
                await upgraded.hello(["alpha"], [{"name": "mail", "idempotent": False}])
                await upgraded.credit(agent=4, tool=4)  # whatever the queue delivers again is claimed
                await asyncio.sleep(1.5 * ack_wait_s)
                assert "invocation.became_ambiguous" not in await system.topics(run_id)
                for call, verb, said in ((done, "complete", {"result": "sent"}), (failed, "fail", {"error": FAILURE})):
                    for replayed in (False, True):
                        answer = await system.http.post(f"/v1/invocations/{call}/{verb}", json={"attempt": 1, **said})
                        assert answer.status_code == 200 and ("idempotency-replayed" in answer.headers) is replayed, answer.text
                    await messages[call].ack()
            [ambiguous] = await system.until_topic(run_id, "invocation.became_ambiguous")  # its worker lives no more
            assert str(ambiguous.stream_id) == lost
            late = await system.http.post(f"/v1/invocations/{lost}/complete", json={"attempt": 1, "result": "sent after all"})
            assert late.status_code == 200, late.text
        ended = await system.http.post(f"/v1/agent-runs/{agent_run_id}/complete", json={"attempt": 1, "result": "done"})
        assert ended.status_code == 200, ended.text
        run = await system.ended(run_id)
        assert (run["status"], run["result"]) == ("completed", "done")
        assert [call["status"] for call in run["steps"][0]["calls"]] == ["succeeded", "failed", "succeeded"]


def of_person(answer: httpx2.Response) -> None:
    """The answer tells a person with an old worker what to do."""
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["retryable"]) == (410, "worker-protocol-replaced", False), answer.text
    assert "pip install 'tidelog>=0.2.0'" in problem["detail"] and "\n" not in problem["detail"]


@pytest.mark.parametrize(("method", "path"), GONE)
async def test_all_else_of_the_protocol_is_replaced(shared: System, method: str, path: str) -> None:
    before = await shared.settled()
    asked = path.replace("{agent_run_id}", str(new_id())).replace("{invocation_id}", str(new_id()))
    of_person(await shared.http.request(method, asked, json={"worker_id": "w", "dispatch": 1} if method == "POST" else None))
    async with shared.client(None) as nobody:
        assert (await nobody.request(method, asked)).status_code == 401
    assert await shared.container.feed.head() == before


async def test_an_attempt_of_a_session_is_reported_with_its_token_only(shared: System) -> None:
    """Without the token, whoever knows the id of the work could end it."""
    worker = shared.worker()
    await worker.register("alpha", tools=["add"])
    run_id = await shared.start("alpha")
    alpha = await worker.step(run_id, "alpha")
    await alpha.call("k", "add")
    call = await worker.next("add", "tool")
    before = await shared.settled()
    ways: list[tuple[str, Callable[[Any], Awaitable[None]]]] = [
        (f"/v1/invocations/{call.work_id}", call.complete), (f"/v1/agent-runs/{alpha.work_id}", alpha.complete),
    ]  # fmt: skip
    for path, _ in ways:
        of_person(await shared.http.post(f"{path}/complete", json={"attempt": 1, "result": 1}))
        of_person(await shared.http.post(f"{path}/fail", json={"attempt": 1, "error": FAILURE}))
        stale = await shared.http.post(f"{path}/complete", json={"attempt": 7, "result": 1})
        assert (stale.status_code, stale.json()["code"]) == (409, "stale-attempt")
    assert await shared.container.feed.head() == before
    for _, complete in ways:
        await complete(2)
    assert (await shared.ended(run_id))["result"] == 2
