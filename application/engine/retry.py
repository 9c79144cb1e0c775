"""Retry: every long-running loop waits out a dependency that is away (`Unavailable`)."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from domain.errors import Unavailable, VersionConflict

MAX_PAUSE_S = 2.0
"""Longest pause between tries, in seconds. After an outage of any length everything must be back within five seconds."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """The attempt's result. The attempt is tried again with backoff (0.1 s to 2 s, full jitter) while a dependency is away.

    Other errors pass through. A conflict that outlasted the command loop's own retries is tried again as well.
    """
    failures = 0
    while True:
        try:
            return await attempt()
        except (Unavailable, VersionConflict) as error:
            failures += 1
            if failures == 1 or failures % 20 == 0:
                log.warning("waiting_for_dependency", error=str(error), failures=failures)
            ceiling = min(MAX_PAUSE_S, 0.1 * 2 ** min(failures, 10))
            await asyncio.sleep(random.uniform(0.05, ceiling))
