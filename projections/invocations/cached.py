"""The newest calls whose results answer further calls of the same."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from projections.kernel import Connection

# One entry of the index for each key: it holds the calls that succeeded, by time.
NEWEST = """
SELECT wanted.key, (
    SELECT invocation_id FROM invocation
    WHERE tenant_id = %(tenant)s AND cache_key = wanted.key AND cache_key IS NOT NULL AND status = 'succeeded'
      AND since > now() - make_interval(secs => %(seconds)s)
    ORDER BY tenant_id DESC, cache_key DESC, since DESC LIMIT 1
) FROM unnest(%(keys)s::uuid[]) AS wanted (key)
"""


async def newest_calls(connection: Connection, tenant_id: UUID, keys: Sequence[UUID], max_age_s: float) -> Mapping[UUID, UUID]:
    wanted = {"tenant": tenant_id, "keys": list(keys), "seconds": max_age_s}
    rows = await (await connection.execute(NEWEST, wanted)).fetchall()
    return {key: invocation_id for key, invocation_id in rows if invocation_id is not None}
