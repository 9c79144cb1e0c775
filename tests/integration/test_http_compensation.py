"""Taking back the effects of a run: the page that tells how, and what people see and say over HTTP and with the SDK."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, event_of, events_of, running, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pages import block
from tidelog import Agent, Client, Context, PermanentError, ToolContext, tool
from tidelog.compensation import RunCompensation
from tidelog.errors import ConflictError, NotFoundError, TidelogAPIError

PAGE = "docs/how-to/take-back-what-a-failed-run-did.md"


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


async def over(client: Client, run_id: Any) -> RunCompensation:
    """The compensation when nothing of it goes on by itself."""

    async def found() -> RunCompensation | None:
        shown = await client.compensation(run_id)
        return shown if shown.status in ("partial", "compensated") else None

    return await eventually(found, "the end of the compensation")


async def test_the_page_says_what_happens(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(block(PAGE, "shop"))
    async with worker_process(server.url, tmp_path):
        started = await client.start_run(agent="shop", input="Walden", compensate="on_failure", wait_s=30)
        assert started.run is not None and started.run.status == "failed", "the end of the run is not that of its compensation"
        found = await over(client, started.run_id)
        log = (tmp_path / "shop.log").read_text().splitlines()
        events = [event async for event in client.events(started.run_id)]
        run = await end_of(client, started.run_id, 40)
        completed = await client.start_run(agent="shop", input="Emma", wait_s=30)
        await client.compensate_run(completed.run_id, "a person wants it", on_behalf_of="user:ada")
        again = await over(client, completed.run_id)
    reserve = found.data[1].invocation_id
    assert log == [f"reserved Walden as {reserve}", "took 20", "refunded P-20", f"released Walden of {reserve}"]
    assert (found.status, found.because, found.effects, found.compensated) == ("compensated", "failed", 2, 2)
    assert [effect.compensated_by for effect in found.data] == ["payment.refund", "stock.reserve.undo"]
    assert [event.type for event in events][-1] == "compensation.ended", "the stream stays open up to there"
    assert run.compensate == "on_failure"
    assert run.compensation == {"status": "compensated", "effects": 2, "compensated": 2, "failed": 0, "skipped": 0}
    then = await client.get_run(started.run_id, as_of=run.position)
    assert then.compensation == run.compensation, "as replayed"
    assert (again.because, again.reason, again.status) == ("requested", "a person wants it", "compensated")


OPEN: list[bool] = []
DONE: list[tuple[str, Any]] = []


async def give_back(ctx: ToolContext, arguments: dict[str, Any]) -> None:
    if arguments["number"] == 2 and not OPEN:
        raise PermanentError("the bank is closed")
    DONE.append((ctx.idempotency_key, arguments["number"]))


@tool("c.pay", compensate=give_back)
async def pay(number: int) -> int:
    return number


class Payer(Agent):
    async def execute(self, ctx: Context) -> None:
        for number in range(1, 5):
            await ctx.tool("c.pay", number=number)
        if ctx.input == "fail":
            raise PermanentError("enough")


async def test_a_person_sees_why_it_stands_still_and_lets_it_go_on(server: Server, client: Client) -> None:
    async with running(server.url, Payer, pay):
        started = await client.start_run(agent="payer", input="fail", compensate="on_failure", wait_s=30)
        found = await over(client, started.run_id)
        assert (found.status, found.stopped_on, found.needs_person, found.compensated, found.failed) == ("partial", 2, True, 2, 1)
        assert [effect.status for effect in found.data] == ["compensated", "compensated", "failed", "recorded"]
        assert found.data[2].error is not None and found.data[2].error["message"] == "the bank is closed"
        one = await client._get(f"/v1/runs/{started.run_id}/compensation", {"limit": "3"})
        rest = await client._get(f"/v1/runs/{started.run_id}/compensation", {"limit": "3", "cursor": one["next_cursor"]})
        assert [effect["number"] for effect in one["data"] + rest["data"]] == [4, 3, 2, 1] and rest["next_cursor"] is None
        OPEN.append(True)
        await client.resume_compensation(started.run_id, "it is open")
        found = await over(client, started.run_id)
        assert (found.status, found.compensated, found.data[2].round) == ("compensated", 4, 2)
        assert [number for _, number in DONE] == [4, 3, 2, 1]
        with pytest.raises(ConflictError, match="nothing of it can be tried again"):
            await client.resume_compensation(started.run_id, "once more")

    async def trail() -> list[Any] | None:
        """The entries of the run, once the audit trail has them all: a refusal tells no position to wait for."""
        found = await client._get("/v1/audit", {"action": "runs.compensate"})
        of_run = [entry for entry in found["data"] if entry["target_id"] == str(started.run_id)]
        return of_run if len(of_run) == 2 else None

    told = [(entry["operation"], entry["reason"], entry["result"]) for entry in await eventually(trail, "the audit trail")]
    assert told == [("resume", "once more", "refused"), ("resume", "it is open", "done")]


async def test_what_is_asked_for_wrongly(server: Server, client: Client) -> None:
    async with running(server.url, Payer, pay):
        started = await client.start_run(agent="payer", wait_s=30)
    found = await client.compensation(started.run_id)
    assert (found.status, found.effects, len(found.data)) == ("none", 4, 4)
    with pytest.raises(ConflictError, match="has not begun"):
        await client.resume_compensation(started.run_id, "now")
    for ask in (client.compensation(uuid4()), client.compensate_run(uuid4(), "r"), client.resume_compensation(uuid4(), "r")):
        with pytest.raises(NotFoundError, match="there is no run"):
            await ask
    with pytest.raises(TidelogAPIError, match="reason"):
        await client.compensate_run(started.run_id, " ")
    open_run = await client.start_run(agent="payer", input="fail")
    with pytest.raises(ConflictError, match="the run is running: only the effects of one that has ended"):
        await client.compensate_run(open_run.run_id, "too early")
    await client.cancel_run(open_run.run_id, compensate=True)
    assert (await over(client, open_run.run_id)).status == "compensated"
    assert (await event_of(client, open_run.run_id, "run.cancelled")).data["compensate"] is True
    assert not await events_of(client, started.run_id, "compensation.started")
