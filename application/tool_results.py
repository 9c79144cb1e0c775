"""Whether the result of a call fits what the tool declared when it was called."""

from collections import OrderedDict
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.tool_schemas import ToolSchemas
from domain.invocations import InvocationRequested
from domain.kernel import Json
from domain.tools import DECIDER, ToolDefinition, ToolRegistered, tool_id_of

MOST_KEPT = 500
"""Schemas of versions that are not the current ones. A version that was replaced has calls under way for a short time."""


class ToolResults:
    def __init__(self, commands: CommandLoop, schemas: ToolSchemas) -> None:
        self._commands = commands
        self._schemas = schemas
        self._earlier: OrderedDict[tuple[UUID, str, str], Json] = OrderedDict()
        """By tool, version and hash of its declaration."""

    async def faults_of(self, tenant_id: UUID, requested: InvocationRequested, result: Json) -> list[tuple[str, str]]:
        """What is wrong with a result, by the schema of the version that was called: JSON Pointers and descriptions.

        Empty: nothing, or the version declares no result. Raises Unavailable.
        """
        if requested.tool_version is None:
            return []
        schema = await self._schema(tenant_id, requested.tool, requested.tool_version)
        return [] if schema is None else self._schemas.faults_of(schema, result)[0]

    async def _schema(self, tenant_id: UUID, name: str, version: str) -> Json:
        """None: any result fits."""
        tool_id = tool_id_of(tenant_id, name)
        for fresh in (False, True):  # another process may have registered the version, or removed the tool, since
            tool: ToolDefinition = (await self._commands.load(DECIDER, tenant_id, tool_id, fresh=fresh)).state
            if tool.current is not None and tool.current.version == version:
                return tool.current.result
            if version in tool.versions:
                break
        else:
            return None
        key = tool_id, version, tool.versions[version].digest
        if key not in self._earlier:
            self._earlier[key] = await self._declared(tenant_id, tool_id, version)
            if len(self._earlier) > MOST_KEPT:
                self._earlier.popitem(last=False)
        return self._earlier[key]

    async def _declared(self, tenant_id: UUID, tool_id: UUID, version: str) -> Json:
        """The schema of the newest declaration of a version, from the log."""
        for recorded in reversed(await self._commands.history(tenant_id, tool_id)):
            if recorded.topic == ToolRegistered.TOPIC:
                declared = self._commands.registry.decoded(recorded)
                if isinstance(declared, ToolRegistered) and declared.version == version:
                    return declared.result
        return None
