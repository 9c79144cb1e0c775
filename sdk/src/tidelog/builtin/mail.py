"""Mail that a tool sends: one message to a mail server of the worker's operator, through the guard.

The operator's secret says which server, by which account, from which sender, and to whom mail may go. A call chooses none of these.
"""

import asyncio
import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import JsonValue

from tidelog.errors import OutcomeUnknownError, PermanentError
from tidelog.guard.addresses import Allowed
from tidelog.guard.answers import ServiceError
from tidelog.guard.client import GuardedClient
from tidelog.guard.secrets import Secret, SecretMissingError, Secrets
from tidelog.texts import cut

CONNECT_S, ANSWER_S = 10.0, 30.0
"""Seconds of one connection, and of one answer of the server."""
MOST_RECIPIENTS = 20
MAX_SUBJECT, MAX_TEXT = 300, 100_000
PORTS = {"smtps": 465, "smtp": 587}
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]+)+")
"""Addresses as servers without SMTPUTF8 take them. A domain beyond ASCII is written in its form xn--…"""


@dataclass(frozen=True)
class MailServer:
    """What the secret of a mail server says: `smtps://USER:PASSWORD@HOST?from=ADDRESS&to=DOMAIN`."""

    host: str
    port: int
    at_once: bool
    """TLS from the first byte (smtps). Else the connection changes to TLS before anything is said (STARTTLS)."""
    plain: bool
    """No TLS at all: for a server on a network that the operator has allowed, without an account."""
    sender: str
    recipients: Allowed
    """Domains to which mail may go."""
    user: str | None
    secret: Secret
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, secret: Secret) -> Self:
        """Raises SecretMissingError, which shows nothing of the secret."""

        def fault(why: str) -> SecretMissingError:
            form = "smtps://USER:PASSWORD@HOST?from=ADDRESS, with &to=DOMAIN for each domain that may get mail"
            return SecretMissingError(f"the secret {secret.name!r} is no mail server: {why}; write {form}")

        try:
            parts = urlsplit(secret.value)
            host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
            said = parse_qs(parts.query, strict_parsing=True)
        except ValueError:
            raise fault("it is no URL with a query") from None
        if parts.scheme not in PORTS or not host or not port or parts.path not in ("", "/") or parts.fragment:
            raise fault("it begins with smtps:// or smtp://, has a host, and no path")
        if unknown := set(said) - {"from", "to", "tls"}:
            raise fault(f"{len(unknown)} of its fields are unknown")
        [sender] = said.get("from", [""])[:1]
        if not ADDRESS.fullmatch(sender) or len(said["from"]) > 1:
            raise fault("`from` is the one address that mail comes from")
        plain = said.get("tls", [""]) == ["none"]
        if ("tls" in said and not plain) or (plain and (parts.scheme == "smtps" or parts.username)):
            raise fault("`tls=none` is for smtp:// without an account, and `tls` says nothing else")
        if (parts.username is None) != (parts.password is None):
            raise fault("it has a user and a password, or neither")
        try:
            recipients = Allowed.of(only_hosts=said.get("to", ()))
        except ValueError:
            raise fault("`to` is a domain, or *.DOMAIN for all below") from None
        user, password = (None, None) if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
        return cls(host, port, parts.scheme == "smtps", plain, sender, recipients, user, secret, password)

    def hide(self, text: str) -> str:
        """The text without what is secret of the server."""
        hidden = self.secret.hide_in(text.encode(), self.password or self.secret.value).decode()
        return cut(hidden, 300)


def message_of(server: MailServer, to: Sequence[str], subject: str, text: str, key: str) -> EmailMessage:
    """Raises PermanentError for a recipient that may not get mail, or a subject that is more than one line."""
    for number, address in enumerate(to):
        if not ADDRESS.fullmatch(address):
            raise PermanentError(f"/to/{number}: {address[:100]!r} is no mail address that can be sent to")
        if not server.recipients.allows_host(address.rpartition("@")[2]):
            told = f"/to/{number}: no mail may go to {address[:100]!r}: see `to` in the secret {server.secret.name!r}"
            raise PermanentError(told)
    if len(set(map(str.lower, to))) < len(to):
        raise PermanentError("/to: an address stands there twice")
    if not subject.isprintable():
        raise PermanentError("/subject: it is one line of printable characters")
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"], message["To"], message["Subject"] = server.sender, ", ".join(to), subject
    message["Date"], message["Message-ID"] = formatdate(), f"<{key}@{server.sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no machine answers
    message.set_content(text, cte="base64" if not text.isascii() else None)
    return message


async def send(
    client: GuardedClient,
    secrets: Secrets,
    *,
    secret: str,
    to: Sequence[str],
    subject: str,
    text: str,
    key: str,
) -> dict[str, JsonValue]:
    """Sends one message. `key`: of the call; the Message-ID follows from it.

    Raises:
        SecretMissingError, AddressRefusedError, PermanentError: a retry cannot help.
        ServiceError: nothing was sent, and a retry may help.
        OutcomeUnknownError: the server was given the message, and has not said whether it took it.
    """
    server = MailServer.of(secrets.get(secret))
    if not server.secret.hosts.allows_host(server.host):
        raise SecretMissingError(f"the secret {secret!r} is not for the host {server.host!r}: see TIDELOG_SECRET_…_HOSTS")
    message = message_of(server, to, subject, text, key)
    try:
        async with asyncio.timeout(CONNECT_S):
            addresses = await client.addresses(server.host, server.port)
    except (OSError, TimeoutError):
        raise ServiceError(f"the mail server {server.host!r} cannot be resolved") from None
    refused = await asyncio.to_thread(_deliver, server, addresses, message, list(to), None if server.plain else client.trusted())
    return {"message_id": str(message["Message-ID"]), "refused": [*refused]}


class _Connection(smtplib.SMTP):
    """A connection to one of the addresses that were checked. TLS asks for the certificate of the host's name."""

    def __init__(self, server: MailServer, addresses: Sequence[str], trusted: ssl.SSLContext | None) -> None:
        self._server, self._addresses, self._trusted = server, addresses, trusted
        super().__init__(server.host, server.port, local_hostname="tidelog", timeout=CONNECT_S)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        failed: OSError | None = None
        for address in self._addresses:
            try:
                made = socket.create_connection((address, port), timeout)
            except OSError as error:
                failed = error
                continue
            made.settimeout(ANSWER_S)
            if self._server.at_once and self._trusted is not None:
                return self._trusted.wrap_socket(made, server_hostname=host)
            return made
        assert failed is not None
        raise failed


def _deliver(
    server: MailServer, addresses: Sequence[str], message: EmailMessage, to: Sequence[str], trusted: ssl.SSLContext | None
) -> list[str]:
    """The recipients that the server refused; it took the others. In a thread: the library waits."""
    given = False  # whether the server may have the whole message
    try:
        with _Connection(server, addresses, trusted) as mail:
            if trusted is not None and not server.at_once:
                _must(mail.starttls(context=trusted), server, "STARTTLS")
            mail.ehlo_or_helo_if_needed()
            if server.user is not None:
                mail.login(server.user, server.password or "")
            _must(mail.mail(server.sender), server, "the sender")
            answers = {address: mail.rcpt(address) for address in to}
            refused = {address: answer for address, answer in answers.items() if answer[0] not in (250, 251)}
            if len(refused) == len(to):
                _must(next(iter(refused.values())), server, "every recipient")
            if (asked := mail.docmd("data"))[0] != 354:
                raise _refusal(server, *asked, "the message")
            given = True
            mail.send(re.sub(rb"(?m)^\.", b"..", message.as_bytes()) + b".\r\n")
            _must(mail.getreply(), server, "the message")
            return sorted(refused)
    except smtplib.SMTPResponseException as error:
        raise _refusal(server, error.smtp_code, error.smtp_error, type(error).__name__) from None
    except smtplib.SMTPNotSupportedError as error:
        raise PermanentError(server.hide(f"the mail server {server.host!r} cannot do it: {error}")) from None
    except (smtplib.SMTPException, OSError) as error:
        told = server.hide(f"the mail server {server.host!r} broke off: {type(error).__name__}: {error}")
        raise (OutcomeUnknownError(f"{told}; it may have taken the message") if given else ServiceError(told)) from None


def _must(answer: tuple[int, bytes], server: MailServer, what: str) -> None:
    code, text = answer
    if not 200 <= code < 300:
        raise _refusal(server, code, text, what)


def _refusal(server: MailServer, code: int, text: bytes | str, what: str) -> Exception:
    """4xx: for now (RFC 5321, section 4.2.1)."""
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    told = server.hide(f"the mail server {server.host!r} refused {what}: {code} {' '.join(words.split())}")
    return ServiceError(told) if 400 <= code < 500 else PermanentError(told)
