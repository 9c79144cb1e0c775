"""One call, in processes that are copies of the template, made in advance: a keeper, which is ours, and the process of the tool.

The keeper waits for the tool's end, for the worker's word and for the deadline. Whatever comes first, nothing of the call is left
behind. The tool's process cannot reach the keeper where the kernel has namespaces of processes.
"""

import asyncio
import contextlib
import fcntl
import inspect
import json
import math
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tidelog.blobs import NoBlobs, ToolBlobs
from tidelog.calling import ProcessExitError, is_async
from tidelog.capture import capture_records
from tidelog.causes import CAUSE
from tidelog.errors import PermanentError
from tidelog.failures import tool_failure
from tidelog.isolation import kernel as k
from tidelog.isolation.frames import FAILURE, HEAD, LINE, MAX_FRAME, RESULT, USED, frame
from tidelog.tools import Tool, ToolContext
from tidelog.used import Told
from tidelog.values import encode, to_json
from tidelog.work_log import WORK_LOG, Log, WorkLog

Find = Callable[[str], Tool[..., Any]]

MAX_MESSAGE, FDS = 64 * 1024, 4
"""Of an order: bytes, and descriptors. Those are the keeper's line to the worker, the tool's, and two for output and errors."""
MIB = 1024 * 1024
SPARE = 32 * MIB
"""Bytes beyond the limit, in which a call whose memory is at its end can say so."""


class MemoryLimitError(PermanentError):
    """The tool needs more memory than its `memory_mb`."""


def keep(line: socket.socket, tells: int, kernel: k.Kernel, find: Find, template: int) -> NoReturn:
    """The keeper and the process of one call, made before the call comes: they wait for it.

    `line`: where orders of the worker come from; each is taken by one process. `tells`: a byte here tells the template that an
    order has been taken. `find`: the tool of a name.
    """
    k.die_with_parent(template)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    own = os.getpid()
    inner, inner_there = socket.socketpair()
    init = None
    if kernel.processes:
        k.split_processes()
        init = os.fork()
        if init == 0:
            _be_init()
    else:
        k.prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        inner.close()
        _run(line, tells, kernel, find, inner_there, own)
    for each in (line, inner_there):
        each.close()
    os.close(tells)
    control, ended = _wait(inner, woken, child)
    _clear_away(init, child, reaped="status" in ended)
    if control is not None:
        with contextlib.suppress(OSError):
            control.sendall(json.dumps(ended).encode())
    os._exit(0)


def _be_init() -> NoReturn:
    """The first process of the namespace: with its end all others end. It inherits those whose parents have ended."""
    k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)  # its parent is outside of the namespace, so its id is not to be seen here
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.closerange(0, 1024)
    while True:
        signal.pause()


def _wait(inner: socket.socket, woken: int, child: int) -> tuple[socket.socket | None, dict[str, Any]]:
    """The line to the worker, once there is a call, and how the tool's process ended: by itself (`status`), or because its time or
    the worker's patience did."""
    control: socket.socket | None = None
    deadline = math.inf
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return control or _sent(inner), {"status": status, "cpu_s": usage.ru_utime + usage.ru_stime}
        left = deadline - time.monotonic()
        if left <= 0:
            return control, {"late": True}
        watched = inner if control is None else control
        readable, _, _ = select.select([watched.fileno(), woken], [], [], None if left == math.inf else left)
        if watched.fileno() in readable:
            if control is not None:  # the worker has closed it, or is gone
                return control, {"stopped": True}
            message, fds, _, _ = socket.recv_fds(inner, 256, 1)
            if message:
                control = socket.socket(fileno=fds[0])
                deadline = time.monotonic() + float(message)
            else:  # the process of the tool has ended, or is about to
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)


def _sent(inner: socket.socket) -> socket.socket | None:
    """The line to the worker of a call that came, and ended, before the keeper looked. None: no call came."""
    inner.setblocking(False)
    try:
        _, fds, _, _ = socket.recv_fds(inner, 256, 1)
    except OSError:
        return None
    return socket.socket(fileno=fds[0]) if fds else None


def _clear_away(init: int | None, child: int, *, reaped: bool) -> None:
    """Nothing that the call has started goes on."""
    if init is not None:
        os.kill(init, signal.SIGKILL)
    if not reaped:
        os.kill(child, signal.SIGKILL)
    if sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)  # it had begun a session
    for _ in range(1_000):  # without a namespace: what has lost its parents is a child of the keeper now
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listed:
            return [int(pid) for pid in listed.read().split()]
    except (OSError, ValueError):  # not Linux
        return []


def _run(line: socket.socket, tells: int, kernel: k.Kernel, find: Find, inner: socket.socket, keeper: int) -> NoReturn:
    """The process of the tool. It ends without exit handlers: those that it has are copies of the template's."""
    data = None
    try:
        if kernel.processes:
            k.prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
            k.see_own_processes_only()
        else:
            k.die_with_parent(keeper)
        k.drop_rights()
        message, fds, _, _ = socket.recv_fds(line, MAX_MESSAGE, FDS)
        if not message:
            os._exit(0)
        os.write(tells, b"1")
        order = json.loads(message)
        socket.send_fds(inner, [str(order["timeout_s"]).encode()], fds[:1])
        data = _take_places(fds[1:])
        _take_limits(order["limits"])
        _answer(data, find(order["tool"]))
    except BaseException as error:  # noqa: BLE001  # the worker gets it, whatever it is
        _send_failure(data, error)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    os._exit(0)


def _take_places(fds: list[int]) -> socket.socket:
    """Standard input is empty, output and errors go to the worker, and the line to the worker is the next. Nothing else is open."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    places = (os.open(os.devnull, os.O_RDONLY), fds[1], fds[2], fds[0])
    for place, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in places]):
        os.dup2(fd, place)
    if os.path.isdir("/proc/self/fd"):
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd > 3:
                with contextlib.suppress(OSError):  # that of the listing itself
                    os.close(fd)
    else:
        os.closerange(4, 4096)
    os.set_inheritable(3, False)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    return socket.socket(fileno=3)


def _take_limits(limits: Mapping[str, int]) -> None:
    memory = _address_space() + limits["memory_mb"] * MIB
    for which, soft, hard in (
        (resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + 1),
        (resource.RLIMIT_AS, memory, memory + SPARE),
        (resource.RLIMIT_NOFILE, limits["files"], limits["files"]),
        (resource.RLIMIT_FSIZE, limits["file_mb"] * MIB, limits["file_mb"] * MIB),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        most = resource.getrlimit(which)[1]
        bound = hard if most == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(which, (min(soft, bound), bound))


def _address_space() -> int:
    try:
        with open("/proc/self/statm") as told:
            return int(told.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 1024 * MIB


def _answer(data: socket.socket, tool: Tool[..., Any]) -> None:
    request = json.loads(_read(data))
    work_log = WorkLog(lambda line: data.sendall(frame(LINE, line)))
    WORK_LOG.set(work_log)
    CAUSE.set(request["idempotency_key"])
    capture_records()
    used = Told(lambda text: data.sendall(frame(USED, text)))
    context = ToolContext(
        Path(request["workspace"]),
        request["idempotency_key"],
        request["attempt"],
        Log(work_log),
        on_behalf_of=request["on_behalf_of"],
        blob=ToolBlobs(NoBlobs("a tool in a process of its own has no key of the server: take bytes, and put them in the agent")),
        _used=used,
    )
    arguments = tool.validate(request["arguments"])
    first = (context,) if tool.takes_context else ()
    if is_async(tool.function):
        found = asyncio.run(tool.function(*first, **arguments))
    else:
        found = tool.function(*first, **arguments)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
    data.sendall(frame(RESULT, encode(to_json(found, f"the result of tool {tool.name!r}"))))


async def _awaited(found: Any) -> Any:
    return await found


def _read(data: socket.socket) -> bytes:
    head = _exactly(data, HEAD.size)
    _, size = HEAD.unpack(head)
    return _exactly(data, min(size, MAX_FRAME))


def _exactly(data: socket.socket, size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        more = data.recv(size - len(found))
        if not more:
            raise PermanentError("the worker has given the call up")
        found += more
    return bytes(found)


def _send_failure(data: socket.socket | None, error: BaseException) -> None:
    if data is None:
        os._exit(70)
    with contextlib.suppress(BaseException):
        if isinstance(error, MemoryError):
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            told: BaseException = MemoryLimitError("the tool needs more memory than its memory_mb allows").with_traceback(
                error.__traceback__
            )
        elif isinstance(error, SystemExit | KeyboardInterrupt):
            told = ProcessExitError.of(error)
        else:
            told = error
        data.sendall(frame(FAILURE, tool_failure(told).model_dump_json().encode()))
