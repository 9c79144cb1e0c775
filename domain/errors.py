"""Every error that a command or a query can meet.

TidelogError
├── DomainError            the request is understood and refused
│   ├── InvalidCommand     the command makes no sense (422)
│   ├── NotFound           (404)
│   ├── InvalidState       not in this state (409)
│   │   ├── RunOfParent        the run is steered by way of the run that started it (409)
│   │   ├── EffectsTakenBack   the run's effects are being taken back (409)
│   │   ├── EffectInDoubt      a person must resolve a call first (409)
│   │   ├── StillEnding        work of the run is still under way (409)
│   │   └── RunKeyBusy         another run holds the key (409)
│   ├── RunKeyQueueFull    as many runs wait for the key as may (429)
│   ├── WorkOver           the work is finished, cancelled or dispatched anew (409)
│   │   └── RunIsPaused    nothing begins until a person resumes the run (409)
│   ├── StaleAttempt       the report comes from a worker that lost its lease (409)
│   ├── RecipientOver      a message is for a step that has ended (409)
│   ├── RepeatedDifferently  a recorded command comes again with other content (409)
│   │   └── AlreadyResolved  a person has resolved the call before (409)
│   └── AlreadyExists      (409)
├── VersionConflict        the stream moved on (409, or 412 where the caller gave the version)
├── PayloadTooLarge        an event over the limit (413)
├── IdempotencyMismatch    the same key with another request (422)
├── HistoryReplaced        the cursor is of a history that the log has lost (410)
├── PositionBeyondHead     the log has not reached the position (410)
├── Unauthenticated        (401)
├── Forbidden              (403)
├── TooManyOpenRuns        as many runs are open as may be (503)
├── TooManyOpenRunsOfTenant  the same for one tenant (429)
├── ProjectionBehind       a read model did not reach the position in time (504)
└── Unavailable            a dependency is away; try again (503)

The message is for people. `code` is stable and for programs. Data is in attributes. api/http/conventions/errors.py chooses the HTTP
status; the numbers stand here only as a help.
"""

from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID


class TidelogError(Exception):
    """Root of all errors that Tidelog raises on purpose."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, pointer: str | None = None, faults: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        """JSON Pointer to the offending part of the request, where there is one."""
        self.faults = tuple(faults)
        """JSON Pointer and description of each offending part, where there may be several."""


class DomainError(TidelogError):
    """The request is understood and refused by the rules."""

    code = "refused"


class InvalidCommand(DomainError):
    """The command makes no sense."""

    code = "invalid-command"


class NotFound(DomainError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not-found"


class InvalidState(DomainError):
    """The present state does not allow the command."""

    code = "invalid-state"


class RunOfParent(InvalidState):
    """The run is a part of a step of another run, and is steered by way of that one."""

    code = "run-of-parent"

    def __init__(self, message: str, *, run_id: UUID) -> None:
        super().__init__(message)
        self.run_id = run_id


class EffectsTakenBack(InvalidState):
    """The effects of the run are being taken back, or were: it cannot go on from them."""

    code = "effects-taken-back"


class EffectInDoubt(InvalidState):
    """Nobody knows whether a call had its effect. A person must say so first."""

    code = "effect-in-doubt"


class StillEnding(InvalidState):
    """Work of what has ended is still under way. It ends by itself."""

    code = "still-ending"
    retryable = True


class RunKeyBusy(InvalidState):
    """Another run holds the key, and the start says that it is refused then."""

    code = "run-key-busy"

    def __init__(self, message: str, *, run_id: UUID) -> None:
        super().__init__(message, pointer="/concurrency/key")
        self.run_id = run_id
        """That holds the key."""


class RunKeyQueueFull(DomainError):
    """As many runs wait for the key as may. No run was started."""

    code = "run-key-queue-full"
    retryable = True


class WorkOver(DomainError):
    """A worker asks for work that is finished, cancelled or dispatched anew."""

    code = "work-over"


class RunIsPaused(WorkOver):
    """The run of the work is paused: nothing begins until the run is resumed. The work is dispatched anew then."""

    code = "run-paused"


class StaleAttempt(DomainError):
    """The report comes from a worker that lost its lease. Another attempt is the newest."""

    code = "stale-attempt"


class RecipientOver(DomainError):
    """A message is for a step that has ended. Nobody would read it."""

    code = "recipient-over"


class RepeatedDifferently(DomainError):
    """A recorded command comes again with other content. The first one stands."""

    code = "repeated-differently"


class AlreadyResolved(RepeatedDifferently):
    """A person has resolved the call before, in another way."""

    code = "already-resolved"


class AlreadyExists(DomainError):
    """It exists already, with other content."""

    code = "already-exists"


class VersionConflict(TidelogError):
    """The stream moved on since the caller looked."""

    code = "version-conflict"
    retryable = True

    def __init__(self, stream_id: UUID, expected: int, current: int) -> None:
        super().__init__(f"stream {stream_id} is at version {current}, not {expected}")
        self.stream_id, self.expected, self.current = stream_id, expected, current


class PayloadTooLarge(TidelogError):
    """An event or a body is over the limit."""

    code = "payload-too-large"


class IdempotencyMismatch(TidelogError):
    """The same idempotency key with another request."""

    code = "idempotency-key-reused"


class HistoryReplaced(TidelogError):
    """The cursor is of a history that has ended.

    Events after `last_common_position` that its holder has are no longer in the log.
    """

    code = "history-replaced"

    def __init__(self, message: str, *, history: str, last_common_position: int, cursor: str, reason: str) -> None:
        super().__init__(message)
        self.history, self.last_common_position = history, last_common_position
        self.cursor, self.reason = cursor, reason


class PositionBeyondHead(TidelogError):
    """No event of the log has the position. It was never given out, or the log has lost it."""

    code = "position-beyond-head"

    def __init__(self, position: int, head: int) -> None:
        super().__init__(f"position {position} is beyond the newest event, which is at {head}")
        self.head = head


class Unauthenticated(TidelogError):
    """The request has no API key, or an invalid one."""

    code = "unauthenticated"


class Forbidden(TidelogError):
    """The key is known, but may not do this."""

    code = "forbidden"


class TooManyOpenRuns(TidelogError):
    """As many runs are open as the installation may have. No run was started."""

    code = "too-many-open-runs"
    retryable = True


class TooManyOpenRunsOfTenant(TidelogError):
    """As many runs are open as a tenant may have. No run was started."""

    code = "too-many-open-runs-of-tenant"
    retryable = True


class ProjectionBehind(TidelogError):
    """A read model did not reach the wanted position in time."""

    code = "projection-behind"
    retryable = True


class Unavailable(TidelogError):
    """A dependency is away; try again."""

    code = "unavailable"
    retryable = True


def json_pointer(place: Sequence[str | int]) -> str:
    """The JSON Pointer (RFC 6901) to a place; empty: the whole document."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
