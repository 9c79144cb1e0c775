"""Budgets that ask, in whole runs: one question for all calls that wait, and what follows from its answer."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from application.budgets.managing import BudgetOffice
from application.catalog import CATALOG
from application.workflows import AskedWorkflow, Workflows
from application.workflows.checking import faults_of_definition
from domain import agents, approvals, runs
from domain.allowances import LiftAllowance, allowance_of_run, question_id_of
from domain.amounts import NOTHING, Amounts, BudgetAsking, BudgetLimits
from domain.approvals import Approval, DecideApproval
from domain.budgets import Covered, SetBudget, allowance_of_day, book_id_of, budget_id_of
from domain.errors import InvalidCommand
from domain.projects import default_project_id
from domain.runs import RunBudget
from domain.starting import Target
from domain.workflows import PublishWorkflow, WorkflowDefinition, workflow_id_of
from domain.written_budgets import WrittenAmounts, WrittenAsking, WrittenBudget
from tests.kit.budgets import COSTS, allowance, worker_of
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.memory import MemoryNames
from tests.kit.triggers import PublishedVersions, Triggers
from tests.kit.waiting import TENANT, new_id, request_of

TWO_CALLS = BudgetLimits(money=4_000)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    async with engine.running():
        await engine.set_up()
        yield engine


async def question(engine: Engine, allowance_id: UUID, number: int = 1) -> Approval:
    await engine.settled()
    state: Approval = (await engine.commands.load(approvals.DECIDER, TENANT, question_id_of(allowance_id, number))).state
    return state


async def day_of(engine: Engine, **said: Any) -> UUID:
    covered = Covered(scope="tenant")
    await engine.give(SetBudget(book_id=book_id_of(TENANT), covered=covered, on_spent="ask", by="key:test", **said))
    day = engine.workers.budgets.books._clock().date().isoformat()
    return allowance_of_day(budget_id_of(book_id_of(TENANT), covered.name), day)


async def answer(engine: Engine, allowance_id: UUID, decision: Any = "approve", number: int = 1, **said: Any) -> None:
    about = question_id_of(allowance_id, number)
    await engine.give(DecideApproval(approval_id=about, decision=decision, by="key:ada", role="operator", **said))
    await engine.settled()


async def calling(engine: Engine, worker: PlayedWorker, number: int) -> tuple[list[UUID], list[Claim], list[UUID]]:
    """Runs that call `search` once each: the runs, their claims and the calls."""
    started = [await engine.start("looper") for _ in range(number)]
    claims = [await worker.next("looper") for _ in range(number)]
    made = [await claim.call("search", "search") for claim in claims]
    await engine.settled()
    return started, claims, made


async def finish(worker: PlayedWorker, number: int, usage: Amounts | None = None) -> None:
    for _ in range(number):
        await (await worker.next("search", "tool")).complete("found", usage=usage)


async def statuses(engine: Engine, calls: list[UUID]) -> list[str]:
    await engine.settled()
    return [(await engine.invocation(call)).status for call in calls]


async def test_many_runs_ask_one_question_and_all_go_on(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=TWO_CALLS)
    started, claims, made = await calling(engine, worker, 5)
    assert await statuses(engine, made) == ["requested", "requested", "held", "held", "held"]
    asked = await question(engine, day)
    assert asked.requested is not None and asked.requested.budget is not None and asked.status == "open"
    about = asked.requested.budget
    assert (asked.requested.kind, about.budget, about.kind, about.number) == ("budget", "tenant", "money", 1)
    assert (about.asked, about.add, about.reserved) == (
        Amounts(money=2_000, calls=1),
        Amounts(money=4_000),
        Amounts(money=4_000, calls=2),
    )
    assert asked.requested.demand.roles == ("owner", "admin", "operator") and asked.requested.demand.project_id is None
    assert len([event for event in engine.log.events if event.topic == "approval.requested"]) == 1
    held = await engine.invocation(made[2])
    assert (held.approval_id, held.is_unpaid) == (question_id_of(day, 1), True)
    await answer(engine, day, add=Amounts(money=10_000), reason="go on")
    assert await statuses(engine, made) == ["requested"] * 5
    await finish(worker, 5)
    for claim in claims:
        await claim.complete("done")
    assert {(await engine.run(run_id)).status for run_id in started} == {"completed"}
    state = await allowance(engine, day)
    assert (state.spent, state.held, state.overrun) == (Amounts(money=10_000, calls=5), NOTHING, NOTHING)
    assert (state.limits.money, len(state.line.places), state.line.is_open) == (14_000, 0, False)
    [lifted] = [event for event in engine.log.events if event.topic == "allowance.lifted"]
    assert b"key:ada" in lifted.state and b"go on" in lifted.state


async def test_a_denial_stops_all_that_wait_and_all_that_come(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=TWO_CALLS)
    started, _, made = await calling(engine, worker, 4)
    await answer(engine, day, "deny", reason="too dear")
    assert await statuses(engine, made) == ["requested", "requested", "failed", "failed"]
    run = await engine.run(started[3])
    error = run.steps["looper"].error
    assert run.status == "failed" and error is not None
    assert (error.type, error.message) == ("BudgetExceeded", "key:ada gives no more of the budget 'tenant': too dear")
    later, _, [call] = await calling(engine, worker, 1)
    assert (await engine.run(later[0])).status == "failed" and (await engine.invocation(call)).status == "failed"
    assert (await question(engine, day, 2)).status == "absent"
    state = await allowance(engine, day)
    assert (state.spent, state.held, dict(state.line.refused)) == (NOTHING, Amounts(money=4_000, calls=2), {})
    await engine.give(LiftAllowance(allowance_id=day, root_id=day, extra=Amounts(money=2_000), by="key:ada", reason="r"))
    _, _, calls = await calling(engine, worker, 2)
    assert await statuses(engine, calls) == ["requested", "held"]
    assert (await question(engine, day, 2)).status == "open"


async def test_after_its_deadline_the_default_counts(engine: Engine) -> None:
    worker = await worker_of(engine)
    budget = RunBudget(limits=BudgetLimits(calls=1), on_spent="ask", asking=BudgetAsking(deadline_s=60, default="approve"))
    run_id = await engine.start("looper", budget=budget)
    claim = await worker.next("looper")
    await claim.call("a", "search")
    second = await claim.call("b", "search")
    await engine.advance(61)
    assert (await engine.invocation(second)).status == "requested"
    assert (await allowance(engine, allowance_of_run(run_id))).limits.calls == 2
    third = await claim.call("c", "search")
    await engine.advance(61)
    assert await statuses(engine, [third]) == ["requested"]


async def test_nobody_answers_in_time_and_the_run_stops(engine: Engine) -> None:
    worker = await worker_of(engine)
    denied = RunBudget(limits=BudgetLimits(calls=0), on_spent="ask", asking=BudgetAsking(deadline_s=60))
    run_id = await engine.start("looper", budget=denied)
    await (await worker.next("looper")).call("a", "search")
    await engine.advance(61)
    run = await engine.run(run_id)
    assert run.steps["looper"].error.message == "nobody gave more of the budget 'run' in time"  # type: ignore[union-attr]


async def test_who_came_first_goes_first_and_the_rest_is_asked_for_anew(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=BudgetLimits(money=0))
    _, _, made = await calling(engine, worker, 4)
    await answer(engine, day, add=Amounts(money=5_000))
    assert await statuses(engine, made) == ["requested", "requested", "held", "held"]
    again = await question(engine, day, 2)
    assert again.status == "open" and again.requested is not None and again.requested.invocation_id == made[2]
    await finish(worker, 2, usage=Amounts(money=500))
    assert await statuses(engine, made) == ["succeeded", "succeeded", "requested", "requested"]
    assert (await question(engine, day, 2)).status == "withdrawn"
    state = await allowance(engine, day)
    assert (state.used.money, state.line.is_open) == (5_000, False)


async def test_runs_that_are_cancelled_leave_the_line(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=BudgetLimits(money=2_000))
    started, _, made = await calling(engine, worker, 3)
    await engine.give(runs.AbandonRun(run_id=started[1]))
    assert await statuses(engine, made) == ["requested", "cancelled", "held"]
    assert (await question(engine, day)).status == "open"
    await engine.give(runs.AbandonRun(run_id=started[2]))
    await engine.settled()
    state = await allowance(engine, day)
    assert (state.held, len(state.line.places), (await question(engine, day)).status) == (
        Amounts(money=2_000, calls=1),
        0,
        "withdrawn",
    )


async def test_a_call_waits_for_all_its_budgets_and_gives_back_what_it_never_used(engine: Engine) -> None:
    """The budget of the run and that of the day are short, that of the agent is not."""
    worker = await worker_of(engine)
    day = await day_of(engine, limits=BudgetLimits(money=0))
    own = Covered(scope="agent", agent="looper")
    await engine.give(SetBudget(book_id=book_id_of(TENANT), covered=own, limits=BudgetLimits(calls=9), by="key:test"))
    agent = allowance_of_day(budget_id_of(book_id_of(TENANT), own.name), engine.workers.budgets.books._clock().date().isoformat())
    budget = RunBudget(limits=BudgetLimits(money=0), on_spent="ask")
    run_id, other = await engine.start("looper", budget=budget), await engine.start("looper", budget=budget)
    claims = [await worker.next("looper") for _ in range(2)]
    made = [await claim.call("a", "search") for claim in claims]
    assert (await allowance(engine, agent)).held == Amounts(money=4_000, calls=2)
    await answer(engine, day, add=Amounts(money=4_000))
    assert await statuses(engine, made) == ["held", "held"]
    await engine.give(runs.AbandonRun(run_id=other))
    await engine.settled()
    assert (await allowance(engine, agent)).held == Amounts(money=2_000, calls=1)
    assert (await allowance(engine, day)).held == Amounts(money=2_000, calls=1)
    await answer(engine, allowance_of_run(run_id), add=Amounts(money=2_000))
    assert await statuses(engine, made) == ["requested", "cancelled"]
    await finish(worker, 1)
    await claims[0].complete("done")
    for place in (day, agent, allowance_of_run(run_id)):
        state = await allowance(engine, place)
        assert (state.spent, state.held) == (Amounts(money=2_000, calls=1), NOTHING)


async def test_a_call_that_people_must_approve_waits_for_its_budget_first(engine: Engine) -> None:
    worker = await worker_of(engine, search={"policy": {"max_cost": {"money": "0.002"}, "approval": True}})
    run_id = await engine.start("looper", budget=RunBudget(limits=BudgetLimits(money=0), on_spent="ask"))
    claim = await worker.next("looper")
    call = await claim.call("a", "search")
    await answer(engine, allowance_of_run(run_id), add=Amounts(money=2_000))
    held = await engine.invocation(call)
    assert (held.status, held.is_unpaid) == ("held", False) and held.approval_id != question_id_of(allowance_of_run(run_id), 1)
    assert held.approval_id is not None
    await engine.give(DecideApproval(approval_id=held.approval_id, decision="approve", by="key:ada", role="owner"))
    assert await statuses(engine, [call]) == ["requested"]


async def test_a_chain_begins_when_its_call_is_paid(engine: Engine) -> None:
    chain = {"steps": [{"tool": "search"}]}
    worker = await worker_of(engine, search=COSTS)
    await worker.register(tools_={"both": {"kind": "chain", "chain": chain}})
    run_id = await engine.start("looper", budget=RunBudget(limits=BudgetLimits(money=0), on_spent="ask"))
    call = await (await worker.next("looper")).call("a", "both")
    assert await worker.nothing_to_take("search", "tool") and await statuses(engine, [call]) == ["held"]
    await answer(engine, allowance_of_run(run_id))
    await finish(worker, 1)
    assert await statuses(engine, [call]) == ["succeeded"]


async def test_a_budget_that_asks_no_more_refuses_what_waits(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=BudgetLimits(money=0))
    started, _, made = await calling(engine, worker, 2)
    stop = SetBudget(book_id=book_id_of(TENANT), covered=Covered(scope="tenant"), limits=BudgetLimits(money=0), by="key:test")
    budgets = engine.workers.budgets

    await BudgetOffice(engine.commands, budgets.books).set(request_of(TENANT), stop)
    assert await statuses(engine, made) == ["failed", "failed"]
    assert {(await engine.run(run_id)).status for run_id in started} == {"failed"}
    assert (await question(engine, day)).status == "withdrawn"


async def test_what_does_not_fit_an_answer_is_refused(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await day_of(engine, limits=BudgetLimits(money=0))
    await calling(engine, worker, 1)
    for said, words in (
        ({"add": Amounts(calls=2)}, "the budget 'tenant' limits money: give more of that"),
        ({"arguments": {}, "new_hash": "x"}, "the approval is of a budget: it changes no arguments"),
        ({"decision": "deny", "add": Amounts(money=1)}, "`add` goes with an approval, not with a denial"),
    ):
        with pytest.raises(InvalidCommand, match=words):
            await answer(engine, day, **said)
    await answer(engine, day, add=Amounts(money=2_000))
    await answer(engine, day, add=Amounts(money=2_000))
    with pytest.raises(approvals.AlreadyDecided, match="key:ada has approved it before"):
        await answer(engine, day, add=Amounts(money=3_000))


async def test_what_a_trigger_starts_has_the_budget_of_its_target(engine: Engine) -> None:
    worker = await worker_of(engine)
    target = Target(agent="looper", budget=WrittenBudget(calls=0, on_spent="ask"))
    id, origin = new_id(), runs.Origin(kind="trigger", name="t")
    starter = Triggers(engine).starter
    await starter.start(request_of(TENANT), target, None, id=id, project_id=default_project_id(TENANT), origin=origin)
    call = await (await worker.next("looper")).call("a", "search")
    assert await statuses(engine, [call]) == ["held"] and (await question(engine, allowance_of_run(id))).status == "open"


def test_a_written_budget_says_something_that_fits() -> None:
    for said, words in (
        ({}, "a budget limits something: money, tokens, calls or wall_s"),
        ({"calls": 1, "ask": {}}, ""),
        ({"calls": 1, "ask": {"deadline_s": 5}}, "it goes with `on_spent: ask`"),
        ({"wall_s": 5, "on_spent": "ask"}, "the time of a run is over"),
        ({"calls": 1, "on_spent": "ask", "ask": {"default": "approve"}}, "goes with `deadline_s`"),
        ({"calls": 1, "on_spent": "ask", "ask": {"add": {"money": "1"}}}, "gives more of what the budget limits"),
        ({"money": "1.0000001"}, "match pattern"),
    ):
        if not words:
            WrittenBudget.model_validate(said)
            continue
        with pytest.raises(ValidationError, match=words):
            WrittenBudget.model_validate(said)
    with pytest.raises(ValidationError, match="`budget` is of runs, not of a call of a tool"):
        Target(tool="t", budget=WrittenBudget(calls=1))
    asking = WrittenAsking(add=WrittenAmounts(money="0.5", tokens=2, calls=3), roles=("admin",), deadline_s=5, default="approve")
    more = Amounts(money=500_000, tokens=2, calls=3)
    assert asking.asking() == BudgetAsking(add=more, roles=("admin",), deadline_s=5, default="approve")
    assert WrittenBudget(money="0.5", tokens=2).limits() == BudgetLimits(money=500_000, tokens=2)


async def test_a_repeat_finds_the_run_whose_workflow_has_another_budget_by_now(engine: Engine) -> None:
    workflows, known = Workflows(engine.commands, PublishedVersions(engine)), MemoryNames(engine.log, agents.AgentRegistered)
    await worker_of(engine)
    ids = new_id(), new_id()
    for calls, id in ((3, ids[0]), (9, ids[0]), (9, ids[1])):
        definition = WorkflowDefinition(plan=runs.sequential(("looper",)), budget=WrittenBudget(calls=calls))
        await engine.give(PublishWorkflow(workflow_id=workflow_id_of(TENANT, "digest"), name="digest", definition=definition))
        await workflows.start(
            request_of(TENANT, id, repeatable=True), AskedWorkflow("digest"), run_id=id, project_id=default_project_id(TENANT),
            known=known, admission=engine.admission,
        )  # fmt: skip
    budgets = [CATALOG.registry.decoded(engine.log.streams[id][0]).budget for id in ids]  # type: ignore[attr-defined]
    assert [(each.limits.calls, each.budget) for each in budgets] == [(3, "workflow:digest"), (9, "workflow:digest")]
    euros = definition.model_copy(update={"budget": WrittenBudget(money="1", currency="eur")})
    faults = await faults_of_definition(workflows, TENANT, "digest", euros)
    assert faults == [("/budget/currency", "this tenant counts money in usd")]
