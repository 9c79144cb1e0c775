"""Ports of queries: runs, their messages, and what goes on now."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads.answers import Positioned
from application.views.activity import Activity, OpenRunCount
from application.views.large import Field, Held
from application.views.messages import MessageView
from application.views.parts import OpenParts
from application.views.runs import JournalEntryView, PartView, RunCallView, RunSummary, RunView
from domain.kernel import RecordedEvent


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
    unmoved_s: float | None = None
    """Only open runs without an event for so many seconds."""
    forked_from: UUID | None = None
    """Only forks of this run."""
    concurrency_key: str | None = None
    """Only runs with this key."""
    statuses: Sequence[str] = ()
    """Only runs of one of these statuses. Then `status` is None."""
    longer_s: float | None = None
    """Only runs that took so many seconds, or have gone on for so long."""
    shorter_s: float | None = None
    """Only runs that took less, or have gone on for less."""

    @property
    def needs_terms(self) -> bool:
        """Whether more is asked for than the rows of runs know."""
        exact = (self.agent, self.actor, self.on_behalf_of, self.error, self.parent, self.workflow, self.origin)
        return any(value is not None for value in (*exact, self.forked_from, self.concurrency_key)) or bool(self.metadata)

    @property
    def of_now(self) -> str | None:
        """A filter that tells of now, and of no other time."""
        named = ("error", "unmoved_s", "longer_s", "shorter_s")
        return next((name for name in named if getattr(self, name) is not None), None)


class RunCounts(NamedTuple):
    """Numbers of runs by status. `DEGRADED` counts runs that are among the completed ones, too."""

    counts: Mapping[str, int]
    more: frozenset[str]
    """Statuses with more runs than were counted."""


class DueInRun(NamedTuple):
    """A timer of a stream."""

    due_at: datetime
    command: str
    step: str | None
    """Of a step that waits for a clock."""


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

    async def counts(self, tenant_id: UUID, wanted: RunsWanted) -> "Positioned[RunCounts]":
        """How many runs of each status there are, counted up to a number. The status in what is wanted does not count.

        Raises ProjectionBehind as `list`.
        """
        ...

    async def list_as_of(self, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
        """The list as it was at a position that the read model has reached. A page before the last one may have fewer than `limit`
        runs, or none.

        Raises InvalidCommand if the tenant has no run `before`, or for a filter that knows no earlier state (`of_now`);
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

    async def due(self, tenant_id: UUID, stream_id: UUID) -> "Sequence[DueInRun]":
        """The timers of a run, of an agent run or of a call, as far as the read model of timers knows."""
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


class ActivityReads(Protocol):
    async def now(self) -> Activity:
        """The sums over all runs, agent runs and tool calls, of all tenants together.

        The time does not depend on how many there were.
        """
        ...

    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        """The runs that have not ended, of all tenants together. `by_tenant`: also of each tenant, which takes longer."""
        ...
