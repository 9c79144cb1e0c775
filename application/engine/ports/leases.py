"""Leases: which process does which part of the engine's work."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Share:
    """A member's part of one group: how many units it may run, and which ones it holds. For a while it may hold more."""

    size: int
    held: frozenset[str]


class Leases(Protocol):
    """Which process runs which unit of work.

    Leases save work; they keep nothing safe: a unit may run twice at once without harm.
    """

    async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> dict[str, Share]:
        """Reports this process as alive, gives back units that it no longer runs, and takes free units up to its fair share.

        `units`: group → all units that the process could run. Answers group → share. Raises Unavailable.
        """
        ...

    async def leave(self) -> None:
        """Gives all units back at once. Raises Unavailable."""
        ...
