"""What operators do with a database and with NATS, before a server runs or beside it."""

from functools import partial

from adapters.nats.connection import probe
from adapters.postgres import migrate as migrations
from adapters.postgres import pool as postgres
from adapters.postgres.durability import Durability, inspect
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.log.identity import become_a_copy
from api.assembly import access
from api.settings import Settings
from application.engine.reading.histories import History
from application.engine.reading.history_keeper import HistoryKeeper


async def migrate(database_url: str) -> list[str]:
    """Brings the schema up to this release; returns the names of the migrations that were applied.

    Raises:
        SettingsError: the database is there, but there is no way in with this URL and its certificates.
    """
    return [migration.name for migration in await access.let_in(partial(migrations.migrate, database_url))]


async def pending_migrations(database_url: str) -> list[str]:
    return [migration.name for migration in await migrations.pending(database_url)]


async def begin_history(
    database_url: str, reason: str, last_common: int | None, *, copy: bool = False
) -> tuple[History, History, int]:
    """For a log that was restored: the history that ended, the one that goes on, and the head.

    They are the same where a new one has begun already. See `HistoryKeeper.restored`. `copy`: the log gets an id of its own first,
    because the one that it was copied from goes on. Raises SettingsError, Unavailable.
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
    """What the database does with acknowledged appends. Raises Unavailable: it is away, or the log would take none."""
    with postgres.translate_errors():
        async with await postgres.connect(database_url, role="doctor") as connection:
            return await inspect(connection)


async def check_nats(settings: Settings, *, timeout: float) -> None:
    """Whether NATS lets us in and JetStream answers. Raises Unavailable with the reason, SettingsError."""
    assert settings.nats_url is not None
    await probe(settings.nats_url.get_secret_value(), security=access.nats_security(settings), timeout=timeout)
