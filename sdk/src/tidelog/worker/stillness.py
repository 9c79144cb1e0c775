"""Whether an agent does nothing but wait, seen from outside.

Every task of the agent waits in a call of its context, or for other tasks of the agent; no thread, no timer and no callback of the
event loop belongs to it. So an agent that waits with `asyncio.timeout` around the call, or works beside it, stays. Where the event
loop cannot be looked into, every agent stays.
"""

import asyncio
import contextlib
import gc
from collections import deque
from collections.abc import Iterable, Iterator
from contextvars import Context as Variables
from itertools import chain
from types import CodeType
from typing import Any, cast

from tidelog.crews import CREW, Crew
from tidelog.inbox import OpenWait

_JOINS: frozenset[CodeType] = frozenset(
    found.__code__
    for name in ("__aexit__", "_aexit")
    if (found := asyncio.TaskGroup.__dict__.get(name)) is not None and hasattr(found, "__code__")
)
"""Where a group of tasks waits for its tasks."""
_WAIT: CodeType = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]
_GATHERING: type = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]
_SEEN: dict[type, bool] = {}
"""Kind of event loop → whether its timers can be seen."""


def only_waits(crew: Crew, waits: Iterable[OpenWait]) -> bool:
    """Whether all that runs for an agent waits in calls of its context."""
    loop = asyncio.get_running_loop()
    if crew.in_threads or not _sees_timers(loop):
        return False
    if any(_is_of(crew, _variables_of(handle)) for handle in _handles(loop)):
        return False
    tasks = {task for task in asyncio.all_tasks(loop) if _is_of(crew, _variables_of(task))}
    waiting = {wait.task for wait in waits}
    return all(task in waiting or _joins(task, tasks) for task in tasks)


def _is_of(crew: Crew, variables: Variables | None) -> bool:
    return variables is not None and variables.get(CREW) is crew


def _variables_of(one: Any) -> Variables | None:
    """The context variables with which a task, or a callback of the event loop, runs."""
    if hasattr(one, "get_context"):
        found: Variables = one.get_context()
        return found
    if (of_handle := getattr(one, "_context", None)) is not None:
        return cast(Variables, of_handle)
    # Tasks of Python 3.11 and handles of uvloop have no way to ask.
    return next((other for other in gc.get_referents(one) if isinstance(other, Variables)), None)


def _handles(loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """The callbacks that are due now or later."""
    scheduled, ready = getattr(loop, "_scheduled", None), getattr(loop, "_ready", None)
    if scheduled is None or ready is None:  # uvloop
        scheduled, ready = (), chain(*(one for one in gc.get_referents(loop) if isinstance(one, set | deque)))
    for handle in list(chain(scheduled, ready)):
        is_one = isinstance(handle, asyncio.Handle) or type(handle).__name__ in ("Handle", "TimerHandle")
        if is_one and not handle.cancelled():
            yield handle


def _sees_timers(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether timers of this kind of event loop can be seen. Tried once."""
    kind = type(loop)
    if kind not in _SEEN:
        mark = Variables()
        handle = loop.call_later(60.0, int, context=mark)
        _SEEN[kind] = any(_variables_of(one) is mark for one in _handles(loop))
        handle.cancel()
    return _SEEN[kind]


def _joins(task: "asyncio.Task[Any]", tasks: "set[asyncio.Task[Any]]") -> bool:
    """Whether a task waits for others of these tasks."""
    awaited = getattr(task, "_fut_waiter", None)
    if awaited in tasks:
        return True
    if isinstance(awaited, _GATHERING):
        return all(child in tasks or child.done() for child in awaited._children)  # type: ignore[attr-defined]
    inner: Any = task.get_coro()
    with contextlib.suppress(AttributeError):
        while hasattr(inner.cr_await, "cr_code"):
            inner = inner.cr_await
        if inner.cr_code in _JOINS:
            return True
        if inner.cr_code is _WAIT:
            return all(one in tasks or one.done() for one in inner.cr_frame.f_locals["fs"])
    return False
