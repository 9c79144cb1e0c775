"""What came from the server, on its way to the user's loop."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from tidelog.handoff import Handoff

MAX_WAITING = 4_096
"""Items that wait for the user's loop, before the session stops to read from its socket."""


class Inbound(Handoff[Any]):
    """`put` and `room` belong to the session's thread; items are handled on the user's loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[Any], None]) -> None:
        super().__init__(loop, handle)
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def has_room(self) -> bool:
        return len(self._items) < MAX_WAITING

    async def room(self) -> None:
        """Returns when few enough items wait."""
        while not self.has_room:
            event = asyncio.Event()
            self._waiter = (asyncio.get_running_loop(), event)
            if not self.has_room:  # the user's loop may have looked for the waiter just before
                await event.wait()

    def _hand_over(self) -> None:
        super()._hand_over()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            loop, event = waiter
            with contextlib.suppress(RuntimeError):  # the session's loop is closed
                loop.call_soon_threadsafe(event.set)
