"""Checkpoints: read and advanced by compare-and-set, in the transaction of the rows they describe.

The comparison of the position makes an effect happen exactly once: rows are written only from the position at which they are. The
comparison of the epoch ends an owner that was replaced, even if both owners are at the same position. A runner that lost the answer
to its commit reads the checkpoint again, so that it need not give up its place.

Such a transaction does not wait for the disk, because the log gives its events again. PostgreSQL keeps the order of commits, so a
crash takes away the last moves, each with its rows, and never an event of the log before them. The owner notices that its
checkpoint has stepped back, and reads from there again. Parked events are waited for.

While another session holds an old snapshot, each move leaves a version behind. A look for a name begins at the oldest version of
the row, and walks over all of them. So looks that come often take the index from behind: the entries of one name stand in the order
of their places, and the newest version is at the end of the table. The function `checkpoint_position` (migration 0035) does so, and
leaves the planner no other way. At any other time, a look from behind costs the same.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from application.engine.ports.checkpoints import Checkpoint, LostOwnership, SteppedBack
from domain.errors import ProjectionBehind
from domain.kernel import RecordedEvent
from projections.engine.kernel import Connection, Database

TAKE = """
INSERT INTO checkpoint (name, position, epoch) SELECT name, 0, 1 FROM unnest(%s::text[]) AS name
ON CONFLICT (name) DO UPDATE SET epoch = checkpoint.epoch + 1
RETURNING name, position, epoch, ctid::text
"""
ADVANCE = """
UPDATE checkpoint SET position = %(new)s, updated_at = now()
FROM unnest(%(names)s::text[], %(olds)s::bigint[], %(epochs)s::bigint[]) AS known (known_name, known_position, known_epoch),
     current_setting('synchronous_commit') AS given,
     set_config('synchronous_commit', CASE WHEN NOT %(flushed)s THEN 'off' WHEN given = 'off' THEN 'on' ELSE given END, true)
WHERE name = known_name AND epoch = known_epoch AND (position = known_position OR (%(repeatable)s AND position = %(new)s))
RETURNING name, checkpoint.ctid::text
"""
# The same for checkpoints that are still where their owner left them.
ADVANCE_AT = """
UPDATE checkpoint SET position = %(new)s, updated_at = now()
FROM unnest(%(names)s::text[], %(olds)s::bigint[], %(epochs)s::bigint[], %(places)s::tid[])
         AS known (known_name, known_position, known_epoch, known_place),
     current_setting('synchronous_commit') AS given,
     set_config('synchronous_commit', CASE WHEN NOT %(flushed)s THEN 'off' WHEN given = 'off' THEN 'on' ELSE given END, true)
WHERE ctid = known_place AND name = known_name AND epoch = known_epoch
  AND (position = known_position OR (%(repeatable)s AND position = %(new)s))
RETURNING name, checkpoint.ctid::text
"""
READ = "SELECT name, position, epoch, ctid::text FROM checkpoint WHERE name = ANY (%s)"
PARK = """
INSERT INTO parked_event (consumer, position, root_id, tenant_id, topic, error)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
POSITIONS = "SELECT name, position FROM checkpoint"
POSITION_OF = "SELECT checkpoint_position(%(name)s)"


async def take(connection: Connection, names: Sequence[str]) -> dict[str, Checkpoint]:
    """Becomes the owner of the named checkpoints and reads them. The next advance of an earlier owner fails."""
    rows = await (await connection.execute(TAKE, [list(names)])).fetchall()
    return {name: Checkpoint(position, epoch, place) for name, position, epoch, place in rows}


async def read(connection: Connection, names: Sequence[str]) -> dict[str, Checkpoint]:
    rows = await (await connection.execute(READ, [list(names)])).fetchall()
    return {name: Checkpoint(position, epoch, place) for name, position, epoch, place in rows}


async def advance(
    connection: Connection, known: dict[str, Checkpoint], position: int, *, repeatable: bool = False, flushed: bool = False
) -> dict[str, Checkpoint]:
    """Moves the checkpoints to a position, in the caller's transaction. Raises LostOwnership.

    `repeatable`: the same move by the same owner may come twice. For consumers that write no rows in the transaction. `flushed`:
    the commit waits for the disk.
    """
    shared = {"flushed": flushed, "repeatable": repeatable, "new": position}
    moved = await _move(connection, {name: c for name, c in known.items() if c.place is not None}, shared, at_place=True)
    if len(moved) != len(known):
        moved |= await _move(connection, {name: c for name, c in known.items() if name not in moved}, shared, at_place=False)
    if len(moved) != len(known):
        raise moved_away(known, await read(connection, list(known))) or LostOwnership(
            f"the checkpoints of {', '.join(known)} moved"
        )
    return {name: Checkpoint(position, c.epoch, moved[name]) for name, c in known.items()}


async def _move(
    connection: Connection, known: Mapping[str, Checkpoint], shared: Mapping[str, object], *, at_place: bool
) -> dict[str, str]:
    """Names and places of the checkpoints that have moved."""
    if not known:
        return {}
    parameters = {
        **shared,
        "names": list(known),
        "olds": [c.position for c in known.values()],
        "epochs": [c.epoch for c in known.values()],
        "places": [c.place for c in known.values()],
    }
    cursor = await (connection.execute(ADVANCE_AT, parameters) if at_place else connection.execute(ADVANCE, parameters))
    return dict(await cursor.fetchall())  # in pipeline mode rowcount is not known yet


def moved_away(known: Mapping[str, Checkpoint], found: Mapping[str, Checkpoint]) -> LostOwnership | None:
    """Why checkpoints are not where their owner knows them to be. None: they are there, or farther on."""
    if any(name not in found or found[name].epoch != mine.epoch for name, mine in known.items()):
        return LostOwnership(f"another process owns one of {', '.join(known)}")
    if back := [name for name, mine in known.items() if found[name].position < mine.position]:
        return SteppedBack(f"the database lost the last moves of {', '.join(back)}")
    return None


async def park(connection: Connection, name: str, event: RecordedEvent, error: str) -> None:
    values = (name, event.position, event.root_id, event.tenant_id, event.topic, error[:10_000].replace("\x00", ""))
    await connection.execute(PARK, values)


class PostgresCheckpoints:
    """The `Checkpoints` port: for consumers whose effects are commands."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, names: Sequence[str]) -> dict[str, Checkpoint]:
        async with self._database.connection() as connection:
            return await take(connection, names)

    async def advance(self, known: dict[str, Checkpoint], position: int) -> dict[str, Checkpoint]:
        async with self._database.connection() as connection:
            # An advance whose answer was lost with the connection is tried again.
            return await advance(connection, known, position, repeatable=True)

    async def park(self, name: str, event: RecordedEvent, error: str) -> None:
        async with self._database.connection() as connection:
            await park(connection, name, event, error)


async def positions(connection: Connection) -> dict[str, int]:
    """Position by consumer."""
    return dict(await (await connection.execute(POSITIONS)).fetchall())


async def parked(connection: Connection) -> dict[str, int]:
    """Number of parked events by consumer. Events that a version beside the live one parked do not count."""
    sql = "SELECT consumer, count(*) FROM parked_event WHERE strpos(consumer, '@') = 0 GROUP BY consumer"
    return dict(await (await connection.execute(sql)).fetchall())


@asynccontextmanager
async def reading(database: Database, read_model: str, tenant_id: UUID) -> AsyncIterator[tuple[Connection, int]]:
    """A connection to ask a read model about a tenant, and the position that the read model had before it is asked."""
    async with database.connection(tenant_id) as connection:
        yield connection, await position_of(connection, read_model)


@asynccontextmanager
async def reading_at(database: Database, read_model: str, position: int, tenant_id: UUID) -> AsyncIterator[Connection]:
    """A connection to ask a read model that has a position about a tenant. Raises ProjectionBehind."""
    async with reading(database, read_model, tenant_id) as (connection, reached):
        if reached < position:
            raise ProjectionBehind(f"the read model '{read_model}' is at position {reached}, not yet at {position}")
        yield connection


async def position_of(connection: Connection, read_model: str) -> int:
    """The position of a read model, as the transaction of the connection sees it."""
    [(position,)] = await (await connection.execute(POSITION_OF, {"name": read_model})).fetchall()
    return position or 0
