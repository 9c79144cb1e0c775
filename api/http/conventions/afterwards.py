"""Work for a command after it was recorded. The work is optional: its failure never turns the command's answer into an error."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from api.container import Container
from domain.errors import TidelogError

T = TypeVar("T")

log = structlog.get_logger(__name__)


async def afterwards(container: Container, work: Coroutine[Any, Any, T], *, what: str) -> T | None:
    """The result of the work. None if the work fails, takes too long, or is cancelled because the process stops.

    The work bounds its own time, and raises TimeoutError.
    """
    task = asyncio.current_task()
    assert task is not None
    if task.cancelling() and container.live.closed:  # the request was cancelled before: no time is left
        work.close()
        return None
    try:
        return await work
    except asyncio.CancelledError:
        if not container.live.closed:
            raise
        reason = "the process stops"
    except TimeoutError:
        reason = "it took too long"
    except TidelogError as error:
        reason = error.message
    except Exception:
        log.exception("defect_after_the_append", what=what)
        return None
    log.warning("left_undone_after_the_append", what=what, reason=reason)
    return None
