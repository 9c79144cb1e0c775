"""The long-running roles of one process: started together, each restarted when it fails, stopped gracefully by a signal."""

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn

from api.bootstrap import Assembly, Loop, assemble, set_up_logging
from api.container import Container
from api.http.app import create_app
from api.settings import Role, Settings
from application.patience import persistently
from application.ports import LostOwnership
from application.setup import set_up
from domain.errors import ProjectionBehind, Unavailable
from projections import checkpoints

log = structlog.get_logger(__name__)

GRACE_S = 5
"""How long requests under way may take after the signal to stop; streams are ended at once."""


async def serve(settings: Settings, roles: set[Role]) -> None:
    """Runs the roles until SIGTERM or SIGINT. Raises when one of its loops fails: the process is to be started again."""
    set_up_logging(settings, "+".join(sorted(roles)))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with assemble(settings, roles) as assembly:
        tasks = {asyncio.create_task(_loop(name, run), name=name) for name, run in assembly.loops.items()}
        if "api" in roles:
            tasks.add(asyncio.create_task(_http(settings, assembly, stopping), name="http"))
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
                await asyncio.wait(http, timeout=GRACE_S + 2)
            for task in done - {stopped}:
                task.result()  # raises what ended it
        finally:
            for task in {*tasks, stopped}:
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
    log.info("roles_stopped", roles=sorted(roles))


async def _loop(name: str, run: Loop) -> None:
    try:
        await run
    except LostOwnership as error:
        log.warning("ownership_lost", loop=name, error=str(error))
        raise
    except Exception:
        log.exception("loop_failed", loop=name)
        raise


async def _http(settings: Settings, assembly: Assembly, stopping: asyncio.Event) -> None:
    container = assembly.container
    preparing = asyncio.create_task(_prepare(settings, container), name="setup")
    config = uvicorn.Config(
        create_app(container),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=30,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(), name="uvicorn")
    stop = asyncio.create_task(stopping.wait(), name="stop")
    try:
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        container.live.close()
        server.should_exit = True
        await serving
    finally:
        for task in (preparing, stop):
            task.cancel()


async def _prepare(settings: Settings, container: Container) -> None:
    """Issues the first key, and says ready only when it can be used. Owned by `_http`."""
    done = asyncio.Event()

    async def check() -> None:
        if not done.is_set():
            raise Unavailable("the first key is not issued yet")

    if settings.bootstrap_key_sha256 is None:
        return
    container.dependencies["setup"] = check
    try:
        position = await persistently(lambda: set_up(container.commands, key_sha256=settings.bootstrap_key_sha256))
        while not done.is_set():
            try:
                await persistently(lambda: checkpoints.wait_until(container.database, "tenants", position, 5.0))
                done.set()
            except ProjectionBehind as error:
                log.warning("waiting_for_projector", error=error.message)
    except Exception:
        log.exception("setup_failed")
        raise


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(settings: Settings, roles: set[Role]) -> None:
    """`serve` on uvloop where there is one: half the time of the standard loop for each request."""
    if sys.platform == "win32":
        asyncio.run(serve(settings, roles))
    else:
        import uvloop

        uvloop.run(serve(settings, roles))
