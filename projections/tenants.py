"""Tenants and their API keys."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import KeyOwner, KeysFound, Positioned
from application.views.tenants import ApiKeyView, TenantView
from domain.access import Role
from domain.kernel import Event, RecordedEvent
from domain.tenants import ApiKeyIssued, ApiKeyRevoked, ApiKeyRotated, TenantCreated
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Handler, Projection, decoded, topics_of


async def on_tenant_created(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = "INSERT INTO tenant (tenant_id, name, created_at) SELECT * FROM unnest(%s::uuid[], %s::text[], %s::timestamptz[])"
    await connection.execute(sql, ([e.stream_id for e in batch], [decoded(e).name for e in batch], [e.recorded_at for e in batch]))


async def on_api_key_issued(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """Of two keys with one id or one hash the first one counts. A client names both, and must not get hold of a key of others."""
    sql = """
    INSERT INTO api_key (key_id, tenant_id, sha256, label, issued_at, role, expires_at, projects)
    SELECT key_id, tenant_id, sha256, label, issued_at, role, expires_at, projects::uuid[] FROM unnest(
        %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::text[]
    ) AS issued (key_id, tenant_id, sha256, label, issued_at, role, expires_at, projects) ON CONFLICT DO NOTHING
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
            [key.role.value for key in keys],
            [key.expires_at for key in keys],
            [None if key.projects is None else f"{{{','.join(map(str, key.projects))}}}" for key in keys],
        ),
    )


async def on_api_key_rotated(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE api_key SET rotated_to = rotated.next_id, expires_at = rotated.ends_at
    FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[]) AS rotated (id, tenant, next_id, ends_at)
    WHERE key_id = rotated.id AND tenant_id = rotated.tenant
    """
    keys = [decoded(e) for e in batch]
    await connection.execute(
        sql,
        (
            [key.key_id for key in keys],
            [e.tenant_id for e in batch],
            [key.rotated_to for key in keys],
            [key.expires_at for key in keys],
        ),
    )


async def on_api_key_revoked(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    sql = """
    UPDATE api_key SET revoked_at = revoked.at, revoke_reason = revoked.reason
    FROM unnest(%s::uuid[], %s::uuid[], %s::timestamptz[], %s::text[]) AS revoked (id, tenant, at, reason)
    WHERE key_id = revoked.id AND tenant_id = revoked.tenant AND revoked_at IS NULL
    """
    keys = [decoded(e) for e in batch]
    values = ([key.key_id for key in keys], [e.tenant_id for e in batch])
    await connection.execute(sql, (*values, [e.recorded_at for e in batch], [key.reason for key in keys]))


HANDLERS: tuple[tuple[type[Event], Handler], ...] = (
    (TenantCreated, on_tenant_created),
    (ApiKeyIssued, on_api_key_issued),
    (ApiKeyRotated, on_api_key_rotated),
    (ApiKeyRevoked, on_api_key_revoked),
)


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """One statement for all events of a topic: a key is issued, rotated and revoked at most once, in this order."""
    for event, handle in HANDLERS:
        if chosen := [recorded for recorded in batch if recorded.topic == event.TOPIC]:
            await handle(connection, chosen)


PROJECTION = Projection("tenants", topics_of(*(event for event, _ in HANDLERS)), ("tenant", "api_key"), apply)


ROLES = frozenset(Role)


async def find_keys(connection: Connection, sha256s: Sequence[str]) -> KeysFound:
    """Each valid key among those with the given hashes, and the position of the read model at that time."""
    sql = """
    SELECT position, sha256, key_id, tenant_id, role, extract(epoch FROM expires_at - now())::float8, projects
    FROM (SELECT max(position) AS position FROM checkpoint WHERE name >= %(name)s AND name <= %(name)s) AS reached
    LEFT JOIN api_key ON sha256 = ANY (%(sha256s)s) AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    """
    rows = await (await connection.execute(sql, {"name": PROJECTION.name, "sha256s": list(sha256s)})).fetchall()
    owners = {
        sha256: KeyOwner(key_id, tenant_id, Role(role), seconds, None if projects is None else frozenset(projects))
        for _, sha256, key_id, tenant_id, role, seconds, projects in rows
        if sha256 is not None and role in ROLES  # a key with a role of a later release is no key here
    }
    return KeysFound(owners, rows[0][0] or 0)


async def list_keys(connection: Connection, tenant_id: UUID, *, limit: int, before: UUID | None) -> Page[ApiKeyView]:
    sql = """
    SELECT k.key_id, label, role, now(), issued_at, expires_at, rotated_to, revoked_at, revoke_reason, used_at, projects
    FROM (
        SELECT key_id, tenant_id, label, role, issued_at, expires_at, rotated_to, revoked_at, revoke_reason, projects
        FROM api_key WHERE tenant_id = %(tenant)s AND (%(before)s::uuid IS NULL OR key_id < %(before)s)
        ORDER BY key_id DESC LIMIT %(limit)s
    ) AS k LEFT JOIN api_key_use AS u ON u.key_id = k.key_id AND u.tenant_id = k.tenant_id ORDER BY k.key_id DESC
    """
    rows = await (await connection.execute(sql, {"tenant": tenant_id, "before": before, "limit": limit + 1})).fetchall()
    data = [_view(row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].key_id)) if len(rows) > limit else None)


async def get_key(connection: Connection, tenant_id: UUID, key_id: UUID) -> ApiKeyView | None:
    sql = """
    SELECT k.key_id, label, role, now(), issued_at, expires_at, rotated_to, revoked_at, revoke_reason, used_at, projects
    FROM api_key AS k LEFT JOIN api_key_use AS u ON u.key_id = k.key_id AND u.tenant_id = k.tenant_id
    WHERE k.key_id = %s AND k.tenant_id = %s
    """
    row = await (await connection.execute(sql, (key_id, tenant_id))).fetchone()
    return None if row is None else _view(row)


def _view(row: Sequence[Any]) -> ApiKeyView:
    key_id, label, role, now, issued_at, expires_at, rotated_to, revoked_at, reason, used_at, projects = row
    over = "expired" if expires_at is not None and expires_at <= now else "valid"
    return ApiKeyView(
        key_id=key_id,
        label=label,
        role=role,
        status="revoked" if revoked_at is not None else over,
        issued_at=issued_at,
        expires_at=expires_at,
        rotated_to=rotated_to,
        revoked_at=revoked_at,
        revoke_reason=reason,
        last_used_at=used_at,
        projects=projects,
    )


async def list_tenants(connection: Connection, *, limit: int, after: UUID | None) -> list[TenantView]:
    """Tenants after an id, oldest first. For the platform alone: no route of a tenant shows other tenants."""
    sql = """
    SELECT tenant_id, name, created_at FROM tenant WHERE %(after)s::uuid IS NULL OR tenant_id > %(after)s
    ORDER BY tenant_id LIMIT %(limit)s
    """
    cursor = await connection.execute(sql, {"after": after, "limit": limit})
    return [TenantView(tenant_id=id, name=name, created_at=created_at) async for id, name, created_at in cursor]


class ApiKeyQueries:
    """The port `ApiKeyReads`. `database`: where keys are looked up. `lists`: where they are listed for people."""

    def __init__(self, database: Database, lists: Database | None = None) -> None:
        self._database = database
        self._lists = database if lists is None else lists

    async def owners(self, sha256s: Sequence[str]) -> KeysFound:
        async with self._database.connection() as connection:
            return await find_keys(connection, sha256s)

    async def list(self, tenant_id: UUID, *, limit: int, before: UUID | None) -> Positioned[Page[ApiKeyView]]:
        async with reading(self._lists, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await list_keys(connection, tenant_id, limit=limit, before=before), position)

    async def get(self, tenant_id: UUID, key_id: UUID) -> Positioned[ApiKeyView | None]:
        async with reading(self._lists, PROJECTION.name, tenant_id) as (connection, position):
            return Positioned(await get_key(connection, tenant_id, key_id), position)
