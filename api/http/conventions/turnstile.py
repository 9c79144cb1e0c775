"""Requests begin in portions: at most so many in one turn of the event loop, in the order of their arrival.

A thousand requests that arrive at once would all be carried on to their appends in one turn of some 300 ms. In that time nothing is
written, no worker gets work and nothing is answered, and then the others of this machine have all of their work left. With portions
the first runs are under way while the last ones begin.
"""

import asyncio
from collections import deque
from collections.abc import Callable

BEGUN_A_TURN = 32
"""Requests. Some 10 ms of starts of runs: about as long as an append takes."""


class Turnstile:
    """Of one server. Few requests pass at once, and cost one call of a turn."""

    def __init__(self, most: int = BEGUN_A_TURN) -> None:
        self._most = most
        self._left = most
        self._waiting: deque[Callable[[], None]] = deque()

    def admit(self, begin: Callable[[], None]) -> None:
        """Calls the function now, or in one of the next turns of the event loop."""
        if self._left == self._most:
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self._left:
            self._left -= 1
            begin()
        else:
            self._waiting.append(begin)

    def _next_turn(self) -> None:
        self._left = self._most
        if not self._waiting:
            return
        asyncio.get_running_loop().call_soon(self._next_turn)
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
