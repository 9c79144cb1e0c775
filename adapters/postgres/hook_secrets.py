"""The secrets of webhooks (`HookSecrets`). Only the role of the server may read the table."""

from collections.abc import Sequence
from uuid import UUID

from adapters.postgres.database import Database
from application.engine.ports.hook_secrets import HookOwner, SecretLife, StrayHook

FIND = """
SELECT tenant_id, name, scheme, secret FROM hook_secret
WHERE hook_id = %s AND (ends_at IS NULL OR ends_at > now()) ORDER BY number DESC
"""
# Those that have ended go with the next rotation. Two rotations at once take turns, and do not get one number.
ADD = """
WITH old AS (
    SELECT coalesce(max(number), 0) AS last FROM hook_secret WHERE hook_id = %(hook)s
), ended AS (
    DELETE FROM hook_secret WHERE hook_id = %(hook)s AND ends_at <= now()
), ending AS (
    UPDATE hook_secret SET ends_at = least(ends_at, now() + make_interval(secs => %(overlap)s))
    WHERE hook_id = %(hook)s AND (ends_at IS NULL OR ends_at > now())
)
INSERT INTO hook_secret (hook_id, number, tenant_id, name, scheme, secret)
SELECT %(hook)s, last + 1, %(tenant)s, %(name)s, %(scheme)s, %(secret)s FROM old RETURNING number
"""
LIVES = """
SELECT number, made_at, ends_at FROM hook_secret WHERE hook_id = %s AND (ends_at IS NULL OR ends_at > now()) ORDER BY number
"""
# A rotation makes a newer row: only hooks whose rows are all old.
ASTRAY = """
SELECT hook_id, (array_agg(tenant_id))[1], (array_agg(name ORDER BY number DESC))[1] FROM hook_secret AS secret
WHERE hook_id > %(after)s AND NOT EXISTS (
    SELECT FROM trigger WHERE trigger.tenant_id = secret.tenant_id AND trigger.name = secret.name
    AND trigger.document::jsonb ->> 'hook_id' = secret.hook_id::text
)
GROUP BY hook_id HAVING max(made_at) < now() - make_interval(secs => %(age)s) ORDER BY hook_id LIMIT %(limit)s
"""
REMOVE = "DELETE FROM hook_secret WHERE hook_id = %s"
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s::text, 7310579130))"


class PostgresHookSecrets:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, hook_id: UUID) -> HookOwner | None:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(FIND, [hook_id])).fetchall()
        return (
            HookOwner(tenant_id=rows[0][0], name=rows[0][1], scheme=rows[0][2], secrets=tuple(bytes(row[3]) for row in rows))
            if rows
            else None
        )

    async def add(self, hook_id: UUID, tenant_id: UUID, name: str, scheme: str, secret: bytes, *, overlap_s: float) -> int:
        values: dict[str, object] = {"hook": hook_id, "tenant": tenant_id, "name": name, "scheme": scheme, "secret": secret}
        values["overlap"] = overlap_s
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute(LOCK, [str(hook_id)])
            [(number,)] = await (await connection.execute(ADD, values)).fetchall()
        return int(number)

    async def lives(self, hook_id: UUID) -> Sequence[SecretLife]:
        async with self._database.connection() as connection:
            return [SecretLife(*row) for row in await (await connection.execute(LIVES, [hook_id])).fetchall()]

    async def astray(self, *, older_than_s: float, after: UUID, limit: int) -> Sequence[StrayHook]:
        async with self._database.connection() as connection:
            asked = {"after": after, "age": older_than_s, "limit": limit}
            return [StrayHook(*row) for row in await (await connection.execute(ASTRAY, asked)).fetchall()]

    async def remove(self, hook_id: UUID) -> None:
        async with self._database.connection() as connection:
            await connection.execute(REMOVE, [hook_id])
