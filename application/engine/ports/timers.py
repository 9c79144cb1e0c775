"""Durable timers: commands that are due at some time, whatever the clock of the database does meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

PARKED_AS = "due-timers"
"""The consumer under which events are parked whose timers could not fire. The read model `timers` parks under its own name."""


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A timer: its command, and the event that set the timer."""

    timer_id: UUID
    tenant_id: UUID
    root_id: UUID
    command: str
    """Name of the command's class."""
    payload: bytes
    """The command as JSON."""
    correlation_id: UUID
    cause: str
    """`<stream id>:<version>` of the event that set the timer."""


class Timers(Protocol):
    """Durable timers: a read model of the log, polled.

    A timer is due when its delay has passed since its event was recorded. The database's clock may be set back, also after a jump
    forward: then that time lies in the future. From the first look after that, a timer waits its own delay at most.
    """

    async def due(self, limit: int) -> list[DueTimer]:
        """Due timers, the one that was due first at the beginning."""
        ...

    async def delete(self, timer_ids: Sequence[UUID]) -> None: ...

    async def park(self, timer: DueTimer, error: str) -> None:
        """Parks the event that set the timer as one of the consumer `PARKED_AS`, and deletes the timer, in one step."""
        ...

    async def seconds_until_next(self) -> float | None:
        """Seconds until the next timer is due. None: there is no timer.

        Right after a look for due timers that found none, the answer may be that of this look. A timer that was set since ends the
        next `wait_for_change` at once.
        """
        ...

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when there may be a timer that is due before the next one that is known, or after the time-out in seconds."""
        ...
