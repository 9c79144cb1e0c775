"""Faults of the database below a working server: it restarts, refuses, is slow, holds locks, and moves to another address.

The tests have a PostgreSQL server of their own, because it is stopped, filled up and replaced. All roles run under load behind a
wire to that server.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.postgres.database import PostgresDatabase
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.migrate import migrate
from adapters.postgres.pool import open_pool
from domain.errors import Unavailable
from tests.chaos.faults_kit import Rig, eventually, rigged, rounds, seeded
from tests.integration.nats_kit import APPEND_ONE, open_log
from tests.integration.parts_kit import waiting_appends
from tests.integration.system_kit import empty_work_queue
from tests.integration.wire_kit import postgres_target, wired
from tests.pace import in_time, within

pytestmark = pytest.mark.chaos

CONNECTIONS = 40
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tidelog-%%' AND datname = %s"
HOLD_HEAD = "SELECT FROM log_head FOR UPDATE"


def small_server(folder: Path) -> EmbeddedServices:
    settings = {"max_prepared_transactions": "4", "max_connections": str(CONNECTIONS)}
    return EmbeddedServices(folder / "state", want_nats=False, durable=False, postgres_settings=settings)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def folder() -> AsyncIterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tidelog-test-"))
    os.chmod(folder, 0o711)  # the account of the servers must reach the folder
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(folder: Path) -> AsyncIterator[EmbeddedServices]:
    server = small_server(folder)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def url(server: EmbeddedServices) -> str:
    """A migrated database of that server. The database is removed with the server."""
    url = make_conninfo(server.database_url, dbname=f"test_{uuid4().hex}")
    given = conninfo_to_dict(url)
    async with admin(server) as connection:
        create = SQL("CREATE DATABASE {} OWNER {} STRATEGY file_copy")
        await connection.execute(create.format(Identifier(str(given["dbname"])), Identifier(str(given["user"]))))
    await migrate(url)
    return url


@asynccontextmanager
async def admin(server: EmbeddedServices) -> AsyncIterator[psycopg.AsyncConnection[tuple[object, ...]]]:
    async with await psycopg.AsyncConnection.connect(server.admin_database_url, autocommit=True) as connection:
        yield connection


@pytest_asyncio.fixture
async def rig(url: str, services: EmbeddedServices, impatient: None) -> AsyncIterator[Rig]:
    await empty_work_queue(services.nats_url)
    async with rigged(url, services.nats_url) as rig:
        yield rig


def dbname(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


# --- locks and transactions of others ---------------------------------------------------------------------------------


async def test_transactions_interleaved_in_any_order_are_read_in_one(url: str) -> None:
    """Sessions append, commit and roll back at random moments: a reader at the tail never sees a gap or an overtaking event."""
    chance, sessions = seeded(), 4
    seen: list[int] = []
    async with AsyncExitStack() as stack, open_log(url) as log:
        open_connections = [await stack.enter_async_context(await psycopg.AsyncConnection.connect(url)) for _ in range(sessions)]
        appending: dict[int, asyncio.Task[None]] = {}

        async def append(number: int) -> None:
            await open_connections[number].execute(APPEND_ONE, {"id": uuid4()})

        for _ in range(rounds(60, 2_000)):
            holder = [n for n, task in appending.items() if task.done()]
            assert len(holder) <= 1, "two transactions have positions at once"
            idle = [n for n in range(sessions) if n not in appending]
            if idle and (not holder or chance.random() < 0.6):
                number = chance.choice(idle)
                appending[number] = asyncio.create_task(append(number))
                if len(appending) == 1:
                    await appending[number]  # no session blocks the append
            elif holder:
                number = holder[0]
                await (open_connections[number].commit() if chance.random() < 0.7 else open_connections[number].rollback())
                del appending[number]
                if appending:  # the lock goes to one of the waiting sessions
                    await one_of(appending)
            seen += [event.position for event in await log.feed.read(after=seen[-1] if seen else 0, limit=100)]
        while appending:
            number = next(n for n, task in appending.items() if task.done())
            del appending[number]
            await open_connections[number].rollback()
            if appending:
                await one_of(appending)
    assert seen == list(range(1, len(seen) + 1)) and len(seen) > rounds(5, 200)


async def one_of(appending: dict[int, asyncio.Task[None]]) -> None:
    async with within(10):
        await asyncio.wait(appending.values(), return_when=asyncio.FIRST_COMPLETED)


async def test_an_orphaned_prepared_transaction_on_the_head_holds_up_but_loses_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append itself cannot be a prepared transaction (it notifies).

    Appends wait for other prepared transactions that hold the head's lock.
    """
    monkeypatch.setattr("adapters.postgres.log.session.STATEMENT_TIMEOUT", 0.2)
    async with open_log(url) as log:
        await log.append(1)
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute(APPEND_ONE, {"id": uuid4()})
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                await connection.execute("PREPARE TRANSACTION 'append'")
            await connection.rollback()
            await connection.execute("UPDATE log_head SET position = position")
            await connection.execute("PREPARE TRANSACTION 'orphan'")
        waiting = asyncio.create_task(log.append(3))
        await eventually(lambda: waiting_appends(url))
        assert not waiting.done() and [e.position for e in await log.everything()] == [1]
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            await connection.execute("ROLLBACK PREPARED 'orphan'")
        await in_time(waiting, 10)
        assert [e.position for e in await log.everything()] == [1, 2, 3, 4]


async def test_long_transactions_of_others_hold_up_nobody(url: str, server: EmbeddedServices) -> None:
    """Writers stay open, prepared or not, in this and in another database.

    Such writers would freeze a watermark of transaction ids.
    """
    async with open_log(url) as log, admin(server) as other, await psycopg.AsyncConnection.connect(url) as here:
        await other.execute("CREATE TABLE IF NOT EXISTS elsewhere (n integer)")
        await other.execute("BEGIN")
        await other.execute("INSERT INTO elsewhere VALUES (1)")
        await here.execute("CREATE TABLE aside (n integer)")
        await here.execute("PREPARE TRANSACTION 'aside'")
        await here.execute("CREATE TABLE beside (n integer)")
        async with within(5):
            await log.append(20)
            assert [e.position for e in await log.everything()] == list(range(1, 21))
        await here.rollback()
        await here.set_autocommit(True)
        await here.execute("ROLLBACK PREPARED 'aside'")
        await other.execute("ROLLBACK")


async def test_a_read_on_a_connection_that_fell_silent_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy that accepts all data and returns none, the time-outs of PostgreSQL itself do not help."""
    monkeypatch.setattr("adapters.postgres.pool.GRACE", 0.2)
    async with wired(url) as (wire, wired_url):
        pool = await open_pool(wired_url, role="test", max_size=1, statement_timeout=0.1)
        feed, database = PostgresEventFeed(pool), PostgresDatabase(pool)

        async def statement() -> None:
            async with database.connection() as connection:
                await connection.execute("SELECT 1")

        async def transaction() -> None:
            async with database.transaction() as connection:
                await connection.execute("SELECT 1")

        for read in (feed.head, statement, transaction):
            await eventually(partial(succeeds, read))
            wire.mute()
            with pytest.raises(Unavailable):
                await in_time(read(), 5)
            await wire.unmute()
        await eventually(partial(succeeds, feed.head))
        await pool.close()


async def succeeds(read: Callable[[], Awaitable[object]]) -> bool:
    """On a busy machine a statement may exceed its time-out although nothing is wrong."""
    with contextlib.suppress(Unavailable):
        await read()
        return True
    return False


async def test_an_append_on_a_connection_that_fell_silent_is_tried_on_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.postgres.log.session.STATEMENT_TIMEOUT", 0.1)  # the connection is given up 2 s later
    async with open_log(url) as log, wired(url) as (wire, wired_url):
        behind = PostgresEventStore(wired_url, log.pool)
        await behind.start()
        appends = replace(log, store=behind)
        await appends.append(1)
        before = wire.taken
        wire.mute()
        waiting = asyncio.create_task(appends.append(3))
        await eventually(lambda: wire.taken > before)
        await wire.unmute()
        await in_time(waiting, 10)
        assert [e.position for e in await log.everything()] == [1, 2, 3, 4]
        await behind.close()


# --- the whole server -------------------------------------------------------------------------------------------------

Fault = Callable[[], Awaitable[None]]


def faults(rig: Rig, server: EmbeddedServices, chance: random.Random) -> list[Fault]:
    name = dbname(rig.database_url)

    async def restart() -> None:
        await server.restart("postgres")

    async def held() -> None:
        """The statement time-out of appends ends the append before the lock is free."""
        async with await psycopg.AsyncConnection.connect(rig.database_url, options="-c lock_timeout=0") as connection:
            await connection.execute(HOLD_HEAD)
            await asyncio.sleep(0.6)

    async def refused_locks() -> None:
        async with admin(server) as connection:
            await connection.execute(SQL("ALTER DATABASE {} SET lock_timeout = '50ms'").format(Identifier(name)))
            await connection.execute(KILL, [name])
            await held()
            await connection.execute(SQL("ALTER DATABASE {} RESET lock_timeout").format(Identifier(name)))
            await connection.execute(KILL, [name])

    async def too_many_connections() -> None:
        async with AsyncExitStack() as stack, admin(server) as connection:
            await connection.execute(KILL, [name])
            with pytest.raises(psycopg.OperationalError, match=r"too many|remaining connection slots"):
                for _ in range(CONNECTIONS):
                    await stack.enter_async_context(await psycopg.AsyncConnection.connect(rig.database_url))
            await connection.execute(KILL, [name])  # sessions of the server that took a connection first
            await asyncio.sleep(0.5)
        await eventually(partial(has_room, server))

    async def has_room(server: EmbeddedServices) -> bool:
        """The server's processes of closed connections end when they get to it, and hold their places until then."""
        with contextlib.suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(server.database_url) as connection:
                cursor = await connection.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
                [(taken,)] = await cursor.fetchall()
                return bool(taken < CONNECTIONS // 2)
        return False

    chosen = [restart, held, refused_locks, too_many_connections]
    chance.shuffle(chosen)
    return list(chosen)


async def test_a_database_in_trouble_costs_time_only(rig: Rig, server: EmbeddedServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.postgres.log.session.STATEMENT_TIMEOUT", 0.3)
    chance = seeded()
    for _ in range(rounds(1, 5)):
        await rig.through(*faults(rig, server, chance), pause=lambda: chance.uniform(0.05, 0.3))


async def test_failover_to_a_server_at_another_address(rig: Rig, server: EmbeddedServices, folder: Path) -> None:
    """The old server is stopped, its copy is started elsewhere, and the same name leads to the copy from then on."""
    second = small_server(folder / "second")

    async def fail_over() -> None:
        await server.stop()
        (folder / "second").mkdir(mode=0o711)
        copying = ["cp", "-a", str(folder / "state"), str(folder / "second" / "state")]
        await asyncio.to_thread(subprocess.run, copying, check=True)
        await second.start()
        host, port = postgres_target(second.database_url)
        rig.database_url = make_conninfo(rig.database_url, host=host, port=port)
        await rig.database.retarget(host, port)

    chance = seeded()
    try:
        await rig.through(fail_over, pause=lambda: chance.uniform(0.1, 0.4))
    finally:
        await rig.database.cut()
        await second.stop()
