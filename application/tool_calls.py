"""What every call of a tool needs: the tool as it is declared now, its name checked and the arguments, too."""

from typing import NamedTuple
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandOutcome
from application.suggestions import KnownNames, did_you_mean, names_of
from domain.amounts import MaxCost
from domain.invocations import InvocationSucceeded
from domain.tools import DECIDER, ToolDefinition, ToolRegistered, UnknownTool, UseTool, tool_id_of

MOST_LOOKS = 5
"""Looks at a tool that others change meanwhile."""


class Called(NamedTuple):
    invocation_id: UUID
    outcome: CommandOutcome
    warning: str | None = None
    """What whoever called should know of the tool."""

    @property
    def cached(self) -> bool:
        """Whether a result of before has answered the call."""
        recorded = any(event.topic == InvocationSucceeded.TOPIC for event in self.outcome.recorded)
        return recorded or any(isinstance(event, InvocationSucceeded) for event in self.outcome.events)


def declared_cost(tool: ToolRegistered) -> MaxCost | None:
    """The most that a call of the tool costs, as it declares. None: it does not say."""
    declared = tool.rules.max_cost
    return None if declared is None else MaxCost(money=declared.micros, tokens=declared.tokens or 0)


class KnownTool(NamedTuple):
    """A tool as a call finds it."""

    definition: ToolDefinition
    current: ToolRegistered
    use: UseTool
    """The condition of the call's append: the tool is as it was looked at."""


class ToolsToCall:
    def __init__(self, commands: CommandLoop, known: KnownNames) -> None:
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._known = known

    async def find(self, tenant_id: UUID, name: str, *, fresh: bool, pointer: str | None = None) -> KnownTool:
        """`fresh`: with what other processes have changed. `pointer`: the place of the name in what was asked.

        Raises UnknownTool, which suggests a name.
        """
        tool_id = tool_id_of(tenant_id, name)
        for again in (fresh, True):
            tool: ToolDefinition = (await self._commands.load(DECIDER, tenant_id, tool_id, fresh=again)).state
            if tool.current is not None:
                return KnownTool(tool, tool.current, UseTool(tool_id=tool_id, name=name, changes=tool.changes))
        meant = did_you_mean(name, await names_of(self._known, tenant_id))
        raise UnknownTool(f"no tool '{name}' is registered{meant}", pointer=pointer)
