"""Connections of the guard. A host is resolved once for each connection, and the connection goes to the address that was checked:
no second look-up can give another one (DNS rebinding). TLS still asks for the certificate of the host's name."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2

from tidelog.guard.addresses import Address, AddressRefusedError, Allowed

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as texts. Raises OSError."""

MOST_ADDRESSES = 4
"""Addresses of one host that are tried."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the resolver of this machine."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Makes the connections of a pool of httpcore2. The pool asks for nothing else than a host and a port."""

    def __init__(self, allowed: Allowed, resolve: Resolve = resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._makes = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises AddressRefusedError, or the connection errors of httpcore2."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self.addresses(host, port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"the host was not resolved within {timeout} s") from None
        except OSError as error:
            raise httpcore2.ConnectError(f"the host cannot be resolved: {error.strerror or error}") from None
        failed: Exception | None = None
        for address in addresses[:MOST_ADDRESSES]:
            try:
                return await self._makes.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
            except AttributeError as error:  # see `tidelog.http_client.HttpTransport`
                failed = httpcore2.ConnectError("the connection ended while it was made")
                failed.__cause__ = error
        assert failed is not None
        raise failed

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise AddressRefusedError("tools call no sockets of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """The addresses of the host that may be called, each once. Raises AddressRefusedError: there is none; OSError."""
        if not self._allowed.allows_host(host):
            raise AddressRefusedError(f"tools of this worker may not call the host {host!r} (--only-host)")
        found: dict[Address, None] = {}
        try:
            texts = await self._resolve(host, port)
        except UnicodeError:  # a label that no name can have
            raise AddressRefusedError("the URL has no host that could be called") from None
        for text in texts:
            if "%" not in text:  # with a zone: an address of a link
                found[ipaddress.ip_address(text)] = None
        addresses = [address for address in found if self._allowed.allows(address)]
        if not addresses:
            # Without the addresses: whoever asks could read the names of the inner network by them.
            raise AddressRefusedError(
                f"the host {host!r} has no address that tools may call: private, local and metadata addresses are refused "
                "unless the worker's operator allows their network (--allow-network; of `tidelog up`: TIDELOG_BUILTIN_NETWORKS)"
            )
        return addresses
