"""A result is checked by the schema of the version that was called, whatever became of the tool since, and whoever says it."""

from typing import Any
from uuid import UUID

import pytest

from application.calls import WantedCall
from application.invocations import resolve_invocation
from domain import tools
from domain.errors import InvalidCommand
from domain.invocations import ClaimInvocation, ResolveInvocation
from domain.kernel import Json
from domain.tools import RegisterTool, RemoveTool, tool_id_of
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.waiting import TENANT, new_id, request_of

NUMBER: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOL = tool_id_of(TENANT, "count")


def version(name: str, result: Json, **fields: Any) -> RegisterTool:
    return RegisterTool(tool_id=TOOL, name="count", version=name, parameters={"type": "object"}, result=result, **fields)


async def called(engine: Engine, worker: PlayedWorker) -> Claim:
    await engine.workers.client_calls.call("count", WantedCall(request_of(TENANT), new_id(), "k", {}))
    return await worker.next("count", "tool")


async def first(engine: Engine, **fields: Any) -> PlayedWorker:
    worker = engine.worker()
    await worker.register(tools_={"count": {"version": "1", "result": NUMBER, "idempotent": False, **fields}})
    return worker


async def outcome_of(engine: Engine, claim: Claim, result: Json) -> tuple[str, str | None]:
    await claim.complete(result)
    state = await engine.invocation(claim.work_id)
    return state.status, None if state.error is None else f"{state.error.type}: {state.error.message}"


WRONG = """InvalidResultError: the result of tool 'count' does not fit its schema: /n: "x" is not of type "integer\""""


@pytest.mark.parametrize("then", [version("2", {"type": "string"}), version("2", None), RemoveTool(tool_id=TOOL, name="count")])
async def test_the_schema_of_the_version_that_was_called_counts(then: Any) -> None:
    async with Engine().running() as engine:
        worker = await first(engine)
        fits, fails = await called(engine, worker), await called(engine, worker)
        await engine.give(then)
        assert await outcome_of(engine, fits, {"n": 1}) == ("succeeded", None)
        assert await outcome_of(engine, fails, {"n": "x"}) == ("failed", WRONG)


async def test_a_version_without_a_schema_takes_any_result_whatever_comes_later() -> None:
    async with Engine().running() as engine:
        worker = await first(engine, result=None)
        claim = await called(engine, worker)
        await engine.give(version("2", NUMBER))
        assert await outcome_of(engine, claim, "anything") == ("succeeded", None)


async def test_a_process_that_has_not_heard_of_the_version_reads_of_it() -> None:
    async with Engine().running() as engine:
        worker = await first(engine)
        await called(engine, worker)  # the process knows version 1
        other = engine.another()
        await other.give(version("2", {"type": "string"}))
        await other.workers.client_calls.call("count", WantedCall(request_of(TENANT), id := new_id(), "k", {}))
        state = await engine.invocation(id)
        assert state.requested is not None and state.requested.tool_version == "2"
        faults = await engine.workers.results.faults_of(TENANT, state.requested, 7)
        assert faults == [("", '7 is not of type "string"')]


async def test_an_earlier_version_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Engine().running() as engine:
        worker = await first(engine)
        claims = [await called(engine, worker) for _ in range(2)]
        await engine.give(version("2", None))
        reads, history = list[UUID](), engine.commands.history

        async def counted(tenant_id: UUID, stream_id: UUID) -> Any:
            reads.append(stream_id)
            return await history(tenant_id, stream_id)

        monkeypatch.setattr(engine.commands, "history", counted)
        for claim in claims:
            assert await outcome_of(engine, claim, {"n": 1}) == ("succeeded", None)
        assert reads.count(TOOL) == 1


async def test_nor_does_a_person_say_what_the_tool_could_not_have_answered() -> None:
    async with Engine().running() as engine:
        worker = await first(engine)
        claim = await called(engine, worker)
        await engine.give(tools.RegisterTool(tool_id=TOOL, name="count", version="2", parameters={"type": "object"}))
        await engine.give(ClaimInvocation(invocation_id=claim.work_id, worker_id="w2", dispatch=1))  # the worker has vanished

        async def said(**outcome: Any) -> Any:
            command = ResolveInvocation(invocation_id=claim.work_id, by="key:ops", reason="seen", **outcome)
            return await resolve_invocation(engine.commands, engine.workers.results, worker.caller, command)

        with pytest.raises(InvalidCommand) as refused:
            await said(result={"n": "x"})
        told = """the result does not fit what tool 'count' declares: /result/n: "x" is not of type "integer\""""
        assert refused.value.message == told
        assert (refused.value.pointer, refused.value.faults) == ("/result/n", (("/result/n", '"x" is not of type "integer"'),))
        await said(result={"n": 7})
        assert (await engine.invocation(claim.work_id)).result == {"n": 7}
