"""`Tidelog-Position`: the position of an answer in the log, and the position for which a read waits."""

from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from fastapi import Request

from api.http.conventions.request import container_of, principal_of
from application.engine.ports.pages import parse_position
from application.engine.reading.as_of import until_caught_up
from application.lists_as_of import list_as_of
from application.reads import Positioned
from domain.errors import InvalidCommand

T = TypeVar("T")

POSITION = "Tidelog-Position"


def wanted_position(request: Request) -> int | None:
    """The position in the request's header `Tidelog-Position`. None without the header. Raises InvalidCommand."""
    wanted = request.headers.get(POSITION)
    if wanted is None:
        return None
    position = parse_position(wanted)
    if position is None:
        raise InvalidCommand(f"{POSITION} must be a position: a whole number")
    return position


async def caught_up(request: Request, *read_models: str) -> None:
    """Waits until read models have reached the position in the request's header `Tidelog-Position`, if the request has that header.

    Raises ProjectionBehind, PositionBeyondHead.
    """
    awaited = wanted_position(request)
    if awaited is None:
        return
    container = container_of(request)
    timeout_s = container.settings.read_timeout_s
    for read_model in read_models:
        await until_caught_up(container.histories, container.positions, read_model, awaited, timeout_s)


async def listed_as_of(
    request: Request, read_models: Collection[str], as_of: str, read: Callable[[int], Awaitable[T]]
) -> Positioned[T]:
    """A list as it was at a position or time. `read` reads the list as of a position. Raises what `list_as_of` raises."""
    container, tenant_id = container_of(request), principal_of(request).tenant_id
    feed, histories, positions = container.feed, container.histories, container.positions
    timeout_s = container.settings.read_timeout_s
    return await list_as_of(feed, histories, positions, tenant_id, read_models, as_of, read, timeout_s=timeout_s)
