"""What the application needs from outside, as small protocols owned here. Adapters implement them; nobody else may know how."""

from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from domain.kernel import RecordedEvent


class NewEvent(NamedTuple):
    """An encoded event on its way into the log."""

    topic: str
    schema_version: int
    state: bytes


class StreamAppend(NamedTuple):
    """Events for one stream. `expected_version` is the version the stream must have now (0: it must not exist)."""

    stream_id: UUID
    root_id: UUID
    expected_version: int
    events: tuple[NewEvent, ...]


class AppendRequest(NamedTuple):
    """One atomic append, over one or several streams. `command_id` is its dedupe key: the same command is recorded once."""

    tenant_id: UUID
    command_id: UUID
    streams: tuple[StreamAppend, ...]
    metadata: str
    """`Metadata` as JSON text, put on each event."""


class AppendResult(NamedTuple):
    """Positions of an accepted append: the last one, and how many events there were. `duplicate`: it had been recorded before."""

    last_position: int
    event_count: int
    recorded_at: datetime
    duplicate: bool


class EventStore(Protocol):
    """The write side of the log, and the reading of single streams."""

    async def append(self, request: AppendRequest) -> AppendResult:
        """Durable on return.

        Raises:
            VersionConflict: a stream is not at its expected version (and the command was not recorded before).
            PayloadTooLarge: an event is over the limit.
            Unavailable: the database is away, or the append queue is full.
        """
        ...

    async def read_stream(
        self, tenant_id: UUID, stream_id: UUID, *, after_version: int = 0, until_position: int | None = None
    ) -> list[RecordedEvent]:
        """All events of one stream in order; nothing for another tenant's."""
        ...

    async def find_command(self, tenant_id: UUID, command_id: UUID) -> AppendResult | None:
        """The answer that a command got when it was recorded, if it was."""
        ...

    async def read_append(self, tenant_id: UUID, result: AppendResult) -> list[RecordedEvent]:
        """The events of an append that was accepted, in their order; of this tenant's only."""
        ...


class EventFeed(Protocol):
    """The read side of the log, by position. Positions are contiguous, so `after` is a complete cursor."""

    async def read(self, *, after: int, limit: int) -> list[RecordedEvent]:
        """Events of all tenants with `position > after`, in order; for projections and the relay."""
        ...

    async def at(self, positions: Sequence[int]) -> list[RecordedEvent]:
        """The events of all tenants at these positions, in order. Raises NotFound if the log lacks one of them."""
        ...

    async def read_tenant(
        self,
        tenant_id: UUID,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> list[RecordedEvent]:
        """One tenant's events in order of position; `until` is inclusive. With `newest_first` from the end backwards."""
        ...

    async def read_roots(self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int) -> list[RecordedEvent]:
        """Events under several roots, (tenant id, root id, after) each, in one question; of each root at most `limit`, in order."""
        ...

    async def head(self) -> int:
        """The position of the newest event; 0 for an empty log."""
        ...

    async def position_at(self, tenant_id: UUID, at: datetime, *, root_id: UUID | None = None) -> int:
        """The position of the last event recorded at or before a time; 0 if there is none."""
        ...


class Subscription(Protocol):
    """The live log: catch-up and live events without a seam."""

    def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Every event after a position, once, in order, in batches of what is there; waits for more, never ends by itself.

        Outages of the stream or the database are waited out inside. `name` is for logs and for the names of server-side consumers.
        """
        ...


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work for a worker: run an agent, or call a tool."""

    tenant_id: UUID
    kind: str
    """`agent` or `tool`."""
    pool: str
    """The name of the agent or tool: workers that have it pull from its queue."""
    work_id: UUID
    """The agent run's or the invocation's id."""
    dispatch: int
    """1 for the first dispatch, one more each time the work is to be picked up again (a retry, a wake-up)."""
    root_id: UUID


@dataclass(frozen=True, slots=True)
class Queue:
    """Where workers pull the work of one agent or tool: a stream and a durable consumer on it."""

    kind: str
    pool: str
    stream: str
    consumer: str
    log_id: str
    """Of the log whose work it is: several may share the server of the queue."""


class WorkQueue(Protocol):
    """The queue that workers pull from. Derived data: what it loses is dispatched again from the log."""

    async def publish(self, items: Sequence[WorkItem]) -> None:
        """Puts work on the queue; an item that still waits there is left alone. Raises Unavailable."""
        ...

    async def ensure(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        """Makes the consumer of one agent or tool, if it is not there. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a consumer of the log has come. `epoch` counts its owners: an older owner's advance is refused."""

    position: int
    epoch: int


class Checkpoints(Protocol):
    """Positions of consumers whose effects are idempotent commands; projections keep theirs in the rows' transaction."""

    async def take(self, names: Sequence[str]) -> dict[str, Checkpoint]:
        """Becomes the owner of the consumers' positions, and reads them."""
        ...

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        """Moves all of them to one position. Raises LostOwnership when another owner took one since; Unavailable."""
        ...

    async def park(self, name: str, event: RecordedEvent, error: str) -> None:
        """Puts aside an event that could not be handled, for a person to look at."""
        ...


class LostOwnership(Exception):
    """Another process owns this consumer now."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a member of the engine may do of one group of units: how many, and which ones it holds (more than that for a while)."""

    size: int
    held: frozenset[str]


class Leases(Protocol):
    """Which process does which unit of work. An economy, not a safety: each unit bears being done twice at once."""

    async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> dict[str, Share]:
        """Says that this process lives, gives back units that it no longer does, and takes free ones up to its fair share.

        `units`: all that it could do, by group. Answers by group. Raises Unavailable.
        """
        ...

    async def leave(self) -> None:
        """Gives everything back at once. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer whose time has come: the command it stands for, and what set it."""

    timer_id: UUID
    tenant_id: UUID
    root_id: UUID
    command: str
    """Name of the command's class."""
    payload: bytes
    """The command as JSON."""
    correlation_id: UUID
    cause: str


class Timers(Protocol):
    """Durable timers: a read model of the log, polled."""

    async def due(self, limit: int) -> list[DueTimer]: ...

    async def delete(self, timer_ids: Sequence[UUID]) -> None: ...

    async def seconds_until_next(self) -> float | None:
        """None: there is no timer."""
        ...

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when timers may have changed, or after the time-out (seconds)."""
        ...


class OpenWork(Protocol):
    """Work that the log says is open: what the queue must hold."""

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        """Open work that was dispatched longer ago, by id; `after` is the last id of the page before."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a stream after one of its events, as JSON. `model`: digest of the rules that made it."""

    tenant_id: UUID
    stream_id: UUID
    version: int
    """Of the last event that the state is built from."""
    position: int
    """Of the same event."""
    slice_name: str
    model: str
    state: bytes


class Snapshots(Protocol):
    """States beside the log, never needed for correctness."""

    async def read_stream(
        self, tenant_id: UUID, stream_id: UUID, *, slice_name: str, model: str, until_position: int | None = None
    ) -> tuple[Snapshot | None, list[RecordedEvent]]:
        """The newest snapshot of this slice and model at or before a position, and the events after it, in one round trip.

        None, and all events, where no snapshot fits the log. Raises Unavailable.
        """
        ...

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        """At most one for each stream; the newest two of a stream are kept. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class StreamRange:
    """Streams by id: those after `after` (None: from the first one), up to and including `last`."""

    after: UUID | None
    last: UUID


StreamRow = tuple[bytes, int, str, int, bytes]
"""Of an event what a fold needs: stream id (16 bytes), version, topic, schema version, state."""


class StreamRanges(Protocol):
    """The log cut into ranges of whole streams, for reading all of it by several processes. Blocks; one caller at a time."""

    def cut(self, *, size: int) -> tuple[int, list[StreamRange]]:
        """The head of the log, and ranges of about `size` events each that together hold all streams.

        Raises InvalidState for a database without a log, Unavailable.
        """
        ...

    def pages(self, part: StreamRange, *, until: int, tenant_id: UUID | None = None) -> Iterator[list[StreamRow]]:
        """Events up to a position, stream after stream, each in order; of all tenants or of one. Raises Unavailable."""
        ...
