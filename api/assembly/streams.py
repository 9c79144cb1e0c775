"""Composition of the operators' work on the streams on NATS: the NATS server, the present log, and the streams of all logs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.nats import NatsConnection, NatsSecurity
from adapters.nats.names import INBOX
from adapters.nats.survey import FoundLog, FoundStream, remove, survey
from adapters.postgres.log.identity import log_id_at

if TYPE_CHECKING:
    from api.settings import Settings

__all__ = ["FoundLog", "FoundStream", "Streams", "streams"]

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of all logs on one NATS, seen from one of the logs. All methods raise Unavailable."""

    log_id: str
    _connection: NatsConnection

    async def survey(self) -> list[FoundLog]:
        """All logs that have streams on this NATS, the present log included. The queue of earlier releases comes last."""
        return await survey(self._connection)

    async def remove(self, chosen: Sequence[FoundStream]) -> None:
        """Deletes streams of other logs, never streams of the present log."""
        assert all(stream.owner.log_id != self.log_id for stream in chosen)
        await remove(self._connection, [stream.name for stream in chosen])


@asynccontextmanager
async def streams(settings: "Settings") -> AsyncIterator[Streams]:
    """The streams on the PostgreSQL and NATS of the settings, or of the embedded servers that run on the data folder.

    Raises SettingsError if there are no such servers or they refuse the login; SupervisorError, Unavailable.
    """
    from adapters.telemetry.logging import configure_logging
    from api.assembly.access import nats_security

    configure_logging("error", settings.log_format, role="streams")  # failures are raised
    database_url, nats_url = places(settings)
    security = NatsSecurity() if settings.nats_url is None else nats_security(settings)
    connection = NatsConnection(nats_url, name="tidelog-streams", security=security, inbox_prefix=INBOX)
    await connection.start()
    try:
        log_id = await log_id_at(database_url, timeout=TIMEOUT_S)
        await connection.ready(TIMEOUT_S)
        yield Streams(log_id, connection)
    finally:
        await connection.close()


def known(settings: "Settings") -> bool:
    """Whether the addresses of PostgreSQL and NATS are known. Raises SupervisorError for an unreadable data folder."""
    from api.settings import SettingsError

    try:
        places(settings)
    except SettingsError:
        return False
    return True


def places(settings: "Settings") -> tuple[str, str]:
    """The URLs of PostgreSQL and NATS, for the commands of operators. Raises SettingsError, SupervisorError."""
    from adapters.embedded import EmbeddedError
    from adapters.embedded.access import running_database_url, running_nats_url
    from api.settings import SettingsError
    from api.supervisor import state
    from api.supervisor.errors import SupervisorError

    # A server that is named by its URL is not the server of the data folder.
    running = None if settings.url is not None else state.running(settings.data_dir)
    embedded = (running.embedded if running is not None else None) or {}
    try:
        database_url = settings.database_url.get_secret_value() if settings.database_url else running_database_url(embedded)
        nats_url = settings.nats_url.get_secret_value() if settings.nats_url else running_nats_url(embedded)
    except EmbeddedError as error:
        raise SupervisorError(str(error)) from error
    if database_url is None or nats_url is None:
        raise SettingsError(
            f"no server runs on {settings.data_dir}: start it (tidelog up), name its folder with --data-dir, "
            "or set TIDELOG_DATABASE_URL and TIDELOG_NATS_URL"
        )
    return database_url, nats_url
