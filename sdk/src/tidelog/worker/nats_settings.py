"""Certificates and credentials for NATS from the worker's own environment (`TIDELOG_WORKER_NATS_…`): the server sends none."""

from collections.abc import Mapping
from pathlib import Path

from tidelog.nats_security import CredentialsError, NatsSecurity

PREFIX = "TIDELOG_WORKER_NATS_"
_FILES = ("CA_FILE", "CERT_FILE", "KEY_FILE", "CREDS_FILE", "NKEY_FILE")


class WorkerSettingsError(Exception):
    """A variable has a wrong value; the message is one line that names it and shows no secret."""


def nats_security_from(environment: Mapping[str, str]) -> NatsSecurity:
    """Raises WorkerSettingsError."""
    given = {name: value for name in (*_FILES, "TOKEN", "TLS_FIRST") if (value := environment.get(PREFIX + name))}
    # Absolute: code of users may change the current folder before a reconnect reads a file again.
    files = {name: Path(given[name]).absolute() for name in _FILES if name in given}
    if ("CERT_FILE" in files) != ("KEY_FILE" in files):
        raise WorkerSettingsError(f"{PREFIX}CERT_FILE and {PREFIX}KEY_FILE go together: only one is set")
    identities = [PREFIX + name for name in ("CREDS_FILE", "NKEY_FILE", "TOKEN") if name in given]
    if len(identities) > 1:
        raise WorkerSettingsError(f"{' and '.join(identities)}: only one can be used, unset the others")
    if given.get("TLS_FIRST", "false").lower() not in ("true", "1", "false", "0"):
        raise WorkerSettingsError(f"{PREFIX}TLS_FIRST: must be true or false")
    security = NatsSecurity(
        ca_file=files.get("CA_FILE"),
        cert_file=files.get("CERT_FILE"),
        key_file=files.get("KEY_FILE"),
        tls_first=given.get("TLS_FIRST", "false").lower() in ("true", "1"),
        creds_file=files.get("CREDS_FILE"),
        nkey_file=files.get("NKEY_FILE"),
        token=given.get("TOKEN"),
    )
    try:
        security.check()
    except CredentialsError as error:
        raise WorkerSettingsError(f"{PREFIX}…: {error}") from None
    return security
