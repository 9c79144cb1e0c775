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


class CrewCall:
    """A function on its way through a thread. `thread`: the identity of the thread, once the function has begun."""

    __slots__ = ("crew", "name", "thread", "work")

    def __init__(self, crew: "Crew", work: Callable[[], None], name: str) -> None:
        self.crew = crew
        self.work = work
        self.name = name
        self.thread: int | None = None


class Crew:
    """What runs for one call: its tasks, and the threads of its sync functions. Made on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._begun: set[CrewCall] = set()
        """The functions that have a thread, or are about to get one."""
        self._waiting: deque[CrewCall] = deque()
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
        call = CrewCall(self, work, name)
        with self._lock:
            if len(self._begun) >= MAX_THREADS:
                self._waiting.append(call)
                return
            self._begun.add(call)
        CallThread.begin(call)

    @property
    def ended(self) -> bool:
        """Whether nothing of the call runs any more."""
        with self._lock:
            return not self._begun and not self._tasks

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

    @property
    def in_threads(self) -> bool:
        """Whether a function of the call has a thread, or waits for one."""
        with self._lock:
            return bool(self._begun or self._waiting)

    def what_runs(self) -> list[str]:
        """Names and places of what still runs, for people: `fetch (crm.py, line 12)`."""
        with self._lock:
            begun = list(self._begun)
        places = [(call.name, place_of_thread(call.thread)) for call in begun]
        places += [(task.get_name(), place_of_task(task)) for task in self._tasks]
        return [f"{name} ({place})" if place else name for name, place in places]

    def drop(self, call: "CrewCall") -> None:
        """A function has not begun, and will not."""
        with self._lock:
            self._begun.discard(call)

    def over(self, call: "CrewCall") -> "CrewCall | None":
        """A function has ended, and its thread takes the next of this crew. None: none waits."""
        with self._lock:
            self._begun.discard(call)
            if self._waiting:
                following = self._waiting.popleft()
                self._begun.add(following)
                return following
        if self._watchers:  # a later one looks by itself
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._tell)
        return None

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

    A new thread for each function would cost more than most functions, and so would waking a thread for each: whoever takes a
    function wakes one more thread if others wait behind, and goes on with these itself while that thread comes. So quick functions
    that are started together need two threads or three. Nobody waits for a function: where no thread is idle, a new one begins.
    """

    _ready: ClassVar[deque[CrewCall]] = deque()
    """Functions that no thread has taken yet."""
    _idle: ClassVar[deque["CallThread"]] = deque()
    """The thread that was used last has the next turn, so that the others can end."""
    _coming: ClassVar[bool] = False
    """A thread has been woken, and has not looked for a function yet."""
    _lock: ClassVar[threading.Lock] = threading.Lock()
    """Guards these three."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="tidelog-idle")
        self._turn: SimpleQueue[None] = SimpleQueue()
        self._is_surplus = False
        """Enough others are idle."""

    @classmethod
    def begin(cls, call: CrewCall) -> None:
        """Has a thread carry the function out. Raises RuntimeError: the process can have no more threads."""
        with cls._lock:
            cls._ready.append(call)
            thread = cls._next_thread()
        if thread is not None:
            try:
                thread.wake()
            except RuntimeError:
                with cls._lock:
                    if call not in cls._ready:  # another thread has taken it
                        return
                    cls._ready.remove(call)
                call.crew.drop(call)
                raise

    @classmethod
    def _next_thread(cls) -> "CallThread | None":
        """The thread to wake for what is ready; under the lock. None: a thread is coming already, or nothing is ready."""
        if cls._coming or not cls._ready:
            return None
        cls._coming = True
        return cls._idle.pop() if cls._idle else cls()

    def wake(self) -> None:
        """Raises RuntimeError: the process can have no more threads."""
        self._turn.put(None)
        if self.ident is None:
            try:
                self.start()
            except RuntimeError:
                with self._lock:
                    CallThread._coming = False
                raise

    def run(self) -> None:
        while self._has_turn():
            first = True
            while (call := self._take(first=first)) is not None:
                first = False
                self._carry_out(call)
                del call  # an idle thread keeps nothing of the call alive
            if self._is_surplus:
                return

    def _take(self, *, first: bool) -> CrewCall | None:
        """The next function. None: nothing is ready, and the thread is idle from now on, or one too many."""
        with self._lock:
            if first:
                CallThread._coming = False
            if not self._ready:
                self._is_surplus = len(self._idle) >= MAX_IDLE
                if not self._is_surplus:
                    self._idle.append(self)
                return None
            call, another = self._ready.popleft(), self._next_thread()
        if another is not None:
            with contextlib.suppress(RuntimeError):  # this thread takes the others then, one after the other
                another.wake()
        return call

    def _carry_out(self, call: CrewCall) -> None:
        """Runs the function, and those that wait in its crew."""
        following: CrewCall | None = call
        while following is not None:
            self.name, following.thread = f"tidelog-{following.name:.60}", self.ident
            following.work()
            following = following.crew.over(following)
        self.name = "tidelog-idle"

    def _has_turn(self) -> bool:
        """Waits to be woken. False: that did not happen for a while."""
        try:
            self._turn.get(timeout=IDLE_S)
        except Empty:
            with self._lock:
                if self in self._idle:
                    self._idle.remove(self)
                    return False
            self._turn.get()  # woken at this moment
        return True

    @classmethod
    def forget(cls) -> None:
        """The process is a copy, and the threads are those of the process that was copied."""
        cls._lock = threading.Lock()
        cls._ready.clear()
        cls._idle.clear()
        cls._coming = False


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
