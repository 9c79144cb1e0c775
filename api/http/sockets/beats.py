"""Signs of life on all connections of a process, by one timer. Without connections there is no timer."""

import asyncio
from collections import deque
from typing import Protocol

STEP_S = 1.0
"""The timer fires at most so often, and serves all connections whose time has come by then."""


class Alive(Protocol):
    over: bool

    def beat(self, *, in_time: bool) -> None:
        """Gives a sign of life, and looks for one of the peer. Must not raise. `in_time`: False if this process was busy or stopped
        for long, so that what the peer has said may be unread."""
        ...


class Beats:
    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due: deque[tuple[float, Alive]] = deque()
        """In the order of their times: each comes again after the same time."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Alive) -> None:
        """From now on, until it is over."""
        loop = asyncio.get_running_loop()
        self._due.append((loop.time() + self._every_s, one))
        if self._timer is None:
            self._timer = loop.call_later(self._every_s, self._beat)

    def _beat(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._due and (self._due[0][1].over or self._due[0][0] <= now):
            due, one = self._due.popleft()
            if not one.over:
                one.beat(in_time=now - due < STEP_S + self._every_s / 2)
                self._due.append((now + self._every_s, one))
        if self._due:
            self._timer = loop.call_later(max(min(STEP_S, self._every_s), self._due[0][0] - now), self._beat)
