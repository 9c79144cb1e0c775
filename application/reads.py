"""Ports of queries: what entrances ask of read models. `projections/` implements them, the composition root joins them.

Each query opens a connection of its own, so neither a connection nor a statement reaches whoever asks. All raise Unavailable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from application.engine.ports.pages import Page
from application.views.agents import AgentView
from application.views.invocations import InvocationSummary, InvocationView
from application.views.messages import MessageView
from application.views.projects import ProjectView
from application.views.runs import RunSummary, RunView
from application.views.tools import ToolView
from domain.kernel import RecordedEvent

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Positioned(Generic[T]):
    """The answer of a read model, and the position of the log that the read model had when it was asked."""

    value: T
    position: int


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """Whom a valid API key belongs to."""

    key_id: UUID
    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """How far the consumers of the log are, and how many events each of them has parked, by the consumer's name."""

    positions: Mapping[str, int]
    parked: Mapping[str, int]


class RunReads(Protocol):
    async def get(self, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
        """A run; None if the tenant has no such run. Raises ValueError for a stored document that cannot be read."""
        ...

    async def list(
        self, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, project_id: UUID | None
    ) -> Positioned[Page[RunSummary]]:
        """Runs older than `before` (None: from the newest on), newest first."""
        ...

    def evolve(self, view: RunView | None, recorded: RecordedEvent) -> RunView | None:
        """The document after one more event of the run, by the fold that fills the read model. Changes the given document."""
        ...


class CurrentRuns(Protocol):
    """Runs as the log has them at this moment, whatever the position of the read model."""

    async def now(self, tenant_id: UUID, run_id: UUID) -> RunView | None:
        """The run with everything that was recorded before the call; None if there is none. To be read only: others have it too.

        An outage of the database is waited out: callers set a time-out. Raises Unavailable when too many wait already.
        """
        ...


class MessageReads(Protocol):
    async def list(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int | None) -> Positioned[Page[MessageView]]:
        """Messages of a run that were sent after a position, in order."""
        ...


class AgentReads(Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: str | None, capability: str | None) -> Positioned[Page[AgentView]]:
        """Agents by name, those after a name; `capability` keeps only agents that have it."""
        ...


class ToolReads(Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[ToolView]]:
        """Tools by name, those after a name."""
        ...


class ProjectReads(Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: UUID | None) -> Positioned[Page[ProjectView]]:
        """Projects, oldest first, those after an id."""
        ...


class InvocationReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, before: UUID | None, status: str | None, run_id: UUID | None
    ) -> Positioned[Page[InvocationSummary]]:
        """Tool calls, those of the newest runs first."""
        ...

    def replay(self, events: Sequence[RecordedEvent]) -> InvocationView | None:
        """A call after the given events of its stream, in order; None if they are not those of a call."""
        ...


class ApiKeyReads(Protocol):
    async def owners(self, sha256s: Sequence[str]) -> dict[str, KeyOwner]:
        """Hash of a key → its owner, for those of the keys that are valid."""
        ...


class ConsumerReads(Protocol):
    async def progress(self) -> ConsumerProgress:
        """Of all consumers; events that a version of a read model parked that is not live are not counted."""
        ...


@dataclass(frozen=True, slots=True)
class Reads:
    """The queries of all read models."""

    runs: RunReads
    messages: MessageReads
    agents: AgentReads
    tools: ToolReads
    projects: ProjectReads
    invocations: InvocationReads
    keys: ApiKeyReads
    consumers: ConsumerReads
