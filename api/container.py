"""The ports and use cases that a process of the api role works with. Built by api/assembly, used by HTTP and the roles."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from api.settings import Settings
from application.audit import RefusalCounter
from application.blobs import Blobs
from application.engine.commands.loop import CommandLoop
from application.engine.parked import ParkedOperations
from application.engine.ports.browser_sessions import BrowserSessions, SessionEndings
from application.engine.ports.ids import LogIndex
from application.engine.ports.key_uses import KeyUses
from application.engine.ports.log import EventFeed, Gaps
from application.engine.ports.outcomes import OutcomeCounts
from application.engine.ports.permits import PermitBook
from application.engine.ports.positions import ConsumerPositions
from application.engine.ports.problems import WorkerProblems
from application.engine.ports.projections import ProjectionOperations
from application.engine.ports.queue import WorkQueue
from application.engine.ports.sessions import WorkerSessions
from application.engine.ports.upkeep import UpkeepState
from application.engine.ports.work_logs import WorkLogs
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.looking_back.rows import EventRows
from application.plans.check import PlanChecks
from application.plans.registry import WorkflowLookup
from application.reads import CurrentRuns, Reads
from application.runs.admission import RunAdmission
from application.runs.forking.fork import Forks
from application.schedules.defining import Schedules
from application.slash_commands.commands import SlashCommands
from application.triggers.roots import Roots
from application.triggers.uses import TriggerUses
from application.workflows import WorkflowChanges, Workflows
from projections.engine.kernel import Database

if TYPE_CHECKING:
    from api.tools_told import ToolsTold
    from application.budgets.managing import BudgetOffice
    from application.workers import Workers
    from application.workers.hosting.host import SessionHost


class HealthCheck(Protocol):
    async def __call__(self) -> None:
        """Checks a dependency. Raises a TidelogError that says what is wrong."""
        ...


class MemberView(Protocol):
    """A running process of the server, whether it shares the engine's work or not."""

    @property
    def place(self) -> str: ...
    @property
    def joined_at(self) -> datetime: ...
    @property
    def alive(self) -> bool: ...
    @property
    def units(self) -> Sequence[str]: ...
    @property
    def release(self) -> str | None: ...
    @property
    def formats(self) -> Sequence[int] | None: ...
    @property
    def event_versions(self) -> Sequence[str] | None: ...


@dataclass(frozen=True, slots=True)
class Container:
    settings: Settings
    database: Database
    """For the process's own work."""
    read_database: Database
    """For the reads of requests: it shows one tenant at a time."""
    feed: EventFeed
    """For the reads of requests: it shows one tenant at a time."""
    index: LogIndex
    rows: EventRows
    """Events in short, by number."""
    histories: HistoryKeeper
    command_database: Database
    """For the data that commands need beside the log. Uses the commands' share of the connections, as `commands` does."""
    commands: CommandLoop
    cloud_events: CloudEventEncoder
    workers: "Workers"
    sessions: WorkerSessions
    """The sessions of workers. Uses the connections for the process's own work."""
    listed_sessions: WorkerSessions
    """The same, to be listed for people. Uses the reads' share of the connections."""
    listed_permits: PermitBook
    """The permits of tools, to be looked at by people. Uses the reads' share of the connections."""
    health_sessions: WorkerSessions
    """The same, over the connection for health."""
    hosting: "SessionHost"
    """The sessions of workers whose connections this process has."""
    tools_told: "ToolsTold"
    """Is told of tools that are data, and tells a supervisor."""
    live: LiveFeed
    positions: ConsumerPositions
    reads: Reads
    key_uses: KeyUses
    """Where the times of the last uses of API keys are written."""
    browser_sessions: BrowserSessions
    """Which browsers are signed in. Uses the connections for the process's own work, as the uses of keys do."""
    session_endings: SessionEndings
    projections: ProjectionOperations
    parked: ParkedOperations
    admission: RunAdmission
    """Decides whether a further run may be started."""
    workflows: Workflows
    """Starts by the name of a workflow."""
    forks: Forks
    workflow_changes: WorkflowChanges
    slash_commands: SlashCommands
    schedules: Schedules
    refusals: RefusalCounter
    """Counts refused requests for the audit trail."""
    replays: CurrentRuns
    work_queue: WorkQueue
    log_head: Callable[[], Awaitable[int]]
    """The position of the newest event, over the connection for health. Raises Unavailable."""
    members: Callable[[], Awaitable[Sequence[MemberView]]]
    """The running processes of the server. Raises Unavailable."""
    streams: Callable[[], Awaitable[Mapping[str, int]]]
    """`relay` or `fanout` → the position up to which it has copied the log into JetStream, if known. Raises Unavailable."""
    row_level_security: Callable[[], Awaitable[bool]]
    """Whether the database shows the reads of requests one tenant at a time. Raises Unavailable."""
    durable: Callable[[], Awaitable[bool]]
    """Whether an answered append is on disk. False for a database that is marked as throw-away.

    Raises Unavailable if the log refuses appends because they would not be durable, and if the database is away.
    """
    room: HealthCheck
    """Whether the disk of the database has room. Raises Unavailable if it is full, and for no other reason."""
    gaps: Callable[[], Awaitable[Gaps]]
    """The positions of the log without an event, over a connection for reads. Raises Unavailable."""
    problems: WorkerProblems
    """What workers report about files that they cannot use."""
    outcomes: OutcomeCounts
    """How calls of tools with a breaker ended, to be shown. Uses the reads' share of the connections."""
    work_logs: WorkLogs
    """The lines of agents and tools, to be read. Uses the reads' share of the connections."""
    triggers: TriggerUses
    roots: Roots
    """Of which project an event is, and which triggers led to it."""
    budgets: "BudgetOffice"
    """What people do with budgets."""
    blobs: Blobs
    """Contents that are too large for events."""
    plan_checks: PlanChecks
    workflow_lookup: WorkflowLookup
    """Workflows as those who check plans see them."""
    upkeep: Callable[[], Awaitable[Sequence[UpkeepState]]]
    """The last run of each chore of the upkeep. Raises Unavailable."""
    dependencies: Mapping[str, HealthCheck]
    """Name → a check of a dependency. Health limits its time."""
