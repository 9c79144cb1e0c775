"""Tools for tests of isolated calls. The processes of the calls import this module, so it imports little."""

import asyncio
import ctypes
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tidelog import PermanentError, ToolContext, TransientError, tool


def hold(path: str) -> int:
    """A lock that ends with the process, however that ends."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@tool("add", isolation="process")
def add(a: int, b: int = 1) -> int:
    return a + b


@tool("look", isolation="process", environment=("NAMED_FOR_THE_TOOL",))
async def look(ctx: ToolContext) -> dict[str, object]:
    """What a call sees."""
    ctx.log.warning("looked", attempt=ctx.attempt)
    print("printed")
    sys.stderr.write("told\n")
    logging.info("logged")
    await asyncio.sleep(0)
    return {
        "environment": dict(os.environ),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "files": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "key": ctx.idempotency_key,
        "workspace": str(ctx.workspace),
    }


@tool("read", isolation="process")
def read(path: str) -> str:
    return Path(path).read_bytes().decode(errors="replace")


@tool("spin", isolation="process", cpu_s=1, timeout_s=60)
def spin() -> None:
    while True:
        pass


@tool("hoard", isolation="process", memory_mb=64)
def hoard() -> int:
    return len(bytearray(1024 * 1024 * 1024))


@tool("end", isolation="process")
def end(how: str) -> str:
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "abort":
            os.abort()
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(3)
        case "permanent":
            raise PermanentError("never")
        case "transient":
            raise TransientError("later", retry_after_s=7)
        case "large":
            return "x" * 300_000
        case "forged":
            os.write(3, b"R\x00\x00\x00\x03{[}")
            os._exit(0)
        case "endless":
            os.write(3, b"R\xff\xff\xff\xff" + b"x" * 100)
            time.sleep(0.1)
            os._exit(0)
    return "as it should"


@tool("offline", isolation="process", network=False)
def offline(port: int) -> str:
    return _connect(port)


@tool("online", isolation="process")
def online(port: int) -> str:
    return _connect(port)


def _connect(port: int) -> str:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError as error:
        return type(error).__name__
    return "connected"


@tool("leave", isolation="process")
def leave(path: str) -> str:
    """Leaves a process behind that has a session of its own, and that holds the lock."""
    code = f"import fcntl,time; f=open({path!r},'w'); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); time.sleep(600)"
    left = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert left.stdout is not None
    return left.stdout.readline().decode().strip()


@tool("wait", isolation="process")
def wait(path: str) -> None:
    """Holds the lock, and swallows what it can."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hold(path)
    Path(f"{path}.held").touch()
    time.sleep(600)


@tool("chatter", isolation="process")
def chatter(lines: int) -> int:
    for number in range(lines):
        print(f"line {number} of many")
    return lines


@tool("open_files", isolation="process", files=32, file_mb=1)
def open_files(path: str) -> list[str]:
    """What stops it: too many files, too large a file."""
    found: list[str] = []
    held: list[int] = []
    try:
        for _ in range(100):
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        found.append(error.strerror or "")
    for each in held:
        os.close(each)
    try:
        Path(path).write_bytes(b"x" * 2 * 1024 * 1024)
    except OSError as error:
        found.append(error.strerror or "")
    return found
