"""The free slots of a worker, as the worker has told them."""

import asyncio
from collections import deque
from collections.abc import Callable

from application.workers.hosting.messages import FreeSlots

KINDS = ("agent", "tool", "reconcile")
"""Of work."""
SLOTS = {"agent": "agent", "tool": "tool", "reconcile": "tool"}
"""Kind of work → whose slots it takes."""
LINGER_S = 0.5
"""Seconds without a free slot after which requests for work are taken back. A busy worker has a free slot again sooner."""


class Credit:
    """Free slots of one kind. The worker tells an absolute number, together with the number of the last work that it has seen.

    Work that was sent after that number, and work that is being claimed, takes slots that the worker has not counted yet.
    """

    def __init__(self) -> None:
        self._told = 0
        self._after = 0
        self._sent: deque[int] = deque()
        """Numbers of the work that the worker had not seen when it told its slots."""
        self._reserved = 0

    @property
    def free(self) -> int:
        return max(0, self._told - len(self._sent) - self._reserved)

    def tell(self, slots: int, after: int) -> None:
        """`after`: the number of the last work that the worker has seen. What was told before is out of date and has no effect."""
        if after < self._after:
            return
        self._told, self._after = slots, after
        while self._sent and self._sent[0] <= after:
            self._sent.popleft()

    def reserve(self) -> None:
        """Keeps a slot for work that is being claimed."""
        self._reserved += 1

    def release(self) -> None:
        """The claim came to nothing."""
        self._reserved -= 1

    def sent(self, number: int) -> None:
        """The work of a reserved slot was sent under a number."""
        self._reserved -= 1
        self._sent.append(number)

    def sent_again(self, number: int) -> None:
        """Work without a reserved slot was sent: the worker had it, or should have had it, before it came back."""
        self._sent.append(number)


class Slots:
    """The free slots of a worker for agents and for tools."""

    def __init__(self, grew: Callable[[str], None], starved: Callable[[str], None]) -> None:
        """`grew`: called with `agent` or `tool` when more slots are free. `starved`: when none has been free for a while."""
        self._grew = grew
        self._starved = starved
        self._credit = {kind: Credit() for kind in SLOTS.values()}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def free(self, kind: str) -> int:
        return self._credit[SLOTS[kind]].free

    def tell(self, said: FreeSlots, last: int) -> None:
        """The worker tells its free slots. `last`: the number of the last work that was sent."""
        for kind, slots in (("agent", said.agent), ("tool", said.tool)):
            before = self.free(kind)
            self._credit[kind].tell(slots, min(said.n, last))
            self._look(kind, before)

    def reserve(self, kind: str) -> None:
        """Keeps a slot for work that is being claimed."""
        kind = SLOTS[kind]
        before = self.free(kind)
        self._credit[kind].reserve()
        self._look(kind, before)

    def release(self, kind: str) -> None:
        """The claim for which a slot was kept came to nothing."""
        kind = SLOTS[kind]
        before = self.free(kind)
        self._credit[kind].release()
        self._look(kind, before)

    def sent(self, kind: str, number: int, *, reserved: bool) -> None:
        """Work was sent. `reserved`: a slot was kept for it."""
        credit = self._credit[SLOTS[kind]]
        credit.sent(number) if reserved else credit.sent_again(number)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers = {}

    def _look(self, kind: str, before: int) -> None:
        free = self.free(kind)
        if free:
            if (timer := self._timers.pop(kind, None)) is not None:
                timer.cancel()
        elif kind not in self._timers:
            self._timers[kind] = asyncio.get_running_loop().call_later(LINGER_S, self._starve, kind)
        if free > before:
            self._grew(kind)

    def _starve(self, kind: str) -> None:
        del self._timers[kind]
        self._starved(kind)
