"""The right to work on a piece of work. When the lease is lost, the user's code is stopped, whatever it waits for."""

import asyncio
from collections.abc import Awaitable
from typing import Literal, NoReturn, TypeVar

from tidelog.errors import ConflictError, NotFoundError, PermissionDeniedError, TidelogAPIError, TidelogConnectionError

T = TypeVar("T")

Loss = Literal["over", "unavailable", "refused", "unknown"]
"""`over`: finished, cancelled or taken by another worker. `unavailable`: the server has been away for too long.
`refused`: the server refuses this worker, or a report that the server does not understand. `unknown`: the server's log no longer
has the work, as after a restore from a backup."""

OVER_CODES = ("work-over", "stale-attempt", "invalid-token")


def loss_of(error: TidelogAPIError | TidelogConnectionError) -> Loss:
    """The loss that an error of a report means for the work."""
    if isinstance(error, ConflictError | PermissionDeniedError) and error.code in OVER_CODES:
        return "over"
    if isinstance(error, NotFoundError):
        return "unknown"
    if isinstance(error, TidelogConnectionError) or error.retryable:
        return "unavailable"
    return "refused"


class Lease:
    """Shared by the task that owns the work and the context that user code holds."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()

    def give_up(self, loss: Loss) -> None:
        if not self.lost.done():
            self.lost.set_result(loss)

    async def guard(self, request: Awaitable[T], *passes: type[TidelogAPIError]) -> T:
        """Await a request to the server. If the request loses the work, this method never returns: user code could catch an
        exception and go on, so it is left waiting until the owner cancels it. Errors of the types in `passes` go to the caller.
        """
        try:
            return await request
        except (TidelogAPIError, TidelogConnectionError) as error:
            loss = loss_of(error)
            if isinstance(error, passes) and loss != "over":
                raise
            return await self._wait_for_the_end(loss)

    async def _wait_for_the_end(self, loss: Loss) -> NoReturn:
        self.give_up(loss)
        while True:
            await asyncio.Event().wait()
