"""Applies the numbered SQL files of the package `migrations`, each once, in order, each in a transaction of its own.

`schema_migration` holds the applied files with their checksums, so a file that changed after it was applied is an error, not a
surprise later. Several processes may start at once; an advisory lock lets one of them work while the others wait.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import psycopg
import structlog

from adapters.postgres import pool, rights
from domain.errors import TidelogError, Unavailable

log = structlog.get_logger(__name__)

LOCK_WAIT_MS = 200
"""A migration that waits for a table gives up so soon, and tries again. So processes go on that hold one table and wait for another
of the migration. PostgreSQL would end one of the two after a second (`deadlock_timeout`), and perhaps not the migration.
"""

LOCK_KEY = 0x7469_6465_6C6F_67
"""Key of the advisory lock: "tidelog" in ASCII."""

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9]+(?:_[a-z0-9]+)*)\.sql")

_CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS schema_migration (
        number integer NOT NULL PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class MigrationError(TidelogError):
    """The schema of the database does not fit the files of this version, or a migration failed. A person has to look."""

    code = "migration-failed"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `name` is the file's name, which holds the number."""

    number: int
    name: str
    sql: str
    sha256: str


def load_migrations(files: Iterable[Traversable] | None = None) -> list[Migration]:
    """The shipped migrations in order. Raises MigrationError for a misnamed file or a number used twice."""
    if files is None:
        files = resources.files("migrations").iterdir()
    found: dict[int, Migration] = {}
    for file in sorted((file for file in files if file.name.endswith(".sql")), key=lambda file: file.name):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"migrations/{file.name}: the name must be four digits, an underscore and lower-case words")
        number = int(match.group(1))
        if number in found:
            raise MigrationError(f"migrations/{file.name}: {found[number].name} has the same number")
        content = file.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows is the same migration
        found[number] = Migration(number, file.name, content.decode(), hashlib.sha256(content).hexdigest())
    return list(found.values())


async def pending(database_url: str, *, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """The files that `migrate` would apply, in order. Writes nothing. Raises MigrationError, Unavailable."""
    shipped = load_migrations() if migrations is None else migrations
    with pool.translate_errors():
        connection = await pool.connect(database_url, role="migrate", rights="login")
        async with connection:
            return await _pending(connection, shipped)


async def migrate(
    database_url: str,
    *,
    migrations: Sequence[Migration] | None = None,
    lock_timeout: float = 60.0,
    statement_timeout: float = 600.0,
) -> list[Migration]:
    """Brings the schema up to this version and returns the files that were applied.

    `lock_timeout`: seconds to wait for another process that migrates, and for any table lock that a migration needs.
    Raises MigrationError, Unavailable.
    """
    shipped = load_migrations() if migrations is None else migrations
    with pool.translate_errors():
        connection = await pool.connect(
            database_url,
            role="migrate",
            rights="login",
            statement_timeout=statement_timeout,
            options={"lock_timeout": f"{round(lock_timeout * 1000)}ms", "client_min_messages": "warning"},
        )
        async with connection:
            try:
                await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
            except psycopg.errors.LockNotAvailable as error:
                raise Unavailable(f"another process has been migrating for more than {lock_timeout:g} s") from error
            # The lock belongs to the session, so it ends with the connection in any case.
            try:
                await connection.execute(_CREATE_TABLE)
                waiting = await _pending(connection, shipped)
            except psycopg.errors.InsufficientPrivilege as error:
                raise MigrationError(f"this account may not migrate the database: {str(error).splitlines()[0]}") from error
            await connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_WAIT_MS}ms",))
            for migration in waiting:
                await _patiently(lock_timeout, lambda: _apply(connection, migration))  # noqa: B023  # called at once
            if migrations is None:
                await _patiently(lock_timeout, lambda: rights.apply(connection))
            return waiting


async def _patiently(seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Carries out a transaction that locks tables. Tries again while others hold them, for so many seconds."""
    began, pause = time.monotonic(), 0.05
    while True:
        try:
            return await action()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() - began + pause > seconds:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def _apply(connection: pool.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql.encode())  # without parameters: several statements may go at once
            await connection.execute(
                "INSERT INTO schema_migration (number, name, sha256) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.sha256),
            )
    except psycopg.Error as error:
        if pool.is_transient(error):
            raise
        raise MigrationError(f"{migration.name} failed, nothing of it was kept: {error}") from error
    log.info("migration_applied", name=migration.name)


async def _pending(connection: pool.Connection, shipped: Sequence[Migration]) -> list[Migration]:
    """Checks the applied files, and returns those that were not applied yet."""
    cursor = await connection.execute("SELECT to_regclass('schema_migration') IS NOT NULL")
    exists = await cursor.fetchone()
    if exists != (True,):
        return list(shipped)
    cursor = await connection.execute("SELECT number, name, sha256 FROM schema_migration ORDER BY number")
    applied = {number: (name, sha256) for number, name, sha256 in await cursor.fetchall()}
    by_number = {migration.number: migration for migration in shipped}
    for number, (name, sha256) in applied.items():
        migration = by_number.get(number)
        if migration is None:
            raise MigrationError(f"the database has {name}, which this version does not know: it was migrated by a newer version")
        if migration.sha256 != sha256:
            raise MigrationError(f"{migration.name} was changed after it was applied as {name}; write a new migration instead")
    waiting = [migration for migration in shipped if migration.number not in applied]
    if waiting and applied and waiting[0].number < max(applied):
        raise MigrationError(f"{waiting[0].name} was not applied, but later ones were: numbers must only grow")
    return waiting
