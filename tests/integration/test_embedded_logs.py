"""The logs of the embedded servers stay within their bounds while the servers run, and say at any time why a server ended."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg

from adapters.embedded import EmbeddedServices
from adapters.embedded.logs import ServerLog
from tests.integration.system_kit import eventually
from tests.temporary import short_folder

LIMIT = 16 * 1024
"""Bytes. More than the servers write while a copy of their log is made, also where the thread that makes it waits for its turn."""


async def test_logs_of_running_servers_are_bounded_and_their_last_words_are_read() -> None:
    folder = short_folder()
    services = EmbeddedServices(folder / "state", durable=False, log_limit_bytes=LIMIT)
    await services.start()
    bounding = asyncio.create_task(services.bound_logs(every_s=0.02))
    try:
        logs = services.home / "logs"
        await asyncio.gather(
            fill(logs, "postgres.log", lambda: fail_in_postgres(services.database_url)),
            fill(logs, "nats.log", lambda: fail_in_nats(services.nats_url)),
        )

        async def look() -> bool:
            return bounded(logs)

        await eventually(look, "a look between two rotations")
        os.kill(services.describe()["postgres"]["pid"], signal.SIGQUIT)
        await services.wait_exit("postgres")
        assert "immediate shutdown" in ServerLog(logs / "postgres.log", None).newest()
        await services.restart("postgres")
    finally:
        bounding.cancel()
        await services.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await bounding
        shutil.rmtree(folder)


def bounded(logs: Path) -> bool:
    """Checks each file. False: a rotation was under way, in which a file has another name for an instant."""
    kept = {f"{name}.log{number}" for name in ("postgres", "nats") for number in ("", ".1", ".2", ".3")}
    try:
        found = {path.name: path.stat() for path in logs.iterdir()}
    except FileNotFoundError:
        return False
    for name, file in found.items():
        assert stat.S_IMODE(file.st_mode) == 0o600, name
        assert name.endswith(".log") or file.st_size < 2 * LIMIT, (name, file.st_size)
    drafts = {".postgres.log.draft", ".nats.log.draft"}
    assert found.keys() <= kept | drafts, found.keys()
    return found.keys() == kept


async def fill(logs: Path, name: str, write: Callable[[], Awaitable[None]]) -> None:
    """Makes a server write until the oldest file of its log was replaced by a newer one."""
    oldest = logs / f"{name}.3"

    async def written() -> bool:
        await write()
        return oldest.exists()

    await eventually(written)
    first = oldest.stat().st_mtime_ns

    async def replaced() -> bool:
        await write()
        return oldest.stat().st_mtime_ns != first

    await eventually(replaced)


async def fail_in_postgres(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=60) as connection:
        for _ in range(20):
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0 AS a_statement_that_the_log_shows")


async def fail_in_nats(url: str) -> None:
    """Logins with a wrong password, each of which NATS writes into its log."""
    port = int(url.rpartition(":")[2])
    login = b'CONNECT {"user":"tidelog","pass":"wrong","verbose":false,"pedantic":false}\r\nPING\r\n'
    for _ in range(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
        writer.write(login)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
