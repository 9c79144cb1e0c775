"""One child process that is restarted whenever it ends."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from adapters.embedded.accounts import Account
from api.supervisor.errors import CannotStart

log = structlog.get_logger(__name__)

EXIT_CANNOT_START = 78
"""Exit code by which a child reports that a restart cannot help and a person has to act (EX_CONFIG of sysexits.h)."""

EXIT_NOT_STARTED = 127

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
SHORT_LIFE_S = 5.0
"""Seconds. A process that ends earlier fails at its start or at its first work: a pause helps. A later end is a new failure."""
DEATHS_TO_REPORT = 3
CHILDREN_PATIENCE_S = 0.5
"""Seconds that the children of a child get to end after its end."""

_ON_LINUX: bool = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1


class Backoff:
    """Pauses between starts: 0.2 s, doubled up to 10 s after each short life, and 0.2 s again after a longer life."""

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self._started = time.monotonic()
        self.short_lives = 0

    def started(self) -> None:
        self._started = time.monotonic()

    def ended(self) -> float:
        """Seconds to wait before the next start."""
        lived_s = time.monotonic() - self._started
        if lived_s < SHORT_LIFE_S:
            self.short_lives += 1
        else:
            self.short_lives, self._pause_s = 0, FIRST_PAUSE_S
        pause_s = self._pause_s
        self._pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s


@dataclass(frozen=True)
class Program:
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    account: Account | None = None
    """None: the account of this process."""


class SupervisedProcess:
    """A child that is kept running until `stop()`. `program` is called at each start, so that addresses may change.

    `changed` is called when the result of `describe()` changes.
    """

    def __init__(
        self,
        name: str,
        program: Callable[[], Program],
        *,
        stop_patience_s: float,
        changed: Callable[[], None],
        reason: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`reason`: why the child cannot start, if the child has left a reason."""
        self.name = name
        self._reason = reason
        self.settled = False
        """Set by the owner when the server is ready. From then on the child is restarted after every end."""
        self._program = program
        self._stop_patience_s = stop_patience_s
        self._changed = changed
        self._process: Process | None = None
        self._restarts = 0
        self._stopping = asyncio.Event()

    def describe(self) -> dict[str, object]:
        running = self._process is not None and self._process.returncode is None
        return {"pid": self._process.pid if running and self._process else None, "restarts": self._restarts}

    async def run(self) -> None:
        """Keeps the child running until `stop()`.

        Raises:
            CannotStart: the child ended with EXIT_CANNOT_START before the server was ready.
        """
        backoff = Backoff()
        while not self._stopping.is_set():
            backoff.started()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if code == EXIT_CANNOT_START and not self.settled:
                raise CannotStart(self._reason() or f"the process '{self.name}' cannot start; its reason stands above")
            pause_s = backoff.ended()
            log.error("process_ended", process=self.name, end=_how(code), starts_again_in_s=pause_s)
            if backoff.short_lives and backoff.short_lives % DEATHS_TO_REPORT == 0:
                log.error(
                    "process_keeps_dying", process=self.name, times=backoff.short_lives,
                    hint="its own lines above say why; it is tried again for as long as this server runs",
                )  # fmt: skip
            await asyncio.sleep(pause_s)
            self._restarts += 1

    async def stop(self) -> None:
        """Sends SIGTERM, and SIGKILL after the grace. `run()` returns then."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_patience_s):
                await process.wait()
        except TimeoutError:
            log.warning("process_killed", process=self.name, patience_s=self._stop_patience_s)
        finally:
            self.kill()
            _signal_group(process.pid, signal.SIGKILL)

    def restart(self) -> None:
        """Ends the present child with SIGTERM. `run()` starts a new one."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def _run_once(self) -> int:
        try:
            program = self._program()
            self._process = await asyncio.create_subprocess_exec(
                *program.argv,
                env=dict(program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                # A new session: Ctrl-C in the terminal reaches only the supervisor, which stops the children in order.
                start_new_session=True,
                preexec_fn=_as_child(program.account),
            )
        except (OSError, subprocess.SubprocessError) as error:  # no processes, memory or disk space left, which may pass
            log.error("process_not_started", process=self.name, error=str(error))
            return EXIT_NOT_STARTED
        log.debug("process_started", process=self.name, pid=self._process.pid)
        self._changed()
        try:
            code = await self._process.wait()
        finally:
            self._changed()
        await self._end_children(self._process.pid)
        return code

    async def _end_children(self, group: int) -> None:
        """Ends the processes that the child has started and left behind, as agents of a worker may: they would keep ports and locks
        that the next child needs. A process that is to stay begins a session of its own."""
        if _signal_group(group, signal.SIGTERM):
            log.warning("children_left_behind", process=self.name, patience_s=CHILDREN_PATIENCE_S)
            await asyncio.sleep(CHILDREN_PATIENCE_S)
            _signal_group(group, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            send_signal(self._process, number)


def send_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """`Process.send_signal` looks whether the process has ended, and so takes the exit code that asyncio waits for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _signal_group(group: int, number: signal.Signals) -> bool:
    """Whether there was a process left in the group of a child that has ended. Each child leads a session and group of its own."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _how(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _as_child(account: Account | None) -> Callable[[], None] | None:
    """A `preexec_fn` that gives up every right of root for those of the account, and arms `die_with_parent`.

    The arguments `user` and `group` of asyncio would do the same, but uvloop does not know them.
    """
    dying = die_with_parent()
    if account is None:
        return dying

    def become() -> None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
        if dying is not None:
            dying()  # last, because a change of uid clears the death signal

    return become


def die_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn`. With it Linux sends the child SIGTERM when the parent dies. None on other systems.

    The child must be spawned from the main thread, because Linux sends the signal at the end of the spawning thread.
    """
    if not _ON_LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, because no library may be loaded between fork and exec
    parent = os.getpid()

    def arm() -> None:
        if prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(EXIT_NOT_STARTED)

    return arm
