"""An agent that only waits leaves its worker: nothing of it is left in memory until something has come for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pydantic import JsonValue

from tidelog.calling import end_tasks
from tidelog.context import Context
from tidelog.crews import Crew
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.inbox import NOBODY, OpenWait
from tidelog.logs import log
from tidelog.worker.pieces import Piece
from tidelog.worker.protocol import WorkerApi
from tidelog.worker.stillness import only_waits

logger = logging.getLogger(__name__)

SUSPEND_AFTER_S = 5.0
"""Seconds of waiting after which an agent leaves its worker. To come back costs some milliseconds, and what the agent does before
its first call. A sleep that is known to take longer is not waited for at all."""
AGAIN_S, LONGEST_AGAIN_S = 0.05, 2.0
"""Seconds until the next look at an agent that did something else beside. The pause doubles."""
MOST_RECEIVES = 100

Told = Callable[[], Awaitable[None]]


class Suspending:
    """Watches one execution. `left` is done when the server has taken the agent back: then the execution is to be stopped."""

    def __init__(self, api: WorkerApi, piece: Piece, context: Context, crew: Crew, after_s: float | None, told: Told) -> None:
        """`told`: says first what the agent has said of its progress."""
        self._api = api
        self._piece = piece
        self._context = context
        self._crew = crew
        self._after_s = after_s
        self._tell = told
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._again_s = AGAIN_S
        self.left: asyncio.Future[int] = self._loop.create_future()
        """Its result is the number of waits that were open."""
        if after_s is not None:
            context.waits.changed = self._look

    def hurry(self) -> None:
        """Leave as soon as the agent only waits."""
        if self._after_s is not None:
            self._after_s = 0.0
            self._stop()
            self._look()

    async def close(self) -> None:
        self._context.waits.changed = lambda: None
        self._stop()
        if self._asking is not None:
            await end_tasks(self._asking)

    def _look(self) -> None:
        """A wait has begun or ended."""
        if not self._context.waits:
            self._stop()
            self._again_s = AGAIN_S
        elif self._asking is None:
            if self._timer is None:
                assert self._after_s is not None
                self._start(self._after_s)
            if any(wait.long for wait in self._context.waits):
                self._stop()
                self._start(0.0)

    def _start(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._consider, context=NOBODY)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _consider(self) -> None:
        self._timer = None
        session = self._api.session
        if not self._context.waits or self._piece.lease.lost.done() or self._asking is not None:
            return
        if session is None or not session.suspends or not only_waits(self._crew, self._context.waits):
            self._look_again()
            return
        self._asking = self._loop.create_task(self._ask(), name=f"suspend {self._piece.ticket.work}")

    async def _ask(self) -> None:
        waits = list(self._context.waits)
        receives = [_left_of(wait, self._loop.time()) for wait in waits if wait.receives]
        try:
            await self._tell()
            if len(receives) <= MOST_RECEIVES and await self._api.suspend(self._piece.ticket, self._context.version, receives):
                if not self.left.done():
                    self.left.set_result(len(waits))
                return
        except (TidelogAPIError, TidelogConnectionError) as error:  # what is wrong with the work, its own reports will learn
            log(logger, logging.DEBUG, "not_suspended", reason=str(error), **self._piece.fields())
        self._asking = None
        if self._context.waits:
            self._look_again()

    def _look_again(self) -> None:
        self._start(self._again_s)
        self._again_s = min(2 * self._again_s, LONGEST_AGAIN_S)


def _left_of(wait: OpenWait, now: float) -> dict[str, JsonValue]:
    left: dict[str, JsonValue] = {"key": wait.key}
    if wait.ends_at is not None:
        left["s"] = max(0.0, wait.ends_at - now)
    if wait.sender is not None:
        left["sender"] = wait.sender
    return left
