"""`http.post` and `smtp.send`: what people are told, to whom, by which secrets, and what is known when something breaks off."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.played_mail import MailServer, played_mail_server
from tests.kit.played_service import Service, answer, played_service
from tests.tls_kit import Authority
from tidelog.builtin.mail import MailServer as Declared
from tidelog.builtin.tools import built_in_tools
from tidelog.errors import OutcomeUnknownError, PermanentError
from tidelog.guard import AddressRefusedError, Allowed, GuardedClient
from tidelog.guard.answers import HttpStatusError, ServiceError
from tidelog.guard.secrets import Secret, SecretMissingError, Secrets
from tidelog.tools import ToolContext

KEY = "01a22225-45d1-7341-b15d-2148f85b53ce"
HERE = Allowed.of(["127.0.0.1"])


async def call(name: str, arguments: dict[str, Any], *, allowed: Allowed = HERE, verify: Any = None, **secrets: str) -> Any:
    client = GuardedClient(allowed, verify=verify)
    environment = {f"TIDELOG_SECRET_{each.upper()}": value for each, value in secrets.items()}
    try:
        [tool] = [tool for tool in built_in_tools(client, Secrets(environment)) if tool.name == name]
        return await tool.invoke(arguments, ToolContext(Path(), KEY, 1))
    finally:
        await client.aclose()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with played_service() as service:
        yield service


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with played_mail_server() as server:
        yield server


# --- http.post ------------------------------------------------------------------------------------------------------------


async def test_a_post_is_filled_and_sent_once(service: Service) -> None:
    arguments = {
        "url": service.url("/hook"), "body": {"text": "run {{run}} waits", "n": "{{number}}", "left_out": "{{missing}}"},
        "values": {"run": "{{number}}", "number": 7}, "headers": {"User-Agent": "mine"},
    }  # fmt: skip
    told = await call("http.post", arguments)
    [asked] = service.asked
    assert (asked.method, asked.target, json.loads(asked.body)) == ("POST", "/hook", {"text": "run {{number}} waits", "n": 7})
    assert asked.headers["content-type"] == "application/json" and asked.headers["user-agent"] == "mine"
    assert "authorization" not in asked.headers
    assert told["status"] == 200 and set(told) == {"status", "headers", "body"}


async def test_a_post_has_its_token_and_its_key(service: Service) -> None:
    arguments = {"url": service.url(), "body": None, "secret": "chat", "key_header": "Idempotency-Key"}
    told = await call("http.post", arguments, chat="12345678")
    assert service.asked[0].headers["authorization"] == "Bearer 12345678"
    assert service.asked[0].headers["idempotency-key"] == KEY
    assert "12345678" not in json.dumps(told) and "[secret chat]" in json.dumps(told)


async def test_a_url_that_is_secret_is_in_no_answer(service: Service) -> None:
    url = service.url("/services/T0000/B1111?token=abcdef")
    told = await call("http.post", {"url_secret": "chat", "body": "hello"}, chat=url)
    assert service.asked[0].target == "/services/T0000/B1111?token=abcdef" and "authorization" not in service.asked[0].headers
    assert told["body"]["target"] == "/[secret chat]"
    service.routes["/services/T0000/B1111"] = lambda asked: answer(403, {"no": asked.target.partition("?")[0]})
    with pytest.raises(HttpStatusError) as refused:
        await call("http.post", {"url_secret": "chat", "body": "hello"}, chat=url)
    assert "T0000" not in str(refused.value) and "[secret chat]" in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "secrets", "told"),
    [
        ({}, {}, "either `url`, or `url_secret`"),
        ({"url": "http://x/", "url_secret": "chat"}, {}, "either `url`, or `url_secret`"),
        ({"url_secret": "chat", "secret": "other"}, {}, "`secret` goes with `url`"),
        ({"url_secret": "chat"}, {}, "no secret 'chat': set TIDELOG_SECRET_CHAT"),
        ({"url_secret": "chat"}, {"chat": "http://broken-secret:port/"}, "the secret 'chat' is no URL$"),
        ({"url": "http://127.0.0.1:1/", "secret": "it"}, {"it": "12345678", "it_hosts": "api.example"}, "not for the host"),
        ({"url": "http://127.0.0.1:1/", "headers": {"Authorization": "x"}}, {}, "cannot be chosen"),
        ({"url": "http://127.0.0.1:1/", "key_header": "Host"}, {}, "cannot be chosen"),
        ({"url": "http://127.0.0.1:1/", "body": ["{{a"]}, {}, "the body has {{ without a name"),
        ({"url": "http://127.0.0.1:1/", "body": "a{{b}}"}, {}, "no value for the placeholder 'b'"),
        ({"url": "http://10.0.0.1/"}, {}, "no address that tools may call"),
    ],
)
async def test_a_post_that_cannot_be_sent_says_why(arguments: dict[str, Any], secrets: dict[str, str], told: str) -> None:
    with pytest.raises(PermanentError, match=told) as refused:
        await call("http.post", {"body": None, **arguments}, **secrets)
    assert "broken-secret" not in str(refused.value)


async def test_a_post_without_an_answer_may_have_been_heard(service: Service) -> None:
    service.routes["/hook"] = lambda _: None
    with pytest.raises(OutcomeUnknownError):
        await call("http.post", {"url": service.url("/hook"), "body": 1})
    with pytest.raises(ServiceError):  # the service knows the key
        await call("http.post", {"url": service.url("/hook"), "body": 1, "key_header": "Idempotency-Key"})


# --- smtp.send ------------------------------------------------------------------------------------------------------------

MAIL = {"to": ["ada@example.org"], "subject": "Run {{run}} waits", "text": "Grüße, {{name}}", "values": {"run": 7, "name": "Ada"}}


async def test_a_mail_is_filled_and_taken(server: MailServer) -> None:
    text = "Grüße, {{name}}\n.\n..dots"
    told = await call("smtp.send", MAIL | {"to": ["ada@example.org", "bob@example.org"], "text": text}, smtp=server.url())
    [mail] = server.mails
    assert (mail["From"], mail["To"]) == ("tidelog@example.org", "ada@example.org, bob@example.org")
    assert (mail["Subject"], mail.get_content().splitlines()) == ("Run 7 waits", ["Grüße, Ada", ".", "..dots"])
    assert mail["Message-ID"] == f"<{KEY}@example.org>" and mail["Auto-Submitted"] == "auto-generated" and mail["Date"]
    assert told == {"message_id": f"<{KEY}@example.org>", "refused": []}
    assert "MAIL FROM:<tidelog@example.org>" in server.said[1]
    recipients = [line for line in server.said if line.startswith("RCPT")]
    assert recipients == ["RCPT TO:<ada@example.org>", "RCPT TO:<bob@example.org>"]


async def test_recipients_that_are_refused_are_named(server: MailServer) -> None:
    server.answers = {"RCPT TO:<eve@": "550 not here"}
    told = await call("smtp.send", MAIL | {"to": ["ada@example.org", "eve@example.org"]}, smtp=server.url())
    assert told["refused"] == ["eve@example.org"] and len(server.mails) == 1
    with pytest.raises(PermanentError, match="refused every recipient: 550 not here"):
        await call("smtp.send", MAIL | {"to": ["eve@example.org"]}, smtp=server.url())
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("answers", "kind", "told"),
    [
        ({"": "421 too busy"}, ServiceError, "421 too busy"),
        ({"MAIL": "451 later"}, ServiceError, "refused the sender: 451 later"),
        ({"MAIL": "550 never"}, PermanentError, "refused the sender: 550 never"),
        ({"MAIL": ""}, ServiceError, "broke off"),
        ({"DATA": "552 full"}, PermanentError, "552 full"),
        ({"DATA": ""}, ServiceError, "broke off"),
        ({".": "452 full"}, ServiceError, "refused the message: 452 full"),
        ({".": "554 spam"}, PermanentError, "refused the message: 554 spam"),
        ({".": ""}, OutcomeUnknownError, "it may have taken the message"),
    ],
)
async def test_what_is_known_when_a_mail_is_not_taken(
    server: MailServer, answers: dict[str, str], kind: type[Exception], told: str
) -> None:
    server.answers = answers
    with pytest.raises(kind, match=told) as failed:
        await call("smtp.send", MAIL, smtp=server.url())
    assert type(failed.value) is kind and not server.mails


async def test_an_account_is_given_after_tls_only_and_never_shown(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(authority.server_cert, authority.server_key)
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    for at_once, scheme in ((True, "smtps"), (False, "smtp")):
        async with played_mail_server(served, at_once=at_once) as server:
            secret = server.url("from=tidelog@example.org", scheme=scheme, account="ada:p%40ss-word@")
            await call("smtp.send", MAIL, verify=trusted, smtp=secret)
            assert len(server.mails) == 1 and ("STARTTLS" in server.said) is not at_once
            server.answers = {"AUTH": "535 no such account: p@ss-word"}
            with pytest.raises(PermanentError, match="535 no such account") as refused:
                await call("smtp.send", MAIL, verify=trusted, smtp=secret)
            assert "p@ss-word" not in str(refused.value)
            before = len(server.said)
            with pytest.raises(ServiceError, match="broke off"):  # of an authority that nobody trusts
                await call("smtp.send", MAIL, smtp=secret)
            assert not any(line.startswith("AUTH") for line in server.said[before:])


async def test_a_server_without_tls_gets_no_account(server: MailServer) -> None:
    server.answers = {"EHLO": "250 AUTH PLAIN"}
    with pytest.raises(PermanentError, match="cannot do it: STARTTLS"):
        await call("smtp.send", MAIL, smtp=server.url("from=tidelog@example.org", account="ada:password@"))
    assert not any(line.startswith("AUTH") for line in server.said)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": ["ada@other.example"]}, "/to/0: no mail may go to 'ada@other.example': see `to`"),
        ({"to": ["ada@example.org\r\nBcc: eve@x.example"]}, "/to/0: .* is no mail address"),
        ({"to": ["ada@example.org> SIZE=1"]}, "is no mail address"),
        ({"to": ["ada@example.org", "Ada@example.org"]}, "an address stands there twice"),
        ({"subject": "a\r\nBcc: eve@x.example"}, "/subject: it is one line"),
        ({"subject": "{{run}}", "values": {"run": "a\nb", "name": "x"}}, "/subject: it is one line"),
        ({"subject": "{{unknown}}"}, "no value for the placeholder 'unknown'"),
        ({"text": "{{"}, "the text has {{ without a name"),
        ({"secret": "other"}, "no secret 'other'"),
    ],
)
async def test_a_mail_that_cannot_be_sent_says_why(server: MailServer, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(PermanentError, match=told):
        await call("smtp.send", MAIL | fields, smtp=server.url("from=tidelog@example.org&tls=none&to=example.org"))
    assert not server.said


async def test_a_mail_goes_through_the_guard(server: MailServer) -> None:
    with pytest.raises(AddressRefusedError):
        await call("smtp.send", MAIL, allowed=Allowed(), smtp=server.url())
    with pytest.raises(SecretMissingError, match=r"not for the host '127\.0\.0\.1'"):
        await call("smtp.send", MAIL, smtp=server.url(), smtp_hosts="mail.example.org")
    assert not server.said


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("http://mail.example?from=a@b.example", "begins with smtps:// or smtp://"),
        ("smtps://mail.example/path?from=a@b.example", "no path"),
        ("smtps://?from=a@b.example", "has a host"),
        ("smtps://mail.example:port?from=a@b.example", "no URL with a query"),
        ("smtps://mail.example", "`from` is the one address"),
        ("smtps://mail.example?to=b.example", "`from` is the one address"),
        ("smtps://mail.example?from=a@b.example&from=c@b.example", "`from` is the one address"),
        ("smtps://mail.example?from=nobody", "`from` is the one address"),
        ("smtps://mail.example?from=a@b.example&bcc=x", "1 of its fields are unknown"),
        ("smtps://mail.example?from=a@b.example&to=a/b", "`to` is a domain"),
        ("smtps://mail.example?from=a@b.example&tls=none", "`tls=none` is for smtp://"),
        ("smtp://ada:password@mail.example?from=a@b.example&tls=none", "`tls=none` is for smtp://"),
        ("smtp://mail.example?from=a@b.example&tls=some", "`tls=none` is for smtp://"),
        ("smtps://ada@mail.example?from=a@b.example", "a user and a password, or neither"),
    ],
)
def test_a_secret_that_is_no_mail_server_says_why_and_is_not_shown(value: str, told: str) -> None:
    with pytest.raises(SecretMissingError, match=told) as refused:
        Declared.of(Secret("smtp", value))
    assert "mail.example" not in str(refused.value) and "password@" not in str(refused.value).replace("PASSWORD@HOST", "")


def test_ports_follow_from_the_scheme() -> None:
    ports = [Declared.of(Secret("smtp", f"{scheme}://mail.example?from=a@b.example")).port for scheme in ("smtps", "smtp")]
    assert ports == [465, 587]
    assert "password" not in repr(Declared.of(Secret("smtp", "smtps://ada:password@mail.example?from=a@b.example")))


async def test_lines_that_begin_with_a_dot_end_no_mail(server: MailServer) -> None:
    await call("smtp.send", MAIL | {"text": ".\n.hidden\nQUIT\n"}, smtp=server.url())
    assert server.mails[0].get_content().splitlines()[:3] == ["..", "..hidden", "QUIT"]  # as the server gets it, with dots doubled
