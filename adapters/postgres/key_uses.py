"""The times of the last uses of API keys in PostgreSQL (`KeyUses`)."""

from collections.abc import Sequence

from adapters.postgres.database import Database
from application.engine.ports.key_uses import KeyUse

# In the order of the ids, so that two processes that write the same keys wait for one another and do not deadlock.
WRITE = """
INSERT INTO api_key_use AS known (key_id, tenant_id, used_at)
SELECT id, tenant, now() - make_interval(secs => ago)
FROM unnest(%s::uuid[], %s::uuid[], %s::float8[]) AS used (id, tenant, ago), set_config('synchronous_commit', 'off', true)
ORDER BY id
ON CONFLICT (key_id) DO UPDATE SET used_at = EXCLUDED.used_at WHERE known.used_at < EXCLUDED.used_at
"""


class PostgresKeyUses:
    """Implements the port `KeyUses`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, uses: Sequence[KeyUse]) -> None:
        values = [use.key_id for use in uses], [use.tenant_id for use in uses], [use.seconds_ago for use in uses]
        async with self._database.connection() as connection:
            await connection.execute(WRITE, values)
