"""Chains of tools through the product's own catalog, in memory: called by an agent, carried out by the engine."""

from typing import Any
from uuid import UUID

import pytest

from application.engine.sagas.reactions import ReactionCause
from application.sagas import work_dispatch
from domain import chains, invocations
from domain.chains import chain_id_of
from domain.errors import InvalidCommand, WorkOver
from domain.failures import Failure
from domain.invocations import CancelInvocation, ClaimInvocation, EndInvocation, ResolveInvocation
from domain.kernel import Json, derive_id
from domain.runs import CancelRun
from domain.tools import RegisterTool, RemoveTool, UnknownTool, tool_id_of
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.waiting import TENANT

THREE: Json = {
    "steps": [
        {"name": "one", "tool": "add", "arguments": {"a": "arguments.n"}},
        {"name": "two", "tool": "add", "arguments": {"a": "steps.one + 1"}, "when": "steps.one > 0"},
        {"tool": "mail", "arguments": {"text": "'sum: ' + string(steps.two)"}},
    ],
    "result": "{'sent': steps.mail, 'sum': steps.two}",
}


async def declare(engine: Engine, name: str, chain: Json, **more: Any) -> None:
    parameters = {"type": "object"}
    await engine.give(
        RegisterTool(tool_id=tool_id_of(TENANT, name), name=name, kind="chain", chain=chain, parameters=parameters, **more)
    )


def step_of(call: UUID, step: str) -> UUID:
    return derive_id(chain_id_of(call), f"step:{step}")


async def test_an_agent_calls_a_chain_as_any_tool(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "three", n=1)
    one = await worker.next("add", "tool")
    assert one.work_id == step_of(call, "one")
    await one.complete(5)
    two = await worker.next("add", "tool")
    requested = (await engine.invocation(two.work_id)).requested
    assert requested is not None
    assert (requested.arguments, requested.asked_by, requested.key) == ({"a": 6}, "chain", "two")
    assert (requested.agent_run_id, requested.run_id) == (chain_id_of(call), run_id)
    await two.complete(11)
    mail = await worker.next("mail", "tool")
    assert (await engine.invocation(mail.work_id)).requested.arguments == {"text": "sum: 11"}  # type: ignore[union-attr]
    await mail.complete("yes")
    await engine.settled()
    state = await engine.invocation(call)
    assert (state.status, state.result, state.attempt) == ("succeeded", {"sent": "yes", "sum": 11}, 0)
    entry = (await engine.agent_run(alpha.work_id)).journal["k"]
    assert entry.status == "ok"
    await alpha.complete()
    assert (await engine.run(run_id)).status == "completed"
    assert engine.of_stream(chain_id_of(call)) == [
        "chain.started", "chain.step_requested", "chain.step_finished", "chain.step_requested", "chain.step_finished",
        "chain.step_requested", "chain.step_finished", "chain.completed",
    ]  # fmt: skip
    assert engine.of_stream(call) == ["invocation.requested", "invocation.succeeded"]


async def test_what_follows_is_in_the_append_of_what_it_follows_from(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await engine.settled()
    before = len(engine.log.events)
    await alpha.call("k", "three", n=1)
    events = [event for event in engine.log.events[before:] if event.root_id == run_id]
    assert [event.topic for event in events] == [
        "agent_run.call_started", "invocation.requested", "chain.started", "chain.step_requested", "invocation.requested",
    ]  # fmt: skip
    assert len({event.recorded_at for event in events}) == 1
    assert [event.schema_version for event in events if event.topic == "invocation.requested"] == [2, 2]


async def test_no_worker_is_asked_to_carry_a_chain_out(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "three", n=1)
    await engine.settled()
    assert call not in engine.open_work.rows
    requested = (await engine.invocation(call)).requested
    assert requested is not None
    cause = ReactionCause(TENANT, call, 1, requested.run_id, requested.TOPIC, call)
    assert work_dispatch.on_invocation_requested(requested, cause) == []
    assert step_of(call, "one") in engine.open_work.rows
    claim = ClaimInvocation(invocation_id=call, worker_id="w", dispatch=1)
    with pytest.raises(WorkOver, match="a chain carries out the invocation"):
        await engine.give(claim)


async def test_a_failed_step_fails_the_call(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "three", n=1)
    await (await worker.next("add", "tool")).fail("permanent", "no more numbers")
    await engine.settled()
    state = await engine.invocation(call)
    assert state.status == "failed" and state.error is not None
    assert state.error.message == "the step 'one' (tool 'add') failed: no more numbers"
    assert (await engine.agent_run(alpha.work_id)).journal["k"].status == "error"
    assert await worker.nothing_to_take("add", "tool")


async def test_a_result_that_does_not_fit_the_next_tool_is_a_clear_failure(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "two", {"steps": [THREE["steps"][0], {"tool": "add", "arguments": {"a": "steps.one"}}]})
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "two", n=1)
    await (await worker.next("add", "tool")).complete("five")
    await engine.settled()
    error = (await engine.invocation(call)).error
    assert error is not None
    assert error.message.startswith(
        "the step 'add' (tool 'add') cannot begin: its arguments do not fit the tool 'add': /a: \"five\""
    )


async def test_a_cancelled_call_cancels_the_step_under_way(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "three", n=1)
    one = await worker.next("add", "tool")
    await engine.give(CancelRun(run_id=run_id, reason="enough"))
    await engine.settled()
    assert (await engine.invocation(call)).status == "cancelled"
    step = await engine.invocation(one.work_id)
    assert (step.status, step.cancel_request is not None) == ("started", True), "its outcome is recorded when it arrives"
    assert engine.of_stream(chain_id_of(call))[-1] == "chain.cancelled"
    await one.complete(5)
    await engine.settled()
    assert (await engine.invocation(one.work_id)).status == "succeeded"
    assert engine.of_stream(chain_id_of(call))[-1] == "chain.cancelled"


async def test_a_step_that_is_cancelled_by_hand_fails_the_chain(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "three", THREE)
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "three", n=1)
    await engine.give(CancelInvocation(invocation_id=step_of(call, "one"), reason="not this one"))
    await engine.settled()
    error = (await engine.invocation(call)).error
    assert error is not None
    assert error.message == "the step 'one' (tool 'add') failed: it was cancelled: not this one"


async def test_a_step_in_doubt_makes_the_chain_wait_for_a_person(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "post", {"steps": [{"tool": "mail"}, {"tool": "add", "arguments": {"a": "steps.mail"}}]})
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "post")
    mail = await worker.next("mail", "tool")
    claim = ClaimInvocation(invocation_id=mail.work_id, worker_id="other", dispatch=1)
    await engine.give(claim)
    await engine.settled()
    assert (await engine.invocation(mail.work_id)).status == "ambiguous"
    assert (await engine.invocation(call)).status == "requested"
    said = ResolveInvocation(invocation_id=mail.work_id, result=7, by="key:person", reason="it is in the outbox")
    await engine.give(said)
    add = await worker.next("add", "tool")
    assert (await engine.invocation(add.work_id)).requested.arguments == {"a": 7}  # type: ignore[union-attr]
    await add.complete(1)
    await engine.settled()
    assert (await engine.invocation(call)).result == 1


async def test_a_chain_in_a_chain(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "inner", {"steps": [{"tool": "add", "arguments": {"a": "arguments.x"}}], "result": "steps.add * 10"})
    await declare(engine, "outer", {"steps": [{"tool": "inner", "arguments": {"x": "arguments.n"}}]})
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "outer", n=3)
    await (await worker.next("add", "tool")).complete(4)
    await engine.settled()
    assert (await engine.invocation(call)).result == 40
    inner = step_of(call, "inner")
    assert (await engine.invocation(inner)).result == 40
    assert engine.of_stream(chain_id_of(inner))[-1] == "chain.completed"


async def test_chains_that_cannot_be_called(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "lost", {"steps": [{"tool": "ad"}]})
    await declare(engine, "b", {"steps": [{"tool": "a"}]})
    await declare(engine, "a", {"steps": [{"tool": "b"}]})
    for depth in range(6):
        await declare(engine, f"d{depth}", {"steps": [{"tool": f"d{depth + 1}" if depth < 5 else "add"}]})
    await engine.start("alpha")
    alpha = await worker.next("alpha")
    for name, why in {
        "lost": "the chain 'lost', step 'ad': no tool 'ad' is registered; did you mean 'add'",
        "a": "the chain 'a' contains itself: a → b → a",
        "d0": "the chain 'd0' has chains in chains, 5 deep",
    }.items():
        with pytest.raises(InvalidCommand, match=why):
            await alpha.call(name, name)
    await alpha.call("d1", "d1", a=1)


async def test_a_process_that_has_not_heard_of_a_change_looks_again(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "two", {"steps": [{"name": "one", "tool": "add", "arguments": {"a": "1"}}, {"tool": "mail"}]})
    await engine.start("alpha")
    other = engine.another()
    there = PlayedWorker(other, queues=worker.queues)
    alpha = await there.next("alpha")
    await alpha.call("before", "two")
    await engine.give(RemoveTool(tool_id=tool_id_of(TENANT, "mail"), name="mail"))
    with pytest.raises(UnknownTool, match="no tool 'mail' is registered"):
        await alpha.call("after", "two")


async def test_the_tools_of_a_chain_are_those_of_its_beginning(engine: Engine, worker: PlayedWorker) -> None:
    await declare(engine, "two", {"steps": [{"name": "one", "tool": "add", "arguments": {"a": "1"}}, {"tool": "mail"}]})
    await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "two")
    await engine.give(RemoveTool(tool_id=tool_id_of(TENANT, "mail"), name="mail"))
    await (await worker.next("add", "tool")).complete(1)
    await (await worker.next("mail", "tool")).complete("sent")
    await engine.settled()
    assert (await engine.invocation(call)).result == "sent"


async def test_the_saga_gives_what_was_not_in_the_append() -> None:
    engine = Engine(reactions=False)
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", tools_=("add", "mail"))
        await declare(engine, "three", THREE)
        await engine.start("alpha")
        call = await (await worker.next("alpha")).call("k", "three", n=1)
        await (await worker.next("add", "tool")).complete(5)
        await (await worker.next("add", "tool")).complete(6)
        await (await worker.next("mail", "tool")).complete(True)
        await engine.settled()
        assert (await engine.invocation(call)).result == {"sent": True, "sum": 6}


def test_only_a_chain_ends_a_call_without_a_worker() -> None:
    from domain.errors import InvalidState
    from domain.failures import Retry
    from tests.kit import given

    call, chain = UUID(int=1), UUID(int=2)
    fields: dict[str, Any] = {
        "run_id": call, "agent_run_id": call, "key": "k", "tool": "t", "arguments": {}, "idempotent": True, "timeout_s": 1,
        "retry": Retry(),
    }  # fmt: skip
    of_chain = invocations.InvocationRequested(**fields, chain_id=chain)
    told = {"agent_run_id": call, "key": "k", "attempt": 0}
    error = Failure(type="E", message="m")
    ended = given(invocations.DECIDER, of_chain)
    ended.when(EndInvocation(invocation_id=call, result=3)).then(invocations.InvocationSucceeded(**told, result=3))
    ended.when(EndInvocation(invocation_id=call, error=error)).then(invocations.InvocationFailed(**told, error=error))
    ended.after(EndInvocation(invocation_id=call)).when(EndInvocation(invocation_id=call)).then()
    ended.when(CancelInvocation(invocation_id=call, reason="r")).then(invocations.InvocationCancelled(reason="r", chain_id=chain))
    plain = given(invocations.DECIDER, invocations.InvocationRequested(**fields))
    plain.when(EndInvocation(invocation_id=call)).refused(InvalidState, "^a worker carries out the invocation, no chain does$")
    assert of_chain.stored_version == 2
    assert invocations.InvocationRequested(**fields).stored_version == 1
    assert chains.DECIDER.slice == "chains"
