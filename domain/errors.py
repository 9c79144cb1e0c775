"""Every error that a command or a query can meet.

TidelogError
├── DomainError            the request is understood and refused
│   ├── InvalidCommand     what was sent makes no sense (422)
│   ├── NotFound           (404)
│   ├── InvalidState       not in this state (409)
│   ├── WorkOver           a worker asks for work that is finished, cancelled or dispatched anew (409)
│   ├── StaleAttempt       a worker that lost its lease speaks (409)
│   └── AlreadyExists      (409)
├── VersionConflict        the stream moved on (409, or 412 where the caller gave the version)
├── PayloadTooLarge        an event over the limit (413)
├── IdempotencyMismatch    the same key with another request (422)
├── Unauthenticated        (401)
├── Forbidden              (403)
├── ProjectionBehind       a read model did not reach the position in time (504)
├── PositionGone           a position that no longer can be served (410)
└── Unavailable            a dependency is away; try again (503)

The message is for people; `code` is stable and for programs; data is in attributes. The HTTP status is the edge's business
(api/http/errors.py); it stands here only to be found.
"""

from typing import ClassVar
from uuid import UUID


class TidelogError(Exception):
    """Root of all errors that Tidelog raises on purpose."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, pointer: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        """JSON Pointer to the offending part of the request, where there is one."""


class DomainError(TidelogError):
    code = "refused"


class InvalidCommand(DomainError):
    code = "invalid-command"


class NotFound(DomainError):
    code = "not-found"


class InvalidState(DomainError):
    code = "invalid-state"


class WorkOver(DomainError):
    code = "work-over"


class StaleAttempt(DomainError):
    code = "stale-attempt"


class AlreadyExists(DomainError):
    code = "already-exists"


class VersionConflict(TidelogError):
    code = "version-conflict"
    retryable = True

    def __init__(self, stream_id: UUID, expected: int, current: int) -> None:
        super().__init__(f"stream {stream_id} is at version {current}, not {expected}")
        self.stream_id, self.expected, self.current = stream_id, expected, current


class PayloadTooLarge(TidelogError):
    code = "payload-too-large"


class IdempotencyMismatch(TidelogError):
    code = "idempotency-key-reused"


class Unauthenticated(TidelogError):
    code = "unauthenticated"


class Forbidden(TidelogError):
    code = "forbidden"


class ProjectionBehind(TidelogError):
    code = "projection-behind"
    retryable = True


class PositionGone(TidelogError):
    code = "position-gone"


class Unavailable(TidelogError):
    code = "unavailable"
    retryable = True
