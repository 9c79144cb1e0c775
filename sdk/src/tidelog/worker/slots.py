"""Slots of a worker: how many executions run at once. An execution that only waits gives its slot back until the wait is over."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tidelog.inbox import NOBODY
from tidelog.logs import log

logger = logging.getLogger(__name__)

GIVE_BACK_AFTER_S = 2.0
"""Seconds of waiting after which an execution gives its slot back. Most tools answer sooner."""


class Slots:
    """A number of slots, taken in turn. Executions that come back from a wait are served before new ones.

    `waiting_limit`: the number of executions that may wait without a slot; further ones keep their slots while they wait.
    `changed`: called after the number of free slots has changed.
    """

    def __init__(self, number: int, waiting_limit: int = 0, changed: Callable[[], None] = lambda: None) -> None:
        self._free = number
        self._changed = changed
        self._waiting_limit = waiting_limit
        self._coming_back: deque[asyncio.Future[None]] = deque()
        self._new: deque[asyncio.Future[None]] = deque()
        self.waiting = 0
        """Executions that wait without a slot."""
        self._told = False

    @property
    def free(self) -> int:
        """Slots that a new execution could have at once."""
        return max(0, self._free)

    def let_wait(self) -> bool:
        """Frees the slot of an execution that waits. False: too many wait already."""
        if self.waiting >= self._waiting_limit:
            if not self._told:
                self._told = True
                log(logger, logging.WARNING, "too_many_wait", waiting=self.waiting, hint="further ones keep their slots")
            return False
        self.waiting += 1
        self.release()
        return True

    def back(self) -> None:
        """An execution no longer waits without a slot."""
        self.waiting -= 1
        self._told = False

    def take(self, *, coming_back: bool = False) -> bool:
        """Takes a slot if one is free and nobody stands in line before."""
        if self._free > 0 and not self._coming_back and (coming_back or not self._new):
            self._free -= 1
            self._changed()
            return True
        return False

    async def acquire(self, *, coming_back: bool = False) -> None:
        if self.take(coming_back=coming_back):
            return
        line = self._coming_back if coming_back else self._new
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the turn came at the same moment
            else:
                with suppress(ValueError):  # `release` may have dropped it already
                    line.remove(turn)
            raise

    def overdraw(self) -> None:
        """Takes a slot even if none is free. The next slots that are given back make up for it."""
        self._free -= 1
        self._changed()

    def release(self) -> None:
        self._free += 1
        while self._free > 0 and (line := self._coming_back or self._new):
            turn = line.popleft()
            if not turn.done():
                self._free -= 1
                turn.set_result(None)
        self._changed()


class Slot:
    """The slot of one execution, which has been acquired. Implements `tidelog.context.Place`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True
        self._ended = False
        self._waits = 0
        self._steps = 0
        self._leaving: asyncio.TimerHandle | None = None
        self._returning = asyncio.Lock()

    @property
    def held(self) -> bool:
        return self._held

    def end(self) -> None:
        """The execution is over."""
        self._ended = True
        self._stay()
        if self._held:
            self._slots.release()
        else:
            self._slots.back()
        self._held = False

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        self._waits += 1
        self._consider()
        try:
            yield
        except asyncio.CancelledError:
            self._waits -= 1
            self._come_back_at_once()
            raise
        except BaseException:
            self._waits -= 1
            await self._come_back()
            raise
        else:
            self._waits -= 1
            await self._come_back()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        self._steps += 1
        try:
            await self._come_back()
            yield
        finally:
            self._steps -= 1
            self._consider()

    def _consider(self) -> None:
        """Give the slot back after a while, if the execution then still does nothing but wait."""
        if self._held and not self._ended and self._leaving is None and self._waits and not self._steps:
            self._leaving = asyncio.get_running_loop().call_later(GIVE_BACK_AFTER_S, self._leave, context=NOBODY)

    def _leave(self) -> None:
        self._leaving = None
        if not self._held or self._ended or not self._waits or self._steps:
            return
        if self._slots.let_wait():
            self._held = False
        else:
            self._consider()

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _come_back(self) -> None:
        """Hold the slot again, in turn. Of several calls that end together one waits for the slot, and the others for that one."""
        self._stay()
        try:
            async with self._returning:
                if not self._held and not self._ended:
                    await self._slots.acquire(coming_back=True)
                    self._returned()
        except asyncio.CancelledError:
            self._come_back_at_once()
            raise
        self._consider()

    def _come_back_at_once(self) -> None:
        """User code gave up the wait and goes on now. To end after a cancellation, code must not have to wait for a slot."""
        self._stay()
        if not self._held and not self._ended:
            self._slots.overdraw()
            self._returned()
        self._consider()

    def _returned(self) -> None:
        if self._held or self._ended:  # the execution came back on another way, or ended, meanwhile
            self._slots.release()
            return
        self._held = True
        self._slots.back()
