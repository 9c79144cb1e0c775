"""Browsers: from which site a request comes, and the cookie of a browser that is signed in.

A browser sends its cookie whatever page asks. SameSite keeps pages of other sites out; but a page of another port of the same host
is no other site to it, and an old browser knows no SameSite. So a request that changes something says from where it comes.
"""

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import Scope

from api.http.conventions.door import Network, is_proxy
from domain.errors import Forbidden, Unauthenticated

COOKIE = "tidelog-session"
_PORT = re.compile(rb":(\d{1,5})$", re.ASCII)
_PREFIX = re.compile(rb"(/[\w.~-]+)+", re.ASCII)
_TOKEN = re.compile(rb"[\w-]{20,100}", re.ASCII)
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"via")
"""Headers that a proxy adds."""

Proxies = tuple[Network, ...]


class ForeignOrigin(Forbidden):
    """The request shows the cookie of a browser, and does not come from a page of this server."""

    code = "foreign-origin"


def is_by_proxy(scope: Scope, proxies: Proxies) -> bool:
    """Whether a trusted proxy has passed the request on."""
    client = scope.get("client")
    return bool(proxies) and client is not None and is_proxy(proxies, client[0])


def prefix_of(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies) -> bytes:
    """The path under which a trusted proxy serves this server. Empty without such a proxy, or if the proxy names no path."""
    prefix = headers.get(b"x-forwarded-prefix", b"").rstrip(b"/")
    return prefix if prefix and _PREFIX.fullmatch(prefix) is not None and is_by_proxy(scope, proxies) else b""


def is_secure(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies) -> bool:
    """Whether the browser speaks TLS: to this server, or, as a trusted proxy says, to the proxy."""
    if scope.get("scheme") in ("https", "wss"):
        return True
    told = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
    return told in (b"https", b"wss") and is_by_proxy(scope, proxies)


def cookie_name(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies) -> str:
    """The name of this server's cookie. Cookies do not know ports, and a `__Host-` cookie knows no path: so both are in the name,
    and two servers of one host do not sign one another's browsers out.
    """
    name = f"__Host-{COOKIE}" if is_secure(scope, headers, proxies) else COOKIE
    if (port := _PORT.search(headers.get(b"host", b""))) is not None:
        name += f"-{port[1].decode()}"
    if prefix := prefix_of(scope, headers, proxies):
        name += prefix.replace(b"/", b".").decode()
    return name


def token_in(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies) -> bytes:
    """The token in the cookie of a request. Empty: it shows none. Raises Unauthenticated if it shows several: whoever may set a
    cookie for a part of the site could put another's before the right one.
    """
    cookie = headers.get(b"cookie", b"")
    if COOKIE.encode() not in cookie:
        return b""
    name = cookie_name(scope, headers, proxies).encode()
    given = [value for said, _, value in (part.strip().partition(b"=") for part in cookie.split(b";")) if said == name]
    if len(given) > 1:
        raise Unauthenticated("the request shows several cookies of this server")
    return given[0] if given and _TOKEN.fullmatch(given[0]) else b""


def set_cookie(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies, token: str, life_s: int) -> str:
    """The header that gives the cookie to the browser. Without a token: the header that takes it away."""
    secure = "; Secure" if is_secure(scope, headers, proxies) else ""
    name = cookie_name(scope, headers, proxies)
    return f"{name}={token}; Max-Age={life_s if token else 0}; Path=/; HttpOnly; SameSite=Strict{secure}"


def must_be_of_this_site(scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies, *, needed: bool) -> None:
    """Raises ForeignOrigin for a request of a page of another site; `needed`: also for one that does not say where it comes from.

    `Sec-Fetch-Site` is the browser's own judgement, whatever a proxy makes of the host's name. Older browsers send `Origin` alone.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        if site != b"same-origin":
            raise ForeignOrigin("the request comes from a page of another site")
    elif origin is not None:
        if not _is_own(origin.decode("latin-1"), scope, headers, proxies):
            raise ForeignOrigin("the request comes from a page of another site: its Origin is not the Host that was asked")
    elif needed:
        raise ForeignOrigin("a request by cookie must say from which page it comes: Origin or Sec-Fetch-Site is missing")


def _is_own(origin: str, scope: Scope, headers: Mapping[bytes, bytes], proxies: Proxies) -> bool:
    try:
        said = urlsplit(origin)
    except ValueError:
        return False
    if said.scheme not in ("http", "https") or not said.netloc:
        return False
    if said.scheme == "http" and is_secure(scope, headers, proxies):
        return False
    hosts = [headers.get(b"host", b"")]
    if b"x-forwarded-host" in headers and is_by_proxy(scope, proxies):
        hosts.append(headers[b"x-forwarded-host"])
    standard = ":443" if said.scheme == "https" else ":80"
    own = {host.decode("latin-1").strip().lower().removesuffix(standard) for host in hosts}
    return said.netloc.lower().removesuffix(standard) in own - {""}


def is_local(scope: Scope, headers: Mapping[bytes, bytes], host: str) -> bool:
    """Whether the request comes from this machine, to a server that serves this machine alone, and by no proxy that says so.

    `host`: the address at which the server listens.
    """
    client = scope.get("client")
    if not is_loopback(host) or client is None or not is_loopback(client[0]) or any(name in headers for name in FORWARDED):
        return False
    asked, page = f"//{headers.get(b'host', b'').decode('latin-1')}", headers.get(b"origin", b"").decode("latin-1")
    try:
        names = [urlsplit(asked).hostname, *([urlsplit(page).hostname] if page else [])]
    except ValueError:
        return False
    return all(name is not None and is_loopback(name) for name in names)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
