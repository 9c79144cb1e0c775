"""Checkpoints of consumers of the log whose effects are commands."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.kernel import RecordedEvent


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The position of a consumer of the log. `epoch` counts its owners: an advance by an older owner is refused."""

    position: int
    epoch: int
    place: str | None = field(default=None, compare=False)
    """Where the store found it last: a hint that saves looking for it."""


class Checkpoints(Protocol):
    """Positions of consumers whose effects are idempotent commands.

    Projections store their positions in the transaction of their rows.
    """

    async def take(self, names: Sequence[str]) -> dict[str, Checkpoint]:
        """Makes the caller the owner of the consumers' positions, and reads the positions."""
        ...

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        """Moves all given consumers to one position. Raises LostOwnership if another owner has taken one of them; Unavailable."""
        ...

    async def park(self, name: str, event: RecordedEvent, error: str) -> None:
        """Parks an event that could not be handled, for a person to look at."""
        ...


class LostOwnership(Exception):
    """Another process owns this consumer now."""


class SteppedBack(LostOwnership):
    """The database has lost the last moves of a consumer, which did not wait for the disk. Its owner reads again from there."""
