"""Tenants and their API keys."""

from collections.abc import Sequence

from application.reads import KeyOwner
from domain.kernel import RecordedEvent
from domain.tenants import ApiKeyIssued, ApiKeyRevoked, TenantCreated
from projections.kernel import Connection, Database, Projection, by_topic, decoded, topics_of


async def on_tenant_created(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = "INSERT INTO tenant (tenant_id, name, created_at) SELECT * FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[])"
    await connection.execute(sql, ([e.stream_id for e in batch], [decoded(e).name for e in batch], [e.recorded_at for e in batch]))


async def on_api_key_issued(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    INSERT INTO api_key (key_id, tenant_id, sha256, label, issued_at)
    SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::timestamptz[])
    """
    keys = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [key.key_id for key in keys],
            [e.tenant_id for e in batch],
            [key.sha256 for key in keys],
            [key.label for key in keys],
            [e.recorded_at for e in batch],
        ),
    )


async def on_api_key_revoked(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE api_key SET revoked_at = revoked.at FROM unnest(%s::uuid[], %s::timestamptz[]) AS revoked (id, at)
    WHERE key_id = revoked.id
    """
    await connection.execute(sql, ([decoded(e).key_id for e in batch], [e.recorded_at for e in batch]))


PROJECTION = Projection(
    "tenants",
    topics_of(TenantCreated, ApiKeyIssued, ApiKeyRevoked),
    ("tenant", "api_key"),
    by_topic((TenantCreated, on_tenant_created), (ApiKeyIssued, on_api_key_issued), (ApiKeyRevoked, on_api_key_revoked)),
)


async def find_keys(connection: Connection, sha256s: Sequence[str]) -> dict[str, KeyOwner]:
    """Hash of each valid key among the given ones → its tenant and id."""
    sql = "SELECT sha256, key_id, tenant_id FROM api_key WHERE sha256 = ANY (%s) AND revoked_at IS NULL"
    cursor = await connection.execute(sql, [list(sha256s)])
    return {sha256: KeyOwner(key_id, tenant_id) async for sha256, key_id, tenant_id in cursor}


class ApiKeyQueries:
    """The port `ApiKeyReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owners(self, sha256s: Sequence[str]) -> dict[str, KeyOwner]:
        async with self._database.connection() as connection:
            return await find_keys(connection, sha256s)
