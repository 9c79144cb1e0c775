"""How failures of user code are reported: type, text, place, traceback and causes; bounded, never with local variables.

Kinds. An agent's exception is permanent, a tool's exception transient, unless its class says otherwise. The kind of an exception
group is the kind of its leaf errors if these agree. Leaf errors that do not agree make a permanent failure: a retry would meet the
permanent one again. A cause (`raise … from`) does not change the kind.
"""

import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tidelog.errors import InvalidError, OutcomeUnknownError, PermanentError, ServiceRateLimitedError, ToolError, TransientError
from tidelog.places import is_of_library, is_of_sdk
from tidelog.texts import cut, cut_front, text_of, type_of
from tidelog.tools import InvalidArgumentsError

ErrorKind = Literal["permanent", "transient", "invalid", "rate_limited"]
Relation = Literal["cause", "context", "member"]

MAX_MESSAGE_BYTES = 2048
MAX_TRACEBACK_BYTES = 4096
MAX_CAUSES = 10
MAX_CAUSE_BYTES = 500
"""Limit of the text of one cause, or of one leaf error that a group's message names."""
MAX_FILE_LENGTH = 500
MAX_FRAMES = 100
MAX_RETRY_AFTER_S = 86_400.0

_BETWEEN: dict[Relation, str] = {
    "cause": "This exception was the direct cause of the next one:",
    "context": "While this exception was being handled, the next one came up:",
    "member": "This exception is a member of the exception group below:",
}


class ErrorCause(BaseModel):
    """An exception behind another one: a member of a group, a `__cause__` or a `__context__`."""

    model_config = ConfigDict(frozen=True)
    relation: Relation
    type: str
    message: str
    file: str | None = None
    line: int | None = None


class ReportedError(Exception):
    """The failure of a tool in another process, as that process reported it."""

    def __init__(self, report: "ErrorReport") -> None:
        super().__init__(report.message)
        self.report = report


class ErrorReport(BaseModel):
    """Why work failed. `file` and `line`: the place in the user's code. `traceback`: its end, without frames of the SDK."""

    model_config = ConfigDict(frozen=True)
    type: str
    message: str
    kind: ErrorKind
    retry_after_s: float | None = None
    file: str | None = None
    line: int | None = None
    traceback: str | None = None
    causes: tuple[ErrorCause, ...] = ()

    def core(self) -> "ErrorReport":
        """The report with the fields that every version of the server takes."""
        return ErrorReport(type=self.type, message=self.message, kind=self.kind, retry_after_s=self.retry_after_s)


def agent_failure(error: BaseException) -> ErrorReport:
    """An agent's exception is permanent unless it says otherwise: the finished calls are recorded, and a defect in code stays."""
    return _failure(error, "permanent")


def tool_failure(error: BaseException) -> ErrorReport:
    """A tool's exception is transient unless it says otherwise: tools talk to the world outside."""
    if type(error) is ReportedError:
        return error.report
    return _failure(error, "transient")


def report_error(error: BaseException, kind: ErrorKind, retry_after_s: float | None = None) -> ErrorReport:
    """The report of an exception of user code. Never raises: an exception may have been made to be hard to look at."""
    try:
        return _report(error, kind, retry_after_s)
    except Exception:  # noqa: BLE001  # attributes of the exception raise; type and text are safe
        return ErrorReport(type=type_of(error), message=text_of(error, MAX_MESSAGE_BYTES) or type_of(error), kind=kind)


def _failure(error: BaseException, default: ErrorKind) -> ErrorReport:
    try:
        found = [_kind_of(leaf, default) for leaf in _leaves(error)]
    except Exception:  # noqa: BLE001  # even `isinstance` asks the exception for its `__class__`
        found = [(default, None)]
    kinds = {kind for kind, _ in found}
    waits = [wait_s for _, wait_s in found if wait_s is not None]
    kind: ErrorKind = "permanent"
    if len(kinds) == 1:
        kind = kinds.pop()
    elif kinds == {"transient", "rate_limited"}:
        kind = "transient"
    return report_error(error, kind, max(waits) if kind in ("transient", "rate_limited") and waits else None)


def _kind_of(error: BaseException, default: ErrorKind) -> tuple[ErrorKind, float | None]:
    if isinstance(error, InvalidArgumentsError | InvalidError):
        return "invalid", None
    if isinstance(error, PermanentError | OutcomeUnknownError):
        return "permanent", None
    if isinstance(error, ServiceRateLimitedError):
        return "rate_limited", _seconds(error.retry_after_s)
    if isinstance(error, TransientError):
        return "transient", _seconds(error.retry_after_s)
    return default, None


def _seconds(value: Any) -> float | None:
    """Seconds within the bounds of a retry; None for a value that is no number."""
    try:
        seconds = float(value)
    except Exception:  # noqa: BLE001  # an attribute that user code has set
        return None
    return None if seconds != seconds else min(max(0.0, seconds), MAX_RETRY_AFTER_S)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group that are no groups themselves, in order; an error that is no group is its own leaf."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(one.exceptions)
        else:
            yield one


def _report(error: BaseException, kind: ErrorKind, retry_after_s: float | None) -> ErrorReport:
    file, line = _place(error)
    behind = _behind(error)
    return ErrorReport(
        type=type_of(error),
        message=_message(error),
        kind=kind,
        retry_after_s=None if retry_after_s is None else _seconds(retry_after_s),
        file=file,
        line=line,
        traceback=_traceback(error, behind),
        causes=tuple(cause for cause, _ in behind),
    )


def _message(error: BaseException) -> str:
    """The exception's text; of a group with its leaf errors."""
    text = text_of(error, MAX_MESSAGE_BYTES)
    if not isinstance(error, BaseExceptionGroup):
        return text.rstrip() or type_of(error)
    leaves = list(_leaves(error))
    named = "; ".join(_line(leaf) for leaf in leaves[:MAX_CAUSES])
    more = f"; and {len(leaves) - MAX_CAUSES} more" if len(leaves) > MAX_CAUSES else ""
    return cut(f"{text}: {named}", MAX_MESSAGE_BYTES - len(more)).rstrip() + more


def _line(error: BaseException) -> str:
    text = " ".join(text_of(error, MAX_CAUSE_BYTES).split())
    return f"{type_of(error)}: {text}" if text else type_of(error)


def _behind(error: BaseException) -> list[tuple[ErrorCause, BaseException | None]]:
    """The exceptions behind an error, outermost first, each with its cause before the next member of a group.

    The last item of a chain may be the failure of a tool, whose exception is in another process.
    """
    found: list[tuple[ErrorCause, BaseException | None]] = []
    waiting, seen = list(reversed(_next_to(error))), {id(error)}
    if (tool := _failure_of_tool(error)) is not None:
        found.append((tool, None))
    while waiting and len(found) < MAX_CAUSES:
        relation, one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        file, line = _place(one)
        text = text_of(one, MAX_CAUSE_BYTES).rstrip() or type_of(one)
        found.append((ErrorCause(relation=relation, type=type_of(one), message=text, file=file, line=line), one))
        if (tool := _failure_of_tool(one)) is not None:
            found.append((tool, None))
        waiting += reversed(_next_to(one))
    return found[:MAX_CAUSES]


def _next_to(error: BaseException) -> list[tuple[Relation, BaseException]]:
    near: list[tuple[Relation, BaseException]] = []
    if isinstance(error, BaseExceptionGroup):
        near += [("member", leaf) for leaf in _leaves(error)]
    if error.__cause__ is not None:
        near.append(("cause", error.__cause__))
    elif error.__context__ is not None and not error.__suppress_context__:
        near.append(("context", error.__context__))
    return near


def _failure_of_tool(error: BaseException) -> ErrorCause | None:
    """The exception of the tool behind a `ToolError`."""
    if not isinstance(error, ToolError) or getattr(error, "type", None) is None:
        return None
    return ErrorCause(
        relation="cause",
        type=cut(str(error.type), MAX_CAUSE_BYTES),
        message=cut(error.reason or "", MAX_CAUSE_BYTES),
        file=error.file,
        line=error.line,
    )


def _frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The last frames, outermost first, without those of the SDK."""
    return [frame for frame in traceback.extract_tb(trace, -MAX_FRAMES) if not is_of_sdk(frame.filename)]


def _place(error: BaseException) -> tuple[str | None, int | None]:
    """File and line: of the innermost frame in user code, or else of the innermost frame of a library."""
    frames = _frames(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if not is_of_library(frame.filename)), frames[-1] if frames else None)
    if frame is None:
        return None, None
    file = cut(frame.filename, 10 * MAX_FILE_LENGTH)
    return (file if len(file) <= MAX_FILE_LENGTH else f"…{file[1 - MAX_FILE_LENGTH :]}"), frame.lineno


def _traceback(error: BaseException, behind: list[tuple[ErrorCause, BaseException | None]]) -> str | None:
    """As Python prints it, the innermost cause first. The last line, type and text of the error, is left out."""
    parts: list[str] = []
    for cause, one in reversed(behind):
        trace = _formatted(one)
        if trace:
            first = cause.message.partition("\n")[0]
            parts.append(f"{trace}{cause.type}: {first}\n\n{_BETWEEN[cause.relation]}\n\n")
    parts.append(_formatted(error))
    return cut_front("".join(parts), MAX_TRACEBACK_BYTES).rstrip() or None


def _formatted(error: BaseException | None) -> str:
    return "" if error is None else "".join(traceback.format_list(_frames(error.__traceback__)))
