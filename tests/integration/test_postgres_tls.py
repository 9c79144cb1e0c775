"""TLS to Postgres without a TLS server: libpq gets the settings, and its refusals are reported as refusals.

`make compat` tests the same against real servers with OpenSSL.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from adapters.postgres import migrate as migrations
from adapters.postgres import pool as pools
from adapters.postgres.pool import DatabaseRefused, check_health, open_pool
from api.supervisor.processes import EXIT_CANNOT_START
from tests.e2e.cli_kit import command
from tests.integration.system_kit import eventually
from tests.tls_kit import Authority

SSL_REQUEST = struct.pack("!II", 8, 80877103)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.asynccontextmanager
async def port_that(speaks: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            await speaks(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_wrong_certificate_is_one_typed_error_everywhere(authority: Authority, tmp_path: Path) -> None:
    """A server that answers a request for TLS with a certificate of another authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server_cert, authority.server_key)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")

    async def speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(8) == SSL_REQUEST:
            writer.write(b"S")
            await writer.start_tls(context)
            await reader.read()

    async with port_that(speaks) as port:
        url = f"postgresql://u:secret@127.0.0.1:{port}/d?sslmode=verify-full&sslrootcert={other.ca}"
        named = url.replace("127.0.0.1", "localhost").replace(str(other.ca), str(authority.ca))
        await asyncio.gather(
            refused_everywhere(url, "certificate verify failed"), refused_everywhere(named, "does not match host name")
        )
        done = await asyncio.to_thread(
            command, "serve", "--migrate", cwd=tmp_path, TIDELOG_DATABASE_URL=url, TIDELOG_NATS_URL="nats://127.0.0.1:1"
        )
        assert done.returncode == EXIT_CANNOT_START
        [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert line.startswith("error: TIDELOG_DATABASE_URL: ")
        assert line.endswith("certificate verify failed")
        assert "secret" not in done.stderr


async def test_no_tls_where_it_is_asked_for_sends_nothing(authority: Authority) -> None:
    heard = bytearray()

    async def speaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        writer.write(b"N")
        heard.extend(await reader.read())

    async with port_that(speaks) as port:
        url = f"postgresql://u:secret@127.0.0.1:{port}/d?sslmode=require"
        await asyncio.gather(
            refused_everywhere(url, "server does not support SSL, but SSL was required"),
            refused_everywhere(f"{url}&sslrootcert={authority.ca}", "server does not support SSL"),
        )
    assert bytes(heard) == b""


async def failed(trouble: pools._Trouble) -> bool:
    return trouble.error is not None


async def refused_everywhere(url: str, match: str) -> None:
    with pytest.raises(DatabaseRefused, match=match):
        await migrations.migrate(url)
    pool = await open_pool(url, role="test", timeout=1)
    trouble = pool.trouble  # type: ignore[attr-defined]
    try:
        await eventually(lambda: failed(trouble), "a try to connect that failed")  # otherwise a slow machine would be the reason
        with pytest.raises(DatabaseRefused, match=match) as raised:
            await check_health(pool, timeout=1.5)
        assert "secret" not in str(raised.value)
    finally:
        await pool.close()
