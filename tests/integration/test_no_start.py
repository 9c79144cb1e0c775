"""Faults that only a person can mend end a start: with one line, at once. Faults that may pass are waited out."""

import asyncio
import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from api.supervisor.processes import EXIT_CANNOT_START
from tests.e2e.cli_kit import TIDELOG, command, environment
from tests.pace import within
from tests.ports import free_port


@pytest.fixture
async def not_ours(services: EmbeddedServices) -> AsyncIterator[str]:
    """A database in which the account of the application may not create tables."""
    name = f"test_{uuid.uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as connection:
        await connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        yield make_conninfo(services.database_url, dbname=name)
        await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


async def serve(folder: Path, database_url: str, nats_url: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(
        command, "serve", "--roles", "relay", "--migrate", cwd=folder, TIDELOG_DATABASE_URL=database_url, TIDELOG_NATS_URL=nats_url
    )


async def test_a_start_that_cannot_succeed_ends_with_one_line(
    services: EmbeddedServices, database_url: str, not_ours: str, tmp_path: Path
) -> None:
    nowhere = make_conninfo(services.database_url, dbname="nosuch")
    stranger = make_conninfo(services.database_url, user="stranger", password="secret")
    wrong_nats = re.sub("//[^@]*@", "//tidelog:secret@", services.nats_url)
    cases = {
        'TIDELOG_DATABASE_URL: .* database "nosuch" does not exist': (nowhere, services.nats_url),
        'TIDELOG_DATABASE_URL: .*(authentication failed for user|role) "stranger"': (stranger, services.nats_url),
        "TIDELOG_DATABASE_URL: no URL such as postgresql://user@host:5432/name": ("postgres//u:secret@h/d", services.nats_url),
        "migration-failed: this account may not migrate the database: permission denied": (not_ours, services.nats_url),
        "TIDELOG_NATS_URL: .*authorization violation": (database_url, wrong_nats),
    }
    async with within(60):
        ended = await asyncio.gather(*(serve(tmp_path, *urls) for urls in cases.values()))
    for told, done in zip(cases, ended, strict=True):
        assert done.returncode == EXIT_CANNOT_START, done.stderr
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert re.match(f"error: {told}", line, re.IGNORECASE), line
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr


async def test_up_says_the_reason_once_and_ends(services: EmbeddedServices, tmp_path: Path) -> None:
    urls = {"TIDELOG_DATABASE_URL": make_conninfo(services.database_url, dbname="nosuch"), "TIDELOG_NATS_URL": services.nats_url}
    done = await asyncio.to_thread(command, "up", "--port", "0", "--data-dir", "data", cwd=tmp_path, **urls)
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # the others are lines of the log
    assert re.match('error: TIDELOG_DATABASE_URL: .* database "nosuch" does not exist', line)
    assert "warning" not in done.stderr
    assert not list((tmp_path / "data").glob(".reason-*"))


async def test_a_server_that_is_away_is_waited_for(services: EmbeddedServices, tmp_path: Path) -> None:
    away = make_conninfo(services.database_url, host="127.0.0.1", port=free_port())
    process = await asyncio.create_subprocess_exec(
        TIDELOG, "serve", "--roles", "relay", "--migrate", cwd=tmp_path, stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(TIDELOG_DATABASE_URL=away, TIDELOG_NATS_URL=f"nats://127.0.0.1:{free_port()}"),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with within(20):
            while b"waiting_for_dependency" not in (line := await process.stderr.readline()):
                assert line, "it has ended"
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
