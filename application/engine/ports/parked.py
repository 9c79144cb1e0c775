"""Parked events: events that a consumer of the log could not handle. They are the dead letters of sagas and read models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from pydantic import BaseModel

from application.engine.ports.pages import Page
from application.engine.ports.views import Timestamp


class ParkedView(BaseModel):
    position: int
    root_id: UUID
    tenant_id: UUID
    topic: str
    error: str
    since: Timestamp


@dataclass(frozen=True, slots=True)
class Retried:
    """The result for the parked events of one root: they were applied, or they stay parked because of an error."""

    root_id: UUID
    events: int
    """Number of the root's parked events."""
    error: str | None = None


class ParkedEvents(Protocol):
    """The parked events of consumers, which are given by name. All methods raise Unavailable."""

    async def list(self, consumers: Sequence[str], *, limit: int, after: int) -> Page[ParkedView]:
        """Parked events after a position, in the order of the log."""
        ...

    async def roots(self, consumers: Sequence[str], limit: int) -> Sequence[UUID]:
        """Roots with parked events, oldest first."""
        ...

    async def positions(self, consumers: Sequence[str], root_id: UUID) -> Sequence[int]:
        """Positions of a root's parked events, in order."""
        ...

    async def unpark(self, consumers: Sequence[str], root_id: UUID, done: Sequence[int]) -> None:
        """Removes the parked events at these positions, after they were handled."""
        ...
