"""What one process has at hand: built by api/assembly, used by HTTP and the roles. Ports and use cases only."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from api.settings import Settings
from application.engine.commands.loop import CommandLoop
from application.engine.parked import ParkedOperations
from application.engine.ports.idempotency import IdempotencyKeys
from application.engine.ports.log import EventFeed
from application.engine.ports.positions import ConsumerPositions
from application.engine.ports.projections import ProjectionOperations
from application.engine.ports.queue import WorkQueue
from application.engine.reading.cloudevents import CloudEventEncoder
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.live import LiveFeed
from application.reads import CurrentRuns, Reads
from projections.engine.kernel import Database

if TYPE_CHECKING:
    from application.workers import Workers


class HealthCheck(Protocol):
    async def __call__(self) -> None:
        """Raises a TidelogError that says what is wrong."""
        ...


class MemberView(Protocol):
    """A process that shares the engine's work."""

    @property
    def place(self) -> str: ...
    @property
    def joined_at(self) -> datetime: ...
    @property
    def alive(self) -> bool: ...
    @property
    def units(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """What a worker needs to reach the work queue."""

    url: str
    inbox_prefix: str


@dataclass(frozen=True, slots=True)
class Container:
    settings: Settings
    database: Database
    """For reads, with a share of the connections; so is `feed`."""
    feed: EventFeed
    histories: HistoryKeeper
    command_database: Database
    """For what a command needs beside the log; with the share of the connections that `commands` has."""
    idempotency: IdempotencyKeys
    """With that share, too."""
    commands: CommandLoop
    cloud_events: CloudEventEncoder
    workers: "Workers"
    live: LiveFeed
    positions: ConsumerPositions
    reads: Reads
    projections: ProjectionOperations
    parked: ParkedOperations
    replays: CurrentRuns
    work_queue: WorkQueue
    nats_access: NatsAccess
    log_head: Callable[[], Awaitable[int]]
    """The position of the newest event, over the connection for health. Raises Unavailable."""
    members: Callable[[], Awaitable[Sequence[MemberView]]]
    """Who does the engine's work. Raises Unavailable."""
    streams: Callable[[], Awaitable[Mapping[str, int]]]
    """Who copies the log into JetStream (`relay`, `fanout`) → up to which position, where that is known. Raises Unavailable."""
    durable: Callable[[], Awaitable[bool]]
    """Whether an answered append is on disk; False on a database that says it is to be thrown away.

    Raises Unavailable where the log takes no appends because it would not be, and where the database is away.
    """
    dependencies: Mapping[str, HealthCheck]
    """Name → a check with a time-out of its own."""
