"""Calls of tools that belong to no run: the same ledger, an answer for each, and nobody who waits but who asked."""

from typing import Any
from uuid import UUID

import pytest

from application.calls import WantedCall
from application.engine.commands.request import CommandRequest
from application.tool_calls import Called
from domain import invocations, tools
from domain.errors import InvalidCommand, InvalidState, RepeatedDifferently, Unavailable
from domain.failures import Retry
from domain.invocations import CancelInvocation, ClaimInvocation, InvocationRequested, RequestInvocation
from domain.kernel import Metadata, derive_id
from domain.tool_policy import ToolPolicy
from domain.tools import RegisterTool, UnknownTool, tool_id_of
from tests.kit import given
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.waiting import TENANT, new_id, request_of

NUMBERS = {
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    "idempotent": False, "timeout_s": 7.0, "max_attempts": 2, "reconcile_timeout_s": 3.0, "version": "5",
}  # fmt: skip


def wanted(request: CommandRequest | None = None, id: UUID | None = None, **fields: Any) -> WantedCall:
    id = id or new_id()
    return WantedCall(request or request_of(TENANT, id), id, **{"key": "k", "arguments": {"a": 1}, **fields})


async def worker_of(engine: Engine, **offer: Any) -> PlayedWorker:
    worker = engine.worker()
    await worker.register(tools_={"numbers": {**NUMBERS, **offer}})
    return worker


async def test_a_call_is_its_own_root_and_says_who_asked() -> None:
    async with Engine().running() as engine:
        worker = await worker_of(engine)
        request = request_of(TENANT)._replace(on_behalf_of="user:ada")
        asked = wanted(request, priority="high", timeout_s=2.5)
        called = await engine.workers.client_calls.call("numbers", asked)
        id = asked.invocation_id
        assert (called.invocation_id, called.outcome.versions[id], called.warning) == (id, 1, None)
        state = (await engine.invocation(id)).requested
        assert state == InvocationRequested(
            run_id=id, agent_run_id=id, key="k", tool="numbers", arguments={"a": 1}, idempotent=False, timeout_s=2.5,
            retry=Retry(max_attempts=2), priority="high", on_behalf_of="user:ada", reconcile_timeout_s=3.0, tool_version="5",
            asked_by="client",
        )  # fmt: skip
        claim = await worker.next("numbers", "tool")
        await claim.complete(3)
        await engine.settled()
        done = await engine.invocation(id)
        assert (done.status, done.result) == ("succeeded", 3)
        assert engine.topics(id) == ["invocation.requested", "invocation.attempt_started", "invocation.succeeded"]
        of_call = [event for event in engine.log.events if event.root_id == id]
        assert {event.schema_version for event in of_call if event.topic == "invocation.requested"} == {2}
        assert {Metadata.model_validate_json(event.metadata).on_behalf_of for event in of_call} == {"user:ada"}


async def test_without_a_time_out_that_of_the_tool_counts_and_a_longer_one_is_refused() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        first = wanted()
        await engine.workers.client_calls.call("numbers", first)
        state = (await engine.invocation(first.invocation_id)).requested
        assert state is not None and state.timeout_s == 7.0
        with pytest.raises(InvalidCommand, match=r"^an attempt of the tool 'numbers' may take 7 s") as told:
            await engine.workers.client_calls.call("numbers", wanted(timeout_s=7.5))
        assert told.value.message == "an attempt of the tool 'numbers' may take 7 seconds at most, as it declares"
        assert told.value.pointer == "/timeout_s"


async def test_each_call_of_a_batch_has_its_own_answer_and_they_are_one_append() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        calls = [wanted(key=f"k{number}", arguments={"a": number} if number != 2 else {"a": "two"}) for number in range(5)]
        answers = await engine.workers.client_calls.call_each(TENANT, "numbers", calls)
        refused = answers.pop(2)
        assert isinstance(refused, InvalidCommand) and refused.pointer == "/arguments/a"
        del calls[2]
        ids = [answer.invocation_id for answer in answers if isinstance(answer, Called)]
        assert ids == [call.invocation_id for call in calls]
        assert len({engine.log.streams[id][0].recorded_at for id in ids}) == 1
        assert [(await engine.invocation(id)).requested.key for id in ids] == ["k0", "k1", "k3", "k4"]  # type: ignore[union-attr]


async def test_a_repeat_is_the_first_call_and_another_content_is_refused() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        content = new_id()
        request = request_of(TENANT, new_id())._replace(repeatable=True, content=content)
        first = await engine.workers.client_calls.call("numbers", wanted(request))
        again = await engine.workers.client_calls.call("numbers", wanted(request))
        assert again.invocation_id == first.invocation_id and again.outcome.duplicate and not first.outcome.duplicate
        other = request._replace(content=new_id())
        [twice, differs] = await engine.workers.client_calls.call_each(TENANT, "numbers", [wanted(request), wanted(other)])
        assert isinstance(twice, Called) and twice.invocation_id == first.invocation_id
        assert isinstance(differs, RepeatedDifferently)
        assert sum(event.topic == "invocation.requested" for event in engine.log.events) == 1


async def test_a_tool_that_nobody_knows_is_not_called_and_a_near_name_is_suggested() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        with pytest.raises(UnknownTool, match=r"^no tool 'number' is registered; did you mean 'numbers'\?$") as told:
            await engine.workers.client_calls.call("number", wanted())
        assert told.value.pointer is None


async def test_a_deprecated_tool_is_called_with_a_warning() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        await engine.give(tools.DeprecateTool(tool_id=tool_id_of(TENANT, "numbers"), name="numbers", replaced_by="sums"))
        called = await engine.workers.client_calls.call("numbers", wanted())
        assert called.warning == "the tool 'numbers' is deprecated; use 'sums'"


async def test_a_change_of_the_tool_that_this_process_has_not_heard_of_is_looked_at() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        await engine.workers.client_calls.call("numbers", wanted())  # the process knows the tool
        changed = RegisterTool(tool_id=tool_id_of(TENANT, "numbers"), name="numbers", **{**NUMBERS, "version": "6"})
        await engine.another().give(changed)
        after = wanted()
        await engine.workers.client_calls.call("numbers", after)
        state = (await engine.invocation(after.invocation_id)).requested
        assert state is not None and state.tool_version == "6"


async def test_a_chain_of_tools_is_called_as_any_tool() -> None:
    plan = {"steps": [{"name": "one", "tool": "numbers", "arguments": {"a": "arguments.n"}}], "result": "steps.one + 1"}
    keeps = {"idempotent": True, "policy": ToolPolicy(cache_s=60.0)}
    async with Engine().running() as engine:
        worker = await worker_of(engine)
        chain = {"kind": "chain", "chain": plan, "parameters": {"type": "object"}}
        await engine.give(RegisterTool(tool_id=tool_id_of(TENANT, "sum"), name="sum", **chain, **keeps))
        called = await engine.workers.client_calls.call("sum", wanted(arguments={"n": 5}))
        step = await worker.next("numbers", "tool")
        state = (await engine.invocation(step.work_id)).requested
        assert state is not None and (state.arguments, state.run_id, state.asked_by) == ({"a": 5}, called.invocation_id, "chain")
        await step.complete(6)
        await engine.settled()
        assert (await engine.invocation(called.invocation_id)).result == 7
        again = await engine.workers.client_calls.call("sum", wanted(arguments={"n": 5}))
        assert again.cached and engine.topics(again.invocation_id) == ["invocation.requested", "invocation.succeeded"]
        missing = {"steps": [{"name": "one", "tool": "nothing"}]}
        lost = RegisterTool(tool_id=tool_id_of(TENANT, "lost"), name="lost", **{**chain, "chain": missing})
        await engine.give(lost)
        with pytest.raises(InvalidCommand, match=r"no tool 'nothing' is registered"):
            await engine.workers.client_calls.call("lost", wanted(arguments={}))


async def test_nothing_is_called_while_the_log_is_away() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        await engine.workers.client_calls.call("numbers", wanted())
        engine.log.away = True
        [answer] = await engine.workers.client_calls.call_each(TENANT, "numbers", [wanted()])
        engine.log.away = False
        assert isinstance(answer, Unavailable)


async def test_the_call_of_another_tenant_is_not_there() -> None:
    async with Engine().running() as engine:
        await worker_of(engine)
        other = new_id()
        with pytest.raises(UnknownTool, match=r"^no tool 'numbers' is registered$"):
            await engine.workers.client_calls.call_each(other, "numbers", [wanted(request_of(other))])


# --- the rules ------------------------------------------------------------------------------------------------------------

ID = UUID("01900000-0000-7000-8000-0000000000ee")


def asked_by(who: str) -> Any:
    return given(invocations.DECIDER).after(
        RequestInvocation(
            invocation_id=ID, run_id=ID, agent_run_id=derive_id(ID, "asked"), key="k", tool="mail.send", arguments={},
            idempotent=False, timeout_s=5, retry=Retry(), asked_by=who,  # type: ignore[arg-type]
        )
    )  # fmt: skip


CANCEL = CancelInvocation(invocation_id=ID, reason="why", asked_by="client")


def test_a_client_cancels_what_a_client_asked_for() -> None:
    [cancelled] = asked_by("client").when(CANCEL).events()
    assert (cancelled.reason, cancelled.agent_run_id, cancelled.key, cancelled.asked_by) == (
        "why", derive_id(ID, "asked"), "k", "client",
    )  # fmt: skip
    begun = asked_by("client").after(ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=1))
    [requested] = begun.when(CANCEL).events()
    assert (requested.TOPIC, requested.attempt) == ("invocation.cancel_requested", 1)


@pytest.mark.parametrize(
    ("who", "told"),
    [
        ("agent_run", "an agent waits for this call: cancel its run instead"),
        ("chain", "a chain of tools waits for this call: cancel its run instead"),
        ("compensation", "a compensation waits for this call: cancel its run instead"),
    ],
)
def test_a_client_cancels_no_call_for_which_somebody_else_waits(who: str, told: str) -> None:
    asked_by(who).when(CANCEL).refused(InvalidState, f"^{told}$")
    [cancelled] = asked_by(who).when(CancelInvocation(invocation_id=ID)).events()
    assert cancelled.TOPIC == "invocation.cancelled"


def test_who_asked_is_named_for_everybody() -> None:
    other = CancelInvocation(invocation_id=ID, asked_by="chain")
    asked_by("client").when(other).refused(InvalidState, "^a client waits for this call: cancel its run instead$")
