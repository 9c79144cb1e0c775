"""Leases: the assignment of the engine's work to processes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Share:
    """A member's share of one group: how many units it may run, and which units it holds. It may hold more for a while."""

    size: int
    held: frozenset[str]
    offered_by: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Held unit → how many living members could run it. A unit of which nothing is said counts as known to fewest."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a beat."""

    shares: Mapping[str, Share]
    """By group."""
    any_session: bool
    """Whether any worker has a session. Who works for sessions asks for nothing while there are none."""
    groups: frozenset[str] = frozenset()
    """The groups of all living members, as they were before this beat."""


@dataclass(frozen=True, slots=True)
class Readable:
    """What a process can read. A later release writes nothing that a process beside it cannot read."""

    release: str
    formats: tuple[int, ...]
    """Formats of the log's messages on NATS."""
    event_versions: tuple[str, ...]
    """Such as `run.started/v1`. `*` alone: the process passes events on without reading them."""


class Leases(Protocol):
    """The assignment of units of work to processes.

    Leases save work. They are not needed for correctness: a unit may run twice at once without harm. A process without units beats
    too: it is then known as a member, with the release that it is of and what it can read.
    """

    async def beat(self, units: Mapping[str, Sequence[str]], given_back: Collection[str]) -> Beat:
        """Reports this process as alive, returns units that it no longer runs, and takes free units up to its fair share.

        A unit counts for the shares of the members that could run it. What the fewest could run is taken first.

        `units`: group → all units that the process could run. Raises Unavailable.
        """
        ...

    async def leave(self) -> None:
        """Returns all units at once. Raises Unavailable."""
        ...
