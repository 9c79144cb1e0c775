"""Calling a tool: the intent in the journal and the request of the invocation, in one append."""

from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome
from application.suggestions import KnownNames, did_you_mean, names_of
from application.tool_schemas import ToolSchemas
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import tools
from domain.agent_runs import StartCall, invocation_id_of
from domain.errors import NotFound
from domain.failures import Retry
from domain.invocations import RequestInvocation
from domain.kernel import Json


class UnknownTool(NotFound):
    code = "unknown-tool"


class Calls:
    def __init__(self, commands: CommandLoop, schemas: ToolSchemas, known: KnownNames) -> None:
        """`known`: the names of the registered tools."""
        self._commands = commands
        self._schemas = schemas
        self._known = known

    async def call(self, caller: Caller, command: StartCall, arguments: dict[str, Json]) -> tuple[UUID, CommandOutcome]:
        """Calls a tool. Returns the id of the invocation.

        Raises:
            UnknownTool: no such tool is registered.
            InvalidCommand: the arguments do not match the tool's JSON Schema.
            NotFound, WorkOver, StaleAttempt, RepeatedDifferently.
        """
        agent_run_id, key = command.agent_run_id, command.key
        request = await request_for_agent_run(self._commands, caller, agent_run_id, f"call:{command.attempt}:{key}")
        tool = await self._tool(caller.tenant_id, command.tool)
        self._schemas.check_arguments(tool.name, tool.parameters, arguments)
        state = await load_agent_run(self._commands, caller.tenant_id, agent_run_id)
        assert state.requested is not None
        invocation_id = invocation_id_of(agent_run_id, key)
        outcome = await self._commands.execute(
            request,
            command,
            RequestInvocation(
                invocation_id=invocation_id,
                run_id=state.requested.run_id,
                agent_run_id=agent_run_id,
                key=key,
                tool=command.tool,
                arguments=arguments,
                idempotent=tool.idempotent,
                timeout_s=tool.timeout_s,
                retry=Retry(max_attempts=tool.max_attempts),
                priority=state.requested.priority,
                on_behalf_of=state.requested.on_behalf_of,
                reconcile_timeout_s=tool.reconcile_timeout_s,
            ),
        )
        return invocation_id, outcome

    async def _tool(self, tenant_id: UUID, name: str) -> tools.ToolRegistered:
        tool_id = tools.tool_id_of(tenant_id, name)
        for fresh in (False, True):
            loaded = await self._commands.load(tools.DECIDER, tenant_id, tool_id, fresh=fresh)
            found: tools.ToolRegistered | None = loaded.state.current
            if found is not None:
                return found
        meant = did_you_mean(name, await names_of(self._known, tenant_id))
        raise UnknownTool(f"no tool '{name}' is registered{meant}", pointer="/tool")
