"""Versions of a read model: live tables, tables being built and tables that are kept, each version in a schema of its own.

Moving a table to another schema changes one row of PostgreSQL's catalog. That takes as long for a thousand rows as for a billion,
and a statement that waited for the lock finds the table that has the name afterwards. Indexes have the same names in each schema,
so that a later migration finds them whichever version is live.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from domain.errors import InvalidState
from projections.engine.kernel import Connection, Projection

Place = Literal["rebuild", "previous", "verify"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""A name of a projection or a table: safe, and short enough to be part of a schema's name."""

LIVE_SCHEMA = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'checkpoint'::regclass"
USE = "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), true)"

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE n.nspname = %s AND c.relname = ANY (%s) AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""
# Indexes with the same definition are paired. An index that belongs to a constraint is renamed with its constraint.
MISNAMED_INDEXES = """
WITH known AS (
    SELECT n.nspname AS place, t.relname AS of_table, i.relname AS name,
           definition, x.indisprimary, x.indisunique,
           row_number() OVER (
               PARTITION BY n.nspname, t.relname, definition, x.indisprimary, x.indisunique ORDER BY i.relname
           ) AS nth
    FROM pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_class AS t ON t.oid = x.indrelid
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    CROSS JOIN LATERAL (SELECT substring(pg_get_indexdef(i.oid) FROM ' USING .*')) AS d (definition)
    WHERE n.nspname IN (%(live)s, %(made)s) AND t.relname = ANY (%(tables)s)
)
SELECT made.name, live.name FROM known AS made
JOIN known AS live USING (of_table, definition, indisprimary, indisunique, nth)
WHERE made.place = %(made)s AND live.place = %(live)s AND made.name <> live.name
"""
GRANTS = """
SELECT c.relname, g.privilege_type, g.attname, CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee) END
FROM pg_class AS c CROSS JOIN LATERAL (
    SELECT privilege_type, NULL::name AS attname, grantee FROM aclexplode(c.relacl)
    UNION ALL
    SELECT x.privilege_type, a.attname, x.grantee FROM pg_attribute AS a CROSS JOIN LATERAL aclexplode(a.attacl) AS x
    WHERE a.attrelid = c.oid AND NOT a.attisdropped
) AS g
WHERE c.relnamespace = %s::regnamespace AND c.relname = ANY (%s) AND g.grantee <> c.relowner
"""
POLICIES = """
SELECT tablename, policyname, permissive, cmd,
    (SELECT array_agg(CASE r WHEN 'public' THEN NULL ELSE r END) FROM unnest(roles) AS r), qual, with_check
FROM pg_policies WHERE schemaname = %s AND tablename = ANY (%s)
"""
WALLED = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relname = ANY (%s) AND relrowsecurity"
OPTIONS = """
SELECT c.relname, o.names, o.value FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
CROSS JOIN LATERAL (
    SELECT ARRAY[option_name], option_value FROM pg_options_to_table(c.reloptions)
    UNION ALL
    SELECT ARRAY['toast', option_name], option_value FROM pg_options_to_table(t.reloptions)
) AS o (names, value)
WHERE c.relnamespace = %s::regnamespace AND c.relname = ANY (%s)
"""
FOREIGN = """
SELECT DISTINCT other FROM (
    SELECT r.ev_class AS oid, d.refobjid AS used FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
    UNION ALL
    SELECT conrelid, confrelid FROM pg_constraint WHERE contype = 'f'
) AS uses
JOIN pg_class AS mine ON mine.oid = uses.used
CROSS JOIN LATERAL (SELECT uses.oid::regclass::text) AS o (other)
WHERE mine.relnamespace = %(schema)s::regnamespace AND mine.relname = ANY (%(tables)s)
  AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = uses.oid AND c.relnamespace = %(schema)s::regnamespace
                    AND c.relname = ANY (%(tables)s))
"""
HOLDERS = """
SELECT DISTINCT a.pid, a.application_name, coalesce(a.state, '') FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
JOIN pg_class AS c ON c.oid = l.relation
WHERE l.granted AND a.pid <> pg_backend_pid() AND c.relnamespace = %s::regnamespace AND c.relname = ANY (%s) ORDER BY 1 LIMIT 10
"""


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    not_null: bool


def schema_of(place: Place, projection: str) -> str:
    return f"{place}_{projection}"


async def live_schema(connection: Connection) -> str:
    """The schema in which migrations made our tables: `public`, unless the deployment's search_path says otherwise."""
    row = await (await connection.execute(LIVE_SCHEMA)).fetchone()
    assert row is not None
    return str(row[0])


async def use(connection: Connection, schema: str) -> None:
    """Makes unqualified names mean tables of this schema first, until the end of the transaction."""
    await connection.execute(USE, [schema])


async def columns(connection: Connection, schema: str, tables: Sequence[str]) -> dict[str, tuple[Column, ...]]:
    """Table → its columns in order. A table that does not exist is left out."""
    found: dict[str, list[Column]] = {}
    for table, *column in await (await connection.execute(COLUMNS, [schema, list(tables)])).fetchall():
        found.setdefault(table, []).append(Column(*column))
    return {table: tuple(of_table) for table, of_table in found.items()}


async def drop(connection: Connection, schema: str, tables: Sequence[str]) -> None:
    """Drops a version that is not live, if it exists. Raises InvalidState if other objects depend on it."""
    others = await _users_of(connection, schema, tables)
    if others:
        raise InvalidState(f"{schema} is used by {others}")
    await connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


async def make(connection: Connection, projection: Projection, schema: str) -> None:
    """Makes empty tables in a new schema, in the caller's transaction: by the plug-in's statements, or like the live tables.

    Raises InvalidState.
    """
    live = await live_schema(connection)
    await drop(connection, schema, projection.tables)
    await connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    if projection.ddl:
        await use(connection, schema)
        await run_ddl(connection, projection, schema)
    else:
        for table in projection.tables:
            names = sql.Identifier(schema, table), sql.Identifier(live, table)
            await connection.execute(sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(*names))
        await _set_options(connection, live, schema, projection.tables)
    await _name_indexes(connection, live, schema, projection.tables)
    cursor = await connection.execute(GRANTS, [live, list(projection.tables)])
    for table, privilege, column, grantee in await cursor.fetchall():
        to = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
        what = sql.SQL(privilege) if column is None else sql.SQL("{} ({})").format(sql.SQL(privilege), sql.Identifier(column))
        await connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(what, sql.Identifier(schema, table), to))
    await _set_policies(connection, live, schema, projection.tables)


async def run_ddl(connection: Connection, projection: Projection, schema: str) -> None:
    """Runs the statements of a plug-in in the first schema of the search_path, and checks that they made its tables there.

    Raises InvalidState.
    """
    for statement in projection.ddl:
        await connection.execute(statement.encode())
    missing = set(projection.tables) - (await columns(connection, schema, projection.tables)).keys()
    if missing:
        raise InvalidState(f"the statements of projection '{projection.name}' did not make {', '.join(sorted(missing))}")


async def _set_options(connection: Connection, live: str, made: str, tables: Sequence[str]) -> None:
    """Copies the storage parameters of tables, such as `fillfactor`. `LIKE` copies those of indexes only."""
    for table, option, value in await (await connection.execute(OPTIONS, [live, list(tables)])).fetchall():
        parts = sql.Identifier(made, table), sql.Identifier(*option), sql.Literal(value)
        await connection.execute(sql.SQL("ALTER TABLE {} SET ({} = {})").format(*parts))


async def _set_policies(connection: Connection, live: str, made: str, tables: Sequence[str]) -> None:
    """Copies row-level security: which rows whom a table shows."""
    for (table,) in await (await connection.execute(WALLED, [live, list(tables)])).fetchall():
        await connection.execute(sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(sql.Identifier(made, table)))
    for table, name, kind, command, roles, using, check in await (
        await connection.execute(POLICIES, [live, list(tables)])
    ).fetchall():
        to = sql.SQL(", ").join(sql.SQL("PUBLIC") if role is None else sql.Identifier(role) for role in roles)
        parts = [
            sql.SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}").format(
                sql.Identifier(name), sql.Identifier(made, table), sql.SQL(kind), sql.SQL(command), to
            ),
            *([sql.SQL("USING ({})").format(sql.SQL(using))] if using is not None else []),
            *([sql.SQL("WITH CHECK ({})").format(sql.SQL(check))] if check is not None else []),
        ]
        await connection.execute(sql.SQL(" ").join(parts))


async def _name_indexes(connection: Connection, live: str, made: str, tables: Sequence[str]) -> None:
    cursor = await connection.execute(MISNAMED_INDEXES, {"live": live, "made": made, "tables": list(tables)})
    pairs = await cursor.fetchall()
    aside = [f"renamed_{number}" for number in range(len(pairs))]  # renamed first: another index may need the name
    steps = [*zip((wrong for wrong, _ in pairs), aside, strict=True), *zip(aside, (right for _, right in pairs), strict=True)]
    for old, new in steps:
        names = sql.Identifier(made, old), sql.Identifier(new)
        await connection.execute(sql.SQL("ALTER INDEX {} RENAME TO {}").format(*names))


async def check_exchangeable(connection: Connection, projection: Projection, place: Place) -> None:
    """Whether a version can go live. Raises InvalidState.

    A migration may have changed the live tables since the version was made. And a view or foreign key of somebody else would still
    point to the tables that it was made for.
    """
    live, schema = await live_schema(connection), schema_of(place, projection.name)
    theirs, ours = await columns(connection, schema, projection.tables), await columns(connection, live, projection.tables)
    if theirs.keys() != set(projection.tables):
        raise InvalidState(f"tables of projection '{projection.name}' are missing in {schema}")
    if theirs != ours and (place != "rebuild" or not projection.ddl):
        raise InvalidState(f"the tables of projection '{projection.name}' were changed since this version of them was made")
    await check_unused(connection, projection)


async def check_unused(connection: Connection, projection: Projection) -> None:
    """Raises InvalidState if an object that is not the projection's own depends on its live tables."""
    others = await _users_of(connection, await live_schema(connection), projection.tables)
    if others:
        raise InvalidState(
            f"the live tables of projection '{projection.name}' are used by {others}, which a swap would leave behind"
        )


async def _users_of(connection: Connection, schema: str, tables: Sequence[str]) -> str:
    exists = await (await connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [schema])).fetchone()
    if exists != (True,):
        return ""
    cursor = await connection.execute(FOREIGN, {"schema": schema, "tables": list(tables)})
    return ", ".join(sorted(row[0] for row in await cursor.fetchall()))


LockMode = Literal["ACCESS EXCLUSIVE", "SHARE ROW EXCLUSIVE", "ACCESS SHARE"]


async def lock(connection: Connection, live: str, tables: Sequence[str], mode: LockMode) -> None:
    """Locks live tables, before the checkpoint: the runner takes its locks in the same order. `live`: their schema."""
    for table in tables:
        await connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(live, table), sql.SQL(mode)))


async def holders(connection: Connection, tables: Sequence[str]) -> str:
    """The sessions that hold locks on live tables, as text for people."""
    cursor = await connection.execute(HOLDERS, [await live_schema(connection), list(tables)])
    return ", ".join(f"session {pid} ({name or 'unnamed'}, {state})" for pid, name, state in await cursor.fetchall())


async def exchange(connection: Connection, projection: Projection) -> None:
    """The version in `rebuild_…` goes live, the live one to `previous_…`, which must be free. The caller holds the locks."""
    live, made = await live_schema(connection), schema_of("rebuild", projection.name)
    kept = schema_of("previous", projection.name)
    await connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(kept)))
    for source, target in ((live, kept), (made, live)):
        for table in projection.tables:
            names = sql.Identifier(source, table), sql.Identifier(target)
            await connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(*names))
    await connection.execute(sql.SQL("DROP SCHEMA {} RESTRICT").format(sql.Identifier(made)))  # an object that is left was not ours


async def rename(connection: Connection, projection: str, old: Place, new: Place) -> None:
    names = sql.Identifier(schema_of(old, projection)), sql.Identifier(schema_of(new, projection))
    await connection.execute(sql.SQL("ALTER SCHEMA {} RENAME TO {}").format(*names))
