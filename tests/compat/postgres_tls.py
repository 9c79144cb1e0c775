"""TLS and mutual TLS to a real Postgres with OpenSSL: every connection of Tidelog, and every possible misconfiguration."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from adapters.postgres import migrate as migrations
from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.pool import DatabaseRefused, check_health, open_pool
from tests.compat.servers import MUTUAL, CompatPostgres, CompatServices
from tests.integration.nats_kit import open_log
from tests.pace import in_time
from tests.tls_kit import Authority


@pytest.fixture
def postgres(services: CompatServices) -> CompatPostgres:
    if not services.postgres.tls:
        pytest.skip("this PostgreSQL was built without OpenSSL")
    return services.postgres


@pytest.fixture
def verified(postgres: CompatPostgres) -> str:
    return f"sslmode=verify-full&sslrootcert={postgres.authority.ca}"


@pytest.fixture
def shown(postgres: CompatPostgres) -> str:
    return f"sslcert={postgres.authority.client_cert}&sslkey={postgres.authority.client_key}"


async def test_every_connection_is_encrypted_and_shows_its_certificate(
    postgres: CompatPostgres, database_url: str, verified: str, shown: str
) -> None:
    dbname = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    url = make_conninfo(postgres.url(MUTUAL, tls=f"{verified}&{shown}"), dbname=str(dbname), options="-c role=tidelog")
    await migrations.migrate(url)
    async with open_log(url) as log:
        await log.append(3)
        await log.signal.wait(2, 5)
        assert [event.position for event in await log.everything()] == [1, 2, 3]
        rows = await in_time(seen(postgres), 10)
    names = {name for name, _, _ in rows}
    assert {"tidelog-append", "tidelog-listener", "tidelog-test"} <= names
    assert all(encrypted and MUTUAL in client for _, encrypted, client in rows), rows


async def seen(postgres: CompatPostgres) -> list[tuple[str, bool, str]]:
    """Name, encryption and certificate of every connection of the user who must show a certificate."""
    query = """
        SELECT application_name, ssl, coalesce(client_dn, '') FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
        WHERE usename = %s AND datname IS NOT NULL
    """
    async with await psycopg.AsyncConnection.connect(postgres.url("postgres")) as connection:
        return [(str(a), bool(b), str(c)) for a, b, c in await (await connection.execute(query, (MUTUAL,))).fetchall()]


async def test_notifications_come_over_tls(database_url: str, postgres: CompatPostgres) -> None:
    async with open_log(database_url) as log:
        signal = AppendSignal(database_url)
        await signal.start()
        await in_time(signal.listening.wait(), 10)
        for position in range(1, 6):
            waiting = asyncio.create_task(signal.wait(position - 1, 4))
            await log.append(1)
            await in_time(waiting, 3)  # less than the wait itself: the reader was woken
        await signal.close()


async def test_what_is_refused_is_one_typed_error(
    postgres: CompatPostgres, verified: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = Authority(tmp_path, client="other")
    other_name = verified + f"&sslcert={stranger.client_cert}&sslkey={stranger.client_key}"
    loose = tmp_path / "loose-key.pem"
    loose.write_bytes(postgres.authority.client_key.read_bytes())
    loose.chmod(0o644)
    wrong = [
        ("tidelog", f"sslmode=verify-full&sslrootcert={stranger.ca}", "certificate verify failed"),
        ("tidelog", "sslmode=disable", "no encryption"),
        (MUTUAL, verified, "valid client certificate"),
        (MUTUAL, other_name, "SSL error|certificate"),
        (MUTUAL, f"{verified}&sslcert={postgres.authority.client_cert}&sslkey={stranger.client_key}", "private key file"),
        (MUTUAL, f"{verified}&sslcert={postgres.authority.client_cert}&sslkey={loose}", "private key file"),
    ]
    for user, parameters, match in wrong:
        url = postgres.url(user, tls=parameters)
        with pytest.raises(DatabaseRefused, match=match):
            await migrations.pending(url)
        pool = await open_pool(url, role="test")
        with pytest.raises(DatabaseRefused, match=match):
            await check_health(pool, timeout=1)
        await pool.close()
    named = postgres.url("tidelog").replace("127.0.0.1", "localhost")
    with pytest.raises(DatabaseRefused, match="does not match host name"):
        await migrations.pending(named)
    with pytest.raises(DatabaseRefused, match="password authentication failed"):
        await migrations.pending(postgres.url("tidelog").replace("tidelog:", "tidelog:x"))
    assert await migrations.pending(postgres.url("tidelog"))
