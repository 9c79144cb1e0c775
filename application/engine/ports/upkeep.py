"""Upkeep: what the server tidies up by itself, and a record of how that went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UpkeepRun:
    """How a chore went that has just ended."""

    name: str
    every_s: float
    seconds: float
    removed: int
    """Rows that were removed."""
    error: str | None = None
    """Why the chore failed."""


@dataclass(frozen=True, slots=True)
class UpkeepState:
    """The last run of a chore."""

    name: str
    every_s: float
    """Seconds between two runs."""
    ended_at: datetime
    age_s: float
    """Seconds since the last run. Negative: the clock was set back since."""
    success_age_s: float | None
    """Seconds since a run succeeded. None: no run has succeeded yet."""
    seconds: float
    """How long the last run took."""
    removed: int
    removed_in_all: int
    error: str | None


class UpkeepRuns(Protocol):
    """The record of the chores. All methods raise Unavailable."""

    async def record(self, run: UpkeepRun) -> None: ...

    async def states(self) -> Sequence[UpkeepState]:
        """The last run of each chore, by name."""
        ...


class RecordedCommands(Protocol):
    """The rows by which the log recognises a command that comes again."""

    async def prune(self, *, older_than_s: float, consumers: Sequence[str], parking: Sequence[str]) -> int:
        """Removes rows that are older and that nobody needs any more. Returns the number of removed rows. Raises Unavailable.

        `consumers` give commands because of events. A row is kept while one of them may still read an event that stood in the log
        when the row was made: rows after the lowest of their positions are kept, and all rows if one of them has no position.
        `parking`: rows after the first event that is parked under one of these names are kept as well.
        """
        ...
