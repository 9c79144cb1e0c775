"""The embedded PostgreSQL and NATS of one data folder, kept running; or, with URLs in the settings, nothing of that kind."""

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
"""A server that is killed while it starts, or finds what one that was killed left behind, starts at the next try. Whatever else is
wrong is told after so many, or after so long."""


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
        """Tries again where a server failed to start. Raises SupervisorError; nothing is left running then."""
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
        """To the work of our log. Which log a database elsewhere holds need not be known yet: then their rights are wider."""
        if own.names == ("postgres", "nats"):
            try:
                await own.serve_log(await log_id_at(own.database_url, timeout=LOG_ID_TIMEOUT_S))
            except BaseException:
                await own.stop()
                raise

    async def watch(self, changed: Callable[[], None], moved: Callable[[], None]) -> None:
        """Start again what dies, for as long as it takes. Comes back at `stop()`.

        `changed` is called whenever `describe()` says something new, `moved` when `environment()` does: who was started with the
        old one looks for the data in the wrong place.
        """
        if self._own is None:
            await asyncio.Event().wait()  # ends by cancellation
            return
        await side_by_side(*(self._keep(self._own, name, changed, moved) for name in self._own.names))

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
            except (EmbeddedError, OSError) as error:  # OSError: a full disk, no more processes; it may pass
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
