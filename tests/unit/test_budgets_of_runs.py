"""Budgets in whole runs: what stops a loop of calls, what comes back, and what a run of another tenant does not see."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

import pytest

from application.calls import WantedCall
from application.engine.background import end
from application.tool_calls import Called
from domain import allowances, runs
from domain.allowances import Allowance, CountSpent, Opening, allowance_of_run
from domain.amounts import Amounts, BudgetLimits
from domain.budgets import Covered, SetBudget, allowance_of_day, book_id_of, budget_id_of
from domain.errors import DomainError, Unavailable
from domain.invocations import CancelInvocation, InvocationSucceeded
from domain.kernel import Metadata
from domain.registry import REGISTRY
from domain.runs import RunBudget
from tests.kit.budgets import COSTS, allowance, worker_of
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.waiting import TENANT, new_id, request_of

CENT = RunBudget(limits=BudgetLimits(money=10_000))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    async with engine.running():
        await engine.set_up()
        yield engine


async def set_budget(engine: Engine, covered: Covered, **said: Any) -> UUID:
    """The allowance of today."""
    await engine.give(SetBudget(book_id=book_id_of(TENANT), covered=covered, by="key:test", **said))
    day = engine.workers.budgets.books._clock().date().isoformat()
    return allowance_of_day(budget_id_of(book_id_of(TENANT), covered.name), day)


async def test_a_loop_of_calls_is_stopped_by_a_budget_of_one_cent(engine: Engine) -> None:
    worker = await worker_of(engine)
    run_id = await engine.start("looper", budget=CENT)
    claim = await worker.next("looper")
    made = 0
    while (await engine.agent_run(claim.work_id)).status == "running" and made < 50:
        await claim.call(f"search:{made}", "search")
        if (await engine.agent_run(claim.work_id)).status == "running":
            await (await worker.next("search", "tool")).complete("found")
            await engine.settled()
            made += 1
    assert made == 5
    run = await engine.run(run_id)
    assert run.status == "failed"
    error = run.steps["looper"].error
    assert error is not None and error.type == "BudgetExceeded"
    assert error.message == "the budget 'run' is spent: 0 of 0.01 usd is left, the call may cost 0.002"
    spent = await allowance(engine, allowance_of_run(run_id))
    assert (spent.spent, spent.held, dict(spent.holders)) == (Amounts(money=10_000, calls=5), Amounts(), {})


async def test_a_call_without_any_budget_says_nothing_of_one(engine: Engine) -> None:
    worker = await worker_of(engine, search={})
    run_id = await engine.start("looper")
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    await (await worker.next("search", "tool")).complete("found")
    await claim.complete("done")
    await engine.settled()
    assert not [topic for topic in engine.topics(run_id) if "portion" in topic or "allowance" in topic]


async def test_what_a_worker_reports_counts_in_place_of_the_most(engine: Engine) -> None:
    worker = await worker_of(engine)
    run_id = await engine.start("looper", budget=CENT)
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    await (await worker.next("search", "tool")).complete("found", usage=Amounts(money=500, tokens=12))
    await claim.complete("done")
    spent = await allowance(engine, allowance_of_run(run_id))
    assert spent.spent == Amounts(money=500, tokens=12, calls=1)
    assert not spent.held and not spent.overrun


async def test_a_call_that_breaks_its_maximum_overruns_alone_and_is_recorded_so(engine: Engine) -> None:
    worker = await worker_of(engine)
    run_id = await engine.start("looper", budget=RunBudget(limits=BudgetLimits(money=2_000)))
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    await (await worker.next("search", "tool")).complete("found", usage=Amounts(money=9_000))
    await engine.settled()
    await claim.call("search:1", "search")
    spent = await allowance(engine, allowance_of_run(run_id))
    assert (spent.spent.money, spent.overrun.money) == (9_000, 7_000)
    assert (await engine.run(run_id)).status == "failed"


async def test_a_budget_of_a_day_that_is_just_enough_stops_none_of_many_runs(engine: Engine) -> None:
    number = 60
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=number, money=number * 2_000))
    started = [await engine.start("looper") for _ in range(number)]
    claims = [await worker.next("looper") for _ in range(number)]
    await asyncio.gather(*(claim.call("search:0", "search") for claim in claims))
    for _ in range(number):
        await (await worker.next("search", "tool")).complete("found")
    for claim in claims:
        await claim.complete("done")
    assert {(await engine.run(run_id)).status for run_id in started} == {"completed"}
    spent = await allowance(engine, day)
    assert (spent.spent, spent.held, spent.overrun) == (Amounts(money=number * 2_000, calls=number), Amounts(), Amounts())


async def test_two_processes_and_dying_agent_runs_spend_no_more_than_there_is(engine: Engine) -> None:
    """Agents call in loops in two processes with caches of their own, and some of their runs are cancelled in the middle."""
    other = engine.another()
    other.workers.budgets.books.hear_by(other.live.call)
    live = asyncio.create_task(other.live.run())
    limit, number = 25, 12
    await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=limit))
    started = [await engine.start("looper") for _ in range(number)]
    await engine.settled()
    workers = [PlayedWorker(process, f"w{n}") for n, process in enumerate((engine, other))]
    for each in workers:
        await each.register("looper", tools_={"search": COSTS})
    claims = [await workers[n % 2].next("looper") for n in range(number)]

    async def loop(n: int) -> None:
        for turn in range(limit):
            try:
                await claims[n].call(f"search:{turn}", "search")
            except DomainError:  # its agent run has ended
                return
            if n % 3 == 0 and turn == 1:
                await engine.give(runs.AbandonRun(run_id=started[n]))
                return

    try:
        await asyncio.gather(*(loop(n) for n in range(number)))
        spent = await allowance(engine, day)
    finally:
        await end(live)
    begun = [e for e in engine.log.events if e.topic == "agent_run.call_started" and b'"reserved"' in e.state]
    cancelled = [e for e in engine.log.events if e.topic == "invocation.cancelled" and b'"cost"' in e.state]
    assert cancelled and len(begun) - len(cancelled) <= limit
    assert spent.used.calls <= limit and not spent.overrun
    assert {(await engine.run(run_id)).status for run_id in started} == {"failed", "cancelled"}


async def test_child_runs_draw_from_the_budget_of_their_parent(engine: Engine) -> None:
    worker = await worker_of(engine)
    child = {"steps": [{"key": "inner", "agent": "looper"}]}
    plan = runs.Plan.model_validate({"steps": [{"key": "outer", "run": {"plan": child}}]})
    run_id = await engine.start(plan=plan, budget=RunBudget(limits=BudgetLimits(calls=2)))
    claim = await worker.next("looper")
    for number in range(2):
        await claim.call(f"search:{number}", "search")
        await (await worker.next("search", "tool")).complete("found")
        await engine.settled()
    await claim.call("search:2", "search")
    run = await engine.run(run_id)
    assert run.status == "failed"
    assert (await allowance(engine, allowance_of_run(run_id))).spent.calls == 2


async def test_calls_that_never_began_cost_nothing(engine: Engine) -> None:
    """Their agent run has ended. One that a worker has counts when it ends, as its worker says."""
    worker = await worker_of(engine)
    run_id = await engine.start("looper", budget=CENT)
    claim = await worker.next("looper")
    for number in range(2):
        await claim.call(f"search:{number}", "search")
    begun = await worker.next("search", "tool")
    await claim.complete("done")
    spent = await allowance(engine, allowance_of_run(run_id))
    assert (spent.spent, spent.held) == (Amounts(), Amounts(money=2_000, calls=1))
    await begun.complete("found", usage=Amounts(money=300))
    spent = await allowance(engine, allowance_of_run(run_id))
    assert (spent.spent, spent.held, dict(spent.holders)) == (Amounts(money=300, calls=1), Amounts(), {})


async def test_a_budget_of_an_agent_counts_the_calls_of_that_agent_alone(engine: Engine) -> None:
    worker = await worker_of(engine)
    await worker.register("other")
    await set_budget(engine, Covered(scope="agent", agent="looper", per="run"), limits=BudgetLimits(calls=1))
    run_id = await engine.start("looper", "other")
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    await (await worker.next("search", "tool")).complete("found")
    await claim.complete("done")
    other = await worker.next("other")
    for number in range(3):
        await other.call(f"search:{number}", "search")
    await other.complete("done")
    assert (await engine.run(run_id)).status == "completed"


async def test_the_budget_of_all_runs_counts_where_the_start_says_none(engine: Engine) -> None:
    worker = await worker_of(engine)
    await set_budget(engine, Covered(scope="runs", per="run"), limits=BudgetLimits(calls=1))
    run_id = await engine.start("looper")
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    await claim.call("search:1", "search")
    run = await engine.run(run_id)
    assert run.status == "failed"
    assert run.steps["looper"].error.message.startswith("the budget 'runs' is spent")  # type: ignore[union-attr]


async def test_the_wall_time_of_a_run_ends_it(engine: Engine) -> None:
    await worker_of(engine)
    run_id = await engine.start("looper", budget=RunBudget(limits=BudgetLimits(), wall_s=60))
    await engine.settled()
    await engine.advance(59)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(2)
    run = await engine.run(run_id)
    assert run.status == "failed"


async def test_degrade_calls_a_cheaper_tool_and_then_lets_the_agent_go_on(engine: Engine) -> None:
    dear = {"policy": {"max_cost": {"money": "0.01"}, "fallbacks": ["cheap"]}}
    worker = await worker_of(engine, dear=dear, cheap={"policy": {"max_cost": {"money": "0.001"}}})
    budget = RunBudget(limits=BudgetLimits(money=12_000), on_spent="degrade")
    run_id = await engine.start("looper", budget=budget)
    claim = await worker.next("looper")
    await claim.call("a", "dear")
    await (await worker.next("dear", "tool")).complete("good")
    await engine.settled()
    for key in ("b", "c"):
        await claim.call(key, "dear")
        await (await worker.next("cheap", "tool")).complete("fair")
        await engine.settled()
    refused = await claim.call("d", "dear")
    call = await engine.invocation(refused)
    assert call.status == "failed" and call.error is not None and call.error.type == "BudgetExceeded"
    assert (await engine.agent_run(claim.work_id)).status == "running"
    await claim.complete("done")
    assert (await engine.run(run_id)).status == "completed"


async def test_a_call_draws_in_its_own_append_and_the_end_gives_back_in_its_own(engine: Engine) -> None:
    """Also of a budget of a day, which many runs share: no call waits for a round trip of its own, and no engine settles later."""
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=100))
    agent_day = await set_budget(engine, Covered(scope="agent", agent="looper"), limits=BudgetLimits(calls=90))
    run_id = await engine.start("looper", budget=CENT)
    claim = await worker.next("looper")
    await engine.settled()
    appends: list[list[str]] = []
    engine.log.followers.append(lambda events: appends.append([event.topic for event in events]))
    await claim.call("search:0", "search")
    await engine.settled()
    assert len(appends) == 1 and appends[0].count("allowance.drawn") == 3
    await (await worker.next("search", "tool")).complete("found")
    await engine.settled()
    state = await engine.agent_run(claim.work_id)
    assert state.shared_roots == (day, agent_day)
    appends.clear()
    await claim.complete("done")
    await engine.settled()
    assert len(appends) == 1 and appends[0].count("allowance.settled") == 3
    for allowance_id in (day, agent_day, allowance_of_run(run_id)):
        spent = await allowance(engine, allowance_id)
        assert (spent.spent.calls, spent.held) == (1, Amounts()), spent.opened


async def test_a_crowd_of_other_processes_is_left_to_itself(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where commands of the budget meet conflict upon conflict, calls and ends stay out of it: a draw goes by itself."""
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=100))
    await engine.start("looper")
    claim = await worker.next("looper")
    monkeypatch.setattr(engine.commands, "is_crowded", lambda tenant_id, root_id: (tenant_id, root_id) == (TENANT, day))
    await engine.settled()
    await claim.call("search:0", "search")
    drawn, started = (
        next(Metadata.model_validate_json(event.metadata) for event in engine.log.events if event.topic == topic)
        for topic in ("allowance.drawn", "agent_run.call_started")
    )
    assert drawn.command_id != started.command_id
    await (await worker.next("search", "tool")).complete("found")
    await claim.complete("done")
    assert not [event for event in engine.log.events if event.topic == "agent_run.portion_settled" and event.settled]
    assert (await allowance(engine, day)).spent.calls == 1


async def test_a_call_draws_by_itself_where_others_were_faster(engine: Engine) -> None:
    """This process believes that there is enough. The log knows better, and what is left after all is drawn."""
    other = engine.another()
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=3))
    run_id = await engine.start("looper")
    claim = await worker.next("looper")
    await engine.commands.load(allowances.DECIDER, TENANT, day)
    holder = UUID(int=7)
    draw = allowances.DrawPortion(allowance_id=day, root_id=day, holder=holder, amounts=Amounts(calls=3), exact=True)
    opening = (await engine.workers.budgets.books.of(TENANT)).budgets["tenant"]
    await other.give(draw.model_copy(update={"opening": engine.workers.budgets.books.of_today(TENANT, opening).opening}))
    call = asyncio.create_task(claim.call("search:0", "search"))
    back = allowances.SettlePortion(
        allowance_id=day, root_id=day, holder=holder, spent=Amounts(calls=2), returned=Amounts(calls=1), exact=True
    )
    await other.give(back)
    await call
    assert (await engine.run(run_id)).status == "running"
    assert (await allowance(engine, day)).used.calls == 3


# --- calls without a run, and calls that take an effect back -----------------------------------------------------------------


def wanted(**said: Any) -> WantedCall:
    request = request_of()
    return WantedCall(request, new_id(), "key", {}, **said)


async def test_a_call_without_a_run_counts_for_the_day_and_is_refused_when_nothing_is_left(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(money=4_000))
    appends: list[list[str]] = []
    engine.log.followers.append(lambda events: appends.append([event.topic for event in events]))
    first = await engine.workers.client_calls.call("search", wanted())
    assert len(appends) == 1 and appends[0][:3] == ["invocation.requested", "allowance.opened", "allowance.drawn"]
    assert (await allowance(engine, day)).held == Amounts(money=2_000, calls=1)
    await (await worker.next("search", "tool")).complete("found", usage=Amounts(money=500))
    spent = await allowance(engine, day)
    assert (spent.spent, spent.held, dict(spent.holders)) == (Amounts(money=500, calls=1), Amounts(), {})
    answers = await engine.workers.client_calls.call_each(TENANT, "search", [wanted() for _ in range(3)])
    states = [await engine.invocation(answer.invocation_id) for answer in answers if isinstance(answer, Called)]
    assert sorted(state.status for state in states) == ["failed", "failed", "requested"]
    error = next(state.error for state in states if state.error is not None)
    assert error.type == "BudgetExceeded"
    assert error.message.endswith("is spent: 0.0015 of 0.004 usd is left, the call may cost 0.002")
    spent = await allowance(engine, day)
    assert spent.told and spent.used.money == 2_500
    [waits] = [answer for answer, state in zip(answers, states, strict=True) if state.status == "requested"]
    assert isinstance(waits, Called)
    await engine.give(CancelInvocation(invocation_id=waits.invocation_id, asked_by="client"))
    spent = await allowance(engine, day)
    assert (spent.spent.money, spent.held, dict(spent.holders)) == (500, Amounts(), {})
    assert (await engine.invocation(first.invocation_id)).status == "succeeded"


async def test_agents_give_back_what_a_call_without_a_run_needs(engine: Engine) -> None:
    worker = await worker_of(engine)
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(calls=64))
    await engine.start("looper")
    claim = await worker.next("looper")
    await claim.call("search:0", "search")
    assert (await allowance(engine, day)).held.calls == 4
    answers = await engine.workers.client_calls.call_each(TENANT, "search", [wanted() for _ in range(63)])
    assert not [answer for answer in answers if isinstance(answer, Exception)]
    spent = await allowance(engine, day)
    assert spent.used.calls == 64 and not spent.told


async def test_a_call_without_a_run_says_its_cost_without_any_budget(engine: Engine) -> None:
    worker = await worker_of(engine)
    called = await engine.workers.client_calls.call("search", wanted())
    await (await worker.next("search", "tool")).complete("found")
    [usage] = [event.usage for event in await engine.commands.history(TENANT, called.invocation_id)
               for event in [REGISTRY.decoded(event)] if isinstance(event, InvocationSucceeded)]  # fmt: skip
    assert usage == Amounts(money=2_000)


async def test_taking_an_effect_back_counts_and_is_never_refused(engine: Engine) -> None:
    worker = await worker_of(
        engine, book={"policy": {"max_cost": {"money": "0.002"}, "compensation": {"tool": "unbook"}}},
        unbook={"policy": {"max_cost": {"money": "0.001"}}},
    )  # fmt: skip
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(money=4_500))
    run_id = await engine.start("looper", compensate="on_failure")
    claim = await worker.next("looper")
    for number in range(2):
        await claim.call(f"book:{number}", "book")
        await (await worker.next("book", "tool")).complete("booked")
        await engine.settled()
    await claim.fail()
    await (await worker.next("unbook", "tool")).complete("unbooked", usage=Amounts(money=100))
    spent = await allowance(engine, day)
    assert (spent.spent, spent.overrun) == (Amounts(money=4_100, calls=3), Amounts())
    await engine.settled()
    undo = await worker.next("unbook", "tool")
    await undo.fail("transient")
    await engine.advance(60)
    await (await worker.next("unbook", "tool")).complete("unbooked")
    spent = await allowance(engine, day)
    assert (spent.spent, spent.overrun, spent.held) == (Amounts(money=5_100, calls=4), Amounts(money=600), Amounts())
    assert (await engine.run(run_id)).status == "failed"


def test_what_is_only_counted_overruns_by_what_was_not_left() -> None:
    day = UUID(int=5)
    opening = Opening(budget="tenant", day="2026-11-30", limits=BudgetLimits(money=10, calls=9))
    count = CountSpent(
        allowance_id=day, root_id=day, holder=UUID(int=6), spent=Amounts(money=7, tokens=5, calls=1), opening=opening
    )
    state, overruns = Allowance(), []
    for expected in (2, 1, 1):
        events = allowances.decide(state, count)
        assert len(events) == expected
        state = allowances.DECIDER.fold(state, events)
        overruns.append(events[-1].overrun)  # type: ignore[attr-defined]
    assert overruns == [Amounts(), Amounts(money=4), Amounts(money=7)]
    assert (state.spent, state.overrun) == (Amounts(money=21, tokens=15, calls=3), Amounts(money=11))


async def test_a_process_says_how_much_is_given_out_and_what_it_refused(engine: Engine) -> None:
    worker = await worker_of(engine)
    refused: list[tuple[str, str]] = []
    engine.workers.budgets.paying.refused = lambda scope, kind: refused.append((scope, kind))
    books = engine.workers.budgets.books
    assert books.shares() == {}
    day = await set_budget(engine, Covered(scope="tenant"), limits=BudgetLimits(money=4_000, calls=10))
    await set_budget(engine, Covered(scope="agent", agent="looper"), limits=BudgetLimits(calls=0))
    await set_budget(engine, Covered(scope="agent", agent="looper", per="run"), limits=BudgetLimits(calls=1))
    await engine.workers.client_calls.call("search", wanted())
    assert books.shares() == {"tenant": 0.5, "agent": 0.0}
    run_id = await engine.start("looper")
    await (await worker.next("looper")).call("search:0", "search")
    assert (await engine.run(run_id)).status == "failed"
    assert refused == [("agent", "calls")] and books.shares()["agent"] == 1.0
    assert (await allowance(engine, day)).used.calls == 1
    assert [event.topic for event in engine.log.events].count("allowance.spent") == 1, "also of one that allows no call at all"


async def test_a_process_knows_a_bounded_number_of_books(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.budgets.books.MOST_KNOWN", 2)
    books, watched = engine.workers.budgets.books, list[UUID]()

    def watch(stream_id: UUID, topics: object, told: object) -> Callable[[], None]:
        watched.append(stream_id)
        return lambda: watched.remove(stream_id)

    books.hear_by(watch)
    tenants = [new_id() for _ in range(3)]
    for tenant_id in (*tenants, tenants[-1]):
        await books.of(tenant_id)
    assert watched == [book_id_of(tenant_id) for tenant_id in tenants[1:]]
    await asyncio.gather(*(books.of(tenants[0]) for _ in range(3)))
    assert watched == [book_id_of(tenants[2]), book_id_of(tenants[0])], "those who read side by side leave one watch"
    engine.log.away = True
    with pytest.raises(Unavailable):
        await books.of(new_id())
    engine.log.away = False
    assert len(watched) == 2
