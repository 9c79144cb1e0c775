"""People who approve calls, played by a test: of tools whose policy has `approval`."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from tidelog.failures import ErrorReport
from tidelog.policies import Policy
from tidelog.tools import Tool
from tidelog.values import to_json


@dataclass(frozen=True, slots=True)
class HeldCall:
    """A call that waits for an approval. `key`: that of `ctx.tool`. `when`: the expression of the policy, or True."""

    tool: str
    key: str
    arguments: dict[str, Any]
    when: bool | str


Answer = bool | str | Mapping[str, Any]
Approve = Callable[[HeldCall], Answer | Awaitable[Answer]]
"""The people who are asked: True approves, a mapping approves with these arguments, False or a reason denies.

The kit evaluates no expressions. So it asks about each call of a tool whose `approval` is one, and the test says what it would.
"""


class HeldCallError(Exception):
    """A call waits for an approval, and the test has nobody who could give it. On a server the run would wait for a person."""

    def __init__(self, call: HeldCall) -> None:
        super().__init__(
            f"the call {call.key!r} of {call.tool} needs an approval. On a server it waits for a person now. "
            "Play the person: run_agent(..., approve=lambda call: True)"
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
