"""How work fails and when it is tried again: pure values and one pure function, shared by agent runs and invocations."""

import hashlib
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.kernel import ShortText, Text, Value

FailureKind = Literal["permanent", "transient", "invalid", "rate_limited", "timeout", "lost", "upstream", "ambiguous"]
"""`lost`: the worker vanished too often. `upstream`: a step before it failed. `ambiguous`: the effect is unknown."""

RETRYABLE: frozenset[str] = frozenset({"transient", "rate_limited"})

MAX_LOST_CLAIMS = 10
"""After so many claims in a row without progress the work itself is assumed to kill its workers."""


class Failure(Value):
    """Why work failed. `message` is bounded and holds no local variables: secrets must not reach an event."""

    type: ShortText
    message: Text
    kind: FailureKind = "permanent"
    retry_after_s: float | None = Field(default=None, ge=0, le=86_400)


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
    digest = hashlib.sha256(work_id.bytes + attempt.to_bytes(4, "big")).digest()
    fraction = (int.from_bytes(digest[:4], "big") + 1) / 2**32
    ceiling: float = min(retry.max_s, retry.initial_s * 2 ** (attempt - 1))
    return max(fraction * ceiling, failure.retry_after_s or 0.0)
