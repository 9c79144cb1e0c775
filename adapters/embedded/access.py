"""URLs of embedded servers that another process of this machine runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.embedded.errors import StateDirectoryUnusable
from adapters.embedded.nats_rights import OPERATOR_USER, SERVER_USER
from adapters.embedded.postgres_server import APP_ROLE, DATABASE
from adapters.embedded.sockets import PORT


def running_database_url(description: Mapping[str, Any]) -> str | None:
    """libpq URL for the owner of the database, from the result of `EmbeddedServices.describe()`. None: PostgreSQL is not embedded.

    Raises StateDirectoryUnusable if the password cannot be read: only the account that started the server may read it.
    """
    if "socket" not in (description.get("postgres") or {}):
        return None
    password = _passwords(description, "postgres_app")["postgres_app"]
    host = quote(str(Path(description["postgres"]["socket"]).parent), safe="")
    return f"postgresql://{APP_ROLE}:{password}@/{DATABASE}?host={host}&port={PORT}"


def running_nats_url(description: Mapping[str, Any]) -> str | None:
    """URL for the commands of operators, from the result of `EmbeddedServices.describe()`. None: NATS is not embedded.

    Raises StateDirectoryUnusable if the password cannot be read: only the account that started the server may read it.
    """
    server = description.get("nats") or {}
    if not server.get("port"):
        return None
    passwords = _passwords(description, "nats_server")
    user, name = (OPERATOR_USER, "nats_operator") if "nats_operator" in passwords else (SERVER_USER, "nats_server")  # before 0.2
    return f"nats://{user}:{passwords[name]}@{server['host']}:{server['port']}"


def _passwords(description: Mapping[str, Any], name: str) -> dict[str, str]:
    """The passwords by name, of which `name` is one."""
    path = Path(description["home"]) / "secrets.json"
    try:
        found = dict(json.loads(path.read_bytes()))
        found[name]
        return found
    except (OSError, ValueError, KeyError) as error:
        raise StateDirectoryUnusable(f"cannot read the passwords of the embedded servers in {path}: {error}") from error
