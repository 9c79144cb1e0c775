"""Who may do what in the database: four roles, their grants, and row-level security. Decision 0083.

One login is a member of the roles. Each connection takes one of them when it is opened (`pool.Rights`):

owner   owns the log. Nobody takes it; the login has its rights, because it migrates
log     owns the functions that append, which run with its rights (SECURITY DEFINER)
app     commands and the process's own work: appends by those functions, reads every tenant, owns the read models
reader  reads of requests: sees the rows of one tenant, and changes nothing

The names begin with the name of the login that migrates. So two installations on one server share no role.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
import structlog
from psycopg.sql import SQL, Composable, Identifier

from adapters.postgres.pool import MAY_TAKE, Connection, Connections, translate_errors

log = structlog.get_logger(__name__)

LEAST_VERSION = 160_000
"""The first PostgreSQL in which a login can be a member of a role without having its rights, and its policies, all the time."""

Cursor = psycopg.AsyncCursor[tuple[Any, ...]]
Holder = Literal["owner", "app"]


@dataclass(frozen=True, slots=True)
class Table:
    """`app`: what the role may do with a table of the owner. `reader`: the columns that it may read; all, or none."""

    owner: Holder
    app: str = ""
    reader: Literal["all", "none"] = "none"
    hidden: tuple[str, ...] = ()
    """Columns that the role reader may not read although it may read the others."""
    wall: str = ""
    """The condition of the rows that the role reader sees. Empty: no row is of a tenant, or the reader sees none."""


OF_TENANT = "CASE WHEN tenant_id = (SELECT reading_tenant()) THEN true ELSE false END"
"""A form that the planner sees nothing in. Of an equality it would conclude that the tenant's rows are in the order of positions,
and walk through the log of all tenants to find those of a small one. And it would count the condition twice, because each statement
has it, too: every tenant would seem to have hardly a row. The subquery is evaluated once for a statement."""
OF_SESSION = "EXISTS (SELECT FROM worker_session AS s WHERE s.session_id = worker_offer.session_id)"


def _walled(owner: Holder = "app", app: str = "", hidden: tuple[str, ...] = ()) -> Table:
    return Table(owner, app, "all", hidden, OF_TENANT)


TABLES: dict[str, Table] = {
    # the log
    "event": _walled("owner", "SELECT"),
    "command": _walled("owner", "SELECT, DELETE"),
    "log_head": Table("owner", "SELECT, UPDATE (singleton)", "all"),  # UPDATE of a column that cannot change: to lock the row
    "history": Table("owner", "SELECT, INSERT", "all"),
    "history_mark": Table("owner", "SELECT, UPDATE"),
    "log_identity": Table("owner", "SELECT, UPDATE"),
    "tracking": Table("owner", "SELECT, INSERT, UPDATE"),
    # the installation
    "schema_migration": Table("owner", "SELECT"),
    "access_rights": Table("owner", "SELECT"),
    "installation_secret": Table("owner", "SELECT"),
    # read models, and the work of processes
    "activity": _walled(),
    "activity_total": Table("app"),
    "agent": _walled(),
    "api_key": _walled(hidden=("sha256",)),
    "api_key_use": _walled(),
    "approval": _walled(),
    "bulk_action": _walled(),
    "audit_entry": _walled(),
    "blob": _walled(),
    "blob_chunk": _walled(),
    "blob_reference": _walled(),
    "blob_upload": Table("app"),
    "blob_usage": _walled(),
    "breaker": _walled(),
    "breaker_count": _walled(),
    "browser_session": Table("app"),
    "checkpoint": Table("app", reader="all"),
    "hook_secret": Table("app"),
    "idempotency_key": Table("app"),
    "invocation": _walled(),
    "lease": Table("app"),
    "member": Table("app"),
    "message": _walled(),
    "open_work": _walled(),
    "parked_event": Table("app"),
    "permit_holder": Table("app"),
    "project": _walled(),
    "projection_build": Table("app"),
    "projection_installation": Table("app"),
    "projection_previous": Table("app"),
    "run": _walled(),
    "run_call": _walled(),
    "run_part": _walled(),
    "run_step": _walled(),
    "run_term": Table("app", reader="all"),  # numbers and ids of runs: see projections/run_terms.py
    "session_host": Table("app"),
    "sign_in_link": Table("app"),
    "snapshot": Table("app"),
    "tenant": Table("app"),
    "schedule": _walled(),
    "schedule_due": Table("app"),
    "timer": _walled(),
    "tool": _walled(),
    "tool_limit": _walled(),
    "tool_permit": _walled(),
    "tool_version": _walled(),
    "trigger": _walled(),
    "upkeep": Table("app"),
    "usage_day": _walled(),
    "usage_run": _walled(),
    "work_log": _walled(),
    "work_log_tally": _walled(),
    "worker_offer": Table("app", reader="all", wall=OF_SESSION),
    "worker_problem": _walled(),
    "worker_session": _walled(hidden=("secret_hash",)),
    "workflow": _walled(),
    "workflow_version": _walled(),
}
"""Every table of the migrations. A test compares it with the database."""

OWNED_BY_LOG = ("append_events_v1", "append_events_v2", "append_events_v3")
OWNED_BY_APP = ("keep_work_logs",)
"""Makes and drops parts of a read model."""


@dataclass(frozen=True, slots=True)
class Roles:
    owner: str
    log: str
    app: str
    reader: str

    @classmethod
    def of(cls, login: str) -> "Roles":
        stem = login.encode()[:50].decode(errors="ignore")  # a name has at most 63 bytes
        return cls(*(f"{stem}_{kind}" for kind in ("owner", "log", "app", "reader")))

    @property
    def inherited(self) -> tuple[str, ...]:
        """The roles whose rights the login has without taking them: it migrates, and processes of releases before take no role."""
        return self.owner, self.log, self.app


@dataclass(frozen=True, slots=True)
class Backstop:
    """Whether the roles are in force. `why_not`: what keeps them off; empty: they are in force."""

    why_not: str = ""

    @property
    def on(self) -> bool:
        return not self.why_not


class _Off(Exception):
    """The roles cannot be used. The text says why, for people."""


MIGRATED = "SELECT to_regclass('access_rights') IS NOT NULL"
DATABASE = "SELECT current_database()::text"
SCHEMA = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'event'::regclass"
WHO = """
SELECT session_user::text, rolsuper OR rolcreaterole, current_setting('server_version_num')::int
FROM pg_roles WHERE rolname = session_user
"""
MEMBERS = """
SELECT r.rolname, pg_has_role(session_user, r.oid, 'SET'), pg_has_role(session_user, r.oid, 'USAGE'), s.rolsuper
FROM pg_roles AS r, pg_roles AS s WHERE r.rolname = ANY (%s) AND s.rolname = session_user
"""
# Also in versions of a read model that are not live (see projections/engine/versions.py): they keep their rights when they go live.
PLACES = """
SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner), c.relkind = 'p'
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relname = ANY (%(tables)s)
  AND (n.nspname = %(schema)s::text OR n.nspname ~ '^(rebuild|previous|verify)_')
ORDER BY n.nspname, c.relname
"""
PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = format('%%I.%%I', %s::text, %s::text)::regclass"
OTHERS = """
SELECT n.nspname, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> ALL (%(tables)s)
  AND pg_get_userbyid(c.relowner) = session_user
  AND (n.nspname = %(schema)s::text OR n.nspname ~ '^(rebuild|previous|verify)_')
"""
SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname ~ '^(rebuild|previous|verify)_' AND pg_get_userbyid(nspowner) = session_user
"""
FUNCTIONS = """
SELECT oid::regprocedure::text, proname FROM pg_proc
WHERE pronamespace = %s::text::regnamespace AND pg_has_role(session_user, proowner, 'USAGE')
"""
# Accounts that a deployment made for the application: see "Use a PostgreSQL of your own" of earlier releases.
APPENDING = """
SELECT DISTINCT pg_get_userbyid(a.grantee) FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.oid = format('%%I.event', %s::text)::regclass AND a.privilege_type = 'INSERT' AND a.grantee NOT IN (0, c.relowner)
"""
COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL (%s)
ORDER BY attnum
"""
# What the catalogue says about owners, grants and policies, but not about those of versions, which come and go.
FINGERPRINT = """
WITH mine AS (
    SELECT c.* FROM pg_class AS c WHERE c.relnamespace = %(schema)s::text::regnamespace AND c.relname = ANY (%(tables)s)
), told (line) AS (
    SELECT concat_ws(' ', relname, pg_get_userbyid(relowner), relrowsecurity, relacl) FROM mine
    UNION ALL
    SELECT concat_ws(' ', relname, attname, attacl) FROM mine JOIN pg_attribute ON attrelid = mine.oid WHERE attacl IS NOT NULL
    UNION ALL
    SELECT concat_ws(' ', tablename, policyname, permissive, roles, qual)
    FROM pg_policies WHERE schemaname = %(schema)s::text AND tablename = ANY (%(tables)s)
    UNION ALL
    SELECT concat_ws(' ', oid::regprocedure, pg_get_userbyid(proowner), prosecdef, proacl)
    FROM pg_proc WHERE pronamespace = %(schema)s::text::regnamespace
    UNION ALL
    SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace WHERE nspname = %(schema)s::text
)
SELECT md5(%(definition)s::text || string_agg(line, chr(10) ORDER BY line)) FROM told
"""
# A copy of a database has the rights of the original, but not those on the database itself.
IN_FORCE = """
SELECT owner, log, app, reader,
    CASE WHEN (SELECT has_database_privilege(oid, current_database(), 'CREATE') FROM pg_roles WHERE rolname = app)
         THEN fingerprint ELSE 'none' END
FROM access_rights
"""
REMEMBER = """
INSERT INTO access_rights (owner, log, app, reader, fingerprint) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (singleton) DO UPDATE SET owner = EXCLUDED.owner, log = EXCLUDED.log, app = EXCLUDED.app, reader = EXCLUDED.reader,
    fingerprint = EXCLUDED.fingerprint, applied_at = now()
"""


async def apply(connection: Connection) -> None:
    """Makes the roles if they are missing, and gives them their rights if these are not as they should be.

    `connection`: of the login that migrates, outside of a transaction. Nobody else may migrate meanwhile. Each table is changed in
    a transaction of its own: a running process would meet several locks in another order. Raises psycopg.Error.
    """
    try:
        roles = await _members(connection)
        schema = await _schema(connection)
        if await _in_force(connection, roles, schema):
            return
        await _give(connection, roles, schema)
    except (_Off, psycopg.errors.InsufficientPrivilege) as error:  # `inspect` says so again to whoever asks
        log.warning("database_roles_off", reason=str(error).splitlines()[0])
        return
    log.info("database_rights_given", roles=[roles.owner, roles.log, roles.app, roles.reader])


async def inspect(connection: Connection) -> Backstop:
    """Whether the roles are in force, and as they were given. Changes nothing. Raises psycopg.Error."""
    if not (await _one(await connection.execute(MIGRATED)))[0]:
        return Backstop("the database is not migrated to this release")
    found = await (await connection.execute(IN_FORCE)).fetchone()
    _, _, version = await _one(await connection.execute(WHO))
    if version < LEAST_VERSION:
        return Backstop(_too_old(version))
    if found is None:
        return Backstop("no rights were given: the login that migrates may not make roles, and is no member of them")
    roles = Roles(*found[:4])
    able = {name: able for name, able, *_ in await (await connection.execute(MEMBERS, [list(found[:4])])).fetchall()}
    if missing := [name for name in (roles.app, roles.reader) if not able.get(name)]:
        return Backstop(f"the login is no member of {' and '.join(missing)}")
    if await _fingerprint(connection, await _schema(connection)) != found[4]:
        return Backstop("the rights are not what they were when they were given")
    return Backstop()


async def in_force(connections: Connections) -> bool:
    """Whether reads of requests see one tenant at a time. Raises Unavailable."""
    with translate_errors():
        async with connections.connection() as connection:
            return await (await connection.execute(MAY_TAKE, ["reader"])).fetchone() is not None


def _too_old(version: int) -> str:
    return f"PostgreSQL {version // 10_000} is older than {LEAST_VERSION // 10_000}"


async def _members(connection: Connection) -> Roles:
    """The roles, of which the login is a member as it should be. Raises _Off."""
    login, may_make, version = await _one(await connection.execute(WHO))
    if version < LEAST_VERSION:
        raise _Off(_too_old(version))
    given = await (await connection.execute(IN_FORCE)).fetchone()
    roles = Roles.of(login) if given is None else Roles(*given[:4])
    wanted = [*roles.inherited, roles.reader]
    known = {row[0] for row in await (await connection.execute(MEMBERS, [wanted])).fetchall()}
    missing = [name for name in wanted if name not in known]
    if missing and not may_make:
        raise _Off(f"there is no role {' and no role '.join(missing)}, and {login} may not make roles")
    for name in missing:
        await connection.execute(SQL("CREATE ROLE {} NOLOGIN").format(Identifier(name)))
    found = {name: state for name, *state in await (await connection.execute(MEMBERS, [wanted])).fetchall()}
    for name in wanted:
        takes, has, is_superuser = found[name]
        inherits = name != roles.reader
        if not is_superuser and (not takes or has != inherits):
            grant = SQL("GRANT {} TO {} WITH INHERIT {}, SET TRUE").format(
                Identifier(name), Identifier(login), SQL("TRUE" if inherits else "FALSE")
            )
            await connection.execute(grant)
    return roles


async def _in_force(connection: Connection, roles: Roles, schema: str) -> bool:
    found = await (await connection.execute(IN_FORCE)).fetchone()
    return found is not None and Roles(*found[:4]) == roles and found[4] == await _fingerprint(connection, schema)


async def _give(connection: Connection, roles: Roles, schema: str) -> None:
    place = Identifier(schema)
    everyone = SQL(", ").join(map(Identifier, (*roles.inherited, roles.reader)))
    makers = SQL(", ").join(map(Identifier, roles.inherited))
    [database] = await _one(await connection.execute(DATABASE))
    await connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, everyone))
    await connection.execute(SQL("GRANT CREATE ON SCHEMA {} TO {}").format(place, makers))  # to become the owner of something
    # Versions of read models have schemas of their own.
    await connection.execute(SQL("GRANT CREATE ON DATABASE {} TO {}").format(Identifier(database), Identifier(roles.app)))
    await _let_append(connection, roles, schema)
    appending = await _names(await connection.execute(APPENDING, [schema]))
    await _give_functions(connection, roles, schema, appending)
    for name in await _names(await connection.execute(SCHEMAS)):
        await connection.execute(SQL("ALTER SCHEMA {} OWNER TO {}").format(Identifier(name), Identifier(roles.app)))
    known = {"tables": list(TABLES), "schema": schema}
    for where, name, owner, is_parted in await (await connection.execute(PLACES, known)).fetchall():
        parts = await _names(await connection.execute(PARTS, [where, name])) if is_parted else []
        await _protect(connection, roles, where, name, owner, parts)
    for where, name in await (await connection.execute(OTHERS, known)).fetchall():  # of plug-ins, which the processes rebuild, too
        await connection.execute(SQL("ALTER TABLE {} OWNER TO {}").format(Identifier(where, name), Identifier(roles.app)))
    await connection.execute(SQL("REVOKE CREATE ON SCHEMA {} FROM {}").format(place, Identifier(roles.log)))
    values = [roles.owner, roles.log, roles.app, roles.reader, await _fingerprint(connection, schema)]
    await connection.execute(REMEMBER, values)


async def _let_append(connection: Connection, roles: Roles, schema: str) -> None:
    """Before the functions have the rights of the role: running processes go on to append."""
    by = Identifier(roles.log)
    await _together(
        connection,
        SQL("GRANT SELECT, INSERT ON {}, {} TO {}").format(Identifier(schema, "event"), Identifier(schema, "command"), by),
        SQL("GRANT SELECT, UPDATE ON {} TO {}").format(Identifier(schema, "log_head"), by),
    )


async def _give_functions(connection: Connection, roles: Roles, schema: str, appending: Sequence[str]) -> None:
    """`appending`: accounts of a deployment that may append: they go on."""
    for function, name in await (await connection.execute(FUNCTIONS, [schema])).fetchall():
        target = SQL(function)  # as PostgreSQL itself writes it, with the types of the arguments
        if name in OWNED_BY_LOG:
            users = SQL(", ").join(map(Identifier, (roles.app, *appending)))
            await _together(
                connection,
                SQL("ALTER FUNCTION {} OWNER TO {}").format(target, Identifier(roles.log)),
                SQL("ALTER FUNCTION {} SECURITY DEFINER").format(target),
                # Of temporary tables last: nobody may put a table of his own in the place of ours.
                SQL("ALTER FUNCTION {} SET search_path = {}, pg_temp").format(target, Identifier(schema)),
                SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(target),
                SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(target, users),
            )
        else:
            owner = roles.app if name in OWNED_BY_APP else roles.owner
            await connection.execute(SQL("ALTER FUNCTION {} OWNER TO {}").format(target, Identifier(owner)))


async def _protect(connection: Connection, roles: Roles, schema: str, name: str, owner: str, parts: Sequence[str]) -> None:
    """Gives one table its owner, its grants and its policies."""
    table, rights = Identifier(schema, name), TABLES[name]
    app, reader = Identifier(roles.app), Identifier(roles.reader)
    wanted = roles.app if rights.owner == "app" else roles.owner
    steps: list[Composable] = []
    if owner != wanted:
        steps += [SQL("ALTER TABLE {} OWNER TO {}").format(SQL(part), Identifier(wanted)) for part in parts]
        steps.append(SQL("ALTER TABLE {} OWNER TO {}").format(table, Identifier(wanted)))
    if rights.owner == "owner":
        steps.append(SQL("REVOKE ALL ON {} FROM {}").format(table, app))
        steps.append(SQL("GRANT {} ON {} TO {}").format(SQL(rights.app), table, app))
    steps.append(SQL("REVOKE ALL ON {} FROM {}").format(table, reader))
    if rights.reader == "all" and not rights.hidden:
        steps.append(SQL("GRANT SELECT ON {} TO {}").format(table, reader))
    elif rights.reader == "all":
        columns = await _names(await connection.execute(COLUMNS, [schema, name, list(rights.hidden)]))
        steps.append(SQL("GRANT SELECT ({}) ON {} TO {}").format(SQL(", ").join(map(Identifier, columns)), table, reader))
    for policy in ("everybody", "tenant"):
        steps.append(SQL("DROP POLICY IF EXISTS {} ON {}").format(Identifier(policy), table))
    if rights.wall:
        steps += [
            SQL("CREATE POLICY everybody ON {} USING (true) WITH CHECK (true)").format(table),
            SQL("CREATE POLICY tenant ON {} AS RESTRICTIVE TO {} USING ({})").format(table, reader, SQL(rights.wall)),
            SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(table),
        ]
    await _together(connection, *steps)


async def _together(connection: Connection, *statements: Composable) -> None:
    """Several statements in one transaction and one round trip."""
    await connection.execute(SQL("; ").join(statements))


async def _fingerprint(connection: Connection, schema: str) -> str:
    given = {"schema": schema, "tables": list(TABLES), "definition": repr(sorted(TABLES.items()))}
    return str((await _one(await connection.execute(FINGERPRINT, given)))[0])


async def _schema(connection: Connection) -> str:
    return str((await _one(await connection.execute(SCHEMA)))[0])


async def _one(cursor: Cursor) -> tuple[Any, ...]:
    [row] = await cursor.fetchall()
    return row


async def _names(cursor: Cursor) -> list[str]:
    return [row[0] for row in await cursor.fetchall()]
