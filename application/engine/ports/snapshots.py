"""Snapshots: states of streams, stored beside the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

from domain.kernel import RecordedEvent


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of a stream after one of its events, as JSON. `model`: digest of the rules that made the state.

    What is stored is a whole state, or the changes since another snapshot. What is read is a whole state and all changes after it.
    """

    tenant_id: UUID
    stream_id: UUID
    version: int
    """Version of the last event in the state."""
    position: int
    """Position of the same event."""
    slice_name: str
    model: str
    state: bytes
    since: int = 0
    """Version of the snapshot whose state the changes in `state` change. 0: `state` is a whole state."""
    changes: tuple[bytes, ...] = ()
    """The changes after `state`, up to `version`. Empty in a snapshot that is stored."""


class SnapshotPlace(NamedTuple):
    """A stream that is to be loaded, and the rules whose snapshots fit."""

    tenant_id: UUID
    stream_id: UUID
    slice_name: str
    model: str


StreamSince = tuple[Snapshot | None, list[RecordedEvent]]
"""The newest snapshot of a stream that fits, and the events after it. Without one: all events."""


class Snapshots(Protocol):
    """Snapshots of states, stored beside the log. They are never needed for correctness."""

    async def read_stream(
        self, tenant_id: UUID, stream_id: UUID, *,
        slice_name: str, model: str, until_position: int | None = None, limit: int | None = None,
    ) -> StreamSince:  # fmt: skip
        """The newest snapshot of this slice and model at or before a position, with all that it builds on, and the events after it,
        in one round trip.

        Returns None and the events from the first on if no snapshot matches the log. `limit`: of events. Raises Unavailable.
        """
        ...

    async def read_streams(self, places: Sequence[SnapshotPlace]) -> list[StreamSince]:
        """The same for several streams, at their present ends, in one round trip. Raises Unavailable."""
        ...

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Stores snapshots, at most one for each stream. The newest two whole states of a stream are kept, with the changes after
        them. Raises Unavailable."""
        ...
