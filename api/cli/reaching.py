"""The server that the options of a command name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.cli.connection import ServerClient


@asynccontextmanager
async def server_of(
    data_dir: Path | None, url: str | None, quiet: bool = False, *, on_behalf_of: str | None = None
) -> "AsyncIterator[ServerClient]":
    """See `connection.server`. `quiet`: no spinner. `on_behalf_of`: for whom commands are; None: as the environment says."""
    from api.cli import connection
    from api.settings import load_settings

    settings = load_settings(data_dir=data_dir, url=url, on_behalf_of=on_behalf_of)
    async with connection.server(settings, quiet=quiet) as server:
        yield server
