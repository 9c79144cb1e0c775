"""Time limits of one connection, in timers that mostly need not be touched: one for what comes in, one for what goes out."""

import asyncio
import struct
import sys
from collections.abc import Callable

SECOND_LOOK_S = 0.25
"""After a deadline has passed: what came in time may lie unread while the event loop was busy."""


class Deadline:
    """Calls `passed` when the time that was set last is over. A timer that fires too early is armed again: setting costs little."""

    __slots__ = ("_looked_at", "_loop", "_passed", "_timer", "due")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at: float | None = None
        """The `due` that has passed, and gets a second look."""
        self.due: float | None = None
        """In the event loop's time; None: there is no deadline, and a timer that still runs comes to nothing."""

    def set(self, due: float) -> None:
        self.due = due
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        due = self.due
        if due is None:
            return
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._fire)
        elif self._looked_at != due:
            self._looked_at = due
            self._timer = self._loop.call_later(SECOND_LOOK_S, self._fire)
        else:
            self._passed()

    def close(self) -> None:
        self.due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SendWatch:
    """Calls `stuck` when a peer has taken nothing for `seconds` of what waits for it. A peer that is only slow is left alone.

    `blocked`: whether nothing more is written meanwhile; while something is, what waits may grow though the peer takes its part.
    """

    __slots__ = ("_blocked", "_left", "_loop", "_seconds", "_since", "_stuck", "_timer", "_transport")

    def __init__(
        self, transport: asyncio.Transport, seconds: float, *, blocked: Callable[[], bool], stuck: Callable[[], None]
    ) -> None:
        self._transport, self._seconds, self._blocked, self._stuck = transport, seconds, blocked, stuck
        self._loop = asyncio.get_running_loop()
        self._left, self._since = 0, 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Something waits to be sent. Each call begins the time anew; it ends by itself when nothing waits any more."""
        self._left, self._since = self._unsent(), self._loop.time()
        if self._timer is None and self._left:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self._unsent()
        rest = self._since + self._seconds - self._loop.time()
        if not left or not self._blocked():
            return
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        elif left < self._left:
            self.begin()
        else:
            self._stuck()

    def _unsent(self) -> int:
        """Bytes that the peer has not taken: here and, where that can be asked, in the kernel, which a slow peer empties first."""
        here = int(self._transport.get_write_buffer_size())
        connection = self._transport.get_extra_info("socket")
        if not here or connection is None or sys.platform == "win32":
            return here
        import fcntl
        import termios

        try:
            answer: bytes = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return here
        return here + int(struct.unpack("i", answer)[0])

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
