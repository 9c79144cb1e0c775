"""Which position of the log somebody means: the one that a read model must have, or the one that a replay goes up to."""

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
"""How a time begins: pydantic would take a bare number for seconds since 1970."""


async def position_as_of(
    feed: EventFeed, histories: HistoryKeeper, tenant_id: UUID, as_of: str, *, root_id: UUID | None = None
) -> int:
    """The position that `as_of` means: a position, at most the head, or the last one at an RFC 3339 time. Raises InvalidCommand."""
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
    """Returns when a read model has a position: who wrote an event there reads what it led to.

    Raises PositionBeyondHead, ProjectionBehind after the time-out, Unavailable.
    """
    await histories.must_have(position)
    await positions.until(read_model, position, timeout_s)
