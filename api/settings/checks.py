"""Checks of the settings about the user's own PostgreSQL and NATS: contradictions and missing files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

NATS_FILES = ("nats_ca_file", "nats_cert_file", "nats_key_file", "nats_creds_file", "nats_nkey_file")
_NATS_SCHEMES = ("nats", "tls")
# If the file of one of these is missing, libpq connects without a certificate, or does not check the server's certificate.
_POSTGRES_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_NO_FILE = ("", "system")


class ServersOfTheUser(Protocol):
    """The settings about the user's own servers. `Settings` has these fields."""

    database_url: SecretStr | None
    nats_url: SecretStr | None
    nats_ca_file: Path | None
    nats_cert_file: Path | None
    nats_key_file: Path | None
    nats_creds_file: Path | None
    nats_nkey_file: Path | None
    nats_token: SecretStr | None
    nats_replicas: int


def faults(settings: ServersOfTheUser) -> list[str]:
    """One line for each fault. No line shows a secret."""
    return [*_database(settings), *_nats(settings)]


def variable(name: str) -> str:
    return f"TIDELOG_{name.upper()}"


def _database(settings: ServersOfTheUser) -> Iterator[str]:
    if settings.database_url is None:
        return
    try:
        url = urlsplit(settings.database_url.get_secret_value())
        given = dict(parse_qsl(url.query))
    except ValueError:
        yield "TIDELOG_DATABASE_URL: is no URL"
        return
    for name in _POSTGRES_FILES:
        if given.get(name, "") not in _NO_FILE and (problem := _unreadable(Path(given[name]))):
            yield f"TIDELOG_DATABASE_URL: {name}: {problem}"


def _nats(settings: ServersOfTheUser) -> Iterator[str]:
    if settings.nats_url is not None:
        yield from (f"TIDELOG_NATS_URL: {problem}" for problem in _problems_of(settings.nats_url.get_secret_value().split(",")))
    given = [name for name in (*NATS_FILES, "nats_token") if getattr(settings, name) is not None]
    if settings.nats_url is None:
        yield from (f"{variable(name)}: needs TIDELOG_NATS_URL: the embedded NATS takes none" for name in given)
        if settings.nats_replicas > 1:
            yield "TIDELOG_NATS_REPLICAS: needs TIDELOG_NATS_URL of a cluster: the embedded NATS is one server"
        return
    for name, path in ((name, getattr(settings, name)) for name in NATS_FILES):
        if path is not None and (problem := _unreadable(path)):
            yield f"{variable(name)}: {problem}"
    for name, other in (("nats_cert_file", "nats_key_file"), ("nats_key_file", "nats_cert_file")):
        if name in given and other not in given:
            yield f"{variable(name)}: needs {variable(other)} as well"
    identities = [variable(name) for name in ("nats_creds_file", "nats_nkey_file", "nats_token") if name in given]
    if any("@" in _authority(url) for url in settings.nats_url.get_secret_value().split(",")):
        identities.append("the user in TIDELOG_NATS_URL")
    if len(identities) > 1:
        yield f"{' and '.join(identities)}: only one can be used, unset the others"


def _problems_of(urls: list[str]) -> Iterator[str]:
    """The faults of a list of servers' URLs."""
    schemes = set()
    for number, text in enumerate(urls, 1):
        which = f"server {number}: " if len(urls) > 1 else ""
        try:
            url = urlsplit(text if "://" in text else f"nats://{text}")
            fits = bool(url.hostname) and (url.port is None or url.port > 0)
        except ValueError:
            fits = False
        if not fits:
            yield f"{which}is no URL of the form nats://host:port or tls://host:port"
        elif url.scheme not in _NATS_SCHEMES:
            yield f"{which}must begin with nats:// or tls://"
        else:
            schemes.add(url.scheme)
    if len(schemes) > 1:
        yield "nats:// and tls:// in one list: with one of them every server must have TLS, so write tls:// for all"


def _authority(url: str) -> str:
    return url.partition("://")[2].partition("/")[0] if "://" in url else url


def _unreadable(path: Path) -> str | None:
    if not path.is_file():
        return f"there is no file {path}"
    return None if os.access(path, os.R_OK) else f"this account may not read {path}"
