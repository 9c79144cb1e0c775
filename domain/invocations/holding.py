"""Calls that must not begin yet: a held call waits for a decision, and only that decision lets it begin or ends it.

The hold is in the same decision as what would make the call work for a worker. So there is no moment at which a call could begin
without the approval that it needs. A call that waits for a budget waits for that first, and then for its approval.
"""

from typing import Literal
from uuid import UUID

from domain.approval_rules import Demand, approval_id_of, arguments_hash
from domain.errors import InvalidState
from domain.invocations.commands import DenyInvocation, ReleaseInvocation
from domain.invocations.events import InvocationFellBack, InvocationHeld, InvocationReleased, InvocationRequested
from domain.invocations.reconciling import failed
from domain.invocations.state import TERMINAL, Invocation, evolve
from domain.kernel import Event

NO_DEMAND = Demand()


def with_hold(invocation: Invocation, invocation_id: UUID, events: list[Event]) -> list[Event]:
    """The events, and the hold of a call that needs an approval before its tool is called."""
    if not events:
        return events
    match events[-1]:
        case InvocationRequested(unpaid=UUID() as question) as unpaid:
            return [*events, _held(unpaid, question, "budget")]
        case InvocationRequested(approval=Demand() as demand):
            pass
        case InvocationFellBack(held=True, number=number):
            asked = events[0] if isinstance(events[0], InvocationRequested) else invocation.requested
            assert asked is not None
            found = asked.fallbacks[number - 1].approval
            assert found is not None
            demand = found
        case _:
            return events
    for event in events:
        invocation = evolve(invocation, event)  # type: ignore[arg-type]  # they are events of this slice
    requested = invocation.requested
    assert requested is not None
    approval_id = approval_id_of(invocation_id, invocation.fallback)
    return [*events, _held(requested, approval_id, "approval", demand)]


def _held(
    requested: InvocationRequested, approval_id: UUID, why: Literal["approval", "budget"], demand: Demand = NO_DEMAND
) -> InvocationHeld:
    return InvocationHeld(
        run_id=requested.run_id,
        why=why,
        approval_id=approval_id,
        tool=requested.tool,
        tool_version=requested.tool_version,
        arguments_hash=arguments_hash(requested.arguments),
        demand=demand,
        agent_run_id=requested.agent_run_id,
        key=requested.key,
        asked_by=requested.asked_by,
        on_behalf_of=requested.on_behalf_of,
    )


def settle(invocation: Invocation, requested: InvocationRequested, command: ReleaseInvocation | DenyInvocation) -> list[Event]:
    """Nothing, for a call that has ended, or that this decision has let begin before."""
    if invocation.status in TERMINAL:
        return []
    if invocation.approval_id != command.approval_id:
        raise InvalidState(f"the invocation does not wait for the approval {command.approval_id}")
    if invocation.status != "held":
        return []
    if isinstance(command, DenyInvocation):
        return [failed(invocation, requested, command.error)]
    if invocation.is_unpaid and requested.approval is not None:  # it is paid now, and people have not agreed to it yet
        return [_held(requested, approval_id_of(command.invocation_id, invocation.fallback), "approval", requested.approval)]
    return [
        InvocationReleased(
            run_id=requested.run_id,
            approval_id=command.approval_id,
            tool=requested.tool,
            dispatch=invocation.dispatch + 1,
            arguments=command.arguments,
            chain_id=requested.chain_id,
            priority=requested.priority,
        )
    ]
