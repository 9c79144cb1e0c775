"""Tasks and who owns them.

A task that must run until its owner ends it is a `Background`. If such a task ends before, for whatever reason, its process ends
and is started again: the owner's coroutine `failed()` raises, `Assembly.loops` holds that coroutine, and `api.roles.serve` awaits
it.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Self

import structlog

from domain.errors import Unavailable

CANCEL_AGAIN_S = 1.0

log = structlog.get_logger(__name__)


class TaskEnded(Exception):
    """A task that must run has ended. The error of the task, if there was one, is the cause."""

    @classmethod
    def of(cls, task: asyncio.Future[Any], name: str) -> Self:
        """For a task that is done."""
        if task.cancelled():
            return cls(f"'{name}' was cancelled, and nobody who may had asked for it")
        error = task.exception()
        ended = cls(f"'{name}' ended" if error is None else f"'{name}' failed: {type(error).__name__}: {error}")
        ended.__cause__ = error
        return ended


class Background:
    """A task that must run. Its owner starts and closes it."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Starts the task, once."""
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=self._name)

    async def failed(self) -> NoReturn:
        """Waits as long as the task runs or is being closed. Raises TaskEnded."""
        assert self._task is not None, f"'{self._name}' is not started"
        await asyncio.wait({self._task})
        if self._closing:
            await asyncio.Event().wait()
        raise TaskEnded.of(self._task, self._name)

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Ends the task, after a grace in which it may end by itself."""
        self._closing = True
        if self._task is not None:
            if grace_s:
                await asyncio.wait({self._task}, timeout=grace_s)
            await end(self._task)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks until all have ended. An error that a task raises instead of the cancellation is logged; an earlier error is
    not.

    One cancellation may not be enough. `asyncio.wait_for`, which clients of NATS and connection pools use, swallows a cancellation
    if its result comes in the same moment (Python before 3.12, github.com/python/cpython/issues/86296). And a cancelled query can
    look like an outage of the database, which loops wait out. For the same reason `end` does not return before the tasks have
    ended, even if it is cancelled itself: it then cancels them again at once.
    """
    cancelled: asyncio.CancelledError | None = None
    ended = [task for task in tasks if task.done()]
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
        for task in pending:
            if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
                log.warning("ended_with_error", error=f"{type(failure).__name__}: {failure}")
    for task in ended:
        if not task.cancelled():
            task.exception()  # else asyncio reports an exception that was never retrieved
    if cancelled is not None:
        raise cancelled


class OnDemand:
    """A task that exists while it has work: for work that one task does for many callers.

    The work returns when nothing is left to do. A caller that brings more work calls `start` afterwards. The owner calls `close`.
    """

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Makes sure that the task runs. Raises Unavailable after `close`."""
        if self._closed:
            raise Unavailable("the process stops")
        if not self.running:
            context = contextvars.Context()  # its log lines must not carry the ids of the request that started it
            self._task = asyncio.create_task(self._work(), name=self._name, context=context)

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            await end(self._task)


async def side_by_side(*work: Coroutine[Any, Any, None]) -> None:
    """Runs all coroutines to their ends.

    The first failure ends the others and is raised. A cancellation ends them as `end` does.
    """
    tasks = [asyncio.create_task(_unless_cancelled_by_itself(each)) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        await end(*tasks)


async def _unless_cancelled_by_itself(work: Coroutine[Any, Any, None]) -> None:
    """Turns a cancellation that nobody asked for into an error: `asyncio.wait` ignores a task that ends as cancelled."""
    try:
        await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            raise RuntimeError("something that was awaited had been cancelled") from error
        raise
