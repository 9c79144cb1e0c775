"""What a call uses: what its workers say, or else the most that its tool declares."""

from typing import Any

from domain.amounts import NOTHING, ONE_CALL, Amounts, MaxCost, Spender
from domain.failures import Failure
from domain.invocations.events import InvocationRequested
from domain.invocations.state import Invocation


def is_covered(invocation: Invocation, requested: InvocationRequested, cost: MaxCost | None, used: Amounts | None) -> bool:
    """Whether what was set aside for a call is enough for another attempt. `used`: what the last one has used."""
    if requested.reserved is None or cost is None:
        return True
    return requested.reserved.covers(invocation.used + (used or NOTHING) + Amounts(money=cost.money, tokens=cost.tokens))


def told(
    invocation: Invocation,
    requested: InvocationRequested,
    reported: Amounts | None,
    error: Failure | None = None,
    *,
    began: bool = True,
) -> dict[str, Any]:
    """The fields of an outcome that say what the call has used. An attempt whose worker says nothing counts as the most that it may
    cost, unless the service refused it for its rate. `began`: False where no tool was called for this outcome."""
    if requested.spender is None and requested.max_cost is None and reported is None and not invocation.used:
        return {}
    used = reported
    if used is None:
        counts = (
            began
            and invocation.status != "held"
            and requested.max_cost is not None
            and (error is None or error.kind != "rate_limited")
        )
        used = _most(requested) if counts else NOTHING
    used = invocation.used + used
    if invocation.vanished:
        used = used.at_least(_set_aside(requested))
    who = requested.spender
    tool = {"tool": requested.tool}
    spender = Spender(run_id=requested.run_id, **tool) if who is None else who.model_copy(update=tool)
    return {"usage": used, "spender": spender}


def cost_of_cancelled(invocation: Invocation, requested: InvocationRequested, tries: int, effect: str | None) -> Amounts | None:
    """What a cancelled call costs its budgets: nothing, if none of its `tries` can have run. Else what their workers said, or what
    was set aside where nobody has said anything. None: no budget counts it."""
    if requested.reserved is None:
        return None
    if tries <= 0:
        return NOTHING
    used = invocation.used
    if not used or invocation.vanished or effect is not None:
        used = used.at_least(_set_aside(requested))
    return used + ONE_CALL


def _most(requested: InvocationRequested) -> Amounts:
    most = requested.max_cost
    return NOTHING if most is None else Amounts(money=most.money, tokens=most.tokens)


def _set_aside(requested: InvocationRequested) -> Amounts:
    """The most that all attempts cost together, whichever tool they call. So much counts where the worker of one vanished: the tool
    may have run, and the repeat may have cost the same once more."""
    most = _most(requested)
    if requested.reserved is None:
        return most
    return most.at_least(Amounts(money=requested.reserved.money, tokens=requested.reserved.tokens))
