"""PostgreSQL and NATS on one state directory: start, watch, restart and stop of both servers."""

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import structlog

from adapters.embedded.binaries import Binary, find_nats, find_postgres
from adapters.embedded.errors import EmbeddedError, ServicesStopped, StartFailed
from adapters.embedded.logs import LIMIT_BYTES, ServerLog
from adapters.embedded.nats_server import NatsServer
from adapters.embedded.postgres_server import PostgresServer
from adapters.embedded.relocation import CACHE_ROOT, reachable
from adapters.embedded.state import SPARE_ROOT, StateDirectory, locate

log = structlog.get_logger(__name__)

ServiceName = Literal["postgres", "nats"]

LOG_LOOK_S = 10.0
"""Seconds between two looks at the size of the logs."""


class EmbeddedServices:
    """The embedded servers of one state directory.

    `start()` and `restart()` must be called on the main thread. All other methods work from any event loop, one caller at a time.
    If this process runs as root, the servers run as `account` (see accounts.py). Files that this account cannot reach are put
    elsewhere: the data under `spare_root`, copies of the binaries under `cache_root`. `describe()` names the places.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        postgres_bin: Path | None = None,
        nats_bin: Path | None = None,
        durable: bool = True,
        want_postgres: bool = True,
        want_nats: bool = True,
        account: str | None = None,
        spare_root: Path = SPARE_ROOT,
        cache_root: Path = CACHE_ROOT,
        postgres_settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 120.0,
        log_limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        """`durable=False` turns flushing off, only for tests. `postgres_settings` override the defaults.

        `start_timeout_s` bounds crash recovery, which may take long after a hard stop under load. `log_limit_bytes`: of one file of
        a server's log, see logs.py.
        """
        self._state_dir = state_dir
        self._binaries: dict[ServiceName, Path | None] = {}
        if want_postgres:
            self._binaries["postgres"] = postgres_bin
        if want_nats:
            self._binaries["nats"] = nats_bin
        self._durable = durable
        self._account = account
        self._spare_root = spare_root
        self._cache_root = cache_root
        self._settings = dict(postgres_settings or {})
        self._start_timeout_s = start_timeout_s
        self._log_limit_bytes = log_limit_bytes
        self._state: StateDirectory | None = None
        self._postgres: PostgresServer | None = None
        self._nats: NatsServer | None = None
        self._stopping = False
        self._changing: dict[ServiceName, asyncio.Lock] = {"postgres": asyncio.Lock(), "nats": asyncio.Lock()}
        """One lock for each server: NATS can be restarted during a long recovery of PostgreSQL."""

    @property
    def database_url(self) -> str:
        """libpq URL of the database `tidelog` for its owner, the role `tidelog`.

        The role is no superuser, so row security applies.
        """
        return self._running_postgres().app_url

    @property
    def admin_database_url(self) -> str:
        """libpq URL of the same database for the superuser: for extensions, roles and the creation of other databases."""
        return self._running_postgres().admin_url

    @property
    def nats_url(self) -> str:
        """URL of NATS for the processes of the server, whose rights end at their log once it is known (`serve_log`)."""
        return self._running_nats().server_url

    @property
    def names(self) -> tuple[ServiceName, ...]:
        """The names of the embedded servers."""
        return tuple(self._binaries)

    @property
    def home(self) -> Path:
        """The actual place of the data."""
        return self._located().home

    async def start(self) -> None:
        """Locks the directory, creates missing files, starts both servers side by side and waits until both answer.

        Raises EmbeddedError, after both servers were stopped.
        """
        async with self._changing["postgres"], self._changing["nats"]:
            if self._state is not None:
                raise EmbeddedError("the embedded services are already started")
            if threading.current_thread() is not threading.main_thread():
                raise StartFailed("embedded servers must be started from the main thread of the process")
            state = locate(self._state_dir, self._account, self._spare_root)
            try:
                await state.lock()
                self._state, self._stopping = state, False
                self._create_servers(state)
                await self._start_servers(list(self._binaries))
            except OSError as error:
                await self._stop_servers()
                raise StartFailed(f"cannot start in {state.home}: {error}") from error
            except BaseException:
                await self._stop_servers()
                raise
            log.info("embedded_services_ready", **self._summary())

    async def stop(self) -> None:
        """Stops both servers in bounded time, first gracefully, then with SIGKILL. Does nothing if no server runs."""
        self._stopping = True
        async with self._changing["postgres"], self._changing["nats"]:
            await self._stop_servers()

    async def restart(self, name: ServiceName) -> None:
        """Restarts one server on the same data and the same address, so that its clients reconnect by themselves."""
        async with self._changing[name]:
            if self._stopping:
                raise ServicesStopped("the embedded services are stopping")
            server = self._server(name)
            await server.stop()
            await self._start_servers([name])
            log.info("embedded_service_restarted", server=name, pid=server.child.pid if server.child else None)

    async def serve_log(self, log_id: str) -> None:
        """Limits users of NATS to the subjects of this log, also in later starts on the same PostgreSQL.

        NATS is restarted if the log is new to it. Before the first call the server may use every subject. Raises EmbeddedError.
        """
        server = self._running_nats()
        if server.log_id != log_id:
            server.log_id = log_id
            self._located().remember(log_id=log_id)
            await self.restart("nats")

    async def wait_exit(self, name: ServiceName) -> None:
        """Returns when a server ends unexpectedly. Raises ServicesStopped when `stop()` is called."""
        while True:
            child = self._watched_server(name).child
            if child is not None:
                await child.exited()
            # A restart or a stop may have ended the server. Wait for its end: then the exit was expected.
            async with self._changing[name]:
                server = self._watched_server(name)
                if server.child is child and (child is None or child.returncode is not None):
                    code = None if child is None else child.returncode
                    log.error("embedded_service_died", server=name, returncode=code, last_words=server.last_words())
                    return

    async def bound_logs(self, every_s: float = LOG_LOOK_S) -> None:
        """Keeps the logs of the servers within their bounds. Returns after `stop()`."""
        while not self._stopping:
            for server in (self._postgres, self._nats):
                if server is not None:
                    try:
                        await asyncio.to_thread(server.log_file.rotate)
                    except OSError as error:  # a full disk, for example: tried again at the next look
                        log.warning("log_not_rotated", path=str(server.log_file.path), error=str(error))
            await asyncio.sleep(every_s)

    def describe(self) -> dict[str, Any]:
        """The servers and their places as JSON values, without secrets. Before `start()`: the binaries that would be used."""
        report: dict[str, Any] = {"state_dir": str(self._state_dir), "running": self._state is not None}
        if self._state is not None:
            account = self._state.account
            report |= {"home": str(self._state.home), "account": account.name if account else None}
        for name in self._binaries:
            server = self._postgres if name == "postgres" else self._nats
            binary = server.binary if server else self._find(name, None)
            report[name] = {
                "binary": str(binary.path),
                "version": binary.version,
                "source": binary.source,
                "sha256": binary.sha256,
                "pid": server.child.pid if server and server.child else None,
                **(server.describe() if server else {}),
            }
        return report

    def _create_servers(self, state: StateDirectory) -> None:
        for name in self._binaries:
            binary = reachable(self._find(name, state.postgres_data), state.account, self._cache_root)
            log_file = ServerLog(state.home / "logs" / f"{name}.log", state.home_owner, self._log_limit_bytes)
            if name == "postgres":
                self._postgres = PostgresServer(
                    state, binary, log_file, durable=self._durable, settings=self._settings, start_timeout_s=self._start_timeout_s
                )
            else:
                log_id = state.recall("log_id") if "postgres" in self._binaries else None  # another database is another log
                self._nats = NatsServer(state, binary, log_file, log_id=log_id, start_timeout_s=self._start_timeout_s)

    def _find(self, name: ServiceName, data: Path | None) -> Binary:
        configured = self._binaries[name]
        return find_postgres(data, configured) if name == "postgres" else find_nats(configured)

    async def _start_servers(self, names: list[ServiceName]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self._server(name).start())
        except BaseExceptionGroup as failures:
            # One readable reason is raised. The cancellation of the other server is only a consequence.
            raise failures.exceptions[0] from None
        servers = [(name, self._server(name)) for name in self._binaries]
        identities = {name: server.child.identity for name, server in servers if server.child is not None}
        self._located().remember(
            children={name: {"pid": who.pid, "started": who.started} for name, who in identities.items() if who}
        )

    async def _stop_servers(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for server in (self._postgres, self._nats):
                    if server is not None:
                        group.create_task(server.stop())
        finally:
            if self._state is not None:
                self._state.unlock()
            self._state = self._postgres = self._nats = None

    def _watched_server(self, name: ServiceName) -> PostgresServer | NatsServer:
        if self._stopping:
            raise ServicesStopped("the embedded services are stopping")
        return self._server(name)

    def _server(self, name: ServiceName) -> PostgresServer | NatsServer:
        return self._running_postgres() if name == "postgres" else self._running_nats()

    def _running_postgres(self) -> PostgresServer:
        if self._postgres is None:
            raise ServicesStopped("the embedded PostgreSQL is not running")
        return self._postgres

    def _running_nats(self) -> NatsServer:
        if self._nats is None:
            raise ServicesStopped("the embedded NATS is not running")
        return self._nats

    def _located(self) -> StateDirectory:
        if self._state is None:
            raise ServicesStopped("the embedded services are not running")
        return self._state

    def _summary(self) -> dict[str, object]:
        summary: dict[str, object] = {"home": str(self.home)}
        for name in self._binaries:
            server = self._server(name)
            summary[name] = f"{server.binary.version} ({server.binary.source})"
        return summary
