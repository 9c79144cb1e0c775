"""Lines of agents and tools on their way to the server: bounded, sent behind all else, and dropped where there is no room."""

import os
import threading
from collections import Counter, deque
from collections.abc import Callable

MAX_LINES, MAX_BYTES = 20_000, 4 * 1024 * 1024
"""Lines that wait for the socket; further ones are counted. Those of a message go to the socket together."""
MAX_LINES_OF_MESSAGE, MAX_BYTES_OF_MESSAGE, MAX_BYTES_OF_LINE = 256, 128 * 1024, 120 * 1024
"""A line of 16 KiB is JSON of 96 KiB at most."""
MAX_COUNTED = 10_000
"""Attempts whose dropped lines are counted apart."""


class Lines:
    """`put` may be called from any thread, also from a handler of signals. All else belongs to the session's thread."""

    def __init__(self, soon: Callable[[], None]) -> None:
        """`soon`: wakes the sender after a moment, in which further lines may come."""
        self._soon = soon
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0
        self._dropped: Counter[bytes] = Counter()
        self._called = False
        self.left = False
        """The last `take` had no room for all: the sender has to go on, as no further line wakes it."""

    def put(self, head: bytes, line: bytes) -> None:
        """`head`: the members that name the attempt. `line`: a JSON object."""
        if os.getpid() != self._pid:  # a process that user code has forked: the connection is not its own
            return
        with self._lock:
            fits = len(line) <= MAX_BYTES_OF_LINE and self._bytes + len(line) <= MAX_BYTES
            if fits and len(self._waiting) < MAX_LINES:
                self._waiting.append((head, line))
                self._bytes += len(line)
            elif head in self._dropped or len(self._dropped) < MAX_COUNTED:
                self._dropped[head] += 1
            call, self._called = not self._called, True
        if call:
            self._soon()

    def take(self, messages: int, size: int) -> list[bytes]:
        """The next messages: at most so many, of at most so many bytes."""
        taken: list[bytes] = []
        while True:
            with self._lock:
                text = self._next(size) if len(taken) < messages else b""
                self.left = not text and bool(self._waiting or self._dropped)
            if not text:
                return taken
            taken.append(text)
            size -= len(text) + 1

    def _next(self, size: int) -> bytes:
        """A message with the lines that wait of one attempt, in their order. Empty: nothing waits, or there is no room."""
        if not self._waiting:
            head = next(iter(self._dropped), None)
            if head is None:
                self._called = False
                return b""
            lines: list[bytes] = []
        else:
            head, lines = self._waiting[0][0], []
        room = min(size, MAX_BYTES_OF_MESSAGE) - len(head) - 80
        while self._waiting and self._waiting[0][0] == head and len(lines) < MAX_LINES_OF_MESSAGE:
            room -= len(self._waiting[0][1]) + 1
            if room < 0:
                break
            lines.append(self._waiting.popleft()[1])
            self._bytes -= len(lines[-1])
        if room < 0 and not lines:
            return b""
        return b'{"t":"log",%b"lines":[%b],"dropped":%d}' % (head, b",".join(lines), self._dropped.pop(head, 0))

    def clear(self) -> None:
        """Nobody takes lines any more."""
        with self._lock:
            self._waiting.clear()
            self._dropped.clear()
            self._bytes, self._called = 0, True
