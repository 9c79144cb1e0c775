"""Lists of read models as of a position or time."""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar
from uuid import UUID

from application.engine.ports.log import EventFeed
from application.engine.ports.positions import ConsumerPositions
from application.engine.reading.as_of import position_as_of
from application.engine.reading.history_keeper import HistoryKeeper
from application.reads import Positioned
from domain.errors import ProjectionBehind

T = TypeVar("T")


async def list_as_of(
    feed: EventFeed,
    histories: HistoryKeeper,
    positions: ConsumerPositions,
    tenant_id: UUID,
    read_models: Collection[str],
    as_of: str,
    read: Callable[[int], Awaitable[T]],
    *,
    timeout_s: float,
) -> Positioned[T]:
    """The list as it was at `as_of` (a position or an RFC 3339 time), and the position of `as_of`. `read` reads the list as of a
    position.

    Raises:
        InvalidCommand: `as_of` is neither a position nor a time.
        ProjectionBehind: one of the read models has not reached the position within the time-out.
        what `read` raises.
    """
    position = await position_as_of(feed, histories, tenant_id, as_of)
    try:
        return Positioned(await read(position), position)
    except ProjectionBehind:  # rare: most positions are old
        for read_model in read_models:
            await positions.until(read_model, position, timeout_s)
        return Positioned(await read(position), position)
