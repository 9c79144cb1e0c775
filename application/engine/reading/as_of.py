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
    try:
        at = _TIME.validate_python(as_of) if _DATE.match(as_of) else None
    except ValidationError:
        at = None
    if at is None or at.tzinfo is None:
        raise InvalidCommand("as_of must be a position or an RFC 3339 time with its zone", pointer="/as_of")
    return await feed.position_at(tenant_id, at, root_id=root_id)


async def until_caught_up(
    histories: HistoryKeeper, positions: ConsumerPositions, read_model: str, position: int, timeout_s: float
) -> None:
    """Waits until a read model has reached a position, so that a caller reads its own writes.

    Raises PositionBeyondHead, ProjectionBehind after the time-out, Unavailable.
    """
    await histories.must_have(position)
    await positions.until(read_model, position, timeout_s)
