"""Errors as RFC 9457 problem details. The table below is the only place where an error meets an HTTP status."""

from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from domain import errors
from domain.errors import TidelogError

log = structlog.get_logger(__name__)

STATUS: dict[type[TidelogError], int] = {
    errors.InvalidCommand: 422,
    errors.NotFound: 404,
    errors.InvalidState: 409,
    errors.WorkOver: 409,
    errors.StaleAttempt: 409,
    errors.AlreadyExists: 409,
    errors.DomainError: 409,
    errors.VersionConflict: 409,
    errors.PayloadTooLarge: 413,
    errors.IdempotencyMismatch: 422,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ProjectionBehind: 504,
    errors.PositionGone: 410,
    errors.Unavailable: 503,
}

TITLES = {
    400: "Bad request", 401: "Unauthenticated", 403: "Forbidden", 404: "Not found", 405: "Method not allowed", 409: "Conflict",
    410: "Gone", 412: "Precondition failed", 413: "Too large", 422: "Unprocessable", 429: "Too many requests",
    500: "Internal error", 503: "Unavailable", 504: "Not in time",
}  # fmt: skip

DOCS = "/docs/errors"


class PreconditionFailed(TidelogError):
    """`If-Match` names another version than the current one."""

    code = "precondition-failed"

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"the resource is at version {current}, not {expected}")
        self.current = current


STATUS[PreconditionFailed] = 412


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
    return Response(orjson.dumps(body), status, headers, "application/problem+json")


def tidelog_problem(scope: dict[str, Any], error: TidelogError) -> Response:
    extra: dict[str, Any] = {}
    if isinstance(error, errors.VersionConflict | PreconditionFailed):
        extra["current_version"] = error.current
    places = [{"pointer": error.pointer, "detail": error.message}] if error.pointer else None
    return problem(scope, status_of(error), error.code, error.message, retryable=error.retryable, errors=places, extra=extra)


def validation_problem(scope: dict[str, Any], error: ValidationError | RequestValidationError) -> Response:
    places = []
    for item in error.errors()[:50]:
        loc = [str(part) for part in item["loc"] if part not in ("body", "query", "path")]
        places.append({"pointer": "/" + "/".join(loc), "detail": item["msg"]})
    detail = f"{places[0]['pointer']}: {places[0]['detail']}" if places else "the request is not valid"
    return problem(scope, 422, "invalid-request", detail, errors=places)


def install(app: FastAPI) -> None:
    @app.exception_handler(TidelogError)
    async def _tidelog(request: Request, error: TidelogError) -> Response:
        if status_of(error) >= 500:
            log.warning("request_failed", path=request.url.path, code=error.code, error=error.message)
        return tidelog_problem(request.scope, error)  # type: ignore[arg-type]  # a Scope is a dict

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return validation_problem(request.scope, error)  # type: ignore[arg-type]

    @app.exception_handler(ValidationError)
    async def _value(request: Request, error: ValidationError) -> Response:
        return validation_problem(request.scope, error)  # type: ignore[arg-type]

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        return problem(request.scope, error.status_code, code, str(error.detail))  # type: ignore[arg-type]

    @app.exception_handler(Exception)
    async def _defect(request: Request, error: Exception) -> Response:
        log.error("defect", path=request.url.path, exc_info=error)
        return problem(request.scope, 500, "internal", "an internal error; the trace id leads to the log")  # type: ignore[arg-type]
