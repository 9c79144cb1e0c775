"""Permits and tokens of tools in PostgreSQL (`PermitBook`). The arithmetic stands in functions: see migration 0048."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from adapters.postgres.database import Database
from adapters.postgres.listener import ChannelListener, Notifications
from application.engine.ports.permits import HOLDER_LEASE_S, LimitState, Settled, ToolLimits, Wanted

CHANNEL = "tidelog_permits"
"""Notified when a process wants permits of a tool, or has got some that another one gave back."""

SETTLE = """
SELECT * FROM settle_tool_limit(
    %(tenant)s, %(tool)s, %(holder)s, %(declared)s, %(max_parallel)s::int, %(calls)s::int, %(per_s)s::float8, %(from_start)s,
    %(keep)s::int, %(want)s::int, %(like)s::int, %(spent)s::int, %(back)s::int, %(ask)s::int, %(hold)s::float8, %(at)s::timestamptz
)
"""
SEEN = """
UPDATE permit_holder SET seen_at = coalesce(%(at)s::timestamptz, clock_timestamp())
WHERE holder_id = %(holder)s AND over_at IS NULL RETURNING 1
"""
LEAVE = "UPDATE permit_holder SET seen_at = '-infinity' WHERE holder_id = %s"
SWEEP = "SELECT sweep_tool_permits(%(lease)s, %(at)s::timestamptz)"
# By then every bucket is full again, so a new row says the same.
TIDY = """
DELETE FROM tool_limit AS l WHERE filled_at < now() - interval '3 days' AND coalesce(held_until, filled_at) < now()
  AND NOT EXISTS (SELECT FROM tool_permit AS p WHERE (p.tenant_id, p.tool) = (l.tenant_id, l.tool))
"""
STATE = """
SELECT (SELECT count(*) FROM open_work AS w
        WHERE w.tenant_id = l.tenant_id AND w.pool = l.tool AND w.permit_holder IS NOT NULL AND w.session_id IS NOT NULL),
       p.held, p.waiting, p.waiting_since,
       CASE WHEN l.calls IS NOT NULL THEN
           least(l.calls - p.tokens, l.tokens + greatest(0, extract(epoch FROM now() - l.filled_at)::float8) * l.calls / l.per_s)
       END,
       CASE WHEN l.held_until > now() THEN l.held_until END
FROM tool_limit AS l CROSS JOIN LATERAL (
    SELECT coalesce(sum(held), 0)::int AS held, coalesce(sum(greatest(wanted - held, 0)), 0)::int AS waiting,
           min(waiting_since) AS waiting_since, coalesce(sum(tokens), 0)::int AS tokens
    FROM tool_permit AS t WHERE t.tenant_id = l.tenant_id AND t.tool = l.tool
) AS p
WHERE l.tenant_id = %s AND l.tool = %s
"""


class PostgresPermits:
    """Implements the port `PermitBook`."""

    def __init__(self, database: Database, clock: Callable[[], datetime | None] = lambda: None) -> None:
        """`clock`: instead of the database's, for tests."""
        self._database = database
        self._clock = clock

    async def settle(self, tenant_id: UUID, tool: str, holder_id: UUID, limits: ToolLimits, wanted: Wanted) -> Settled | None:
        values = {
            "tenant": tenant_id, "tool": tool, "holder": holder_id, "declared": limits.declared,
            "max_parallel": limits.max_parallel, "calls": limits.calls, "per_s": limits.per_s, "from_start": limits.declared == 1,
            "keep": wanted.keep, "want": wanted.want, "like": wanted.like,
            "spent": wanted.spent, "back": wanted.back, "ask": wanted.ask,
            "hold": wanted.hold_s, "at": self._clock(),
        }  # fmt: skip
        async with self._database.connection() as connection:
            row = await (await connection.execute(SETTLE, values)).fetchone()
        return None if row is None else Settled(ToolLimits(*row[:4]), *row[4:])

    async def seen(self, holder_id: UUID) -> bool:
        async with self._database.connection() as connection:
            cursor = await connection.execute(SEEN, {"holder": holder_id, "at": self._clock()})
            return await cursor.fetchone() is not None

    async def leave(self, holder_id: UUID) -> None:
        async with self._database.connection() as connection:
            await connection.execute(LEAVE, [holder_id])

    async def sweep(self, lease_s: float = HOLDER_LEASE_S) -> int:
        async with self._database.connection() as connection:
            row = await (await connection.execute(SWEEP, {"lease": lease_s, "at": self._clock()})).fetchone()
        assert row is not None
        return int(row[0])

    async def tidy(self) -> int:
        async with self._database.connection() as connection:
            return (await connection.execute(TIDY)).rowcount

    async def state(self, tenant_id: UUID, tool: str) -> LimitState | None:
        async with self._database.connection(tenant_id) as connection:
            row = await (await connection.execute(STATE, [tenant_id, tool])).fetchone()
        return None if row is None else LimitState(*row)


class PostgresPermitNews(ChannelListener):
    """Implements the port `PermitNews`."""

    def __init__(self, source: str | Notifications) -> None:
        super().__init__(source, CHANNEL)
        self._calls: list[tuple[Callable[[UUID, str, UUID], None], Callable[[], None]]] = []

    def call(self, told: Callable[[UUID, str, UUID], None], missed: Callable[[], None]) -> Callable[[], None]:
        one = (told, missed)
        self._calls.append(one)
        return lambda: self._calls.remove(one)

    def on_notification(self, payload: str) -> None:
        holder, tenant, tool = payload.split(" ", 2)
        for told, _ in self._calls:
            told(UUID(tenant), tool, UUID(holder))

    def missed(self) -> None:
        for _, missed in self._calls:
            missed()
