"""The parts of a process by name, and the keywords that replace them."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from adapters.nats import FanOut, NatsConnection, Signal
    from adapters.postgres.listener import Notifications
    from adapters.postgres.log.own_appends import OwnAppends
    from api.assembly.pools import Pools, Waits
    from api.container import HealthCheck, MemberView
    from api.settings import Role, Settings
    from api.tools_told import ToolsTold
    from application.audit import RefusalCounter
    from application.blobs import Blobs
    from application.engine.catalog import Catalog
    from application.engine.commands.hooks import Hook
    from application.engine.commands.loop import CommandLoop
    from application.engine.leases import SessionPresence
    from application.engine.ports.blobs import BlobStore
    from application.engine.ports.browser_sessions import BrowserSessions, SessionEndings
    from application.engine.ports.checkpoints import Checkpoints
    from application.engine.ports.due import DueStreams
    from application.engine.ports.expressions import Expressions
    from application.engine.ports.hook_secrets import HookSecrets
    from application.engine.ports.idempotency import IdempotencyKeys
    from application.engine.ports.ids import LogIndex
    from application.engine.ports.leases import Leases
    from application.engine.ports.log import EventFeed, EventStore, Gaps, Subscription
    from application.engine.ports.outcomes import OutcomeCounts
    from application.engine.ports.parked import ParkedEvents
    from application.engine.ports.permits import PermitBook, PermitNews
    from application.engine.ports.positions import ConsumerPositions, PositionCalls
    from application.engine.ports.problems import WorkerProblems
    from application.engine.ports.projections import ProjectionOperations
    from application.engine.ports.queue import OpenWork, WorkQueue
    from application.engine.ports.sessions import WorkerSessions
    from application.engine.ports.snapshots import Snapshots
    from application.engine.ports.timers import Timers
    from application.engine.ports.upkeep import RecordedCommands, UpkeepRuns
    from application.engine.ports.work_logs import WorkLogs
    from application.engine.reading.histories import HistoryStore
    from application.engine.reading.history_keeper import HistoryKeeper, Witness
    from application.engine.reading.live import LiveFeed
    from application.reads import CurrentRuns, Reads
    from application.runs.admission import RunAdmission
    from application.triggers.firing import Firing
    from application.triggers.roots import Roots
    from application.workers import Workers
    from application.workers.hosting.host import SessionHost
    from application.workers.tokens import LeaseTokens
    from application.workflows import Workflows
    from projections.engine.kernel import Database, Projection
    from projections.engine.plugins import Discovery

Loop = Coroutine[Any, Any, None]
T = TypeVar("T")


class Listening(Protocol):
    """A `Listener` that runs in a task."""

    async def wait(self, timeout: float) -> None:
        """Returns at a notification, or after the time-out in seconds."""
        ...

    async def failed(self) -> None:
        """Raises if the task ends before its owner ends it."""
        ...


class Overrides(TypedDict, total=False):
    """The keywords of `assemble`, one for each part. Most are ports; a test gives its own implementation."""

    # Tables and rules of the product
    catalog: "Catalog"
    expressions: "Expressions"
    hooks: "Sequence[Hook]"
    projections: "Sequence[Projection]"
    """The read models of this distribution."""
    plugins: "Discovery"
    """The read models of installed plug-ins."""

    # PostgreSQL
    waits: "Waits"
    """How long requests wait for a database connection."""
    pools: "Pools"
    database: "Database"
    """Replaces all shares of the connections: also the shares of commands, reads and health."""
    feed: "EventFeed"
    """Replaces all shares, as `database` does."""
    index: "LogIndex"
    log_id: str
    store: "EventStore"
    own_appends: "OwnAppends | None"
    """None: the relay is told of appends by NOTIFY alone."""
    snapshots: "Snapshots | None"
    idempotency: "IdempotencyKeys"
    history_store: "HistoryStore"
    notifications: "Notifications"
    history_signal: Listening
    """Wakes the keeper of histories."""
    appends: "Signal"
    """Wakes the relay."""
    leases: "Leases"
    presence: "SessionPresence"
    checkpoints: "Checkpoints"
    """Checkpoints of the sagas."""
    timers: "Timers"
    due_schedules: "DueStreams"
    open_work: "OpenWork"
    recorded_commands: "RecordedCommands"
    upkeep_runs: "UpkeepRuns"
    worker_sessions: "WorkerSessions"
    outcomes: "OutcomeCounts"
    """How calls of tools with a breaker ended, counted over all processes."""
    permits: "PermitBook"
    permit_news: "PermitNews"
    work_logs: "WorkLogs"
    """The lines of agents and tools, over the connections for the process's own work."""
    browser_sessions: "BrowserSessions"
    session_endings: "SessionEndings"
    blob_store: "BlobStore"
    blobs: "Blobs"
    lease_tokens: "LeaseTokens"
    hook_secrets: "HookSecrets"

    # NATS
    nats: "NatsConnection"
    subscription: "Subscription"
    work_queue: "WorkQueue"
    position_calls: "PositionCalls"
    fanout: "FanOut | None"

    # The engine
    witnesses: "Sequence[Witness]"
    histories: "HistoryKeeper"
    commands: "CommandLoop"
    live: "LiveFeed"
    workers: "Workers"
    workflows: "Workflows"
    hosting: "SessionHost"
    tools_told: "ToolsTold"
    """Tells a supervisor of tools that are data."""
    positions: "ConsumerPositions"
    replays: "CurrentRuns"
    roots: "Roots"
    """Of which project an event is, and which triggers led to it."""
    firing: "Firing"
    admission: "RunAdmission"
    """The bound of open runs."""
    refusals: "RefusalCounter"
    reads: "Reads"
    """The queries of read models."""
    operations: "ProjectionOperations"
    """The operations on read models for operators."""
    parked_events: "ParkedEvents"

    # For health
    log_head: Callable[[], Awaitable[int]]
    members: "Callable[[], Awaitable[Sequence[MemberView]]]"
    streams: Callable[[], Awaitable[Mapping[str, int]]]
    row_level_security: Callable[[], Awaitable[bool]]
    durable: Callable[[], Awaitable[bool]]
    room: "HealthCheck"
    gaps: "Callable[[], Awaitable[Gaps]]"
    problems: "WorkerProblems"
    dependencies: "Mapping[str, HealthCheck]"


class Parts:
    """The parts of one process. A part is built once, at its first use, by the function that is marked `part`."""

    def __init__(self, settings: "Settings", roles: "frozenset[Role]", stack: AsyncExitStack, given: Overrides) -> None:
        """`stack` closes the built parts in reverse order. Parts in `given` are not built. Raises TypeError for an unknown name."""
        if unknown := given.keys() - Overrides.__annotations__.keys():
            raise TypeError(f"there is no part called {', '.join(sorted(unknown))}")
        self.settings = settings
        self.roles = roles
        self.stack = stack
        self.given = given
        self.made: dict[str, Any] = dict(given)
        self.loops: dict[str, Callable[[], Loop]] = {}
        """Loops that must run while the parts are used, by name."""

    @property
    def name(self) -> str:
        return "+".join(sorted(self.roles))


def part(make: Callable[[Parts], Awaitable[T]]) -> Callable[[Parts], Awaitable[T]]:
    """Marks the function that makes the part of its name. The function runs once for each `Parts`, but not for a given part."""
    name = make.__name__
    if name not in Overrides.__annotations__:
        raise TypeError(f"Overrides has no keyword for the part {name}")

    @wraps(make)
    async def once(parts: Parts) -> T:
        if name not in parts.made:
            parts.made[name] = await make(parts)
        return cast(T, parts.made[name])

    once.__dict__["makes"] = name
    return once
