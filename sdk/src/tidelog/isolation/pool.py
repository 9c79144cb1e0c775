"""The worker's side of isolated calls: a template for each module, and for each call its lines, its bounds and its end."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import JsonValue, ValidationError

from tidelog.calling import ProcessExitError
from tidelog.errors import CpuLimitError, PermanentError, ProcessCrashedError, TransientError
from tidelog.failures import MAX_CAUSES, MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES, ErrorReport, ReportedError
from tidelog.isolation.declared import Isolation, cpu_seconds
from tidelog.isolation.frames import FAILURE, HEAD, LINE, MAX_FRAME, REQUEST, RESULT, USED, frame
from tidelog.isolation.kernel import Kernel, hide_memory
from tidelog.logs import log
from tidelog.siblings import known_folders
from tidelog.texts import cut, cut_front
from tidelog.values import to_json

logger = logging.getLogger(__name__)

START_S = 60.0
"""Seconds that the import of a module may take in its template."""
END_S = 2.0
"""Seconds behind the time-out of a call in which the keeper ends it, should the worker not."""
WAIT_S = 0.01
OUTPUT_BYTES = 256 * 1024
"""Of the output of one call, of its errors, and of its own lines, each, that go into the logs."""
MAX_LINE = 16 * 1024
_ALWAYS = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)  # fmt: skip
"""Variables that a tool gets without naming them, and those that begin with LC_."""

Put = Callable[[str], None]


class NotPreparedError(PermanentError):
    """The module of the tool cannot be imported in a process of its own."""


@dataclass(frozen=True)
class Order:
    """One call. `output`, `errors`, `line`, `used`: take what it prints, what it writes to standard error, lines of its log, and
    what it says to have used."""

    tool: str
    isolation: Isolation
    timeout_s: float
    request: Mapping[str, Any]
    output: Put
    errors: Put
    line: Callable[[bytes], None]
    used: Callable[[bytes], None] = lambda _: None


class Template:
    """The template of one module, for tools that may see the same. It is started with the first call, and anew if it has ended."""

    def __init__(self, module: str, tool: str, isolation: Isolation, kernel: Kernel) -> None:
        """`tool`: one of the module, which the template looks at."""
        self._module = module
        self._tool = tool
        self._isolation = isolation
        self._kernel = kernel
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def call(self, order: Order) -> JsonValue:
        """Raises ReportedError, CpuLimitError, ProcessCrashedError, ProcessExitError, NotPreparedError, and what `to_json` raises.

        Cancelled, it kills the call.
        """
        call = _Call(order)
        try:
            for attempt in (1, 2):
                line = await self._ready()
                try:
                    await call.send(line)
                    break
                except OSError:  # it has ended since
                    self.close()
                    if attempt == 2:
                        raise ProcessCrashedError(f"the template of {self._module} ends as soon as it has begun") from None
            return await call.run()
        finally:
            call.close()

    def close(self) -> None:
        line, process = self._line, self._process
        self._line = self._process = None
        if line is not None:
            line.close()
        if process is not None:
            process.kill()
            process.wait()

    async def _ready(self) -> socket.socket:
        async with self._starting:
            if self._process is not None and self._process.poll() is not None:
                self.close()
            if self._line is None:
                try:
                    self._line = await self._start()
                except BaseException:
                    self.close()
                    raise
            return self._line

    async def _start(self) -> socket.socket:
        ours, theirs = _pair(socket.SOCK_SEQPACKET if hasattr(socket, "SOCK_SEQPACKET") else socket.SOCK_STREAM)
        hide_memory()
        with theirs:
            self._process = self._spawn(theirs.fileno())
        set_up = self._set_up()
        try:
            ours.setblocking(False)
            ours.send(json.dumps(set_up).encode())
            async with asyncio.timeout(START_S):
                told = json.loads(await asyncio.get_running_loop().sock_recv(ours, 64 * 1024) or b"{}")
        except TimeoutError:
            ours.close()
            raise NotPreparedError(f"the import of {self._module} has not ended after {START_S:g} s in its process") from None
        except BaseException:
            ours.close()
            raise
        if "threads" not in told:
            ours.close()
            why = told.get("error", "the process ended")
            raise NotPreparedError(f"{self._module} cannot be imported in a process of its own: {why}")
        if told["threads"] > 1:
            hint = "a copy of a process with threads may hang; start threads in the tool, not while its module is imported"
            log(logger, logging.WARNING, "module_starts_threads", module=self._module, threads=told["threads"], hint=hint)
        return ours

    def _spawn(self, line: int) -> "subprocess.Popen[bytes]":
        """The kernel kills the process when the present thread ends, which is the one of the worker's loop."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tidelog.isolation.template", str(line)],
            env=environment_of(self._isolation),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(line,),
        )

    def _set_up(self) -> dict[str, Any]:
        return {
            "worker": os.getpid(),
            "kernel": asdict(self._kernel),
            "network": self._isolation.network,
            "path": [os.path.abspath(each) for each in sys.path],
            "folders": {package: str(folder) for package, folder in known_folders().items()},
            "module": self._module,
            "tool": self._tool,
        }


class _Call:
    """The lines of one call. The keeper ends the call when `control` is closed."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._control, self._control_there = _pair()
        self._data, self._data_there = _pair()
        self._pipes = [os.pipe(), os.pipe()]
        self._open: list[Any] = []
        self._result: bytes | None = None
        self._failure: bytes | None = None

    async def send(self, line: socket.socket) -> None:
        """Raises OSError: the template has ended."""
        isolation = self._order.isolation
        limits = {
            "cpu_s": cpu_seconds(isolation, self._order.timeout_s),
            "memory_mb": isolation.memory_mb,
            "files": isolation.files,
            "file_mb": isolation.file_mb,
        }
        message = {"tool": self._order.tool, "limits": limits, "timeout_s": self._order.timeout_s + END_S}
        theirs = [self._control_there.fileno(), self._data_there.fileno(), *(writes for _, writes in self._pipes)]
        while True:
            try:
                socket.send_fds(line, [json.dumps(message).encode()], theirs)
                return
            except BlockingIOError:  # the template has many before
                await asyncio.sleep(WAIT_S)

    async def run(self) -> JsonValue:
        self._close_theirs()
        readers = [
            asyncio.create_task(self._follow_output(self._pipes[0][0], self._order.output), name="output of a call"),
            asyncio.create_task(self._follow_output(self._pipes[1][0], self._order.errors), name="errors of a call"),
        ]
        try:
            talking = asyncio.create_task(self._talk(), name="frames of a call")
            readers.append(talking)
            ended = await self._end()
            # Everything of the call has ended, and so have its lines; where it could leave something behind, that may hold them.
            await asyncio.wait(readers, timeout=1.0)
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)
        return self._outcome(ended)

    def close(self) -> None:
        self._close_theirs()
        for each in (self._control, self._data):
            each.close()
        for reads, _ in self._pipes:
            with contextlib.suppress(OSError):
                os.close(reads)
        self._pipes = []
        for transport in self._open:
            transport.close()

    def _close_theirs(self) -> None:
        self._control_there.close()
        self._data_there.close()
        for number, (reads, writes) in enumerate(self._pipes):
            if writes >= 0:
                os.close(writes)
                self._pipes[number] = (reads, -1)

    async def _end(self) -> dict[str, Any]:
        """What the keeper says about the end; empty: the keeper is gone."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        try:
            told = await loop.sock_recv(self._control, 4096)
            return dict(json.loads(told)) if told else {}
        except OSError:
            return {}

    async def _talk(self) -> None:
        """Sends the request and takes the frames that come back, until the line ends."""
        loop = asyncio.get_running_loop()
        self._data.setblocking(False)
        with contextlib.suppress(OSError):
            request = json.dumps(self._order.request, ensure_ascii=False, separators=(",", ":")).encode()
            await loop.sock_sendall(self._data, frame(REQUEST, request))
        lines = OUTPUT_BYTES
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, size = HEAD.unpack(await _exactly(loop, self._data, HEAD.size))
                if size > MAX_FRAME:
                    return
                text = await _exactly(loop, self._data, size)
                if kind == LINE and lines > 0:
                    lines -= size
                    self._order.line(text)
                elif kind == USED:
                    self._order.used(text)
                elif kind == RESULT:
                    self._result = text
                elif kind == FAILURE:
                    self._failure = text

    async def _follow_output(self, fd: int, put: Put) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(fd), "rb", buffering=0)
        )
        self._open.append(transport)
        left, begun = OUTPUT_BYTES, b""
        while chunk := await reader.read(64 * 1024):
            if left <= 0:
                continue  # read on: a call must not wait for a full pipe
            begun, left = begun + chunk[:left], left - len(chunk)
            *lines, begun = begun.split(b"\n")
            for each in lines:
                put(each.decode("utf-8", "replace"))
            if len(begun) > MAX_LINE:
                put(begun.decode("utf-8", "replace"))
                begun = b""
            if left <= 0:
                put(f"[cut: what comes after {OUTPUT_BYTES:,} bytes is dropped]")
        if begun:
            put(begun.decode("utf-8", "replace"))

    def _outcome(self, ended: Mapping[str, Any]) -> JsonValue:
        """Raises what the call ended with instead of a result."""
        if self._result is not None and self._failure is None:
            try:
                return to_json(json.loads(self._result), "the result of the tool")
            except (ValueError, RecursionError):
                raise PermanentError("the process of the tool sent a result that is no JSON") from None
        if self._failure is not None:
            raise ReportedError(_bounded(self._failure))
        raise self._fault(ended)

    def _fault(self, ended: Mapping[str, Any]) -> Exception:
        limit_s = cpu_seconds(self._order.isolation, self._order.timeout_s)
        if ended.get("late"):
            return TransientError(f"no result within {self._order.timeout_s:g} s; the process was killed")
        if "status" not in ended:
            return ProcessCrashedError("the process of the tool is gone, and its keeper with it")
        status, cpu_s = int(ended["status"]), float(ended["cpu_s"])
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu_s >= limit_s):
                return CpuLimitError(f"the tool used {cpu_s:.1f} s of processor time; its cpu_s allows {limit_s}")
            why = " (the kernel does that when memory is short)" if number == signal.SIGKILL else ""
            return ProcessCrashedError(f"the process of the tool was ended by {_name(number)}{why}")
        return ProcessExitError(f"the process of the tool ended with exit code {os.WEXITSTATUS(status)} and without a result")


def environment_of(isolation: Isolation) -> dict[str, str]:
    """What a tool sees of the worker's environment."""
    named = {*_ALWAYS, *isolation.environment}
    return {name: value for name, value in os.environ.items() if name in named or name.startswith("LC_")}


def _bounded(text: bytes) -> ErrorReport:
    """The report of a process that is not believed: with the bounds that the server has."""
    try:
        report = ErrorReport.model_validate_json(text)
    except ValidationError:
        return ErrorReport(type="ProcessCrashedError", message="the process of the tool sent no report", kind="transient")
    return report.model_copy(
        update={
            "type": cut(report.type, 200) or "Exception",
            "message": cut(report.message, MAX_MESSAGE_BYTES),
            "file": None if report.file is None else cut(report.file, 500),
            "line": report.line if report.line is None or 0 <= report.line < 2**31 else None,
            "traceback": None if report.traceback is None else cut_front(report.traceback, MAX_TRACEBACK_BYTES),
            "causes": tuple(
                cause.model_copy(
                    update={
                        "type": cut(cause.type, 200) or "Exception",
                        "message": cut(cause.message, 500),
                        "file": None if cause.file is None else cut(cause.file, 500),
                        "line": cause.line if cause.line is None or 0 <= cause.line < 2**31 else None,
                    }
                )
                for cause in report.causes[:MAX_CAUSES]
            ),
        }
    )


async def _exactly(loop: asyncio.AbstractEventLoop, line: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        more = await loop.sock_recv(line, min(size - len(found), 256 * 1024))
        if not more:
            raise EOFError
        found += more
    return bytes(found)


def _pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, kind)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
