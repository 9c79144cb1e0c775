"""Sessions of workers in PostgreSQL (`WorkerSessions`): one row for each, renewed by one statement for each process."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from adapters.postgres.database import Database
from application.engine.ports.sessions import (
    KEPT_S,
    LEASE_S,
    MOST_LISTED,
    READY_S,
    HeldWork,
    KnownWork,
    LapsedWork,
    ListedSession,
    Look,
    Offered,
    Seen,
    UnofferedWork,
    WorkerSession,
    WorkInHand,
)

# A session need not be on the disk before its worker hears of it: see migration 0025.
SOON = "set_config('synchronous_commit', 'off', true)"

OPEN = f"""
WITH counted AS (
    SELECT count(*) AS of_tenant, count(*) FILTER (WHERE actor = %(actor)s) AS of_actor
    FROM worker_session WHERE tenant_id = %(tenant)s AND ended_at IS NULL AND session_id <> %(session)s
), opened AS (
    INSERT INTO worker_session
        (session_id, tenant_id, worker_id, actor, incarnation, release, secret_hash, member_id, since, seen_at)
    SELECT %(session)s, %(tenant)s, %(worker)s, %(actor)s, %(incarnation)s, %(release)s, %(hash)s, %(member)s, now(), now()
    FROM counted WHERE of_tenant < %(of_tenant)s AND of_actor < %(of_actor)s
    ON CONFLICT (session_id) DO UPDATE SET seen_at = now() WHERE worker_session.secret_hash = EXCLUDED.secret_hash
    RETURNING 1
)
SELECT {SOON}, EXISTS (SELECT FROM opened)
"""
RESUME = f"""
WITH taken AS (
    UPDATE worker_session SET member_id = %(member)s, seen_at = now()
    WHERE session_id = %(session)s AND tenant_id = %(tenant)s AND incarnation = %(incarnation)s AND secret_hash = %(hash)s
      AND ended_at IS NULL
    RETURNING session_id, tenant_id, worker_id, actor, incarnation, release
)
SELECT {SOON}, taken.* FROM taken
"""
SEEN = f"""
WITH ready AS (
    INSERT INTO session_host (member_id, ready_at) VALUES (%(member)s, now())
    ON CONFLICT (member_id) DO UPDATE SET ready_at = now()
), kept AS (
    UPDATE worker_session SET seen_at = now()
    WHERE session_id = ANY (%(sessions)s) AND member_id = %(member)s AND ended_at IS NULL
    RETURNING session_id
)
SELECT {SOON}, (SELECT coalesce(array_agg(session_id), '{{}}') FROM kept), EXISTS (SELECT FROM worker_session)
"""
WITHDRAW = "DELETE FROM session_host WHERE member_id = %s"
END = """
UPDATE worker_session SET ended_at = now(), end_reason = 'left'
WHERE session_id = ANY (%s) AND member_id = %s AND ended_at IS NULL
"""
# A session that is removed at this moment offers nothing any more.
OFFER = f"""
WITH written AS (
    INSERT INTO worker_offer (session_id, agents, agent_versions, tools, tool_versions)
    SELECT session_id, %(agents)s::text[], %(agent_versions)s::text[], %(tools)s::text[], %(tool_versions)s::text[]
    FROM worker_session WHERE session_id = %(session)s
    ON CONFLICT (session_id) DO UPDATE SET (agents, agent_versions, tools, tool_versions) =
        (EXCLUDED.agents, EXCLUDED.agent_versions, EXCLUDED.tools, EXCLUDED.tool_versions)
)
SELECT {SOON}
"""
OF_TENANT = """
SELECT s.session_id, s.tenant_id, s.worker_id, s.actor, s.incarnation, s.release, s.since, s.seen_at,
       w.agent_runs, w.calls, o.session_id IS NOT NULL, o.agents, o.agent_versions, o.tools, o.tool_versions
FROM worker_session AS s
LEFT JOIN worker_offer AS o ON o.session_id = s.session_id
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE kind = 'agent') AS agent_runs, count(*) FILTER (WHERE kind <> 'agent') AS calls
    FROM open_work WHERE session_id = s.session_id
) AS w
WHERE s.tenant_id = %(tenant)s AND s.ended_at IS NULL
  AND (%(worker)s::text IS NULL OR (s.worker_id COLLATE "C", s.session_id) > (%(worker)s, %(session)s::uuid))
ORDER BY s.worker_id COLLATE "C", s.session_id LIMIT %(limit)s
"""
IN_HAND = """
SELECT w.kind, w.pool, w.work_id, w.root_id, w.attempt, w.dispatched_at
FROM worker_session AS s LEFT JOIN open_work AS w ON w.session_id = s.session_id AND w.tenant_id = s.tenant_id
WHERE s.tenant_id = %(tenant)s AND s.session_id = %(session)s AND s.ended_at IS NULL
ORDER BY w.dispatched_at, w.work_id LIMIT %(limit)s
"""
OFFERING = """
SELECT u.name, count(DISTINCT s.worker_id)
FROM worker_session AS s JOIN worker_offer AS o ON o.session_id = s.session_id
CROSS JOIN LATERAL unnest(CASE %(kind)s WHEN 'agent' THEN o.agents ELSE o.tools END) AS u (name)
WHERE s.tenant_id = %(tenant)s AND s.ended_at IS NULL AND u.name = ANY (%(names)s::text[])
GROUP BY u.name
"""
# Of a tool's `reconcile` function it is not known who offers it: after a while a person is asked instead.
UNOFFERED = """
WITH going_on AS MATERIALIZED (
    SELECT s.tenant_id, o.session_id IS NOT NULL AS known, o.agents, o.tools
    FROM worker_session AS s LEFT JOIN worker_offer AS o ON o.session_id = s.session_id WHERE s.ended_at IS NULL
), offered AS (
    SELECT tenant_id, 'agent' AS kind, unnest(agents) AS pool FROM going_on
    UNION ALL SELECT tenant_id, 'tool', unnest(tools) FROM going_on
), waiting AS (
    SELECT tenant_id, kind, pool, count(*) AS count, min(dispatched_at) AS oldest FROM open_work
    WHERE session_id IS NULL AND kind <> 'reconcile' AND dispatched_at < now() - make_interval(secs => %(waiting)s)
    GROUP BY tenant_id, kind, pool
)
SELECT kind, pool, sum(count)::bigint, extract(epoch FROM now() - min(oldest))::float8 FROM waiting AS w
WHERE NOT EXISTS (SELECT FROM offered AS o WHERE (o.tenant_id, o.kind, o.pool) = (w.tenant_id, w.kind, w.pool))
  AND NOT EXISTS (SELECT FROM going_on AS g WHERE g.tenant_id = w.tenant_id AND NOT g.known)
GROUP BY kind, pool ORDER BY min(oldest), kind, pool LIMIT %(limit)s
"""
# One statement: the position is that of the rows. It is looked up from behind: see `projections/engine/checkpoints.py`.
HELD_BY = """
SELECT known.position, w.tenant_id, w.kind, w.work_id, w.root_id, w.attempt, w.session_id
FROM (SELECT coalesce(checkpoint_position('work'), 0)) AS known (position)
LEFT JOIN open_work AS w ON w.session_id = ANY (%s)
ORDER BY w.session_id, w.work_id
"""
OVER = """
SELECT given.id FROM unnest(%s::uuid[]) AS given (id)
LEFT JOIN worker_session AS s ON s.session_id = given.id WHERE s.session_id IS NULL OR s.ended_at IS NOT NULL
"""
# One that was seen in the future was seen before the database's clock was set back.
UNSEEN = """
ended_at IS NULL AND (
    seen_at < now() - make_interval(secs => %(lease)s) OR seen_at > now() + make_interval(secs => %(lease)s)
)
"""
LOOK = f"""
SELECT clock_timestamp(),
       (SELECT count(*) FROM session_host
        WHERE ready_at BETWEEN now() - make_interval(secs => %(ready)s) AND now() + make_interval(secs => %(ready)s)),
       count(*) FILTER (WHERE ended_at IS NULL), count(*) FILTER (WHERE ended_at IS NOT NULL),
       coalesce(array_agg(session_id) FILTER (WHERE {UNSEEN}), '{{}}')
FROM worker_session
"""
# Without waiting for rows that a process renews at this moment: they are seen.
LOSE = f"""
UPDATE worker_session SET ended_at = now(), end_reason = 'lost' WHERE session_id IN (
    SELECT session_id FROM worker_session WHERE session_id = ANY (%(sessions)s) AND {UNSEEN} FOR UPDATE SKIP LOCKED
)
"""
LAPSED = """
SELECT w.tenant_id, w.kind, w.work_id, w.root_id, w.attempt, w.session_id, coalesce(s.end_reason, 'lost')
FROM open_work AS w LEFT JOIN worker_session AS s ON s.session_id = w.session_id
WHERE w.session_id IS NOT NULL AND (s.session_id IS NULL OR s.ended_at IS NOT NULL)
  AND (%(after)s::uuid IS NULL OR w.work_id > %(after)s)
ORDER BY w.work_id LIMIT %(limit)s
"""
TIDY = """
WITH vanished AS (DELETE FROM session_host WHERE ready_at NOT BETWEEN now() - interval '1 minute' AND now() + interval '1 minute')
DELETE FROM worker_session AS s WHERE s.ended_at < now() - make_interval(secs => %s)
AND NOT EXISTS (SELECT FROM open_work AS w WHERE w.session_id = s.session_id)
"""
SECRET = "SELECT secret FROM installation_secret"


def _hash(secret: str) -> bytes:
    """A secret is random and long, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).digest()


def _listed(row: Sequence[Any]) -> ListedSession:
    since, seen_at, agent_runs, calls, known, agents, agent_versions, tools, tool_versions = row[6:]
    offered = None
    if known:
        offered = Offered(dict(zip(agents, agent_versions, strict=True)), dict(zip(tools, tool_versions, strict=True)))
    return ListedSession(WorkerSession(*row[:6]), since, seen_at, agent_runs, calls, offered)


class PostgresWorkerSessions:
    """Implements the port `WorkerSessions` for one process."""

    def __init__(self, database: Database, *, member_id: UUID | None = None) -> None:
        """`member_id`: names one start of this process."""
        self._database = database
        self._member_id = member_id or uuid4()

    async def open(self, session: WorkerSession, secret: str, *, most_of_actor: int, most_of_tenant: int) -> bool:
        values = {
            "session": session.session_id, "tenant": session.tenant_id, "worker": session.worker_id, "actor": session.actor,
            "incarnation": session.incarnation, "release": session.release, "hash": _hash(secret), "member": self._member_id,
            "of_tenant": most_of_tenant, "of_actor": most_of_actor,
        }  # fmt: skip
        async with self._database.connection() as connection:
            row = await (await connection.execute(OPEN, values)).fetchone()
        return bool(row and row[1])

    async def resume(self, tenant_id: UUID, session_id: UUID, secret: str, incarnation: UUID) -> WorkerSession | None:
        values = {
            "session": session_id,
            "tenant": tenant_id,
            "incarnation": incarnation,
            "hash": _hash(secret),
            "member": self._member_id,
        }
        async with self._database.connection() as connection:
            row = await (await connection.execute(RESUME, values)).fetchone()
        return None if row is None else WorkerSession(*row[1:])

    async def seen(self, session_ids: Sequence[UUID]) -> Seen:
        async with self._database.connection() as connection:
            cursor = await connection.execute(SEEN, {"member": self._member_id, "sessions": list(session_ids)})
            row = await cursor.fetchone()
        assert row is not None
        return Seen(frozenset(row[1]), row[2])

    async def withdraw(self) -> None:
        async with self._database.connection() as connection:
            await connection.execute(WITHDRAW, [self._member_id])

    async def end(self, session_ids: Sequence[UUID]) -> None:
        async with self._database.connection() as connection:
            await connection.execute(END, [list(session_ids), self._member_id])

    async def offer(self, session_id: UUID, offered: Offered) -> None:
        values = {
            "session": session_id,
            "agents": list(offered.agents), "agent_versions": list(offered.agents.values()),
            "tools": list(offered.tools), "tool_versions": list(offered.tools.values()),
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(OFFER, values)

    async def of_tenant(
        self, tenant_id: UUID, *, limit: int = MOST_LISTED, after: tuple[str, UUID] | None = None
    ) -> list[ListedSession]:
        worker, session = after or (None, None)
        values = {"tenant": tenant_id, "worker": worker, "session": session, "limit": limit}
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(OF_TENANT, values)).fetchall()
        return [_listed(row) for row in rows]

    async def in_hand(self, tenant_id: UUID, session_id: UUID, *, limit: int) -> list[WorkInHand] | None:
        values = {"tenant": tenant_id, "session": session_id, "limit": limit}
        async with self._database.connection(tenant_id) as connection:
            rows = await (await connection.execute(IN_HAND, values)).fetchall()
        return [WorkInHand(*row) for row in rows if row[0] is not None] if rows else None

    async def offering(self, tenant_id: UUID, kind: str, names: Sequence[str]) -> Mapping[str, int]:
        values = {"tenant": tenant_id, "kind": kind, "names": list(names)}
        async with self._database.connection(tenant_id) as connection:
            return dict(await (await connection.execute(OFFERING, values)).fetchall())

    async def unoffered(self, *, waiting_s: float, limit: int) -> list[UnofferedWork]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(UNOFFERED, {"waiting": waiting_s, "limit": limit})).fetchall()
        return [UnofferedWork(*row) for row in rows]

    async def held_by(self, session_ids: Sequence[UUID]) -> KnownWork:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(HELD_BY, [list(session_ids)])).fetchall()
        return KnownWork(rows[0][0], [HeldWork(*row[1:]) for row in rows if row[1] is not None])

    async def over(self, session_ids: Sequence[UUID]) -> frozenset[UUID]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(OVER, [list(session_ids)])).fetchall()
        return frozenset(row[0] for row in rows)

    async def look(self, *, lease_s: float = LEASE_S, ready_s: float = READY_S) -> Look:
        async with self._database.connection() as connection:
            row = await (await connection.execute(LOOK, {"lease": lease_s, "ready": ready_s})).fetchone()
        assert row is not None
        now, ready, going_on, over, unseen = row
        return Look(now, ready, going_on, over, frozenset(unseen))

    async def lose(self, session_ids: Sequence[UUID], *, lease_s: float = LEASE_S) -> None:
        async with self._database.connection() as connection:
            await connection.execute(LOSE, {"sessions": list(session_ids), "lease": lease_s})

    async def lapsed(self, *, after: UUID | None, limit: int) -> list[LapsedWork]:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(LAPSED, {"after": after, "limit": limit})).fetchall()
        return [LapsedWork(HeldWork(*row[:6]), row[6]) for row in rows]

    async def tidy(self, *, kept_s: float = KEPT_S) -> None:
        async with self._database.connection() as connection:
            await connection.execute(TIDY, [kept_s])


class PostgresInstallationSecrets:
    """Implements the port `InstallationSecrets`. A migration made the secret."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def secret(self) -> bytes:
        async with self._database.connection() as connection:
            row = await (await connection.execute(SECRET)).fetchone()
        assert row is not None
        return bytes(row[0])
