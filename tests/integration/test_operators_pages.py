"""The pages for operators: their commands are run as they stand there, on a log that is written meanwhile."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices, find_nats, find_postgres
from adapters.embedded.nats_accounts import AccountsFile
from adapters.embedded.nats_rights import Subscriber
from adapters.postgres.log.identity import log_id_at
from domain.projects import CreateProject
from tests.integration.system_kit import PATIENCE_S, System, eventually, new_id, running
from tests.pages import block

RESTORE = "docs/how-to/restore-a-backup.md"
OWN_SERVERS = "docs/how-to/use-your-own-servers.md"
DISK = "docs/how-to/watch-the-disk.md"
Row = tuple[int, str, str]


async def shell(text: str, folder: Path, **variables: str) -> str:
    """Runs a block of a page and returns its output."""
    programs = [str(find_postgres(None, None).path.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TIDELOG_")}
    environment = {**ours, "PATH": os.pathsep.join(programs), **variables}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-eu", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


async def log_of(system: System) -> list[Row]:
    return await system.sql("SELECT notification_id, originator_id::text, md5(state) FROM event ORDER BY notification_id")


@contextlib.asynccontextmanager
async def written(system: System) -> AsyncIterator[None]:
    """Projects are created all the time."""

    async def write() -> None:
        while True:
            await system.command(*(CreateProject(project_id=new_id(), name="p") for _ in range(3)))

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        assert not writing.done(), writing
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def grown(system: System, beyond: int) -> int:
    async def more() -> int:
        head = await system.container.feed.head()
        return head if head > beyond else 0

    return await eventually(more, f"events after {beyond}")


async def whole(system: System, rows: list[Row]) -> None:
    """The log is these events without a gap, and the read model has a row for each project in them."""
    await system.settled()
    assert await log_of(system) == rows and [row[0] for row in rows] == list(range(1, len(rows) + 1))
    [(projects,)] = await system.sql("SELECT count(*) FROM project")
    [(created,)] = await system.sql("SELECT count(*) FROM event WHERE topic = 'project.created'")
    assert projects == created > 0


async def test_a_dump_of_a_log_that_is_written_is_restored_beside_it_and_in_place(
    services: EmbeddedServices, database_url: str, tmp_path: Path
) -> None:
    given = conninfo_to_dict(database_url)
    name, owner = str(given["dbname"]), str(given["user"])
    drill = f"{name}_drill"
    admin = make_conninfo(services.admin_database_url, dbname="postgres")
    places = {
        "ADMIN_URL": as_url(admin),
        "ADMIN_URL_OF_DRILL": as_url(make_conninfo(admin, dbname=drill)),
        "ADMIN_URL_OF_TIDELOG": as_url(make_conninfo(admin, dbname=name)),
    }

    def named(text: str) -> str:
        for option in ("--role=tidelog ", "--owner=tidelog "):
            text = text.replace(option, option.replace("tidelog", owner))
        return re.sub(r" tidelog$", f" {name}", text.replace("tidelog_drill", drill), flags=re.MULTILINE)

    try:
        async with running(database_url, services.nats_url) as original:
            async with written(original):
                await grown(original, 30)
                await shell(block(RESTORE, "dump"), tmp_path, TIDELOG_DATABASE_URL=as_url(database_url))
                await grown(original, await original.container.feed.head() + 10)
            await shell(named(block(RESTORE, "restore-beside")), tmp_path, **places)
            drill_url = make_conninfo(database_url, dbname=drill)
            async with running(drill_url, services.nats_url) as copy:  # on the same NATS
                kept = await log_of(copy)
                every = await log_of(original)
                assert 30 < len(kept) < len(every) and kept == every[: len(kept)]
                await whole(copy, kept)
                await copy.command(CreateProject(project_id=new_id(), name="of the copy"))
                await original.command(CreateProject(project_id=new_id(), name="of the original"))
                await whole(copy, [*kept, (await log_of(copy))[-1]])
                await whole(original, [*every, (await log_of(original))[-1]])
            before = await log_id_at(database_url, timeout=PATIENCE_S)
            assert await log_id_at(drill_url, timeout=PATIENCE_S) != before
        await shell(named(block(RESTORE, "restore-in-place")), tmp_path, **places)
        async with running(database_url, services.nats_url) as again:
            await whole(again, kept)
            assert await log_id_at(database_url, timeout=PATIENCE_S) != before, "another database, even under the same name"
            histories = (await again.container.histories.fresh()).histories.all
            assert [each.cause for each in histories] == ["installed", "server"], "readers are told by themselves"
    finally:
        async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
            await connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(drill)))


def as_url(conninfo: str) -> str:
    """The connection as a URL, which all programs of PostgreSQL take."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value is not None}
    user, password = quote(parts.pop("user")), quote(parts.pop("password", ""))
    return f"postgresql://{user}:{password}@/{parts.pop('dbname')}?{urlencode(parts)}"


async def test_a_role_that_appends_and_cannot_change_the_past(services: EmbeddedServices, tmp_path: Path) -> None:
    """A database as the page makes it, migrated by its owner, and used by the second role."""
    mark = uuid4().hex[:12]
    admin = services.admin_database_url

    def named(name: str) -> str:
        return re.sub(r"\btidelog(_\w+)?\b", rf"t{mark}\1", block(OWN_SERVERS, name))

    url = as_url(make_conninfo(admin, user=f"t{mark}", password="choose-one", dbname=f"t{mark}"))
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        try:
            for statement in f"{named('owner')}{named('roles')}{named('application')}".strip().split("\n"):
                await connection.execute(statement.encode())
            applied = await shell(block(OWN_SERVERS, "migrate"), tmp_path, TIDELOG_DATABASE_URL=url)
            assert "applied: 0001_event_log.sql" in applied
            pending = await shell("tidelog migrate --check", tmp_path, TIDELOG_DATABASE_URL=url)
            assert pending == "The schema is up to date.\n"
            application = make_conninfo(url, user=f"t{mark}_server", password="choose-another")
            async with running(application, services.nats_url) as system:
                await system.command(CreateProject(project_id=new_id(), name="p"))
                await system.settled()
                assert await system.container.row_level_security()
                others = (f"SET ROLE t{mark}_owner", f"SET ROLE t{mark}_log", f"SET ROLE t{mark}")
                for change in ("UPDATE event SET topic = 'x'", "DELETE FROM event", "TRUNCATE event", *others):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        await system.sql(change)
        finally:
            await connection.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(f"t{mark}")))
            for role in (f"t{mark}_server", f"t{mark}", *(f"t{mark}_{kind}" for kind in ("owner", "log", "app", "reader"))):
                await connection.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(role)))


async def test_sizes_of_a_database_and_of_a_folder_are_shown(database_url: str, tmp_path: Path) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        cursor = await connection.execute(block(DISK, "sizes").encode())
        [(events, runs, database)] = await cursor.fetchall()
        assert (events, runs) == (None, 0) and database.endswith(("kB", "MB"))
        cursor.nextset()
        tables = await cursor.fetchall()
        assert len(tables) == 10
        cursor = await connection.execute(
            "SELECT max(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relkind = 'r' AND relname = ANY (%s)",
            [["event", *(name for name, _, _ in tables)]],
        )
        assert await cursor.fetchall() == [(max(size for _, _, size in tables),)], (
            "the largest tables are shown, the log if it is one"
        )
    for part in ("postgres/data/pg_wal", "nats", "logs"):
        (tmp_path / ".tidelog" / part).mkdir(parents=True)
    assert len((await shell(block(DISK, "folder"), tmp_path)).splitlines()) >= 3
    await shell(block(RESTORE, "copy-the-folder"), tmp_path)
    assert (tmp_path / "tidelog-backup" / "postgres" / "data").is_dir()


def test_nats_takes_the_configuration_with_the_accounts_of_the_command(tmp_path: Path) -> None:
    configuration = tmp_path / "nats.conf"
    configuration.write_text(block(OWN_SERVERS, "nats"))
    check = [find_nats(None).path, "-t", "-c", configuration]
    assert subprocess.run(check, capture_output=True, timeout=30).returncode != 0, "the file of accounts is not there"
    tenant = Subscriber("0198c0de-0000-7000-8000-000000000001", "1f-5", "password")
    AccountsFile(tmp_path / "tidelog.conf").change("1f-5", lambda found: found.update({tenant.tenant_id: tenant}))
    subprocess.run(check, check=True, capture_output=True, timeout=30)
