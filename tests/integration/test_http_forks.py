"""Forks of runs over HTTP and with the SDK, on real servers: the page that tells how, the read models, and who may."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, running, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pages import block
from tidelog import Agent, Client, Context, Cost, PermanentError
from tidelog.discovery import discover
from tidelog.errors import ConflictError, InvalidRequestError, NotFoundError
from tidelog.run_models import Part
from tidelog.testing import Case, Expected, case_of, records_of, run_case

PAGE = "docs/how-to/fork-a-failed-run.md"
STORY = "docs/how-to/stop-approve-fork-and-keep.md"


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
    (tmp_path / "invoices.py").write_text(block(PAGE, "invoices"))
    async with worker_process(server.url, tmp_path):
        started = await client.start_run(agents=["reader", "payer"], input="A-7", wait_s=30)
        assert started.run is not None and started.run.status == "failed"
    broken = "raise PermanentError(f\"no drawer for {paid['receipt']}\")"
    mended = block(PAGE, "invoices").replace(broken, 'return {"filed": paid["receipt"]}')
    (tmp_path / "invoices.py").write_text(mended)
    async with worker_process(server.url, tmp_path):
        forked = await client.fork_run(started.run_id, reason="a drawer for receipts")
        run = await end_of(client, forked.run_id, 40)
    assert (run.status, run.result) == ("completed", {"filed": "R-A-7"})
    assert (tmp_path / "bank.log").read_text() == "paid A-7\n"
    assert run.step("reader").taken_over and not run.step("payer").taken_over
    assert run.step("reader").agent_run_id == started.run.step("reader").agent_run_id
    assert run.step("reader").result == {"invoice": "A-7"}
    assert run.forked_from is not None and run.forked_from.run_id == started.run_id
    then = await client.get_run(forked.run_id, as_of=run.position)
    assert then == run, "the read model and the replay tell the same"
    journal = [(entry.kind, entry.key) for entry in await client.journal(forked.run_id)]
    assert journal == [("call_finished", "bank.pay#1")]
    assert [fork.run_id for fork in await client.forks(started.run_id)] == [forked.run_id]
    assert await client.result(forked.run_id, step="reader") == {"invoice": "A-7"}
    entries = (await client._get("/v1/audit", {"action": "runs.fork"}))["data"]
    assert [(entry["target_id"], entry["reason"], entry["result"]) for entry in entries] == [
        (str(started.run_id), "a drawer for receipts", "done")
    ]


async def test_a_stranger_stops_approves_forks_and_keeps_a_test(server: Server, client: Client, tmp_path: Path) -> None:
    office = block(STORY, "office")
    (tmp_path / "office.py").write_text(office)
    async with worker_process(server.url, tmp_path):
        looped = await client.start_run(agent="looper", input="tides", budget={"money": "0.01"}, wait_s=30)
        assert looped.run is not None and looped.run.error is not None
        assert looped.run.error["message"] == "the budget 'run' is spent: 0 of 0.01 usd is left, the call may cost 0.002"
        started = await client.start_run(agents=["reader", "payer"], input="A-7")

        async def waiting() -> Any:
            return [one async for one in client.approvals.list(mine=True)]

        (asked,) = await eventually(waiting, "the call in the inbox")
        with pytest.raises(InvalidRequestError, match="required property"):
            await client.approvals.approve(asked.approval_id, "as ordered", arguments={"invoice": "A-7"})
        await client.approvals.approve(asked.approval_id, "as ordered", arguments={"invoice": "A-7", "eur": 99})
        assert (await end_of(client, started.run_id, 30)).status == "failed"
    mended = office.replace("raise PermanentError(f\"no drawer for {paid['receipt']}\")", 'return {"filed": paid["receipt"]}')
    (tmp_path / "office.py").write_text(mended)
    async with worker_process(server.url, tmp_path):
        forked = await client.fork_run(started.run_id, reason="a drawer for receipts")
        assert (await end_of(client, forked.run_id, 30)).result == {"filed": "R-A-7"}
    assert (tmp_path / "bank.log").read_text() == "paid A-7: 99\n"
    ids = started.run_id, forked.run_id
    events = {id: (await client._get(f"/v1/runs/{id}/events", {"limit": "100"}))["data"] for id in ids}
    asked_for = [event for of in events.values() for event in of if event["type"] == "invocation.requested"]
    assert [event["data"]["tool"] for event in asked_for] == ["search.deep", "bank.pay"], "nothing is asked for again"

    async def recorded(id: UUID) -> AsyncIterator[Any]:
        for event in events[id]:
            yield event

    failed = case_of("pays", await client._get(f"/v1/runs/{started.run_id}", {}), await records_of(started.run_id, recorded))
    assert failed.expect == Expected(
        outcome="failed", calls={"bank.pay": 1, "search.deep": 1}, cost=Cost(money="0.002", tokens=420)
    )  # fmt: skip
    kept = case_of("files", await client._get(f"/v1/runs/{forked.run_id}", {}), await records_of(forked.run_id, recorded))
    kept.save(tmp_path / "cases" / "files.case.json")
    told = {}
    # Python takes a file of the same second and the same length for the file of before.
    for name, code in ("mended", mended), ("dearer", mended.replace("eur=120", "eur=1300")):
        (tmp_path / "office.py").write_text(code)
        agents = [found.cls for found in discover([tmp_path]).agents.values()]
        told[name] = (await run_case(Case.load(tmp_path / "cases" / "files.case.json"), agents)).failures
    assert told == {
        "mended": [],
        "dearer": [
            "step 'payer': other arguments 'bank.pay#1': "
            'recorded {"invoice": "A-7", "eur": 120}, now {"invoice": "A-7", "eur": 1300}'
        ],
    }


class Each(Agent):
    """Fails on 2, unless somebody said that all is well."""

    async def execute(self, ctx: Context) -> Any:
        if ctx.input == 2 and not WELL:
            raise PermanentError("two")
        return {"of": ctx.input, "text": "x" * 40_000}


WELL: list[bool] = []


async def test_parts_and_large_results_of_a_fork_are_as_those_of_its_run(server: Server, client: Client) -> None:
    plan = {
        "kind": "graph",
        "steps": [
            {"key": "a", "agent": "each", "input": 1},
            {"key": "m", "agent": "each", "after": ["a"], "each": {"over": "[1, 2, 3]", "max_parallel": 1}},
            {"key": "s", "value": "size(steps.m.result)", "after": ["m"]},
        ],
    }  # fmt: skip
    async with running(server.url, Each):
        started = await client.start_run(plan=plan, wait_s=30)
        assert started.run is not None and started.run.status == "failed"
        WELL.append(True)
        body = {"at": {"step": "m"}, "run_id": str(uuid4())}
        path = f"/v1/runs/{started.run_id}/fork"
        first = await client._request("POST", path, body=body)
        again = await client._request("POST", path, body=body)
        assert first.status_code == again.status_code == 201 and first.content == again.content
        run = await end_of(client, body["run_id"], 40)
    assert (run.status, run.step("s").result) == ("completed", 3)
    assert await client.get_run(run.run_id, as_of=run.position) == run
    assert (await client.result(run.run_id, step="a"))["of"] == 1

    async def all_parts() -> list[Part] | None:
        found = await client.parts(run.run_id, "m")
        return found if [part.status for part in found] == ["completed"] * 3 else None

    parts = await eventually(all_parts, "the parts in the read model")
    assert parts == await client.parts(run.run_id, "m", as_of=run.position)
    old = await client.parts(started.run_id, "m")
    assert parts[0].agent_run_id == old[0].agent_run_id and parts[1].agent_run_id != old[1].agent_run_id


async def test_what_cannot_be_forked_is_refused_with_the_reason(server: Server, client: Client) -> None:
    async with running(server.url, Each):
        done = await client.start_run(agent="each", input=1, wait_s=30)
    with pytest.raises(ConflictError, match="the run had completed by then"):
        await client.fork_run(done.run_id)
    with pytest.raises(InvalidRequestError, match="the run has no step 'no'"):
        await client.fork_run(done.run_id, before="no")
    with pytest.raises(InvalidRequestError, match="give exactly one of"):
        await client.fork_run(done.run_id, before="each", position=3)
    with pytest.raises(InvalidRequestError, match="step 'each' had completed by then: the plan must have it"):
        plan = {"kind": "graph", "steps": [{"key": "other", "agent": "each"}]}
        await client.fork_run(done.run_id, position=done.run.position if done.run else 1, plan=plan)
    with pytest.raises(NotFoundError, match="registered in version 1, not 9"):
        await client.fork_run(done.run_id, before="each", agents={"each": "each@9"})
    with pytest.raises(NotFoundError):
        await client.fork_run(uuid4())
