"""Declarations as a whole, and what calls make of them: in every process at once, and up to the result."""

from typing import Any
from uuid import UUID

import pytest

from application.tool_schemas import ToolSchemas
from application.tools import Declarations, faults_of_given
from application.workers import calls
from domain import invocations
from domain.errors import InvalidCommand, Unavailable
from domain.tools import DeprecateTool, RegisterTool, RemoveTool, UnknownTool, tool_id_of
from tests.kit.engine import Engine, PlayedWorker, request_of
from tests.kit.waiting import TENANT

ID = tool_id_of(TENANT, "add")
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def declared(**changed: Any) -> RegisterTool:
    return RegisterTool(**{"tool_id": ID, "name": "add", "parameters": CITY, **changed})


def places(**changed: Any) -> list[str]:
    return [place for place, _ in Declarations(ToolSchemas()).faults_of(declared(**changed))]


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, []),
        ({"result": {"type": 7}}, ["/result/type"]),
        ({"parameters": {"$ref": "#/x"}, "result": {"$ref": "#/y"}}, ["/parameters/$ref", "/result/$ref"]),
        ({"examples": ({"arguments": {"city": "x"}}, {"arguments": {"city": 1}}, {"arguments": {}})},
         ["/examples/1/arguments/city", "/examples/2/arguments"]),
        ({"result": {"type": "string"}, "examples": ({"arguments": {"city": "x"}}, {"arguments": {"city": "x"}, "result": None})},
         ["/examples/1/result"]),
        ({"result": {"type": "null"}, "examples": ({"arguments": {"city": "x"}, "result": None},)}, []),
        ({"result": {"type": 7}, "examples": ({"arguments": {"city": "x"}, "result": None}, {"arguments": 7})},
         ["/examples/1/arguments", "/result/type"]),
        ({"parameters": {"type": 7}, "examples": ({"arguments": {}},)}, ["/parameters/type"]),
        ({"needs_tools": ("add",), "result": {"type": 7}}, ["/needs_tools", "/result/type"]),
    ],
)  # fmt: skip
def test_all_faults_are_found(changed: dict[str, Any], wanted: list[str]) -> None:
    assert [place.replace("/type", "").replace("/$ref", "") for place in places(**changed)] == [
        place.replace("/type", "").replace("/$ref", "") for place in wanted
    ]


def test_examples_cost_no_more_together_than_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    example = {"arguments": {"city": "x", "more": list(range(1000))}}
    assert places(examples=(example,)) == places(examples=(example,) * 20) == []
    monkeypatch.setattr("application.tool_schemas.MAX_WORK", 10_000)
    assert places(examples=(example,)) == []
    assert places(examples=(example,) * 20) == [f"/examples/{number}/arguments" for number in range(20)]


def test_a_refusal_tells_the_first_faults_and_has_all() -> None:
    with pytest.raises(InvalidCommand) as refused:
        Declarations(ToolSchemas()).check(declared(examples=({"arguments": {}},) * 15))
    assert len(refused.value.faults) == 15 and refused.value.message.endswith("; and more")
    assert refused.value.message.count("/examples/") == 10 and refused.value.pointer == "/examples/0/arguments"


def test_a_declaration_as_somebody_has_written_it() -> None:
    def found(**given: Any) -> list[str]:
        return [place for place, _ in faults_of_given(Declarations(ToolSchemas()), RegisterForm, TENANT, "add", given)]

    assert found(parameters=CITY, kind="python") == []
    assert found(parameters=CITY, colour="red", timeout_s=0, needs_tools=["add"]) == ["/timeout_s", "/colour", "/needs_tools"]
    assert found(colour="red") == ["/parameters", "/colour"]


class RegisterForm(RegisterTool):
    tool_id: UUID = ID
    name: str = "add"


async def started(engine: Engine, **tool: Any) -> Any:
    worker = PlayedWorker(engine)
    await worker.register("alpha", tools_={"add": tool})
    await engine.start("alpha")
    await engine.settled()
    return worker, await worker.next("alpha")


async def test_a_call_hears_of_a_change_in_another_process(engine: Engine) -> None:
    _, alpha = await started(engine, idempotent=False)
    other = engine.another()
    await alpha.call("one", "add")  # this process knows the tool from now on
    await other.commands.execute(request_of(TENANT), DeprecateTool(tool_id=ID, name="add", note="slow"))
    command = calls.StartCall(agent_run_id=alpha.work_id, attempt=1, key="two", tool="add")
    called = await engine.workers.calls.call(alpha.worker.caller, command, {})
    assert called.warning == "the tool 'add' is deprecated (slow)"
    await other.commands.execute(request_of(TENANT), declared(parameters={"required": ["x"]}, version="2"))
    with pytest.raises(InvalidCommand, match='"x" is a required property'):
        await alpha.call("three", "add")
    await other.commands.execute(request_of(TENANT), RemoveTool(tool_id=ID, name="add"))
    with pytest.raises(UnknownTool):
        await alpha.call("four", "add", x=1)


async def test_a_call_of_a_tool_that_never_stands_still_is_given_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _, alpha = await started(engine)
    monkeypatch.setattr(calls, "MOST_LOOKS", 0)
    with pytest.raises(Unavailable, match="is being changed"):
        await alpha.call("one", "add")


async def result_of(engine: Engine, alpha: Any, worker: PlayedWorker, key: str, result: Any) -> Any:
    call = await alpha.call(key, "add")
    claimed = await worker.next("add", "tool")
    assert claimed.work_id == call
    await claimed.complete(result)
    return (await engine.commands.load(invocations.DECIDER, TENANT, call)).state


async def test_a_result_is_checked_by_the_schema_of_the_version_that_was_called(engine: Engine) -> None:
    worker, alpha = await started(engine, result={"type": "integer"})
    good = await result_of(engine, alpha, worker, "good", 7)
    assert (good.status, good.result, good.requested.tool_version) == ("succeeded", 7, "1")
    bad = await result_of(engine, alpha, worker, "bad", "seven")
    assert (bad.status, bad.error.type, bad.error.kind) == ("failed", "InvalidResultError", "permanent")
    assert bad.error.message == 'the result of tool \'add\' does not fit its schema: /: "seven" is not of type "integer"'
    call = await alpha.call("moved", "add")
    await worker.register(tools_={"add": {"version": "2", "result": {"type": "null"}}})
    claimed = await worker.next("add", "tool")
    await claimed.complete("seven")
    state = (await engine.commands.load(invocations.DECIDER, TENANT, call)).state
    assert (state.status, state.error.message) == ("failed", bad.error.message)  # it is a result of version 1
