"""`@tool(compensate=…)`: the tool that takes the effect back stands beside the tool, and is offered with it."""

from pathlib import Path
from typing import Any

import pytest

from tidelog import BaseTool, Compensation, Policy, ToolContext, tool
from tidelog.discovery import discover
from tidelog.errors import DefinitionError
from tidelog.tool_classes import tool_of
from tidelog.worker.runtime import Worker

SERVER: dict[str, Any] = {"url": "http://127.0.0.1:1", "api_key": "k"}


@tool("refund")
def refund(result: dict[str, Any]) -> None: ...


def release(ctx: ToolContext, arguments: dict[str, Any], result: Any, invocation_id: str) -> None:
    """Put it back."""


class Cancel(BaseTool):
    def execute(self, invocation_id: str) -> None: ...


def made(**given: Any) -> Any:
    @tool("pay", **given)
    def pay(amount: int) -> dict[str, int]:
        return {"amount": amount}

    return pay


def test_a_function_becomes_a_tool_that_may_be_called_again() -> None:
    pay = made(compensate=release, timeout_s=7)
    assert pay.describe().policy == {"compensation": {"tool": "pay.undo"}}
    undo = pay.undo.describe()
    assert (undo.name, undo.description, undo.idempotent, undo.max_attempts, undo.timeout_s) == (
        "pay.undo",
        "Put it back.",
        True,
        5,
        7,
    )
    assert set(undo.parameters["properties"]) == {"arguments", "result", "invocation_id"}
    assert pay.undo is pay.undo


def test_a_tool_is_named() -> None:
    assert made(compensate=refund).describe().policy == {"compensation": {"tool": "refund"}}
    assert made(compensate=refund).undo is refund
    assert made(compensate=Cancel).undo is tool_of(Cancel)
    assert made().undo is None and made().describe().policy is None


def test_a_policy_may_say_more_of_it() -> None:
    said = Policy(max_parallel=2, compensation=Compensation(tool="refund", on_failure="continue", arguments={"id": "result.id"}))
    policy = made(compensate=refund, policy=said).describe().policy
    arguments = {"tool": "refund", "on_failure": "continue", "arguments": {"id": "result.id"}}
    assert policy == {"max_parallel": 2, "compensation": arguments}
    assert made(compensate=refund, policy=Policy(max_parallel=2)).describe().policy["max_parallel"] == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"compensate": "refund"}, "compensate must be a tool or a function"),
        ({"compensate": dict}, "compensate must be a tool or a function"),
        (
            {"compensate": refund, "policy": Policy(compensation=Compensation(tool="other"))},
            "is refund, and its policy names",
        ),
        ({"compensate": refund, "policy": {"max_parallel": 1}}, "policy must be a tidelog.Policy"),
    ],
)
def test_what_is_wrong_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        made(**given).describe()


def test_a_class_says_it_too() -> None:
    class Pay(BaseTool):
        compensate = refund

        def execute(self, amount: int) -> None: ...

    assert tool_of(Pay).describe().policy == {"compensation": {"tool": "refund"}}


def test_a_worker_offers_it_with_its_tool() -> None:
    assert set(offered(made(compensate=release))) == {"pay", "pay.undo"}
    assert set(offered(made(compensate=refund))) == {"pay", "refund"}
    assert set(offered(made(compensate=refund), refund)) == {"pay", "refund"}
    twice = Worker(tools=[made(compensate=refund)], **SERVER)
    twice.add([], [tool("also", compensate=refund)(lambda: None)])
    assert set(twice._tools) == {"pay", "refund", "also"}


def offered(*tools: Any) -> dict[str, Any]:
    return Worker(tools=tools, **SERVER)._tools


def test_a_folder_offers_it_too(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from tidelog import tool\n\n\ndef back(arguments: dict) -> None: ...\n\n\n"
        "@tool('pay', compensate=back)\ndef pay(amount: int) -> None: ...\n"
    )
    found = discover([tmp_path])
    assert not found.problems and list(found.tools) == ["pay.undo", "pay"]
