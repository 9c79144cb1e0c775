"""TLS to NATS, and credentials over TLS: the connection has the requested security, or no secret is sent and the reason is
reported."""

import asyncio
import contextlib
import gc
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from adapters.nats import NatsConnection
from adapters.nats.connection import NatsRefused, probe
from adapters.nats.security import CredentialsError, NatsSecurity, SecuredClient
from domain.errors import Unavailable
from tests.integration.nats_kit import NatsProcess, eventually, running_nats
from tests.pace import ANSWER_S, within
from tests.tls_kit import Authority, Nkey, creds


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.asynccontextmanager
async def secured(
    folder: Path, authority: Authority, *, tls: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[NatsProcess]:
    """A server that accepts only TLS. `tls` and `more` are parts of its configuration."""
    files = {"cert_file": str(authority.server_cert), "key_file": str(authority.server_key), "ca_file": str(authority.ca)}
    configuration = folder / "nats.conf"
    configuration.write_text(json.dumps({**more, "tls": {**files, **(tls or {})}}))
    async with running_nats(folder, configuration) as server:
        yield server


@contextlib.asynccontextmanager
async def connecting(url: str, security: NatsSecurity | None = None) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(url, name="test", security=security, reconnect_wait_s=0.05)
    await connection.start()
    try:
        yield connection
    finally:
        await connection.close()


async def works(url: str, security: NatsSecurity) -> None:
    """For the server's connection, and for a worker's connection, which does not use `NatsConnection`."""
    async with connecting(url, security) as connection:
        await connection.ready(ANSWER_S)
    await worker_works(url, security)


async def worker_works(url: str, security: NatsSecurity) -> None:
    client, errors = worker_client(url, security), list[str]()

    async def keep(error: Exception) -> None:
        errors.append(str(error))

    try:
        async with within(5):
            await client.connect(url.split(","), error_cb=keep, reconnect_time_wait=0.05, **client.security_options())
            await client.flush()
    except TimeoutError:
        raise AssertionError(errors[-1:]) from None
    finally:
        await client.close()


def worker_client(url: str, security: NatsSecurity) -> SecuredClient:
    return SecuredClient(security, require_tls=security.asks_for_tls(url.split(",")))


async def refused(url: str, security: NatsSecurity | None, match: str) -> None:
    """The connection reports the reason with the right kind of error, and goes on trying."""
    async with connecting(url, security) as connection:
        await eventually(lambda: refusal(connection))
        assert match in str(await refusal(connection))
        with pytest.raises(Unavailable):
            await connection.request("any")


async def refusal(connection: NatsConnection) -> NatsRefused | None:
    try:
        await connection.check_health()
    except NatsRefused as error:
        return error
    except Unavailable:
        return None
    raise AssertionError("it is connected")


def tls(server: NatsProcess) -> str:
    return server.url.replace("nats://", "tls://")


async def test_certificates_of_an_own_authority(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority) as server:
        await works(tls(server), NatsSecurity(ca_file=authority.ca))
        await works(server.url, NatsSecurity(ca_file=authority.ca))
        await works(f"tls://127.0.0.1:1,{tls(server)}", NatsSecurity(ca_file=authority.ca))  # one of the servers is down
        await refused(tls(server), None, "the server's certificate is not accepted")
        await probe(tls(server), security=NatsSecurity(ca_file=authority.ca), timeout=5)
        with pytest.raises(NatsRefused, match="certificate is not accepted"):
            await probe(tls(server), security=NatsSecurity(), timeout=5)
        with pytest.raises(Unavailable, match="Connection refused"):
            await probe("nats://127.0.0.1:1", security=NatsSecurity(), timeout=5)
        other_name = tls(server).replace("127.0.0.1", "localhost")
        await refused(other_name, NatsSecurity(ca_file=authority.ca), "certificate is not valid for 'localhost'")


async def test_both_sides_show_certificates(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority, tls={"verify": True, "handshake_first": True}) as server:
        known = NatsSecurity(authority.ca, authority.client_cert, authority.client_key, tls_first=True)
        await works(tls(server), known)
        await refused(tls(server), NatsSecurity(authority.ca, tls_first=True), "certificate required")


async def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path, authority: Authority) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("nothing yet")
    async with secured(tmp_path, authority) as server, connecting(tls(server), NatsSecurity(ca_file=ca)) as connection:
        await eventually(lambda: refusal(connection))
        with pytest.raises(NatsRefused, match=r"ca\.pem: no CA certificates"):
            await connection.ready(0.3)
        shutil.copy(authority.ca, ca)
        await connection.ready(ANSWER_S)


async def test_token_password_and_nkey(tmp_path: Path, authority: Authority) -> None:
    key, stranger = Nkey(), Nkey()
    for name, holder in (("nkey", key), ("stranger", stranger)):
        (tmp_path / name).write_text(holder.seed + "\n")
    ca = authority.ca
    users = [{"user": "u", "password": "p/w"}, {"nkey": key.public}]
    async with secured(tmp_path, authority, authorization={"users": users}) as server:
        await works(tls(server), NatsSecurity(ca, nkey_file=tmp_path / "nkey"))
        await refused(tls(server), NatsSecurity(ca, nkey_file=tmp_path / "stranger"), "Authorization Violation")
        await refused(tls(server), NatsSecurity(ca), "Authorization Violation")
    other = tmp_path / "other"
    other.mkdir()
    async with secured(other, authority, authorization={"token": "t"}) as server:
        await works(tls(server), NatsSecurity(ca, token="t"))
        await works(tls(server).replace("tls://", "tls://t@"), NatsSecurity(ca))
        await refused(tls(server), NatsSecurity(ca, token="x"), "Authorization Violation")


async def test_credentials_file(tmp_path: Path, authority: Authority) -> None:
    operator, system, account, user = Nkey("O"), Nkey("A"), Nkey("A"), Nkey()
    unlimited = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn", "leaf")}
    claims = {"type": "account", "version": 2, "limits": {**unlimited, "wildcards": True}}
    user_jwt = account.jwt(user, "usr", {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1})
    (tmp_path / "user.creds").write_text(creds(user_jwt, user))
    (tmp_path / "thief.creds").write_text(creds(user_jwt, Nkey()))
    configuration = {
        "operator": operator.jwt(operator, "op", {"type": "operator", "version": 2}),
        "system_account": system.public,
        "resolver": "MEMORY",
        "resolver_preload": {one.public: operator.jwt(one, "account", claims) for one in (system, account)},
    }
    async with secured(tmp_path, authority, **configuration) as server:
        await works(tls(server), NatsSecurity(authority.ca, creds_file=tmp_path / "user.creds"))
        await refused(tls(server), NatsSecurity(authority.ca, creds_file=tmp_path / "thief.creds"), "Authorization Violation")


INFO = {"server_id": "x", "version": "2.15.1", "auth_required": True, "nonce": "n", "max_payload": 1048576, "headers": True}


@pytest.mark.parametrize("says", [{}, {"tls_required": False, "tls_available": True}, {"tls_required": 0}], ids=str)
async def test_nothing_is_sent_in_clear_text_when_tls_is_asked_for(
    says: dict[str, Any], tmp_path: Path, authority: Authority
) -> None:
    """A server, or an attacker in between, that offers no TLS gets no password, no token, no JWT and no signature."""
    key = Nkey()
    (tmp_path / "nkey").write_text(key.seed)
    (tmp_path / "user.creds").write_text(creds("a.b.c", key))
    asked, heard = 0, bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(b"INFO " + json.dumps(INFO | says).encode() + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1_000):
                heard.extend(data)
        writer.close()

    between = await asyncio.start_server(plain, "127.0.0.1", 0)
    url = f"nats://user:secret@127.0.0.1:{between.sockets[0].getsockname()[1]}"
    ways = [
        (url.replace("nats:", "tls:"), NatsSecurity()),
        (url, NatsSecurity(authority.ca)),
        (url, NatsSecurity(cert_file=authority.client_cert, key_file=authority.client_key, token="secret")),
        (url.replace("nats:", "tls:"), NatsSecurity(nkey_file=tmp_path / "nkey")),
        (url, NatsSecurity(authority.ca, creds_file=tmp_path / "user.creds")),
    ]
    async with between:
        for way in ways:
            await refused(*way, "the server offers no TLS")
            client = worker_client(*way)
            with pytest.raises(nats.errors.Error, match="offers no TLS"):
                await client.connect(way[0], allow_reconnect=False, error_cb=nothing, **client.security_options())
            await client.close()
        assert asked >= 2 * len(ways)
    assert bytes(heard) == b""


async def nothing(_: Exception) -> None:
    return None


async def test_clear_text_after_a_reconnect_is_refused_as_well(tmp_path: Path, authority: Authority) -> None:
    async with secured(tmp_path, authority) as server:
        url = tls(server).replace("tls://", "tls://user:secret@")
        async with connecting(url, NatsSecurity(authority.ca)) as connection:
            await connection.ready(ANSWER_S)
            (tmp_path / "nats.conf").write_text("{}")
            await server.kill()
            await server.start()  # a server on the same port, without TLS
            await eventually(lambda: refusal(connection))
            await asyncio.sleep(1)  # the next attempts fail as well, and leave no socket open: pytest would report open sockets
            gc.collect()
            await eventually(lambda: no_tls(connection))  # one of the attempts may have taken too long


async def no_tls(connection: NatsConnection) -> bool:
    return "offers no TLS" in str(await refusal(connection))


def test_files_that_cannot_be_used_are_told_without_what_is_in_them(tmp_path: Path, authority: Authority) -> None:
    rubbish, seed = tmp_path / "rubbish", Nkey().seed
    rubbish.write_text(seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:])
    account = tmp_path / "account"
    account.write_text(Nkey("A").seed)
    for security, match in (
        (NatsSecurity(ca_file=tmp_path / "none"), "none: no CA certificates: No such file"),
        (
            NatsSecurity(cert_file=authority.client_cert, key_file=authority.server_key),
            r"client\.pem with .*server-key\.pem: no cert",
        ),
        (NatsSecurity(nkey_file=rubbish), "rubbish: holds no nkey seed of a user"),
        (NatsSecurity(nkey_file=account), "account: holds no nkey seed of a user"),
        (NatsSecurity(creds_file=rubbish), "rubbish: is no NATS credentials file"),
    ):
        with pytest.raises(CredentialsError, match=match) as raised:
            security.check()
        assert seed[:10] not in str(raised.value)
