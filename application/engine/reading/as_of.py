"""Positions that callers name: the position that a read model must have reached, and the last position of a replay."""

import re
from datetime import datetime
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import parse_position
from application.engine.ports.positions import ConsumerPositions
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import InvalidCommand

_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)
"""The begin of a time. Without this check pydantic would read a bare number as seconds since 1970."""


async def position_as_of(
    feed: EventFeed, histories: HistoryKeeper, tenant_id: UUID, as_of: str, *, root_id: UUID | None = None
) -> int:
    """The position of `as_of`. A position is limited to the head. For an RFC 3339 time: the last position at that time.

    Raises InvalidCommand for any other text.
    """
    position = parse_position(as_of)
    if position is not None:
        return await histories.at_most_head(position)
    at = _time(as_of)
    if at is None:
        raise InvalidCommand("as_of must be a position or an RFC 3339 time with its zone", pointer="/as_of")
    return await feed.position_at(tenant_id, at, root_id=root_id)


def time_of(name: str, text: str | None) -> datetime | None:
    """The time of a parameter; None without one. Raises InvalidCommand for a text that is no RFC 3339 time with its zone."""
    at = _time(text) if text is not None else None
    if text is not None and at is None:
        raise InvalidCommand(f"{name} must be an RFC 3339 time with its zone", pointer=f"/{name}")
    return at


def _time(text: str) -> datetime | None:
    try:
        at = _TIME.validate_python(text) if _DATE.match(text) else None
    except ValidationError:
        at = None
    return None if at is None or at.tzinfo is None else at


async def until_caught_up(
    histories: HistoryKeeper, positions: ConsumerPositions, read_model: str, position: int, timeout_s: float
) -> None:
    """Waits until a read model has reached a position, so that a caller reads its own writes.

    Raises PositionBeyondHead, ProjectionBehind after the time-out, Unavailable.
    """
    await histories.must_have(position)
    await positions.until(read_model, position, timeout_s)
