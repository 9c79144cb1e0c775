"""The servers of the benchmarks: embedded servers that flush to disk, role processes, a free port."""

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
import structlog

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrate import migrate

WAL_MEGABYTES = 1_500
SERVE = """
import sys
from api.roles import run
from api.settings import load_settings
run(load_settings(), set(sys.argv[1].split(",")))
"""


@asynccontextmanager
async def embedded() -> AsyncIterator[EmbeddedServices]:
    """Runs a migrated Postgres and NATS in a folder of their own. The folder is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tidelog-benchmark-") as folder:
        os.chmod(folder, 0o711)  # servers that root starts run under another account
        services = EmbeddedServices(Path(folder) / "state")
        await services.start()
        try:
            await migrate(services.database_url)
            yield services
        finally:
            await services.stop()


async def make_wal(services: EmbeddedServices) -> None:
    """Makes Postgres create its WAL files before a measurement. A server that has been in use has the files and overwrites them.

    A fresh server creates each file of 16 MB when the file is needed. This takes 50 ms, and no commit returns meanwhile.
    """
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        megabyte = "pg_logical_emit_message(false, 'benchmark', repeat('x', 1024 * 1024))"
        await connection.execute(f"SELECT count({megabyte}) FROM generate_series(1, {WAL_MEGABYTES})")
        await connection.execute("CHECKPOINT")


def environment(services: EmbeddedServices, **more: str) -> dict[str, str]:
    return {
        "TIDELOG_DATABASE_URL": services.database_url,
        "TIDELOG_NATS_URL": services.nats_url,
        "TIDELOG_LOG_LEVEL": "error",
        **more,
    }


@contextmanager
def process(code: str, *arguments: str, env: dict[str, str] | None = None) -> Iterator[int]:
    """Runs the code in a Python process during the block. Yields the pid."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ, **(env or {})})
    try:
        yield child.pid
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def quiet() -> None:
    """Leaves out of the output what embedded servers say when they start."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
