"""The relay beside the writer, on real servers: it publishes what it is handed without a read, and reads wherever that may not do.

Whatever happens, the stream holds the log: each event once, in order, byte for byte.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.nats import NatsConnection, Relay
from adapters.postgres.log import own_appends
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.own_appends import OwnAppends
from application.engine.ports.log import AppendRequest, NewEvent, StreamAppend, one_command
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from tests.integration.nats_kit import (
    LOG,
    TENANT,
    Log,
    NatsProcess,
    connected,
    eventually,
    keeper,
    new_id,
    open_log,
    running,
    stream_content,
)
from tests.integration.test_relay import NEVER_S, check_stream
from tests.integration.wire_kit import wired
from tests.pace import ANSWER_S


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    """Another process that appends: what it writes is handed to nobody."""
    async with open_log(database_url) as log:
        yield log


@dataclass
class CountingFeed(PostgresEventFeed):
    """The log, with the number of events that were read from it."""

    log: Log
    reads: int = 0
    proofs: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.log.pool)

    async def read(self, *, after: int, limit: int) -> list[RecordedEvent]:
        self.reads += 1
        return await super().read(after=after, limit=limit)

    async def at(self, positions: Sequence[int]) -> list[RecordedEvent]:
        self.proofs += 1
        return await super().at(positions)


class WithoutClock(OwnAppends):
    """The relay looks only when it is woken."""

    async def wait(self, after: int, timeout: float) -> None:
        await self.listening.wait()
        await super().wait(after, NEVER_S)


@dataclass
class Process:
    """A process with a writer, and a relay beside it."""

    log: Log
    store: PostgresEventStore
    own: OwnAppends
    relay: Relay
    feed: CountingFeed

    async def append(self, count: int = 1, *, together: int = 1) -> None:
        await asyncio.gather(*(self.store.append(request(together)) for _ in range(count)))

    async def copies(self) -> None:
        with self.own.given():
            await self.relay.run()

    async def reached(self, position: int | None = None) -> None:
        head = await self.log.feed.head() if position is None else position
        await eventually(lambda: self.relay.position >= head, what=f"the relay at {head}")

    async def settled(self) -> None:
        """Waits until the session listens and the relay has looked at the log after that."""
        await self.own.listening.wait()
        await self.append()
        await self.reached()
        await self.append()
        await self.reached()


def request(events: int = 1, topic: str = "thing.happened") -> AppendRequest:
    new = tuple(NewEvent(topic, 1, b'{"number":%d}' % number) for number in range(events))
    stream = new_id()
    return one_command(TENANT, new_id(), (StreamAppend(stream, stream, 0, new),), '{"actor":"test"}')


@contextlib.asynccontextmanager
async def process(connection: NatsConnection, log: Log, *, url: str = "", by_the_clock: bool = False) -> AsyncIterator[Process]:
    own = OwnAppends() if by_the_clock else WithoutClock(patient=lambda event: event.topic == "thing.settled")
    store = PostgresEventStore(url or log.url, log.pool, own=own)
    feed = CountingFeed(log)
    await store.start()
    try:
        relay = Relay(connection, feed, own, histories=keeper(connection, log), log_id=LOG, own=own)
        yield Process(log, store, own, relay, feed)
    finally:
        await store.close()


async def test_what_is_handed_is_published_without_a_read(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        await beside.settled()
        reads = beside.feed.reads
        for together in (1, 3, 1, 5, 300):
            await beside.append(together=together)
            await beside.reached()
        repeated, refused = request(2), request()
        await beside.store.append(repeated)
        results = await asyncio.gather(
            *(beside.store.append(one) for one in (refused, repeated, request(), refused._replace(commands=request().commands))),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == ["AppendResult", "AppendResult", "AppendResult", "VersionConflict"]
        await beside.reached()
        assert beside.feed.reads == reads
        await check_stream(connection, log)


async def test_events_for_which_nobody_waits_go_together(nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_appends, "LINGER_S", 3600.0)
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        await beside.settled()
        reads, before = beside.feed.reads, beside.relay.position
        for _ in range(5):
            await beside.store.append(request(2, "thing.settled"))
        assert beside.relay.position == before
        beside.own.hurry()
        await beside.reached()
        spans, _ = await stream_content(connection)
        assert (spans[-1].previous, spans[-1].last) == (before, before + 10), "one message"
        await beside.store.append(request(1, "thing.settled"))
        await beside.append()
        await beside.reached()
        assert beside.feed.reads == reads
        await check_stream(connection, log)


async def test_what_others_append_wakes_the_relay_and_is_read(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        await beside.settled()
        for _ in range(3):
            reads = beside.feed.reads
            await log.append(1)
            await beside.reached()
            assert beside.feed.reads > reads
            reads = beside.feed.reads
            await beside.append(2)
            await beside.reached()
            assert beside.feed.reads == reads, "handed again"
        await asyncio.gather(log.append(300, together=2), *(beside.append(together=3) for _ in range(100)))
        await beside.reached()
        await check_stream(connection, log)


async def test_what_was_appended_before_the_relay_began_is_read(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection, process(connection, log) as beside:
        await beside.append(5)
        await log.append(5)
        for _ in range(2):
            async with running(beside.copies()):
                await beside.reached()
            await eventually(lambda: not beside.own.listening.is_set())
            await beside.append(5)
        async with running(beside.copies()):
            await beside.reached()
        await check_stream(connection, log)


async def test_an_append_whose_answer_is_lost_is_published_once(nats: NatsProcess, log: Log) -> None:
    """The connection is cut while the append waits for its lock: it is committed beside its repetition."""
    async with (
        connected(nats.url) as connection,
        wired(log.url) as (wire, url),
        process(connection, log, url=url) as beside,
        running(beside.copies()),
        await psycopg.AsyncConnection.connect(log.url) as blocker,
    ):
        await beside.settled()
        head = await log.feed.head()
        await blocker.execute("SELECT FROM log_head FOR UPDATE")
        waiting = asyncio.create_task(beside.append(together=2))
        await eventually(lambda: waits(log, 1))
        await wire.disconnect()
        await eventually(lambda: waits(log, 2))
        assert beside.relay.position == head, "nothing is published before its commit"
        await blocker.rollback()
        await waiting
        assert await log.feed.head() == head + 2
        await beside.reached()
        await beside.append()
        await beside.reached()
        await check_stream(connection, log)


async def waits(log: Log, count: int) -> bool:
    async with log.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidelog-append' AND wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
        return await cursor.fetchone() == (count,)


async def test_an_append_that_fails_at_its_commit_is_not_published(nats: NatsProcess, log: Log) -> None:
    async with log.pool.connection() as database:
        await database.execute("""
            CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN IF NEW.topic = 'thing.forbidden' THEN RAISE 'forbidden' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$""")
        await database.execute("""
            CREATE CONSTRAINT TRIGGER forbidden AFTER INSERT ON event DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION forbid()""")
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        await beside.settled()
        for _ in range(3):
            results = await asyncio.gather(
                beside.store.append(request(2)),
                beside.store.append(request(2, "thing.forbidden")),
                beside.store.append(request(1)),
                return_exceptions=True,
            )
            assert [isinstance(result, psycopg.errors.CheckViolation) for result in results] == [False, True, False]
        await beside.reached()
        await check_stream(connection, log)
        assert {event.topic for event in (await stream_content(connection))[1]} == {"thing.happened"}


@pytest.mark.parametrize("others", [0, 7, 10, 12], ids=lambda others: f"others append {others}")
async def test_a_log_that_is_set_back_under_the_running_relay(nats: NatsProcess, log: Log, others: int) -> None:
    """Also if others then append until the head is where it was: the positions follow, the events do not."""
    async with connected(nats.url) as connection, process(connection, log, by_the_clock=True) as beside, running(beside.copies()):
        await beside.settled()
        await beside.append(18)
        await beside.reached(20)
        async with log.pool.connection() as database, database.transaction():
            await database.execute("DELETE FROM event WHERE notification_id > 10")
            await database.execute("UPDATE log_head SET position = 10")
        if others:
            await log.append(others, together=others)
        await beside.append(15)
        await eventually(lambda: agrees(connection, log))
        await check_stream(connection, log)


async def agrees(connection: NatsConnection, log: Log) -> bool:
    try:
        return (await stream_content(connection))[1] == await log.everything()
    except Unavailable:  # the stream is being made anew
        return False


@pytest.mark.parametrize("exchanged", [2, 10], ids=["of the last proof", "the newest"])
async def test_rows_that_are_exchanged_in_silence_are_found_by_the_next_proof(
    nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch, exchanged: int
) -> None:
    """Nobody is notified, and the head does not change."""
    monkeypatch.setattr("adapters.nats.log.relay.PROOF_S", 0.0)
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        await beside.settled()
        await beside.append(together=8)
        await beside.reached(10)
        assert beside.feed.proofs > 0
        async with log.pool.connection() as database:
            await database.execute("UPDATE event SET state = '{}' WHERE notification_id = %s", [exchanged])
        await beside.append()
        await eventually(lambda: agrees(connection, log))
        await check_stream(connection, log)


async def test_outages_of_nats_with_more_appends_than_are_kept(
    nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_appends, "MOST_EVENTS", 40)
    async with connected(nats.url) as connection, process(connection, log) as beside, running(beside.copies()):
        for count in (10, 500):
            await beside.append(count, together=2)
            await nats.kill()
            await beside.append(count)
            await nats.start()
            await beside.append(7)
            await beside.reached()
        await connection.ready(ANSWER_S)
        await check_stream(connection, log)


async def test_the_database_away_and_back(
    nats: NatsProcess, log: Log, services: EmbeddedServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.postgres.log.session.CHECK_SECONDS", NEVER_S)
    name = str(conninfo_to_dict(log.url)["dbname"])
    async with (
        connected(nats.url) as connection,
        process(connection, log) as beside,
        running(beside.copies()),
        await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin,
    ):
        await beside.settled()
        await admin.execute(SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(Identifier(name)))
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        await eventually(lambda: not beside.own.listening.is_set(), what="the session's end is noticed while it is idle")
        await admin.execute(SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(Identifier(name)))
        await eventually(log.answers, timeout=15)
        await log.append(3)
        await beside.reached()
        await beside.append(3)
        await beside.reached()
        await check_stream(connection, log)


async def test_the_lease_moves_between_processes_that_append(nats: NatsProcess, log: Log) -> None:
    async with (
        connected(nats.url, "one") as connection,
        connected(nats.url, "two") as other,
        process(connection, log) as one,
        process(other, log) as two,
    ):
        for number in range(6):
            holder = (one, two)[number % 2]
            async with running(holder.copies()):
                await asyncio.gather(one.append(20), two.append(20, together=2), log.append(10))
                if number % 3:
                    await holder.reached()
        async with running(one.copies(), two.copies()):  # a process that was suspended beside its successor
            for _ in range(10):
                await asyncio.gather(one.append(5, together=2), two.append(5))
            head = await log.feed.head()
            await eventually(lambda: max(one.relay.position, two.relay.position) >= head)
        await check_stream(connection, log)
