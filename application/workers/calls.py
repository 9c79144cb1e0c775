"""Calling a tool: the intent in the journal and the request of the invocation, in one append."""

from typing import NamedTuple
from uuid import UUID

from application.chains import Chains
from application.compensations import compensation_of
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.fallbacks import fallbacks_of
from application.suggestions import KnownNames, did_you_mean, names_of
from application.tool_schemas import ToolSchemas
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain.agent_runs import StartCall, invocation_id_of
from domain.chains import chain_id_of
from domain.errors import Unavailable
from domain.failures import Retry
from domain.invocations import RequestInvocation
from domain.kernel import Command, Json
from domain.tools import DECIDER, ToolChanged, ToolDefinition, ToolRegistered, UnknownTool, UseTool, tool_id_of

MOST_LOOKS = 5
"""Looks at a tool that others change meanwhile."""


class Called(NamedTuple):
    invocation_id: UUID
    outcome: CommandOutcome
    warning: str | None = None
    """What whoever called should know of the tool."""


class Calls:
    def __init__(self, commands: CommandLoop, schemas: ToolSchemas, known: KnownNames, chains: Chains) -> None:
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._chains = chains
        self._schemas = schemas
        self._known = known

    async def call(self, caller: Caller, command: StartCall, arguments: dict[str, Json]) -> Called:
        """Calls a tool.

        Raises:
            UnknownTool: no such tool is registered, or not the one that takes its effect back.
            InvalidCommand: the arguments do not match the tool's JSON Schema.
            NotFound, WorkOver, StaleAttempt, RepeatedDifferently, Unavailable.
        """
        agent_run_id, key = command.agent_run_id, command.key
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"call:{command.attempt}:{key}")
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id)
        assert state.requested is not None
        invocation_id = invocation_id_of(agent_run_id, key)
        for look in range(MOST_LOOKS):
            tool, current = await self._tool(caller.tenant_id, command.tool, fresh=look > 0)
            self._schemas.check_arguments(current.name, current.parameters, arguments)
            instead = await fallbacks_of(self._commands, self._schemas, caller.tenant_id, current, arguments, fresh=look > 0)
            requested = RequestInvocation(
                invocation_id=invocation_id,
                run_id=state.requested.run_id,
                agent_run_id=agent_run_id,
                key=key,
                tool=command.tool,
                tool_version=current.version,
                arguments=arguments,
                idempotent=current.idempotent,
                timeout_s=current.timeout_s,
                retry=Retry(max_attempts=current.max_attempts),
                priority=state.requested.priority,
                on_behalf_of=state.requested.on_behalf_of,
                reconcile_timeout_s=current.reconcile_timeout_s,
                chain_id=chain_id_of(invocation_id) if current.kind == "chain" else None,
                fallbacks=instead.tools,
                fallbacks_skipped=instead.skipped,
                compensation=await compensation_of(self._commands, caller.tenant_id, current),
            )
            use = UseTool(tool_id=tool_id_of(caller.tenant_id, command.tool), name=command.tool, changes=tool.changes)
            begun: list[Command] = []
            if current.kind == "chain":
                begun = await self._chains.begin(caller.tenant_id, current, requested, fresh=look > 0)
            try:
                outcome = await self._commands.execute(request, command, requested, *begun, use, *instead.uses)
            except ToolChanged:  # this process had not heard of it
                continue
            return Called(invocation_id, outcome, tool.warning)
        raise Unavailable(f"the tool '{command.tool}' is being changed: try again")

    async def _tool(self, tenant_id: UUID, name: str, *, fresh: bool) -> tuple[ToolDefinition, ToolRegistered]:
        tool_id = tool_id_of(tenant_id, name)
        for again in (fresh, True):
            tool: ToolDefinition = (await self._commands.load(DECIDER, tenant_id, tool_id, fresh=again)).state
            if tool.current is not None:
                return tool, tool.current
        meant = did_you_mean(name, await names_of(self._known, tenant_id))
        raise UnknownTool(f"no tool '{name}' is registered{meant}", pointer="/tool")
