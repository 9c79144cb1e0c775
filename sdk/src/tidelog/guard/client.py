"""One request of a tool: its bounds, its redirects, its secret."""

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

from tidelog.errors import PermanentError, TidelogError
from tidelog.guard.addresses import PUBLIC, AddressRefusedError, Allowed
from tidelog.guard.answers import Answer, failure, read, refusal, shown
from tidelog.guard.connecting import MOST_ADDRESSES, GuardedBackend, Resolve, resolve
from tidelog.guard.secrets import Secret, SecretMissingError

MAX_URL = 8 * 1024
MAX_REDIRECTS = 5
MAX_BODY_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 10 * 1024 * 1024
"""The largest bound that a caller may ask for."""
MAX_HEADERS, MAX_HEADER_BYTES = 50, 8 * 1024
CONNECTIONS, IDLE_CONNECTIONS, IDLE_S = 64, 32, 3.0
CONNECT_S = 10.0

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
"""Methods of which twice is once (RFC 9110, section 9.2.2)."""
SAFE_HEADERS = frozenset(
    {
        "accept",
        "accept-language",
        "content-type",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "user-agent",
    }
)
"""Headers that a model or an agent may choose."""
_OURS = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect",
        "accept-encoding", "proxy-authorization", "proxy-connection", "proxy-authenticate", "http2-settings", "cookie",
        "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
        # What services of clouds take for the word of somebody on the machine:
        "metadata", "metadata-flavor", "x-google-metadata-request", "x-aws-ec2-metadata-token",
        "x-aws-ec2-metadata-token-ttl-seconds",
    }
)  # fmt: skip
"""Headers that nobody may choose."""
_FAILURES = (
    TidelogError, OSError, httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)  # fmt: skip
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True)
class Credential:
    """A secret in a header. It goes to the host of the first request only, and not from https to http."""

    header: str | None
    """None: the secret is the URL itself, and is only kept out of the answer."""
    value: str
    secret: Secret

    def __repr__(self) -> str:
        return f"<Credential {self.secret.name}>"


class GuardedClient:
    """Requests that reach only what the operator of the worker allows. Made once; its connections are kept for a moment.

    Proxies and credentials of the environment do not count, cookies are not kept, and nothing of a request is logged.
    `resolve`: for tests that play the DNS. `verify`: the authorities that are trusted; those of the system, if missing.
    """

    def __init__(self, allowed: Allowed = PUBLIC, *, resolve: Resolve = resolve, verify: ssl.SSLContext | None = None) -> None:
        self._backend = GuardedBackend(allowed, resolve)
        self._verify = verify
        self._pools: dict[str, httpcore2.AsyncConnectionPool] = {}
        """By scheme: the authorities, 3 MB, are read at the first https request."""

    async def aclose(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.aclose()

    async def addresses(self, host: str, port: int) -> list[str]:
        """Of a host, for a connection that is not HTTP: those that may be called, checked. Raises AddressRefusedError, OSError."""
        return [str(address) for address in (await self._backend.addresses(host, port))[:MOST_ADDRESSES]]

    def trusted(self) -> ssl.SSLContext:
        """The authorities that are trusted."""
        return self._verify or httpx2.create_ssl_context()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        credential: Credential | None = None,
        timeout_s: float = 30.0,
        max_bytes: int = 128 * 1024,
        repeatable: bool | None = None,
    ) -> Answer:
        """The answer, if its status is below 400. `timeout_s` and `max_bytes` bound the whole, redirects included.

        `repeatable`: twice is once, because of the method (default) or of a key that the service knows.

        Raises:
            AddressRefusedError, HttpStatusError, AnswerTooLargeError, PermanentError: a retry cannot help.
            ServiceRateLimitedError: 429. ServiceError: it may be repeated.
            OutcomeUnknownError: nobody knows whether it took effect.
        """
        sending = _Sending(method.upper(), _checked_url(url), checked_headers(headers or {}), body, credential)
        twice_is_once = sending.method in REPEATABLE if repeatable is None else repeatable
        if sending.method not in METHODS:
            raise PermanentError(f"there is no method {method[:20]!r} for tools")
        if body is not None and len(body) > MAX_BODY_BYTES:
            raise PermanentError(f"the body is over {MAX_BODY_BYTES:,} bytes")
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._follow(sending, timeout_s, min(max_bytes, MAX_ANSWER_BYTES))
        except TimeoutError:
            late = httpcore2.ReadTimeout(f"no answer within {timeout_s:g} s")
            raise failure(late, sent=sending.sent, repeatable=twice_is_once) from None
        except _FAILURES as error:
            raise failure(error, sent=sending.sent, repeatable=twice_is_once) from None
        if (refused := refusal(answer, repeatable=twice_is_once)) is not None:
            raise refused
        return answer

    async def _follow(self, sending: "_Sending", timeout_s: float, max_bytes: int) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(sending, timeout_s, max_bytes)
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return answer
            sending.redirect(answer.status, answer.headers["location"])
        raise PermanentError(f"the service redirects more than {MAX_REDIRECTS} times")

    async def _exchange(self, sending: "_Sending", timeout_s: float, max_bytes: int) -> Answer:
        url = sending.url
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        connect_s = min(timeout_s, CONNECT_S)
        bounds = {"connect": connect_s, "read": timeout_s, "write": timeout_s, "pool": timeout_s}
        request = httpcore2.Request(
            sending.method,
            target,
            headers=sending.wire_headers(),
            content=sending.body or b"",
            extensions={"timeout": bounds, "trace": sending.trace},
        )
        response = await self._pool(url.scheme).handle_async_request(request)
        try:
            headers = {name.lower(): value for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308):
                body = b""  # nobody reads it; the connection ends with it
            else:
                bare = {} if sending.method == "HEAD" else headers
                body = await read(response.aiter_stream(), bare, max_bytes)
        finally:
            await response.aclose()
        answer = Answer(response.status, shown(response.headers), body, str(url.copy_with(fragment=None)))
        return sending.without_secret(answer)

    def _pool(self, scheme: str) -> httpcore2.AsyncConnectionPool:
        if scheme not in self._pools:
            # For http a context that nobody uses: without one, the pool would read the authorities.
            plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusted = plain if scheme == "http" else self.trusted()
            self._pools[scheme] = httpcore2.AsyncConnectionPool(
                ssl_context=trusted,
                max_connections=CONNECTIONS,
                max_keepalive_connections=IDLE_CONNECTIONS,
                keepalive_expiry=IDLE_S,
                network_backend=self._backend,
            )
        return self._pools[scheme]


class _Sending:
    """A request on its way through redirects."""

    def __init__(
        self, method: str, url: httpx2.URL, headers: dict[str, str], body: bytes | None, credential: Credential | None
    ) -> None:
        self.method, self.url, self.body = method, url, body
        self.sent = False
        """Whether a request may have left this machine that a redirect has not sent on."""
        self._headers = headers
        self._credential = credential
        self._secret = credential
        self._check_credential()

    async def trace(self, name: str, info: Mapping[str, Any]) -> None:
        if name.endswith("send_request_headers.started"):
            self.sent = True

    def wire_headers(self) -> list[tuple[str, str]]:
        host = f"[{self.url.host}]" if ":" in self.url.host else self.url.raw_host.decode("ascii")
        authority = host if self.url.port is None else f"{host}:{self.url.port}"
        found = {"host": authority, "user-agent": "tidelog-tool", "accept": "*/*", "accept-encoding": "identity", **self._headers}
        if self.body is not None or self.method in ("POST", "PUT", "PATCH"):
            found["content-length"] = str(len(self.body or b""))
        if self._credential is not None and self._credential.header is not None:
            found[self._credential.header.lower()] = self._credential.value
        return list(found.items())

    def redirect(self, status: int, location: str) -> None:
        """Raises PermanentError for a place to which no redirect leads."""
        before = self.url
        try:
            self.url = _checked_url(str(before.join(location).copy_with(fragment=None)))
        except (httpx2.InvalidURL, ValueError):
            raise PermanentError("the service redirects to what is no URL") from None
        if before.scheme == "https" and self.url.scheme == "http":
            raise AddressRefusedError("the service redirects from https to http")
        if _origin(before) != _origin(self.url):
            self._credential = None
            self._headers = {name: value for name, value in self._headers.items() if name in SAFE_HEADERS}
        # Of a 303 the request has taken effect, and of 301 and 302 nobody says. Of 307 and 308 it is yet to be made.
        self.sent = status in (301, 302, 303) and self.method not in REPEATABLE
        if status == 303 or (status in (301, 302) and self.method == "POST"):
            self.method = "HEAD" if self.method == "HEAD" else "GET"
            self.body = None
            self._headers.pop("content-type", None)

    def without_secret(self, answer: Answer) -> Answer:
        if self._secret is None:
            return answer
        sent, hide_in = self._secret.value, self._secret.secret.hide_in
        headers = {name: hide_in(value.encode(), sent).decode() for name, value in answer.headers.items()}
        url = hide_in(answer.url.encode(), sent).decode()
        return Answer(answer.status, headers, hide_in(answer.body, sent), url)

    def _check_credential(self) -> None:
        if self._credential is None:
            return
        secret = self._credential.secret
        if not secret.hosts.allows_host(self.url.host):
            told = f"the secret {secret.name!r} is not for the host {self.url.host!r}: see TIDELOG_SECRET_…_HOSTS"
            raise SecretMissingError(told)


def checked_headers(headers: Mapping[str, str], *, only: frozenset[str] | None = None) -> dict[str, str]:
    """In lower case. `only`: the names that may be. Raises PermanentError; the message shows no value."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise PermanentError(f"the header {name[:60]!r} cannot be sent: names are tokens, values are printable ASCII")
        if lower in _OURS or (only is not None and lower not in only):
            allowed = "" if only is None else f"; allowed are {', '.join(sorted(only))}"
            raise PermanentError(f"the header {name[:60]!r} cannot be chosen{allowed}")
        found[lower] = value.strip()
    if len(found) > MAX_HEADERS or sum(len(name) + len(value) for name, value in found.items()) > MAX_HEADER_BYTES:
        raise PermanentError(f"too many headers: {MAX_HEADERS} with {MAX_HEADER_BYTES:,} bytes are allowed")
    return found


def _checked_url(text: str) -> httpx2.URL:
    """Raises PermanentError, AddressRefusedError. The address of the host is checked as the connection is made."""
    if len(text) > MAX_URL:
        raise PermanentError(f"the URL is longer than {MAX_URL:,} characters")
    try:
        url = httpx2.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError) as error:
        raise PermanentError(f"the URL cannot be used: {error}") from None
    if url.scheme not in ("http", "https"):
        raise AddressRefusedError("tools call http:// and https:// only")
    if not host or "%" in host or len(host) > 253 or (url.port is not None and not 0 < url.port < 65_536):
        raise AddressRefusedError("the URL has no host that could be called")
    if url.userinfo:
        raise AddressRefusedError("a URL of a tool holds no user and password: use a secret of the worker")
    return url


def _origin(url: httpx2.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)
