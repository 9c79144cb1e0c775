"""The log: appends, reads by stream and by position, live events, and ranges for a replay."""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, Protocol
from uuid import UUID

from pydantic_core import from_json

from domain.kernel import RecordedEvent


class NewEvent(NamedTuple):
    """An encoded event on its way into the log."""

    topic: str
    schema_version: int
    state: bytes


class AppendCommand(NamedTuple):
    """A command of an append. `command_id` is its dedupe key: a command is recorded once."""

    command_id: UUID
    metadata: str
    """`Metadata` as JSON text. Each event of the command gets it."""
    event_count: int
    """Its events: the next ones of the append. A command that decided nothing has none, and is recorded all the same."""
    content: UUID | None = None
    """A hash of what the command says, by which a repeat with another content is noticed. None: not compared."""


class StreamHead(NamedTuple):
    """A stream on which an append is decided. A stream without new events is a condition: it must not have moved."""

    stream_id: UUID
    root_id: UUID
    expected_version: int
    """The present version of the stream (0: the stream must not exist)."""


class Placed(NamedTuple):
    """An event and its place in an append. The versions of a stream's events run on from its expected version."""

    stream: int
    """Index of its stream."""
    event: NewEvent
    settled: int = 0
    """Mask of the sagas whose whole answer to the event is in the same append."""


class AppendRequest(NamedTuple):
    """One atomic append of one or more commands, to one or several streams. The events stand in the order of cause."""

    tenant_id: UUID
    commands: tuple[AppendCommand, ...]
    streams: tuple[StreamHead, ...]
    events: tuple[Placed, ...]


class StreamAppend(NamedTuple):
    """New events of one stream, for an append of one command."""

    stream_id: UUID
    root_id: UUID
    expected_version: int
    events: tuple[NewEvent, ...]


def one_command(
    tenant_id: UUID, command_id: UUID, streams: Sequence[StreamAppend], metadata: str, content: UUID | None = None
) -> AppendRequest:
    """An append of one command. Its events stand stream by stream."""
    return AppendRequest(
        tenant_id,
        (AppendCommand(command_id, metadata, sum(len(stream.events) for stream in streams), content),),
        tuple(StreamHead(stream.stream_id, stream.root_id, stream.expected_version) for stream in streams),
        tuple(Placed(place, event) for place, stream in enumerate(streams) for event in stream.events),
    )


class CommandRecord(NamedTuple):
    """What the log knows of a recorded command."""

    last_position: int
    """Position of its last event. Of a command without events: of the event before it."""
    event_count: int
    recorded_at: datetime
    content: UUID | None = None
    """See `AppendCommand.content`. None also for commands that earlier releases recorded."""


class StreamPlace(NamedTuple):
    """A place in a stream: its events after a version are wanted."""

    tenant_id: UUID
    stream_id: UUID
    after_version: int = 0


NOTHING_KNOWN: Mapping[UUID, CommandRecord] = MappingProxyType({})


class AppendResult(NamedTuple):
    """The last position of an append, and its number of events.

    An append with a command that had been recorded before writes nothing. Its result is that of the first such command.
    """

    last_position: int
    event_count: int
    recorded_at: datetime
    known: Mapping[UUID, CommandRecord] = NOTHING_KNOWN
    """The commands of the append that had been recorded before, as they were recorded then."""

    @property
    def duplicate(self) -> bool:
        """A command of the append had been recorded before, so nothing was written."""
        return bool(self.known)


class StreamEvent(NamedTuple):
    """An event of a stream, with what its state needs. Reading it costs a third of reading a `RecordedEvent`."""

    version: int
    position: int
    root_id: UUID
    topic: str
    schema_version: int
    state: bytes


class EventStore(Protocol):
    """The write side of the log, and reads of single streams."""

    async def append(self, request: AppendRequest) -> AppendResult:
        """Appends events. The append is durable on return.

        Raises:
            VersionConflict: a stream is not at its expected version, and no command was recorded before.
            PayloadTooLarge: an event is over the limit.
            Unavailable: the database is away, or the append queue is full.
        """
        ...

    async def read_stream(
        self,
        tenant_id: UUID,
        stream_id: UUID,
        *,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int | None = None,
    ) -> list[RecordedEvent]:
        """Events of one stream in order: all, or the first ones up to a limit. Empty for a stream of another tenant."""
        ...

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        """The events after each of the places, in their order, in one round trip. Empty for a stream of another tenant."""
        ...

    async def read_page(self, place: StreamPlace, limit: int) -> list[StreamEvent]:
        """The first events after a place in a long stream, in order. Empty for a stream of another tenant."""
        ...

    async def find_command(self, tenant_id: UUID, command_id: UUID) -> CommandRecord | None:
        """What the log knows of a command. None: the command was not recorded."""
        ...

    async def read_append(self, tenant_id: UUID, recorded: CommandRecord | AppendResult) -> list[RecordedEvent]:
        """The events of a recorded command, or of an accepted append, of this tenant, in order."""
        ...


class AskedBy(NamedTuple):
    """Whose events are wanted: those that one has asked for, those that were asked for on one's behalf, or both."""

    actor: str | None = None
    on_behalf_of: str | None = None

    def __call__(self, event: RecordedEvent) -> bool:
        if self == ANYBODY:
            return True
        try:
            asked = from_json(event.metadata)
        except ValueError:
            return False
        return isinstance(asked, dict) and all(
            wanted is None or asked.get(name) == wanted for name, wanted in zip(self._fields, self, strict=True)
        )


ANYBODY = AskedBy()


class FoundEvents(NamedTuple):
    """What was found, and the position up to which events were looked at. None: there are no more to look at."""

    found: list[RecordedEvent]
    reached: int | None


HEAD_BYTES = 1_024
"""How much of a state is read for events in short."""


class EventFeed(Protocol):
    """The read side of the log, by position. Positions are contiguous, so `after` is a complete cursor."""

    async def read(self, *, after: int, limit: int) -> list[RecordedEvent]:
        """Events of all tenants with `position > after`, in order. For projections and the relay."""
        ...

    async def at(self, positions: Sequence[int], *, tenant_id: UUID | None = None) -> list[RecordedEvent]:
        """The events at these positions, in order. `tenant_id`: the tenant whose events they are; None: any.

        Raises NotFound if the log lacks one of them, or another tenant has it.
        """
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
        rooted: bool = False,
    ) -> list[RecordedEvent]:
        """One tenant's events in order of position. `until` is inclusive. `newest_first`: from the end backwards.

        `rooted`: the root is a stream, as each run is. Its first event says at once whether the root is of the tenant. Without it,
        somebody who asks for a root of another tenant waits longer the more events it has.
        """
        ...

    async def look_through(
        self,
        tenant_id: UUID,
        asked: AskedBy,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        root_id: UUID | None = None,
        topics: Sequence[str] | None = None,
    ) -> FoundEvents:
        """One tenant's events that somebody has asked for, in order of position. Looks at a bounded number of events. `until` is
        inclusive. The root is a stream.
        """
        ...

    async def read_roots(
        self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int, tenant_id: UUID | None = None
    ) -> list[RecordedEvent]:
        """Events under several roots (tenant id, root id, after) in one query: of each root at most `limit`, in order. `tenant_id`:
        the tenant of all the roots; None: they may be of several.
        """
        ...

    async def rows(
        self,
        tenant_id: UUID,
        root_id: UUID | None,
        *,
        after: int,
        limit: int,
        until: int | None = None,
        skip: int = 0,
        topics: Sequence[str] | None = None,
    ) -> list[RecordedEvent]:
        """As `read_tenant`, `rooted`, with the first 1,024 bytes of each state alone. `skip`: so many of them are left out."""
        ...

    async def named(self, tenant_id: UUID, names: Sequence[tuple[UUID, int]]) -> list[RecordedEvent]:
        """The tenant's events with these names, stream and version, in order of position, with the first 1,024 bytes of each state
        alone. What is not there is left out.
        """
        ...

    async def count(
        self,
        tenant_id: UUID,
        root_id: UUID,
        *,
        after: int,
        every: int,
        limit: int,
        until: int | None = None,
        topics: Sequence[str] | None = None,
    ) -> tuple[int, list[int]]:
        """How many wanted events inside a root follow, up to `limit`, and the positions of each `every`-th of them."""
        ...

    async def head(self) -> int:
        """The position of the newest event; 0 for an empty log."""
        ...

    async def position_at(self, tenant_id: UUID, at: datetime, *, root_id: UUID | None = None) -> int:
        """The position of the last event recorded at or before a time; 0 if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Gaps:
    """Positions of the log without an event: somebody deleted rows."""

    head: int
    looked_from: int
    """The first position that was looked at."""
    missing: int
    gaps: Sequence[tuple[int, int]]
    """The first gaps, each with its first and its last position."""


class Subscription(Protocol):
    """The live log: old events, then live events, without a gap."""

    def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Every event after a position, once, in order, in batches of the available events. Never ends by itself.

        The generator waits for more events, and during outages of the stream or the database. `name` is for logs and for the names
        of server-side consumers.
        """
        ...


@dataclass(frozen=True, slots=True)
class StreamRange:
    """Streams by id: after `after` (None: from the first stream), up to and including `last`."""

    after: UUID | None
    last: UUID


StreamRow = tuple[bytes, int, str, int, bytes]
"""The parts of an event that a fold needs: stream id (16 bytes), version, topic, schema version, state."""


class StreamRanges(Protocol):
    """The log in ranges of whole streams, for a complete read by several processes. Methods block; one caller at a time."""

    def cut(self, *, size: int) -> tuple[int, list[StreamRange]]:
        """The head of the log, and ranges of about `size` events each that together hold all streams.

        Raises InvalidState for a database without a log, Unavailable.
        """
        ...

    def pages(self, part: StreamRange, *, until: int, tenant_id: UUID | None = None) -> Iterator[list[StreamRow]]:
        """Events up to a position, stream by stream, each stream in order, of all tenants or of one. Raises Unavailable."""
        ...
