"""Faults of JetStream's copy of the log: it refuses, falls silent, forgets, fills up. The copy recovers; the log stays whole."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import psycopg
import pytest
import pytest_asyncio

from adapters.nats import LogStream, NatsConnection, StreamSettings
from adapters.nats import Relay as LogRelay
from adapters.nats.jetstream import JetStreamError, call, delete_stream, stream_info
from adapters.nats.log.stream import MIN_BYTES
from domain.errors import Unavailable
from tests.chaos.faults_kit import eventually, rounds, running, seeded
from tests.integration.nats_kit import (
    LOG,
    Log,
    NatsProcess,
    Reader,
    connected,
    keeper,
    open_log,
    relay,
    stream_content,
    subscription,
)
from tests.integration.wire_kit import is_publish_ack, nats_wired, untouched
from tests.pace import ANSWER_S

pytestmark = pytest.mark.chaos


@pytest_asyncio.fixture
async def log(database_url: str, impatient: None) -> AsyncIterator[Log]:
    async with open_log(database_url) as log:
        yield log


async def reached(connection: NatsConnection, log: Log, timeout: float = 15.0) -> None:
    """The stream itself holds the newest event, whatever position the relay assumes."""

    async def there() -> bool:
        try:
            state = await LogStream(connection, LOG).current()
            if state is None or not state.last_sequence:
                return False
            span = await LogStream(connection, LOG).span(state.name, state.last_sequence)
        except Unavailable:
            return False
        return span is not None and span.last == await log.feed.head()

    await eventually(there, timeout)


async def check_stream(connection: NatsConnection, log: Log) -> None:
    """The stream is a chain without a hole that ends at the head, and its content is the log, byte for byte."""
    spans, events = await stream_content(connection)
    assert [span.previous for span in spans[1:]] == [span.last for span in spans[:-1]]
    assert spans[-1].last == await log.feed.head()
    assert events == [event for event in await log.everything() if event.position > spans[0].previous]


def error(code: int, err_code: int, description: str) -> bytes:
    failure = {"code": code, "err_code": err_code, "description": description}
    return orjson.dumps({"error": failure, "stream": "TIDELOG", "seq": 0})


ANSWERS: dict[str, bytes | None] = {
    "wrong last sequence": error(400, 10071, "wrong last sequence: 7"),
    "wrong last sequence, without a number": error(400, 10164, "wrong last sequence"),
    "wrong last message id": error(400, 10070, "wrong last msg ID: x"),
    "another stream": error(400, 10060, "expected stream does not match"),
    "too many requests": error(429, 10167, "too many requests"),
    "not available": error(503, 10008, "JetStream system temporarily unavailable"),
    "no room": error(503, 10047, "insufficient storage resources available"),
    "an error without a number": orjson.dumps({"error": {}}),
    "no JSON": b"what?",
    "another place": orjson.dumps({"stream": "TIDELOG_x_1", "seq": 4711}),
    "nothing": None,
}


async def test_whatever_is_answered_to_a_publish_the_stream_is_the_log(nats: NatsProcess, log: Log) -> None:
    """The message itself was stored each time: the false answer must neither double the message nor leave a gap after it."""
    chance, changed, looked = seeded(), 0, 0
    async with nats_wired(nats.url) as (wire, url), connected(url) as connection, connected(nats.url) as eyes:
        one, reader = relay(connection, log), Reader(subscription(eyes, log))

        def count(line: bytes, payload: bytes) -> bytes:
            nonlocal looked
            looked += b".STREAM.MSG.GET." in line  # only the relay reads the stream's end on this wire
            return payload

        wire.to_server = count
        async with running(one.run(), reader.run()):
            for answer in chance.sample(list(ANSWERS.values()), len(ANSWERS)) * rounds(1, 8):
                wait_for = chance.randrange(6)

                def edit(line: bytes, payload: bytes, answer: bytes | None = answer) -> bytes | None:
                    nonlocal changed, wait_for
                    if not is_publish_ack(payload):
                        return payload
                    wait_for -= 1
                    if wait_for >= 0:
                        return payload
                    changed += 1
                    wire.to_client = untouched
                    return answer

                wire.to_client, before, looked_before = edit, changed, looked
                while changed == before:  # one by one, so that each append has an answer of its own
                    await log.append(2)
                await log.append(chance.randrange(5))
                await reader.reach(await log.feed.head())
                await reached(eyes, log)
                await eventually(lambda: looked > looked_before)  # noqa: B023  the function is awaited here
            await reached(eyes, log)
            await check_stream(eyes, log)
        await reader.check(log)


async def test_stream_deleted_while_messages_are_under_way(nats: NatsProcess, log: Log) -> None:
    """503: nobody listens to the subject any more."""
    chance = seeded()
    async with connected(nats.url) as connection:
        one, reader = relay(connection, log), Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            for _ in range(rounds(2, 20)):
                appending = asyncio.create_task(log.append(300))
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                state = await LogStream(connection, LOG).current()
                if state is not None:
                    await delete_stream(connection, state.name)
                await appending
                await reader.reach(await log.feed.head())
            await reached(connection, log)
            await check_stream(connection, log)
        await reader.check(log)


async def test_a_full_disk_delays_the_copy_and_nothing_else(tmp_path: Path, log: Log) -> None:
    configuration = tmp_path / "nats.conf"

    def room_for(size: int) -> None:
        configuration.write_text(orjson.dumps({"jetstream": {"max_file_store": size}}).decode())

    room_for(512 * 1024)
    nats = NatsProcess(tmp_path, configuration)
    await nats.start()
    try:
        async with connected(nats.url) as connection:
            one, reader = relay(connection, log), Reader(subscription(connection, log, stall_check_s=0.2))
            async with running(one.run(), reader.run()):
                for _ in range(12):
                    await log.append(5, size=20_000)  # more events than the stream has room for
                await reader.reach(60)
                # A message that begins below the bound is stored whole, so the first refused message may be one of these.
                await log.append(5, size=20_000)
                await reader.reach(65)
                spans, _ = await stream_content(connection)
                assert 0 < spans[-1].last < 65, "the disk never was full"
                room_for(64 * 1024 * 1024)
                await nats.kill()
                await nats.start()
                await log.append(5)
                await reader.reach(70)
                await connection.ready(ANSWER_S)
                await reached(connection, log)
                await check_stream(connection, log)
            await reader.check(log)
    finally:
        await nats.kill()


async def test_a_bound_that_the_newest_message_could_exceed_is_refused(nats: NatsProcess) -> None:
    async with connected(nats.url) as connection:
        with pytest.raises(ValueError, match="too small"):
            LogStream(connection, LOG, StreamSettings(max_bytes=MIN_BYTES - 1))


async def test_a_stream_with_a_bound_keeps_the_newest_and_readers_get_all(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = LogRelay(
            connection,
            log.feed,
            log.signal,
            histories=keeper(connection, log),
            log_id=LOG,
            settings=StreamSettings(max_bytes=MIN_BYTES),
        )
        async with running(one.run()):
            for _ in range(20):
                await log.append(5, size=100_000)
            await reached(connection, log)
            spans, _ = await stream_content(connection)
            assert spans[0].previous > 50
            reader, late = Reader(subscription(connection, log)), Reader(subscription(connection, log), after=97)
            async with running(reader.run(), late.run()):
                await reader.reach(100)
                await log.append(5)
                await reader.reach(105)
                await late.reach(105)
                await reached(connection, log)
        await check_stream(connection, log)
        await reader.check(log)
        await late.check(log)


async def test_a_repetition_after_the_duplicate_window_and_a_restart_is_none(
    nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is stored, not acknowledged, and out of the server's window of message ids: the sequence shows that it is there."""
    plain = LogStream._configuration
    monkeypatch.setattr(LogStream, "_configuration", lambda self, number: {**plain(self, number), "duplicate_window": 100_000_000})
    async with nats_wired(nats.url) as (wire, url), connected(url) as connection, connected(nats.url) as eyes:
        one = relay(connection, log)
        async with running(one.run()):
            for restart in (False, True):
                await log.append(5)
                await eventually(lambda: log_is_at(one, log))
                wire.to_client = lambda line, payload: None if is_publish_ack(payload) else payload
                await log.append(10)
                await reached(eyes, log)
                if restart:
                    await nats.kill()
                    await nats.start()
                    await eyes.ready(ANSWER_S)
                await asyncio.sleep(0.3)  # the window of message ids is over
                wire.to_client = untouched
                await eventually(lambda: log_is_at(one, log))
            state = await LogStream(eyes, LOG).current()
            assert state is not None
            info = await stream_info(eyes, state.name)
            assert info is not None and info["config"]["duplicate_window"] == 100_000_000
            await check_stream(eyes, log)


async def log_is_at(one: LogRelay, log: Log) -> bool:
    return one.position == await log.feed.head()


async def test_a_reader_that_is_ahead_of_the_stream_gets_nothing_twice(nats: NatsProcess, log: Log) -> None:
    """A checkpoint in the database stays valid after the stream lost its tail. The stream catches up while the reader reads."""
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            await log.append(20)
            await reached(connection, log)

            async def go_on() -> None:
                await log.append(30)
                await reached(connection, log)

            await nats.set_back(lambda: asyncio.ensure_future(go_on()))
        await connection.ready(ANSWER_S)
        reader = Reader(subscription(connection, log, stall_check_s=0.2), after=45)
        async with running(reader.run()):
            await reader.reach(50)
            two = relay(connection, log)
            async with running(two.run()):
                await log.append(10)
                await reader.reach(60)
                await reached(connection, log)
        await check_stream(connection, log)
        await reader.check(log)


async def test_a_stream_deleted_while_nothing_happens_is_made_again(
    nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.nats.log.relay._LONGEST_WAIT", 0.2)
    async with connected(nats.url) as connection:
        async with running(relay(connection, log).run()):
            await log.append(5)
            await reached(connection, log)
            state = await LogStream(connection, LOG).current()
            assert state is not None
            await delete_stream(connection, state.name)
            await reached(connection, log)
        await check_stream(connection, log)


async def test_nobody_purges_or_deletes_from_the_stream(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        async with running(relay(connection, log).run()):
            await log.append(5)
            await reached(connection, log)
        state = await LogStream(connection, LOG).current()
        assert state is not None
        for request, body in (("PURGE", {}), ("MSG.DELETE", {"seq": 1})):
            with pytest.raises(JetStreamError):
                await call(connection, f"STREAM.{request}.{state.name}", body)
        await check_stream(connection, log)


async def test_a_log_that_lost_its_end_in_a_failover_is_copied_anew(nats: NatsProcess, log: Log) -> None:
    """The stream has events that the log has lost: the stream is replaced, and no reader of the new history gets old events."""
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            await log.append(30)
            await reached(connection, log)
        async with await psycopg.AsyncConnection.connect(log.url) as database:
            await database.execute("DELETE FROM event WHERE notification_id > 25")
            await database.execute("UPDATE log_head SET position = 25")
        await log.append(10)
        reader = Reader(subscription(connection, log, stall_check_s=0.2), after=25)
        async with running(relay(connection, log).run()):
            await reached(connection, log)
            async with running(reader.run()):
                await reader.reach(35)
        await check_stream(connection, log)
        await reader.check(log)
