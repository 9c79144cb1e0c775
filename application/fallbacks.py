"""Fallback tools: what a call goes on with when its tool cannot do it, as declared at the moment of the call."""

from typing import NamedTuple
from uuid import UUID

from application.approvals.needs import Needs
from application.compensations import compensation_of
from application.engine.commands.loop import CommandLoop
from application.tool_schemas import ToolSchemas
from domain.amounts import MaxCost
from domain.errors import InvalidCommand, TidelogError, Unavailable
from domain.invocations import FallbackTool
from domain.kernel import Json
from domain.tools import DECIDER, ToolDefinition, ToolRegistered, UseTool, tool_id_of


class Fallbacks(NamedTuple):
    tools: tuple[FallbackTool, ...] = ()
    skipped: dict[str, str] = {}
    """Tool → why it is not among them."""
    uses: tuple[UseTool, ...] = ()
    """The append of the call holds only while the tools are as they were looked at."""


NONE = Fallbacks()


async def fallbacks_of(
    commands: CommandLoop,
    schemas: ToolSchemas,
    tenant_id: UUID,
    current: ToolRegistered,
    arguments: dict[str, Json],
    needs: Needs,
    *,
    fresh: bool,
) -> Fallbacks:
    """The fallbacks of a tool that a call with these arguments can go on with, in order. Raises Unavailable.

    A tool that is not there, or whose JSON Schema the arguments do not fit, is left out, and the call goes on without it.
    """
    names = current.rules.fallbacks
    if not names:
        return NONE
    if current.kind == "chain":
        return Fallbacks(skipped=dict.fromkeys(names, "a chain ends as its steps do"))
    found: list[FallbackTool] = []
    skipped: dict[str, str] = {}
    uses: list[UseTool] = []
    for name in names:
        tool_id = tool_id_of(tenant_id, name)
        for again in (fresh, True):
            tool: ToolDefinition = (await commands.load(DECIDER, tenant_id, tool_id, fresh=again)).state
            if tool.current is not None:
                break
        other = tool.current
        if other is None:
            skipped[name] = "there is no such tool"
            continue
        if other.kind == "chain":
            skipped[name] = "a chain takes the place of no other tool"
            continue
        uses.append(UseTool(tool_id=tool_id, name=name, changes=tool.changes))
        try:
            schemas.check_arguments(name, other.parameters, arguments)
        except InvalidCommand as error:
            skipped[name] = error.message[:500]
            continue
        try:
            undo = await compensation_of(commands, tenant_id, other, needs)
        except Unavailable:
            raise
        except TidelogError as error:
            skipped[name] = error.message[:500]
            continue
        cost = other.rules.max_cost
        found.append(
            FallbackTool(
                tool=name,
                tool_version=other.version,
                idempotent=other.idempotent,
                timeout_s=other.timeout_s,
                max_attempts=other.max_attempts,
                reconcile_timeout_s=other.reconcile_timeout_s,
                compensation=undo,
                approval=needs.demand(other, arguments),
                untrusted=other.untrusted_output,
                max_cost=None if cost is None else MaxCost(money=cost.micros, tokens=cost.tokens or 0),
            )
        )
    return Fallbacks(tuple(found), skipped, tuple(uses))
