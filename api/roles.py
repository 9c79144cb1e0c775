"""The long-running roles of one process: started together, each restarted when it fails, stopped gracefully by a signal."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NoReturn

import structlog

from api.assembly import assemble
from api.assembly.logs import set_up_logging
from api.open_files import raise_open_files
from api.settings import Role, Settings
from application.engine.background import TaskEnded, end

log = structlog.get_logger(__name__)

HTTP_GRACE_S = 7
"""Seconds in which the HTTP server must end. The server gives requests under way a little less."""
END_S = 45.0
"""Seconds in which the process must end. A process that no longer works and does not end would not be started again."""


def collect_rarely() -> None:
    """Objects loaded until now stay: no garbage collection should walk through them. For the begin of a process's work."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def serve(settings: Settings, roles: set[Role]) -> None:
    """Runs the roles until SIGTERM or SIGINT.

    Raises:
        TaskEnded: a task that must run has ended. The process must be started again.
    """
    raise_open_files()
    set_up_logging(settings, "+".join(sorted(roles)))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with _bounded_end() as ending, assemble(settings, roles) as assembly:
        tasks = {asyncio.create_task(run, name=name) for name, run in assembly.loops.items()}
        if assembly.container is not None:
            from api.http.server import serve_http  # only for this role: the import is a third of the other roles' memory

            tasks.add(asyncio.create_task(serve_http(assembly.container, stopping), name="http"))
        tasks.add(asyncio.create_task(_mark_ready(settings.ready_file, assembly.joined), name="ready"))
        stopped = asyncio.create_task(stopping.wait(), name="signal")
        collect_rarely()
        log.info("roles_started", roles=sorted(roles))
        try:
            done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopping.set()
            ending()
            http = {task for task in tasks if task.get_name() == "http" and not task.done()}
            if http:
                await asyncio.wait(http, timeout=HTTP_GRACE_S)
            _raise_what_ended(done - {stopped})
        finally:
            await end(*tasks, stopped)
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)
    log.info("roles_stopped", roles=sorted(roles))


def _raise_what_ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Raises TaskEnded if a task has ended, whether with an error or without."""
    failures = [TaskEnded.of(task, task.get_name()) for task in tasks]
    for failure in failures:
        log.error("loop_failed", error=str(failure), exc_info=failure.__cause__)
    if failures:
        raise failures[0]


@contextlib.asynccontextmanager
async def _bounded_end() -> AsyncIterator[Callable[[], None]]:
    """Yields a function to call when the end begins. From then on the block has `END_S` seconds; then the process exits.

    A thread enforces the bound, because the event loop may hang.
    """

    def give_up() -> None:
        log.error("process_does_not_end", after_s=END_S)
        os._exit(1)

    timer = threading.Timer(END_S, give_up)
    timer.daemon = True
    try:
        yield timer.start
    finally:
        timer.cancel()


async def _mark_ready(file: Path | None, joined: asyncio.Event | None) -> NoReturn:
    if joined is not None:
        await joined.wait()
    if file is not None:
        _make(file)
    while True:
        await asyncio.Event().wait()  # ends by being cancelled, as every task of a process


def _make(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        log.error("ready_file_not_written", path=str(file), error=str(error))


def run(settings: Settings, roles: set[Role]) -> None:
    """Runs `serve` in a new event loop."""
    run_loop(serve(settings, roles))


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs on uvloop, except on Windows. A request takes half the time that it takes on the standard loop."""
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)
