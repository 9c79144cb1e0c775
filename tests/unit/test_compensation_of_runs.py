"""A run that failed or was cancelled: its effects are taken back in reverse order, whatever happens in between."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from application.engine.ports.sessions import HeldWork, LapsedWork
from application.lapses import lapsing
from domain import compensations, runs
from domain.compensations import BeginCompensation, ResumeCompensation, RunCompensation, compensation_id_of
from domain.errors import InvalidCommand, InvalidState
from domain.failures import Failure
from domain.invocations import CancelInvocation, ClaimInvocation, FailInvocation, ResolveInvocation
from domain.kernel import NO_FUNCTIONS, derive_id
from domain.tools import RegisterTool, UnknownTool, tool_id_of
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.waiting import TENANT, new_id

ANY: dict[str, Any] = {"parameters": {"type": "object"}}
PAY: dict[str, Any] = {**ANY, "policy": {"compensation": {"tool": "refund"}}}
REFUND = {"parameters": {"type": "object", "properties": {name: {} for name in ("arguments", "result", "invocation_id")}}}


@pytest.fixture(params=[True, False], ids=["in-the-append", "by-the-manager"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with Engine(reactions=request.param).running() as engine:
        await engine.set_up()
        yield engine


@pytest.fixture
async def worker(engine: Engine) -> PlayedWorker:
    worker = engine.worker()
    await worker.register("shop", tools_={"pay": PAY, "ship": PAY, "look": ANY, "refund": REFUND})
    return worker


async def state_of(engine: Engine, run_id: UUID) -> RunCompensation:
    await engine.settled()
    state: RunCompensation = (await engine.commands.load(compensations.DECIDER, TENANT, compensation_id_of(run_id))).state
    return state


async def effects(worker: PlayedWorker, agent: Claim, *named: str) -> list[UUID]:
    """Calls that succeed, one after the other. `named`: key and tool of each."""
    done = []
    for name in named:
        key, _, tool = name.partition("@")
        done.append(await agent.call(key, tool or "pay", what=key))
        await (await worker.next(tool or "pay", "tool")).complete(f"did {key}")
    return done


async def test_effects_of_child_runs_are_taken_back_in_their_turn(engine: Engine, worker: PlayedWorker) -> None:
    """What the parent did after the child, then the child, then what was before, also where the child has completed."""
    child = {"key": "child", "after": ["before"], "run": {"plan": {"steps": [{"key": "inner", "agent": "shop"}]}}}
    graph = runs.Plan.model_validate(
        {
            "steps": [
                {"key": "before", "agent": "shop"},
                child,
                {"key": "later", "agent": "shop", "after": ["child"], "on_failure": "compensate"},
            ]
        }
    )
    run_id = await engine.start(plan=graph)
    for name in ("before", "inner"):
        agent = await worker.next("shop")
        await effects(worker, agent, name)
        await agent.complete()
    agent = await worker.next("shop")
    await effects(worker, agent, "later")
    await agent.fail()
    taken = []
    for _ in range(3):
        back = await worker.next("refund", "tool")
        requested = (await engine.invocation(back.work_id)).requested
        assert requested is not None
        taken.append(requested.arguments["arguments"]["what"])
        await back.complete()
    assert taken == ["later", "inner", "before"]
    state, of_child = await state_of(engine, run_id), await state_of(engine, runs.child_id_of(run_id, "child", 0))
    assert (state.status, len(state.effects), of_child.status) == ("compensated", 3, "compensated")
    assert [state.effects[number].run for number in (1, 2, 3)] == [False, True, False]


async def test_a_child_whose_effects_cannot_be_taken_back_holds_its_parent_up(engine: Engine, worker: PlayedWorker) -> None:
    child = {"key": "child", "run": {"plan": {"steps": [{"key": "inner", "agent": "shop"}]}}}
    graph = runs.Plan.model_validate({"steps": [child, {"key": "later", "agent": "shop", "after": ["child"]}]})
    run_id = await engine.start(plan=graph, compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await agent.complete()
    await (await worker.next("shop")).fail()
    await (await worker.next("refund", "tool")).fail()
    state = await state_of(engine, run_id)
    assert (state.status, state.stopped_on) == ("partial", 1)
    error = state.effects[1].error
    child_id = runs.child_id_of(run_id, "child", 0)
    assert error is not None and error.message == f"0 of 1 effects of the child run {child_id} were taken back"
    await engine.give(ResumeCompensation(run_id=run_id, reason="mended", by="ada"))
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "compensated"


def test_a_parent_hears_of_an_end_that_was_before_it_asked() -> None:
    decider, own, call, tool_call = compensations.DECIDER, new_id(), new_id(), new_id()
    parent_id, state = new_id(), RunCompensation()

    def do(command: compensations.CompensationCommand) -> list[Any]:
        nonlocal state
        events = decider.events(state, command, NO_FUNCTIONS)
        state = decider.fold(state, events)
        return events

    asks = BeginCompensation(run_id=own, because="requested", reason="r", by="b", parent_id=parent_id)
    do(compensations.RecordEffect(run_id=own, invocation_id=call, key="k", tool="t", compensated_by="u"))
    [started, effect] = do(BeginCompensation(run_id=own, because="failed"))
    assert (
        started.parent_id is None and not effect.run and effect.compensation_id == derive_id(compensation_id_of(own), f"{call}:1")
    )
    [resumed] = do(asks)
    assert (resumed.because, resumed.retried, resumed.reason, resumed.by, resumed.parent_id) == ("person", (), "r", "b", parent_id)
    assert do(asks) == [], "it was asked for before"
    failed = Failure(type="X", message="no")
    told = compensations.RecordCompensation(run_id=own, invocation_id=call, compensation_id=effect.compensation_id, error=failed)
    [_, ended] = do(told)
    assert (ended.status, ended.parent_id) == ("partial", parent_id)
    [again, effect] = do(asks)
    assert again.retried == (1,) and effect.round == 2
    [_, ended] = do(compensations.RecordCompensation(run_id=own, invocation_id=call, compensation_id=effect.compensation_id))
    assert (ended.status, ended.parent_id) == ("compensated", parent_id)
    [again, ended] = do(asks)
    assert again.retried == () and (ended.status, ended.parent_id) == ("compensated", parent_id)
    state = RunCompensation()
    [started, ended] = do(asks)
    assert started.parent_id == parent_id and (ended.status, ended.effects) == ("compensated", 0), "a child without effects"
    child = compensations.RecordEffect(run_id=own, invocation_id=tool_call, key="k", tool="run", compensated_by="run", run=True)
    state = RunCompensation()
    do(child)
    [_, effect] = do(BeginCompensation(run_id=own, because="failed"))
    assert effect.run and effect.compensation_id == compensation_id_of(tool_call)


async def test_effects_of_a_failed_run_are_taken_back_in_reverse_order(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    one, _, two = await effects(worker, agent, "one", "look@look", "two@ship")
    await agent.fail()
    taken = []
    for _ in range(2):
        claim = await worker.next("refund", "tool")
        requested = (await engine.invocation(claim.work_id)).requested
        assert requested is not None
        taken.append((requested.arguments["invocation_id"], requested.arguments["result"], requested.arguments["arguments"]))
        assert (requested.asked_by, requested.agent_run_id) == ("compensation", compensation_id_of(run_id))
        assert await worker.nothing_to_take("refund", "tool"), "one after the other"
        await claim.complete()
    assert taken == [(str(two), "did two", {"what": "two"}), (str(one), "did one", {"what": "one"})]
    state = await state_of(engine, run_id)
    assert (state.status, state.compensated, len(state.effects)) == ("compensated", 2, 2)
    assert (await engine.run(run_id)).status == "failed"


async def test_without_a_word_effects_stay(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await agent.fail()
    assert (await state_of(engine, run_id)).status == "none"
    assert await worker.nothing_to_take("refund", "tool")
    await engine.give(BeginCompensation(run_id=run_id, because="requested", reason="late", by="key:ops"))
    await (await worker.next("refund", "tool")).complete()
    state = await state_of(engine, run_id)
    assert state.status == "compensated" and state.begun is not None and state.begun.by == "key:ops"


@pytest.mark.parametrize(
    ("policy", "asked", "begins"),
    [
        ("on_cancel", None, True), ("on_failure_or_cancel", None, True), ("on_failure", None, False), ("never", None, False),
        ("never", True, True), ("on_cancel", False, False),
    ],
)  # fmt: skip
async def test_a_cancelled_run(engine: Engine, worker: PlayedWorker, policy: Any, asked: bool | None, begins: bool) -> None:
    run_id = await engine.start("shop", compensate=policy)
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await engine.give(runs.CancelRun(run_id=run_id, reason="enough", compensate=asked))
    state = await state_of(engine, run_id)
    assert state.status == ("running" if begins else "none")
    if begins:
        assert state.begun is not None and (state.begun.because, state.begun.reason) == ("cancelled", "enough")
        await (await worker.next("refund", "tool")).complete()
        assert (await state_of(engine, run_id)).status == "compensated"


async def test_open_calls_of_the_run_are_waited_for_and_a_late_success_is_taken_back(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    open_call = await agent.call("two", "pay", what="two")
    attempt = await worker.next("pay", "tool")
    waiting = await agent.call("three", "pay", what="three")
    await agent.fail()
    state = await state_of(engine, run_id)
    assert (state.status, set(state.open)) == ("waiting", {open_call}), "the call that no worker had is cancelled"
    assert (await engine.invocation(waiting)).status == "cancelled"
    assert await worker.nothing_to_take("refund", "tool")
    await attempt.complete("after all")
    for expected in (open_call, None):
        claim = await worker.next("refund", "tool")
        requested = (await engine.invocation(claim.work_id)).requested
        assert requested is not None and expected in (None, UUID(requested.key))
        await claim.complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def test_a_person_need_not_wait_and_what_comes_late_is_taken_back(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    open_call = await agent.call("two", "pay", what="two")
    attempt = await worker.next("pay", "tool")
    await agent.fail()
    await state_of(engine, run_id)
    await engine.give(ResumeCompensation(run_id=run_id, skip=(open_call,), reason="no time", by="key:ops"))
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "partial"
    await attempt.complete("after all")
    claim = await worker.next("refund", "tool")
    await claim.complete()
    state = await state_of(engine, run_id)
    assert (state.status, state.compensated) == ("compensated", 2)


async def test_a_compensation_has_retries_of_its_own_and_stops_where_it_fails(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"refund": {**REFUND, "max_attempts": 2}})
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    one, two, three = await effects(worker, agent, "one", "two", "three")
    await agent.fail()
    await (await worker.next("refund", "tool")).complete()
    await (await worker.next("refund", "tool")).fail("transient")
    await engine.advance(120)
    await (await worker.next("refund", "tool")).fail("transient", "the bank is closed")
    state = await state_of(engine, run_id)
    assert (state.status, state.stopped_on, state.compensated, len(state.failed)) == ("partial", 2, 1, 1)
    failed = state.effects[2]
    assert failed.error is not None and (failed.invocation_id, failed.error.message) == (two, "the bank is closed")
    assert await worker.nothing_to_take("refund", "tool")
    with pytest.raises(InvalidState, match="has begun before"):
        await engine.give(BeginCompensation(run_id=run_id, because="requested", reason="again", by="key:ops"))
    await engine.give(ResumeCompensation(run_id=run_id, reason="it is open", by="key:ops"))
    again = await worker.next("refund", "tool")
    assert again.work_id != failed.compensation_id
    await again.complete()
    await (await worker.next("refund", "tool")).complete()
    state = await state_of(engine, run_id)
    assert (state.status, state.compensated) == ("compensated", 3)
    assert [state.effects[number].invocation_id for number in (1, 2, 3)] == [one, two, three]
    assert state.effects[2].round == 2


async def test_a_person_skips_an_effect_or_goes_on_without_it(engine: Engine, worker: PlayedWorker) -> None:
    for given in ({"skip": True}, {"go_on": True}):
        run_id = await engine.start("shop", compensate="on_failure")
        agent = await worker.next("shop")
        _, two = await effects(worker, agent, "one", "two")
        await agent.fail()
        await (await worker.next("refund", "tool")).fail()
        assert (await state_of(engine, run_id)).stopped_on == 2
        skip = (two,) if "skip" in given else ()
        await engine.give(ResumeCompensation(run_id=run_id, skip=skip, go_on="go_on" in given, reason="by hand", by="key:ops"))
        await (await worker.next("refund", "tool")).complete()
        state = await state_of(engine, run_id)
        assert (state.status, state.stopped_on, state.compensated) == ("partial", None, 1)
        assert state.effects[2].status == ("skipped" if skip else "failed")


async def test_a_tool_may_say_that_the_others_go_on(engine: Engine, worker: PlayedWorker) -> None:
    courtesy = {**ANY, "policy": {"compensation": {"tool": "refund", "on_failure": "continue"}}}
    await worker.register(tools_={"pay": courtesy})
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one", "two")
    await agent.fail()
    await (await worker.next("refund", "tool")).fail()
    await (await worker.next("refund", "tool")).complete()
    state = await state_of(engine, run_id)
    assert (state.status, state.stopped_on, state.compensated, dict(state.failed)) == ("partial", None, 1, {2: True})
    await engine.give(ResumeCompensation(run_id=run_id, reason="again", by="key:ops"))
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def test_an_ambiguous_call_of_the_run_and_an_ambiguous_compensation_wait_for_a_person(
    engine: Engine, worker: PlayedWorker
) -> None:
    once = {"idempotent": False}
    await worker.register(tools_={"pay": {**PAY, **once}, "refund": {**REFUND, **once}})
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    lost = await agent.call("two", "pay", what="two")
    await lose(engine, worker, "pay")
    await agent.fail()
    assert (await engine.invocation(lost)).status == "ambiguous"
    assert (await state_of(engine, run_id)).status == "waiting"
    await engine.give(ResolveInvocation(invocation_id=lost, result={"paid": True}, by="key:ops", reason="seen"))
    refund = await lose(engine, worker, "refund")
    assert (await engine.invocation(refund)).requested.arguments["result"] == {"paid": True}  # type: ignore[union-attr]
    assert (await state_of(engine, run_id)).status == "running"
    await engine.give(ResolveInvocation(invocation_id=refund, result=None, by="key:ops", reason="seen"))
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def test_an_effect_that_nobody_knows_of_stops_the_compensation(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    unknown = await agent.call("two", "pay", what="two")
    claim = await worker.next("pay", "tool")
    late = FailInvocation(
        invocation_id=unknown, attempt=claim.attempt, effect="unknown", error=Failure(type="ToolTimeoutError", message="late")
    )
    await engine.workers.invocations.fail(worker.caller, late)
    await agent.fail()
    state = await state_of(engine, run_id)
    assert (state.status, state.stopped_on, state.effects[2].unknown) == ("partial", 2, True)
    assert state.effects[2].error == compensations.UNKNOWN
    await engine.give(ResumeCompensation(run_id=run_id, reason="take it back all the same", by="key:ops"))
    claim = await worker.next("refund", "tool")
    assert (await engine.invocation(claim.work_id)).requested.arguments["result"] is None  # type: ignore[union-attr]
    await claim.complete()
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def test_a_result_that_does_not_fit_was_an_effect_all_the_same(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"pay": {**PAY, "result": {"type": "integer"}}})
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await agent.fail()
    await (await worker.next("refund", "tool")).complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def test_failed_calls_have_no_effect(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await agent.call("one", "pay")
    await (await worker.next("pay", "tool")).fail()
    await agent.fail()
    state = await state_of(engine, run_id)
    assert (state.status, len(state.effects), len(state.calls)) == ("compensated", 0, 1)


async def test_a_call_is_refused_whose_effect_nobody_could_take_back(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register(tools_={"bind": {**ANY, "policy": {"compensation": {"tool": "unbind"}}}})
    await engine.start("shop")
    agent = await worker.next("shop")
    with pytest.raises(UnknownTool, match="'unbind', which takes back what 'bind' does, is not registered"):
        await agent.call("one", "bind")
    await worker.register(tools_={"unbind": ANY})
    await agent.call("one", "bind")


async def test_a_compensating_call_that_is_cancelled_has_failed(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await agent.fail()
    await engine.settled()
    call = (await state_of(engine, run_id)).effects[1].compensation_id
    assert call is not None
    await engine.give(CancelInvocation(invocation_id=call, reason="not now"))
    state = await state_of(engine, run_id)
    assert state.status == "partial" and state.effects[1].error is not None
    assert (state.effects[1].error.type, state.effects[1].error.message) == ("Cancelled", "the call was cancelled: not now")


async def test_arguments_are_made_by_expressions_or_it_stops(engine: Engine, worker: PlayedWorker) -> None:
    mapped = {**ANY, "policy": {"compensation": {"tool": "refund", "arguments": {"result": "result.id + arguments.what"}}}}
    await worker.register(tools_={"pay": mapped})
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await effects(worker, agent, "one")
    await agent.call("two", "pay", what="-two")
    await (await worker.next("pay", "tool")).complete({"id": "P"})
    await agent.fail()
    claim = await worker.next("refund", "tool")
    assert (await engine.invocation(claim.work_id)).requested.arguments == {"result": "P-two"}  # type: ignore[union-attr]
    await claim.complete()
    state = await state_of(engine, run_id)
    assert state.status == "partial" and state.effects[1].error is not None
    assert state.effects[1].error.message.startswith("the argument 'result' of 'refund' cannot be made of the call: ")


async def test_an_expression_is_checked_when_it_is_declared(engine: Engine, worker: PlayedWorker) -> None:
    wrong = {**ANY, "policy": {"compensation": {"tool": "refund", "arguments": {"result": "resul.id"}}}}
    with pytest.raises(InvalidCommand, match="resul") as refused:
        await worker.register(tools_={"pay": wrong})
    assert refused.value.pointer == "/policy/compensation/arguments/result"


async def test_the_steps_of_a_chain_are_taken_back(engine: Engine, worker: PlayedWorker) -> None:
    steps = [{"name": name, "tool": "pay", "arguments": {"what": f"'{name}'"}} for name in ("a", "b")]
    chain = RegisterTool(
        tool_id=tool_id_of(TENANT, "both"), name="both", kind="chain", chain={"steps": steps}, parameters={}, how="created"
    )
    await engine.give(chain)
    run_id = await engine.start("shop", compensate="on_failure")
    agent = await worker.next("shop")
    await agent.call("one", "both")
    for name in ("a", "b"):
        await (await worker.next("pay", "tool")).complete(name)
    await agent.fail()
    for name in ("b", "a"):
        claim = await worker.next("refund", "tool")
        assert (await engine.invocation(claim.work_id)).requested.arguments["result"] == name  # type: ignore[union-attr]
        await claim.complete()
    assert (await state_of(engine, run_id)).status == "compensated"


async def lose(engine: Engine, worker: PlayedWorker, pool: str) -> UUID:
    """A session claims the next call of a tool, and is lost."""
    item, session_id = (await worker.take(pool, "tool")).item, new_id()
    claim = ClaimInvocation(invocation_id=item.work_id, worker_id="lost", dispatch=item.dispatch, session_id=session_id)
    attempt = (await engine.workers.invocations.claim(worker.caller, claim, "x"))[0].attempt
    held = HeldWork(TENANT, "tool", item.work_id, item.root_id, attempt, session_id)
    await engine.commands.execute(*lapsing(LapsedWork(held, "lost")))
    return item.work_id
