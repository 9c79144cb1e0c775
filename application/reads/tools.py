"""Ports of queries: tools, their breakers, and invocations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.breakers import BreakerView
from application.views.invocations import InvocationSummary, InvocationView
from application.views.tools import ToolVersionView, ToolView
from domain.breakers import Status as BreakerStatus
from domain.kernel import RecordedEvent


class DataTool(NamedTuple):
    """A tool that is data, by its kind, and its current version."""

    name: str
    version: str
    kind: str


class DataToolReads(Protocol):
    async def data(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Sequence[DataTool]]:
        """The tools that are data, and perhaps others, in the order of their names, after a name."""
        ...


class ToolReads(DataToolReads, Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[ToolView]]:
        """Tools in the order of their names, after a name."""
        ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[ToolView | None]:
        """A tool by its name. None: the tenant has no such tool."""
        ...

    async def versions(
        self, tenant_id: UUID, tool_id: UUID, *, limit: int, before: int | None
    ) -> Positioned[Page[ToolVersionView]]:
        """The versions of a tool, the one that was registered last first, before a revision."""
        ...

    async def version(self, tenant_id: UUID, tool_id: UUID, version: str) -> Positioned[ToolVersionView | None]: ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of the registered tools in order, at most `MOST_NAMES`."""
        ...


class BreakerReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, state: BreakerStatus | None = None
    ) -> Positioned[Page[BreakerView]]:
        """Breakers that have ever changed, in the order of their tools' names, after a name."""
        ...


class InvocationsWanted(NamedTuple):
    """A page of a list of tool calls."""

    limit: int
    before: UUID | None = None
    """Only calls with a lower id. None: from the highest id on."""
    status: str | None = None
    run_id: UUID | None = None
    within: Sequence[UUID] | None = None
    """Only calls of runs of these projects, and nothing in the page tells of others. None: of all projects."""
    asked_by: str | None = None
    """Only calls that this one asked for, who is no agent. None: of all."""


class InvocationReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: InvocationsWanted) -> Positioned[Page[InvocationSummary]]:
        """Tool calls, the calls of the newest runs first."""
        ...

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: InvocationsWanted) -> Page[InvocationSummary]:
        """The list as it was at a position that the read model has reached. A page before the last one may have fewer than `limit`
        calls, or none.

        Raises ProjectionBehind; PayloadTooLarge for a page whose calls have more events than one answer reads.
        """
        ...

    async def newest(self, tenant_id: UUID, keys: Sequence[UUID], max_age_s: float) -> Mapping[UUID, UUID]:
        """As `application.cached_results.CachedCalls` says."""
        ...

    def replay(self, events: Sequence[RecordedEvent]) -> InvocationView | None:
        """A tool call after the given events of its stream, in order. None if the events are not the events of a tool call."""
        ...
