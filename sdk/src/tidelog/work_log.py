"""What an execution logs: `ctx.log`, and what is printed or logged by the standard module, with the execution that did it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from tidelog.log_lines import pairs
from tidelog.logs import log
from tidelog.texts import clean
from tidelog.values import encode

MAX_TEXT = 16 * 1024
"""Bytes of the text of one line."""
MAX_PARTS = 100
"""Threads of one execution that have begun a line and not ended it."""

logger = logging.getLogger("tidelog.agent")

Put = Callable[[bytes], None]


class WorkLog:
    """The lines of one attempt, on their way to the server. Methods may be called from any thread; none waits or raises."""

    def __init__(self, put: Put) -> None:
        """`put`: takes a line as a JSON object."""
        self._put = put
        self._begun: dict[int, str] = {}
        """Thread → the line that it has begun to print."""

    def put(self, level: int, text: str, at: float | None = None) -> None:
        """`at`: seconds since the epoch; now, if missing."""
        when = datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat(timespec="microseconds")
        self._put(encode({"at": when, "level": _name_of(level), "text": _bounded(text)}))

    def printed(self, text: str) -> None:
        """Takes printed text. A line counts when its end is printed; an empty line does not count."""
        thread = threading.get_ident()
        *lines, rest = (self._begun.pop(thread, "") + text).split("\n")
        for line in lines:
            if line.rstrip("\r"):
                self.put(logging.INFO, line.rstrip("\r"))
        if rest and (len(rest) > MAX_TEXT or len(self._begun) >= MAX_PARTS):
            self.put(logging.INFO, rest)
        elif rest:
            self._begun[thread] = rest

    def end(self) -> None:
        """The execution is over: lines that were begun end here."""
        while self._begun:
            self.put(logging.INFO, self._begun.popitem()[1])


WORK_LOG: ContextVar[WorkLog | None] = ContextVar("tidelog_work_log", default=None)
"""The execution that the present code belongs to: also in its tasks, and in threads that have a copy of its context."""


class Log:
    """`ctx.log`: lines of this agent or tool, for people. They are shown by `tidelog runs logs` and in the worker's own log.

    `ctx.log.info("read the file", lines=12)`; the same for `debug`, `warning`, `error` and `critical`. `ctx.log("…")` is `info`.
    Debug lines go to the server only if the worker's own log shows them. A line never waits and never fails the agent. Lines are no
    part of the journal: an execution after a crash logs again.
    """

    def __init__(self, work_log: WorkLog | None = None, fields: Mapping[str, Any] | None = None) -> None:
        """`fields`: of the line in the worker's own log."""
        self._work_log = work_log
        self._fields = dict(fields or {})

    def __call__(self, text: object, /, **fields: Any) -> None:
        self._write(logging.INFO, text, fields)

    def debug(self, text: object, /, **fields: Any) -> None:
        self._write(logging.DEBUG, text, fields)

    def info(self, text: object, /, **fields: Any) -> None:
        self._write(logging.INFO, text, fields)

    def warning(self, text: object, /, **fields: Any) -> None:
        self._write(logging.WARNING, text, fields)

    def error(self, text: object, /, **fields: Any) -> None:
        self._write(logging.ERROR, text, fields)

    def critical(self, text: object, /, **fields: Any) -> None:
        self._write(logging.CRITICAL, text, fields)

    def _write(self, level: int, text: object, fields: dict[str, Any]) -> None:
        try:
            told = f"{text}{pairs(fields)}"
        except Exception as error:  # noqa: BLE001  # of `__str__` of a value
            told = f"<text not available: {type(error).__name__}>"
        if self._work_log is not None and (level > logging.DEBUG or logger.isEnabledFor(level)):
            self._work_log.put(level, told)
        log(logger, level, told, **self._fields)


def _name_of(level: int) -> str:
    return next((name for least, name in _NAMES if level >= least), "debug")


_NAMES = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))


def _bounded(text: str) -> str:
    """The text without characters that the server cannot keep, cut with a mark where it is too long."""
    whole = clean(text)
    if len(whole) <= MAX_TEXT:
        return whole.decode()
    mark = f"… [cut: {len(whole):,} bytes]"
    return whole[: MAX_TEXT - len(mark.encode())].decode("utf-8", "ignore") + mark
