"""Ports of queries: agents and projects."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.agents import AgentView
from application.views.projects import ProjectView


class AgentReads(Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: str | None, capability: str | None) -> Positioned[Page[AgentView]]:
        """Agents in the order of their names, after a name. `capability`: only agents with this capability."""
        ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[AgentView | None]:
        """An agent by its name. None: the tenant has no such agent."""
        ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of the registered agents in order, at most `MOST_NAMES`."""
        ...

    async def offering(self, tenant_id: UUID, capabilities: Sequence[str]) -> Mapping[str, str]:
        """Capability → the agent that a run gets for it: one that a connected worker offers before others, then the one that was
        registered last, then the first by name. Without those that no agent announces."""
        ...

    async def capabilities(self, tenant_id: UUID) -> Sequence[str]:
        """What the registered agents announce, in order, at most `MOST_NAMES`."""
        ...


class ProjectReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: UUID | None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[ProjectView]]:
        """Projects after an id, oldest first. `within`: only these."""
        ...
