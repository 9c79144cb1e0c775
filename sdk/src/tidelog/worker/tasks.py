"""Tasks beside the work that must go on for as long as it does."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from tidelog.logs import log, log_failure

logger = logging.getLogger(__name__)

AGAIN_AFTER_S = 1.0


async def going_on(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> NoReturn:
    """Runs `work` until cancelled: when `work` ends before, it begins again after a pause.

    `work` may end by an error, a return, or the cancellation of something that it awaits, which asyncio reports nowhere.
    """
    while True:
        try:
            await work()
            log(logger, logging.ERROR, "background_task_failed", task=name, reason="it returned")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            log(logger, logging.ERROR, "background_task_failed", task=name, reason="what it waited for was cancelled")
        except Exception as error:  # noqa: BLE001  # logged, and `work` begins again
            log_failure(logger, "background_task_failed", error, task=name)
        await asyncio.sleep(AGAIN_AFTER_S)
