"""Attacks on the guard of tools that call out: with a service of this machine, and with a DNS that the attacker plays."""

import asyncio
import contextlib
import gzip
import ipaddress
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.kit.played_service import Asked, Service, answer, played_service
from tests.pace import in_time
from tidelog.errors import OutcomeUnknownError, PermanentError, ServiceRateLimitedError, TidelogError, TransientError
from tidelog.guard import AddressRefusedError, Allowed, GuardedClient
from tidelog.guard.addresses import is_public
from tidelog.guard.answers import retry_after
from tidelog.guard.client import Credential
from tidelog.guard.secrets import Secret, SecretMissingError, Secrets

LOCAL = Allowed.of(["127.0.0.0/8"])
SECRET = "s3cret/of+the=service"


class PlayedDns:
    """Answers of an attacker's name server: for each host a list, of which each look-up takes the next, and the last for ever."""

    def __init__(self, **hosts: list[list[str]]) -> None:
        self.hosts = {name.replace("_", "."): list(lists) for name, lists in hosts.items()}
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        if host not in self.hosts:
            raise OSError(f"{host} is not known")
        lists = self.hosts[host]
        return lists.pop(0) if len(lists) > 1 else lists[0]


@asynccontextmanager
async def calling(allowed: Allowed = LOCAL, **options: Any) -> AsyncIterator[GuardedClient]:
    client = GuardedClient(allowed, **options)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service() as service:
        yield service


async def refusal(client: GuardedClient, url: str, **options: Any) -> TidelogError:
    with pytest.raises(TidelogError) as raised:
        await in_time(client.request(options.pop("method", "GET"), url, **options), 20)
    return raised.value


# --- where a call may go ------------------------------------------------------------------------------------------------

INSIDE = """
127.0.0.1 127.1.2.3 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.1.1 169.254.169.254 100.64.0.1 100.100.100.200
168.63.129.16 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 192.88.99.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 ::1 :: fe80::1 fc00::1 fd00:ec2::254 ff02::1 fec0::1 2001:db8::1 3fff::1 100::1 64:ff9b:1::1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:7f00:1::
2002:a9fe:a9fe:: 2001:0:7f00:1::
"""
OUTSIDE = "8.8.8.8 1.1.1.1 172.32.0.1 2606:4700:4700::1111 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808"


@pytest.mark.parametrize("address", INSIDE.split())
async def test_no_name_leads_to_an_address_inside(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address)) or not Allowed().allows(ipaddress.ip_address(address))
    async with calling(Allowed(), resolve=PlayedDns(evil_example=[[address]])) as client:
        assert isinstance(await refusal(client, "http://evil.example/"), AddressRefusedError)
        literal = f"[{address}]" if ":" in address else address
    async with calling(Allowed()) as client:
        assert isinstance(await refusal(client, f"http://{literal}/"), AddressRefusedError)


@pytest.mark.parametrize("address", OUTSIDE.split())
def test_addresses_of_the_internet_may_be_called(address: str) -> None:
    assert Allowed().allows(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "LOCALHOST", "①②⑦.0.0.1", "127。0。0。1",
     "[::1]", "[::ffff:7f00:1]", "0"],
)  # fmt: skip
async def test_no_way_to_write_this_machine_leads_to_it(host: str, service: Service) -> None:
    async with calling(Allowed()) as client:
        assert isinstance(await refusal(client, f"http://{host}:{service.port}/"), PermanentError | TransientError)
    assert service.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://example.com/", "gopher://example.com/", "unix:///run/docker.sock", "//example.com/",
        "/etc/passwd",        "http://", "http:///x", "http://user:password@example.com/", "http://example.com:0/", "http://example.com:70000/",
        "http://exa mple.com/", "http://example.com\r\nX: y/", "http://fe80::1%25eth0/", "http://[fe80::1%25eth0]/", "",
        "x" * 9_000,        f"http://{'a' * 300}.example/", f"http://{'a' * 70}.example/", "http://..../", "http://%6c%6f/",
    ],
)  # fmt: skip
async def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    async with calling(Allowed()) as client:
        assert isinstance(await refusal(client, url), PermanentError | TransientError)


async def test_a_connection_goes_to_the_address_that_was_checked(service: Service) -> None:
    """DNS rebinding: the second look-up of the host would lead inside."""
    dns = PlayedDns(evil_example=[["127.0.0.9"], ["127.0.0.1"]])
    async with calling(Allowed.of(["127.0.0.9"]), resolve=dns) as client:
        failed = await refusal(client, service.url(host="evil.example"))
        assert isinstance(failed, TransientError) and "nothing was sent" in str(failed), "nobody listens at 127.0.0.9"
        assert dns.asked == 1 and service.connections == 0
        assert isinstance(await refusal(client, service.url(host="evil.example")), AddressRefusedError)
    assert service.connections == 0


async def test_of_several_addresses_only_those_that_may_be_called_are_tried(service: Service) -> None:
    dns = PlayedDns(mixed_example=[["10.0.0.1", "fe80::1%1", "127.0.0.1"]])
    async with calling(resolve=dns) as client:
        found = await client.request("GET", service.url("/x", host="mixed.example"))
    assert found.json["headers"]["host"] == f"mixed.example:{service.port}"  # type: ignore[index, call-overload]


async def test_a_metadata_address_is_allowed_by_itself_only() -> None:
    address = ipaddress.ip_address("169.254.169.254")
    assert not Allowed.of(["169.254.0.0/16"]).allows(address) and not Allowed.of(["0.0.0.0/0"]).allows(address)
    assert Allowed.of(["169.254.169.254"]).allows(address)


async def test_only_named_hosts(service: Service) -> None:
    dns = PlayedDns(api_example=[["127.0.0.1"]], evil_example=[["127.0.0.1"]], evilapi_example=[["127.0.0.1"]])
    async with calling(Allowed.of(["127.0.0.1"], ["api.example", "*.inner.example"]), resolve=dns) as client:
        assert (await client.request("GET", service.url(host="API.example"))).status == 200
        for host in ("evil.example", "evilapi.example", "inner.example", "api.example.evil.example"):
            assert "--only-host" in str(await refusal(client, service.url(host=host)))
    assert len(service.asked) == 1


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com", "", "*", "::g"])
def test_a_network_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no network"):
        Allowed.of([text])


@pytest.mark.parametrize("text", ["", "*", "*.*.example", "http://x", "a b", "ä.example"])
def test_a_host_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        Allowed.of(only_hosts=[text])


# --- redirects ----------------------------------------------------------------------------------------------------------


def to(where: str, status: int = 302) -> Any:
    return lambda asked: answer(status, location=where)


async def test_each_redirect_is_checked(service: Service) -> None:
    dns = PlayedDns(outside_example=[["127.0.0.1"]], inside_example=[["10.0.0.1"]])
    service.routes |= {
        "/inside": to("http://inside.example/"), "/metadata": to("http://169.254.169.254/latest/meta-data/"),
        "/file": to("file:///etc/passwd"), "/round": to("/round"), "/user": to("http://a:b@outside.example/"), "/bad": to("http://[/"),
        "/relative": to("/page"),
    }  # fmt: skip
    async with calling(resolve=dns) as client:
        for path in ("/inside", "/file", "/user", "/metadata"):
            assert isinstance(await refusal(client, service.url(path, host="outside.example")), AddressRefusedError)
        assert "redirects more than" in str(await refusal(client, service.url("/round", host="outside.example")))
        assert "no host" in str(await refusal(client, service.url("/bad", host="outside.example")))
        found = await client.request("GET", service.url("/relative", host="outside.example"))
        assert found.url.endswith("/page")


async def test_a_redirect_to_another_origin_takes_no_secret_along(service: Service) -> None:
    async with played_service() as other:
        service.routes |= {"/away": to(other.url("/echo")), "/stay": to("/echo"), "/post": to(other.url("/echo"), 307)}
        credential = Credential("X-Api-Key", SECRET, Secret("it", SECRET))
        headers = {"x-other": "also not for others", "accept": "text/plain"}
        async with calling() as client:
            await client.request("GET", service.url("/away"), credential=credential, headers=headers)
            await client.request("POST", service.url("/post"), credential=credential, headers=headers, body=b"{}")
            await client.request("GET", service.url("/stay"), credential=credential, headers=headers)
        for asked in other.asked:
            assert "x-api-key" not in asked.headers and "x-other" not in asked.headers and asked.headers["accept"] == "text/plain"
        assert [asked.method for asked in other.asked] == ["GET", "POST"]
        assert service.asked[-1].headers["x-api-key"] == SECRET


# --- secrets ------------------------------------------------------------------------------------------------------------


async def test_a_secret_comes_back_in_no_form(service: Service) -> None:
    secrets = Secrets({"TIDELOG_SECRET_IT": SECRET})
    async with calling() as client:
        for value in (SECRET, f"Bearer {SECRET}", f"Basic {SECRET}"):
            found = await client.request("GET", service.url("/x"), credential=Credential("Authorization", value, secrets.get("it")))
            assert SECRET not in found.text and "[secret it]" in found.text
            assert service.asked[-1].headers["authorization"] == value
        service.routes["/refused"] = lambda asked: answer(403, {"your key": asked.headers["authorization"]})
        refused = await refusal(client, service.url("/refused"), credential=Credential("Authorization", SECRET, secrets.get("it")))
        assert SECRET not in str(refused) and SECRET not in repr(secrets.get("it"))


async def test_a_secret_goes_to_its_hosts_only(service: Service) -> None:
    secrets = Secrets({"TIDELOG_SECRET_IT": SECRET, "TIDELOG_SECRET_IT_HOSTS": "api.example, *.inner.example"})
    async with calling(resolve=PlayedDns(evil_example=[["127.0.0.1"]])) as client:
        credential = Credential("Authorization", SECRET, secrets.get("it"))
        assert isinstance(await refusal(client, service.url(host="evil.example"), credential=credential), SecretMissingError)
    assert service.asked == []


@pytest.mark.parametrize("name", ["path", "IT", "it_hosts", "../it", "", "tidelog_api_key", "short", "binary"])
def test_no_other_variable_can_be_had_by_name(name: str) -> None:
    environment = {
        "PATH": "/usr/bin", "TIDELOG_API_KEY": SECRET, "TIDELOG_SECRET_IT": SECRET, "TIDELOG_SECRET_IT_HOSTS": "a.example.com",
        "TIDELOG_SECRET_SHORT": "1234567", "TIDELOG_SECRET_BINARY": "line\r\nbreak of it",
    }  # fmt: skip
    with pytest.raises(SecretMissingError) as raised:
        Secrets(environment).get(name)
    assert "1234567" not in str(raised.value) and "break" not in str(raised.value)


async def test_headers_of_the_connection_and_of_proxies_cannot_be_chosen(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with calling() as client:
        for name in (
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Cookie",
            "Metadata-Flavor",
            "X-Forwarded-For",
            "a b",
            "",
        ):
            assert isinstance(await refusal(client, service.url(), headers={name: "x"}), PermanentError)
        for value in ("a\r\nX-Injected: y", "a\nb", "\0", "ä"):
            assert isinstance(await refusal(client, service.url(), headers={"x-ok": value}), PermanentError)
        assert service.connections == 0
        service.routes["/cookie"] = lambda asked: answer(body=1, set_cookie="session=1")
        first = await client.request("GET", service.url("/cookie"))
        second = await client.request("GET", service.url("/x"))
    assert "set-cookie" not in first.headers and "cookie" not in second.json["headers"]  # type: ignore[index, call-overload, operator]


# --- bounds -------------------------------------------------------------------------------------------------------------


def endless(asked: Asked) -> bytes:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 64


async def test_size_and_time_have_bounds(service: Service) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    service.routes |= {
        "/told": lambda asked: answer(raw=b"x" * 2_000), "/lies": lambda asked: answer(raw=b"", content_length="99999999999"),
        "/endless": endless, "/bomb": lambda asked: answer(raw=bomb, content_encoding="gzip"),
        "/packed": lambda asked: answer(raw=gzip.compress(b'{"a": 1}'), content_encoding="gzip"),
        "/odd": lambda asked: answer(raw=b"x", content_encoding="br"),
        "/broken": lambda asked: answer(raw=b"x", content_encoding="gzip"),
        "/head": lambda asked: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000 + b"\r\n\r\n",
        "/garbage": lambda asked: b"\x16\x03\x01 no http\r\n\r\n",
    }  # fmt: skip
    async with calling() as client:
        for path in ("/told", "/lies", "/endless"):
            assert "bound" in str(await refusal(client, service.url(path), max_bytes=1_000))
        assert "bound" in str(await refusal(client, service.url("/bomb"), max_bytes=100_000))
        assert (await client.request("GET", service.url("/packed"))).json == {"a": 1}
        for path in ("/odd", "/broken"):
            assert isinstance(await refusal(client, service.url(path)), PermanentError)
        for path in ("/head", "/garbage"):
            assert isinstance(await refusal(client, service.url(path)), TransientError)
        assert "body is over" in str(await refusal(client, service.url(), method="POST", body=b"x" * 300_000))
        assert "no method" in str(await refusal(client, service.url(), method="CONNECT"))


async def test_a_service_that_drips_is_given_up() -> None:
    dripping = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while not dripping.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        async with calling() as client:
            assert isinstance(await refusal(client, url, timeout_s=0.3), TransientError)
            assert isinstance(await refusal(client, url, timeout_s=0.3, method="POST"), OutcomeUnknownError)
    finally:
        dripping.set()
        server.close()


# --- what an answer means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "kind"),
    [
        (400, "GET", PermanentError), (404, "GET", PermanentError), (422, "POST", PermanentError),
        (429, "POST", ServiceRateLimitedError),
        (408, "POST", TransientError), (503, "POST", TransientError), (500, "GET", TransientError), (502, "PUT", TransientError),
        (500, "POST", OutcomeUnknownError), (504, "PATCH", OutcomeUnknownError), (501, "GET", PermanentError),
    ],
)  # fmt: skip
async def test_a_status_is_a_failure_of_its_kind(status: int, method: str, kind: type[TidelogError], service: Service) -> None:
    service.routes["/x"] = lambda asked: answer(status, {"why": "so"}, retry_after="7")
    async with calling() as client:
        failed = await refusal(client, service.url("/x"), method=method)
    assert isinstance(failed, kind) and "so" in str(failed)
    if status in (429, 503):
        assert isinstance(failed, TransientError) and failed.retry_after_s == 7


async def test_before_and_after_the_request_was_sent(service: Service) -> None:
    service.routes["/drop"] = lambda asked: None
    async with calling(resolve=PlayedDns(nobody_example=[["127.0.0.9"]], there_example=[["127.0.0.1"]])) as client:
        for method in ("GET", "POST"):
            failed = await refusal(client, service.url(host="nobody.example"), method=method)
            assert isinstance(failed, TransientError) and "nothing was sent" in str(failed)
            unknown_host = await refusal(client, service.url(host="unknown.example"), method=method)
            assert isinstance(unknown_host, TransientError)
        assert isinstance(await refusal(client, service.url("/drop", host="there.example")), TransientError)
        lost = await refusal(client, service.url("/drop", host="there.example"), method="POST")
        assert isinstance(lost, OutcomeUnknownError) and "not known" in str(lost)
        keyed = await refusal(client, service.url("/drop", host="there.example"), method="POST", repeatable=True)
        assert isinstance(keyed, TransientError)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("120") == 120 and retry_after(None) is None and retry_after("soon") is None and retry_after("-1") is None
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    ahead = retry_after("Wed, 21 Oct 2215 07:28:00 GMT")
    assert ahead is not None and ahead > 1e9


async def test_json_and_text_of_an_answer(service: Service) -> None:
    service.routes |= {
        "/nan": lambda asked: answer(raw=b'{"a": NaN}'), "/deep": lambda asked: answer(raw=b"[" * 100_000),
        "/latin": lambda asked: answer(raw=b"\xe4", content_type="text/plain; charset=iso-8859-1"),
        "/odd": lambda asked: answer(raw=b"abc", content_type="text/plain; charset=punycode"),
        "/binary": lambda asked: answer(raw=b"\xff\xfe\x00", content_type="image/png"),
        "/none": lambda asked: answer(204),
    }  # fmt: skip
    async with calling() as client:
        assert (await client.request("GET", service.url("/latin"))).value == "ä"
        assert (await client.request("GET", service.url("/odd"))).value == "abc"
        assert (await client.request("GET", service.url("/none"))).value is None
        for path in ("/nan", "/deep", "/binary"):
            found = await client.request("GET", service.url(path))
            with pytest.raises(PermanentError):
                json.dumps(found.value)
