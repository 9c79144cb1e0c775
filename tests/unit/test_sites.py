"""From which site a request comes, and how the cookie of this server is called."""

from ipaddress import ip_network
from typing import Any

import pytest

from api.http.conventions import sites
from api.http.conventions.sites import ForeignOrigin
from domain.errors import Unauthenticated

PROXIES = (ip_network("10.0.0.0/8"),)
HOST = {b"host": b"tide.test:8700"}
TOKEN = b"t" * 43


def scope(client: str = "10.0.0.1", scheme: str = "http") -> dict[str, Any]:
    return {"type": "http", "client": (client, 1), "scheme": scheme}


def admitted(headers: dict[bytes, bytes], *, needed: bool = True, client: str = "10.0.0.1", scheme: str = "http") -> bool:
    try:
        sites.must_be_of_this_site(scope(client, scheme), {**HOST, **headers}, PROXIES, needed=needed)
    except ForeignOrigin:
        return False
    return True


@pytest.mark.parametrize(
    ("headers", "own"),
    [
        ({b"sec-fetch-site": b"same-origin"}, True),
        ({b"sec-fetch-site": b"same-origin", b"origin": b"https://public.test"}, True),
        ({b"sec-fetch-site": b"same-site"}, False),
        ({b"sec-fetch-site": b"cross-site", b"origin": b"http://tide.test:8700"}, False),
        ({b"sec-fetch-site": b"none"}, False),
        ({b"origin": b"http://tide.test:8700"}, True),
        ({b"origin": b"https://TIDE.test:8700"}, True),
        ({b"origin": b"http://tide.test"}, False),
        ({b"origin": b"http://tide.test:8701"}, False),
        ({b"origin": b"http://evil.tide.test:8700"}, False),
        ({b"origin": b"null"}, False),
        ({b"origin": b""}, False),
        ({b"origin": b"ftp://tide.test:8700"}, False),
        ({b"origin": b"http://[tide"}, False),
        ({b"origin": b"http://tide.test", b"host": b"tide.test"}, True),
        ({b"origin": b"http://tide.test:80", b"host": b"tide.test"}, True),
        ({b"origin": b"https://tide.test", b"host": b"tide.test:443"}, True),
        ({b"origin": b"http://tide.test:443", b"host": b"tide.test"}, False),
        ({b"origin": b"", b"host": b""}, False),
        ({b"origin": b"https://public.test", b"x-forwarded-host": b"public.test"}, True),
        ({b"origin": b"http://public.test", b"x-forwarded-host": b"public.test", b"x-forwarded-proto": b"https"}, False),
    ],
)
def test_which_page_is_of_this_site(headers: dict[bytes, bytes], own: bool) -> None:
    assert admitted(headers) is own and admitted(headers, needed=False) is own


def test_who_says_nothing_is_no_page_and_what_a_stranger_forwards_does_not_count() -> None:
    assert admitted({}, needed=False) and not admitted({})
    forwarded = {b"origin": b"https://public.test", b"x-forwarded-host": b"public.test"}
    assert not admitted(forwarded, client="192.0.2.1")
    assert not admitted({b"origin": b"http://tide.test:8700"}, scheme="https"), "a page without TLS, of a site that has it"


@pytest.mark.parametrize(
    ("headers", "where", "name"),
    [
        ({}, scope(), "tidelog-session-8700"),
        ({b"host": b"tide.test"}, scope(), "tidelog-session"),
        ({b"host": b"[::1]:8701"}, scope(), "tidelog-session-8701"),
        ({b"host": b"tide.test:x"}, scope(), "tidelog-session"),
        ({}, scope(scheme="https"), "__Host-tidelog-session-8700"),
        ({b"x-forwarded-proto": b"https, http"}, scope(), "__Host-tidelog-session-8700"),
        ({b"x-forwarded-proto": b"https"}, scope("192.0.2.1"), "tidelog-session-8700"),
        ({b"x-forwarded-prefix": b"/team/a/"}, scope(), "tidelog-session-8700.team.a"),
        ({b"x-forwarded-prefix": b"/team;a"}, scope(), "tidelog-session-8700"),
        ({b"x-forwarded-prefix": b"/team"}, scope("192.0.2.1"), "tidelog-session-8700"),
    ],
)
def test_the_name_of_the_cookie(headers: dict[bytes, bytes], where: dict[str, Any], name: str) -> None:
    given = {**HOST, **headers}
    assert sites.cookie_name(where, given, PROXIES) == name
    said = sites.set_cookie(where, given, PROXIES, "abc", 60)
    secure = "; Secure" if name.startswith("__Host-") else ""
    assert said == f"{name}=abc; Max-Age=60; Path=/; HttpOnly; SameSite=Strict{secure}"
    assert sites.set_cookie(where, given, PROXIES, "", 60).startswith(f"{name}=; Max-Age=0; ")
    shown = {**given, b"cookie": b"a=b; %s=%s;c" % (name.encode(), TOKEN)}
    assert sites.token_in(where, shown, PROXIES) == TOKEN


def test_a_cookie_that_is_not_this_servers_or_no_token_counts_as_none() -> None:
    name = b"tidelog-session-8700"
    for cookie in (
        b"", b"a=b", b"tidelog-session=" + TOKEN, b"x-%s=%s" % (name, TOKEN), b"%s=short" % name, b"%s=%s" % (name, b"t" * 101),
        b"%s=%s/" % (name, TOKEN), name,
    ):  # fmt: skip
        assert sites.token_in(scope(), {**HOST, b"cookie": cookie}, PROXIES) == b"", cookie
    twice = b"tidelog-session-8700=" + TOKEN
    with pytest.raises(Unauthenticated):
        sites.token_in(scope(), {**HOST, b"cookie": twice + b"; " + twice}, PROXIES)


@pytest.mark.parametrize(
    ("listens", "client", "headers", "local"),
    [
        ("127.0.0.1", "127.0.0.1", {}, True),
        ("::1", "::1", {b"host": b"[::1]:8700"}, True),
        ("localhost", "127.0.0.1", {b"host": b"localhost:8700"}, True),
        ("127.0.0.1", "127.0.0.1", {b"origin": b"http://127.0.0.1:8700"}, True),
        ("127.0.0.1", "127.0.0.1", {b"origin": b"http://evil.test"}, False),
        ("127.0.0.1", "127.0.0.1", {b"origin": b"null"}, False),
        ("0.0.0.0", "127.0.0.1", {}, False),
        ("127.0.0.1", "192.0.2.1", {}, False),
        ("127.0.0.1", "127.0.0.1", {b"host": b"evil.test"}, False),
        ("127.0.0.1", "127.0.0.1", {b"host": b"[::1"}, False),
        ("127.0.0.1", "127.0.0.1", {b"host": b""}, False),
        *(("127.0.0.1", "127.0.0.1", {name: b"127.0.0.1"}, False) for name in sites.FORWARDED),
    ],
)
def test_what_is_local(listens: str, client: str, headers: dict[bytes, bytes], local: bool) -> None:
    assert sites.is_local(scope(client), {b"host": b"127.0.0.1:8700", **headers}, listens) is local


def test_a_connection_without_an_address_is_not_local() -> None:
    assert not sites.is_local({"type": "http", "client": None}, {b"host": b"127.0.0.1"}, "127.0.0.1")
