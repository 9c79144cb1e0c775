"""From an append to a reader: `python -m benchmarks.stream`.

The benchmark prints the latency from the call of `append` to the delivery by a subscription at a steady rate, and the throughput of
log → relay → JetStream → subscription for a backlog. It runs on embedded servers, in one process with one event loop. So separate
processes reach at least these numbers.
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import structlog
from uuid_utils.compat import uuid7

from adapters.nats import JetStreamSubscription, NatsConnection, Relay, StreamSettings
from adapters.postgres.log.append_signal import AppendSignal
from adapters.postgres.log.event_store import PostgresEventStore
from adapters.postgres.log.feed import PostgresEventFeed
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.pool import open_pool
from application.engine.ports.log import NewEvent, StreamAppend, one_command
from application.engine.reading.history_keeper import HistoryKeeper
from benchmarks import table
from benchmarks.servers import embedded

STATE = b'{"text":"' + b"x" * 270 + b'"}'
METADATA = '{"actor":"key:benchmark"}'
TENANT = uuid7()


@dataclass
class Setup:
    store: PostgresEventStore
    feed: PostgresEventFeed
    signal: AppendSignal
    connection: NatsConnection
    histories: HistoryKeeper

    def relay(self, tail: int) -> Relay:
        settings = StreamSettings(tail=tail)
        return Relay(self.connection, self.feed, self.signal, histories=self.histories, log_id="benchmark", settings=settings)

    def subscription(self) -> JetStreamSubscription:
        return JetStreamSubscription(self.connection, self.feed, histories=self.histories, log_id="benchmark")

    async def append(self, events: int = 1) -> int:
        stream = uuid7()
        appended = StreamAppend(stream, stream, 0, tuple(NewEvent("thing.happened", 1, STATE) for _ in range(events)))
        result = await self.store.append(one_command(TENANT, uuid7(), (appended,), METADATA))
        return result.last_position


@contextlib.asynccontextmanager
async def setup() -> AsyncIterator[Setup]:
    async with embedded() as services, contextlib.AsyncExitStack() as stack:
        pool = await open_pool(services.database_url, role="benchmark")
        stack.push_async_callback(pool.close)
        store = PostgresEventStore(services.database_url, pool)
        await store.start()
        stack.push_async_callback(store.close)
        signal = AppendSignal(services.database_url)
        await signal.start()
        stack.push_async_callback(signal.close)
        connection = NatsConnection(services.nats_url, name="benchmark")
        await connection.start()
        stack.push_async_callback(connection.close)
        await connection.ready(10)
        yield Setup(store, PostgresEventFeed(pool), signal, connection, HistoryKeeper(PostgresHistories(pool)))


async def measure_latency(setup: Setup, *, rate: int, seconds: float) -> list[float]:
    """Milliseconds from the call of `append` to the delivery, per event."""
    started: dict[int, float] = {}
    delivered: dict[int, float] = {}
    after = await setup.feed.head()

    async def read() -> None:
        async for batch in setup.subscription().batches(after=after, name="latency"):
            now = time.perf_counter()
            delivered.update({event.position: now for event in batch})

    async def append() -> None:
        began = time.perf_counter()
        started[await setup.append()] = began

    reading = asyncio.create_task(read())
    relaying = asyncio.create_task(setup.relay(tail=0).run())
    await asyncio.sleep(2.5)  # relay and subscription have found the stream
    async with asyncio.TaskGroup() as group:
        begin = time.perf_counter()
        for index in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + index / rate - time.perf_counter()))
            group.create_task(append())
    await until(lambda: len(delivered) >= len(started), 10)
    await stop(reading, relaying)
    return [(delivered[position] - began) * 1_000 for position, began in started.items()]


async def measure_throughput(setup: Setup, *, events: int) -> tuple[float, float]:
    """Events per second of the relay alone, and of relay and subscription together."""
    async with asyncio.TaskGroup() as group:
        for _ in range(events // 100):
            group.create_task(setup.append(100))
    head = await setup.feed.head()
    relay = setup.relay(tail=0)
    relaying = asyncio.create_task(relay.run())
    began = time.perf_counter()
    await until(lambda: relay.position >= head, 30)
    relayed = time.perf_counter() - began
    await stop(relaying)

    start, count = head, 0
    async with asyncio.TaskGroup() as group:
        for _ in range(events // 100):
            group.create_task(setup.append(100))
    head = await setup.feed.head()

    async def read() -> None:
        nonlocal count
        async for batch in setup.subscription().batches(after=start, name="throughput"):
            count += len(batch)

    relay = setup.relay(tail=0)
    began = time.perf_counter()
    reading, relaying = asyncio.create_task(read()), asyncio.create_task(relay.run())
    await until(lambda: count >= head - start, 30)
    both = time.perf_counter() - began
    await stop(reading, relaying)
    return events / relayed, (head - start) / both


async def until(condition: Callable[[], bool], timeout: float) -> None:
    async with asyncio.timeout(timeout):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run(rate: int, seconds: float, events: int) -> None:
    async with setup() as ready:
        latencies = sorted(await measure_latency(ready, rate=rate, seconds=seconds))
        p50, p99 = statistics.median(latencies), latencies[int(len(latencies) * 0.99)]
        print(f"append to delivery at {rate} events/s ({len(latencies)} events of {len(STATE)} bytes):")
        print(f"  p50 {p50:.1f} ms   p99 {p99:.1f} ms   max {latencies[-1]:.1f} ms (reach: p50 ≤ 3 ms, p99 ≤ 20 ms)")
        table.row(
            f"append → delivered to a handler, at {rate} events/s",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            "",
            "p50 ≤ 3 ms, p99 ≤ 20 ms",
            met=p50 <= 3 and p99 <= 20,
        )
        relay, both = await measure_throughput(ready, events=events)
        print(f"throughput ({events} events of {len(STATE)} bytes):")
        print(f"  log -> relay -> JetStream                 {relay:>9,.0f} events/s")
        print(f"  log -> relay -> JetStream -> subscription {both:>9,.0f} events/s (reach: ≥ 10,000/s)")
        table.row("log → relay → JetStream → subscription", f"{both:,.0f} events/s", "", "≥ 10,000/s", met=both >= 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency and throughput from an append to a reader.")
    parser.add_argument("--rate", type=int, default=100, help="events per second of the latency run")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the latency run")
    parser.add_argument("--events", type=int, default=60_000, help="events of each throughput run")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    asyncio.run(run(options.rate, options.seconds, options.events))


if __name__ == "__main__":
    main()
