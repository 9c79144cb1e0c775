"""Python processes that are forked from one that has imported the product: `python -m …`, `python -c …` and `tidelog …`.

The imports of a server take a second of processor time, those of a command a third. A forked process is like one of its own in all
else: environment, working directory, arguments, standard streams, signals, exit code. What a kind of process imports is tested with
real commands (`tests/architecture/test_process_imports.py`, `tests/e2e`).

The process that forks (`tests/kit/forking.py`) has neither threads nor an event loop, and ends with the process of the tests, as do
its children.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.pace import Deadline

ROOT = Path(__file__).resolve().parents[2]
NUMBER = struct.Struct("!i")

Output = IO[bytes] | int | None
"""As for `subprocess`: a file, DEVNULL, PIPE, or None for that of the tests."""


class Forked:
    """A process, with the methods of `asyncio.subprocess.Process` and of `subprocess.Popen` that the tests need."""

    def __init__(self, pid: int, told: socket.socket, stdin: int | None, outputs: dict[str, int]) -> None:
        self.pid = pid
        self._told = told
        self._stdin = stdin
        self._outputs = outputs
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        """None while the process runs. Negative: the signal that ended the process."""
        if self._code is None:
            with contextlib.suppress(BlockingIOError):
                self._over(self._told.recv(NUMBER.size))
        return self._code

    def __del__(self) -> None:
        self._told.close()

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        if self.returncode is None:
            with self._told.dup() as own:  # others may wait as well
                loop.add_reader(own.fileno(), ended.set)
                try:
                    await ended.wait()
                finally:
                    loop.remove_reader(own.fileno())
        return self._ended()

    def wait_here(self, seconds: float) -> int | None:
        """`wait` without an event loop. Returns None if the process still runs after the seconds."""
        if self.returncode is None:
            with self._told.dup() as own:
                select.select([own], [], [], seconds)
        return self.returncode

    def _ended(self) -> int:
        code = self.returncode
        assert code is not None
        return code

    async def communicate(self, given: bytes = b"") -> tuple[bytes, bytes]:
        """What stands in the pipes at their end, and waits for the end of the process."""
        reads = {name: asyncio.to_thread(_whole, self._outputs.pop(name)) for name in list(self._outputs)}
        _, *texts = await asyncio.gather(asyncio.to_thread(self._give, given), *reads.values())
        await self.wait()
        found = dict(zip(reads, texts, strict=True))
        return found.get("stdout", b""), found.get("stderr", b"")

    def finished(self, command: Sequence[str | Path], seconds: float) -> subprocess.CompletedProcess[str]:
        """`tests.pace.finished` for this process: waits for the end without an event loop.

        Raises TimeoutExpired after seconds of an idle machine; the process is ended.
        """
        deadline = Deadline(seconds)
        with ThreadPoolExecutor(max(1, len(self._outputs))) as readers:
            reads = {name: readers.submit(_whole, pipe) for name, pipe in self._outputs.items()}
            self._outputs = {}
            while not (over := deadline.over_here()) and self.wait_here(max(0.1, deadline.left_s)) is None:
                pass
            if over:
                self.kill()
            texts = {name: read.result().decode() for name, read in reads.items()}
        if over:
            raise subprocess.TimeoutExpired(command, seconds, texts.get("stdout"), texts.get("stderr"))
        return subprocess.CompletedProcess(command, self._ended(), texts.get("stdout"), texts.get("stderr"))

    def _give(self, given: bytes) -> None:
        if self._stdin is not None:
            with open(self._stdin, "wb") as pipe, contextlib.suppress(BrokenPipeError):
                pipe.write(given)
            self._stdin = None

    def _over(self, code: bytes) -> None:
        self._told.close()
        self._code = NUMBER.unpack(code)[0] if code else -signal.SIGKILL  # the process that forks is gone, and its children with it


def _whole(descriptor: int) -> bytes:
    with open(descriptor, "rb") as pipe:
        return pipe.read()


class _Source:
    """The process that forks. It is started for the first process that is asked for, and ends when its socket is closed."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.forking", str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, asked: bytes, descriptors: list[int]) -> None:
        socket.send_fds(self._ours, [asked], descriptors)

    def close(self) -> None:
        self._ours.close()
        self._process.wait(30)


_lock = threading.Lock()
_source: _Source | None = None


def close() -> None:
    """Ends the process that forks, and all that were forked from it."""
    global _source
    with _lock:
        if _source is not None:
            _source.close()
            _source = None


def imports_the_same(env: Mapping[str, str]) -> bool:
    """Whether a process with this environment imports what the tests import."""
    return env.get("PYTHONPATH") == os.environ.get("PYTHONPATH")


def start(
    arguments: tuple[str, ...],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: Output = None,
    stderr: Output = None,
) -> Forked:
    """Starts a process. Returns when it has begun.

    `arguments`: those of Python (`-m`, `-c`), or `tidelog` and those of the command.
    """
    global _source
    with contextlib.ExitStack() as opened, _lock:
        if _source is None or not _source.alive():
            _source = _Source()
        null = os.open(os.devnull, os.O_RDWR)
        opened.callback(os.close, null)
        given, ours = _stdin(stdin, null, opened)
        out, from_out = _output(stdout, 1, null, opened)
        err, from_err = (out, None) if stderr == subprocess.STDOUT else _output(stderr, 2, null, opened)
        told, tell = socket.socketpair()
        opened.enter_context(tell)
        asked = {"arguments": arguments, "env": dict(os.environ if env is None else env), "cwd": str(cwd or Path.cwd())}
        _source.fork(json.dumps(asked).encode(), [given, out, err, tell.fileno()])
        tell.close()
        pid = told.recv(NUMBER.size)
        assert pid, "the process that forks has ended"
    told.setblocking(False)
    pipes = {"stdout": from_out, "stderr": from_err}
    return Forked(*NUMBER.unpack(pid), told, ours, {name: pipe for name, pipe in pipes.items() if pipe is not None})


async def python(*arguments: str, **options: object) -> Forked:
    """`asyncio.create_subprocess_exec(sys.executable, …)`."""
    return await asyncio.to_thread(start, arguments, **options)  # type: ignore[arg-type]


async def tidelog(*arguments: str, **options: object) -> Forked:
    """The command `tidelog`."""
    return await python("tidelog", *arguments, **options)


def _stdin(asked: int, null: int, opened: contextlib.ExitStack) -> tuple[int, int | None]:
    if asked == subprocess.PIPE:
        theirs, ours = os.pipe()
        opened.callback(os.close, theirs)
        return theirs, ours
    return (null if asked == subprocess.DEVNULL else asked), None


def _output(asked: Output, own: int, null: int, opened: contextlib.ExitStack) -> tuple[int, int | None]:
    """The descriptor for the process, and the end of the pipe that the tests read."""
    if asked is None:
        return own, None
    if asked == subprocess.PIPE:
        ours, theirs = os.pipe()
        opened.callback(os.close, theirs)
        return theirs, ours
    if asked == subprocess.DEVNULL:
        return null, None
    return (asked if isinstance(asked, int) else asked.fileno()), None
