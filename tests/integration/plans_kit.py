"""Plans of the statements that a connection runs, also those inside functions, as `auto_explain` of the server reports them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool

from adapters.embedded import EmbeddedServices
from adapters.postgres.log.arrays import register_arrays
from adapters.postgres.pool import Pool


class Explained(NamedTuple):
    url: str
    pool: Pool
    """It has one connection only."""
    connection: AsyncConnection[Any]
    plans: list[dict[str, Any]]
    """Of each statement of the connection, in order."""


@asynccontextmanager
async def explained(services: EmbeddedServices, database_url: str, **settings: str) -> AsyncIterator[Explained]:
    """Connects as the server's administrator, because only the administrator may load `auto_explain`. `settings`: more of its
    settings."""
    plans: list[dict[str, Any]] = []
    given = {"log_min_duration": "0", "log_nested_statements": "on", "log_format": "json", "log_level": "notice"} | settings

    async def configure(connection: AsyncConnection[Any]) -> None:
        await connection.execute("LOAD 'auto_explain'")
        for name, value in given.items():
            await connection.execute("SELECT set_config(%s, %s, false)", (f"auto_explain.{name}", value))

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if "plan:" in text:
            plans.append(json.loads(text.partition("plan:")[2])["Plan"])

    url = make_conninfo(services.admin_database_url, dbname=str(conninfo_to_dict(database_url)["dbname"]))
    pool: Pool = AsyncConnectionPool(url, min_size=1, max_size=1, open=False, kwargs={"autocommit": True}, configure=configure)
    async with pool:
        async with pool.connection() as connection:
            connection.add_notice_handler(note)
            register_arrays(connection)
        yield Explained(url, pool, connection, plans)
