"""Composition of the operators' work on users of NATS: those of tenants that subscribe to the fan-out, and files of accounts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID

from adapters.embedded import EmbeddedError
from adapters.embedded.nats_accounts import AccountsFile, Change, RunningNats, new_password
from adapters.embedded.nats_rights import Subscriber
from adapters.nats import NatsConnection, NatsSecurity
from adapters.nats.connection import NatsRefused, probe
from adapters.nats.fanout import subscribers
from adapters.nats.fanout.subscribers import NoFanOut
from adapters.nats.names import INBOX, event_subjects, events_stream
from adapters.postgres.log.identity import log_id_at
from api.assembly import platform
from api.assembly.streams import TIMEOUT_S, places
from domain.errors import Unavailable

if TYPE_CHECKING:
    from api.settings import Settings

__all__ = ["Granted", "Grants", "NoFanOut"]

CHECK_TIMEOUT_S = 2.0
RELOAD_PAUSES_S = (0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


@dataclass(frozen=True, slots=True)
class Granted:
    """How a tenant subscribes. `url`: with the password. None: there is no NATS in the settings."""

    url: str | None
    user: str
    password: str
    new: bool
    """Whether the password was made just now."""
    stream: str
    subjects: str
    without_consumer: str
    """Why the consumer could not be made. Empty: it is there."""


class Grants:
    """The users of tenants on one NATS: the embedded one of the data folder, or those in a file of accounts.

    All methods raise SettingsError, SupervisorError, Unavailable.
    """

    def __init__(self, settings: "Settings", file: Path | None) -> None:
        self._settings = settings
        self._file = file

    async def write_file(self) -> None:
        """Brings the file of accounts in line with the log of the settings."""
        assert self._file is not None
        file, log_id = self._file, await log_id_at(self._database_url(), timeout=TIMEOUT_S)
        await _in_order(lambda: AccountsFile(file).change(log_id, lambda found: None))

    async def grant(self, tenant_id: UUID, *, renew: bool) -> Granted | None:
        """Makes the user of a tenant, and its consumer. A user that is there stays, with a new password if `renew`.

        None: there is no such tenant. Raises NoFanOut for an embedded server without the fan-out.
        """
        database_url = self._database_url()
        if not await platform.has_tenant(database_url, tenant_id):
            return None
        log_id = await log_id_at(database_url, timeout=TIMEOUT_S)
        name, made, without = str(tenant_id), Subscriber(str(tenant_id), log_id, new_password()), ""
        final: list[Subscriber] = []

        def add(found: dict[str, Subscriber]) -> None:
            before = found.get(name)
            found[name] = made if before is None or renew else Subscriber(name, log_id, before.password)
            final[:] = [found[name]]

        url: str | None
        if self._file is None:
            async with self._operator() as connection:
                await subscribers.make(connection, log_id, tenant_id)
            url = await self._change_running(add, lambda: final[0], present=True)
        else:
            file = self._file
            await _in_order(lambda: AccountsFile(file).change(log_id, add))
            url, without = self._own_url(final[0]), await self._make(log_id, tenant_id)
        one = final[0]
        stream, subjects = events_stream(log_id), f"{event_subjects(log_id, tenant_id)}.>"
        return Granted(url, one.name, one.password, one is made, stream, subjects, without)

    async def revoke(self, tenant_id: UUID) -> bool:
        """Removes the user and the consumer of a tenant, and ends its connections. False: it had none.

        With a file of accounts the connections end when NATS reads the file.
        """
        log_id = await log_id_at(self._database_url(), timeout=TIMEOUT_S)
        removed: list[Subscriber] = []

        def drop(found: dict[str, Subscriber]) -> None:
            removed[:] = [one for one in [found.pop(str(tenant_id), None)] if one is not None]

        if self._file is None:
            await self._change_running(drop, lambda: removed[0] if removed else None, present=False)
        else:
            file = self._file
            await _in_order(lambda: AccountsFile(file).change(log_id, drop))
        if self._file is None or self._settings.nats_url is not None:
            async with self._operator() as connection:
                await subscribers.remove(connection, log_id, tenant_id)
        return bool(removed)

    async def _make(self, log_id: str, tenant_id: UUID) -> str:
        """Makes the consumer on a NATS of the user's own. Returns why it could not be made."""
        if self._settings.nats_url is None:
            return "TIDELOG_NATS_URL is not set"
        try:
            async with self._operator() as connection:
                await subscribers.make(connection, log_id, tenant_id)
        except Unavailable as error:
            return error.message
        return ""

    async def _change_running(self, change: Change, whom: Callable[[], Subscriber | None], *, present: bool) -> str:
        """Changes the users of the running server. Returns when the change holds there, with the URL of the user."""
        from api.supervisor.errors import SupervisorError

        server = self._running()
        await _in_order(lambda: server.change(change))
        one = whom()
        if one is None:
            return ""
        url = f"nats://{one.name}:{one.password}@{server.place}"
        # NATS 2.15 may need to read its file twice before what an account imports works, and cuts who connects at that moment.
        for pause_s in RELOAD_PAUSES_S:
            await _in_order(server.reload)
            await asyncio.sleep(pause_s)
            if await self._is(present, url, one):
                return url
        raise SupervisorError("the embedded NATS did not take the change over; its log says why (logs/nats.log)")

    async def _is(self, present: bool, url: str, one: Subscriber) -> bool:
        if present:
            return await subscribers.lets_in(url, NatsSecurity(), one.log_id, UUID(one.tenant_id), timeout=CHECK_TIMEOUT_S)
        try:
            await probe(url, security=NatsSecurity(), timeout=CHECK_TIMEOUT_S)
        except NatsRefused:
            return True
        except Unavailable:  # it is let in still, and may not ask what the probe asks
            return False
        return False

    def _running(self) -> RunningNats:
        from api.settings import SettingsError
        from api.supervisor import state

        running = state.running(self._settings.data_dir)
        if running is None or not (running.embedded or {}).get("nats"):
            raise SettingsError(f"no server with an embedded NATS runs on {self._settings.data_dir}: start it (tidelog up)")
        return RunningNats(running.embedded or {})

    def _database_url(self) -> str:
        if self._settings.database_url is not None:
            return self._settings.database_url.get_secret_value()
        return places(self._settings)[0]

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[NatsConnection]:
        """A connection of operators to NATS. Raises Unavailable."""
        from adapters.telemetry.logging import configure_logging
        from api.assembly.access import nats_security

        configure_logging("error", self._settings.log_format, role="subscribers")  # failures are raised
        security = NatsSecurity() if self._settings.nats_url is None else nats_security(self._settings)
        url = places(self._settings)[1]
        connection = NatsConnection(url, name="tidelog-subscribers", security=security, inbox_prefix=INBOX)
        await connection.start()
        try:
            await connection.ready(TIMEOUT_S)
            yield connection
        finally:
            await connection.close()

    def _own_url(self, one: Subscriber) -> str | None:
        if self._settings.nats_url is None:
            return None
        parts = [urlsplit(server.strip()) for server in self._settings.nats_url.get_secret_value().split(",")]
        login = f"{one.name}:{quote(one.password, safe='')}@"
        return ",".join(urlunsplit((part.scheme, login + part.netloc.rpartition("@")[2], "", "", "")) for part in parts)


async def _in_order(work: Callable[[], None]) -> None:
    """Runs work on files beside the loop. Raises SupervisorError in place of the adapter's error."""
    from api.supervisor.errors import SupervisorError

    try:
        await asyncio.to_thread(work)
    except EmbeddedError as error:
        raise SupervisorError(str(error)) from error
