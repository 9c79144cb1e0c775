"""Parked events: listing events that a consumer put aside, and applying them again.

A retry must not be overtaken by live events of the same root. It locks the projection's tables and checkpoint, as the runner's own
transaction does and in the same order, and raises the epoch. So the owner reads again which roots have parked events.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from application.engine.ports.log import EventFeed
from application.engine.ports.pages import Page, encode_cursor
from application.engine.ports.parked import ParkedView, Retried
from domain.errors import InvalidState, Unavailable
from domain.kernel import RecordedEvent
from projections.engine import versions
from projections.engine.kernel import Connection, Database, Projection

LOCK_MS = 2_000

FIND = """
SELECT position, root_id, tenant_id, topic, error, parked_at FROM parked_event
WHERE consumer = ANY (%s) AND position > %s ORDER BY position, consumer LIMIT %s
"""
ROOTS = "SELECT root_id FROM parked_event WHERE consumer = ANY (%s) GROUP BY root_id ORDER BY min(position) LIMIT %s"
OF_ROOT = "SELECT position FROM parked_event WHERE consumer = ANY (%s) AND root_id = %s ORDER BY position"
UNPARK = "DELETE FROM parked_event WHERE consumer = ANY (%s) AND root_id = %s AND position = ANY (%s)"
CHECKPOINT = "SELECT position FROM checkpoint WHERE name = %s FOR UPDATE"
NEW_EPOCH = "UPDATE checkpoint SET epoch = epoch + 1 WHERE name = %s"
LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"

log = structlog.get_logger(__name__)


async def list_parked(connection: Connection, consumers: Sequence[str], *, limit: int, after: int) -> Page[ParkedView]:
    """In the order of the log."""
    rows = await (await connection.execute(FIND, [list(consumers), after, limit + 1])).fetchall()
    data = [ParkedView(position=r[0], root_id=r[1], tenant_id=r[2], topic=r[3], error=r[4], since=r[5]) for r in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].position)) if len(rows) > limit else None)


async def roots(connection: Connection, consumers: Sequence[str], limit: int) -> list[UUID]:
    """Roots with parked events, the root with the oldest event first."""
    return [row[0] for row in await (await connection.execute(ROOTS, [list(consumers), limit])).fetchall()]


async def positions(connection: Connection, consumers: Sequence[str], root_id: UUID) -> list[int]:
    """Positions of a root's parked events, in order."""
    return [row[0] for row in await (await connection.execute(OF_ROOT, [list(consumers), root_id])).fetchall()]


async def unpark(connection: Connection, consumers: Sequence[str], root_id: UUID, done: Sequence[int]) -> None:
    await connection.execute(UNPARK, [list(consumers), root_id, list(done)])


async def retry(database: Database, feed: EventFeed, projection: Projection, root_id: UUID) -> Retried:
    """Applies the parked events of a root in order, in one transaction, and un-parks them; or changes nothing.

    Raises Unavailable if the projection does not release its tables in time.
    """
    async with database.connection() as connection:
        parked = await positions(connection, [projection.name], root_id)
    if not parked:
        return Retried(root_id, 0)
    known = {event.position: event for event in await feed.at(parked)}
    try:
        applied = await _apply(database, feed, projection, root_id, known)
    except (Unavailable, InvalidState):
        raise
    except Exception as error:  # noqa: BLE001  # the handler still fails, for whatever reason: the caller is told
        return Retried(root_id, len(parked), f"{type(error).__name__}: {error}")
    if applied:
        log.info("parked_events_retried", projection=projection.name, root_id=str(root_id), events=applied)
    return Retried(root_id, applied)


async def _apply(
    database: Database, feed: EventFeed, projection: Projection, root_id: UUID, known: dict[int, RecordedEvent]
) -> int:
    """Applies the known parked events, and the few that were parked since. Answers how many events were applied.

    Events that were parked since are read under the lock. Otherwise a root with many live events could never be retried.
    """
    name = projection.name
    async with database.connection() as connection, connection.transaction():
        await connection.execute(LOCK_TIMEOUT, [f"{LOCK_MS}ms"])
        await versions.lock(connection, await versions.live_schema(connection), projection.tables, "SHARE ROW EXCLUSIVE")
        await connection.execute(CHECKPOINT, [name])
        parked = await positions(connection, [name], root_id)
        if not parked:
            return 0  # another retry was faster
        if since := [position for position in parked if position not in known]:
            known |= {event.position: event for event in await feed.at(since)}
        await projection.apply(connection, [known[position] for position in parked])
        await unpark(connection, [name], root_id, parked)
        await connection.execute(NEW_EPOCH, [name])
    return len(parked)


class PostgresParkedEvents:
    """The port `ParkedEvents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, consumers: Sequence[str], *, limit: int, after: int) -> Page[ParkedView]:
        async with self._database.connection() as connection:
            return await list_parked(connection, consumers, limit=limit, after=after)

    async def roots(self, consumers: Sequence[str], limit: int) -> Sequence[UUID]:
        async with self._database.connection() as connection:
            return await roots(connection, consumers, limit)

    async def positions(self, consumers: Sequence[str], root_id: UUID) -> Sequence[int]:
        async with self._database.connection() as connection:
            return await positions(connection, consumers, root_id)

    async def unpark(self, consumers: Sequence[str], root_id: UUID, done: Sequence[int]) -> None:
        async with self._database.connection() as connection:
            await unpark(connection, consumers, root_id, done)
