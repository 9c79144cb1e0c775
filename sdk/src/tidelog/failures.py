"""How failures of user code are reported: bounded, with the end of the traceback, never with local variables."""

import traceback
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tidelog.errors import PermanentError, TransientError
from tidelog.tools import InvalidArgumentsError

ErrorKind = Literal["permanent", "transient", "invalid", "rate_limited"]

MAX_ERROR_BYTES = 4096
MAX_RETRY_AFTER_S = 86_400.0
_OWN_FOLDER = str(Path(__file__).resolve().parent)


class ErrorReport(BaseModel):
    """Why work failed. `message` ends with the last lines of the traceback; at most `MAX_ERROR_BYTES`."""

    model_config = ConfigDict(frozen=True)
    type: str
    message: str
    kind: ErrorKind
    retry_after_s: float | None = None


def agent_failure(error: BaseException) -> ErrorReport:
    """An agent's exception is permanent unless it says otherwise: the finished calls are recorded, and a defect in code stays."""
    if isinstance(error, TransientError):
        return report_error(error, "transient", error.retry_after_s)
    return report_error(error, "permanent")


def tool_failure(error: BaseException) -> ErrorReport:
    """A tool's exception is transient unless it says otherwise: tools talk to the world outside."""
    if isinstance(error, InvalidArgumentsError):
        return report_error(error, "invalid")
    if isinstance(error, PermanentError):
        return report_error(error, "permanent")
    if isinstance(error, TransientError):
        return report_error(error, "transient", error.retry_after_s)
    return report_error(error, "transient")


def report_error(error: BaseException, kind: ErrorKind, retry_after_s: float | None = None) -> ErrorReport:
    """The report of an exception of user code: its text, then the end of its traceback without the frames of the SDK."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_OWN_FOLDER)]
    trace = "".join(traceback.format_list(frames))
    text = str(error) or type(error).__name__
    half = MAX_ERROR_BYTES // 2
    message = f"{_cut(text, half)}\n{_cut_front(trace, half - 1)}" if trace else _cut(text, MAX_ERROR_BYTES)
    if retry_after_s is not None:
        retry_after_s = min(max(0.0, retry_after_s), MAX_RETRY_AFTER_S)
    return ErrorReport(type=type(error).__name__[:200], message=message.rstrip(), kind=kind, retry_after_s=retry_after_s)


def _cut(text: str, limit: int) -> str:
    return _clean(text)[:limit].decode("utf-8", "ignore")


def _cut_front(text: str, limit: int) -> str:
    return _clean(text)[-limit:].decode("utf-8", "ignore")


def _clean(text: str) -> bytes:
    """The text without characters that the log cannot hold: NUL, half surrogate pairs."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
