"""All errors of the SDK. Errors carry data, so that code can decide without reading messages."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any


class TidelogError(Exception):
    """Base of all errors of the SDK."""


# --- raised by agents and tools, or to them --------------------------------------------------------------------------


class PermanentError(TidelogError):
    """A retry cannot help: the tool call or agent run fails at once."""


class BlobError(PermanentError):
    """A blob is not there, its content is too large, or the server refuses it."""


class TransientError(TidelogError):
    """A retry may help. `retry_after_s`: seconds before which no retry makes sense."""

    retry_after_s: float | None = None

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidError(PermanentError):
    """The arguments of a tool call, or the input of an agent, are wrong: the same again cannot succeed."""


class ServiceRateLimitedError(TransientError):
    """A service takes no more for now. It is tried again like after a `TransientError`, and counts as a rate, not as a fault."""

    @classmethod
    def of_header(cls, retry_after: str | None, message: str = "") -> "ServiceRateLimitedError":
        """With the time of the header `Retry-After`: seconds, or a date. None, and a text that is neither: without a time."""
        return cls(message or "the service takes no more for now", _seconds_of(retry_after))


class CpuLimitError(PermanentError):
    """The tool used more processor time than its `cpu_s`."""


class ProcessCrashedError(TransientError):
    """The process of the tool ended by a signal, as a crash of an extension module does, or the kernel when memory is short."""


class OutcomeUnknownError(TidelogError):
    """The call was sent, and no answer says whether it took effect. Nothing repeats it: somebody has to ask the service."""


def _seconds_of(retry_after: str | None) -> float | None:
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time())


class DuplicateKeyError(PermanentError):
    """Two calls of one `execute` were given the same key, so one call would have got the result of the other."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} was given to two calls of one execution; give each call a key of its own")
        self.key = key


class ChangedCallError(PermanentError):
    """Under the key another call was recorded, by code that was other code, or that went another way. Its result is no answer to
    this call.

    The agent fails, and its journal stays: mend the code, or give the calls keys of their own (`key=`), and retry the step.
    """

    def __init__(self, key: str, kind: str, recorded: str, asked: str) -> None:
        super().__init__(
            f"under the key {key!r} another {kind} is recorded (fingerprint {recorded}) than the one that is asked for now "
            f"({asked}): kind, name or arguments differ. After a crash the code must ask for the same calls again: take chance and "
            "time from ctx.step, give the calls keys of their own, or keep the call as it was"
        )
        self.key = key
        self.recorded = recorded
        self.asked = asked


class ChildRunError(PermanentError):
    """A run that the agent started failed or was cancelled. `type`, `reason` and `kind` are those of the run's error."""

    def __init__(self, name: str, type: str, reason: str, kind: str) -> None:
        super().__init__(f"the child run of {name!r}: {type}: {reason}")
        self.name = name
        self.type = type
        self.reason = reason
        self.kind = kind


class SignalTimeoutError(PermanentError, TimeoutError):
    """No signal of this name came in time."""

    def __init__(self, signal: str, message: str) -> None:
        super().__init__(message)
        self.signal = signal


class ValueTooLargeError(PermanentError):
    """A result, body or set of arguments is over the limit of `limit` bytes of JSON."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size} bytes of JSON; the limit is {limit} bytes (200 KiB). "
            "Put large data to a blob (`await ctx.blob.put(data)`), and give its reference instead."
        )
        self.size = size
        self.limit = limit


class ValueTooDeepError(PermanentError):
    """A result, body or argument is nested deeper than the `limit` of 64 levels of arrays and objects."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} is nested too deeply; the limit is {limit} levels of arrays and objects")
        self.limit = limit


class RecipientOverError(PermanentError):
    """A message was not sent: the step `to` has ended, so nobody would read the message."""

    def __init__(self, to: str, detail: str) -> None:
        super().__init__(f"the message to {to!r} was not sent: {detail}")
        self.to = to


class NotJsonError(PermanentError):
    """A result, body or argument cannot be written as JSON."""


class ToolError(TidelogError):
    """A tool call failed for good. `kind`: `permanent`, `transient` (retries used up), `invalid` or `rate_limited`.

    `type`, `reason`, `file`, `line`: class, text and place of the tool's exception; None where no exception of a tool is behind it.
    """

    def __init__(
        self,
        message: str,
        kind: str = "permanent",
        tool: str | None = None,
        *,
        type: str | None = None,
        reason: str | None = None,
        file: str | None = None,
        line: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.tool = tool
        self.type = type
        self.reason = reason
        self.file = file
        self.line = line


class BudgetExceededError(ToolError):
    """A budget has too little left for the call, and the tool was not called. Raised only where the budget lets the agent go on
    (`degrade`); else the agent is stopped."""


class DefinitionError(TidelogError):
    """An agent class or tool function cannot be used as it is written. `kind` is a `tidelog.discovery.ProblemKind`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# --- raised by the client --------------------------------------------------------------------------------------------


class TidelogConnectionError(TidelogError):
    """The server could not be reached, or did not answer in time, for as long as the caller was ready to retry."""


class ProxySettingError(TidelogConnectionError):
    """The proxy that `setting` names cannot be used; nothing was sent. The message does not show the value."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting} cannot be used as a proxy: {reason}")
        self.setting = setting


class UnreadableEventError(TidelogError):
    """An event came that this version of the SDK cannot read. `id` and `type` come from the stream; a retry gives the same event.

    Go on behind the event with `after=`, or read it with a newer version of the SDK.
    """

    def __init__(self, id: str, type: str, reason: str) -> None:
        super().__init__(f"event {id or '(without an id)'} ({type}) cannot be read by this version of the SDK: {reason}")
        self.id = id
        self.type = type


_MOST_FAULTS = 10


class TidelogAPIError(TidelogError):
    """The server refused. The fields are those of its RFC 9457 problem document.

    `errors` holds one mapping per faulty field (`pointer`: JSON Pointer, `detail`). `retryable`: the same request may succeed
    later.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        retryable: bool = False,
    ) -> None:
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.retryable = retryable
        self.retry_after_s: float | None = None
        super().__init__(f"{status} {code}: {self.reason}")

    @property
    def reason(self) -> str:
        """The server's message, with the faults that the message does not name itself (of many the first)."""
        text = self.detail or self.title
        faults = [fault for fault in self.errors if str(fault.get("detail", "")) not in text]
        told = [f"{fault.get('pointer', '')} {fault.get('detail', '')}".strip() for fault in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            told.append(f"and {len(faults) - _MOST_FAULTS} more")
        return f"{text} ({'; '.join(told)})" if told else text


class InvalidRequestError(TidelogAPIError):
    """400, 413 or 422: the request itself is wrong."""


class AuthenticationError(TidelogAPIError):
    """401: no API key, or a wrong one."""


class PermissionDeniedError(TidelogAPIError):
    """403: the key may not do this. `action`: what its `role` does not allow, and `roles`: those that allow it.

    `action` and `role` are None where the role is not the reason.
    """

    action: str | None = None
    role: str | None = None
    roles: tuple[str, ...] = ()


class NotFoundError(TidelogAPIError):
    """404: there is no such thing in this tenant."""


class ConflictError(TidelogAPIError):
    """409 or 412: the present state of the thing does not allow the request."""


class RateLimitedError(TidelogAPIError):
    """429: too many requests."""


class ServerError(TidelogAPIError):
    """5xx: the server failed or is not available."""


class HistoryReplaced(TidelogAPIError):
    """410: the log was restored from a backup, or lost its end in a failover, and now has other events than you have read.

    Drop your events with a position after `last_common_position`, and go on with `events(after=error.cursor)`. `history`: id of
    the history that begins after that position.
    """

    def __init__(self, history: str, last_common_position: int, cursor: str, detail: str | None = None) -> None:
        super().__init__(410, "history-replaced", "the history of the log has ended", detail)
        self.history = history
        self.last_common_position = last_common_position
        self.cursor = cursor


class PositionBeyondHead(TidelogAPIError):
    """410: the log has no event, or no longer has an event, at a position of the request."""


_BY_CODE: Mapping[str, type[TidelogAPIError]] = {"position-beyond-head": PositionBeyondHead}
_BY_STATUS: Mapping[int, type[TidelogAPIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: RateLimitedError,
}


def api_error(status: int, problem: Mapping[str, Any]) -> TidelogAPIError:
    """The typed error for a problem document. `problem` may be empty for an answer without one (a proxy's page)."""
    code = str(problem.get("code") or f"http-{status}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, ServerError if status >= 500 else TidelogAPIError)
    errors = problem.get("errors")
    detail = problem.get("detail")
    if code == "history-replaced":
        common = problem.get("last_common_position")
        if isinstance(common, int):
            return HistoryReplaced(str(problem.get("history")), common, str(problem.get("cursor") or common), str(detail))
    refusal = kind(
        status,
        code=code,
        title=str(problem.get("title") or "the server refused the request"),
        detail=None if detail is None else str(detail),
        errors=[item for item in errors if isinstance(item, Mapping)] if isinstance(errors, list) else (),
        retryable=bool(problem.get("retryable", status in (429, 502, 503, 504))),
    )
    if isinstance(refusal, PermissionDeniedError) and "action" in problem:
        roles = problem.get("roles")
        refusal.action, refusal.role = str(problem["action"]), str(problem.get("role"))
        refusal.roles = tuple(map(str, roles)) if isinstance(roles, list) else ()
    return refusal
