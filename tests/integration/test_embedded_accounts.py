"""The account of the embedded servers: under root an existing account without rights, otherwise the ordinary user."""

import json
import os
import pwd
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from adapters.embedded import EmbeddedServices, StateDirectoryUnusable, find_nats, find_postgres
from adapters.embedded.accounts import Account, blocked_at
from adapters.embedded.relocation import reachable
from tests.pace import finished
from tests.temporary import short_folder

REPOSITORY = Path(__file__).resolve().parents[2]
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can drop to another account")
PROGRAM = textwrap.dedent(
    """
    import asyncio, json, os, sys
    from pathlib import Path
    import structlog
    from adapters.embedded import EmbeddedServices

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    async def main():
        services = EmbeddedServices(Path(sys.argv[1]), durable=False)
        for _ in range(2):
            await services.start()
            report = services.describe()
            uids = [os.stat(f"/proc/{report[name]['pid']}").st_uid for name in ("postgres", "nats")]
            await services.stop()
        print(json.dumps({"uids": uids, "account": report["account"], "home": report["home"]}))

    asyncio.run(main())
    """
)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = short_folder()
    yield path
    shutil.rmtree(path)


def unprivileged() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def credentials(pid: int) -> dict[str, list[int]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}
    return {name: [int(value) for value in fields[name]] for name in ("Uid", "Gid", "Groups")}


def owners_under(folder: Path) -> set[int]:
    return {path.lstat().st_uid for path in folder.rglob("*")}


async def rows(url: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=60) as connection:
        return await (await connection.execute("SELECT n FROM t")).fetchall()


@needs_root
async def test_root_gives_up_every_right_of_root_and_opens_no_folder(folder: Path) -> None:
    parents = {path: path.stat().st_mode for path in (folder, folder.parent)}
    services = EmbeddedServices(folder / "state", durable=False, account="nobody")
    await services.start()
    try:
        nobody = unprivileged()
        for name in ("postgres", "nats"):
            rights = credentials(services.describe()[name]["pid"])
            assert rights == {"Uid": [nobody.uid] * 4, "Gid": [nobody.gid] * 4, "Groups": []}
        assert services.home == folder / "state"
        assert {path: path.stat().st_mode for path in parents} == parents
        assert (services.home / "secrets.json").stat().st_uid == 0
    finally:
        await services.stop()


@needs_root
async def test_owner_of_the_state_directory_is_chosen_and_keeps_everything(folder: Path) -> None:
    nobody = unprivileged()
    state_dir = folder / "state"
    state_dir.mkdir(mode=0o700)
    os.chown(state_dir, nobody.uid, nobody.gid)
    services = EmbeddedServices(state_dir, durable=False)
    await services.start()
    try:
        assert services.describe()["account"] == "nobody"
    finally:
        await services.stop()
    (state_dir / ".gitignore").unlink()
    assert owners_under(state_dir) == {nobody.uid}


@needs_root
async def test_closed_state_directory_moves_the_data_and_finds_it_again(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)
    state_dir, spare = folder / "closed" / ".tidelog", folder / "spare"
    services = EmbeddedServices(state_dir, durable=False, want_nats=False, spare_root=spare)
    await services.start()
    home = services.home
    assert home.parent == spare
    assert services.describe()["home"] == str(home)
    async with await psycopg.AsyncConnection.connect(services.database_url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    await services.stop()
    assert (folder / "closed").stat().st_mode & 0o777 == 0o700

    # The folder of the project may move: the record moves with the folder.
    (folder / "closed").rename(folder / "renamed")
    moved = EmbeddedServices(folder / "renamed" / ".tidelog", durable=False, want_nats=False, spare_root=spare)
    await moved.start()
    assert moved.home == home
    assert await rows(moved.database_url) == [(7,)]
    await moved.stop()

    # A copied folder would share the data of its original.
    shutil.copytree(folder / "renamed", folder / "copy")
    with pytest.raises(StateDirectoryUnusable, match="is a copy of"):
        await EmbeddedServices(folder / "copy" / ".tidelog", want_nats=False, spare_root=spare).start()
    shutil.rmtree(home)
    with pytest.raises(StateDirectoryUnusable, match="is missing"):
        await moved.start()


@needs_root
async def test_binaries_that_the_account_cannot_reach_are_run_from_a_copy(folder: Path) -> None:
    """The case of a virtual environment under the home of root."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    package = find_postgres(None, None).path.parents[2]
    for part in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
    shutil.copy(find_nats(None).path, closed / "nats-server")
    postgres_bin = closed / package.name / "pginstall" / "bin"
    services = EmbeddedServices(
        folder / "state",
        durable=False,
        postgres_bin=postgres_bin,
        nats_bin=closed / "nats-server",
        cache_root=folder / "cache",
    )
    await services.start()
    report = services.describe()
    await services.stop()
    assert report["postgres"]["sha256"] == find_postgres(None, None).sha256
    for name in ("postgres", "nats"):
        copy = Path(report[name]["binary"])
        assert copy.is_relative_to(folder / "cache")
        assert {path.stat().st_uid for path in (copy, *copy.parents)} == {0}
    assert len(list((folder / "cache").iterdir())) == 2
    before = (folder / "cache").stat().st_mtime_ns
    assert blocked_at(reachable(find_postgres(None, postgres_bin), unprivileged(), folder / "cache").path, unprivileged()) is None
    assert (folder / "cache").stat().st_mtime_ns == before  # the copy is found, and the files are not copied again


@needs_root
async def test_cache_that_others_can_write_to_is_refused(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(find_nats(None).path, closed / "nats-server")
    (folder / "cache").mkdir()
    (folder / "cache").chmod(0o777)
    services = EmbeddedServices(folder / "state", want_postgres=False, nats_bin=closed / "nats-server", cache_root=folder / "cache")
    with pytest.raises(StateDirectoryUnusable, match="writable by root alone"):
        await services.start()


@needs_root
@pytest.mark.parametrize("name", ["root", "no-such-account"])
async def test_unusable_account_is_a_clear_error(folder: Path, name: str) -> None:
    with pytest.raises(StateDirectoryUnusable, match=f"account '{name}'"):
        await EmbeddedServices(folder / "state", account=name).start()


def test_ordinary_user_needs_nothing_else(folder: Path) -> None:
    """The whole launcher runs without rights, not only the servers. Under root the launcher is started as `nobody` for that."""
    account = unprivileged() if IS_ROOT else None
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    python = next(
        (path for path in interpreters() if run_python(path, account, "import psycopg, nats, structlog") is not None), None
    )
    if python is None:
        pytest.skip("no Python of this version that an ordinary user can run")
    output = run_python(python, account, PROGRAM, str(folder / "state"))
    assert output is not None
    uid = account.uid if account else os.geteuid()
    assert json.loads(output) == {"uids": [uid, uid], "account": None, "home": str(folder / "state")}
    assert owners_under(folder) == {uid}


def interpreters() -> list[str]:
    """The Python of the tests, and a Python of the system with the same version (the compiled parts of psycopg must fit)."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin")
    return [sys.executable, *([system] if system else [])]


def run_python(python: str, account: Account | None, program: str, *arguments: str) -> str | None:
    """The output of the program, or None if the program cannot be run or fails (pytest then shows its stderr)."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    try:
        ran = finished(
            [python, "-c", program, *arguments],
            30,
            cwd=Path("/"),
            env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *packages])},
            account=(account.uid, account.gid) if account else None,
        )
    except OSError:
        return None
    print(ran.stderr)
    return None if ran.returncode else ran.stdout
