"""Compares the live tables, row by row, with tables made from the log up to the same position.

The live side is read from one snapshot, so nothing waits for the comparison and the comparison waits for nothing. Server-side
cursors read both sides in the order of their keys, so memory does not grow with the tables.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pydantic_core
from psycopg.sql import SQL, Composed, Identifier
from pydantic import BaseModel

from domain import values
from projections.engine import versions
from projections.engine.kernel import Connection, Database, EarlierForm, Projection
from projections.engine.rebuild import jobs
from projections.engine.rebuild.backfill import Filler
from projections.engine.versions import Column

FETCH = 200
"""Rows of a table that are in memory at once, on each side."""
COUNT_EVERY = 2_000
MAX_SHOWN = 2_000
"""A difference shows at most so many characters of a value."""
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


class Difference(BaseModel):
    """The first row that differs from the log. Values as text; None: NULL, or no row."""

    table: str
    what: str
    """`changed`, `missing` (the log says there is one), `surplus` (the log knows nothing of it) or `columns`."""
    key: dict[str, str | None]
    column: str | None = None
    """The column. In a document also the place in it: `view/steps/0/status`."""
    live: str | None = None
    log: str | None = None
    position: int


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


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    """Columns of the primary key. Empty: rows are ordered by all columns."""
    due: str | None
    """See `Projection.taken_when_due`."""
    free: frozenset[str]
    """See `Projection.not_of_the_log`."""
    earlier: EarlierForm | None = None
    """Given if the table may have rows of an earlier form."""


@dataclass(frozen=True, slots=True)
class _Row:
    key: tuple[Any, ...]
    values: tuple[Any, ...]


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
                    return Outcome(_columns_differ(name, here.get(name, ()), there.get(name, ()), position), count.earlier)
                free = projection.not_of_the_log.get(name, frozenset())
                earlier = projection.earlier if projection.earlier is not None and projection.earlier.table == name else None
                table = _Table(name, here[name], keys.get(name, ()), projection.taken_when_due.get(name), free, earlier)
                pairs = _Comparison(table, position, now, count)
                found = await pairs.run(_rows(live, schema, table, "live"), _rows(made, build.schema, table, "made"))
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


class _Comparison:
    """Merges two tables in the order of their keys."""

    def __init__(self, table: _Table, position: int, now: datetime, count: _Count) -> None:
        self._table, self._position, self._now, self._count = table, position, now, count
        self._names = [column.name for column in table.columns]
        self._document = None if table.earlier is None else self._names.index(table.earlier.column)

    async def run(self, live: AsyncIterator[_Row], log: AsyncIterator[_Row]) -> Difference | None:
        ours, theirs = await anext(live, None), await anext(log, None)
        while ours is not None or theirs is not None:
            await self._count.one_more()
            if theirs is None or (ours is not None and ours.key < theirs.key):
                assert ours is not None
                return self._difference("surplus", ours)
            if ours is None or theirs.key < ours.key:
                if not self._was_due(theirs):
                    return self._difference("missing", theirs)
                theirs = await anext(log, None)
                continue
            if self._document is not None and ours.values[self._document] is not None:
                self._count.earlier += 1
            if ours.values != theirs.values:
                changed = self._changed(ours, theirs)
                await asyncio.sleep(0)  # many rows may differ in form only, and each may be a large document
                if changed is not None:
                    return changed
            ours, theirs = await anext(live, None), await anext(log, None)
        return None

    def _was_due(self, row: _Row) -> bool:
        column = self._table.due
        return column is not None and row.values[self._names.index(column)] <= self._now

    def _changed(self, live: _Row, log: _Row) -> Difference | None:
        for name, live_value, log_value in zip(self._names, live.values, log.values, strict=True):
            ours, theirs = self._contents(name, live_value, log_value)
            differ = ours != theirs and not (ours != ours and theirs != theirs)  # NaN is not equal to itself
            if differ and name not in self._table.free:
                place, here, there = _narrowed(name, ours, theirs)
                found = self._difference("changed", live)
                return found.model_copy(update={"column": place, "live": _shown(here), "log": _shown(there)})
        return None

    def _contents(self, name: str, live: Any, log: Any) -> tuple[Any, Any]:
        """What is to be equal of two values of a column: of documents of an earlier release, what they say."""
        earlier = self._table.earlier
        if earlier is None or name != earlier.column or live is None or log is None or live == log:
            return live, log
        try:
            return earlier.content(live), earlier.content(log)
        except ValueError:
            return live, log

    def _difference(self, what: str, row: _Row) -> Difference:
        keys = self._table.keys or tuple(self._names)
        key = {name: _shown(row.values[self._names.index(name)]) for name in keys}
        return Difference(table=self._table.name, what=what, key=key, position=self._position)


async def _keys(connection: Connection, schema: str, tables: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for table, column in await (await connection.execute(KEYS, [schema, list(tables)])).fetchall():
        found[table] = (*found.get(table, ()), column)
    return found


async def _rows(connection: Connection, schema: str, table: _Table, side: str) -> AsyncIterator[_Row]:
    order = _order(table)
    columns = SQL(", ").join(SQL("t.{}").format(Identifier(column.name)) for column in table.columns)
    names = SQL(", ").join(order), columns, Identifier(schema, table.name), SQL(", ").join(order)
    query = SQL("SELECT {}, {} FROM {} AS t ORDER BY {}").format(*names)
    async with connection.cursor(name=f"verify_{side}", binary=True) as cursor:
        cursor.itersize = FETCH
        await cursor.execute(query)
        async for row in cursor:
            yield _Row(row[: len(order)], row[len(order) :])


def _order(table: _Table) -> list[Composed]:
    """The expressions that order both sides: the primary key, or the whole row."""
    types = {column.name: column.type for column in table.columns}
    if not table.keys:
        return [SQL("t::text COLLATE {}").format(Identifier("C"))]
    native, text = SQL("t.{}"), SQL('t.{}::text COLLATE "C"')
    return [(native if types[key] in NATIVE else text).format(Identifier(key)) for key in table.keys]


def _columns_differ(table: str, live: tuple[Column, ...], log: tuple[Column, ...], position: int) -> Difference:
    def shown(columns: tuple[Column, ...]) -> str:
        return ", ".join(f"{c.name} {c.type}{' NOT NULL' if c.not_null else ''}" for c in columns)

    return Difference(table=table, what="columns", key={}, live=shown(live), log=shown(log), position=position)


def _narrowed(place: str, live: Any, log: Any) -> tuple[str, Any, Any]:
    """The first place where two documents differ."""
    if isinstance(live, bytes) and isinstance(log, bytes):
        try:
            live_document, log_document = values.read(live), values.read(log)
        except ValueError:
            return place, live, log
        return _first_in(place, live_document, log_document) or (place, live, log)
    return place, live, log


def _first_in(place: str, live: Any, log: Any) -> tuple[str, Any, Any] | None:
    if isinstance(live, dict) and isinstance(log, dict) and live.keys() == log.keys():
        inside = ((f"{place}/{name}", live[name], log[name]) for name in live)
    elif isinstance(live, list) and isinstance(log, list) and len(live) == len(log):
        inside = ((f"{place}/{i}", ours, theirs) for i, (ours, theirs) in enumerate(zip(live, log, strict=True)))
    else:
        return None if live == log else (place, live, log)
    return next((found for deeper in inside if (found := _first_in(*deeper)) is not None), None)


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        text = value.decode(errors="backslashreplace")
    elif isinstance(value, dict | list | bool | int | float):
        text = pydantic_core.to_json(value).decode()
    else:
        text = str(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
