"""Where a session leads: the URL, the proxy, and who gets to see the key. The rules for proxies are in test_sdk_proxies.py."""

import asyncio
import importlib.util

import pytest

from tests.kit.session_server import scripted
from tests.pace import in_time
from tidelog.errors import ProxySettingError, TidelogConnectionError
from tidelog.session.link import Link, LinkError, Target

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "tidelog_proxy")
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://localhost", "https://[::1]:1", "http://0.0.0.0:99"])
def test_a_proxy_is_never_used_for_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "TIDELOG_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert Target.of(url, "key", PROXY).proxy is None


def test_the_environments_proxy_gets_no_session_whose_key_it_would_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    assert Target.of("http://tidelog.example", "key").proxy is None
    assert Target.of("https://tidelog.example", "key").proxy == PROXY
    assert Target.of("http://tidelog.example", "key", "http://chosen.example:1").proxy == "http://chosen.example:1"
    monkeypatch.setenv("NO_PROXY", "tidelog.example")
    assert Target.of("https://tidelog.example", "key").proxy is None


def test_the_proxys_user_and_password_are_handed_on() -> None:
    assert Target.of("https://tidelog.example", "key", "http://a:b%40c@proxy.example:1").proxy == "http://a:b%40c@proxy.example:1"


@pytest.mark.skipif(importlib.util.find_spec("python_socks") is not None, reason="the package is installed here")
def test_a_socks_proxy_without_its_package_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProxySettingError, match="package"):
        Target.of("https://tidelog.example", "key", "socks5h://proxy.example:1080")


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/workers/session"),
        ("https://tidelog.example/", "wss://tidelog.example/v1/workers/session"),
        ("https://example.org/tidelog/", "wss://example.org/tidelog/v1/workers/session"),
        ("http://[::1]:8080", "ws://[::1]:8080/v1/workers/session"),
    ],
)
def test_the_url_of_the_server_leads_to_its_sessions(url: str, there: str) -> None:
    target = Target.of(url, "key")
    assert target.url == there and (target.ssl is not None) == there.startswith("wss:")


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://x", "key"), ("127.0.0.1:8080", "key"), ("http://", "key"), ("http://x:port", "key"),
        ("http://user:pass@x", "key"), ("http://x?a=b", "key"), ("http://x", "key\r\nHost: y"), ("http://x", ""),
        ("http://x", "k\u00e9"),
    ],
)  # fmt: skip
def test_a_url_or_key_that_cannot_be_used_is_told_at_once(url: str, key: str) -> None:
    with pytest.raises(TidelogConnectionError) as caught:
        Target.of(url, key)
    assert "pass" not in str(caught.value)


async def test_the_key_does_not_follow_a_redirect() -> None:
    async with scripted() as server, scripted() as other:
        server.refusal = (307, b"", {"Location": f"ws://127.0.0.1:{other.port}/v1/workers/session"})
        with pytest.raises(Exception, match="307"):
            await Link.open(Target.of(server.url, "key"))
        assert server.keys == ["Bearer key"] and other.keys == []


async def test_another_program_on_the_port_is_no_server() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(LinkError, match="no connection to the server"):
            await in_time(Link.open(Target.of(f"http://127.0.0.1:{port}", "key")), 10)
