"""Breakers as people ask for them: what the log says, what the tool declares, and what was counted."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.ports.outcomes import OutcomeCounts
from application.tools import load_tool
from application.views.breakers import CountsView, ToolBreakerView, view_of
from domain.breakers import DECIDER, ToolBreaker, breaker_id_of
from domain.tools import tool_id_of


async def breaker_of(commands: CommandLoop, counts: OutcomeCounts, tenant_id: UUID, name: str) -> ToolBreakerView:
    """Raises NotFound for a tool that the tenant does not have, and Unavailable."""
    tool = await load_tool(commands, tenant_id, name)
    assert tool.current is not None
    breaker_id, policy = breaker_id_of(tool_id_of(tenant_id, name)), tool.current.rules.breaker
    breaker: ToolBreaker = (await commands.load(DECIDER, tenant_id, breaker_id)).state
    view = ToolBreakerView(**dict(view_of(name, breaker)))
    if policy is not None:
        view.policy = policy.model_dump(mode="json")
        counted = await counts.of(tenant_id, breaker_id, policy.window_s)
        if counted is not None and counted.changes == breaker.changes:
            view.counts = CountsView(calls=counted.calls, failures=counted.failures, in_a_row=counted.in_a_row)
    return view
