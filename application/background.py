"""Tasks that must run until their owner ends them. If one ends before, whatever the reason, the process ends and is started again.

The way there: what owns such a task is `failed()` somewhere, a coroutine that raises; `Assembly.loops` holds it; `api.roles.serve`
awaits it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Self

from application.patience import end


class TaskEnded(Exception):
    """A task that had to go on has ended. Its error, if it had one, is the cause."""

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
    """One such task. Its owner starts and closes it."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Does nothing when it was started before."""
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name=self._name)

    async def failed(self) -> NoReturn:
        """Waits for as long as the task goes on, or is being closed. Raises TaskEnded."""
        assert self._task is not None, f"'{self._name}' is not started"
        await asyncio.wait({self._task})
        if self._closing:
            await asyncio.Event().wait()
        raise TaskEnded.of(self._task, self._name)

    async def close(self, *, grace_s: float = 0.0) -> None:
        """Ends it, after it had time to end by itself."""
        self._closing = True
        if self._task is not None:
            if grace_s:
                await asyncio.wait({self._task}, timeout=grace_s)
            await end(self._task)
