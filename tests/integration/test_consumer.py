"""The subscription on real servers: every event once, in order, from any position, through every outage."""

import asyncio
import random
import signal

import pytest

from adapters.embedded import EmbeddedServices
from adapters.nats import NatsConnection
from adapters.nats.jetstream import call, delete_stream, stream_info
from adapters.nats.log.pull import PULL_MESSAGES, Puller
from adapters.nats.log.stream import LogStream
from adapters.nats.log.wire import WireBatch, split
from domain.errors import Unavailable
from tests.integration.nats_kit import (
    LOG,
    Log,
    NatsProcess,
    Reader,
    connected,
    consumers,
    eventually,
    open_log,
    relay,
    running,
    subscription,
)
from tests.integration.system_kit import fresh_database
from tests.pace import ANSWER_S


async def current_stream(connection: NatsConnection) -> str:
    state = await LogStream(connection, LOG).current()
    assert state is not None
    return state.name


async def publish(connection: NatsConnection, batches: list[WireBatch]) -> None:
    """Publishes messages into the log's stream without the relay."""
    stream = LogStream(connection, LOG)
    subject = stream.subject(await current_stream(connection))
    for batch in batches:
        await connection.request(subject, batch.body, headers=batch.span.headers())


async def test_joins_at_the_start_in_the_middle_and_at_the_end(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            for _ in range(12):
                await log.append(50, together=5)
            await eventually(lambda: one.position == 600)
            readers = [Reader(subscription(connection, log), after=after) for after in (0, 1, 299, 300, 301, 599, 600)]
            async with running(*(reader.run() for reader in readers)):
                await asyncio.gather(*(reader.reach(600) for reader in readers))
                await log.append(100)
                await asyncio.gather(*(reader.reach(700) for reader in readers))
                assert await consumers(connection) == len(readers)
        for reader in readers:
            await reader.check(log)
        await eventually(lambda: nobody_reads(connection))


async def nobody_reads(connection: NatsConnection) -> bool:
    return await consumers(connection) == 0


async def test_reads_history_that_the_stream_does_not_hold_from_the_database(nats: NatsProcess, log: Log) -> None:
    await log.append(2_500, together=50)
    async with connected(nats.url) as connection:
        one = relay(connection, log, tail=100)
        async with running(one.run()):
            await eventually(lambda: one.position == 2_500)
            reader = Reader(subscription(connection, log), after=7)
            late = Reader(subscription(connection, log), after=2_450)
            async with running(reader.run(), late.run()):
                appending = asyncio.create_task(log.append(300))
                await appending
                await reader.reach(2_800)
                await late.reach(2_800)
        await reader.check(log)
        await late.check(log)


@pytest.mark.parametrize("seed", [11, 12])
async def test_kills_of_nats_while_events_come(nats: NatsProcess, log: Log, seed: int) -> None:
    chance = random.Random(seed)
    async with connected(nats.url, "relay") as writing, connected(nats.url, "reader") as reading:
        one = relay(writing, log)
        readers = [Reader(subscription(reading, log), after=chance.randrange(50)) for _ in range(3)]
        await log.append(50)
        async with running(one.run(), *(reader.run() for reader in readers)):
            for head in (50, 1_050, 2_050):
                await eventually(lambda: everybody_joined(reading))
                appending = asyncio.create_task(log.append(1_000, together=chance.choice([1, 10])))
                await readers[0].reach(head + chance.randrange(1, 600))
                await nats.kill()
                await asyncio.sleep(chance.uniform(0.0, 0.1))
                await nats.start()
                await appending
            await asyncio.gather(*(reader.reach(3_050) for reader in readers))
        for reader in readers:
            await reader.check(log)


async def test_goes_on_without_nats_and_comes_back_to_it(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await log.append(20)
            await reader.reach(20)
            await nats.kill()
            await log.append(20)
            await reader.reach(40)
            await asyncio.sleep(0.2)
            await log.append(20)
            await reader.reach(60)
            await nats.start()

            async def joined() -> bool:
                return await consumers(connection) == 1

            await connection.ready(ANSWER_S)
            await eventually(joined)
            await log.append(20)
            await reader.reach(80)
        await reader.check(log)


async def test_starts_before_nats_does(nats: NatsProcess, log: Log) -> None:
    await nats.kill()
    await log.append(10)
    async with connected(nats.url, wait=0) as connection:
        reader = Reader(subscription(connection, log))
        async with running(relay(connection, log).run(), reader.run()):
            await reader.reach(10)
            await nats.start()
            await log.append(10)
            await reader.reach(20)
            await connection.ready(ANSWER_S)

            async def joined() -> bool:
                return await consumers(connection) == 1

            await eventually(joined)
        await reader.check(log)


async def test_relay_that_stands_still(nats: NatsProcess, log: Log) -> None:
    """A stream that nobody fills looks like a quiet stream.

    The reader asks the database, and returns to the stream when it is filled.
    """
    async with connected(nats.url) as connection:
        first = relay(connection, log)
        reader = Reader(subscription(connection, log, stall_check_s=0.2))
        async with running(reader.run()):
            async with running(first.run()):
                await log.append(10)
                await reader.reach(10)
                await eventually(lambda: consumers_now(connection))
                await eventually(lambda: first.position == 10)

            await log.append(10)
            await reader.reach(20, timeout=3)
            await log.append(10)
            await reader.reach(30, timeout=3)
            await eventually(lambda: nobody_reads(connection))
            second = relay(connection, log)
            async with running(second.run()):

                async def joined() -> bool:
                    return await consumers(connection) == 1

                await eventually(joined)
                await log.append(10)
                await reader.reach(40, timeout=3)
        await reader.check(log)


async def test_consumer_deleted_under_the_reader(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            for round_ in range(1, 4):
                await log.append(10)
                await reader.reach(10 * round_)
                await eventually(lambda: one.position == 10 * round_)  # noqa: B023  the function is awaited here
                stream = await current_stream(connection)
                names = (await call(connection, f"CONSUMER.NAMES.{stream}"))["consumers"] or []
                for name in names:
                    await call(connection, f"CONSUMER.DELETE.{stream}.{name}")
            await log.append(10)
            await reader.reach(40)
        await reader.check(log)


async def test_stream_deleted_under_the_reader(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await log.append(10)
            await reader.reach(10)
            await eventually(lambda: one.position == 10)
            await delete_stream(connection, await current_stream(connection))
            await log.append(10)
            await reader.reach(20)
        await reader.check(log)


async def test_stream_with_a_history_that_the_log_lost(nats: NatsProcess, log: Log, services: EmbeddedServices) -> None:
    """A database is restored from a backup: no reader may get the stream's old events, not even before the relay notices the
    restore."""
    async with connected(nats.url) as connection:
        await log.append(30)
        before = relay(connection, log)
        async with running(before.run()):
            await eventually(lambda: before.position == 30)
        async with fresh_database(services) as url, open_log(url) as restored:
            await restored.append(20)
            reader = Reader(subscription(connection, restored), after=10)
            async with running(reader.run()):
                await reader.reach(20)
                after = relay(connection, restored)
                async with running(after.run()):
                    await restored.append(20)
                    await reader.reach(40)
                    await eventually(lambda: everybody_joined(connection, 1))
            await reader.check(restored)


async def test_holes_repetitions_and_strangers_in_the_stream(nats: NatsProcess, log: Log) -> None:
    """The reader hands out the log, whatever messages are in the stream."""
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            await log.append(10)
            await eventually(lambda: one.position == 10)
        reader = Reader(subscription(connection, log, stall_check_s=0.2))
        async with running(reader.run()):
            await reader.reach(10)
            await log.append(100)
            events = await log.everything()

            def piece(first: int, last: int) -> list[WireBatch]:
                return list(split(events[first - 1 : last], after=first - 1, max_payload=2**20))

            await publish(connection, [*piece(11, 20), *piece(15, 25), *piece(31, 40), *piece(5, 12), *piece(31, 50)])
            await reader.reach(50)
            await connection.request(LogStream(connection, LOG).subject(await current_stream(connection)), b"stranger")
            await publish(connection, piece(51, 110))
            await reader.reach(110)
        await reader.check(log)
        whole = Reader(subscription(connection, log))
        async with running(whole.run()):
            await whole.reach(110)
        await whole.check(log)


async def test_slow_reader_holds_back_the_server(nats: NatsProcess, log: Log) -> None:
    """Events that a slow reader has not taken stay on the server: the buffer has a bound."""
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            for _ in range(6):
                await log.append(60, size=60_000)
            await eventually(lambda: one.position == 360)
            stream = await current_stream(connection)
            async with Puller.open(connection, stream=stream, sequence=1, name="slow") as puller:
                taken = await puller.take(max_bytes=1, timeout=ANSWER_S)
                await puller.pull_ahead()
                [name] = (await call(connection, f"CONSUMER.NAMES.{stream}"))["consumers"]

                async def all_served() -> bool:
                    return not (await call(connection, f"CONSUMER.INFO.{stream}.{name}"))["num_waiting"]

                await eventually(all_served)  # the pulls
                info = await call(connection, f"CONSUMER.INFO.{stream}.{name}")
                delivered = info["delivered"]["stream_seq"] - len(taken)
                assert delivered <= 2 * PULL_MESSAGES
                stored = await stream_info(connection, stream)
                assert stored is not None
                bytes_each = stored["state"]["bytes"] / stored["state"]["messages"]
                assert delivered * bytes_each < 10_000_000
                assert info["num_pending"] > 0
            reader = Reader(subscription(connection, log), pause=0.05)
            async with running(reader.run()):
                await reader.reach(360)
        await reader.check(log)
        assert reader.batches > 10


async def test_many_small_messages_keep_the_window_moving(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        async with running(one.run()):
            await log.append(1)
            await eventually(lambda: one.position == 1)
        await log.append(1_500, together=100)
        events = await log.everything()
        singles = [batch for event in events[1:] for batch in split([event], after=event.position - 1, max_payload=2**20)]
        subject = LogStream(connection, LOG).subject(await current_stream(connection))
        for batch in singles:
            await connection.client.publish(subject, batch.body, headers=batch.span.headers())
        await connection.client.flush()
        reader = Reader(subscription(connection, log, stall_check_s=30.0))
        async with running(reader.run()):
            await reader.reach(1_501)
        await reader.check(log)


async def test_idle_reader_is_silent(nats: NatsProcess, log: Log) -> None:
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await log.append(5)
            await reader.reach(5)
            await eventually(lambda: consumers_now(connection))
            await log.append(5)
            await reader.reach(10)

            async def silent() -> bool:
                before = connection.client.stats["out_msgs"]
                await asyncio.sleep(1.0)
                return bool(connection.client.stats["out_msgs"] - before <= 1)

            await eventually(silent, timeout=15)  # after all messages that follow from the read are sent


async def test_frozen_server(nats: NatsProcess, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server neither answers nor closes: missing heartbeats are the only sign."""
    monkeypatch.setattr("adapters.nats.log.pull.SILENCE_LIMIT", 0.7)
    monkeypatch.setattr("adapters.nats.log.pull.HEARTBEAT", 0.5)
    async with connected(nats.url) as connection:
        one = relay(connection, log)
        reader = Reader(subscription(connection, log))
        async with running(one.run(), reader.run()):
            await log.append(5)
            await reader.reach(5)
            await eventually(lambda: consumers_now(connection))
            nats.send(signal.SIGSTOP)
            try:
                await log.append(5)
                await reader.reach(10, timeout=8)
            finally:
                nats.send(signal.SIGCONT)
            await log.append(5)
            await reader.reach(15)
        await reader.check(log)


async def everybody_joined(connection: NatsConnection, count: int = 3) -> bool:
    try:
        return await consumers(connection) == count
    except Unavailable:
        return False


async def consumers_now(connection: NatsConnection) -> bool:
    return await consumers(connection) > 0
