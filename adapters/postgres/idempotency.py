"""Idempotency keys of the release before (`IdempotencyKeys`). Migration 0026 says how both releases know the keys of each other."""

from adapters.postgres.pool import Connections, translate_errors

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

    async def expire(self) -> int:
        expired = 0
        while True:
            with translate_errors():
                async with self._pool.connection() as connection:
                    deleted = (await connection.execute(EXPIRE, [EXPIRED_AT_ONCE])).rowcount
            expired += deleted
            if deleted < EXPIRED_AT_ONCE:
                return expired
