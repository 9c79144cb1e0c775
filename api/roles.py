"""The long-running roles of one process: started together, each restarted when it fails, stopped gracefully by a signal."""

import asyncio
import gc
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from api.bootstrap import Loop, assemble, set_up_logging
from api.open_files import raise_open_files
from api.settings import Role, Settings
from application.patience import end

log = structlog.get_logger(__name__)

HTTP_GRACE_S = 7
"""How long the HTTP server may take to end; it gives requests under way a little less."""


async def serve(settings: Settings, roles: set[Role]) -> None:
    """Runs the roles until SIGTERM or SIGINT. Raises when one of its loops fails: the process is to be started again."""
    raise_open_files()
    set_up_logging(settings, "+".join(sorted(roles)))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with assemble(settings, roles) as assembly:
        tasks = {asyncio.create_task(_loop(name, run), name=name) for name, run in assembly.loops.items()}
        if assembly.container is not None:
            from api.http.server import serve_http  # the other roles need none of it: it is a third of their memory

            tasks.add(asyncio.create_task(serve_http(assembly.container, stopping), name="http"))
        ready = asyncio.create_task(_mark_ready(settings.ready_file, assembly.joined), name="ready")
        stopped = asyncio.create_task(stopping.wait(), name="signal")
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no collection need walk through it again
        gc.set_threshold(20_000, 20, 20)
        log.info("roles_started", roles=sorted(roles))
        try:
            done, _ = await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopping.set()
            http = {task for task in tasks if task.get_name() == "http" and not task.done()}
            if http:
                await asyncio.wait(http, timeout=HTTP_GRACE_S)
            for task in done - {stopped}:
                task.result()  # raises what ended it
        finally:
            await end(*tasks, stopped, ready)
            if settings.ready_file is not None:
                settings.ready_file.unlink(missing_ok=True)
    log.info("roles_stopped", roles=sorted(roles))


async def _mark_ready(file: Path | None, joined: asyncio.Event | None) -> None:
    if joined is not None:
        await joined.wait()
    if file is not None:
        _make(file)


def _make(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        log.error("ready_file_not_written", path=str(file), error=str(error))


async def _loop(name: str, run: Loop) -> None:
    try:
        await run
    except Exception:
        log.exception("loop_failed", loop=name)
        raise


def run(settings: Settings, roles: set[Role]) -> None:
    """`serve` in an event loop of its own."""
    run_loop(serve(settings, roles))


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Runs on uvloop where there is one: a request takes half the time that it takes on the standard loop."""
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)
