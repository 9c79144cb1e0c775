"""Upkeep in PostgreSQL: pruning the dedupe keys of commands, and the record of all chores."""

import asyncio
from collections.abc import Sequence

from adapters.postgres.database import Database
from application.engine.ports.upkeep import UpkeepRun, UpkeepState

BLOCKS = 256
"""Blocks of 8 KiB that one statement goes through."""
PAUSE_S = 0.05
"""Seconds between two statements, in which others have the disk."""

BOUNDS = """
SELECT least(
           (SELECT CASE WHEN count(*) = cardinality(%(consumers)s::text[]) THEN min(position) ELSE 0 END
            FROM checkpoint WHERE name = ANY (%(consumers)s)),
           (SELECT min(position) FROM parked_event WHERE consumer = ANY (%(parking)s))
       ),
       greatest('epoch', least(now(), recorded_at) - make_interval(secs => %(older_than)s)),
       pg_relation_size('command') / current_setting('block_size')::bigint
FROM log_head
"""
# Rows lie in the order in which they were made, so a range of blocks is a range of time. An index by time would cost every append.
PRUNE = """
DELETE FROM command WHERE ctid >= format('(%%s,0)', %(first)s::bigint)::tid AND ctid < format('(%%s,0)', %(end)s::bigint)::tid
AND recorded_at < %(before)s AND last_position <= %(bound)s
"""
RECORD = """
INSERT INTO upkeep (name, every_seconds, ended_at, succeeded_at, seconds, removed, removed_in_all, error)
VALUES (%(name)s, %(every)s, now(), CASE WHEN %(error)s::text IS NULL THEN now() END, %(seconds)s, %(removed)s, %(removed)s,
        %(error)s)
ON CONFLICT (name) DO UPDATE SET
    every_seconds = EXCLUDED.every_seconds, ended_at = EXCLUDED.ended_at,
    succeeded_at = coalesce(EXCLUDED.succeeded_at, upkeep.succeeded_at), seconds = EXCLUDED.seconds, removed = EXCLUDED.removed,
    removed_in_all = upkeep.removed_in_all + EXCLUDED.removed, error = EXCLUDED.error
"""
STATES = """
SELECT name, every_seconds, ended_at, extract(epoch FROM now() - ended_at)::float8,
       extract(epoch FROM now() - succeeded_at)::float8, seconds, removed, removed_in_all, error
FROM upkeep ORDER BY name
"""


class PostgresRecordedCommands:
    """The port `RecordedCommands`: goes once through the whole table, a bounded number of blocks with each statement."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, *, older_than_s: float, consumers: Sequence[str], parking: Sequence[str]) -> int:
        wanted = {"older_than": older_than_s, "consumers": list(consumers), "parking": list(parking)}
        async with self._database.connection() as connection:
            row = await (await connection.execute(BOUNDS, wanted)).fetchone()
        bound, before, blocks = row if row is not None else (0, None, 0)
        removed = 0
        for first in range(0, blocks if bound else 0, BLOCKS):
            if first:
                await asyncio.sleep(PAUSE_S)
            part = {"first": first, "end": first + BLOCKS, "before": before, "bound": bound}
            async with self._database.connection() as connection:
                removed += (await connection.execute(PRUNE, part)).rowcount
        return removed


class PostgresUpkeepRuns:
    """The port `UpkeepRuns`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, run: UpkeepRun) -> None:
        values = {
            "name": run.name, "every": run.every_s, "seconds": run.seconds, "removed": run.removed,
            "error": None if run.error is None else run.error[:10_000].replace("\x00", ""),
        }  # fmt: skip
        async with self._database.connection() as connection:
            await connection.execute(RECORD, values)

    async def states(self) -> Sequence[UpkeepState]:
        async with self._database.connection() as connection:
            return [UpkeepState(*row) for row in await (await connection.execute(STATES)).fetchall()]
