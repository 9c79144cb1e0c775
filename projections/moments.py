"""Lists of then: the rows of the present as they were at a position of the log.

The log's times never decrease. So the time of a position tells of most changes of a row whether they came before the position. Of
changes of the same time, as those of one append, the log tells.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from projections.kernel import Connection

T = TypeVar("T")

LOOKED_AT = 20_000
"""Rows that one page looks at. The page is then shorter than asked for, and the next page goes on from there."""
MAX_EVENTS = 200_000
"""Events of the log that are counted, or read, for one page."""

TIME_OF = "SELECT recorded_at FROM event WHERE notification_id <= %s ORDER BY notification_id DESC LIMIT 1"


class TimedPosition(NamedTuple):
    """A position of the log, and the time of its event."""

    position: int
    time: datetime


async def moment_of(connection: Connection, position: int) -> TimedPosition | None:
    """None: the log has no event up to the position."""
    found = await (await connection.execute(TIME_OF, [position])).fetchone()
    return None if found is None else TimedPosition(position, found[0])


def page_of_then(shown: Sequence[T], limit: int, id_of: Callable[[T], UUID], last: UUID | None) -> Page[T]:
    """`shown`: what the list has of the rows that were looked at. `last`: the last of these rows; None if there are no more."""
    data = list(shown[:limit])
    if len(shown) > limit:
        last = id_of(data[-1])
    return Page(data, None if last is None else encode_cursor(str(last)))
