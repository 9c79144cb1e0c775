"""The proxy of a request to a server: which one, what it sees, and what an unusable one brings. The proxies here are real ones."""

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tidelog import Client, TidelogConnectionError
from tidelog.errors import ProxySettingError
from tidelog.http_client import http_client, on_this_machine, proxy_to
from tidelog.worker.__main__ import EXIT_REFUSED, parse_arguments, serve
from tidelog.worker.runtime import Worker

KEY = "tl_key-that-no-proxy-may-see"
ELSEWHERE = "255.255.255.255"
"""Not this machine, and a connection to it fails at once, with a network or without."""
NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "TIDELOG_PROXY")
UNUSABLE = (
    "ftp://user:secret@proxy:21", "http://", "http://proxy:secret", "socks5://user:secret@proxy:1080", "socks9://proxy", "://",
    "http://[::secret", "http://[secret]", "http://user:secret@proxy\r\nX: y", "\x7f", "http://proxy:99999999", "secret:0",
    "http://a..secret",
)  # fmt: skip


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("TIDELOG_")]:
        monkeypatch.delenv(name)


class Listener:
    """Answers each request with an empty list. As a proxy it makes a tunnel to `server`, whatever server is asked for."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        """The head of each request."""
        self.seen = b""
        """All that clients sent."""
        self.server = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head.decode())
                self.seen += head
                if head.startswith(b"CONNECT "):
                    await self._tunnel(reader, writer)
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n" + b'{"data": [], "next_cursor": null}')

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.server:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def back() -> None:
            while some := await from_server.read(65_536):
                writer.write(some)

        backwards = asyncio.create_task(back())
        while some := await reader.read(65_536):
            self.seen += some
            to_server.write(some)
        to_server.close()
        await backwards


@asynccontextmanager
async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[Listener]:
    listener = Listener()
    async with await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        listener.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
        yield listener


@pytest.fixture
async def proxy() -> AsyncIterator[Listener]:
    async with listening() as listener:
        yield listener


async def ask(url: str, **options: str) -> list[object]:
    async with Client(url, KEY, patience_s=0, **options) as client:
        return list(await client.agents())


# --- which proxy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_proxies", ["a proxy", *UNUSABLE])
async def test_a_server_on_this_machine_is_asked_without_any(
    of_proxies: str, proxy: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, proxy.url if of_proxies == "a proxy" else of_proxies)
    monkeypatch.setenv("NO_PROXY", "http://[,*:x,:,/,[::1,127.0.0.1/99")
    async with listening() as server:
        port = httpx2.URL(server.url).port
        assert await ask(server.url) == await ask(f"http://localhost:{port}/", proxy=os.environ["TIDELOG_PROXY"]) == []
        for host in ("127.9.8.7", "[::1]", "LOCALHOST.", "[::ffff:127.0.0.1]"):
            with contextlib.suppress(TidelogConnectionError):  # nobody listens, or there is no IPv6
                await ask(f"http://{host}:{port}")
            assert proxy_to(httpx2.URL(f"https://{host}:{port}")) is None
    assert len(server.requests) >= 2 and proxy.requests == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "TIDELOG_PROXY"])
async def test_the_proxy_of_the_environment_gets_no_http_request(
    name: str, proxy: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy.url)
    with pytest.raises(TidelogConnectionError, match="no answer from the server"):
        await ask(f"http://{ELSEWHERE}:8700")
    assert proxy.requests == []


@pytest.mark.parametrize("by", ["the parameter", "the setting", "the setting without http://"])
async def test_the_proxy_that_was_chosen_gets_http_requests(by: str, proxy: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    if by == "the parameter":
        monkeypatch.setenv("TIDELOG_PROXY", "ftp://another")
        assert await ask(f"http://{ELSEWHERE}:8700", proxy=proxy.url) == []
    else:
        monkeypatch.setenv("TIDELOG_PROXY", proxy.url if by == "the setting" else proxy.url.removeprefix("http://"))
        assert await ask(f"http://{ELSEWHERE}:8700") == []
    [request] = proxy.requests
    assert request.startswith(f"GET http://{ELSEWHERE}:8700/v1/agents HTTP/1.1\r\n")
    assert f"Authorization: Bearer {KEY}\r\n" in request


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "TIDELOG_PROXY"])
async def test_a_proxy_sees_no_key_of_an_https_request(
    name: str, proxy: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("tidelog.test").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv(name, proxy.url)
    if name == "HTTPS_PROXY":
        monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")  # many set both
    async with listening(context) as server:
        proxy.server = httpx2.URL(server.url).port or 0
        assert await ask("https://tidelog.test") == []
    assert [request.split("\r\n")[0] for request in proxy.requests] == ["CONNECT tidelog.test:443 HTTP/1.1"]
    assert f"Authorization: Bearer {KEY}\r\n" in server.requests[0]
    assert KEY.encode() not in proxy.seen and b"authorization" not in proxy.seen.lower()


@pytest.mark.parametrize(
    ("listed", "url", "goes_direct"),
    [
        ("*", "https://a.example.org", True),
        ("example.org", "https://a.example.org", True),
        (".example.org", "https://a.example.org:8443", True),
        ("*.example.org", "https://a.example.org", True),
        ("b.example.org, A.EXAMPLE.ORG", "https://a.example.org", True),
        ("a.example.org:8443", "https://a.example.org:8443", True),
        ("a.example.org:443", "https://a.example.org", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("[fd00::1]", "https://[fd00::1]:8700", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("a.example.org:8443", "https://a.example.org", False),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("fd00::/8", "https://10.1.2.3", False),
        ("ample.org", "https://a.example.org", False),
        ("*.example.org", "https://example.org.evil.test", False),
        ("10.0.0.0/99, [, :, ,/", "https://10.1.2.3", False),
        ("", "https://a.example.org", False),
    ],
)
def test_no_proxy_lists_servers(listed: str, url: str, goes_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", listed)
    found = proxy_to(httpx2.URL(url))
    assert found is None if goes_direct else str(found.url) == "http://proxy.example.org:3128" if found else False


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8700", True), ("http://127.200.0.9", True), ("https://localhost", True), ("http://[::1]:8700", True),
        ("http://LocalHost./", True), ("http://0.0.0.0:8700", True), ("http://[::]:1", True), ("http://[::ffff:127.0.0.1]", True),
        ("http://128.0.0.1", False), ("http://localhost.example.org", False), ("http://127.0.0.1.example.org", False),
        ("http://127.0.0.1@example.org", False), ("http://[::1", False), ("localhost", False), ("", False), ("http://", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(url: str, here: bool) -> None:
    assert on_this_machine(url) is here


# --- proxies and URLs that cannot be used -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", UNUSABLE)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "TIDELOG_PROXY", "proxy"])
def test_an_unusable_proxy_is_one_error_that_shows_no_value(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "proxy":
        monkeypatch.setenv(name, value)
    with pytest.raises(ProxySettingError) as caught:
        Client("https://tidelog.test", KEY, proxy=value if name == "proxy" else None)
    assert caught.value.setting == (name.upper() if name != "proxy" else name)
    assert str(caught.value).startswith(f"{caught.value.setting} cannot be used as a proxy: ")
    assert "\n" not in str(caught.value) and "secret" not in repr(caught.value)
    assert caught.value.__context__ is None


@given(st.text(min_size=1) | st.from_regex(r"(http|https|socks5)://[^/]*", fullmatch=True))
def test_every_text_is_a_proxy_or_one_error(value: str) -> None:
    with contextlib.suppress(ProxySettingError):
        http_client(f"http://{ELSEWHERE}", proxy=value)


@given(st.text() | st.from_regex(r"https?://[^/]*", fullmatch=True))
def test_every_text_is_a_url_or_one_error(value: str) -> None:
    with contextlib.suppress(TidelogConnectionError):
        assert http_client(value).base_url.host
    assert on_this_machine(value) in (True, False)


@pytest.mark.parametrize("value", ["/nowhere/ca.pem", __file__])
def test_authorities_that_cannot_be_read_are_one_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", value)
    with pytest.raises(TidelogConnectionError, match="the authorities of SSL_CERT_FILE or SSL_CERT_DIR cannot be read"):
        Client("https://tidelog.test", KEY)
    Client("http://tidelog.test", KEY)  # needs none


async def test_a_proxy_that_refuses_is_no_answer(proxy: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(TidelogConnectionError, match=r"no answer from the server \(ProxyError: 502 Bad Gateway\)"):
        await ask("https://tidelog.test")


async def test_a_worker_with_an_unusable_proxy_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TIDELOG_PROXY", "ftp://user:secret@proxy")
    given = parse_arguments(["--agents", str(tmp_path), "--url", "http://tidelog.test", "--api-key", KEY])
    with caplog.at_level(logging.ERROR):
        assert await serve(given, asyncio.Event()) == EXIT_REFUSED
    [line] = caplog.records
    assert (line.getMessage(), line.__dict__["fields"]["reason"].partition(":")[0]) == (
        "worker_refused", "TIDELOG_PROXY cannot be used as a proxy",
    )  # fmt: skip
    Worker(url="http://tidelog.test", api_key=KEY, proxy="http://proxy")
