"""How often, and after which pauses, a request that may be repeated is repeated."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The bound on retries of a request that may be repeated. Waits are random between 0 and a doubling bound (full jitter)."""

    max_elapsed_s: float
    base_s: float = 0.2
    cap_s: float = 10.0
    conflicts: bool = True
    """Whether a retryable conflict may be retried: not if the caller named the expected version."""

    def delay_s(self, failures: int) -> float:
        return random.uniform(0, min(self.cap_s, self.base_s * 2 ** min(failures, 16)))


NO_RETRY = RetryPolicy(max_elapsed_s=0)
