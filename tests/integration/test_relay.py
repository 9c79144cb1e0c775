"""The relay on real servers: the stream holds the log, each event once and in order, after every kind of fault."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from adapters.embedded import EmbeddedServices
from adapters.nats import LogStream, NatsConnection, Relay, StreamSettings
from adapters.nats.jetstream import call, delete_stream, stream_info, stream_names
from adapters.nats.log.publisher import OrderedPublisher, OutOfStep
from adapters.nats.log.wire import WireBatch, split
from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.log.histories import PostgresHistories
from application.engine.ports.log import AppendCommand, AppendRequest, NewEvent, Placed, StreamHead
from tests.integration.nats_kit import (
    LOG,
    Log,
    NatsProcess,
    Reader,
    connected,
    copied_database,
    eventually,
    keeper,
    new_id,
    open_log,
    relay,
    running,
    stream_content,
    subscription,
)
from tests.pace import ANSWER_S, in_time

NEVER_S = 3600.0


@pytest_asyncio.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    async with open_log(database_url) as log:
        yield log


class Patient:
    """Makes the relay read the log only after a notification, never by the clock."""

    def __init__(self, signal: AppendSignal) -> None:
        self._signal = signal

    async def wait(self, after: int, timeout: float) -> None:
        await self._signal.listening.wait()
        await self._signal.wait(after, NEVER_S)

    async def pause(self, seconds: float) -> None:
        await self._signal.pause(seconds)


@contextlib.asynccontextmanager
async def by_notification(log: Log) -> AsyncIterator[AppendSignal]:
    signal = AppendSignal(log.url, poll_s=NEVER_S, check_s=NEVER_S)
    await signal.start()
    try:
        yield signal
    finally:
        await signal.close()


class Restless:
    """Wakes a relay at other moments than the log does, so that two relays cut their batches differently."""

    async def wait(self, after: int, timeout: float) -> None:
        await asyncio.sleep(0.001)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def reached(relay: Relay, log: Log) -> None:
    head = await log.feed.head()
    await eventually(lambda: relay.position >= head)


async def check_stream(connection: NatsConnection, log: Log, *, base: int = 0, until: int = 2**62) -> None:
    """Asserts that the stream is a chain without a hole, and holds the log after `base`, once, in order, byte for byte."""
    spans, events = await stream_content(connection)
    previous = base
    for span in spans:
        assert span.previous == previous
        assert span.first == previous + 1
        previous = span.last
    assert events == [event for event in await log.everything() if base < event.position <= until]


async def test_copies_the_log_and_goes_on_where_the_stream_ends(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        await log.append(700, together=7)
        first = relay(connection, log)
        async with running(first.run()):
            await reached(first, log)
            await log.append(30)
            await reached(first, log)
        await log.append(20)
        second = relay(connection, log)
        async with running(second.run()):
            await reached(second, log)
        await check_stream(connection, log)
        assert len(await stream_names(connection, f"tidelog-log.{LOG}.*")) == 1


async def test_events_that_wait_travel_together_and_single_ones_at_once(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection, by_notification(log) as signal:
        await log.append(600, together=100)
        one = Relay(connection, log.feed, Patient(signal), histories=keeper(connection, log), log_id=LOG)
        async with running(one.run()):
            await reached(one, log)
            spans, _ = await stream_content(connection)
            assert [span.last for span in spans] == [256, 512, 600]
            for head in (601, 602):  # only the notification wakes the relay
                await log.append(1)
                await eventually(lambda: one.position == head)  # noqa: B023  awaited here
            spans, _ = await stream_content(connection)
            assert [span.last for span in spans] == [256, 512, 600, 601, 602]


@pytest.mark.parametrize("seed", [1, 2])
async def test_two_relays_and_kills_of_nats(nats: NatsProcess, log: Log, seed: int) -> None:
    chance = random.Random(seed)
    async with connected(nats.url, "one") as connection, connected(nats.url, "two") as other:
        one, two = relay(connection, log), Relay(other, log.feed, Restless(), histories=keeper(other, log), log_id=LOG)
        reader = Reader(subscription(other, log))
        async with running(one.run(), two.run(), reader.run()):
            for head in (0, 1_500, 3_000):
                await eventually(lambda: max(one.position, two.position) >= head)  # noqa: B023  awaited here
                appending = asyncio.create_task(log.append(1_500, together=chance.choice([1, 3, 10])))
                kill_at = head + chance.randrange(1, 700)
                await eventually(lambda: max(one.position, two.position) >= kill_at)  # noqa: B023
                await nats.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                await nats.start()
                await appending
            await reader.reach(4_500)
            await eventually(lambda: max(one.position, two.position) >= 4_500)
        await connection.ready(ANSWER_S)
        await check_stream(connection, log)
        await reader.check(log)


async def test_two_relays_and_single_events(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url, "one") as connection, connected(nats.url, "two") as other:
        one, two = relay(connection, log), Relay(other, log.feed, Restless(), histories=keeper(other, log), log_id=LOG)
        async with running(one.run(), two.run()):
            for count in [1, 1, 2, 5, 1, 30, 1] * 20:
                await log.append(count)
            head = await log.feed.head()
            await eventually(lambda: max(one.position, two.position) >= head)
        await check_stream(connection, log)


async def test_two_relays_that_make_a_stream_at_the_same_time_agree_on_one(nats: NatsProcess, log: Log) -> None:
    made: list[str] = []

    class Slow(NatsConnection):
        """A relay asks for its stream after another relay made a newer stream, which was not there at the first relay's look."""

        async def request(self, subject: str, *rest: Any, **more: Any) -> Msg:
            if ".STREAM.CREATE." in subject and not made:
                await asyncio.sleep(0.002)
                made.append((await LogStream(fast, LOG).create()).name)
            return await super().request(subject, *rest, **more)

    await log.append(10)
    slow = Slow(nats.url, name="slow")
    async with connected(nats.url) as fast, contextlib.AsyncExitStack() as stack:
        await slow.start()
        stack.push_async_callback(slow.close)
        one = relay(slow, log)
        async with running(one.run()):
            await reached(one, log)
        assert await stream_names(fast, f"tidelog-log.{LOG}.*") == made
        await check_stream(fast, log)


async def test_deleted_stream_is_made_again(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        await log.append(50)
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await reader.reach(50)
            await reached(one, log)
            state = await LogStream(connection, LOG).current()
            assert state is not None
            await delete_stream(connection, state.name)
            await log.append(50)
            await reader.reach(100)
            await reached(one, log)
            renewed = await LogStream(connection, LOG).current()
            assert renewed is not None
            assert renewed.name != state.name
        await check_stream(connection, log)
        await reader.check(log)


async def test_emptied_store(nats: NatsProcess, log: Log, tmp_path: Path) -> None:
    async with connected(nats.url) as connection:
        await log.append(50)
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await reader.reach(50)
            await nats.kill()
            nats.store.rename(tmp_path / "lost")
            await nats.start()
            await log.append(50)
            await reader.reach(100)
            await reached(one, log)
            await eventually(lambda: connection.client.is_connected)
            await check_stream(connection, log)
        await reader.check(log)


async def test_store_set_back_to_an_old_copy(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await log.append(80)
            await reached(one, log)
            await reader.reach(80)

            async def go_on() -> None:
                await log.append(120)
                await reached(one, log)
                await reader.reach(200)

            await nats.set_back(go_on)
            await log.append(50)
            await reached(one, log)
            await reader.reach(250)
            await connection.ready(ANSWER_S)

            async def filled() -> bool:
                spans, _ = await stream_content(connection)
                return spans[-1].last == 250

            await eventually(filled)
            await check_stream(connection, log)
        await reader.check(log)


async def test_stream_of_another_history_is_replaced(nats: NatsProcess, log: Log, services: EmbeddedServices) -> None:
    """A database that was restored from a backup gives used positions to other events."""
    name = f"{conninfo_to_dict(log.url)['dbname']}_restored"
    async with connected(nats.url) as connection:
        await log.append(30)
        before = relay(connection, log)
        async with running(before.run()):
            await reached(before, log)
        await log.pool.close()
        async with copied_database(services, name, log) as url, open_log(url) as restored:
            async with restored.pool.connection() as database:
                await database.execute("DELETE FROM event WHERE notification_id > 20")
                await database.execute("UPDATE log_head SET position = 20")
            await restored.append(40)
            after = relay(connection, restored)
            async with running(after.run()):
                await reached(after, restored)
            await check_stream(connection, restored)
            assert len(await stream_names(connection, f"tidelog-log.{LOG}.*")) == 1


async def test_history_that_is_swapped_under_a_running_relay(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            await log.append(30)
            await reached(one, log)
            async with log.pool.connection() as database, database.transaction():
                await database.execute("DELETE FROM event WHERE notification_id > 20")
                await database.execute("UPDATE log_head SET position = 20")
            await log.append(40)
            await eventually(lambda: one.position == 60)
        await check_stream(connection, log)


async def test_database_away_and_back(nats: NatsProcess, log: Log, services: EmbeddedServices) -> None:
    name = str(conninfo_to_dict(log.url)["dbname"])
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with (
            running(one.run(), reader.run()),
            await psycopg.AsyncConnection.connect(services.admin_database_url, autocommit=True) as admin,
        ):
            await log.append(20)
            await reader.reach(20)
            await admin.execute(SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(Identifier(name)))
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await asyncio.sleep(0.3)
            await admin.execute(SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(Identifier(name)))
            await eventually(log.answers, timeout=15)
            await log.append(20)
            await reader.reach(40)
            await reached(one, log)
        await reader.check(log)
        await check_stream(connection, log)


async def test_new_stream_begins_near_the_head(nats: NatsProcess, log: Log) -> None:
    await log.append(500, together=50)
    async with connected(nats.url) as connection:
        one = relay(connection, log, tail=120)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await reached(one, log)
            await reader.reach(500)
        await check_stream(connection, log, base=380)
        await reader.check(log)


async def test_tail_that_aged_out(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        settings = StreamSettings(max_age_s=0.3)
        assert await LogStream(connection, LOG).copied() == 0
        one = Relay(connection, log.feed, log.signal, histories=keeper(connection, log), log_id=LOG, settings=settings)
        async with running(one.run()):
            await log.append(10)
            await reached(one, log)
        state = await LogStream(connection, LOG).current()
        assert state is not None
        stream = state.name

        async def empty() -> bool:
            info = await stream_info(connection, stream)
            return info is not None and info["state"]["messages"] == 0

        await eventually(empty)
        assert await LogStream(connection, LOG).copied() is None
        await log.append(10)
        two = relay(connection, log)
        reader = Reader(subscription(connection, log), after=5)
        async with running(two.run(), reader.run()):
            await reader.reach(20)
            await reached(two, log)
        await check_stream(connection, log)
        await reader.check(log)


async def test_changed_settings_reach_the_stream(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        for max_age in (100.0, 200.0):
            one = Relay(
                connection,
                log.feed,
                log.signal,
                histories=keeper(connection, log),
                log_id=LOG,
                settings=StreamSettings(max_age_s=max_age),
            )
            async with running(one.run()):
                await log.append(5)
                await reached(one, log)
        state = await LogStream(connection, LOG).current()
        assert state is not None
        info = await stream_info(connection, state.name)
        assert info is not None
        assert info["config"]["max_age"] == 200_000_000_000
        await check_stream(connection, log)


async def test_events_at_and_over_the_limits(nats: NatsProcess, database_url: str) -> None:
    async with open_log(database_url, max_event_bytes=2 * 1024 * 1024) as log, connected(nats.url) as connection:
        for size in (10, 256 * 1024, 256 * 1024, 256 * 1024, 256 * 1024, 899 * 1024, 1_200_000, 10):
            await log.append(1, size=size)
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await reader.reach(8)
            await log.append(1)
            await reader.reach(9)
            await reached(one, log)
        spans, events = await stream_content(connection)
        assert [span.previous for span in spans] == [0, *(span.last for span in spans[:-1])]
        assert 7 not in [event.position for event in events]  # the stream only names the event; it is read from the database
        await reader.check(log)


async def test_two_logs_share_a_server(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        await log.append(10)
        one = relay(connection, log)
        other = Relay(connection, log.feed, log.signal, histories=keeper(connection, log), log_id=f"{LOG}-2")
        async with running(one.run(), other.run()):
            await reached(one, log)
            await reached(other, log)
        await check_stream(connection, log)
        assert len((await call(connection, "STREAM.NAMES"))["streams"]) == 2


async def test_batch_cannot_follow_a_stranger_in_its_place(nats: NatsProcess, log: Log) -> None:
    """Two relays cut the log differently: the second batch of one relay expects the sequence that the other relay's first batch
    took."""
    await log.append(5)
    events = await log.everything()
    async with connected(nats.url) as connection:
        stream = LogStream(connection, LOG)
        state = await stream.create()

        def opened() -> contextlib.AbstractAsyncContextManager[OrderedPublisher]:
            return OrderedPublisher.open(
                connection,
                log_id=LOG,
                history="",
                stream=state.name,
                subject=stream.subject(state.name),
                sequence=0,
                on_stored=lambda position: None,
            )

        def piece(first: int, last: int) -> WireBatch:
            return next(split(events[first - 1 : last], after=first - 1, max_payload=2**20))

        async with opened() as one, opened() as other:
            await one.send(piece(1, 2))
            await other.send(piece(1, 3))
            await other.send(piece(4, 5))
            with pytest.raises(OutOfStep):
                await in_time(other.failed(), 5)
            await one.send(piece(3, 3))
            await connection.client.flush()
        await eventually(lambda: holds(connection, 2))
        await check_stream(connection, log, until=3)


async def holds(connection: NatsConnection, messages: int) -> bool:
    return len((await stream_content(connection))[0]) == messages


async def test_a_message_of_format_1_is_of_this_log_though_it_does_not_say_what_is_settled(nats: NatsProcess, log: Log) -> None:
    """After a start of PostgreSQL the older format is written for a while. Nothing was lost, so no new history begins."""

    async def of_the_release_before() -> frozenset[int]:
        return frozenset({1})

    async with connected(nats.url) as connection:
        for form in (of_the_release_before, None):
            stream = new_id()
            happened = Placed(0, NewEvent("thing.happened", 1, b"{}"), settled=6)
            await log.store.append(
                AppendRequest(new_id(), (AppendCommand(new_id(), "{}", 1),), (StreamHead(stream, stream, 0),), (happened,))
            )
            copying = relay(connection, log, readable=form)
            async with running(copying.run()):
                await reached(copying, log)
        assert len((await PostgresHistories(log.pool).read()).histories.all) == 1
        assert [event.settled for event in (await stream_content(connection))[1]] == [0, 6]
