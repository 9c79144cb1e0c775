"""Checkpoints of consumers of the log whose effects are commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.kernel import RecordedEvent


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
        """Moves all of them to one position. Raises LostOwnership if another owner has taken one of them; Unavailable."""
        ...

    async def park(self, name: str, event: RecordedEvent, error: str) -> None:
        """Parks an event that could not be handled, for a person to look at."""
        ...


class LostOwnership(Exception):
    """Another process owns this consumer now."""
