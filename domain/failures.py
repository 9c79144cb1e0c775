"""How work fails and when it is tried again: pure values and one pure function, shared by agent runs and invocations."""

import hashlib
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from domain.kernel import ShortText, Text, Value

FailureKind = Literal["permanent", "transient", "invalid", "rate_limited", "timeout", "lost", "upstream", "ambiguous"]
"""`lost`: the worker vanished too often. `upstream`: a step before it failed. `ambiguous`: the effect is unknown."""

RETRYABLE: frozenset[str] = frozenset({"transient", "rate_limited"})

MAX_LOST_CLAIMS = 10
"""After so many claims in a row without progress the work itself is assumed to kill its workers."""


LapseReason = Literal["lost", "left", "unsent"]
"""Why a session no longer has a piece of work. `lost`: nobody saw the session for the time of its lease. `left`: the worker ended
the session. `unsent`: the work never reached the worker, so nothing of it has begun."""

MAX_TRACEBACK = 10_000
MAX_CAUSES = 20

LineNumber = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Cause(Value):
    """An exception behind another one.

    `member`: of an exception group. `cause`: of `raise … from`. `context`: it was being handled when the other one came up.
    """

    relation: Literal["cause", "context", "member"]
    type: ShortText
    message: Text
    file: ShortText | None = None
    line: LineNumber | None = None


class Failure(Value):
    """Why work failed. All texts are bounded and hold no local variables: secrets must not reach an event.

    A failure that the server itself states (a time-out, lost workers) has no place in a file.
    """

    type: ShortText
    message: Text
    kind: FailureKind = "permanent"
    retry_after_s: float | None = Field(default=None, ge=0, le=86_400)
    file: ShortText | None = None
    """The file of the user's code in which the error came up."""
    line: LineNumber | None = None
    traceback: Annotated[Text, Field(max_length=MAX_TRACEBACK)] | None = None
    causes: tuple[Cause, ...] = Field(default=(), max_length=MAX_CAUSES)
    """The leaf errors of a group, and the chain of causes, outermost first."""


class Retry(Value):
    """Exponential backoff with full jitter, bounded by attempts."""

    max_attempts: int = Field(default=1, ge=1, le=20)
    initial_s: float = Field(default=0.5, gt=0, le=3600)
    max_s: float = Field(default=60.0, gt=0, le=86_400)


def backoff_s(retry: Retry, work_id: UUID, attempt: int, failure: Failure) -> float:
    """Seconds to wait before the next attempt: uniform in (0, initial · 2^(attempt-1)], at least what the failure asks for.

    The jitter is a hash of the work and the attempt, so that deciding stays a pure function. A hash spreads as well as random
    numbers (full jitter: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
    """
    ceiling: float = min(retry.max_s, retry.initial_s * 2 ** (attempt - 1))
    return max(_fraction(work_id, attempt) * ceiling, failure.retry_after_s or 0.0)


def spread_s(work_id: UUID, attempt: int, wait_s: float) -> float:
    """Seconds to wait where many wait for one moment: uniform in (wait, wait + a tenth of it], at least a tenth of a second more
    and at most ten, so that they do not come all at once. The jitter is that of `backoff_s`.
    """
    return wait_s + _fraction(work_id, attempt) * min(max(wait_s / 10, 0.1), 10.0)


def _fraction(work_id: UUID, attempt: int) -> float:
    """Uniform in (0, 1]."""
    digest = hashlib.sha256(work_id.bytes + attempt.to_bytes(4, "big")).digest()
    return (int.from_bytes(digest[:4], "big") + 1) / 2**32
