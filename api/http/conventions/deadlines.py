"""Time limits of one connection: a deadline for receiving and a watch for sending. Their timers are rarely armed or cancelled."""

import asyncio
import struct
import sys
from collections.abc import Callable

SECOND_LOOK_S = 0.25
"""Seconds from a deadline to its second check: bytes that arrived in time may be unread because the event loop was busy."""


class Deadline:
    """Calls `passed` after the time that was set last. Setting a time is cheap: a timer that fires too early is armed again."""

    __slots__ = ("_looked_at", "_loop", "_passed", "_timer", "_timer_at", "due")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        """The time for which the timer is set. uvloop gives out a handle that does not know, if the time has nearly come."""
        self._looked_at: float | None = None
        """The `due` that has passed and is being checked a second time."""
        self.due: float | None = None
        """In the event loop's time. None: no deadline; a timer that still runs has no effect."""

    def set(self, due: float) -> None:
        self.due = due
        if self._timer is not None:
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._arm(due)

    def _arm(self, at: float) -> None:
        self._timer, self._timer_at = self._loop.call_at(at, self._fire), at

    def _fire(self) -> None:
        self._timer = None
        due = self.due
        if due is None:
            return
        if self._loop.time() < due:
            self._arm(due)
        elif self._looked_at != due:
            self._looked_at = due
            self._arm(self._loop.time() + SECOND_LOOK_S)
        else:
            self._passed()

    def close(self) -> None:
        self.due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SendWatch:
    """Calls `stuck` when a peer has read none of its waiting bytes for `seconds`. A peer that is only slow is tolerated.

    `blocked`: whether writing is paused. While writing goes on, the number of waiting bytes may grow although the peer reads.
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
        """Starts the time, because bytes wait to be sent. Each call starts the time anew. The watch ends when no bytes wait."""
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
        """Number of bytes that the peer has not read: in this process and, if the kernel tells, in the kernel's buffer.

        A slow peer empties the kernel's buffer first.
        """
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
