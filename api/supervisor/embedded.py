"""The embedded PostgreSQL and NATS of one data folder, kept running. A server with a URL in the settings is not embedded."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from adapters.embedded import DataDirectoryBusy, EmbeddedError, EmbeddedServices, ServiceName, ServicesStopped, StartFailed
from adapters.postgres.log.identity import log_id_at
from api.supervisor import state
from api.supervisor.config import SupervisorConfig
from api.supervisor.errors import SupervisorError
from api.supervisor.processes import Backoff
from application.engine.background import side_by_side
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

LOG_ID_TIMEOUT_S = 30.0
START_TRIES = 5
START_PATIENCE_S = 30.0
"""A server that is killed during its start, or that finds files of a killed server, starts at the next try. A lasting fault is
raised after START_TRIES tries or START_PATIENCE_S seconds."""


class Servers:
    """The servers of the data: from the settings, or else embedded."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._own = _embedded(config)

    @property
    def own(self) -> bool:
        """Whether any server is embedded."""
        return self._own is not None

    async def start(self) -> None:
        """Starts the servers, with further tries after a failure. Raises SupervisorError, after all servers were stopped."""
        if self._own is None:
            return
        backoff, give_up_at = Backoff(), time.monotonic() + START_PATIENCE_S
        for tries_left in reversed(range(START_TRIES)):
            try:
                await self._start(self._own)
                return
            except (StartFailed, Unavailable) as error:
                if not tries_left or time.monotonic() > give_up_at:
                    raise SupervisorError(str(error)) from None
                pause_s = backoff.ended()
                log.warning("embedded_services_not_started", error=str(error), tried_again_in_s=pause_s)
                await asyncio.sleep(pause_s)

    async def _start(self, servers: EmbeddedServices) -> None:
        try:
            await servers.start()
            await self._limit_workers(servers)
        except (StartFailed, Unavailable):
            raise
        except DataDirectoryBusy as error:
            if state.held(Path(self._config.data_dir)):
                raise state.already_running(Path(self._config.data_dir)) from None
            raise SupervisorError(str(error)) from None
        except EmbeddedError as error:
            raise SupervisorError(str(error)) from None

    async def _limit_workers(self, own: EmbeddedServices) -> None:
        """Limits workers to the work of this log.

        If the database is not embedded, its log may be unknown: workers keep wider rights.
        """
        if own.names == ("postgres", "nats"):
            try:
                await own.serve_log(await log_id_at(own.database_url, timeout=LOG_ID_TIMEOUT_S))
            except BaseException:
                await own.stop()
                raise

    async def watch(self, changed: Callable[[], None], moved: Callable[[], None]) -> None:
        """Restarts servers that die, without a limit. Returns at `stop()`.

        `changed` is called when the result of `describe()` changes, `moved` when the result of `environment()` changes: processes
        with the old environment look for the data in the wrong place.
        """
        if self._own is None:
            await asyncio.Event().wait()  # ends by cancellation
            return
        keeping = (self._keep(self._own, name, changed, moved) for name in self._own.names)
        await side_by_side(*keeping, self._own.bound_logs())

    async def _keep(
        self, servers: EmbeddedServices, name: ServiceName, changed: Callable[[], None], moved: Callable[[], None]
    ) -> None:
        backoff = Backoff()
        while True:
            try:
                await servers.wait_exit(name)
                changed()
                before = self.environment()
                await self._restart(servers, name, backoff)
                changed()
                if self.environment() != before:
                    log.warning("embedded_service_moved", server=name)
                    moved()
            except ServicesStopped:
                return

    async def _restart(self, servers: EmbeddedServices, name: ServiceName, backoff: Backoff) -> None:
        while True:
            await asyncio.sleep(backoff.ended())
            backoff.started()
            try:
                await servers.restart(name)
            except ServicesStopped:
                raise
            except (EmbeddedError, OSError) as error:  # OSError: a full disk or no more processes, which may pass
                log.error("embedded_service_not_restarted", server=name, error=str(error))
            except Exception:
                log.exception("embedded_service_not_restarted", server=name)
            else:
                return

    async def stop(self) -> None:
        if self._own is not None:
            await self._own.stop()

    def describe(self) -> dict[str, Any] | None:
        return None if self._own is None else self._own.describe()

    def files(self) -> list[Path]:
        """Folders and files of the data that only the accounts of the servers may read. The servers are started."""
        folder = Path(self._config.data_dir)
        if self._own is None:
            return [folder]
        home = self._own.home
        return [
            folder,
            home,
            *(home / name for name in ("secrets.json", "nats.conf", "nats", "postgres") if (home / name).exists()),
        ]

    def environment(self) -> dict[str, str]:
        """The environment variables by which roles find the data."""
        database = self._config.database_url or self._owned().database_url
        nats = self._config.nats_url or self._owned().nats_url
        return {"TIDELOG_DATABASE_URL": database, "TIDELOG_NATS_URL": nats}

    def _owned(self) -> EmbeddedServices:
        assert self._own is not None  # exists if one of the URLs is missing
        return self._own


def describe_binaries(config: SupervisorConfig) -> dict[str, Any]:
    """The server binaries that `tidelog up` would use. Starts nothing. Raises SupervisorError if a binary is missing."""
    servers = _embedded(config)
    try:
        return {} if servers is None else servers.describe()
    except EmbeddedError as error:
        raise SupervisorError(str(error)) from None


def _embedded(config: SupervisorConfig) -> EmbeddedServices | None:
    if config.database_url is not None and config.nats_url is not None:
        return None
    return EmbeddedServices(
        Path(config.data_dir),
        postgres_bin=Path(config.postgres_bin) if config.postgres_bin else None,
        nats_bin=Path(config.nats_bin) if config.nats_bin else None,
        want_postgres=config.database_url is None,
        want_nats=config.nats_url is None,
        account=config.run_as,
    )
