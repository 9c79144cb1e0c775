"""A PostgreSQL server of the test's own that flushes. All other settings make sure that an unflushed commit is noticed."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrate import migrate
from tests.pace import within

# Only a commit that waits for the flush writes the WAL to disk, and the WAL writer every ten seconds (no longer delay is allowed):
# see `unflushed`. Nobody else writes into it.
SETTINGS = {
    "wal_writer_delay": "10s",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}


@asynccontextmanager
async def durable_server() -> AsyncIterator[EmbeddedServices]:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    os.chmod(folder, 0o711)  # the account of the server must reach the folder
    server = EmbeddedServices(folder / "state", want_nats=False, postgres_settings=SETTINGS)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        shutil.rmtree(folder)


async def database_on(server: EmbeddedServices, *, synchronous_commit: str = "off") -> str:
    """The URL of a new, migrated database whose sessions begin with this `synchronous_commit`.

    The database is removed with the server.
    """
    url = make_conninfo(server.database_url, dbname=f"test_{uuid4().hex}")
    given = conninfo_to_dict(url)
    name = Identifier(str(given["dbname"]))
    await administer(server, SQL("CREATE DATABASE {} OWNER {}").format(name, Identifier(str(given["user"]))))
    await administer(server, SQL("ALTER DATABASE {} SET synchronous_commit = {}").format(name, Literal(synchronous_commit)))
    await migrate(url)
    return url


async def administer(server: EmbeddedServices, *statements: psycopg.sql.Composable) -> None:
    async with await psycopg.AsyncConnection.connect(server.admin_database_url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement)


async def set_fsync(server: EmbeddedServices, value: str) -> None:
    """Returns when new connections see the setting."""
    await administer(server, SQL("ALTER SYSTEM SET fsync = {}").format(Literal(value)), SQL("SELECT pg_reload_conf()"))
    async with within(15):
        while True:
            async with await psycopg.AsyncConnection.connect(server.admin_database_url) as connection:
                if await (await connection.execute("SHOW fsync")).fetchone() == (value,):
                    return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def unflushed(server: EmbeddedServices) -> AsyncIterator[None]:
    """Commits that do not wait for the disk stay in memory, however long the block takes: the WAL writer stands still.

    No other database may be made or dropped meanwhile, because that waits for all processes of PostgreSQL. A crash ends the block's
    effect: the WAL writer of the next start works.
    """
    writer = await _still_wal_writer(server)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(writer, signal.SIGCONT)


async def _still_wal_writer(server: EmbeddedServices) -> int:
    """Stops the WAL writer while it sleeps: else it could hold a lock for which each commit waits. Returns its process."""
    sleeping = "SELECT pid, wait_event = 'WalWriterMain' FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    async with await psycopg.AsyncConnection.connect(server.admin_database_url, autocommit=True) as connection, within(15):
        while True:
            for pid, _ in await (await connection.execute(sleeping)).fetchall():  # none: PostgreSQL has just begun
                os.kill(pid, signal.SIGSTOP)
                while not _is_stopped(pid):  # noqa: ASYNC110  # nothing tells when another process has stopped
                    await asyncio.sleep(0.001)
                if (pid, True) in await (await connection.execute(sleeping)).fetchall():
                    return int(pid)
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.01)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def crash(server: EmbeddedServices) -> None:
    """Sends SIGKILL to the postmaster and all its processes at one moment: data that was only in their memory is lost."""
    postmaster = int(server.describe()["postgres"]["pid"])
    os.kill(postmaster, signal.SIGSTOP)  # the postmaster must not react to the end of the others meanwhile
    for pid in [*_children(postmaster), postmaster]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found
