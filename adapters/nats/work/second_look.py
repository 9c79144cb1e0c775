"""A second look at what a stream holds, a moment after the first, for who listens to the same subjects with a plain subscription.

Whoever listens first and looks then might think that no message escapes: one that was published before the subscription is stored,
and a later one is heard. But the server delivers a message on one thread and stores it on another. One that came just before the
subscription may be stored just after the look. The second look finds it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from application.engine.background import OnDemand

SECOND_LOOK_S = 0.25
"""Seconds after the first look. The server stores what it has taken within a few milliseconds."""


class SecondLook:
    """The owner arms it with each first look, and calls `close` when nobody listens any more. It may be armed again afterwards."""

    def __init__(self, look: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """`look`: handles its failures itself."""
        self._look = look
        self._name = name
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._looking = OnDemand(self._run, name)

    def arm(self) -> None:
        self.disarm()
        self._timer = asyncio.get_running_loop().call_later(SECOND_LOOK_S, self._fall_due)

    def disarm(self) -> None:
        """The look is needed no more. One that is under way goes on."""
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        self.disarm()
        await self._looking.close()
        self._looking = OnDemand(self._run, self._name)

    def _fall_due(self) -> None:
        self._timer, self._due = None, True
        self._looking.start()

    async def _run(self) -> None:
        while self._due:
            self._due = False
            await self._look()
