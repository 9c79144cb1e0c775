"""Notices that the worker's event loop stood still, and tells two reasons apart: code that blocks, and a process that did not run.

While code blocks the loop, another thread of the process goes on. While the process is stopped, or the machine is short of CPU,
that thread stands still, too. Code that holds the interpreter's lock also stops the thread, but uses the CPU.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable

from tidelog.logs import log
from tidelog.places import place_of_thread

logger = logging.getLogger(__name__)

TICK_S = 0.5
BLOCKED_S = 1.0
"""Seconds beyond a tick: a shorter delay is ordinary."""


class LoopWatch:
    """One line for each time that the loop stood still, however much work was in hand.

    `in_hand`: names of the agents and tools whose work is in hand.
    """

    def __init__(self, in_hand: Callable[[], Iterable[str]]) -> None:
        self._in_hand = in_hand

    async def run(self) -> None:
        """Watches until cancelled."""
        observer = _Observer(threading.get_ident())
        observer.start()
        try:
            while True:
                began, used, names = time.monotonic(), time.process_time(), set(self._in_hand())
                observer.beat(began)
                await asyncio.sleep(TICK_S)
                late_s = time.monotonic() - began - TICK_S
                if late_s > BLOCKED_S:
                    used_s, place = time.process_time() - used, observer.place
                    names |= set(self._in_hand())
                    observer.beat(time.monotonic())
                    if place is None:
                        await observer.has_looked(time.monotonic())
                    ran = place is not None or used_s > late_s / 2 or late_s - observer.late_since(began) > BLOCKED_S
                    _report(round(late_s, 1), place, sorted(names) if ran else None)
        finally:
            observer.stop()


def _report(seconds: float, place: str | None, in_hand: list[str] | None) -> None:
    """`in_hand`: None if the process did not run."""
    if in_hand is None:
        hint = "the process did not run: it was stopped, or the machine is short of CPU"
        log(logger, logging.INFO, "worker_stood_still", seconds=seconds, hint=hint)
    else:
        hint = "blocking code in an async function; run it with ctx.step or make it a sync tool"
        log(logger, logging.WARNING, "event_loop_blocked", seconds=seconds, where=place, in_hand=in_hand, hint=hint)


class _Observer(threading.Thread):
    """Counts its own delays, and looks where the loop's thread is when the loop has not given a sign for long."""

    def __init__(self, loop_thread: int) -> None:
        super().__init__(name="loop watch", daemon=True)
        self.place: str | None = None
        """Where the code of the loop's thread is, if the loop stands still since its last sign of life."""
        self._loop_thread = loop_thread
        self._stopped = threading.Event()
        self._beat = time.monotonic()
        self._delays: list[tuple[float, float]] = []
        """(when it ended, seconds) of the latest delays."""

    def beat(self, now: float) -> None:
        """A sign of life of the loop."""
        self._beat, self.place = now, None

    async def has_looked(self, at: float) -> None:
        """Waits until this thread, too, has seen how late it was. On a busy machine it may get the processor after the loop."""
        while self.is_alive() and (not self._delays or self._delays[-1][0] < at):  # noqa: ASYNC110  the thread sets no event
            await asyncio.sleep(TICK_S / 5)

    def late_since(self, since: float) -> float:
        """Seconds that this thread was late in all since then."""
        return sum(seconds for ended, seconds in self._delays if ended > since)

    def stop(self) -> None:
        self._stopped.set()

    def run(self) -> None:
        looked_for = awake_since = 0.0
        while True:
            began = time.monotonic()
            if self._stopped.wait(TICK_S):
                return
            now = time.monotonic()
            late_s = now - began - TICK_S
            self._delays = [*self._delays[-9:], (now, late_s)]
            if late_s >= TICK_S:  # a thread that was late itself knows nothing of the loop, which may run a moment later
                awake_since = now
            elif now - max(self._beat, awake_since) > TICK_S + BLOCKED_S / 2 and looked_for != self._beat:
                looked_for = self._beat
                self.place = place_of_thread(self._loop_thread)
