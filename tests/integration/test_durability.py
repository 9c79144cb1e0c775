"""An acknowledged append is on disk before its answer, on a server whose settings allow less. A server with unsafe settings is
refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from eventsourcing.persistence import OperationalError, StoredEvent
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices
from adapters.postgres.durability import NotDurable
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.recorder import TidelogRecorder
from adapters.postgres.pool import open_pool
from api.cli.diagnosis import diagnose
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from domain.errors import Unavailable
from tests.contract.test_recorder import open_datastore
from tests.integration.durable_kit import administer, database_on, set_fsync
from tests.integration.system_kit import System, empty_work_queue, eventually, issue_key, running

TENANT = uuid7()
APPENDS = 30
PAGE_HEADER = 40
"""If the WAL ends with its page, the next record begins after the header of the next page."""
UNFLUSHED = "SELECT pg_current_wal_insert_lsn() - pg_current_wal_flush_lsn()"


@pytest_asyncio.fixture
async def not_flushing(durable: EmbeddedServices) -> AsyncIterator[EmbeddedServices]:
    await set_fsync(durable, "off")
    yield durable
    await set_fsync(durable, "on")


@asynccontextmanager
async def store_on(url: str) -> AsyncIterator[tuple[PostgresEventStore, PostgresEventFeed]]:
    pool = await open_pool(url, role="test", max_size=2)
    store = PostgresEventStore(url, pool)
    await store.start()
    try:
        yield store, PostgresEventFeed(pool)
    finally:
        await store.close()
        await pool.close()


def request() -> AppendRequest:
    stream_id = uuid7()
    return one_command(TENANT, uuid7(), (StreamAppend(stream_id, stream_id, 0, (NewEvent("thing.happened", 1, b"{}"),)),), "{}")


async def flushes_of(connection: psycopg.AsyncConnection[Any]) -> int:
    """The number of times that sessions flushed the WAL. A session reports its flushes at its end."""
    newer = connection.info.server_version >= 180_000
    counted = (
        "SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal' AND backend_type = 'client backend'"
        if newer
        else "SELECT wal_sync FROM pg_stat_wal"
    )
    row = await (await connection.execute(counted)).fetchone()
    assert row is not None
    return int(row[0] or 0)


async def unflushed(beside: psycopg.AsyncConnection[Any]) -> int:
    """Bytes of the WAL that are not on disk."""
    row = await (await beside.execute(UNFLUSHED)).fetchone()
    assert row is not None
    return int(row[0])


# --- flush before answer ----------------------------------------------------------------------------------------------


async def test_each_acknowledged_append_was_flushed_before_its_answer(durable: EmbeddedServices) -> None:
    """The sessions of this database begin without waiting for the disk, and only a waiting commit flushes."""
    url = await database_on(durable)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as beside:
        before = await flushes_of(beside)
        async with store_on(url) as (store, feed):
            await feed.head()  # all connections are open and have written the records of their begin
            await store.append(request())
            await unflushed(beside)
            for _ in range(APPENDS):
                await store.append(request())
                assert await unflushed(beside) <= PAGE_HEADER, "bytes of the log were not on disk at the answer"
            assert await feed.head() == APPENDS + 1

        async def counted() -> bool:
            return await flushes_of(beside) - before >= APPENDS

        await eventually(counted, f"{APPENDS} flushes of the log")


async def test_the_recorder_of_the_library_flushes_too(durable: EmbeddedServices) -> None:
    url = await database_on(durable)
    datastore = open_datastore(url)
    try:
        recorder = TidelogRecorder(datastore, tenant_id=TENANT)
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as beside:
            for position in range(1, 12):
                assert recorder.insert_events([StoredEvent(uuid4(), 1, "topic", b"{}")]) == [position]
                left = await unflushed(beside)
                assert left <= PAGE_HEADER or position == 1  # connections write some records when they begin
    finally:
        datastore.close()


@pytest.mark.parametrize(
    ("given", "used"), [("off", "on"), ("local", "local"), ("remote_write", "remote_write"), ("remote_apply", "remote_apply")]
)
async def test_the_writer_waits_for_the_disk_whatever_the_default_is(durable: EmbeddedServices, given: str, used: str) -> None:
    url = await database_on(durable, synchronous_commit=given)
    async with store_on(url) as (store, _):
        await store.append(request())
        session = store._writer._writer._session._open  # only the session itself knows its setting
        assert session is not None
        assert await (await session.connection.execute("SHOW synchronous_commit")).fetchone() == (used,)


# --- servers without flushing -----------------------------------------------------------------------------------------


async def test_a_writer_does_not_begin_where_fsync_is_off(not_flushing: EmbeddedServices) -> None:
    url = await database_on(not_flushing)
    async with store_on(url) as (store, feed):
        for _ in range(5):
            with pytest.raises(Unavailable, match="fsync is off") as refusal:
                await store.append(request())
            assert type(refusal.value) is NotDurable
        assert await feed.head() == 0
        await set_fsync(not_flushing, "on")
        assert (await store.append(request())).last_position == 1, "mended without a restart of ours"


async def test_nor_does_the_recorder(not_flushing: EmbeddedServices) -> None:
    url = await database_on(not_flushing)
    datastore = open_datastore(url)
    try:
        with pytest.raises(OperationalError, match="fsync is off"):
            TidelogRecorder(datastore, tenant_id=TENANT).insert_events([StoredEvent(uuid4(), 1, "topic", b"{}")])
    finally:
        datastore.close()
    async with store_on(url) as (_, feed):
        assert await feed.head() == 0


async def test_a_running_server_refuses_and_says_why(
    durable: EmbeddedServices, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.postgres.durability.ASK_EVERY_S", 0.5)
    url = await database_on(durable)
    await empty_work_queue(nats_url)
    async with running(url, nats_url, loops=["relay", "projections", "sagas"]) as system:
        await issue_key(system)
        report = await eventually(lambda: _ready(system), "readiness")
        assert (report["dependencies"]["durability"], report["durable"]) == ("ok", True)
        await set_fsync(durable, "off")
        try:
            await eventually(lambda: _refused(system), "a refusal")
            head = await system.container.feed.head()
            for _ in range(5):
                assert await _refused(system)
            assert await system.container.feed.head() == head
            report = await eventually(lambda: _unready(system), "a report that is newer than the refusal")
            assert report["durable"] is False
            assert report["dependencies"]["postgres"] == "ok"
            monkeypatch.setenv("TIDELOG_DATABASE_URL", url)
            [finding] = [found for found in (await diagnose(None, None)).findings if found.subject == "durability"]
            assert finding.status == "wrong" and "fsync is off" in finding.detail and "fsync = on" in finding.mend
        finally:
            await set_fsync(durable, "on")

        async def back() -> bool:
            return (await readiness(system))[0] == 200 and not await _refused(system)

        await eventually(back, "appends again")


async def _refused(system: System) -> bool:
    answer = await system.http.post("/v1/projects", json={"name": "p"})
    if answer.status_code == 201:
        return False
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert "fsync is off" in answer.json()["detail"]
    return True


async def _ready(system: System) -> dict[str, Any] | None:
    status, report = await readiness(system)
    return report if status == 200 else None


async def _unready(system: System) -> dict[str, Any] | None:
    """The report that says why. On a busy machine a look may take longer than its two seconds, which is another reason."""
    status, report = await readiness(system)
    return report if status == 503 and "fsync is off" in report["dependencies"].get("durability", "") else None


async def readiness(system: System) -> tuple[int, dict[str, Any]]:
    response = await system.http.get("/health/ready")
    return response.status_code, response.json()


# --- databases that may be lost ---------------------------------------------------------------------------------------


async def test_a_throw_away_database_says_so_itself_and_readiness_repeats_it(
    not_flushing: EmbeddedServices, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await database_on(not_flushing)
    name = Identifier(str(conninfo_to_dict(url)["dbname"]))
    for value, accepted in (("off", False), ("on", True)):
        setting = SQL("ALTER DATABASE {} SET tidelog.throw_away = {}").format(name, Literal(value))
        await administer(not_flushing, setting)
        async with store_on(url) as (store, _):
            if accepted:
                await store.append(request())
            else:
                with pytest.raises(NotDurable):
                    await store.append(request())
    async with running(url, nats_url, loops=["projections"]) as system:
        report = await eventually(lambda: _ready(system), "readiness")
        assert (report["dependencies"]["durability"], report["durable"]) == ("ok", False)
    monkeypatch.setenv("TIDELOG_DATABASE_URL", url)
    [finding] = [found for found in (await diagnose(None, None)).findings if found.subject == "durability"]
    assert finding.status == "warning" and "may be lost" in finding.detail


async def test_the_doctor_warns_of_torn_pages(durable: EmbeddedServices, monkeypatch: pytest.MonkeyPatch) -> None:
    url = await database_on(durable)
    monkeypatch.setenv("TIDELOG_DATABASE_URL", url)
    [before] = [found for found in (await diagnose(None, None)).findings if found.subject == "durability"]
    assert before.status == "ok"
    await administer(durable, SQL("ALTER SYSTEM SET full_page_writes = off"), SQL("SELECT pg_reload_conf()"))
    try:

        async def warned() -> bool:
            [finding] = [found for found in (await diagnose(None, None)).findings if found.subject == "durability"]
            return finding.status == "warning" and "full_page_writes" in finding.detail

        await eventually(warned, "the warning")
    finally:
        await administer(durable, SQL("ALTER SYSTEM RESET full_page_writes"), SQL("SELECT pg_reload_conf()"))
