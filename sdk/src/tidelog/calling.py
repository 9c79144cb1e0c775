"""Calls of user functions: async ones on the event loop, sync ones in threads, and neither kind can stop the process."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from tidelog.crews import name_of, start_thread
from tidelog.errors import PermanentError
from tidelog.handoff import Handoff
from tidelog.texts import text_of, type_of

STOP_WAIT_S = 1.0
"""Seconds that cancelled code of users gets to clean up before the runtime goes on without the code."""
CANCEL_AGAIN_S = 1.0


class ProcessExitError(PermanentError):
    """User code asked the process to exit (`sys.exit`, `KeyboardInterrupt`). The worker lives on; the call fails."""

    @classmethod
    def of(cls, error: BaseException) -> "ProcessExitError":
        return cls(f"user code asked the process to exit: {type_of(error)}({text_of(error, 200)})")


class keep_process:
    """Turns what user code raises to stop the process (SystemExit, KeyboardInterrupt) into an error of the call."""

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end_fork(self._pid, error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise ProcessExitError.of(error) from error


def end_fork(pid: int, error: BaseException | None) -> None:
    """End the present process, unless its id is `pid`: user code has forked the worker and has come back in the copy.

    The copy has the connections of the worker and would work as a second one on them.
    """
    if os.getpid() == pid:
        return
    code = error.code if isinstance(error, SystemExit) else error
    if code is not None and not isinstance(code, int):
        traceback.print_exception(error)
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(code or 0)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine: async functions, partials of them, objects with an async `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # the kind of `__call__` is asked, not whether there is one
    )


async def call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call and wait. A sync function runs in a thread of its own; an awaitable that it returns is awaited here."""
    with keep_process():
        if is_async(function):
            return await function(*args, **kwargs)
        result = await run_in_thread(functools.partial(function, *args, **kwargs))
        return await result if inspect.isawaitable(result) else result


def run_in_thread(function: Callable[[], Any]) -> Awaitable[Any]:
    """Run in an idle or a new daemon thread, with the caller's context variables.

    No pool bounds the threads: when the waiting side gives up (time-out, cancellation) Python cannot stop the thread. The abandoned
    thread must neither hold a place that other calls need nor keep the process from ending. The call's crew bounds and counts its
    threads.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context, returns = contextvars.copy_context(), _returns_to(loop)

    def work() -> None:
        if future.cancelled():  # while it waited for a thread
            return
        outcome = _Outcome(future)
        with outcome:
            outcome.result = context.run(function)
        returns.put(outcome)

    start_thread(work, name_of(function))
    return future


_returned = threading.local()


def _returns_to(loop: asyncio.AbstractEventLoop) -> "Handoff[_Outcome]":
    """Where threads put the outcomes of functions for a loop: the one that runs in the present thread."""
    known: tuple[asyncio.AbstractEventLoop, Handoff[_Outcome]] | None = getattr(_returned, "to", None)
    if known is None or known[0] is not loop:
        known = _returned.to = (loop, Handoff(loop, _Outcome.settle))
    return known[1]


class _Outcome:
    """Catches every exception of a thread's function: the waiting side gets the exception, so none is lost in the thread."""

    result: Any = None
    error: BaseException | None = None

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future

    def settle(self) -> None:
        """Tells the waiting side. On its loop."""
        future, error = self._future, self.error
        if future.done():
            return
        if error is None:
            future.set_result(self.result)
        elif isinstance(error, StopIteration):  # cannot be put into a future
            future.set_exception(RuntimeError(f"the function raised {type_of(error)}({text_of(error, 200)})"))
        else:
            future.set_exception(error)

    def __enter__(self) -> None:
        self._pid = os.getpid()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        end_fork(self._pid, error)
        if isinstance(error, SystemExit | KeyboardInterrupt):
            # Unchanged, these exceptions would stop the event loop as soon as they leave a task.
            self.error = ProcessExitError.of(error)
        else:
            self.error = error
        return error is not None


async def end_tasks(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks of our own until all have ended.

    One cancellation may not be enough: `asyncio.wait_for`, which libraries use, swallows a cancellation when its result
    comes at the same moment (Python before 3.12, github.com/python/cpython/issues/86296).
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


async def stop_task(task: "asyncio.Task[Any]") -> None:
    """Cancel a task that still runs, and wait for its end for `STOP_WAIT_S` seconds: user code may refuse the cancellation."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=STOP_WAIT_S)
