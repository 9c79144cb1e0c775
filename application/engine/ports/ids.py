"""The log by ids, for people who have only the beginning of an id."""

from typing import NamedTuple, Protocol
from uuid import UUID


class StreamStart(NamedTuple):
    """The first event of a stream."""

    stream_id: UUID
    root_id: UUID
    topic: str
    position: int


class LogIndex(Protocol):
    """Each query costs a few look-ups in an index, however long the log is. All raise Unavailable."""

    async def streams(self, tenant_id: UUID, first: UUID, last: UUID, *, limit: int) -> tuple[list[StreamStart], bool]:
        """The tenant's streams with ids from `first` to `last`, in the order of ids, and whether these are all.

        Looks at `limit` streams at most, streams of other tenants included.
        """
        ...

    async def of_command(self, tenant_id: UUID, command_id: UUID) -> range | None:
        """The positions of the events that a recorded command led to. None: no such command is recorded, or no longer."""
        ...

    async def of_event(self, tenant_id: UUID, stream_id: UUID, version: int) -> int | None:
        """The position of an event by its place in its stream. None: no such event."""
        ...
