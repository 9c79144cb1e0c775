"""Child processes that this process reaps, that die with it, and that are never confused with another process of the same pid."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.embedded.accounts import Account
from adapters.embedded.errors import StartFailed

# A variable instead of the comparison: so both branches are type-checked on every system.
_ON_LINUX: bool = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.05


def spawn(
    argv: Sequence[str | Path],
    *,
    account: Account | None,
    cwd: Path,
    output: int,
    keep_open: Sequence[int],
    death_signal: signal.Signals,
) -> "Child":
    """Starts a server or tool as `account` (None: the account of this process), with stdout and stderr to the descriptor `output`.

    Raises StartFailed off the main thread: Linux sends the death signal when the *thread* that spawned ends.
    """
    if threading.current_thread() is not threading.main_thread():
        raise StartFailed("embedded servers must be started from the main thread of the process")
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": str(cwd)}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    try:
        process = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=environment,
            umask=0o077,
            pass_fds=keep_open,
            # A new session: Ctrl-C in the terminal reaches only this process, which stops the children in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(death_signal),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except (OSError, subprocess.SubprocessError) as error:
        as_whom = f" as '{account.name}'" if account else ""
        raise StartFailed(f"cannot run {argv[0]}{as_whom}: {error}") from error
    return Child(process)


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if not _ON_LINUX:
        # On other systems an orphan keeps the inherited lock, and the next start ends it (state.py).
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, because no library may be loaded between fork and exec
    parent = os.getpid()

    def arm() -> None:
        # Runs after the change of uid, which would clear the setting. The parent may have died meanwhile: check again.
        if prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)

    return arm


class Child:
    """One running child. The child is not bound to an event loop: it may be started in one loop and stopped in another."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.identity = ProcessIdentity.of(process.pid)

    @property
    def returncode(self) -> int | None:
        """The return code. None while the child runs. Negative: the signal that ended the child."""
        return self._process.poll()

    async def exited(self) -> int:
        """Waits for the end and returns the return code. Callers bound the wait."""
        while (code := self._process.poll()) is None:
            await _until_exit(self.pid)
        return code

    async def stop(self, steps: Sequence[tuple[signal.Signals, float]]) -> int:
        """Sends each signal and waits its seconds for the end, then sends SIGKILL. Reaps the child even if cancelled."""
        try:
            for number, patience_s in steps:
                if self._process.poll() is not None:
                    break
                self._process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience_s):
                        await self.exited()
        finally:
            self.kill()
        return self._process.returncode

    def kill(self) -> None:
        """Ends the child with SIGKILL and reaps it. Blocks for milliseconds."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=10)


async def _until_exit(pid: int) -> None:
    """Returns at the exit of the unreaped child `pid`, or after a moment if the system has no pidfd."""
    try:
        descriptor = os.pidfd_open(pid) if _ON_LINUX else -1
    except OSError:
        descriptor = -1
    if descriptor < 0:
        await asyncio.sleep(_POLL_S)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@dataclass(frozen=True)
class ProcessIdentity:
    """A pid with the start time of its process. No later process with the same pid has the same start time."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The identity of a live process. None if no such process lives; a zombie does not count."""
        if _ON_LINUX:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                return None
            # The command in parentheses may contain any text. So fields are counted from the last parenthesis: state is 1st, start
            # 20th.
            fields = stat.rpartition(")")[2].split()
            return None if fields[0] in "ZX" else cls(pid, fields[19])
        listing = subprocess.run(
            ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        ).stdout.split(None, 1)
        return None if len(listing) < 2 or listing[0].startswith("Z") else cls(pid, listing[1].strip())

    def alive(self) -> bool:
        return ProcessIdentity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to exactly this process. Does nothing if the process has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
