"""The server that the options of a command name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from api.cli.connection import ServerClient


@asynccontextmanager
async def server_of(data_dir: Path | None, url: str | None, quiet: bool = False) -> "AsyncIterator[ServerClient]":
    """See `connection.server`. `quiet`: no spinner."""
    from api.cli import connection
    from api.settings import load_settings

    async with connection.server(load_settings(data_dir=data_dir, url=url), quiet=quiet) as server:
        yield server
