"""A server that is started by the real command: its address, processes, data, output and end."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from psycopg.conninfo import make_conninfo

from tests.pace import Deadline, within

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
COMMAND = Path(sys.executable).with_name("tidelog")

PROGRAMS = {
    "api": ("--roles", "api,relay"),
    "relay": ("--roles", "relay"),
    "projector": ("--roles", "projector"),
    "saga": ("--roles", "saga"),
    "worker": ("-m", "tidelog.worker"),
}
"""Parts of the command lines of the supervisor's Python children, if each role has a process of its own."""


class Server:
    """A running `tidelog up`. `running_server` makes the object."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path, answer: Mapping[str, Any]) -> None:
        self._process = process
        self.folder = folder
        self.url = str(answer["url"])
        self.key = Path(str(answer["key_file"])).read_text("ascii").strip()

    @property
    def pid(self) -> int:
        """The pid of the supervisor."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def output(self) -> str:
        """The output of the server, its roles and its worker so far."""
        return (self.folder / "output").read_text("utf-8", "replace")

    def log_lines(self) -> list[dict[str, Any]]:
        """The log lines of all processes, as objects. A line that is no JSON object becomes {"event": the line}."""
        lines = []
        for line in self.output().splitlines():
            try:
                parsed = json.loads(line)
            except ValueError:
                parsed = None
            lines.append(parsed if isinstance(parsed, dict) else {"event": line})
        return lines

    # --- its data ---

    def database_url(self) -> str:
        """The URL of the embedded database, with the role of the server."""
        embedded, secrets = self._embedded()
        folder = str(Path(embedded["postgres"]["socket"]).parent)
        return make_conninfo("", host=folder, user="tidelog", dbname="tidelog", password=secrets["postgres_app"])

    def nats_url(self) -> str:
        """Of the user of operators, who may look at everything."""
        embedded, secrets = self._embedded()
        return f"nats://operator:{quote(secrets['nats_operator'])}@{embedded['nats']['host']}:{embedded['nats']['port']}"

    def _embedded(self) -> tuple[dict[str, Any], dict[str, str]]:
        embedded = json.loads((self.folder / "data" / "server.json").read_text())["embedded"]
        return embedded, json.loads((Path(embedded["home"]) / "secrets.json").read_text())

    # --- its processes ---

    def children(self) -> dict[str, int]:
        """Pids of the supervisor's running child processes, by name: roles, worker, nats, postgres."""
        return children_of(self.pid)

    def kill(self, name: str) -> int | None:
        """Sends SIGKILL to one child. Returns None if the child does not run at the moment."""
        return kill_child(self.pid, name)

    def freeze(self, name: str) -> int | None:
        """Stops one child without ending it, until `thaw`. Returns None if the child does not run at the moment."""
        return kill_child(self.pid, name, signal.SIGSTOP)

    def thaw(self, name: str) -> int | None:
        """Lets a frozen child go on. A child that is not frozen does not notice."""
        return kill_child(self.pid, name, signal.SIGCONT)

    async def stop(self) -> int:
        """Asks the server to stop, as Ctrl-C does. Returns the exit code. Raises TimeoutError."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        async with within(STOP_TIMEOUT_S):
            return await self._process.wait()


def children_of(parent: int) -> dict[str, int]:
    """`Server.children` for the supervisor with this pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _parent_of(int(entry.name)) == parent:
            name = _name_of(int(entry.name))
            if name is not None:
                found[name] = int(entry.name)
    return found


def kill_child(parent: int, name: str, number: signal.Signals = signal.SIGKILL) -> int | None:
    """`Server.kill` for the supervisor with this pid; or another signal."""
    pid = children_of(parent).get(name)
    if pid is None:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if _parent_of(pid) != parent or _name_of(pid) != name:  # the number may belong to another process by now
            return None
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
    return pid


@asynccontextmanager
async def running_server(
    agents: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    while_it_starts: Callable[[int], Awaitable[None]] | None = None,
) -> AsyncIterator[Server]:
    """Runs `tidelog up` on a new data folder and any port. The server is stopped and the folder removed at the end.

    `while_it_starts` gets the pid of the supervisor, before the supervisor has started a child.

    Raises:
        AssertionError: the server did not start. The message holds its output.
    """
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    os.chmod(folder, 0o711)  # the account of the embedded servers must reach the data folder
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}
    arguments = ("up", "--json", "--port", "0", "--data-dir", str(folder / "data"), "--agents", str(agents), *options)
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), *arguments, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=output,
            env={**clean, "TIDELOG_LOG_FORMAT": "json", **(environment or {})},
        )  # fmt: skip
    try:
        if while_it_starts is not None:
            await while_it_starts(process.pid)
        server = Server(process, folder, await _answer_of(process, folder))
        yield server
    finally:
        await _end(process)
        shutil.rmtree(folder)


async def _answer_of(process: asyncio.subprocess.Process, folder: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = b""
    with contextlib.suppress(TimeoutError):
        async with within(START_TIMEOUT_S):
            line = await process.stdout.readline()
    assert line, f"the server did not start:\n{(folder / 'output').read_text('utf-8', 'replace')}"
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the server after the test, whether the test passed or failed. The children of a killed supervisor end by themselves."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            async with within(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def left_over(folder: Path, patience_s: float = 5.0) -> list[str]:
    """Command lines of the processes that still name the folder after a bounded wait."""
    deadline = Deadline(patience_s)
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and str(folder) in (line := " ".join(_command_line(int(entry.name)))):
                found.append(line)
        if not found or deadline.over_here():
            return found
        time.sleep(0.05)


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]  # the process's name in front of the bracket may hold any character
    return None if state == "Z" else int(parent)


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0"))
    except OSError:
        return ()


def _name_of(pid: int) -> str | None:
    """Which part of the server a process is, by its command line. None for a process that has not started completely."""
    line = _command_line(pid)
    program = Path(line[0]).name if line else ""
    if program in ("postgres", "nats-server"):
        return program.removesuffix("-server")
    return next((name for name, words in PROGRAMS.items() if words in pairwise(line)), None)
