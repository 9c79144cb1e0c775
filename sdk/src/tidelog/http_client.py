"""The HTTP client of everything here that talks to a server, the command line included: through which proxy, trusting whom.

The Authorization header holds the API key. Through a proxy an https request is a tunnel, and the proxy sees the name of the server
only. An http request is read by the proxy as it is. So the proxy of the environment, which nobody chose for Tidelog, gets https
requests only, and nothing goes to it that is for this machine.
"""

import ipaddress
import os
import ssl
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpx2

from tidelog.errors import ProxySettingError, TidelogConnectionError

PROXY = "TIDELOG_PROXY"


def http_client(
    url: str,
    *,
    proxy: str | None = None,
    headers: Mapping[str, str] | None = None,
    limits: httpx2.Limits | None = None,
    timeout_s: float = 5.0,
) -> httpx2.AsyncClient:
    """A client for requests to the server at `url`; see `Client` for proxies. It follows no redirects.

    Raises:
        ProxySettingError: the proxy cannot be used.
        TidelogConnectionError: the URL cannot be used, or the files of authorities cannot be read.
    """
    server = server_of(url)
    transport = HttpTransport(
        limits=limits or httpx2.Limits(), proxy=proxy_to(server, proxy), verify=trusting(server), trust_env=False
    )
    return httpx2.AsyncClient(base_url=server, headers=dict(headers or {}), timeout=timeout_s, transport=transport, trust_env=False)


class HttpTransport(httpx2.AsyncHTTPTransport):
    """Names the loss of a connection that ends while it is made.

    uvloop has let go of the socket by then, and anyio, below httpx2, asks the socket for its address: an AttributeError.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            if error.obj is not None:
                raise
            raise httpx2.ConnectError("the connection ended while it was made", request=request) from error


def on_this_machine(url: str) -> bool:
    """Whether the server at `url` is this machine by its address or the name localhost. False for a text that is no URL."""
    try:
        return _is_loopback(server_of(url).host)
    except TidelogConnectionError:
        return False


def server_of(url: str) -> httpx2.URL:
    """Raises TidelogConnectionError for a URL that cannot be used."""
    try:
        server = httpx2.URL(url.rstrip("/"))
    except (httpx2.InvalidURL, ValueError) as error:
        raise TidelogConnectionError(f"the server's URL cannot be used: {error}") from error
    if server.scheme not in ("http", "https") or not _can_be_called(server):
        raise TidelogConnectionError("the server's URL cannot be used: it must be http://HOST:PORT or https://HOST:PORT")
    return server


def _can_be_called(url: httpx2.URL) -> bool:
    """Else the socket would raise errors of other kinds."""
    try:
        url.host.encode("idna")
    except UnicodeError:
        return False
    return bool(url.host) and (url.port is None or 0 < url.port < 65_536)


def _is_loopback(host: str) -> bool:
    """Also for the addresses on which a server listens that listens on all: a connection to them ends here."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower().rstrip(".") == "localhost"
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def proxy_to(server: httpx2.URL, given: str | None = None) -> httpx2.Proxy | None:
    """The proxy for requests to a server. Raises ProxySettingError."""
    if _is_loopback(server.host):
        return None
    if given:
        return _proxy("proxy", given)
    if setting := os.environ.get(PROXY):
        return _proxy(PROXY, setting)
    if server.scheme == "http":
        return None
    found = getproxies()
    scheme = next((scheme for scheme in ("https", "all") if found.get(scheme)), None)
    if scheme is None or _excepted(server, found.get("no", "")):
        return None
    return _proxy(f"{scheme.upper()}_PROXY", found[scheme])


def _excepted(server: httpx2.URL, listed: str) -> bool:
    """Whether NO_PROXY lists the server: as Python does, and also by `*.example.com` and by networks as `10.0.0.0/8`."""
    host = f"[{server.host}]" if ":" in server.host else server.host
    if proxy_bypass(f"{host}:{server.port or 443}"):
        return True
    return any(_lists(entry.strip().lower(), server.host) for entry in listed.split(","))


def _lists(entry: str, host: str) -> bool:
    if entry.startswith("*."):
        return host.endswith(entry[1:])
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # one of them is a name
        return False


def _proxy(name: str, value: str) -> httpx2.Proxy:
    """Raises ProxySettingError, which shows no value: a proxy's URL may hold a password."""
    try:
        proxy = httpx2.Proxy(value if "://" in value else f"http://{value}")
    except (httpx2.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not _can_be_called(proxy.url):
        raise ProxySettingError(name, "it must be http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ProxySettingError(name, "a SOCKS proxy needs the package socksio, which is not installed")
    return proxy


def trusting(server: httpx2.URL) -> ssl.SSLContext:
    """The authorities of SSL_CERT_FILE, SSL_CERT_DIR or the system. None for http: to load them costs 20 to 50 ms and 3 MB."""
    if server.scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise TidelogConnectionError(f"the authorities of SSL_CERT_FILE or SSL_CERT_DIR cannot be read: {error}") from error
