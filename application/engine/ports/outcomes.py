"""Counts of how calls ended, one row for each breaker over all processes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

KEPT_S = 7 * 86_400.0
"""Seconds after which a row is removed that nobody has added to."""


class NewOutcomes(NamedTuple):
    """What one process has seen of one breaker since it told the last time."""

    tenant_id: UUID
    breaker_id: UUID
    changes: int
    """The newest change of the breaker that the process knows. The counts of an older one count no more."""
    window_s: float
    calls: int
    failures: int
    succeeded: bool
    """Whether one of the calls succeeded."""
    in_a_row: int
    """Failures since the last success among them, or all of them."""


class CountedOutcomes(NamedTuple):
    breaker_id: UUID
    changes: int
    calls: int
    """Of the present window."""
    failures: int
    in_a_row: int


class OutcomeCounts(Protocol):
    """All methods raise Unavailable."""

    async def add(self, news: Sequence[NewOutcomes]) -> Sequence[CountedOutcomes]:
        """Adds to the rows, each of which is named once. Returns what they hold then: of all processes.

        What is added may be lost when the database crashes within the next second.
        """
        ...

    async def of(self, tenant_id: UUID, breaker_id: UUID, window_s: float) -> CountedOutcomes | None:
        """None: nothing was counted, or not for long."""
        ...

    async def prune(self, older_than_s: float) -> int:
        """Removes rows that nobody has added to. Returns their number."""
        ...
