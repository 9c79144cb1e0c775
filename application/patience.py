"""Waiting out a dependency that is away: what every long-running loop does with `Unavailable`; and ending such a loop."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from domain.errors import Unavailable, VersionConflict

MAX_PAUSE_S = 5.0
CANCEL_AGAIN_S = 1.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def persistently(attempt: Callable[[], Awaitable[T]]) -> T:
    """The attempt's result, tried again with backoff (0.1 s to 5 s, full jitter) while what it needs is away.

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


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancels until all have ended. What they raise instead of the cancellation is logged.

    Once may not be enough: a query that is cancelled can come out as an outage of the database, which loops wait out.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        for task in pending:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.warning("ended_with_error", error=f"{type(error).__name__}: {error}")
