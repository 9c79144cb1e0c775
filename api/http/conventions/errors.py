"""Errors as RFC 9457 problem details. `STATUS` is the only place that maps an error to an HTTP status."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pydantic_core
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.http.sockets.errors import AlreadySubscribed, TooManySubscriptions
from application.engine.ports.blobs import BlobInUse, BlobsFull
from application.plans.refusal import InvalidPlan
from application.triggers.deliveries import TooManyDeliveries
from application.wording import meant, told
from application.workers.earlier import WorkerProtocolReplaced
from application.workers.hosting import messages
from domain import errors
from domain.access import NotPermitted
from domain.approvals import NotAnApprover
from domain.errors import TidelogError, Unavailable, json_pointer

log = structlog.get_logger(__name__)

TITLES = {
    400: "Bad request", 401: "Unauthenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    408: "Request timeout", 409: "Conflict", 410: "Gone", 412: "Precondition failed", 413: "Too large",
    415: "Unsupported body", 416: "Range not satisfiable", 422: "Unprocessable", 426: "Upgrade required", 429: "Too many requests",
    431: "Headers too large",
    500: "Internal error", 503: "Unavailable", 504: "Not in time",
}  # fmt: skip

DOCS = "/docs/errors"


class PreconditionFailed(TidelogError):
    """`If-Match` names another version than the current one."""

    code = "precondition-failed"

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"the resource is at version {current}, not {expected}")
        self.current = current


class HeadTooLarge(TidelogError):
    """The request line and headers, or the number of headers, are over the limit."""

    code = "headers-too-large"

    def __init__(self, size: int, headers: int) -> None:
        super().__init__(f"a request line with its headers may have {size:,} bytes, and {headers:,} headers")


class StillStarting(Unavailable):
    """The process has just begun. A refusal is expected then, so the log does not warn of it."""


class RangeNotSatisfiable(TidelogError):
    """No byte of the content is in the range that was asked for."""

    code = "range-not-satisfiable"


class RequestTimeout(TidelogError):
    """A request did not arrive completely in time."""

    code = "request-timeout"
    retryable = True

    def __init__(self, part: str) -> None:
        super().__init__(f"the {part} of the request did not come in time")


class TooManyConnections(TidelogError):
    """The server, the address or the API key has reached its limit of connections."""

    code = "too-many-connections"
    retryable = True


class UnsupportedBody(TidelogError):
    """The body's `Content-Type` or `Content-Encoding` is another one than the route takes."""

    code = "unsupported-body"


class UpgradeRequired(TidelogError):
    """The route is a WebSocket, and the request does not ask for one."""

    code = "upgrade-required"


STATUS: Mapping[type[TidelogError], int] = {
    errors.InvalidCommand: 422,
    errors.NotFound: 404,
    errors.InvalidState: 409,
    errors.RunKeyBusy: 409,
    errors.RunKeyQueueFull: 429,
    errors.WorkOver: 409,
    errors.RunIsPaused: 409,
    errors.StaleAttempt: 409,
    errors.AlreadyExists: 409,
    NotAnApprover: 403,
    errors.DomainError: 409,
    errors.VersionConflict: 409,
    errors.PayloadTooLarge: 413,
    BlobsFull: 413,
    errors.IdempotencyMismatch: 422,
    errors.HistoryReplaced: 410,
    errors.PositionBeyondHead: 410,
    WorkerProtocolReplaced: 410,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ProjectionBehind: 504,
    errors.TooManyOpenRuns: 503,
    errors.TooManyOpenRunsOfTenant: 429,
    TooManyDeliveries: 429,
    errors.Unavailable: 503,
    HeadTooLarge: 431,
    PreconditionFailed: 412,
    RangeNotSatisfiable: 416,
    RequestTimeout: 408,
    TooManyConnections: 429,
    UnsupportedBody: 415,
    UpgradeRequired: 426,
    TooManySubscriptions: 429,
    AlreadySubscribed: 409,
    messages.MalformedMessage: 400,
    messages.NoCommonVersion: 426,
    messages.SilentWorker: 408,
    messages.TooManySessions: 429,
    messages.TooMuchUnanswered: 429,
}


Cured = tuple[str, str, str]
"""JSON Pointer, what is wrong, and what to do about it."""


class InvalidBody(Exception):
    """A request's body that does not match its model. `problems`: as pydantic lists them."""

    def __init__(self, problems: Sequence[Any], body: bytes) -> None:
        super().__init__("the body is not valid")
        self.problems, self.body = problems, body
        self.cured: Sequence[Cured] = ()
        """Pointer, description and cure of what is wrong with a part of the body that was looked through."""
        self.looked_through: str | None = None
        """The field that was. What pydantic says of it is left out."""


class InvalidParameters(Exception):
    """Invalid parameters of a path or a query. `problems`: [{loc, msg}], with the parameter's name first in `loc`."""

    def __init__(self, problems: Sequence[Any]) -> None:
        super().__init__("parameters are not valid")
        self.problems = problems


def status_of(error: TidelogError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(
    scope: dict[str, Any],
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool = False,
    errors: list[dict[str, Any]] | None = None,
    extra: dict[str, Any] | None = None,
) -> Response:
    """A problem document. `errors`: [{pointer, detail}] with JSON Pointers into the request's body."""
    body = {
        "type": f"{DOCS}#{code}",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "instance": scope.get("path", ""),
        "code": code,
        "retryable": retryable,
        "trace_id": scope.get("state", {}).get("trace_id"),
        **({"errors": errors} if errors else {}),
        **(extra or {}),
    }
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tidelog"'
    if status == 426:
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket"}
    if status == 415:
        headers |= {"Accept": "application/json", "Accept-Encoding": "identity"}
    return Response(orjson.dumps(body), status, headers, "application/problem+json")


def tidelog_problem(scope: dict[str, Any], error: TidelogError) -> Response:
    extra: dict[str, Any] = {}
    if isinstance(error, errors.VersionConflict | PreconditionFailed):
        extra["current_version"] = error.current
    if isinstance(error, errors.RunKeyBusy):
        extra["run_id"] = str(error.run_id)
    if isinstance(error, errors.HistoryReplaced):
        extra |= {"history": error.history, "last_common_position": error.last_common_position, "cursor": error.cursor}
    if isinstance(error, errors.PositionBeyondHead):
        extra["head"] = error.head
    if isinstance(error, BlobInUse):
        extra["referred_by"] = [str(root) for root in error.roots]
    if isinstance(error, NotPermitted):
        extra |= {"action": error.action, "role": error.role, "roles": error.roles}
    faults = error.faults or ([(error.pointer, error.message)] if error.pointer else [])
    places: list[dict[str, Any]] = [{"pointer": pointer, "detail": detail} for pointer, detail in faults]
    if isinstance(error, InvalidPlan):
        places = [{"pointer": pointer, "detail": detail, "cure": cure} for pointer, detail, cure in error.cured]
    return problem(scope, status_of(error), error.code, error.message, retryable=error.retryable, errors=places, extra=extra)


def defect_problem(scope: dict[str, Any], error: Exception) -> Response:
    """The answer to a request that met a defect. The error is logged, not sent to the caller."""
    log.error("defect", path=scope.get("path", ""), exc_info=error)
    return problem(scope, 500, "internal", "an internal error; the trace id leads to the log")


def not_http_problem(scope: dict[str, Any]) -> Response:
    """The answer to bytes that the HTTP parser refuses."""
    return problem(scope, 400, "bad-request", "the request is not valid HTTP/1.1")


def body_problem(scope: dict[str, Any], error: InvalidBody) -> Response:
    try:
        document = pydantic_core.from_json(error.body)
    except ValueError:
        document = None
    problems = [
        item for item in meant(error.problems) if error.looked_through is None or item["loc"][:1] != (error.looked_through,)
    ]
    places = [(_place(document, item["loc"], item["type"]), told(item)) for item in problems]
    return _invalid(scope, places, error.cured)


def _place(document: Any, loc: Sequence[int | str], kind: str) -> list[int | str]:
    """The place of a problem in the document.

    pydantic's `loc` also names the tried member of a union, which is no part of the document.
    """
    place: list[int | str] = []
    for i, part in enumerate(loc):
        try:
            document = document[part]
        except (LookupError, TypeError):
            if kind != "missing" or i < len(loc) - 1:
                continue
        place.append(part)
    return place


def _invalid(scope: dict[str, Any], places: Sequence[tuple[Sequence[int | str], str]], cured: Sequence[Cured] = ()) -> Response:
    errors = [{"pointer": json_pointer(place), "detail": message} for place, message in places[:50]]
    errors += [{"pointer": pointer, "detail": detail, "cure": cure} for pointer, detail, cure in cured]
    detail = "; ".join(f"{e['pointer']}: {e['detail']}" if e["pointer"] else e["detail"] for e in errors[:1])
    count = len(places) + len(cured)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return problem(scope, 422, "invalid-request", f"{detail}{more}" or "the request is not valid", errors=errors)


def response_to(scope: dict[str, Any], error: Exception) -> Response:
    """The answer to a request that raised an error.

    A `pydantic.ValidationError` is a defect. Invalid input of a caller is refused as InvalidBody or InvalidParameters. So a
    ValidationError comes from stored data, or from a command whose fields are stricter than the fields of its body.
    """
    match error:
        case TidelogError():
            if status_of(error) >= 500 and not isinstance(error, StillStarting):
                log.warning("request_failed", path=scope.get("path", ""), code=error.code, error=error.message)
            return tidelog_problem(scope, error)
        case InvalidBody():
            return body_problem(scope, error)
        case InvalidParameters():
            return _invalid(scope, [(problem["loc"], told(problem)) for problem in error.problems])
        case HTTPException():
            code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
            response = problem(scope, error.status_code, code, str(error.detail))
            response.headers.update(error.headers or {})
            return response
        case ClientDisconnect():
            return Response(status_code=499)  # nobody reads the answer; 499 is the status that proxies log
        case _:
            return defect_problem(scope, error)
