"""Operators' work on a database and on NATS, before a server runs or beside a running server."""

from functools import partial

from adapters.nats.connection import NatsRefused, probe
from adapters.nats.openness import has_spare_rights, lets_in_anyone
from adapters.postgres import migrate as migrations
from adapters.postgres import pool as postgres
from adapters.postgres import rights
from adapters.postgres.durability import Durability, inspect
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.log.identity import become_a_copy
from api.assembly import access
from api.settings import Settings, SettingsError
from application.engine.reading.histories import History
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import Unavailable


async def migrate(database_url: str) -> list[str]:
    """Migrates the schema to this release. Returns the names of the applied migrations.

    Raises:
        SettingsError: the database refuses the login with this URL and its certificates.
    """
    return [migration.name for migration in await access.let_in(partial(migrations.migrate, database_url))]


async def pending_migrations(database_url: str) -> list[str]:
    return [migration.name for migration in await migrations.pending(database_url)]


async def begin_history(
    database_url: str, reason: str, last_common: int | None, *, copy: bool = False
) -> tuple[History, History, int]:
    """Begins a new history of a restored log. Returns the history that ended, the present history, and the head of the log.

    The two histories are the same if a new history has begun already. See `HistoryKeeper.restored`. `copy`: the log first gets a
    new id, because the log that it was copied from is still in use. Raises SettingsError, Unavailable.
    """
    await migrate(database_url)
    pool = await postgres.open_pool(database_url, role="restored", max_size=1)
    try:
        if copy:
            await become_a_copy(pool)
        histories = HistoryKeeper(PostgresHistories(pool))
        before, now = await histories.restored(reason, last_common)
        return before, now, (await histories.fresh()).head
    finally:
        await pool.close()


async def durability(database_url: str) -> Durability:
    """The durability of acknowledged appends. Raises Unavailable if the database is away or the log would refuse appends."""
    with postgres.translate_errors():
        async with await postgres.connect(database_url, role="doctor") as connection:
            return await inspect(connection)


async def roles_off(database_url: str) -> str:
    """Why the roles of the database are not in force. Empty: they are. Raises Unavailable."""
    with postgres.translate_errors():
        async with await postgres.connect(database_url, role="doctor", rights="login") as connection:
            return (await rights.inspect(connection)).why_not


async def nats_lets_in(settings: Settings, timeout: float) -> None:
    """Raises SettingsError if NATS is there and refuses the connection. Returns without a word if NATS is away.

    At start no health check can report a refusal yet, so the process must end with a message.
    """
    try:
        await check_nats(settings, timeout=timeout)
    except NatsRefused as error:
        raise SettingsError(f"TIDELOG_NATS_URL: {error.message}") from error
    except Unavailable:
        return  # the roles wait for it


async def check_nats(settings: Settings, *, timeout: float) -> None:
    """Checks that NATS accepts the login and JetStream answers. Raises Unavailable with the reason, SettingsError."""
    assert settings.nats_url is not None
    await probe(settings.nats_url.get_secret_value(), security=access.nats_security(settings), timeout=timeout)


async def rights_on_nats(settings: Settings, *, timeout: float) -> tuple[bool, bool]:
    """Whether NATS lets in anyone, and whether the server's user may do more than the server needs. Raises Unavailable."""
    assert settings.nats_url is not None
    url, security = settings.nats_url.get_secret_value(), access.nats_security(settings)
    if await lets_in_anyone(url, security, timeout=timeout):
        return True, True
    return False, await has_spare_rights(url, security, timeout=timeout)
