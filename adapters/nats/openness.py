"""Looks whether a NATS of the user's own lets in more than it should. Changes nothing there."""

import asyncio
import contextlib
import secrets
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import nats.errors

from adapters.nats.connection import probe
from adapters.nats.names import INBOX
from adapters.nats.security import NatsSecurity, SecuredClient
from domain.errors import Unavailable


async def lets_in_anyone(url: str, security: NatsSecurity, *, timeout: float) -> bool:
    """Whether JetStream answers somebody without credentials."""
    servers = [urlsplit(server.strip() if "://" in server else f"nats://{server.strip()}") for server in url.split(",")]
    bare = ",".join(urlunsplit((server.scheme, server.netloc.rpartition("@")[2], "", "", "")) for server in servers)
    nobody = replace(security, cert_file=None, key_file=None, creds_file=None, nkey_file=None, token=None)
    try:
        await probe(bare, security=nobody, timeout=timeout)
    except Unavailable:
        return False
    return True


async def has_spare_rights(url: str, security: NatsSecurity, *, timeout: float) -> bool:
    """Whether the user may subscribe to a subject that Tidelog does not use. Raises Unavailable."""
    servers = url.split(",")
    client = SecuredClient(security, require_tls=security.asks_for_tls(servers))
    refused: list[Exception] = []

    async def keep(error: Exception) -> None:
        refused.append(error)

    try:
        async with asyncio.timeout(timeout):
            options = {"allow_reconnect": False, "max_reconnect_attempts": 1, "inbox_prefix": INBOX, "error_cb": keep}
            await client.connect(servers, name="tidelog-doctor", connect_timeout=2, **options, **client.security_options())
            await client.subscribe(f"tidelog-doctor-{secrets.token_hex(8)}")
            for _ in range(2):  # a refusal is told by a task of its own, which may begin after the first answer
                await client.flush()
        return not refused
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise Unavailable(f"NATS: {error or type(error).__name__}") from error
    finally:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await client.close()
