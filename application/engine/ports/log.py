"""The log: appending to it, reading it by stream and by position, following it live, and cutting it into ranges for a replay."""

from collections.abc import AsyncGenerator, Iterator, Sequence
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
