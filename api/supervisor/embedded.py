"""The embedded PostgreSQL and NATS of one data folder, kept running; or, with URLs in the settings, nothing of that kind."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from adapters.embedded import DataDirectoryBusy, EmbeddedError, EmbeddedServices, ServiceName, ServicesStopped
from adapters.postgres.identity import log_id_at
from api.supervisor import state
from api.supervisor.config import SupervisorConfig
from api.supervisor.errors import SupervisorError
from api.supervisor.processes import Backoff
from application.patience import side_by_side
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

LOG_ID_TIMEOUT_S = 30.0


class Servers:
    """Where the data is: servers of our own where the settings name none."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._own = _embedded(config)

    @property
    def own(self) -> bool:
        """Whether there are servers of our own at all."""
        return self._own is not None

    async def start(self) -> None:
        """Raises SupervisorError; nothing is left running then."""
        if self._own is None:
            return
        try:
            await self._own.start()
            await self._limit_workers(self._own)
        except DataDirectoryBusy as error:
            if state.held(Path(self._config.data_dir)):
                raise state.already_running(Path(self._config.data_dir)) from None
            raise SupervisorError(str(error)) from None
        except (EmbeddedError, Unavailable) as error:
            raise SupervisorError(str(error)) from None

    async def _limit_workers(self, own: EmbeddedServices) -> None:
        """To the work of our log. Which log a database elsewhere holds need not be known yet: then their rights are wider."""
        if own.names == ("postgres", "nats"):
            try:
                await own.serve_log(await log_id_at(own.database_url, timeout=LOG_ID_TIMEOUT_S))
            except BaseException:
                await own.stop()
                raise

    async def watch(self, changed: Callable[[], None]) -> None:
        """Start again what dies, for as long as it takes. Comes back at `stop()`."""
        if self._own is None:
            await asyncio.Event().wait()  # ends by cancellation
            return
        await side_by_side(*(self._keep(self._own, name, changed) for name in self._own.names))

    async def _keep(self, servers: EmbeddedServices, name: ServiceName, changed: Callable[[], None]) -> None:
        backoff = Backoff()
        while True:
            try:
                await servers.wait_exit(name)
                changed()
                await self._restart(servers, name, backoff)
                changed()
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
            except EmbeddedError as error:
                log.error("embedded_service_not_restarted", server=name, error=str(error))
            else:
                return

    async def stop(self) -> None:
        if self._own is not None:
            await self._own.stop()

    def describe(self) -> dict[str, Any] | None:
        return None if self._own is None else self._own.describe()

    def environment(self) -> dict[str, str]:
        """The variables by which roles find the data."""
        database = self._config.database_url or self._owned().database_url
        nats = self._config.nats_url or self._owned().nats_url
        worker = self._config.worker_nats_url or self._config.nats_url or self._owned().worker_nats_url
        return {"TIDELOG_DATABASE_URL": database, "TIDELOG_NATS_URL": nats, "TIDELOG_WORKER_NATS_URL": worker}

    def _owned(self) -> EmbeddedServices:
        assert self._own is not None  # made whenever one of the URLs is missing
        return self._own


def describe_binaries(config: SupervisorConfig) -> dict[str, Any]:
    """Which server binaries `tidelog up` would use, without starting anything. Raises SupervisorError if one is missing."""
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
