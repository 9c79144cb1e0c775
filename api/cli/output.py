"""The output of all commands: documents for programs, lines for people, errors, exit codes.

Everything that the command line writes goes through this file, which escapes what a terminal would obey (`tidelog.terminal`): runs,
agents and errors hold text of others. Texts inside a line or a table go through `one_line` or `escape`, so that no value begins a
line of its own.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 130 interrupted. Imported by every command, so the top of this file imports
no heavy module.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from tidelog.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
EVENT_WIDTH = 35
"""Characters of the longest name of an event."""

STATUS_STYLES: Mapping[str, str] = {
    "running": "cyan", "completed": "green", "succeeded": "green", "ok": "green", "failed": "red", "cancelled": "yellow",
    "ambiguous": "red", "retrying": "yellow", "reconciling": "yellow",
    "held": "yellow", "pending": "dim", "scheduled": "dim", "requested": "dim",
    "waiting": "yellow", "queued": "yellow", "suspended": "yellow", "paused": "yellow",
    "partial": "red", "compensated": "green", "recorded": "dim",
    "skipped": "yellow", "selecting": "cyan", "acting": "cyan",
}  # fmt: skip


class CommandFailed(Exception):
    """The command has failed. The message is one line for the terminal."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(command: Coroutine[Any, Any, None]) -> None:
    """Runs a command to its end; see `guarded`."""
    guarded(lambda: asyncio.run(command))


def guarded(command: Callable[[], None]) -> None:
    """Turns an expected error into a line on stderr and an exit code. A defect keeps its traceback."""
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `tidelog events tail | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail
        sys.exit(0)
    except Exception as error:
        told = _expected(error)
        if told is None:
            raise
        fail(*told)


def _expected(error: Exception) -> tuple[str, int] | None:
    """The line and the exit code of an expected error. None for a defect."""
    from api.settings import SettingsError
    from api.supervisor.errors import SupervisorError

    match error:
        case CommandFailed():
            return str(error), error.exit_code
        case SettingsError():
            return str(error), WRONG_USAGE
        case SupervisorError():
            return str(error), error.exit_code
    from domain.errors import TidelogError as ServerSideError
    from tidelog.errors import NotJsonError, ProxySettingError, TidelogAPIError, TidelogError, ValueTooDeepError

    match error:
        case TidelogAPIError():
            text = error.detail or error.title
            others = [place for place in error.errors[:10] if str(place.get("detail", "")) not in text]
            places = "".join(one_line(_place(place), "\n  ") for place in others)
            return one_line(f"{error.code}: {text}") + places + _help(error), FAILED
        case ServerSideError():
            return one_line(f"{error.code}: {error.message}"), FAILED
        case NotJsonError() | ValueTooDeepError() | ProxySettingError():
            return one_line(error), WRONG_USAGE
        case TidelogError():
            return one_line(error), FAILED
    return None


def _place(place: Mapping[str, Any]) -> str:
    """A place of a refusal, with what to do about it, where that is told."""
    cure = place.get("cure")
    return f"{place.get('pointer', '')}: {place.get('detail', '')}{f' → {cure}' if cure else ''}"


def _help(error: Exception) -> str:
    """What else to do about a refusal, as a line of its own. Empty: its message says all."""
    from tidelog.errors import PermissionDeniedError

    if isinstance(error, PermissionDeniedError) and error.action is not None:
        return "\n  Give the key of another role in TIDELOG_API_KEY. Owners and admins can make one."
    return ""


def program() -> str:
    """The name of this command for the shell: `tidelog` if the shell finds it, otherwise its path."""
    called = Path(sys.argv[0])
    if called.name != "tidelog":  # python -m api.cli.main
        return "tidelog"
    found = shutil.which("tidelog")
    if found is not None and Path(found).resolve() == called.resolve():
        return "tidelog"
    return os.path.relpath(called) if called.absolute().is_relative_to(Path.cwd()) else str(called)


def uuid_of(text: str, what: str = "a run", listed_by: str = "runs list") -> str:
    """An id in its usual form. Raises CommandFailed if the text is not an id."""
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise CommandFailed(f"'{text}' is not {what}'s id (see: tidelog {listed_by})", WRONG_USAGE) from None


def fail(message: str, exit_code: int = FAILED) -> NoReturn:
    for line in message.splitlines():
        note(f"error: {line}" if not line.startswith(" ") else line)
    sys.exit(exit_code)


def note(message: str) -> None:
    """Writes a line for people that is not part of the command's answer to stderr."""
    _write(sys.stderr, f"{message}\n")


def progress(text: str) -> None:
    """Writes one line over the line before, on a terminal at stderr. `text` may end with a line feed."""
    if sys.stderr.isatty():
        sys.stderr.write("\r")
        _write(sys.stderr, text)


def spinner(text: str, *, quiet: bool) -> AbstractContextManager[object]:
    """Shows that the command waits, on a terminal at stderr."""
    if quiet or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(escape(text))


def _write(stream: TextIO, text: str) -> None:
    text = visible(text, lines=True)
    if not _in_unicode(stream):
        text = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
    stream.write(text)
    stream.flush()


def _in_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().startswith(("utf-", "utf8"))


def console() -> "Console":
    """Standard output for people. Without a terminal: no colours and no line breaks."""
    from rich.console import Console

    from api.cli.screen import VisibleText

    terminal = sys.stdout.isatty()
    made = Console(highlight=False, emoji=False, soft_wrap=not terminal, width=None if terminal else 240)
    made.push_render_hook(VisibleText())
    return made


def one_line(text: object, before: str = "") -> str:
    """A text of others as part of a line. `before`: text of ours in front of it."""
    return before + visible(str(text))


def escape(text: object) -> str:
    """A text of others as part of rich markup, on one line."""
    from rich.markup import escape

    return escape(one_line(text))


def table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")


def status(text: str) -> str:
    """A status in its colour, as rich markup."""
    style = STATUS_STYLES.get(text)
    return f"[{style}]{text}[/{style}]" if style else escape(text)


UNDER_WAY = ("running", "retrying", "ambiguous", "reconciling", "held")
"""Statuses of a call that a cancellation does not end at once."""


def call_status(call: Mapping[str, Any]) -> str:
    """The status of a tool call with notes for people, as rich markup."""
    notes = [
        "cancel requested" if call["cancel_requested"] and call["status"] in UNDER_WAY else "",
        "effect unknown" if call.get("effect") == "unknown" else "",
        "resolved by a person" if call.get("resolution") else "",
    ]
    told = ", ".join(note for note in notes if note)
    return status(call["status"]) + (f" ({told})" if told else "")


def say(text: str) -> None:
    """Writes lines of the command's answer, for people."""
    _write(sys.stdout, f"{text}\n")


def content(piece: bytes) -> None:
    """Writes bytes of a file to standard output, which is no terminal: a terminal would obey them."""
    if sys.stdout.isatty():
        raise CommandFailed("the content of a file is not written to a terminal", WRONG_USAGE)
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def document(value: Any) -> None:
    """Writes one JSON document to standard output. Characters that are escaped stand in strings, and JSON has the same escapes."""
    say(json.dumps(value, indent=2, ensure_ascii=not _in_unicode(sys.stdout)))


def line(value: Any) -> None:
    """Writes one JSON line of a stream."""
    say(json.dumps(value, ensure_ascii=not _in_unicode(sys.stdout), separators=(",", ":")))


def shortened(value: Any, width: int = 100) -> str:
    """A JSON value on one line, cut to a width."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return visible(text if len(text) <= width else f"{text[: width - 1]}…")


def gist(value: Any, width: int = 80) -> str:
    """A JSON value on one line: short values as they are, long values as their size."""
    if isinstance(value, dict):
        return shortened(", ".join(f"{name}: {_inside(item)}" for name, item in value.items()), width)
    return shortened(value, width) if isinstance(value, str) else shortened(_inside(value), width)


def _inside(value: Any) -> str:
    if isinstance(value, list):
        return f"[{len(value)} {'item' if len(value) == 1 else 'items'}]" if value else "[]"
    if isinstance(value, dict):
        return f"{{{len(value)} {'field' if len(value) == 1 else 'fields'}}}" if value else "{}"
    return shortened(value, 40)


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
