"""The page that tells how to stop a run by a budget, run by a worker of the SDK, and what is shown of it afterwards."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from tests.integration.sdk_kit import KEY, Server, end_of, serving, worker_process
from tests.integration.system_kit import empty_work_queue, eventually, fresh_database
from tests.pages import block
from tidelog import Client
from tidelog.approvals import ApprovalSummary
from tidelog.errors import InvalidRequestError, NotFoundError

PAGE = "docs/how-to/stop-a-run-by-a-budget.md"
CENT = {"money": "0.01"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    await empty_work_queue(services.nats_url)
    folder = tmp_path_factory.mktemp("server")
    async with fresh_database(services) as url, serving(url, services.nats_url, folder) as server:
        (folder / "looper.py").write_text(block(PAGE, "looper"))
        async with worker_process(server.url, folder):
            yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url, KEY) as client:
        yield client


async def test_a_loop_ends_at_its_cent_and_every_view_says_so(client: Client, tmp_path: Path) -> None:
    started = await client.start_run(agent="looper", input="tides", budget=CENT)
    run = await end_of(client, started.run_id, 40)
    assert run.status == "failed"
    [step] = run.steps
    assert step.error is not None and step.error["message"] == (
        "the budget 'run' is spent: 0 of 0.01 usd is left, the call may cost 0.002"
    )
    assert [call.status for call in step.calls] == ["succeeded"] * 5 + ["failed"]
    spent = await client.budgets.of_run(run.run_id)
    assert (spent.spent.money, spent.spent.calls, spent.spent.tokens) == (Decimal("0.01"), 5, 2_100)
    assert (spent.left.money, spent.reserved.money, spent.overrun.money, spent.is_spent) == (0, 0, 0, True)
    [used] = await client.budgets.usage("run", run_id=run.run_id)
    assert (used.calls, used.money, used.tokens) == (5, Decimal("0.01"), 2_100)
    agents = {row.agent: row.money for row in await client.budgets.usage("agent")}
    assert agents["looper"] >= Decimal("0.01")


async def test_people_are_asked_and_a_kill_changes_nothing(server: Server, client: Client) -> None:
    """Two runs wait for one answer, and the server dies while they do, and again after it."""
    page = ModuleType("page")
    exec(block(PAGE, "ask"), page.__dict__)  # the page's own code
    ask = {"on_spent": "ask", "ask": {"roles": ["owner"]}}
    budget_id = await client.budgets.set("agent", agent="looper", money="0.002", on_spent="ask", ask=ask["ask"])
    started = [(await client.start_run(agent="looper", input="tides")).run_id for _ in range(2)]

    async def asked(calls: int) -> ApprovalSummary | None:
        open_ones = [one async for one in client.approvals.list(status="open", mine=True)]
        if len(open_ones) != 1 or (shown := await client.approvals.get(open_ones[0].approval_id)).waiting is None:
            return None
        return open_ones[0] if shown.waiting.calls == calls else None

    first = await eventually(lambda: asked(2), "both wait")
    assert first.budget is not None and (first.kind, first.budget.budget, first.budget.short) == ("budget", "agent:looper", "money")
    assert (first.budget.asked.money, first.budget.add.money, first.roles) == (Decimal("0.002"), Decimal("0.002"), ("owner",))
    await server.kill()
    await server.start()
    with pytest.raises(InvalidRequestError, match="limits money: give more of that"):
        await client.approvals.approve(first.approval_id, add={"calls": 5})
    assert await client.approvals.approve(first.approval_id, "go on", add={"money": "0.004"}) == "approved"
    await server.kill()
    await server.start()
    second = await eventually(lambda: asked(2), "both wait again")
    assert second.approval_id != first.approval_id
    today = (await client.budgets.get(budget_id)).today
    assert today is not None and (today.spent.calls, today.spent.money, today.limits.money) == (
        3,
        Decimal("0.006"),
        Decimal("0.006"),
    )
    assert await client.approvals.deny(second.approval_id, "that is enough") == "denied"
    ends = [await end_of(client, run_id, 40) for run_id in started]
    assert [run.status for run in ends] == ["failed", "failed"]
    assert sorted(len(run.steps[0].calls) for run in ends) in ([2, 3], [1, 4])
    error = ends[0].steps[0].error
    assert error is not None and error["message"].endswith("gives no more of the budget 'agent:looper': that is enough")
    await client.budgets.remove(budget_id)
    own = await client.start_run(agent="looper", input="tides", budget={"money": "0", **ask})
    await eventually(lambda: asked(1), "it waits")
    await page.give_once(client, own.run_id)
    assert (await client.budgets.of_run(own.run_id)).limits.money == Decimal("0.002")
    await client.cancel_run(own.run_id)
    assert (await end_of(client, own.run_id, 40)).status == "cancelled"


async def test_under_degrade_the_agent_goes_on_and_says_how_far_it_came(client: Client) -> None:
    started = await client.start_run(agent="careful", input="tides", budget={**CENT, "on_spent": "degrade"})
    assert (await end_of(client, started.run_id, 40)).result == "5 answers"


async def test_a_budget_of_an_agent_is_set_lifted_and_removed(client: Client) -> None:
    budget_id = await client.budgets.set("agent", agent="careful", money="0.004", on_spent="degrade", reason="too dear")
    run = await client.start_run(agent="careful", input="tides")
    assert (await end_of(client, run.run_id, 40)).result == "2 answers"
    await client.budgets.lift(budget_id, money="0.002", reason="nearly done")
    run = await client.start_run(agent="careful", input="tides")
    assert (await end_of(client, run.run_id, 40)).result == "1 answers"
    [shown] = await client.budgets.list()
    assert shown.today is not None and (shown.name, shown.today.spent.money) == ("agent:careful", Decimal("0.006"))
    assert shown.today.limits.money == Decimal("0.006") and shown.limits.money == Decimal("0.004")
    with pytest.raises(InvalidRequestError, match="counts money in usd"):
        await client.budgets.set("tenant", money=1, currency="eur")
    await client.budgets.remove(budget_id, reason="a try")
    assert await client.budgets.list() == []
    with pytest.raises(NotFoundError):
        await client.budgets.get(budget_id)
