"""What waits to be sent, and what was sent and has no answer yet."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from tidelog.session.frames import MAX_FRAME_BYTES, MAX_MESSAGES, message
from tidelog.session.lines import Lines

MAX_OPEN, MAX_OPEN_BYTES = 1_000, 3 * 1024 * 1024
"""Reports without an answer on one socket. The server closes a socket with more than 1,024 or 4 MiB."""
MOST_SUSPECTED = 3


class Report:
    """A message with an id, until its answer comes. `until`: when nobody waits for the answer any more."""

    __slots__ = ("answer", "number", "sent_at", "suspected", "text", "until")

    def __init__(self, number: int, text: bytes, answer: Any, until: float) -> None:
        self.number = number
        self.text = text
        self.answer = answer
        self.until = until
        self.sent_at = 0.0
        self.suspected = 0


class Credit(NamedTuple):
    """Free slots after `work` number `n` of the socket `era`."""

    era: int
    n: int
    agent: int
    tool: int


class Outbox:
    """`put` and `set_credit` may be called from any thread. All else belongs to the session's thread.

    A report keeps its number over all sockets of a session. Numbers rise, and reports without an answer are sent again before later
    ones, so the ids rise within each socket.
    """

    def __init__(self, ring: Callable[[], None], soon: Callable[[], None] | None = None) -> None:
        """`ring`: wakes the sender, from any thread. `soon`: does so after a moment."""
        self._ring = ring
        self.lines = Lines(soon or ring)
        """What agents and tools log."""
        self._asleep = False
        self._waiting: deque[Report] = deque()
        self._open: dict[int, Report] = {}
        self._open_bytes = 0
        self._credit: deque[Credit] = deque(maxlen=1)

    # --- from any thread ---

    def put(self, report: Report) -> None:
        self._waiting.append(report)
        self._wake()

    def set_credit(self, credit: Credit, *, at_once: bool = True) -> None:
        """The latest credit replaces one that was not sent yet. If it need not go at once, it goes with the next message, or with
        `send_credit`."""
        self._credit.append(credit)
        if at_once:
            self._wake()

    def send_credit(self) -> None:
        """The credit that waits goes now."""
        if self._credit:
            self._wake()

    def _wake(self) -> None:
        # The sender says that it sleeps, then looks once more: so a message is either seen there, or wakes the sender here.
        if self._asleep:
            self._asleep = False
            self._ring()

    # --- from the session's thread ---

    def sleep(self) -> bool:
        """The sender goes to sleep. False: there is something to send."""
        self._asleep = True
        if self._credit or self.lines.left or (self._waiting and self._has_room(self._waiting[0])):
            self._asleep = False
        return self._asleep

    def take(self, era: int, now: float) -> list[bytes]:
        """The messages of the next frame of the socket `era`: all that wait, within the bounds of a frame and of open reports."""
        taken: list[bytes] = []
        size = 0
        credit = self._credit.popleft() if self._credit else None
        if credit is not None and credit.era == era:
            taken.append(message("credit", b"", {"n": credit.n, "agent": credit.agent, "tool": credit.tool}))
            size = len(taken[0])
        while self._waiting and len(taken) < MAX_MESSAGES:
            report = self._waiting[0]
            size += len(report.text) + 1
            if (taken and size > MAX_FRAME_BYTES) or not self._has_room(report):
                break
            self._waiting.popleft()
            report.sent_at = now
            self._open[report.number] = report
            self._open_bytes += len(report.text)
            taken.append(report.text)
        return taken + self.lines.take(MAX_MESSAGES - len(taken), MAX_FRAME_BYTES - size)

    def answered(self, number: object) -> Report | None:
        """The open report of that number, which is open no longer; None: it has had its answer before."""
        report = self._open.pop(number, None) if type(number) is int else None
        if report is not None:
            self._open_bytes -= len(report.text)
            if self._waiting:
                self._wake()
        return report

    def send_again(self) -> None:
        """A new socket is open: what has no answer waits again, before all else."""
        self._waiting.extendleft(reversed(self._open.values()))
        self._open.clear()
        self._open_bytes = 0
        self._wake()

    def expired(self, now: float) -> list[Report]:
        """Takes out the reports for whose answers nobody waits any more."""
        over = [report for report in self._open.values() if report.until <= now]
        for report in over:
            self.answered(report.number)
        while self._waiting and self._waiting[0].until <= now:  # in the order in which they were put in
            over.append(self._waiting.popleft())
        return over

    def suspects(self) -> list[Report]:
        """The server closed the socket because it could not read a message. Takes out the reports with which this happened often:
        one of them would close each later socket, too."""
        for report in self._open.values():
            report.suspected += 1
        over = [report for report in self._open.values() if report.suspected >= MOST_SUSPECTED]
        for report in over:
            self.answered(report.number)
        return over

    def oldest_sent_at(self) -> float | None:
        """When the first of the reports without an answer was sent on the present socket."""
        first = next(iter(self._open.values()), None)
        return None if first is None else first.sent_at

    def clear(self) -> list[Report]:
        """Takes out all reports."""
        left = [*self._open.values(), *self._waiting]
        self._open.clear()
        self._waiting.clear()
        self.lines.clear()
        self._open_bytes = 0
        return left

    def _has_room(self, report: Report) -> bool:
        return not self._open or (len(self._open) < MAX_OPEN and self._open_bytes + len(report.text) <= MAX_OPEN_BYTES)
