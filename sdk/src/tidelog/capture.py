"""What agents and tools print, and what they log by the standard module, goes to the log of their execution, too.

Where it goes otherwise stays as it is. Text without an execution, and the worker's own lines, go nowhere else.
"""

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tidelog.logs import LineFormatter
from tidelog.work_log import WORK_LOG


class _Handler(logging.Handler):
    """Records of user code, on the root logger."""

    _formatter = LineFormatter("text")

    def emit(self, record: logging.LogRecord) -> None:
        work_log = WORK_LOG.get()
        if work_log is None or record.name == "tidelog" or record.name.startswith("tidelog."):
            return
        try:
            text = record.getMessage()
        except Exception as error:  # noqa: BLE001  # the arguments do not fit, or one of them fails
            text = f"{record.msg!r:.1000} <{type(error).__name__}>"
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}\n{self._formatter.formatException(record.exc_info)}"
        work_log.put(record.levelno, text, record.created)


class _Output:
    """Standard output, which also tells the present execution what is printed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        work_log = WORK_LOG.get()
        # A handler of user code that writes records to standard output: they come by the root logger.
        if work_log is not None and sys._getframe(1).f_globals.get("__name__") != "logging":
            work_log.printed(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


_handler: _Handler | None = None


def capture() -> None:
    """From now on, in the whole process. Only the command line does this; the library never does."""
    global _handler
    _handler = _Handler()
    if sys.stdout is not None:  # the process was started with one
        sys.stdout = _Output(sys.stdout)
    ensure()


def capture_records() -> None:
    """Records of the standard module only, from INFO on: in the process of an isolated tool, whose output the worker reads."""
    global _handler
    _handler = _Handler()
    logging.root.setLevel(logging.INFO)
    logging.getLogger("tidelog").propagate = False  # its lines go by `ctx.log`
    logging.getLogger("tidelog").addHandler(logging.NullHandler())
    ensure()


def ensure() -> None:
    """Code of users may have set up logging anew, which takes all handlers away."""
    if _handler is not None and _handler not in logging.root.handlers:
        logging.root.addHandler(_handler)
