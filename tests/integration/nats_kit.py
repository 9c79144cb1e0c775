"""For the tests of adapters/nats: a NATS server to kill and to set back to an earlier state, a log to fill, a checking reader."""

import asyncio
import contextlib
import ctypes
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier, Literal
from uuid_utils.compat import uuid7

from adapters.embedded import EmbeddedServices, find_nats
from adapters.nats import JetStreamSubscription, JetStreamWorkQueue, NatsConnection, Relay, StreamSettings
from adapters.nats.jetstream import stored_message, stream_info
from adapters.nats.log.stream import LogStream, parting
from adapters.nats.log.wire import Span, decode
from adapters.nats.work.watch import Place
from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.pool import Pool, open_pool
from application.engine.background import end
from application.engine.ports.log import NewEvent, StreamAppend, Subscription, one_command
from application.engine.ports.queue import Queue, WorkQueue
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from tests.kit.copies import copy_database
from tests.pace import ANSWER_S, within
from tests.ports import free_port

TENANT = uuid7()
LOG = "testlog"
APPEND_ONE = """
    SELECT last_position FROM append_events_v2(
        ARRAY[%(id)s]::uuid[], ARRAY[%(id)s]::uuid[], ARRAY['{}'], ARRAY[1], ARRAY[1],
        ARRAY[1], ARRAY[%(id)s]::uuid[], ARRAY[0]::bigint[],
        ARRAY[1], ARRAY[%(id)s]::uuid[], ARRAY[%(id)s]::uuid[], ARRAY[1]::bigint[],
        ARRAY['thing.happened'], ARRAY[1]::smallint[], ARRAY['{}'::bytea])
"""
"""Appends one event to the stream `id`, in a transaction of the caller."""


def new_id() -> UUID:
    return uuid7()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class NatsProcess:
    """A nats-server of the test's own. The server keeps its port and its store over kills and starts."""

    def __init__(self, folder: Path, configuration: Path | None = None) -> None:
        self.store = folder / "store"
        self._configuration = configuration
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    async def start(self) -> None:
        ports = self._folder / "ports"
        ports.mkdir(exist_ok=True)
        command = [str(find_nats(None).path), "-js", "-sd", str(self.store), "-a", "127.0.0.1", "-p", str(self._port)]
        command += ["--ports_file_dir", str(ports), *(["-c", str(self._configuration)] if self._configuration else [])]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_die_with_parent)  # noqa: ASYNC220  returns at once
        pid = self._process.pid
        async with within(20):
            while not self._listens(ports, pid):
                assert self._process.poll() is None, (self._folder / "log").read_text()
                await asyncio.sleep(0.01)

    def _listens(self, ports: Path, pid: int) -> bool:
        return any(re.search(r"(?:nats|tls)://[^\"]*:\d+", path.read_text()) for path in ports.glob(f"*_{pid}.ports"))

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            await asyncio.to_thread(self._process.wait, 20)
            self._process = None

    async def set_back(self, while_running: Callable[[], "asyncio.Future[None]"]) -> None:
        """Copies the store, runs the block, and restores the copy, as a restore of an old disk does."""
        await self.kill(signal.SIGTERM)
        copy = self._folder / "copy"
        await asyncio.to_thread(shutil.copytree, self.store, copy)
        await self.start()
        await while_running()
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self.store)
        await asyncio.to_thread(copy.rename, self.store)
        await self.start()


@contextlib.asynccontextmanager
async def running_nats(folder: Path, configuration: Path | None = None) -> AsyncIterator[NatsProcess]:
    server = NatsProcess(folder, configuration)
    await server.start()
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            await server.kill()


@contextlib.asynccontextmanager
async def connected(url: str, name: str = "test", *, wait: float = ANSWER_S) -> AsyncIterator[NatsConnection]:
    connection = NatsConnection(url, name=name, reconnect_wait_s=0.1)
    await connection.start()
    try:
        if wait:
            await connection.ready(wait)
        yield connection
    finally:
        await connection.close()


async def consumer_of(queue: WorkQueue, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
    """The queue of an agent or tool, with the consumer that its first request makes. For those who pull without a puller."""
    served = queue.address(tenant_id, kind, pool, max_pending=max_pending)
    return await cast(JetStreamWorkQueue, queue)._make(Place(kind, tenant_id, pool), served.max_pending, "normal")


@dataclass
class Log:
    """The log of a database, and the parts that write and read the log."""

    url: str
    pool: Pool
    """For the test itself: it may change what a server may not, such as the past."""
    store: PostgresEventStore
    feed: PostgresEventFeed
    signal: AppendSignal
    histories: HistoryKeeper

    async def append(self, count: int, *, size: int = 40, together: int = 1) -> None:
        """Appends `count` events of about `size` bytes: `together` of them in each append, each append to a stream of its own."""
        state = b'{"text":"' + b"x" * size + b'"}'

        async def one(events: int) -> None:
            stream = new_id()
            appended = StreamAppend(stream, stream, 0, tuple(NewEvent("thing.happened", 1, state) for _ in range(events)))
            await self.store.append(one_command(TENANT, new_id(), (appended,), '{"actor":"test"}'))

        sizes = [together] * (count // together) + ([count % together] if count % together else [])
        for start in range(0, len(sizes), 200):
            await asyncio.gather(*(one(events) for events in sizes[start : start + 200]))

    async def answers(self) -> bool:
        try:
            await self.feed.head()
        except Unavailable:
            return False
        return True

    async def everything(self) -> list[RecordedEvent]:
        events: list[RecordedEvent] = []
        while page := await self.feed.read(after=events[-1].position if events else 0, limit=1_000):
            events.extend(page)
        return events


@contextlib.asynccontextmanager
async def open_log(database_url: str, *, max_event_bytes: int = 256 * 1024) -> AsyncIterator[Log]:
    own = await open_pool(database_url, role="test", rights="login", max_size=2)
    pool = await open_pool(database_url, role="test", max_size=4)
    store = PostgresEventStore(database_url, pool, max_event_bytes=max_event_bytes)
    signal_ = AppendSignal(database_url)
    await store.start()
    await signal_.start()
    try:
        yield Log(database_url, own, store, PostgresEventFeed(pool), signal_, HistoryKeeper(PostgresHistories(pool)))
    finally:
        await signal_.close()
        await store.close()
        await pool.close()
        await own.close()


@contextlib.asynccontextmanager
async def copied_database(services: EmbeddedServices, name: str, log: Log) -> AsyncIterator[str]:
    """Makes another database with the same content, as the restore of a dump does."""
    source = str(conninfo_to_dict(log.url)["dbname"])
    owner = str(conninfo_to_dict(log.url)["user"])
    async with await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin:
        allow = SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
        await admin.execute(allow.format(Identifier(source), Literal(False)))
        await admin.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", [source])
        await copy_database(admin, source, name, owner)
        await admin.execute(allow.format(Identifier(source), Literal(True)))
        try:
            yield make_conninfo(log.url, dbname=name)
        finally:
            await admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


@contextlib.asynccontextmanager
async def running(*coroutines) -> AsyncIterator[list[asyncio.Task[None]]]:  # type: ignore[no-untyped-def]
    """Runs loops beside the test. A loop that ends by itself fails the test."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
        for task in tasks:
            assert task.cancelled() or not task.done(), f"a loop ended: {task}"
    finally:
        await end(*tasks)


def keeper(connection: NatsConnection, log: Log) -> HistoryKeeper:
    """The histories of a process of its own, with the log's stream as witness."""
    histories = HistoryKeeper(PostgresHistories(log.pool))
    histories.witnesses.append(partial(parting, LogStream(connection, LOG), log.feed))
    return histories


def relay(connection: NatsConnection, log: Log, *, tail: int = 10_000, **more: object) -> Relay:
    return Relay(
        connection, log.feed, log.signal, histories=keeper(connection, log), log_id=LOG, settings=StreamSettings(tail=tail), **more
    )  # type: ignore[arg-type]


@dataclass
class Reader:
    """Reads the subscription and keeps all events."""

    subscription: Subscription
    after: int = 0
    pause: float = 0.0
    name: str = "test.reader"
    events: list[RecordedEvent] = field(default_factory=list)
    batches: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with contextlib.aclosing(self.subscription.batches(after=self.after, name=self.name)) as batches:
            async for batch in batches:
                assert batch, "an empty batch"
                self.events.extend(batch)
                self.batches += 1
                self.moved.set()
                if self.pause:
                    await asyncio.sleep(self.pause)

    @property
    def position(self) -> int:
        return self.events[-1].position if self.events else self.after

    async def reach(self, position: int, timeout: float = 15.0) -> None:
        try:
            async with within(timeout):
                while self.position < position:
                    self.moved.clear()
                    await self.moved.wait()
        except TimeoutError:
            raise AssertionError(f"at {self.position} after {timeout} s, not at {position}") from None

    async def check(self, log: Log) -> None:
        """Asserts that the reader got every event after the start, once, in order, byte for byte."""
        expected = [event for event in await log.everything() if event.position > self.after]
        positions = [event.position for event in self.events]
        assert positions == [event.position for event in expected]
        assert self.events == expected


def subscription(connection: NatsConnection, log: Log, **more: float) -> JetStreamSubscription:
    return JetStreamSubscription(connection, log.feed, histories=keeper(connection, log), log_id=LOG, **more)


async def stream_content(connection: NatsConnection) -> tuple[list[Span], list[RecordedEvent]]:
    """All batches of the current stream, in their stored form."""
    state = await LogStream(connection, LOG).current()
    assert state is not None
    spans, events = [], []
    for sequence in range(state.first_sequence, state.last_sequence + 1):
        message = await stored_message(connection, state.name, sequence)
        assert message is not None
        spans.append(Span.of(message.headers))
        events.extend(decode(message.data) if message.data else [])
    return spans, events


async def consumers(connection: NatsConnection) -> int:
    state = await LogStream(connection, LOG).current()
    info = await stream_info(connection, state.name) if state else None
    return info["state"]["consumer_count"] if info else 0


async def eventually(condition: Callable[[], object], timeout: float = 10.0, what: str = "") -> None:
    """Waits until a condition (a function or a coroutine function) is true."""
    async with within(timeout):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.02)
