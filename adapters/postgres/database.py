"""Connections for projections and queries. They come from the pool; errors of the driver become domain errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.postgres.pool import Connection, Connections, translate_errors
from application.engine.ports import database as ports

Database = ports.Database[Connection]


class PostgresDatabase:
    """The `Database` port of the read side."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with translate_errors():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        with translate_errors():
            async with self._pool.connection() as connection, connection.pipeline(), connection.transaction():
                yield connection
