"""Ports of queries: the queries of entrances to read models. `projections/` implements the ports, the composition root joins them.

Each query opens its own connection, so callers see neither connections nor statements. All queries raise Unavailable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from application.engine.ports.pages import Page
from application.views.activity import Activity, OpenRunCount
from application.views.agents import AgentView
from application.views.audit import AuditEntryView
from application.views.breakers import BreakerView
from application.views.invocations import InvocationSummary, InvocationView
from application.views.large import Field, Held
from application.views.messages import MessageView
from application.views.parts import OpenParts
from application.views.projects import ProjectView
from application.views.runs import JournalEntryView, PartView, RunCallView, RunSummary, RunView
from application.views.schedules import ScheduleStatus, ScheduleSummary, ScheduleView
from application.views.slash_commands import OwnCommand
from application.views.tenants import ApiKeyView
from application.views.tools import ToolVersionView, ToolView
from application.views.triggers import TriggerView
from application.views.workflows import WorkflowSummary, WorkflowVersionSummary, WorkflowVersionView, WorkflowView
from domain.access import Role
from domain.breakers import Status as BreakerStatus
from domain.kernel import Json, RecordedEvent

T = TypeVar("T")
MOST_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Positioned(Generic[T]):
    """The answer of a read model, and the position of the read model at the time of the answer."""

    value: T
    position: int


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """The owner of a valid API key."""

    key_id: UUID
    tenant_id: UUID
    role: Role = Role.OWNER
    valid_for_s: float | None = None
    """Seconds up to the expiry. None: the key does not expire."""
    projects: frozenset[UUID] | None = None
    """The projects to which the key is narrowed. None: it is for the whole tenant."""


class KeysFound(NamedTuple):
    """Valid keys, and the position of the read model in which they were looked up."""

    owners: Mapping[str, KeyOwner]
    """By the hash of the key."""
    position: int


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """Consumer's name → its position in the log, and the number of its parked events."""

    positions: Mapping[str, int]
    parked: Mapping[str, int]


class RunsWanted(NamedTuple):
    """A page of a list of runs."""

    limit: int
    before: UUID | None = None
    """Only runs that started before this one. None: from the newest on."""
    status: str | None = None
    """A status of runs, or `DEGRADED` for the completed runs without some of their steps."""
    project_id: UUID | None = None
    agent: str | None = None
    """Only runs with a step of this agent."""
    actor: str | None = None
    """Who started the run: `key:<key id>`."""
    on_behalf_of: str | None = None
    """For whom the actor started the run."""
    metadata: Sequence[tuple[str, str]] = ()
    """Names and values, all of which the run's metadata has. A value that is no string is given as JSON."""
    error: str | None = None
    """Words, all of which the errors of the run and of its failed steps have."""
    started_after: datetime | None = None
    """The first time: runs of this time are among them."""
    started_before: datetime | None = None
    """The end: runs of this time are not among them."""
    within: Sequence[UUID] | None = None
    """Only runs of these projects, and nothing in the page tells of others. None: of all projects."""
    parent: UUID | None = None
    """Only runs that steps of this run started."""
    workflow: str | None = None
    """Only runs of this workflow: `name`, or `name@version`."""
    origin: str | None = None
    """Only runs that this started: `schedule`, or `schedule:name`."""

    @property
    def needs_terms(self) -> bool:
        """Whether more is asked for than the rows of runs know."""
        exact = (self.agent, self.actor, self.on_behalf_of, self.error, self.parent, self.workflow, self.origin)
        return any(value is not None for value in exact) or bool(self.metadata)


class RunReads(Protocol):
    async def get(self, tenant_id: UUID, run_id: UUID) -> Positioned[RunView | None]:
        """A run; None if the tenant has no such run. Raises ValueError for a stored document that cannot be read."""
        ...

    async def list(self, tenant_id: UUID, wanted: RunsWanted) -> Positioned[Page[RunSummary]]:
        """Runs newest first; runs of the same time by id. With more than one filter, a page before the last one may have fewer than
        `limit` runs, or none.

        Raises InvalidCommand if the tenant has no run `before`, or for filters that cannot be looked for; ProjectionBehind if what
        runs are found by is far behind the runs.
        """
        ...

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
        """The list as it was at a position that the read model has reached. A page before the last one may have fewer than `limit`
        runs, or none.

        Raises InvalidCommand if the tenant has no run `before`, or for the filter `error`, which knows no earlier state;
        ProjectionBehind; PayloadTooLarge for a page whose runs have more events than one answer counts.
        """
        ...

    async def calls(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int) -> Positioned[Page[RunCallView] | None]:
        """Tool calls of a run that were started after a position, in the order of their start. None: the read model does not have
        the calls of the run in a list; the log has them.
        """
        ...

    async def parts(self, tenant_id: UUID, run_id: UUID, step: str, *, limit: int, after: int) -> Positioned[Page[PartView] | None]:
        """Parts of a step whose numbers come after one, in the order of their numbers. None: the read model does not have them; the
        log has them.

        Raises NotFound if the run has no such step.
        """
        ...

    async def parts_in(self, tenant_id: UUID, view: RunView, step: str, *, limit: int, after: int) -> Page[PartView]:
        """The parts of a step in a document that was folded from events, with their values from the log.

        Raises NotFound if the run has no such step.
        """
        ...

    def evolve(self, view: RunView | None, recorded: RecordedEvent, *, all_calls: bool = False) -> RunView | None:
        """The document after one more event of the run, made by the fold of the read model. Changes the given document.

        `all_calls`: the document keeps all calls. Else it keeps the newest ones.
        """
        ...

    def journal(self, started: RecordedEvent, events: Sequence[RecordedEvent]) -> Sequence[JournalEntryView]:
        """The journal's entries of events that have one. `started`: the event that started the run."""
        ...

    def held(self, recorded: RecordedEvent, field: Field, step: str | None = None, part: int | None = None) -> Held | None:
        """A value of the run, of a step, or of a part of it, if the event holds it. Raises ValueError, UnknownEvent."""
        ...

    def calls_in(self, view: RunView) -> Sequence[RunCallView]:
        """The calls in a document that was folded with all its calls, in the order of their start."""
        ...


class CurrentRun(NamedTuple):
    """A run as the log holds it."""

    view: RunView
    parts: OpenParts
    """What of the run has not ended, up to the position of the view."""


class CurrentRuns(Protocol):
    """Runs in their present state in the log, independent of the position of the read model."""

    async def now(self, tenant_id: UUID, run_id: UUID) -> CurrentRun | None:
        """The run with all events that were recorded before the call. None: no such run.

        Callers share the result and must not change it. The call waits during an outage of the database: callers set a time-out.
        Raises Unavailable if too many callers wait already.
        """
        ...

    def of(self, events: Sequence[RecordedEvent]) -> RunView:
        """The run from all its events, which begin with its start."""
        ...


class MessageReads(Protocol):
    async def list(self, tenant_id: UUID, run_id: UUID, *, limit: int, after: int | None) -> Positioned[Page[MessageView]]:
        """Messages of a run that were sent after a position, in the order of sending."""
        ...

    def sent(self, recorded: RecordedEvent) -> MessageView:
        """The message as the event says that sent it. Raises ValueError, UnknownEvent."""
        ...

    def evolve(self, messages: Mapping[UUID, MessageView], recorded: RecordedEvent) -> None:
        """Changes the message that an event of a mailbox is about, if it is among those by id. Raises ValueError, UnknownEvent."""
        ...


class AgentReads(Protocol):
    async def list(self, tenant_id: UUID, *, limit: int, after: str | None, capability: str | None) -> Positioned[Page[AgentView]]:
        """Agents in the order of their names, after a name. `capability`: only agents with this capability."""
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


class WorkflowsWanted(NamedTuple):
    """A page of workflows in the order of their names."""

    limit: int
    after: str | None = None
    prefix: str = ""
    """What the names begin with."""
    deprecated: bool | None = None
    """Only the deprecated ones, or only the others. None: both."""


class WorkflowReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: WorkflowsWanted) -> Positioned[Page[WorkflowSummary]]: ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[WorkflowView | None]:
        """A workflow by its name. None: the tenant has no such workflow."""
        ...

    async def commands(self, tenant_id: UUID, *, limit: int, after: str | None) -> Positioned[Page[OwnCommand]]:
        """Workflows that slash commands start, and that are not deprecated, in the order of their names, after a name."""
        ...

    async def versions(
        self, tenant_id: UUID, workflow_id: UUID, *, limit: int, before: int | None
    ) -> Positioned[Page[WorkflowVersionSummary]]:
        """The versions of a workflow, the newest first, before a version."""
        ...

    async def version(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Positioned[WorkflowVersionView | None]: ...

    async def definition(self, tenant_id: UUID, workflow_id: UUID, version: int) -> Json | None:
        """What a version says. None: the read model does not have the version (yet)."""
        ...

    async def names(self, tenant_id: UUID) -> Sequence[str]:
        """The names of the workflows in order, at most `MOST_NAMES`."""
        ...


class BreakerReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, state: BreakerStatus | None = None
    ) -> Positioned[Page[BreakerView]]:
        """Breakers that have ever changed, in the order of their tools' names, after a name."""
        ...


class SchedulesWanted(NamedTuple):
    """A page of the list of schedules."""

    limit: int
    after: str | None = None
    """Only schedules whose names come after this one."""
    status: ScheduleStatus | None = None
    projects: Sequence[UUID] | None = None
    """Only schedules of these projects. None: of all."""


class ScheduleReads(Protocol):
    async def get(self, tenant_id: UUID, name: str) -> Positioned[ScheduleView | None]:
        """None: the tenant has no such schedule, or it was removed. Raises ValueError for stored values that cannot be read."""
        ...

    async def list(self, tenant_id: UUID, wanted: SchedulesWanted) -> Positioned[Page[ScheduleSummary]]:
        """Schedules that were not removed, in the order of their names."""
        ...


class TriggerReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: str | None, status: str | None = None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[TriggerView]]:
        """Triggers by name, after a name. `within`: only those of these projects."""
        ...

    async def get(self, tenant_id: UUID, name: str) -> Positioned[TriggerView | None]: ...


class StoredTrigger(NamedTuple):
    """A trigger of any tenant, for who matches events with it."""

    tenant_id: UUID
    trigger_id: UUID
    name: str
    status: str
    definition: Json
    hook_id: UUID | None
    within: tuple[UUID, ...] | None
    since: int
    """Position of the event that made it as it is."""
    first: int
    """Position of the event that created it."""


class AllTriggers(Protocol):
    async def all(self) -> tuple[Sequence[StoredTrigger], int]:
        """The triggers of all tenants, and the position that they are of. Raises Unavailable."""
        ...


class ProjectReads(Protocol):
    async def list(
        self, tenant_id: UUID, *, limit: int, after: UUID | None, within: Sequence[UUID] | None = None
    ) -> Positioned[Page[ProjectView]]:
        """Projects after an id, oldest first. `within`: only these."""
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


class ApiKeyReads(Protocol):
    async def owners(self, sha256s: Sequence[str]) -> KeysFound:
        """All valid keys among those with the given hashes."""
        ...

    async def list(self, tenant_id: UUID, *, limit: int, before: UUID | None) -> Positioned[Page[ApiKeyView]]:
        """Keys before an id, newest first, also those that are not valid any more."""
        ...

    async def get(self, tenant_id: UUID, key_id: UUID) -> Positioned[ApiKeyView | None]:
        """A key; None if the tenant has no such key."""
        ...


class ConsumerReads(Protocol):
    async def progress(self) -> ConsumerProgress:
        """The progress of all consumers. Events that were parked by a version of a read model that is not live are not counted."""
        ...


class ActivityReads(Protocol):
    async def now(self) -> Activity:
        """The sums over all runs, agent runs and tool calls, of all tenants together.

        The time does not depend on how many there were.
        """
        ...

    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        """The runs that have not ended, of all tenants together. `by_tenant`: also of each tenant, which takes longer."""
        ...


class AuditWanted(NamedTuple):
    """A page of the audit trail."""

    limit: int
    before: int | None = None
    """Only entries before this position. None: from the newest on."""
    actor: str | None = None
    action: str | None = None
    target: str | None = None
    """The id of what an action was done to."""
    on_behalf_of: str | None = None
    result: str | None = None
    after: int = 0
    until: int | None = None
    """Only entries after the one position, and up to the other."""


class AuditReads(Protocol):
    async def list(self, tenant_id: UUID, wanted: AuditWanted) -> Positioned[Page[AuditEntryView]]:
        """Entries newest first. A page before the last one may have fewer than `limit` entries, or none."""
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
    activity: ActivityReads
    audit: AuditReads
    breakers: BreakerReads
    workflows: WorkflowReads
    schedules: ScheduleReads
    triggers: TriggerReads
