"""Items on their way from other threads to an event loop: one wake-up for all that come before the loop looks."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Handoff(Generic[T]):
    """`put` may be called from any thread; items are handled on the loop, in order. `handle` must not raise."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Callable[[T], None]) -> None:
        self._loop = loop
        self._handle = handle
        self._items: deque[T] = deque()
        self._called = False

    def put(self, item: T) -> None:
        self._items.append(item)
        if not self._called:
            self._called = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._called = False  # before the items are taken: one that is put in from here on calls again
        for _ in range(len(self._items)):
            self._handle(self._items.popleft())
        if self._items and not self._called:
            self._called = True
            self._loop.call_soon(self._hand_over)
