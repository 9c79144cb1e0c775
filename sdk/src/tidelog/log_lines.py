"""The lines of logs, as JSON or text. Server and workers write the same."""

import json
import os
import re
from collections.abc import Mapping
from textwrap import indent
from typing import Any, TextIO

from tidelog.terminal import visible

_HEAD = ("timestamp", "level", "logger", "event")
_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m", "debug": "\x1b[2m"}
_PLAIN = re.compile(r"[^\s\"'=]+")


def json_line(fields: Mapping[str, Any]) -> str:
    """`{"timestamp": ..., "level": ..., "logger": ..., "event": ..., <other fields>}`. Other values: as text."""
    head = {name: fields[name] for name in _HEAD if name in fields}
    return json.dumps({**head, **fields}, default=str)


def text_line(fields: Mapping[str, Any], *, colours: bool = False) -> str:
    """`12:00:00.000Z info    agent_run_completed run_id=...`, and the traceback in `exception` on the following lines."""
    level = str(fields["level"])
    begin, end = (_COLOURS.get(level, ""), "\x1b[0m") if colours and level in _COLOURS else ("", "")
    rest = pairs({name: value for name, value in fields.items() if name not in (*_HEAD, "exception")})
    line = f"{str(fields['timestamp'])[11:23]}Z {begin}{level:<7}{end} {visible(str(fields['event']))}{visible(rest)}"
    if not fields.get("exception"):
        return line
    # Indented, so that no line of an error's message looks like a line of the log.
    return f"{line}\n{indent(visible(str(fields['exception']), lines=True), '  ')}"


def pairs(fields: Mapping[str, Any]) -> str:
    """` name=value` for each field."""
    return "".join(f" {name}={_shown(value)}" for name, value in fields.items())


def has_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
