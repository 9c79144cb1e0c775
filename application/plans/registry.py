"""What plans name: agents, capabilities and workflows. Each is looked up once for a plan."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.plans.capabilities import KnownAgents, offering
from application.suggestions import names_of
from domain import agents
from domain.kernel import Json

MAX_NAMED = 5
"""Versions of an agent that a fault names: the last ones."""


class FoundAgent(NamedTuple):
    name: str
    versions: tuple[str, ...]
    """All that were registered, the last one at the end, which is the current one. Empty: there is no such agent."""
    input_schema: Json = None
    """Of the current version."""
    output_schema: Json = None

    @property
    def version(self) -> str | None:
        return self.versions[-1] if self.versions else None


class FoundWorkflow(NamedTuple):
    refusal: str | None
    """Why no run can be started with it. None: one can."""
    parameters: Json = None
    """JSON Schema of the input."""
    plan: Json = None
    version: int | None = None


class WorkflowLookup(Protocol):
    """Workflows as those who check plans see them."""

    async def found(self, tenant_id: UUID, name: str, version: int | None) -> FoundWorkflow | None:
        """None: the tenant has no such workflow. `version`: None: the current one. Raises Unavailable."""
        ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of workflows, a bounded number of them. Raises Unavailable."""
        ...


class Registry(Protocol):
    """All that a plan may name, of one tenant. Names of what is there are asked for once something is not."""

    async def agent(self, name: str) -> FoundAgent: ...
    async def agent_names(self) -> Sequence[str]: ...
    async def capabilities(self, wanted: Iterable[str]) -> Mapping[str, str]:
        """Capability → the agent that a run gets. Without those that no agent announces."""
        ...

    async def capability_names(self) -> Sequence[str]: ...
    async def workflow(self, name: str, version: int | None) -> FoundWorkflow | None: ...
    async def workflow_names(self) -> Sequence[str]: ...
    @property
    def has_workflows(self) -> bool: ...
    @property
    def has_agents(self) -> bool: ...


class TenantRegistry:
    """The registry of a tenant, from the log and the read model of agents."""

    def __init__(self, commands: CommandLoop, known: KnownAgents | None, workflows: WorkflowLookup | None, tenant_id: UUID) -> None:
        """`known`: None: agents and capabilities are not looked up, since they may come later."""
        self._commands = commands
        self._known = known
        self._workflows = workflows
        self._tenant_id = tenant_id

    @property
    def has_workflows(self) -> bool:
        return self._workflows is not None

    @property
    def has_agents(self) -> bool:
        return self._known is not None

    async def agent(self, name: str) -> FoundAgent:
        agent_id = agents.agent_id_of(self._tenant_id, name)
        for fresh in (False, True):  # another process may have registered it since
            definition: agents.AgentDefinition = (
                await self._commands.load(agents.DECIDER, self._tenant_id, agent_id, fresh=fresh)
            ).state
            if (current := definition.current) is not None:
                return FoundAgent(name, definition.versions, current.input_schema, current.output_schema)
        return FoundAgent(name, ())

    async def agent_names(self) -> Sequence[str]:
        return () if self._known is None else await names_of(self._known, self._tenant_id)

    async def capabilities(self, wanted: Iterable[str]) -> Mapping[str, str]:
        return {} if self._known is None else await offering(self._known, self._tenant_id, wanted)

    async def capability_names(self) -> Sequence[str]:
        return () if self._known is None else await self._known.capabilities(self._tenant_id)

    async def workflow(self, name: str, version: int | None) -> FoundWorkflow | None:
        return None if self._workflows is None else await self._workflows.found(self._tenant_id, name, version)

    async def workflow_names(self) -> Sequence[str]:
        return () if self._workflows is None else await names_of(self._workflows, self._tenant_id)


class LookedUp(NamedTuple):
    """What was looked up for a plan. None: that was not, as where there is no server."""

    agents: Mapping[str, FoundAgent] | None = None
    agent_names: Sequence[str] = ()
    capabilities: Mapping[str, str] | None = None
    capability_names: Sequence[str] = ()
    workflows: Mapping[tuple[str, int | None], FoundWorkflow | None] | None = None
    workflow_names: Sequence[str] = ()


async def looked_up(
    registry: Registry, agent_names: Iterable[str], capabilities: Iterable[str], workflows: Iterable[tuple[str, int | None]]
) -> LookedUp:
    """All that a plan names. Raises Unavailable."""
    known = await _looked_up_agents(registry, agent_names, capabilities) if registry.has_agents else LookedUp()
    if not registry.has_workflows:
        return known
    found = {key: await registry.workflow(*key) for key in dict.fromkeys(workflows)}
    names = await registry.workflow_names() if None in found.values() else ()
    return known._replace(workflows=found, workflow_names=names)


async def _looked_up_agents(registry: Registry, agent_names: Iterable[str], capabilities: Iterable[str]) -> LookedUp:
    wanted = tuple(dict.fromkeys(capabilities))
    offered = await registry.capabilities(wanted) if wanted else {}
    found = {name: await registry.agent(name) for name in dict.fromkeys((*agent_names, *offered.values()))}
    return LookedUp(
        found,
        await registry.agent_names() if any(not agent.versions for agent in found.values()) else (),
        offered,
        await registry.capability_names() if len(offered) < len(wanted) else (),
    )
