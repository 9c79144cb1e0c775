"""The embedded PostgreSQL and NATS: start, crash, restart, refusal. The tests use real servers and real SIGKILLs."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psycopg
import pytest
import pytest_asyncio

from adapters.embedded import (
    DataDirectoryBusy,
    EmbeddedError,
    EmbeddedServices,
    ServiceName,
    ServicesStopped,
    StartFailed,
    VersionMismatch,
)
from adapters.embedded.processes import ProcessIdentity
from tests.integration.system_kit import nats_client_of
from tests.pace import ANSWER_S, Deadline, in_time
from tests.temporary import short_folder

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = textwrap.dedent(
    """
    import asyncio, json, sys
    from pathlib import Path
    import structlog
    from adapters.embedded import EmbeddedServices

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    async def main():
        services = EmbeddedServices(Path(sys.argv[1]))
        await services.start()
        report = services.describe()
        pids = [report["postgres"]["pid"], report["nats"]["pid"]]
        print(json.dumps({"database": services.database_url, "nats": services.nats_url, "pids": pids}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)


def temporary_folder() -> Iterator[Path]:
    """A folder that the account of the servers can reach. Under root that account cannot reach pytest's own tmp_path."""
    path = short_folder()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def folder() -> Iterator[Path]:
    yield from temporary_folder()


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    yield from temporary_folder()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def services(shared_folder: Path) -> AsyncIterator[EmbeddedServices]:
    """Running servers for tests that leave the servers running."""
    running = EmbeddedServices(shared_folder / "state", durable=False)
    await running.start()
    yield running
    await running.stop()


async def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=60) as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


async def publish(url: str, count: int) -> None:
    client = await nats.connect(url, connect_timeout=10)
    stream = client.jetstream(timeout=ANSWER_S)
    await stream.add_stream(name="LOG", subjects=["log.>"])
    for number in range(count):
        await stream.publish("log.x", str(number).encode())
    await client.close()


async def messages(url: str) -> int:
    client = await nats.connect(url, connect_timeout=10)
    info = await client.jetstream(timeout=ANSWER_S).stream_info("LOG")
    await client.close()
    return info.state.messages


def pid_of(services: EmbeddedServices, name: str) -> int:
    pid = services.describe()[name]["pid"]
    assert isinstance(pid, int)
    return pid


async def eventually(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = Deadline(within_s)
    while not condition():
        if await deadline.over():
            return False
        await asyncio.sleep(0.01)
    return True


def children(program: str) -> list[int]:
    """Child processes of this process that run the program."""
    found = []
    for stat_file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = stat_file.read_text().partition("(")[2].rpartition(")")
            if name == program and int(rest.split()[1]) == os.getpid():
                found.append(int(stat_file.parent.name))
    return found


def run_as_owner_of(data: Path, command: list[str]) -> subprocess.Popen[bytes]:
    """A process of the same account as the server, like any other process of that account."""
    owner = data.stat()
    root = os.geteuid() == 0
    return subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        user=owner.st_uid if root else None,
        group=owner.st_gid if root else None,
        extra_groups=[] if root else None,
    )


def start_program(state_dir: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(state_dir)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=REPOSITORY)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_data_and_addresses_stay_over_a_stop_and_a_warm_start_is_quick(folder: Path) -> None:
    services = EmbeddedServices(folder / "state")
    begun = time.perf_counter()
    await services.start()
    with_initdb = time.perf_counter() - begun
    first = (services.database_url, services.nats_url)
    pids = [pid_of(services, name) for name in ("postgres", "nats")]
    await execute(services.database_url, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    await publish(services.nats_url, 20)
    settings = await execute(
        services.database_url,
        "SELECT current_setting('fsync'), current_setting('timezone'), current_setting('server_encoding'), datlocale,"
        " current_setting('listen_addresses') FROM pg_database WHERE datname = 'tidelog'",
    )
    assert settings == [("on", "UTC", "UTF8", "C.UTF-8", "")]
    await services.stop()
    assert [ProcessIdentity.of(pid) for pid in pids] == [None, None]

    durations = []
    for _ in range(3):
        begun = time.perf_counter()
        await services.start()
        durations.append(time.perf_counter() - begun)
        assert (services.database_url, services.nats_url) == first
        assert await execute(services.database_url, "SELECT count(*) FROM t") == [(1000,)]
        assert await messages(services.nats_url) == 20
        await services.stop()
    # A restart takes about 60 ms on an idle machine, the first start a second.
    assert min(durations) < with_initdb / 2


async def test_servers_survive_sigkill_with_rows_messages_and_addresses(services: EmbeddedServices) -> None:
    database_url, nats_url = services.database_url, services.nats_url
    await execute(database_url, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    await publish(nats_url, 50)
    reconnected = asyncio.Event()

    async def on_reconnect() -> None:
        reconnected.set()

    async def on_error(error: Exception) -> None:
        """This test is about the break."""

    client = await nats_client_of(
        nats_url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, reconnected_cb=on_reconnect, error_cb=on_error
    )
    pairs: tuple[tuple[ServiceName, ServiceName], ...] = (("postgres", "nats"), ("nats", "postgres"))
    for name, other in pairs:
        died, lives = (asyncio.create_task(services.wait_exit(which)) for which in (name, other))
        before = pid_of(services, name)
        os.kill(before, signal.SIGKILL)
        await in_time(died, 5)
        assert not lives.done()
        lives.cancel()
        await services.restart(name)
        assert pid_of(services, name) != before
    assert (services.database_url, services.nats_url) == (database_url, nats_url)
    assert await execute(database_url, "SELECT count(*) FROM t") == [(1000,)]
    await in_time(reconnected.wait(), 5)
    assert (await client.jetstream(timeout=ANSWER_S).stream_info("LOG")).state.messages == 50
    await client.close()


async def test_wait_exit_tells_of_a_stop_and_not_of_a_restart(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", want_postgres=False)
    await services.start()
    waiting = asyncio.create_task(services.wait_exit("nats"))
    await asyncio.sleep(0)
    await services.restart("nats")
    for _ in range(10):  # turns in which a waiter that saw the old process end would return
        await asyncio.sleep(0)
    assert not waiting.done()
    await services.stop()
    with pytest.raises(ServicesStopped):
        await in_time(waiting, 5)
    with pytest.raises(ServicesStopped):
        _ = services.nats_url


async def test_second_start_is_refused_with_the_holder_and_harms_nothing(services: EmbeddedServices) -> None:
    with pytest.raises(DataDirectoryBusy, match=f"process {os.getpid()}: stop that one") as refusal:
        await EmbeddedServices(services.home).start()
    assert refusal.value.holder == os.getpid()
    assert "\n" not in str(refusal.value)
    assert await execute(services.database_url, "SELECT 1") == [(1,)]


async def test_only_the_owner_gets_at_passwords_and_sockets(services: EmbeddedServices) -> None:
    home = services.home
    assert [mode(home / name) for name in ("secrets.json", "nats.conf", "lock", "state.json")] == [0o600] * 4
    assert [mode(home / name) for name in ("run", "postgres", "nats", "logs", "postgres/data")] == [0o700] * 5
    assert mode(home / "run" / ".s.PGSQL.5432") == 0o700
    assert mode(home) & 0o067 == 0
    assert (home / ".gitignore").read_text() == "*\n"
    password = json.loads((home / "secrets.json").read_text())["postgres_app"]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await execute(services.database_url.replace(password, "guess"), "SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        await execute(services.database_url.replace(":" + password, ""), "SELECT 1")
    assert await execute(services.database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    assert await execute(services.admin_database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(True,)]
    shown = json.dumps(services.describe())
    assert not [secret for secret in json.loads((home / "secrets.json").read_text()).values() if secret in shown]
    assert listening_addresses(pid_of(services, "nats")) == {"127.0.0.1"}
    assert listening_addresses(pid_of(services, "postgres")) == set()


def listening_addresses(pid: int) -> set[str]:
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed by now; the listening socket stays
            target = os.readlink(entry)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for family, table in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].split(":")[0])
                address = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                found.add(socket.inet_ntop(family, address))
    return found


async def test_stale_pid_file_that_names_a_stranger_is_handled_and_the_stranger_lives(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False, want_nats=False)
    await services.start()
    data, binary = services.home / "postgres" / "data", services.describe()["postgres"]["binary"]
    await services.stop()
    # The process belongs to the server's account: PostgreSQL itself refuses to start if it finds a live process that it may signal.
    stranger = run_as_owner_of(data, ["sleep", "60"])
    try:
        (data / "postmaster.pid").write_text(f"{stranger.pid}\n{data}\n1\n5432\n{folder}/state/run\n\n  1 1\nready   \n")
        await services.start()
        assert await execute(services.database_url, "SELECT 1") == [(1,)]
        await services.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(timeout=ANSWER_S)

    # A live postmaster on this data that a person started by hand is left alone.
    by_hand = run_as_owner_of(data, [binary, f"-D{data}", "--listen_addresses=", f"--unix_socket_directories={data.parent}"])
    try:
        pid_file = data / "postmaster.pid"
        assert await eventually(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        with pytest.raises(DataDirectoryBusy, match=f"process {by_hand.pid}") as refusal:
            await services.start()
        assert refusal.value.holder == by_hand.pid
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(timeout=ANSWER_S)


async def test_killed_parent_takes_the_servers_along_and_the_next_start_has_all_rows(folder: Path) -> None:
    parent = start_program(folder / "state")
    assert parent.stdout is not None
    try:
        started = json.loads(await in_time(asyncio.to_thread(parent.stdout.readline), 30))
        await execute(started["database"], "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        await publish(started["nats"], 30)
    finally:
        parent.kill()
        parent.wait(timeout=ANSWER_S)
        parent.stdout.close()
    # The start follows at once: the servers of the killed parent are still shutting down and hold the lock.
    services = EmbeddedServices(folder / "state")
    await services.start()
    try:
        assert [ProcessIdentity.of(pid) for pid in started["pids"]] == [None, None]
        assert services.database_url == started["database"]
        assert services.nats_url == started["nats"]
        assert await execute(services.database_url, "SELECT count(*) FROM t") == [(1000,)]
        assert await messages(services.nats_url) == 30
    finally:
        await services.stop()


async def test_moved_to_an_awkward_path_it_gets_a_short_private_socket_folder_that_is_kept(folder: Path) -> None:
    await start_and_query(EmbeddedServices(folder / "state", durable=False, want_nats=False))
    place = folder / "state"
    for name in ("x" * 120, "a,b"):
        place = place.rename(folder / name)
        services = EmbeddedServices(place, durable=False, want_nats=False)
        url, socket_path = await start_and_query(services)
        try:
            assert mode(socket_path.parent) == 0o700
            assert not socket_path.is_relative_to(folder)
            socket_path.parent.rmdir()  # as a cleaned /tmp after a reboot
            assert await start_and_query(services) == (url, socket_path)
            assert mode(socket_path.parent) == 0o700
        finally:
            shutil.rmtree(socket_path.parent)


async def start_and_query(services: EmbeddedServices) -> tuple[str, Path]:
    await services.start()
    try:
        assert await execute(services.database_url, "SELECT 1") == [(1,)]
        return services.database_url, Path(services.describe()["postgres"]["socket"])
    finally:
        await services.stop()


async def test_port_taken_by_a_stranger_is_given_up_at_a_start(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", want_postgres=False)
    await services.start()
    old = services.describe()["nats"]["port"]
    await services.stop()
    with socket.create_server(("127.0.0.1", old)):
        await services.start()
        try:
            assert services.describe()["nats"]["port"] != old
            await publish(services.nats_url, 1)
        finally:
            await services.stop()


async def test_failed_start_names_the_reason_and_leaves_nothing_behind(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False, postgres_settings={"shared_buffers": "lots"})
    with pytest.raises(StartFailed, match="shared_buffers") as failure:
        await services.start()
    assert "\n" not in str(failure.value)
    (folder / "state" / "nats.conf").unlink(missing_ok=True)
    (folder / "state" / "nats.conf").mkdir()
    good = EmbeddedServices(folder / "state", durable=False)
    with pytest.raises(StartFailed, match=r"nats\.conf"):
        await good.start()
    (folder / "state" / "nats.conf").rmdir()
    await good.start()  # the lock is free and the cluster is complete
    await good.stop()


async def test_cancelled_first_start_leaves_no_half_made_cluster(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False)
    starting = asyncio.create_task(services.start())

    def half_made() -> bool:
        """initdb is stopped there, so that it does not end before the cancellation."""
        for child in children("initdb"):
            os.kill(child, signal.SIGSTOP)
            if list((folder / "state").glob("postgres/initdb-*/PG_VERSION")):
                return True
            os.kill(child, signal.SIGCONT)
        return False

    assert await eventually(half_made)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not (folder / "state" / "postgres" / "data").exists()
    await services.start()
    assert await execute(services.database_url, "SELECT 1") == [(1,)]
    assert [path.name for path in (folder / "state" / "postgres").iterdir()] == ["data"]
    await services.stop()


async def test_data_that_cannot_be_served_is_an_error_and_never_replaced(folder: Path) -> None:
    services = EmbeddedServices(folder / "state", durable=False, want_nats=False)
    await services.start()
    home = services.home
    await services.stop()
    before = sorted(path.name for path in (home / "postgres" / "data").iterdir())
    (home / "postgres" / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(VersionMismatch, match="written by PostgreSQL 9"):
        await services.start()
    (home / "secrets.json").unlink()
    with pytest.raises(EmbeddedError, match=r"passwords .* are lost"):
        await services.start()
    assert sorted(path.name for path in (home / "postgres" / "data").iterdir()) == before


async def test_start_off_the_main_thread_is_refused(folder: Path) -> None:
    def start() -> None:
        asyncio.run(EmbeddedServices(folder / "state").start())

    with pytest.raises(StartFailed, match="main thread"):
        await asyncio.to_thread(start)


async def test_passwords_of_random_bits_cost_no_iterations(services: EmbeddedServices) -> None:
    """Each connection would pay 4,096 of them, as PostgreSQL asks for passwords that may be guessed."""
    async with await psycopg.AsyncConnection.connect(services.admin_database_url) as connection:
        found = await (await connection.execute("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")).fetchall()
        [later] = await (await connection.execute("SHOW scram_iterations")).fetchone() or ("",)
    assert [password.partition(":")[0] for (password,) in found] == ["SCRAM-SHA-256$1"] * 2
    assert later == "4096", "a password that a person sets"
