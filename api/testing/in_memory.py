"""Ports that need no store in a test of one plan."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from adapters.memory import MemoryLog
from application.engine.ports.queue import WorkItem
from application.views.activity import OpenRunCount
from domain.agents import AgentRegistered
from domain.event_registry import EventRegistry


class PlayedClock:
    """The clock of the test, for the times of the log."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now()

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        raise NotImplementedError("nobody waits for the log by its clock")


class WorkList:
    """Takes what the saga of work gives out. The tests' worker takes it from here."""

    def __init__(self) -> None:
        self._items: list[WorkItem] = []

    async def publish(self, items: Sequence[WorkItem]) -> None:
        self._items += items

    def take(self) -> list[WorkItem]:
        taken, self._items = self._items, []
        return taken


class LogNames:
    """Implements `application.plans.capabilities.KnownAgents`: the registered agents, as if no worker were connected."""

    def __init__(self, log: MemoryLog, registry: EventRegistry) -> None:
        self._log = log
        self._registry = registry

    def _agents(self) -> list[AgentRegistered]:
        """The newest last."""
        return [self._registry.decoded(event) for event in self._log.events if event.topic == AgentRegistered.TOPIC]

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return sorted({agent.name for agent in self._agents()})

    async def offering(self, tenant_id: UUID, capabilities: Sequence[str]) -> Mapping[str, str]:
        return {name: agent.name for agent in self._agents() for name in agent.capabilities if name in capabilities}

    async def capabilities(self, tenant_id: UUID) -> Sequence[str]:
        return sorted({name for agent in self._agents() for name in agent.capabilities})


class NoOpenRuns:
    """Implements `application.runs.admission.CountsOpenRuns`: a test starts one run."""

    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        return OpenRunCount(0, {}, 0)


class NoVersions:
    """Implements `application.workflows.StoredVersions`, of a read model that has nothing: the log is asked."""

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> None:
        return None

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        return ()
