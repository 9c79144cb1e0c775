"""Which addresses and hosts tools may call. Without an operator's word: those of the public internet, and no others."""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from tidelog.errors import PermanentError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253", "168.63.129.16", "100.100.100.200",
        "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip
"""Where clouds tell any process of a machine its credentials. One of them, Azure's 168.63.129.16, is a public address."""
_NOT_PUBLIC: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        # What `is_global` of some versions of Python takes for public, by the registries of IANA:
        "192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
        "fec0::/10",
    )
)  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class AddressRefusedError(PermanentError):
    """The guard of tools refuses a URL: its scheme, its host, or all addresses of its host. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What tools may call. `networks`: also these, beside the public internet. `only_hosts`: no others than these; empty: any.

    A host is a name, or `*.example.com` for all names below it. A network of one metadata address allows it; larger networks
    do not.
    """

    networks: tuple[Network, ...] = ()
    only_hosts: tuple[str, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[str] = (), only_hosts: Iterable[str] = ()) -> Self:
        """Raises ValueError for a text that is no network or no host; the message names the text."""
        return cls(tuple(map(_network, networks)), tuple(map(_host, only_hosts)))

    def allows_host(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return not self.only_hosts or any(
            name.endswith(each[1:]) if each.startswith("*.") else name == each for each in self.only_hosts
        )

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made. An address inside an IPv6 one must be allowed, too."""
        inside = list(_inside(address))
        if not all(map(self._allows, inside)):
            return False
        # A mapped address or one of NAT64 is but another way to write the one inside.
        same = isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped is not None or address in _NAT64)
        return same or self._allows(address)

    def _allows(self, address: Address) -> bool:
        holding = [network for network in self.networks if address in network]
        if any(address in network for network in _METADATA):
            return any(network.num_addresses == 1 for network in holding)
        return bool(holding) or is_public(address)


PUBLIC = Allowed()
"""The public internet, any host."""


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, of a single machine."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback:
        return False
    return not any(address in network for network in (*_NOT_PUBLIC, *_METADATA))


def _inside(address: Address) -> Iterator[Address]:
    """The IPv4 addresses to which packets for an IPv6 address may go: mapped, compatible, NAT64, 6to4, Teredo."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    last = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        yield last
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network: write 10.0.0.0/8, 127.0.0.1 or fd00::/8") from None


def _host(text: str) -> str:
    name = text.strip().lower().rstrip(".")
    rest = name.removeprefix("*.")
    if not rest or any(part in rest for part in ("*", "/", ":", "@", " ")):
        raise ValueError(f"{text!r} is no host: write api.example.com, or *.example.com for all names below")
    try:
        name.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is no host: write names beyond ASCII in their form xn--…") from None
    return name
