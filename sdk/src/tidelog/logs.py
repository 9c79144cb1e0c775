"""One line per log event, as JSON or text, with its run and agent. Uses the standard logging module."""

import contextlib
import logging
import os
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from tidelog.log_lines import has_colours, json_line, text_line
from tidelog.texts import text_of, type_of

MAX_EXCEPTION = 20_000
"""Characters of the traceback of one exception in the log."""


def log(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
    """Log an event with its fields."""
    _write(logger, level, event, fields, None)


def log_failure(logger: logging.Logger, event: str, error: BaseException, **fields: Any) -> None:
    """Log an event of level ERROR with its fields and the traceback of its cause."""
    _write(logger, logging.ERROR, event, fields, error)


def _write(logger: logging.Logger, level: int, event: str, fields: dict[str, Any], error: BaseException | None) -> None:
    trace = None if error is None else (type(error), error, error.__traceback__)
    own = _own
    if own is None:
        logger.log(level, event, extra={"fields": fields}, exc_info=trace)
        return
    if level < own.level:
        return
    record = logger.makeRecord(logger.name, level, "", 0, event, (), trace, extra={"fields": fields})
    own.handle(record)
    with contextlib.suppress(Exception):  # handlers that user code has added
        if logger.isEnabledFor(level):
            logger.handle(record)


class _OwnHandler(logging.StreamHandler[TextIO]):
    """Writes the worker's own lines, whatever user code does to the standard logging module; and lines of user code as long as
    user code leaves the handler in place."""

    def handle(self, record: logging.LogRecord) -> bool:
        if getattr(record, "written", False):
            return False
        record.written = True
        return super().handle(record)


_own: _OwnHandler | None = None


def own_stderr() -> TextIO:
    """A copy of stderr, which user code cannot close by closing its own."""
    try:
        descriptor = os.dup(2)
    except OSError:  # the process was started without stderr
        descriptor = os.open(os.devnull, os.O_WRONLY)
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", buffering=1)


class LineFormatter(logging.Formatter):
    """Records of the standard logging module as lines. `fixed`: fields of every line.

    Exceptions of user code may have huge texts, and some raise when one looks at them: a line is written all the same.
    """

    def __init__(self, form: Literal["json", "text"], *, colours: bool = False, **fixed: Any) -> None:
        super().__init__()
        self._form = form
        self._colours = colours
        self._fixed = fixed

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._fixed,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json_line(fields) if self._form == "json" else text_line(fields, colours=self._colours)

    def formatException(self, ei: Any) -> str:
        try:
            text = super().formatException(ei)
        except Exception:  # noqa: BLE001  # whatever the exception does
            text = f"{type_of(ei[1])}: {text_of(ei[1], MAX_EXCEPTION)}"
        half = MAX_EXCEPTION // 2
        return text if len(text) <= MAX_EXCEPTION else f"{text[:half]}\n[…]\n{text[-half:]}"


def configure_logs(form: Literal["json", "text"], level: int = logging.INFO) -> None:
    """Send the logs of this process to stderr. Only the command line does this; the library never does.

    User code may close stderr, call `basicConfig`, `disable` or `dictConfig`, or add handlers that fail: the worker's lines go to a
    descriptor and a handler of their own.
    """
    global _own  # one process, one destination
    handler = _OwnHandler(own_stderr())
    handler.setLevel(level)
    handler.setFormatter(LineFormatter(form, colours=has_colours(handler.stream), role="worker"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for client in ("httpx2", "httpx"):  # the worker's own, and one that agents use: a line for each request
        logging.getLogger(client).setLevel(logging.WARNING)
    _own = handler
