"""The limits of connections, and the counts of open connections.

A connection counts for its address until a request on it has shown a valid key, and from then on for that key. So clients without a
key share the limit of their address, and a thousand streams of one key do not count against an address.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from api.http.conventions.errors import TooManyConnections
from api.http.conventions.turnstile import Turnstile
from api.open_files import SPARE_FILES
from api.settings import Settings
from domain.errors import Unavailable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of each connection, and of the number of connections. Names that end in `_s` are in seconds."""

    head_bytes: int = 64 * 1024
    """Bytes of a request line and its headers together. Also the bound of bytes that are neither head nor body."""
    headers: int = 100
    first_s: float = 30.0
    """For the first head, from the connection's beginning. A client that opens thousands of connections at once comes to its first
    request late."""
    head_s: float = 10.0
    """For each further head, from its first byte."""
    body_pause_s: float = 30.0
    """Between two pieces of a body."""
    body_s: float = 300.0
    """For a whole body."""
    idle_s: float = 30.0
    """Between an answer and the next request."""
    send_s: float = 30.0
    """In this time a peer must read some of the bytes that wait for it."""
    linger_s: float = 2.0
    """How long the connection of a refused peer stays open, so that the peer can read the answer."""
    connections: int = 20_000
    per_address: int = 64
    """Connections of an address that have shown no key. 0: any number."""
    arriving: int = 12_000
    """Connections of an address that may be open at the same time before they show a key."""
    per_key: int = 12_000
    proxies: tuple[Network, ...] = ()
    """Proxies in front of this server. Their connections do not count for their address."""

    @classmethod
    def of(cls, settings: Settings, open_files: int) -> "Limits":
        """The limits of the settings. Fewer connections if the process may not open as many files."""
        connections = min(settings.max_connections, max(SPARE_FILES, open_files - SPARE_FILES))
        return cls(
            connections=connections,
            per_address=settings.max_connections_per_address,
            per_key=settings.max_connections_per_key,
            proxies=settings.trusted_proxies,
        )


@dataclass(slots=True)
class ConnectionSlot:
    """A connection's place in the counts."""

    address: str | None
    key_id: UUID | None = None
    extra: bool = False
    """The connection was opened when its address had no connection without a key left."""


class Door:
    """Counts the open connections of a server."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0
        self.turnstile = Turnstile()
        self._addresses: Counter[str] = Counter()
        self._keys: Counter[UUID] = Counter()

    def enter(self, host: str | None) -> ConnectionSlot:
        """Counts a new connection. The caller must call `leave` at its end. Raises Unavailable, TooManyConnections."""
        limits = self.limits
        if self.open >= limits.connections:
            raise Unavailable(f"the server has its {limits.connections:,} connections")
        counted = limits.per_address and host is not None and not is_proxy(limits.proxies, host)
        slot = ConnectionSlot(network_of(host) if counted and host is not None else None)
        if slot.address is not None:
            strangers = self._addresses[slot.address]
            if strangers >= max(limits.per_address, limits.arriving):
                raise TooManyConnections(f"{strangers:,} connections of this address have shown no API key")
            slot.extra = strangers >= limits.per_address
            self._addresses[slot.address] += 1
        self.open += 1
        return slot

    def leave(self, slot: ConnectionSlot) -> None:
        self.open -= 1
        self._uncount(slot)

    def identify(self, slot: ConnectionSlot, key_id: UUID) -> None:
        """Counts the connection for the valid key of a request. Raises TooManyConnections."""
        if slot.key_id == key_id:
            return
        if self._keys[key_id] >= self.limits.per_key:
            raise TooManyConnections(f"the API key has its {self.limits.per_key:,} connections")
        self._uncount(slot)
        slot.key_id = key_id
        self._keys[key_id] += 1

    def admit_stranger(self, slot: ConnectionSlot) -> None:
        """Admits a request that has shown no key. Raises TooManyConnections if its address has too many connections."""
        if self.is_crowded(slot):
            raise TooManyConnections(f"an address may have {self.limits.per_address:,} connections without an API key")

    def is_crowded(self, slot: ConnectionSlot) -> bool:
        """Whether a connection is admitted only to show a key."""
        if not slot.extra or slot.key_id is not None or slot.address is None:
            return False
        return self._addresses[slot.address] > self.limits.per_address

    def _uncount(self, slot: ConnectionSlot) -> None:
        if slot.key_id is not None:
            _take_one(self._keys, slot.key_id)
        elif slot.address is not None:
            _take_one(self._addresses, slot.address)


def _take_one(counts: Counter[Any], of: str | UUID) -> None:
    counts[of] -= 1
    if not counts[of]:
        del counts[of]


def is_proxy(proxies: Iterable[Network], host: str) -> bool:
    """Whether the address is one of the proxies'."""
    if not proxies:
        return False
    address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in proxies)


def network_of(host: str) -> str:
    """The unit in which addresses are counted: an IPv4 address, or a /64 network of IPv6, which one peer has for itself."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, 64), strict=False))
