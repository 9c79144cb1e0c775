"""People who approve calls, played by a test: of tools whose policy has `approval`."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tidelog.errors import PermanentError
from tidelog.failures import ErrorReport
from tidelog.journal import Wait
from tidelog.policies import Policy
from tidelog.tools import Tool
from tidelog.values import to_json


@dataclass(frozen=True, slots=True)
class HeldCall:
    """What waits for an approval: a call, or a question of the agent (`ctx.approval`).

    key: that of `ctx.tool`, or of the question. tool: of a question its name. arguments: of a question its details. when: the
    expression of the policy, or True. title: the question; None for a call.
    """

    tool: str
    key: str
    arguments: dict[str, Any]
    when: bool | str
    title: str | None = None


Answer = bool | str | Mapping[str, Any]
Approve = Callable[[HeldCall], Answer | Awaitable[Answer]]
"""The people who are asked: True approves, a mapping approves with these arguments, False or a reason denies.

The kit evaluates no expressions. So it asks about each call of a tool whose `approval` is one, and the test says what it would.
"""


class HeldCallError(Exception):
    """A call waits for an approval, and the test has nobody who could give it. On a server the run would wait for a person."""

    def __init__(self, call: HeldCall) -> None:
        what = f"the call {call.key!r} of {call.tool} needs an approval"
        if call.title is not None:
            what = f"the question {call.key!r} ({call.title!r}) needs an answer"
        super().__init__(
            f"{what}. On a server it waits for a person now. Play the person: run_agent(..., approve=lambda call: True)"
        )
        self.call = call


async def approved(
    approve: Approve | None, tool: Tool[..., Any], key: str, arguments: dict[str, JsonValue]
) -> "dict[str, JsonValue] | ErrorReport":
    """The arguments with which the call begins, or why it is denied. Raises HeldCallError."""
    when = tool.policy.approval if isinstance(tool.policy, Policy) else None
    if when is None or (approve is None and when is not True):
        return arguments
    call = HeldCall(tool.name, key, dict(arguments), when)
    if approve is None:
        raise HeldCallError(call)
    answer = approve(call)
    said = await answer if inspect.isawaitable(answer) else answer
    if isinstance(said, Mapping):
        given = to_json(dict(said), "the approved arguments")
        assert isinstance(given, dict)
        return given
    if said is True:
        return arguments
    why = f": {said}" if isinstance(said, str) else ""
    return ErrorReport(type="ApprovalDenied", message=f"the test denied the call{why}", kind="permanent")


async def answered(approve: Approve | None, key: str, wait: Wait) -> dict[str, JsonValue]:
    """The answer to a question of the agent, as a journal has it. Raises HeldCallError."""
    question = dict(wait.question or {})
    details = question.get("details")
    asked = HeldCall(wait.name or "", key, details if isinstance(details, dict) else {}, True, str(question.get("title")))
    if approve is None:
        raise HeldCallError(asked)
    answer = approve(asked)
    said = await answer if inspect.isawaitable(answer) else answer
    if isinstance(said, Mapping):
        raise PermanentError("a question has no arguments that could be changed: answer True, False or a reason")
    return {"approved": said is True, "by": ["test"], "reason": said if isinstance(said, str) else None, "expired": False}
