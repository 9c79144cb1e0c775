"""The database's own walls: what each role may do, on a real PostgreSQL, whatever a statement says."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres import pool as postgres
from adapters.postgres import rights
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.migrate import load_migrations, migrate
from adapters.postgres.permits import PostgresPermits
from adapters.postgres.rights import TABLES
from application.engine.ports.permits import ToolLimits, Wanted
from domain.approval_rules import Demand
from domain.approvals import RequestApproval
from domain.breakers import ForceBreaker
from domain.errors import InvalidCommand
from domain.projects import CreateProject
from domain.tenants import DEFAULT_TENANT_ID
from projections.registry import PROJECTIONS
from tests.integration.system_kit import System, eventually, new_id, running
from tests.integration.used_routes_kit import use_blobs, use_projections, use_runs

WALLED = sorted(name for name, table in TABLES.items() if table.wall)
ROLES = ("tidelog_owner", "tidelog_log", "tidelog_app", "tidelog_reader")
WRITES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")


async def rows(url: str, query: str, *values: object) -> list[tuple[object, ...]]:
    """By the login, which sees and may do everything."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []


@contextlib.asynccontextmanager
async def connected(url: str, role: postgres.Rights) -> AsyncIterator[postgres.Connection]:
    connection = await postgres.connect(url, role="test", rights=role)
    async with connection:
        yield connection


async def test_every_table_has_its_rights(database_url: str) -> None:
    """A new table needs a line in `adapters/postgres/rights.py`. A table with tenants has a wall, or is not for the reader."""
    found = await rows(
        database_url,
        """SELECT relname, EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')
           FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition""",
    )
    assert {name for name, _ in found} == TABLES.keys()
    open_to_the_reader = {name for name, of_tenants in found if of_tenants and TABLES[str(name)].reader == "all"}
    assert open_to_the_reader == {name for name in WALLED if name != "worker_offer"}
    listed = await rows(database_url, "SELECT relname FROM pg_class WHERE relrowsecurity ORDER BY relname")
    assert [name for (name,) in listed] == WALLED


async def test_what_each_role_may_write(database_url: str) -> None:
    query = "SELECT t, p, has_table_privilege(%s, t, p) FROM unnest(%s::text[]) AS t, unnest(%s::text[]) AS p"
    allowed = {
        role: {(table, write) for table, write, may in await rows(database_url, query, role, list(TABLES), list(WRITES)) if may}
        for role in ROLES
    }
    assert allowed["tidelog_reader"] == set()
    assert allowed["tidelog_log"] == {("event", "INSERT"), ("command", "INSERT"), ("log_head", "UPDATE")}
    of_app = {(table, write) for table, write in allowed["tidelog_app"] if TABLES[str(table)].owner == "owner"}
    assert of_app == {
        ("command", "DELETE"), ("history", "INSERT"), ("history_mark", "UPDATE"), ("log_identity", "UPDATE"),
        ("tracking", "INSERT"), ("tracking", "UPDATE"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO event SELECT * FROM event",
        "UPDATE event SET topic = 'x'",
        "DELETE FROM event",
        "TRUNCATE event",
        "UPDATE log_head SET position = 0",
        "UPDATE command SET event_count = 0",
        "ALTER TABLE event DISABLE ROW LEVEL SECURITY",
        "DROP FUNCTION append_events_v3",
        "UPDATE installation_secret SET secret = ''",
        "CREATE OR REPLACE FUNCTION log_position() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
    ],
)
async def test_the_past_cannot_be_changed_by_a_server(database_url: str, change: str) -> None:
    for role in ("app", "reader"):
        async with connected(database_url, role) as connection:  # type: ignore[arg-type]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(change.encode())


async def test_the_reader_cannot_append_or_see_secrets(database_url: str) -> None:
    async with connected(database_url, "reader") as connection:
        for statement in (
            "SELECT append_events_v1(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "SELECT keep_work_logs(1, 1)",
            "SELECT sha256 FROM api_key",
            "SELECT secret_hash FROM worker_session",
            "SELECT * FROM installation_secret",
            "SELECT * FROM hook_secret",
            "SELECT * FROM tenant",
            "SELECT * FROM idempotency_key",
            "CREATE TABLE mine ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())


async def test_an_appends_tables_cannot_be_replaced_by_temporary_ones(database_url: str) -> None:
    """The functions that append run with rights of their own: they must not be led to a table of their caller."""
    async with connected(database_url, "app") as connection:
        await connection.execute("CREATE TEMPORARY TABLE log_head AS SELECT true AS singleton, 5::bigint AS position, now() AS at")
        append = """
            SELECT last_position FROM append_events_v1(
                ARRAY[%(id)s], ARRAY[%(id)s], ARRAY['{}'], ARRAY[1], ARRAY[%(id)s], ARRAY[%(id)s], ARRAY[0]::bigint[], ARRAY[1],
                ARRAY['x'], ARRAY[1]::smallint[], ARRAY['{}']::bytea[]
            )
        """
        [(position,)] = await (await connection.execute(append, {"id": uuid4()})).fetchall()
    assert [(position,)] == await rows(database_url, "SELECT position FROM log_head") == [(1,)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def used(shared: System) -> System:
    """A log and read models with something in nearly every table, of two tenants."""
    await use_runs(shared, shared.http)
    await use_projections(shared, shared.http)
    await use_blobs(shared, shared.http)
    other, _ = await shared.tenant("other")
    await shared.command(CreateProject(project_id=new_id(), name="of the other"), tenant_id=other)
    for tenant_id in (DEFAULT_TENANT_ID, other):
        breaker_id = new_id()
        held = ForceBreaker(breaker_id=breaker_id, tool="t", state="closed", at=datetime.now(UTC), by="test")
        await shared.command(held, tenant_id=tenant_id)
        await shared.sql("INSERT INTO breaker_count VALUES (%s, %s, 1, 1, 1, 1, 1, now())", tenant_id, breaker_id)
    permits = PostgresPermits(shared.container.database)
    for tenant_id in (DEFAULT_TENANT_ID, other):
        await permits.settle(tenant_id, "crm.update", new_id(), ToolLimits(1, max_parallel=1), Wanted(want=1))
    flow = {"name": "own", "plan": {"steps": [{"key": "a", "agent": "walker"}]}}
    assert (await shared.http.post("/v1/workflows", json=flow)).status_code == 201
    due = {"name": "own", "when": {"at": "2099-01-01T00:00:00Z"}, "start": {"agent": "walker"}}
    assert (await shared.http.post("/v1/schedules", json=due)).status_code == 201
    steps = [{"key": "a", "agent": "walker", "each": {"over": "[1]"}}]
    assert (await shared.http.post("/v1/runs", json={"plan": {"kind": "graph", "steps": steps}})).status_code == 201
    asked = RequestApproval(
        approval_id=new_id(), run_id=new_id(), invocation_id=new_id(), tool="t", arguments_hash="0", demand=Demand(),
        agent_run_id=new_id(), key="k",
    )  # fmt: skip
    await shared.command(asked)
    trigger = {"name": "own", "on": {"topics": ["project.removed"]}, "start": {"agent": "walker"}}
    assert (await shared.http.post("/v1/triggers", json=trigger)).status_code == 201
    for tenant_id in (DEFAULT_TENANT_ID, other):
        await shared.sql("INSERT INTO usage_day VALUES (%s, '2026-11-30', %s, 'a', 't', 1, 1, 1)", tenant_id, new_id())
        await shared.sql("INSERT INTO usage_run VALUES (%s, %s, %s, 'a', 't', 1, 1, 1)", tenant_id, new_id(), new_id())
    bulk = {"action": "resume", "filter": {"agent": "nobody"}, "reason": "why"}
    assert (await shared.http.post("/v1/bulk-actions", json=bulk)).status_code == 202
    await shared.settled()
    return shared


async def test_a_statement_that_forgets_its_tenant_shows_one_tenant(used: System) -> None:
    filled, seen_by_others = set(), set()
    async with connected(used.database_url, "reader") as connection:
        for table in WALLED:
            [(every, own)] = await used.sql(
                f"SELECT count(*), count(*) FILTER (WHERE tenant_id = '{DEFAULT_TENANT_ID}') FROM {table}"
                if table != "worker_offer"
                else "SELECT count(*), count(*) FROM worker_offer"
            )
            if every:
                filled.add(table)
            counts = []
            for tenant in (None, DEFAULT_TENANT_ID, uuid4()):
                await postgres.read_for(connection, tenant)
                [(count,)] = await (await connection.execute(f"SELECT count(*) FROM {table}".encode())).fetchall()
                counts.append(count)
            assert counts == [0, own, 0], table
            if every > own:
                seen_by_others.add(table)
    passing = {"activity", "open_work", "api_key_use"}  # rows of what goes on, and of what happened a minute ago
    assert filled >= {*WALLED} - passing, {*WALLED} - filled
    assert {"event", "command", "project", "api_key", "breaker", "breaker_count"} <= seen_by_others


async def test_a_connection_is_for_the_tenant_that_it_was_taken_for(used: System) -> None:
    """In turns and side by side, over a pool with fewer connections than tenants, after errors and transactions undone."""
    reads = await postgres.open_pool(used.database_url, role="test", rights="reader", max_size=2)
    try:
        database = PostgresDatabase(reads)
        tenants = [DEFAULT_TENANT_ID, None, uuid4(), DEFAULT_TENANT_ID]
        for tenant in tenants * 3:
            async with database.connection(tenant) as connection:
                with contextlib.suppress(psycopg.DataError):
                    await connection.execute("SELECT 1 / 0")
                [(seen, some)] = await (await connection.execute("SELECT reading_tenant(), count(*) > 0 FROM event")).fetchall()
                assert seen == tenant and some == (tenant == DEFAULT_TENANT_ID)
            with contextlib.suppress(InvalidCommand):
                async with database.transaction(tenant) as connection:
                    await connection.execute("SELECT 1 / 0")
    finally:
        await reads.close()


async def swapped(used: System) -> bool:
    return bool((await used.http.get("/v1/projections/runs")).json()["build"]["status"] == "swapped")


async def test_a_version_of_a_read_model_has_its_walls(used: System) -> None:
    """Rebuilt, and brought back."""
    for path in ("rebuild", "rollback"):
        answer = await used.http.post("/v1/projections/runs/" + path, json={"swap": True} if path == "rebuild" else {})
        assert answer.status_code == 202, answer.text
        await eventually(lambda: swapped(used), "the swap")
        await test_a_statement_that_forgets_its_tenant_shows_one_tenant(used)
        assert (await used.http.get("/v1/runs")).json()["data"]
    assert {table for projection in PROJECTIONS for table in projection.tables} <= TABLES.keys()


async def test_rights_that_somebody_changed_are_told_and_given_again(database_url: str) -> None:
    async def told() -> str:
        async with connected(database_url, "login") as connection:
            return (await rights.inspect(connection)).why_not

    assert await told() == ""
    for change in (
        "GRANT SELECT ON installation_secret TO tidelog_reader",
        "GRANT UPDATE ON event TO tidelog_app",
        "DROP POLICY tenant ON run",
        "ALTER TABLE message DISABLE ROW LEVEL SECURITY",
        "GRANT SELECT (sha256) ON api_key TO tidelog_reader",
        "ALTER FUNCTION append_events_v3 SECURITY INVOKER",
        "ALTER TABLE event OWNER TO tidelog",
        f"REVOKE CREATE ON DATABASE {conninfo_to_dict(database_url)['dbname']} FROM tidelog_app",
    ):
        await rows(database_url, change)
        assert "not what they were" in await told(), change
        await migrate(database_url)
        assert await told() == "", change
    await test_what_each_role_may_write(database_url)
    await test_the_reader_cannot_append_or_see_secrets(database_url)


@contextlib.asynccontextmanager
async def database_of_its_own(services: EmbeddedServices, *, may_make_roles: bool) -> AsyncIterator[str]:
    """An empty database, whose login is a member of no role."""
    admin, name = services.admin_database_url, f"t{secrets.token_hex(8)}"
    option = SQL("CREATEROLE" if may_make_roles else "NOCREATEROLE")
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'p' {}").format(Identifier(name), option))
        await connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(name), Identifier(name)))
        try:
            yield make_conninfo(admin, user=name, password="p", dbname=name)
        finally:
            await connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            cursor = await connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", [name])
            for (role,) in sorted(await cursor.fetchall(), reverse=True):
                await connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


async def test_a_login_that_may_not_make_roles_works_without(services: EmbeddedServices, nats_url: str) -> None:
    async with database_of_its_own(services, may_make_roles=False) as url:
        await migrate(url)
        async with connected(url, "login") as connection:
            assert "no rights were given" in (await rights.inspect(connection)).why_not
        async with running(url, nats_url) as system:
            await system.command(CreateProject(project_id=new_id(), name="p"))
            await system.settled()
            report = (await system.http.get("/health/ready")).json()
            assert report["row_level_security"] is False and report["status"] == "ok"
            assert await system.sql("SELECT count(*) FROM project") == [(1,)]


async def test_a_login_that_may_make_roles_gets_them_by_migrating(services: EmbeddedServices, nats_url: str) -> None:
    async with database_of_its_own(services, may_make_roles=True) as url:
        await migrate(url)
        async with connected(url, "login") as connection:
            assert (await rights.inspect(connection)).on
        async with running(url, nats_url) as system:
            assert (await system.http.get("/health/ready")).json()["row_level_security"] is True
            assert await system.sql("SELECT reader FROM access_rights") == [(f"{conninfo_to_dict(url)['user']}_reader",)]


async def test_a_database_of_before_gets_its_rights_and_its_accounts_go_on(services: EmbeddedServices, nats_url: str) -> None:
    """A database of the release before, with the second login that the documentation had, a version of a read model beside the
    live one, and a process that still runs."""
    admin = services.admin_database_url
    async with database_of_its_own(services, may_make_roles=True) as url:
        owner = str(conninfo_to_dict(url)["user"])
        before = [migration for migration in load_migrations() if migration.number < 40]
        await migrate(url, migrations=before)
        await rows(url, "CREATE SCHEMA previous_projects; CREATE TABLE previous_projects.project (LIKE project INCLUDING ALL)")
        second = f"{owner}_second"
        await rows(
            make_conninfo(admin, dbname=owner),
            f"""CREATE ROLE {second} LOGIN PASSWORD 'p';
            GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO {second};
            REVOKE UPDATE, DELETE, TRUNCATE ON event FROM {second}""",
        )
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as old:
            await migrate(url)
            for table in ("event", "run", "command", "previous_projects.project"):
                await old.execute(f"SELECT count(*) FROM {table}".encode())
            await old.execute("UPDATE run SET position = 1; INSERT INTO tracking VALUES ('x', 1)")
        [(holder,)] = await rows(url, "SELECT tableowner FROM pg_tables WHERE schemaname = 'previous_projects'")
        assert holder == f"{owner}_app"
        new = "trigger, hook_secret, bulk_action"  # as the migrations say
        await rows(url, f"GRANT SELECT, INSERT, UPDATE, DELETE ON {new} TO {second}")
        async with running(make_conninfo(url, user=second), nats_url) as system:
            assert (await system.http.get("/health/ready")).json()["row_level_security"] is False
            await system.command(CreateProject(project_id=new_id(), name="p"))
            await system.settled()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await system.sql("UPDATE event SET topic = 'x'")
        await rows(make_conninfo(admin, dbname=owner), f"DROP OWNED BY {second}")


async def test_a_dump_restored_without_owners_works_and_is_mended(database_url: str, nats_url: str) -> None:
    """As `pg_restore --no-owner` leaves it: policies and grants, and the login as the owner of everything."""
    for name in TABLES:
        await rows(database_url, f"ALTER TABLE {name} OWNER TO tidelog")
    async with running(database_url, nats_url) as system:
        assert not await system.container.row_level_security()
        await system.command(CreateProject(project_id=new_id(), name="p"))
        await system.settled()
    await migrate(database_url)
    async with running(database_url, nats_url) as system:
        assert await system.container.row_level_security()
        await system.command(CreateProject(project_id=new_id(), name="q"))
        await system.settled()
        assert await system.sql("SELECT count(*) FROM project") == [(2,)]
