"""The HTTP server of a process: uvicorn without its own signal handlers, and the first key of a fresh installation."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NoReturn, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from api.container import Container
from api.http.app import create_app
from api.http.conventions.connection import protocol
from api.http.conventions.door import Door, Limits
from api.http.conventions.errors import StillStarting
from api.http.conventions.releases import all_know_roles
from api.http.listening import Acceptor, bound
from api.http.sessions.connection import SessionConnection
from api.http.sessions.limits import MAX_SOCKET
from api.open_files import raise_open_files
from application.engine.background import TaskEnded, end
from application.engine.retry import persistently
from application.setup import set_up
from domain.errors import ProjectionBehind

log = structlog.get_logger(__name__)

GRACE_S = 5
"""Seconds that requests under way may take after the signal to stop. Streams end at once."""
BACKLOG = 8_192
"""Connections that may wait to be accepted, if the system allows as many (`net.core.somaxconn`)."""
UPGRADE_LOOK_S = 5.0
"""Seconds between two looks whether processes of an earlier release still run."""
CANCEL_AGAIN_S, LAST_ANSWERS_S = 0.3, 1.0
"""Requests that are not answered within GRACE_S are cancelled. After CANCEL_AGAIN_S a request that waits for a silent database is
cancelled again; LAST_ANSWERS_S bounds the wait for the last answers. Both in seconds."""


async def serve_http(container: Container, stopping: asyncio.Event) -> None:
    """Serves until `stopping` is set and requests under way are done; also issues the first key.

    Raises:
        TaskEnded: a task that runs beside the server has ended.
    """
    settings, first_key = container.settings, FirstKey(container)
    if any((settings.bootstrap_key_sha256, settings.bootstrap_worker_key_sha256, settings.bootstrap_builtin_key_sha256)):
        container = replace(container, dependencies=MappingProxyType({**container.dependencies, "setup": first_key.check}))
    beside = {asyncio.create_task(first_key.run(), name="setup")}
    app = create_app(container)
    server = make_server(app, Limits.of(settings, raise_open_files()), host=settings.host, port=settings.port)
    serving = asyncio.create_task(server.serve(), name="uvicorn")
    stop = asyncio.create_task(stopping.wait(), name="stop")
    try:
        done, _ = await asyncio.wait({serving, stop, *beside}, return_when=asyncio.FIRST_COMPLETED)
        container.live.close()
        server.should_exit = True
        await serving
        await server.answered()
        for task in done & beside:
            raise TaskEnded.of(task, task.get_name())
    finally:
        await end(*beside, stop)
        await app.close()


def make_server(app: ASGIApp, limits: Limits, *, host: str, port: int) -> "_Server":
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        backlog=BACKLOG,
        http=protocol(Door(limits)),  # type: ignore[arg-type]  # uvicorn only calls it
        ws=SessionConnection,  # the connection hands a session over itself
        ws_max_size=MAX_SOCKET,
        ws_per_message_deflate=False,  # 32 KB for each connection
        ws_ping_interval=None,  # sessions have beats of their own
        ws_ping_timeout=None,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    return _Server(config)


class FirstKey:
    """The first key of a fresh installation. It is issued at start, if the settings name one."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._done = False

    async def check(self) -> None:
        """Raises Unavailable until the key can be used."""
        if not self._done:
            raise StillStarting("the first key is not issued yet")

    async def run(self) -> NoReturn:
        """Issues the key, then waits to be ended by `serve_http`, its owner."""
        container, settings = self._container, self._container.settings
        key, commands = settings.bootstrap_key_sha256, container.commands
        of_workers = {
            "worker_key_sha256": settings.bootstrap_worker_key_sha256,
            "builtin_key_sha256": settings.bootstrap_builtin_key_sha256,
        }
        waits = any(of_workers.values()) and not await persistently(lambda: all_know_roles(container))
        if key is not None or any(of_workers.values()):
            now = {} if waits else of_workers
            position = await persistently(lambda: set_up(commands, key_sha256=key, **now))
            while not self._done:
                try:
                    await persistently(lambda: container.positions.until("tenants", position, 5.0))
                    self._done = True
                except ProjectionBehind as error:
                    log.warning("waiting_for_projector", error=error.message)
        while waits:  # the process is ready meanwhile: an upgrade may wait for that
            log.warning("key_waits_for_upgrade", label="worker of this server", reason="a process of an earlier release still runs")
            await asyncio.sleep(UPGRADE_LOOK_S)
            waits = not await persistently(lambda: all_know_roles(container))
            if not waits:
                await persistently(lambda: set_up(commands, key_sha256=None, **of_workers))
        while True:
            await asyncio.Event().wait()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which the process has, and with acceptors of its own."""

    servers: Sequence[Acceptor]  # type: ignore[assignment]  # uvicorn closes them, and waits for their end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listens at the address of the configuration. Raises OSError: the address cannot be had."""
        if sys.platform == "win32":  # the loop of that system cannot watch a socket
            await super().startup(sockets)
            return
        config = self.config
        listening = await bound(config.host, config.port)
        await super().startup(sockets=[])
        made = cast("Callable[..., asyncio.Protocol]", config.http_protocol_class)
        connection = partial(made, config=config, server_state=self.server_state, app_state={})
        self.servers = [Acceptor(one, connection, backlog=config.backlog) for one in listening]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for acceptor in self.servers:
            acceptor.close()
            await acceptor.wait_closed()  # uvicorn must know the last connections to end them
        await super().shutdown(sockets)

    async def answered(self) -> None:
        """Waits for the answers of the requests that were cancelled at the end of the grace."""
        tasks = set(self.server_state.tasks)
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_ANSWERS_S)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
