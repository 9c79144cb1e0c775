"""A process of all roles that tells its tasks. It is forked from one that has imported the roles: imports take a second of CPU.

The process from which it is forked has neither threads nor an event loop, and lives as long as the process of the tests.
"""

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "api.roles", "api.http.server", "api.assembly.roles.api", "projections.registry"])


class RolesProcess:
    """The process. Its log goes to a file."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._ours, theirs = socket.socketpair()
        with theirs:
            self._process = CONTEXT.Process(target=_run, args=(dict(environment), str(log), theirs))
            self._process.start()

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(sock=self._ours)

    async def tasks(self) -> set[str]:
        """The names of its tasks."""
        self._writer.write(b"?\n")
        return set((await self._reader.readline()).decode().strip().split("|"))

    async def cancel(self, name: str) -> None:
        self._writer.write(f"{name}\n".encode())
        await self._writer.drain()

    async def wait(self) -> int:
        """Waits for the end. Returns the exit code."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    async def end(self) -> None:
        """Kills the process if it still runs."""
        if self._process.exitcode is None:
            self._process.kill()
            await self.wait()
        self._writer.close()


def _run(environment: Mapping[str, str], log: str, theirs: socket.socket) -> None:
    from api.roles import run_loop

    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    run_loop(_main(theirs))


async def _main(theirs: socket.socket) -> None:
    from api.roles import serve
    from api.settings import ROLES, load_settings

    test = asyncio.create_task(_from_outside(theirs), name="the test")
    await serve(load_settings(), set(ROLES))
    await test


async def _from_outside(theirs: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=theirs)
    while name := (await reader.readline()).decode().strip():
        tasks = {task.get_name(): task for task in asyncio.all_tasks()}
        if name == "?":
            writer.write("|".join(sorted(tasks)).encode() + b"\n")
        else:
            tasks[name].cancel()
