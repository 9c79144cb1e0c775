"""Compares the live tables, row by row, with tables made from the log up to the same position.

The live side is read from one snapshot, so nothing waits for the comparison and the comparison waits for nothing. Server-side
cursors read both sides in the order of their keys, so memory does not grow with the tables.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pydantic_core
from psycopg.sql import SQL, Composed, Identifier

from projections.engine import versions
from projections.engine.kernel import Connection, Database, Projection
from projections.engine.rebuild import jobs
from projections.engine.rebuild.backfill import Filler
from projections.engine.rebuild.comparison import ComparedRow, ComparedTable, Comparison, Difference, columns_differ

FETCH = 200
"""Rows of a table that are in memory at once, on each side."""
COUNT_EVERY = 2_000
IDLE_MS = 600_000

REPEATABLE = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
IDLE_TIMEOUT = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"
LIVE = "SELECT position, clock_timestamp() FROM checkpoint WHERE name = %s"
KEYS = """
SELECT t.relname, a.attname
FROM pg_index AS x JOIN pg_class AS t ON t.oid = x.indrelid JOIN pg_namespace AS n ON n.oid = t.relnamespace
CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.attnum
WHERE x.indisprimary AND n.nspname = %s AND t.relname = ANY (%s) ORDER BY t.relname, k.place
"""
NATIVE = frozenset({"uuid", "smallint", "integer", "bigint", "timestamp with time zone", "date", "boolean"})
"""Types that PostgreSQL and Python order alike. Values of other types are ordered as text, byte by byte."""


@dataclass(frozen=True, slots=True)
class Outcome:
    difference: Difference | None
    """None: the tables are equal."""
    earlier_rows: int
    """Of the compared rows, those that are stored in the form of an earlier release."""

    def as_text(self) -> str | None:
        """As `projection_build` stores an outcome. None: there is nothing to tell."""
        told = self.difference.model_dump() if self.difference is not None else {}
        if self.earlier_rows:
            told[jobs.EARLIER_ROWS] = self.earlier_rows
        return pydantic_core.to_json(told).decode() if told else None


async def compare_with_live(database: Database, filler: Filler) -> Outcome:
    """Brings the filler's tables to the position of a snapshot of the live tables, and compares both, up to the first difference.

    Raises LostOwnership, Unavailable.
    """
    projection, build = filler.projection, filler.build
    async with database.connection() as live, _steady(live, projection) as schema:
        await live.execute(IDLE_TIMEOUT, [f"{IDLE_MS}ms"])
        row = await (await live.execute(LIVE, [build.projection])).fetchone()
        position, now = row if row is not None else (0, datetime.now(UTC))
        await filler.fill(until=position)
        async with database.connection() as made, made.transaction():
            here = await versions.columns(live, schema, projection.tables)
            there = await versions.columns(made, build.schema, projection.tables)
            keys = await _keys(live, schema, projection.tables)
            count = _Count(database, build)
            for name in projection.tables:
                if here.get(name) != there.get(name):
                    return Outcome(columns_differ(name, here.get(name, ()), there.get(name, ()), position), count.earlier)
                free = projection.not_of_the_log.get(name, frozenset())
                earlier = projection.earlier if projection.earlier is not None and projection.earlier.table == name else None
                table = ComparedTable(name, here[name], keys.get(name, ()), projection.taken_when_due.get(name), free, earlier)
                pairs = Comparison(table, position, now, count)
                async with (
                    aclosing(_rows(live, schema, table, "live")) as of_live,
                    aclosing(_rows(made, build.schema, table, "made")) as of_made,
                ):
                    found = await pairs.run(of_live, of_made)
                if found is not None:
                    return Outcome(found, count.earlier)
            await count.write()
    return Outcome(None, count.earlier)


@asynccontextmanager
async def _steady(live: Connection, projection: Projection) -> AsyncIterator[str]:
    """A transaction on one snapshot. Yields the schema of the live tables."""
    schema = await versions.live_schema(live)
    async with live.transaction():
        await live.execute(REPEATABLE)
        # The first query takes the snapshot. A swap between snapshot and lock would show tables whose rows are too new for the
        # snapshot.
        await versions.lock(live, schema, projection.tables, "ACCESS SHARE")
        yield schema


class _Count:
    """Counts the compared rows in the job's row, and notices there when the job has another owner."""

    def __init__(self, database: Database, build: jobs.Build) -> None:
        self._database, self._build = database, build
        self.rows = self.earlier = 0

    async def one_more(self) -> None:
        self.rows += 1
        if self.rows % COUNT_EVERY == 0:
            await self.write()

    async def write(self) -> None:
        async with self._database.connection() as connection:
            await jobs.count_rows(connection, self._build, self.rows)


async def _keys(connection: Connection, schema: str, tables: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for table, column in await (await connection.execute(KEYS, [schema, list(tables)])).fetchall():
        found[table] = (*found.get(table, ()), column)
    return found


async def _rows(connection: Connection, schema: str, table: ComparedTable, side: str) -> AsyncGenerator[ComparedRow]:
    order = _order(table)
    columns = SQL(", ").join(SQL("t.{}").format(Identifier(column.name)) for column in table.columns)
    names = SQL(", ").join(order), columns, Identifier(schema, table.name), SQL(", ").join(order)
    query = SQL("SELECT {}, {} FROM {} AS t ORDER BY {}").format(*names)
    async with connection.cursor(name=f"verify_{side}", binary=True) as cursor:
        cursor.itersize = FETCH
        await cursor.execute(query)
        async for row in cursor:
            yield ComparedRow(row[: len(order)], row[len(order) :])


def _order(table: ComparedTable) -> list[Composed]:
    """The expressions that order both sides: the primary key, or the whole row."""
    types = {column.name: column.type for column in table.columns}
    if not table.keys:
        return [SQL("t::text COLLATE {}").format(Identifier("C"))]
    native, text = SQL("t.{}"), SQL('t.{}::text COLLATE "C"')
    return [(native if types[key] in NATIVE else text).format(Identifier(key)) for key in table.keys]
