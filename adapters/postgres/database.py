"""Connections for projections and queries. They come from the pool; errors of the driver become domain errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from adapters.postgres.pool import Connection, Connections, read_for, translate_errors
from application.engine.ports import database as ports

Database = ports.Database[Connection]


class PostgresDatabase:
    """The `Database` port of the read side."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    @asynccontextmanager
    async def connection(self, tenant_id: UUID | None = None) -> AsyncIterator[Connection]:
        with translate_errors():
            async with self._pool.connection() as connection:
                await read_for(connection, tenant_id)
                yield connection

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID | None = None) -> AsyncIterator[Connection]:
        with translate_errors():
            async with self._pool.connection() as connection:
                await read_for(connection, tenant_id)
                async with connection.pipeline(), connection.transaction():
                    yield connection
