"""Leases: which process does which part of the engine's work."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


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
