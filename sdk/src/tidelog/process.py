"""The process around the worker's event loop: its signals, its loop and its end, whatever user code does in the process.

User code shares the process and the loop. So nothing that has to happen depends on its goodwill: a thread of its own learns of the
signals and ends the process when the time for an orderly end is over.
"""

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from tidelog.calling import end_fork
from tidelog.crews import CREW, CallThreads, Crew
from tidelog.logs import log, log_failure, own_stderr
from tidelog.places import place_of_task, place_of_thread

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_SECOND_SIGNAL = 130
EXIT_FORCED = 1
LOOK_EVERY_S = 1.0
WIND_UP_S = 0.3
"""Seconds that each part of the end of the loop may take."""
BACKSTOP_S = 0.5
BLOCKED_S = 10.0
"""Seconds without a sign of the loop after which people should know. `LoopWatch` reports blocks that have ended."""
LOOP_FAULTS, FAULTS_WITHIN_S = 10, 10.0
"""So many exceptions out of the loop within this time, beside those of `sys.exit`, are a loop that cannot go on."""


class WorkerProcess:
    """Runs one coroutine in this process.

    After SIGTERM or SIGINT, and after the end of the coroutine, the process lives `limit_s` seconds at most. Neither tasks nor
    threads, exit handlers, blocked loops or child processes of user code keep it longer. A second signal ends it at once.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._signals = 0
        self._asked = False
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._end_at: float | None = None
        self._code: int | None = None
        self._beat = time.monotonic()
        self.stop = asyncio.Event()
        """Set on the loop when the process has been asked to end."""

    def run(self, main: "Coroutine[Any, Any, int]") -> int:
        """Run `main` to its end on a new event loop of this thread, the main one. Returns its result, an exit code."""
        self._take_signals()
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        atexit.register(self._leave)
        os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals, after_in_child=self._leave_to_the_child)
        threading.Thread(target=self._watch, name="tidelog-watch", daemon=True).start()
        self._loop.set_default_executor(CallThreads(max_workers=1))
        self._loop.call_soon(self._look)
        try:
            self._code = self._run(self._loop.create_task(main, name="worker"))
            return self._code
        finally:
            self._begin_end()
            self._wind_up()

    # --- the loop ---

    def _run(self, task: "asyncio.Task[int]") -> int:
        """Run the loop until the task has ended. What user code raises out of the loop is noted, and the loop goes on."""
        task.add_done_callback(lambda _: self._loop.stop())
        faults: list[float] = []
        while not task.done():
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                end_fork(self._pid, error)
                _blame(error)
            except BaseException as error:  # of a signal handler of user code, or of a fork that came back
                end_fork(self._pid, error)
                now = time.monotonic()
                faults = [then for then in faults if now - then < FAULTS_WITHIN_S] + [now]
                if len(faults) > LOOP_FAULTS:
                    raise
                log_failure(logger, "event_loop_interrupted", error)
            else:
                end_fork(self._pid, None)
                if not task.done():
                    log(logger, logging.ERROR, "event_loop_stopped", hint="user code called loop.stop(); the loop goes on")
        return task.result()

    def _look(self) -> None:
        """Each second: the loop lives, and the signals are still ours."""
        self._beat = time.monotonic()
        self._loop.call_later(LOOK_EVERY_S, self._look)
        replaced = [number for number in SIGNALS if signal.getsignal(number) != self._on_signal]
        if replaced:
            self._take_signals()
            names = [signal.Signals(number).name for number in replaced]
            log(
                logger, logging.WARNING, "signal_handler_replaced", signals=names,
                hint="the worker needs these signals for its end and has taken them back; clean up by atexit",
            )  # fmt: skip

    def _wind_up(self) -> None:
        """Give tasks and asynchronous generators of user code a moment to end. What does not end is left behind."""
        try:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._complete(asyncio.wait(left, timeout=WIND_UP_S))
            generators = self._loop.create_task(self._loop.shutdown_asyncgens(), name="end of generators")
            self._complete(asyncio.wait({generators}, timeout=WIND_UP_S))
        except BaseException as error:  # noqa: BLE001  # the process ends anyway
            log(logger, logging.DEBUG, "loop_not_wound_up", reason=repr(error))
        left = asyncio.all_tasks(self._loop)
        if left:
            names = [f"{task.get_name()} ({place_of_task(task)})" for task in left]
            log(logger, logging.WARNING, "tasks_left_behind", count=len(left), tasks=names[:20])
        else:
            self._loop.close()

    def _complete(self, awaited: "Coroutine[Any, Any, Any]") -> None:
        self._run(self._loop.create_task(_then_zero(awaited), name="wind up"))

    # --- the signals ---

    def _take_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Runs between two instructions of the main thread, also while the loop is blocked."""
        self._signals += 1
        if self._signals > 1:
            os._exit(EXIT_SECOND_SIGNAL)
        self._ring(number)

    def _ring(self, number: int) -> None:
        self._asked = True
        with contextlib.suppress(OSError):
            self._wake.send(bytes([number]))

    def _leave_to_the_child(self) -> None:
        """In a process that user code has forked: a signal to the child must not reach the parent through the shared descriptor."""
        with contextlib.suppress(ValueError, OSError):
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
        self._wake.close()
        self._woken.close()
        _let_signals()

    # --- the end ---

    def _begin_end(self) -> None:
        self._ring(int(signal.SIGTERM))

    def _watch(self) -> None:
        """The thread that learns of signals, also while the loop is blocked, and that ends the process in time."""
        blocked, looked = False, time.monotonic()
        while True:
            rung = self._wait()
            now = time.monotonic()
            if self._end_at is None and (self._asked or any(number in SIGNALS for number in rung)):
                self._end_at = now + self._limit_s
                faulthandler.dump_traceback_later(self._limit_s + BACKSTOP_S, exit=True, file=own_stderr())
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self.stop.set)
            if self._end_at is not None and time.monotonic() >= self._end_at:
                self._force()
            if now - looked > 2 * LOOK_EVERY_S:  # the whole process was paused, not the loop blocked
                self._beat = now
            looked, blocked = now, self._note_block(blocked)

    def _wait(self) -> bytes:
        """The signals that have come; empty after a moment without any."""
        try:
            self._woken.settimeout(LOOK_EVERY_S if self._end_at is None else max(0.01, self._end_at - time.monotonic()))
            return self._woken.recv(64)
        except TimeoutError:
            return b""
        except OSError:  # user code has closed the descriptors of the process
            time.sleep(LOOK_EVERY_S / 10)
            return b""

    def _note_block(self, noted: bool) -> bool:
        silent_s = time.monotonic() - self._beat
        if silent_s < BLOCKED_S or self._code is not None:
            return False
        if not noted:
            place = place_of_thread(threading.main_thread().ident)
            log(
                logger, logging.ERROR, "event_loop_does_not_come_back", seconds=round(silent_s, 1), at=place,
                hint="after a minute other workers take over its work; run blocking code with ctx.step, or make it a sync tool",
            )  # fmt: skip
        return True

    def _leave(self) -> None:
        """The last exit handler, because it was the first: user code has no say any more.

        The interpreter would go on to free its memory. On a busy machine that takes longer than the process may live.
        """
        if os.getpid() == self._pid and self._code is not None:
            with contextlib.suppress(BaseException):
                logging.shutdown()
                sys.stdout.flush()
            os._exit(self._code)

    def _force(self) -> None:
        """End the process without waiting for anything that user code holds."""
        others = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
        threads = [f"{thread.name} ({place_of_thread(thread.ident)})" for thread in others]
        log(
            logger, logging.WARNING, "process_ended_by_force", after_s=self._limit_s, threads=threads,
            main_thread=place_of_thread(threading.main_thread().ident),
        )  # fmt: skip
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(EXIT_FORCED if self._code is None else self._code)


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _blame(error: BaseException) -> None:
    """User code asked the process to exit in a task or callback of its own: the call that the code belongs to fails."""
    crew = _crew_of(error)
    log_failure(logger, "process_exit_refused", error, hint="only the run whose code asked for the exit fails")
    if crew is not None:
        crew.exit(error)


def _crew_of(error: BaseException) -> Crew | None:
    """The crew of the callback that raised, by the callback's context variables."""
    trace = error.__traceback__
    while trace is not None:
        handle = trace.tb_frame.f_locals.get("self")
        if isinstance(handle, asyncio.Handle):
            context = getattr(handle, "_context", None)
            return None if context is None else context.get(CREW)
        trace = trace.tb_next
    return None


async def _then_zero(awaited: "Coroutine[Any, Any, Any]") -> int:
    await awaited
    return 0
