"""Work on the tenants of an installation, on its database: for whoever runs it, on the machine. No route leads here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from adapters.postgres import pool as postgres
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.log.event_store import PostgresEventStore
from api.assembly import upkeep
from application import setup
from application.catalog import CATALOG
from application.engine.commands.loop import CommandLoop
from application.views.tenants import TenantView
from projections.tenants import list_tenants

PAGE = 1_000


async def create_tenant(database_url: str, tenant_id: UUID, name: str, key_id: UUID, key_sha256: str) -> int:
    """Creates a tenant with its default project and its first key, one of an owner. Returns the position of the key.

    Raises SettingsError, Unavailable.
    """
    await upkeep.migrate(database_url)
    async with _pool(database_url) as pool:
        store = PostgresEventStore(database_url, pool)
        await store.start()
        try:
            return await setup.create_tenant(CommandLoop(store, CATALOG), tenant_id, name, key_id, key_sha256)
        finally:
            await store.close()


async def tenants(database_url: str, *, limit: int) -> list[TenantView]:
    """The first tenants of the read model. Raises SettingsError, Unavailable."""
    found: list[TenantView] = []
    async with _pool(database_url) as pool, PostgresDatabase(pool).connection() as connection:
        while len(found) < limit:
            after = found[-1].tenant_id if found else None
            page = await list_tenants(connection, limit=min(PAGE, limit - len(found)), after=after)
            if not page:
                break
            found += page
    return found


async def has_tenant(database_url: str, tenant_id: UUID) -> bool:
    """Whether the read model has the tenant. Raises SettingsError, Unavailable."""
    async with _pool(database_url) as pool, PostgresDatabase(pool).connection() as connection:
        before = UUID(int=tenant_id.int - 1) if tenant_id.int else None
        return [one.tenant_id for one in await list_tenants(connection, limit=1, after=before)] == [tenant_id]


@asynccontextmanager
async def _pool(database_url: str) -> AsyncIterator[postgres.Pool]:
    pool = await postgres.open_pool(database_url, role="platform", max_size=2)
    try:
        yield pool
    finally:
        await pool.close()
