"""Taking the effect of a call back: the arguments of the tool that does so, from the arguments and the result of the call."""

import json
from collections.abc import Mapping

from domain.approval_rules import demand_by
from domain.errors import InvalidState, NotFound
from domain.failures import Failure
from domain.invocations.commands import CompensateInvocation
from domain.invocations.declared import CallCompensation
from domain.invocations.events import InvocationCompensationRefused, InvocationCompensationRequested
from domain.invocations.state import TERMINAL, Invocation
from domain.kernel import MAX_EVENT_BYTES, Event, Functions, Json

MAX_ARGUMENTS = MAX_EVENT_BYTES - 16 * 1024
"""Bytes of the arguments as JSON. The event that holds them must not be over the limit."""


def compensate(invocation: Invocation, command: CompensateInvocation, functions: Functions) -> list[Event]:
    requested = invocation.requested
    if requested is None:
        raise NotFound(f"there is no invocation {command.invocation_id}")
    declared = requested.compensation
    if declared is None or not declared.tool:
        raise InvalidState(f"the tool '{requested.tool}' declared no compensation at the call")
    if invocation.compensation_id == command.compensation_id:
        return []
    if invocation.status not in TERMINAL:
        raise InvalidState(f"the invocation is {invocation.status}; only the effect of one that has ended is taken back")
    values = {"arguments": requested.arguments, "result": invocation.result, "invocation_id": str(command.invocation_id)}
    arguments = _arguments(declared, values, functions)
    if isinstance(arguments, Failure):
        return [InvocationCompensationRefused(run_id=requested.run_id, compensation_id=command.compensation_id, error=arguments)]
    return [
        InvocationCompensationRequested(
            run_id=requested.run_id,
            compensation_id=command.compensation_id,
            compensation=declared,
            arguments=arguments,
            priority=requested.priority,
            on_behalf_of=requested.on_behalf_of,
            approval=demand_by(declared.approval, arguments, functions),
        )
    ]


def _arguments(declared: CallCompensation, values: Mapping[str, Json], functions: Functions) -> dict[str, Json] | Failure:
    """The arguments, or why there are none."""
    arguments: dict[str, Json] = {}
    if declared.arguments is None:
        arguments = {name: values[name] for name in declared.takes}
    for name, expression in (declared.arguments or {}).items():
        found = functions.evaluate(expression, values)
        if found.error is not None:
            why = f"the argument '{name}' of '{declared.tool}' cannot be made of the call: {found.error}"
            return Failure(type="ExpressionError", message=why)
        arguments[name] = found.value
    size = len(json.dumps(arguments, ensure_ascii=False).encode())
    if size > MAX_ARGUMENTS:
        why = f"the arguments of '{declared.tool}' would have {size:,} bytes, over the limit of {MAX_ARGUMENTS:,}"
        return Failure(type="ArgumentsTooLarge", message=f"{why}: choose what it needs with `compensation.arguments`")
    return arguments
