"""Migrations: once, in order, by one process at a time, and never over a schema that does not fit."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices
from adapters.postgres.migrate import LOCK_KEY, Migration, MigrationError, load_migrations, migrate, pending
from application.views.runs import RunView
from domain.errors import Unavailable
from domain.runs import sequential


def write(folder: Path, **files: str) -> list[Migration]:
    for name, sql in files.items():
        (folder / f"{name.removeprefix('_')}.sql").write_text(sql)
    return load_migrations(folder.iterdir())


@pytest.fixture
async def empty_url(services: EmbeddedServices, database_url: str) -> str:
    """The test's database without any table."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database_url


async def tables(database_url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in await cursor.fetchall()}


async def test_the_shipped_migrations_are_applied_once(empty_url: str) -> None:
    shipped = load_migrations()
    assert [migration.number for migration in await pending(empty_url)] == [migration.number for migration in shipped]
    assert await tables(empty_url) == set()
    assert await migrate(empty_url) == shipped
    assert {"event", "command", "log_head", "tracking", "schema_migration"} <= await tables(empty_url)
    assert await pending(empty_url) == [] and await migrate(empty_url) == []


async def test_processes_that_start_together_do_not_collide(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(load_migrations())]


async def test_a_file_that_changed_is_named(empty_url: str, tmp_path: Path) -> None:
    await migrate(empty_url, migrations=write(tmp_path, _0001_first="CREATE TABLE a ()"))
    changed = write(tmp_path, _0001_first="CREATE TABLE a (b int)", _0002_second="CREATE TABLE c ()")
    for check in (migrate, pending):
        with pytest.raises(MigrationError, match=r"0001_first\.sql was changed"):
            await check(empty_url, migrations=changed)
    assert "c" not in await tables(empty_url)


async def test_a_database_of_a_newer_version_is_refused(empty_url: str, tmp_path: Path) -> None:
    both = write(tmp_path, _0001_first="CREATE TABLE a ()", _0002_second="CREATE TABLE b ()")
    await migrate(empty_url, migrations=both)
    with pytest.raises(MigrationError, match=r"0002_second\.sql.*newer version"):
        await migrate(empty_url, migrations=both[:1])


async def test_a_migration_before_the_applied_ones_is_refused(empty_url: str, tmp_path: Path) -> None:
    first, second = write(tmp_path, _0001_first="CREATE TABLE a ()", _0002_second="CREATE TABLE b ()")
    await migrate(empty_url, migrations=[second])
    with pytest.raises(MigrationError, match=r"0001_first\.sql was not applied"):
        await migrate(empty_url, migrations=[first, second])


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_url: str, tmp_path: Path) -> None:
    broken = write(tmp_path, _0001_first="CREATE TABLE a ()", _0002_second="CREATE TABLE b (); SELECT no_such_thing;")
    with pytest.raises(MigrationError, match=r"0002_second\.sql failed.*no_such_thing"):
        await migrate(empty_url, migrations=broken)
    assert await tables(empty_url) == {"a", "schema_migration"}
    assert [migration.name for migration in await pending(empty_url, migrations=broken)] == ["0002_second.sql"]
    mended = write(tmp_path, _0002_second="CREATE TABLE b ()")
    assert await migrate(empty_url, migrations=mended) == mended[1:]


async def test_the_wait_for_another_process_is_bounded(empty_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as other:
        await other.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
        with pytest.raises(Unavailable, match="another process"):
            await migrate(empty_url, lock_timeout=0.2)
    assert await migrate(empty_url) == load_migrations()


async def test_a_migration_makes_way_for_processes_that_run(empty_url: str, tmp_path: Path) -> None:
    """Two that wait for each other's tables would end with an error of one of them, and that may be the process that runs."""
    await migrate(empty_url, migrations=write(tmp_path, _0001_first="CREATE TABLE a (); CREATE TABLE b ()"))
    both = write(tmp_path, _0002_second="ALTER TABLE a ADD c int; ALTER TABLE b ADD c int")
    async with await psycopg.AsyncConnection.connect(empty_url) as running:
        await running.execute("LOCK TABLE b IN ACCESS SHARE MODE")
        migrating = asyncio.create_task(migrate(empty_url, migrations=both))
        async with await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as looking:
            held = "SELECT count(*) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessExclusiveLock' AND granted"
            while await (await looking.execute(held)).fetchone() != (1,):
                assert not migrating.done(), migrating
        await running.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        await running.commit()
        assert await migrating == both[1:]


async def test_no_database_is_unavailable(empty_url: str) -> None:
    with pytest.raises(Unavailable):
        await migrate(make_conninfo(empty_url, dbname="none"))


@pytest.mark.parametrize("name", ["1_first", "0001-first", "0001_First", "0001_", "first"])
def test_misnamed_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MigrationError, match="the name must be"):
        write(tmp_path, **{name: ""})


def test_a_number_used_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"0001_second\.sql: 0001_first\.sql has the same number"):
        write(tmp_path, _0001_first="", _0001_second="")


def test_line_ends_do_not_change_a_migration(tmp_path: Path) -> None:
    [unix] = write(tmp_path, _0001_first="SELECT 1;\nSELECT 2;\n")
    (tmp_path / "0001_first.sql").write_bytes(b"SELECT 1;\r\nSELECT 2;\r\n")
    assert load_migrations(tmp_path.iterdir()) == [unix]


async def test_runs_of_before_are_marked_as_degraded(empty_url: str) -> None:
    shipped = load_migrations()
    ours = next(index for index, migration in enumerate(shipped) if migration.name.endswith("degraded_runs.sql"))
    await migrate(empty_url, migrations=shipped[:ours])
    plan, now = sequential(("a",)), datetime.now(UTC)
    forged = '"status":"completed","degraded":true'
    cases: dict[UUID, tuple[Literal["completed", "failed"], bool]] = {
        uuid7(): ("completed", True), uuid7(): ("completed", False), uuid7(): ("failed", False),
    }  # fmt: skip
    async with await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as connection:
        for run_id, (status, degraded) in cases.items():
            view = RunView(
                run_id=run_id, project_id=run_id, status=status, degraded=degraded, plan=plan, input=forged, created_at=now,
                updated_at=now, version=1, position=1,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO run (run_id, tenant_id, project_id, status, position, created_at, view)"
                " VALUES (%s, %s, %s, %s, 1, %s, %s)",
                [run_id, run_id, run_id, status, now, view.__pydantic_serializer__.to_json(view)],
            )
        await migrate(empty_url)
        rows = await (await connection.execute("SELECT run_id, degraded FROM run")).fetchall()
    assert dict(rows) == {run_id: degraded for run_id, (_, degraded) in cases.items()}
