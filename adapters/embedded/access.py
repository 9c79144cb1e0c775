"""The way to the embedded PostgreSQL that another process of this machine runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adapters.embedded.errors import StateDirectoryUnusable
from adapters.embedded.postgres_server import APP_ROLE, DATABASE
from adapters.embedded.sockets import PORT


def running_database_url(description: Mapping[str, Any]) -> str | None:
    """libpq URL for the owner of the database, from what `EmbeddedServices.describe()` said; None: it runs no PostgreSQL.

    Raises StateDirectoryUnusable where the password cannot be read: it is for the account that started the server.
    """
    if "socket" not in (description.get("postgres") or {}):
        return None
    path = Path(description["home"]) / "secrets.json"
    try:
        password = json.loads(path.read_bytes())["postgres_app"]
    except (OSError, ValueError, KeyError) as error:
        raise StateDirectoryUnusable(f"cannot read the password of the database in {path}: {error}") from error
    host = quote(str(Path(description["postgres"]["socket"]).parent), safe="")
    return f"postgresql://{APP_ROLE}:{password}@/{DATABASE}?host={host}&port={PORT}"
