"""Structured logs: JSON lines when not at a terminal, with the bound ids on each line. Workers write the same lines."""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog

from application.engine.ports.log_context import with_ids
from tidelog.log_lines import has_colours, json_line, text_line

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure_logging(level: str, form: Literal["auto", "json", "console"], *, role: str) -> None:
    """Sets up structlog and the standard library's logging (uvicorn, nats) to write the same lines to stderr."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    colours = has_colours(sys.stderr)

    def render(_: Any, __: str, fields: structlog.typing.EventDict) -> str:
        return json_line(fields) if as_json else text_line(fields, colours=colours)

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        with_ids,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, render]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda name="": _NamedLogger(name, sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))


class _NamedLogger(structlog.WriteLogger):
    """Writes lines. The name is that of the module that logs."""

    def __init__(self, name: str, file: TextIO) -> None:
        super().__init__(file)
        self.name = name
