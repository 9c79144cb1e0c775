"""Idempotency keys in Postgres (`IdempotencyKeys`)."""

from uuid import UUID

from adapters.postgres.pool import Connections, translate_errors
from application.engine.ports.idempotency import Begun, KeyInUse, StoredAnswer

BEGIN = """
INSERT INTO idempotency_key (key_id, tenant_id, body_sha256, token) VALUES (%(id)s, %(tenant)s, %(body)s, %(token)s)
ON CONFLICT (key_id) DO UPDATE SET
    token = CASE WHEN idempotency_key.begun_at < now() - interval '24 hours' THEN EXCLUDED.token ELSE idempotency_key.token END,
    begun_at = now(), released = false, body_sha256 = EXCLUDED.body_sha256, status = NULL, answer = NULL
WHERE idempotency_key.begun_at < now() - interval '24 hours'
   OR (idempotency_key.status IS NULL AND idempotency_key.body_sha256 = EXCLUDED.body_sha256
       AND (idempotency_key.released OR idempotency_key.begun_at < now() - interval '30 seconds'
            OR idempotency_key.begun_at > now() + interval '30 seconds'))
RETURNING token
"""
FIND = "SELECT body_sha256, status, answer, headers FROM idempotency_key WHERE key_id = %s"
FINISH = "UPDATE idempotency_key SET status = %s, answer = %s, headers = %s WHERE key_id = %s"
FORGET = "DELETE FROM idempotency_key WHERE key_id = %s AND status IS NULL"
RELEASE = "UPDATE idempotency_key SET released = true WHERE key_id = %s AND status IS NULL"
EXPIRE = """
DELETE FROM idempotency_key
WHERE key_id IN (SELECT key_id FROM idempotency_key WHERE begun_at < now() - interval '24 hours' ORDER BY begun_at LIMIT %s)
"""
EXPIRED_AT_ONCE = 1_000
"""Keys that one statement deletes: each has a whole answer with it."""


class PostgresIdempotencyKeys:
    """Implements `application.engine.ports.idempotency.IdempotencyKeys`."""

    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    async def begin(self, key_id: UUID, *, tenant_id: UUID, body_sha256: str, command_id: UUID) -> Begun | KeyInUse:
        parameters = {"id": key_id, "tenant": tenant_id, "body": body_sha256, "token": command_id}
        with translate_errors():
            async with self._pool.connection() as connection:
                begun = await (await connection.execute(BEGIN, parameters)).fetchone()
                if begun is not None:
                    return Begun(begun[0])
                found = await (await connection.execute(FIND, [key_id])).fetchone()
        if found is None:  # the earlier request was refused between the two statements
            return KeyInUse(body_sha256, None)
        return KeyInUse(found[0], _answer(*found[1:]))

    async def finish(self, key_id: UUID, answer: StoredAnswer) -> None:
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(FINISH, (answer.status, answer.body, headers, key_id))

    async def forget(self, key_id: UUID) -> None:
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(FORGET, [key_id])

    async def release(self, key_id: UUID) -> None:
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(RELEASE, [key_id])

    async def expire(self) -> int:
        expired = 0
        while True:
            with translate_errors():
                async with self._pool.connection() as connection:
                    deleted = (await connection.execute(EXPIRE, [EXPIRED_AT_ONCE])).rowcount
            expired += deleted
            if deleted < EXPIRED_AT_ONCE:
                return expired


def _answer(status: int | None, body: bytes | None, headers: str) -> StoredAnswer | None:
    if status is None:
        return None
    lines = (line.split(": ", 1) for line in headers.splitlines())
    return StoredAnswer(status, {name: value for name, value in lines}, bytes(body or b""))
