"""Failures of agents and tools as people read them: the class, the message, the place in the code, and the traceback.

A failure is the JSON of `domain.failures.Failure`. In events of earlier releases the message ends with the traceback, and there is
no place of its own.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.cli.output import shortened

Failure = Mapping[str, Any]

FAILED_ATTEMPTS = ("agent_run.failed", "agent_run.retry_scheduled", "invocation.failed", "invocation.retry_scheduled")
"""Types of the events that are the first to tell a failure. Events of the run repeat it."""
WIDTH = 240
"""Characters of a headline, where a caller does not say otherwise."""
_FRAME = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)


def headline(error: Failure, width: int = WIDTH) -> str:
    """`KeyError: 'ticket' (agents/classify.py:12)`, on one line."""
    text, _ = _parts(error)
    where = place(error)
    end = f" ({where})" if where else ""
    return shortened(f"{error['type']}: {text}" if text.strip() else str(error["type"]), max(40, width - len(end))) + end


def place(error: Failure) -> str:
    """File and line; empty if they are not known. A file below the current folder is named as seen from there."""
    file, line = error.get("file"), error.get("line")
    if file is None:
        frames = _FRAME.findall(_parts(error)[1])
        if not frames:
            return ""
        file, line = frames[-1]
    path = Path(str(file))
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return shortened(f"{path}:{line}" if line else str(path), 160)


def has_more(error: Failure) -> bool:
    """Whether `details` say more than the headline."""
    return bool(_parts(error)[1] or error.get("causes"))


def details(error: Failure) -> str:
    """The causes, the traceback and the whole message, as Python prints them."""
    text, trace = _parts(error)
    lines = ["Traceback (most recent call last):", trace.rstrip()] if trace else []
    lines.append(f"{error['type']}: {text}" if text.strip() else str(error["type"]))
    for cause in error.get("causes") or ():
        lines.append(f"  {_RELATIONS.get(cause.get('relation'), 'with')}: {headline(cause, 400)}")
    return "\n".join(lines)


_RELATIONS = {"member": "of the group", "cause": "caused by", "context": "while handling"}


def _parts(error: Failure) -> tuple[str, str]:
    """The message alone, and the traceback (empty: none)."""
    message, trace = str(error["message"]), error.get("traceback")
    if trace or error.get("file"):
        return message, trace or ""
    first = _FRAME.search(message)
    return (message, "") if first is None else (message[: first.start()].rstrip(), message[first.start() :])
