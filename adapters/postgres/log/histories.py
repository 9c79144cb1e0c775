"""The histories of the log in the database (`HistoryStore`)."""

from typing import Any

from psycopg import AsyncCursor, errors

from adapters.postgres.log.identity import identify
from adapters.postgres.pool import Connection, Connections, translate_errors
from application.engine.reading.histories import Histories, History, LogState, Mark, Server

Cursor = AsyncCursor[tuple[Any, ...]]

CHANNEL = "tidelog_history"
"""Notified when a history begins."""

READ = """
SELECT number, history_id, replaces, last_common, cause, reason, began_at, seal_key, log_position()
FROM history ORDER BY number
"""
MARK = "SELECT log_id, timeline, started_at, position, earlier_position FROM history_mark"
STARTED = "SELECT pg_postmaster_start_time()"
# Not pg_control_checkpoint(): it learns of a new timeline only at the next checkpoint.
TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

# Only on the server that was identified before: after a failover in between, the mark would describe another server.
NOTE = """
UPDATE history_mark AS mark SET
    log_id = %(log_id)s, timeline = %(timeline)s, started_at = %(started_at)s, position = log_head.position,
    earlier_position = CASE WHEN mark.started_at = %(started_at)s THEN mark.earlier_position ELSE mark.position END
FROM log_head
WHERE pg_postmaster_start_time() = %(started_at)s
  AND (log_head.position, %(log_id)s, %(timeline)s, %(started_at)s)
      IS DISTINCT FROM (mark.position, mark.log_id, mark.timeline, mark.started_at)
"""
# While the head is locked, nobody appends and nobody else begins a history.
LOCK = "SELECT position FROM log_head FOR UPDATE"
CURRENT = "SELECT history_id FROM history ORDER BY number DESC LIMIT 1"
BEGIN = """
INSERT INTO history (number, replaces, last_common, cause, reason)
SELECT max(number) + 1, %(replaces)s, least(%(last_common)s::bigint, %(head)s), %(cause)s, %(reason)s FROM history
RETURNING last_common
"""
MARK_ANEW = """
UPDATE history_mark SET log_id = %(log_id)s, timeline = %(timeline)s, started_at = %(started_at)s, position = %(head)s,
    earlier_position = %(last_common)s
"""
NOTIFY = "SELECT pg_notify('tidelog_history', history_id) FROM history ORDER BY number DESC LIMIT 1"


class PostgresHistories:
    def __init__(self, pool: Connections) -> None:
        self._pool = pool

    async def read(self) -> LogState:
        with translate_errors():
            async with self._pool.connection() as connection:
                rows = await (await connection.execute(READ)).fetchall()
        return LogState(Histories(tuple(History(*row[:-1]) for row in rows)), rows[0][-1])

    async def server(self) -> tuple[Mark, Server]:
        with translate_errors():
            async with self._pool.connection() as connection:
                server = await _server(connection)
                log_id, timeline, started_at, position, earlier = await _only(await connection.execute(MARK))
        before = None if log_id is None else Server(log_id, timeline, started_at)
        return Mark(before, position, earlier), server

    async def note(self, server: Server) -> None:
        with translate_errors():
            async with self._pool.connection() as connection:
                await connection.execute(NOTE, _parameters(server))

    async def begin(self, *, after: str, replaces: str, last_common: int, cause: str, reason: str) -> bool:
        begun: dict[str, Any] = {"replaces": replaces, "last_common": last_common, "cause": cause, "reason": reason}
        with translate_errors():
            async with self._pool.connection() as connection:
                server = await _server(connection)
                async with connection.transaction():
                    [begun["head"]] = await _only(await connection.execute(LOCK))
                    [current] = await _only(await connection.execute(CURRENT))  # takes its snapshot after the lock
                    if current != after:
                        return False
                    [begun["last_common"]] = await _only(await connection.execute(BEGIN, begun))
                    await connection.execute(MARK_ANEW, begun | _parameters(server))
                    await connection.execute(NOTIFY)
                    return True


async def _server(connection: Connection) -> Server:
    """Needs a connection outside of a transaction: a PostgreSQL that cannot tell its timeline raises an error."""
    log_id = await identify(connection)
    [started_at] = await _only(await connection.execute(STARTED))
    try:
        [timeline] = await _only(await connection.execute(TIMELINE))
    except (
        errors.ObjectNotInPrerequisiteState,
        errors.InsufficientPrivilege,
        errors.FeatureNotSupported,
        errors.UndefinedFunction,
    ):
        timeline = None  # the server is in recovery, or has no write-ahead log of the usual kind
    return Server(log_id, timeline, started_at)


async def _only(cursor: Cursor) -> tuple[Any, ...]:
    row = await cursor.fetchone()
    assert row is not None
    return row


def _parameters(server: Server) -> dict[str, Any]:
    return {"log_id": server.log_id, "timeline": server.timeline, "started_at": server.started_at}
