"""The threads and tasks in which the code of one call runs. Python cannot stop a thread, and code may swallow a cancellation, so
whoever gave up a call needs to know whether its code still runs."""

import asyncio
import contextlib
import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar

from tidelog.places import place_of_task, place_of_thread

MAX_THREADS = 32
"""Threads of one call at once. Further functions wait for one of these threads."""
IDLE_S = 5.0
"""Seconds after which a thread without a function ends."""
MAX_IDLE = 128
"""Threads that wait for a function. A further thread ends with its function."""
_RESOLVERS = frozenset({"getaddrinfo", "getnameinfo", "_getaddrinfo_debug"})


class Crew:
    """What runs for one call: its tasks, and the threads of its sync functions. Made on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._threads: dict[threading.Thread, str] = {}
        """The name of the function that each thread runs."""
        self._waiting: deque[tuple[Callable[[], None], str]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watchers: set[asyncio.Future[None]] = set()
        self.exited: asyncio.Future[BaseException] = self._loop.create_future()
        """Its result is the SystemExit or KeyboardInterrupt that code of the call raised where nobody waits for the code."""

    def add_task(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def cancel(self) -> None:
        """Cancel the tasks that still run. Threads cannot be stopped."""
        for task in self._tasks:
            task.cancel()

    def exit(self, error: BaseException) -> None:
        if not self.exited.done():
            self.exited.set_result(error)

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run `work`, which raises nothing, in a daemon thread. From any thread."""
        with self._lock:
            if len(self._threads) >= MAX_THREADS:
                self._waiting.append((work, name))
                return
            thread = CallThread.idle()
            self._threads[thread] = name
        thread.carry_out(partial(self._work, work, name), name)

    @property
    def ended(self) -> bool:
        """Whether nothing of the call runs any more."""
        with self._lock:
            return not self._threads and not self._tasks

    async def end_within(self, seconds: float) -> bool:
        """Whether everything has ended within the seconds."""
        if not self.ended:
            watcher: asyncio.Future[None] = self._loop.create_future()
            self._watchers.add(watcher)
            self._tell()
            try:
                await asyncio.wait({watcher}, timeout=seconds)
            finally:
                self._watchers.discard(watcher)
        return self.ended

    def what_runs(self) -> list[str]:
        """Names and places of what still runs, for people: `fetch (crm.py, line 12)`."""
        with self._lock:
            threads = dict(self._threads)
        places = [(name, place_of_thread(thread.ident)) for thread, name in threads.items()]
        places += [(task.get_name(), place_of_task(task)) for task in self._tasks]
        return [f"{name} ({place})" if place else name for name, place in places]

    def _work(self, work: Callable[[], None], name: str) -> None:
        me = threading.current_thread()
        while True:
            work()
            with self._lock:
                if not self._waiting:
                    del self._threads[me]
                    break
                work, name = self._waiting.popleft()
                self._threads[me] = name
        if self._watchers:  # a later one looks by itself
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._tell)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        self._tell()

    def _tell(self) -> None:
        if self._watchers and self.ended:
            for watcher in self._watchers:
                if not watcher.done():
                    watcher.set_result(None)


CREW: contextvars.ContextVar[Crew | None] = contextvars.ContextVar("tidelog_crew", default=None)
"""The crew of the call to which the running code belongs. None: code of the worker itself."""


def start_thread(work: Callable[[], None], name: str) -> None:
    """Run `work`, which raises nothing, in a daemon thread of the present call, or of nobody."""
    crew = CREW.get()
    if crew is None:
        daemon(work, name).start()
    else:
        crew.start(work, name)


class CallThreads(ThreadPoolExecutor):
    """The default executor of the worker's event loop: a thread for each function, in the crew of its call.

    A pool would be shared: functions of one agent that hang would hold up `asyncio.to_thread` of all others and the worker's own
    look-ups of host names, and the end of the process would wait for them.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        work, name = partial(_settle, future, fn, args, kwargs), getattr(fn, "__name__", "function")
        if name in _RESOLVERS:  # ours also where an agent's call makes the connection
            daemon(work, name).start()
        else:
            start_thread(work, name_of(fn))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to wait for: the threads are daemons."""


class CallThread(threading.Thread):
    """A daemon thread that carries out one function after the other, of any crew.

    A new thread for each function would cost more than most functions. Nobody waits for a thread: where none is idle, a new one
    begins, so a function that hangs holds up no other.
    """

    _idle: ClassVar[deque["CallThread"]] = deque()
    """The thread that was used last has the next turn, so that the others can end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._next: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @classmethod
    def idle(cls) -> "CallThread":
        """A thread without a function. The caller gives it one by `carry_out`."""
        try:
            return cls._idle.pop()
        except IndexError:
            return cls()

    def carry_out(self, work: Callable[[], None], name: str) -> None:
        """Runs `work`, which raises nothing."""
        self.name = f"tidelog-{name:.60}"
        self._next.put(work)
        if self.ident is None:
            self.start()

    def run(self) -> None:
        while (work := self._given()) is not None:
            work()
            del work  # an idle thread keeps nothing of the call alive
            if len(self._idle) >= MAX_IDLE:
                return
            self.name = "tidelog-idle"
            self._idle.append(self)

    def _given(self) -> Callable[[], None] | None:
        """The next function. None: none came for a while."""
        try:
            return self._next.get(timeout=IDLE_S)
        except Empty:
            try:
                self._idle.remove(self)
            except ValueError:  # taken at this moment
                return self._next.get()
            return None

    @classmethod
    def forget(cls) -> None:
        """The process is a copy, and the threads are those of the process that was copied."""
        cls._idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CallThread.forget)


def daemon(target: Callable[[], None], name: str) -> threading.Thread:
    return threading.Thread(target=target, name=f"tidelog-{name:.60}", daemon=True)


def name_of(function: Any) -> str:
    """The name of a function, whatever its attributes are."""
    while isinstance(function, partial):  # `asyncio.to_thread` hands over a partial of `Context.run`
        runs_another = getattr(function.func, "__name__", "") == "run" and function.args and callable(function.args[0])
        function = function.args[0] if runs_another else function.func
    try:
        return str.__str__(function.__qualname__)
    except BaseException:  # noqa: BLE001  # an object of users with attributes of its own
        return str(type.__dict__["__name__"].__get__(type(function)))


def _settle(future: "Future[Any]", fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001  # the waiting side gets the exception, even SystemExit
        future.set_exception(error)
    else:
        future.set_result(result)
