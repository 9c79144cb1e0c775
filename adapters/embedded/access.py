"""URLs of embedded servers that another process of this machine runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.embedded.errors import StateDirectoryUnusable
from adapters.embedded.nats_server import SERVER_USER
from adapters.embedded.postgres_server import APP_ROLE, DATABASE
from adapters.embedded.sockets import PORT


def running_database_url(description: Mapping[str, Any]) -> str | None:
    """libpq URL for the owner of the database, from the result of `EmbeddedServices.describe()`. None: PostgreSQL is not embedded.

    Raises StateDirectoryUnusable if the password cannot be read: only the account that started the server may read it.
    """
    if "socket" not in (description.get("postgres") or {}):
        return None
    password = _password(description, "postgres_app")
    host = quote(str(Path(description["postgres"]["socket"]).parent), safe="")
    return f"postgresql://{APP_ROLE}:{password}@/{DATABASE}?host={host}&port={PORT}"


def running_nats_url(description: Mapping[str, Any]) -> str | None:
    """URL for the server's own account, from the result of `EmbeddedServices.describe()`. None: NATS is not embedded.

    Raises StateDirectoryUnusable if the password cannot be read: only the account that started the server may read it.
    """
    server = description.get("nats") or {}
    if not server.get("port"):
        return None
    return f"nats://{SERVER_USER}:{_password(description, 'nats_server')}@{server['host']}:{server['port']}"


def _password(description: Mapping[str, Any], name: str) -> str:
    path = Path(description["home"]) / "secrets.json"
    try:
        return str(json.loads(path.read_bytes())[name])
    except (OSError, ValueError, KeyError) as error:
        raise StateDirectoryUnusable(f"cannot read the passwords of the embedded servers in {path}: {error}") from error
