"""Settings of connections: contradictions and missing files give a readable line without a secret."""

from pathlib import Path

import pytest

from api.settings import SettingsError, load_settings
from api.supervisor.config import worker_environment


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return str(path)


def lines(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(f"TIDELOG_{name}", value)
    try:
        load_settings()
    except SettingsError as error:
        return str(error).splitlines()
    return []


def test_all_that_fits_together(monkeypatch: pytest.MonkeyPatch, pem: str) -> None:
    files = {"NATS_CA_FILE": pem, "NATS_CERT_FILE": pem, "NATS_KEY_FILE": pem}
    urls = {
        "NATS_URL": "tls://a.example:4222,tls://b.example",
        "DATABASE_URL": f"postgresql://u:p@h/d?sslrootcert={pem}&sslcert=&sslkey=",
    }
    assert lines(monkeypatch, **urls, **files, NATS_TOKEN="t") == []
    assert lines(monkeypatch, **urls, NATS_REPLICAS="3") == []
    assert lines(monkeypatch, DATABASE_URL="postgresql://h/d?sslmode=verify-full&sslrootcert=system") == []


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"NATS_URL": "ws://h:1"}, "TIDELOG_NATS_URL: must begin with nats:// or tls://"),
        ({"NATS_URL": "nats://u:secret@h:port"}, "TIDELOG_NATS_URL: is no URL of the form nats://host:port or tls://host:port"),
        ({"NATS_URL": "tls://h, tls://"}, "TIDELOG_NATS_URL: server 2: is no URL of the form nats://host:port or tls://host:port"),
        ({"NATS_URL": "nats://h,tls://h"}, "TIDELOG_NATS_URL: nats:// and tls:// in one list: with one of them every "
         "server must have TLS, so write tls:// for all"),
        ({"NATS_TOKEN": "secret"}, "TIDELOG_NATS_TOKEN: needs TIDELOG_NATS_URL: the embedded NATS takes none"),
        ({"NATS_REPLICAS": "3"}, "TIDELOG_NATS_REPLICAS: needs TIDELOG_NATS_URL of a cluster: the embedded NATS is one server"),
        ({"NATS_URL": "tls://u:secret@h", "NATS_TOKEN": "secret"},
         "TIDELOG_NATS_TOKEN and the user in TIDELOG_NATS_URL: only one can be used, unset the others"),
        ({"NATS_URL": "tls://h", "NATS_CA_FILE": "/nowhere/ca"}, "TIDELOG_NATS_CA_FILE: there is no file /nowhere/ca"),
        ({"NATS_URL": "tls://h", "NATS_CERT_FILE": "{pem}"}, "TIDELOG_NATS_CERT_FILE: needs TIDELOG_NATS_KEY_FILE as well"),
        ({"NATS_URL": "tls://h", "NATS_CREDS_FILE": "{pem}", "NATS_NKEY_FILE": "{pem}"},
         "TIDELOG_NATS_CREDS_FILE and TIDELOG_NATS_NKEY_FILE: only one can be used, unset the others"),
        ({"DATABASE_URL": "postgresql://u:secret@h/d?sslrootcert=/nowhere/ca"},
         "TIDELOG_DATABASE_URL: sslrootcert: there is no file /nowhere/ca"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(monkeypatch: pytest.MonkeyPatch, pem: str, variables: dict[str, str], line: str) -> None:
    assert lines(monkeypatch, **{name: value.replace("{pem}", pem) for name, value in variables.items()}) == [line]


def test_workers_get_none_of_the_servers_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "CA_FILE", "CERT_FILE", "KEY_FILE", "CREDS_FILE", "NKEY_FILE", "TOKEN", "TLS_FIRST"):
        monkeypatch.setenv(f"TIDELOG_NATS_{name}", "server's")
    assert not [name for name in worker_environment() if "NATS" in name]
