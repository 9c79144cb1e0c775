"""Durable timers: commands that are due at some time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class DueTimer:
    """A due timer: its command, and the event that set the timer."""

    timer_id: UUID
    tenant_id: UUID
    root_id: UUID
    command: str
    """Name of the command's class."""
    payload: bytes
    """The command as JSON."""
    correlation_id: UUID
    cause: str


class Timers(Protocol):
    """Durable timers: a read model of the log, polled."""

    async def due(self, limit: int) -> list[DueTimer]: ...

    async def delete(self, timer_ids: Sequence[UUID]) -> None: ...

    async def seconds_until_next(self) -> float | None:
        """Seconds until the next timer is due. None: there is no timer."""
        ...

    async def wait_for_change(self, timeout: float) -> None:
        """Returns when timers may have changed, or after the time-out in seconds."""
        ...
