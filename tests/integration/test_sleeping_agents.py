"""Agents without work on a real NATS: what they cost there, and that none sleeps through its work. Requests are counted."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.nats.jetstream import call, delete_stream, stream_info
from adapters.nats.work import sleeping, watch
from application.engine.ports.queue import Delivery, WorkItem
from domain.errors import Unavailable
from tests.integration.nats_kit import LOG, NatsProcess, connected, new_id
from tests.integration.system_kit import eventually
from tests.pace import within

TENANT: UUID = new_id()
STREAM = f"TIDELOG_WORK_{LOG}"
MANY = 200


def work(pool: str = "critic") -> WorkItem:
    return WorkItem(TENANT, "agent", pool, new_id(), 1, new_id())


class Pool:
    """Asks for one item whenever no request is under way, as the pool of an agent does while a slot is free."""

    def __init__(self, queue: JetStreamWorkQueue, name: str = "critic") -> None:
        self.changed = asyncio.Event()
        self.puller = queue.puller(queue.address(TENANT, "agent", name, max_pending=100), self.changed.set)
        self.got: list[Delivery] = []
        self.asks = 0

    async def until(self, done: Callable[[], bool]) -> None:
        async with within(20):
            while not done():
                self.changed.clear()
                self.got += self.puller.arrived()
                if not self.puller.asked:
                    self.asks += 1
                    await self.puller.ask(1)
                if not done():
                    await self.changed.wait()

    async def next(self) -> Delivery:
        await self.until(lambda: bool(self.got))
        return self.got.pop()

    @property
    def sleeps(self) -> bool:
        return self.puller._normal._ear is not None and self.puller.asked == 1


@pytest_asyncio.fixture
async def connection(nats: NatsProcess) -> AsyncIterator[NatsConnection]:
    async with connected(nats.url) as connection:
        yield connection


@pytest_asyncio.fixture
async def pools(connection: NatsConnection) -> AsyncIterator[Callable[..., Pool]]:
    made: list[Pool] = []
    queue = JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=600)  # an item comes again only where a test gives it back

    def make(name: str = "critic") -> Pool:
        made.append(Pool(queue, name))
        return made[-1]

    yield make
    await asyncio.gather(*(pool.puller.close() for pool in made))


@pytest.fixture
def queue(connection: NatsConnection) -> JetStreamWorkQueue:
    return JetStreamWorkQueue(connection, log_id=LOG)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits ends soon."""
    monkeypatch.setattr("adapters.nats.work.pull.EXPIRES_S", 0.2)
    monkeypatch.setattr("adapters.nats.work.pull.HEARTBEAT_S", 0.05)


async def names(connection: NatsConnection) -> list[str]:
    """Of the consumers."""
    return list((await call(connection, f"CONSUMER.NAMES.{STREAM}"))["consumers"] or ())


async def requests(connection: NatsConnection) -> int:
    """Those that wait at consumers."""
    return sum(one["num_waiting"] for one in (await call(connection, f"CONSUMER.LIST.{STREAM}"))["consumers"] or ())


@pytest.mark.usefixtures("brief")
async def test_many_agents_without_work_have_no_consumer_and_ask_once(
    connection: NatsConnection, queue: JetStreamWorkQueue, pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue.publish([work("busy")])  # the stream exists and is not empty
    crowd = [pools(f"agent-{number}") for number in range(MANY)]
    before = connection.client.stats["out_msgs"]
    await asyncio.gather(*(pool.until(lambda pool=pool: pool.sleeps) for pool in crowd))  # type: ignore[misc]

    async def looked_twice() -> bool:
        return connection.client.stats["out_msgs"] - before >= 2 * (MANY + 2) + 2

    await eventually(looked_twice, "the second look of each agent and of each other class")
    assert connection.client.stats["out_msgs"] - before == 2 * (MANY + 2) + 2, "two questions about the stream itself"
    assert await names(connection) == []
    sent = connection.client.stats["out_msgs"]
    for pool in crowd:  # the worker had no free slot for a while, and has one again
        await pool.puller.stop()
        await pool.puller.ask(1)
    assert connection.client.stats["out_msgs"] == sent
    busy = pools("busy")
    assert (await busy.next()).item.pool == "busy"
    await busy.until(lambda: busy.asks == 4)  # its requests expire, are renewed, and have heartbeats
    monkeypatch.setattr("adapters.nats.work.pull.EXPIRES_S", 600.0)  # the next one is still there when the server is asked
    await busy.until(lambda: busy.asks == 5)

    async def one_waits() -> bool:
        return await requests(connection) == 1

    await eventually(one_waits, "one request that waits")
    assert [pool.asks for pool in crowd] == [1] * MANY
    assert len(await names(connection)) == 1


@pytest.mark.usefixtures("brief")
async def test_an_agent_falls_asleep_after_its_work_and_wakes_for_the_next_in_order(
    connection: NatsConnection, queue: JetStreamWorkQueue, pools: Callable[..., Pool]
) -> None:
    pool = pools()
    for _ in range(2):
        await pool.until(lambda: pool.sleeps)
        assert not await names(connection) or not await requests(connection)
        await queue.publish(put := [work(), work(), work()])
        for item in put:
            delivery = await pool.next()
            assert delivery.item == item
            await delivery.ack()
    await pool.until(lambda: pool.sleeps)


@pytest.mark.usefixtures("brief")
async def test_an_item_that_another_process_holds_keeps_an_agent_awake(
    connection: NatsConnection, queue: JetStreamWorkQueue, pools: Callable[..., Pool]
) -> None:
    holder, other = pools(), pools()
    await queue.publish([item := work()])
    held = await holder.next()
    await other.until(lambda: other.asks == 3)  # the item is held for longer than a request waits
    assert not other.sleeps
    await held.give_back()
    delivery = await other.next()
    assert held.item == delivery.item == item and delivery.number == 2
    await delivery.ack()
    await other.until(lambda: other.sleeps)


async def test_an_item_that_comes_while_an_agent_falls_asleep_is_heard(
    queue: JetStreamWorkQueue, pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    item, asked = work(), sleeping.holds_message

    async def late(connection: NatsConnection, stream: str, subject: str) -> bool:
        found = await asked(connection, stream, subject)
        await queue.publish([item])
        return found

    monkeypatch.setattr(sleeping, "holds_message", late)
    assert (await pools().next()).item == item


async def test_an_item_that_the_server_stores_after_the_look_is_found(
    queue: JetStreamWorkQueue, pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server had taken it before the agent listened."""
    looks, asked = itertools.count(), sleeping.holds_message

    async def early(connection: NatsConnection, stream: str, subject: str) -> bool:
        return next(looks) > 0 and await asked(connection, stream, subject)

    monkeypatch.setattr(sleeping, "holds_message", early)
    await queue.publish([item := work()])
    assert (await pools().next()).item == item


@pytest.mark.parametrize("most", [1, 1_000])
async def test_an_item_of_a_class_that_the_server_stores_after_the_look_is_found(
    queue: JetStreamWorkQueue, pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    items = [replace(work(), priority="high"), replace(work(), priority="low")]
    asked = watch.stream_info

    async def early(connection: NatsConnection, stream: str) -> dict[str, Any] | None:
        info = await asked(connection, stream)
        await queue.publish(items)
        return info

    async def nothing(*_: object) -> bool:
        return False

    monkeypatch.setattr(watch, "MOST_LOOKED_AT", most)
    monkeypatch.setattr(watch, "stream_info", early)
    monkeypatch.setattr(watch, "holds_message", nothing)
    monkeypatch.setattr(watch.ClassWatch, "_on_message", nothing)
    await queue.publish([work("other")])  # the stream exists
    pool = pools()
    got = [await pool.next() for _ in items]
    assert {delivery.item.work_id for delivery in got} == {item.work_id for item in items}


@pytest.mark.usefixtures("brief")
async def test_of_two_processes_that_sleep_one_gets_the_item(queue: JetStreamWorkQueue, pools: Callable[..., Pool]) -> None:
    pair = [pools(), pools()]
    await asyncio.gather(*(pool.until(lambda pool=pool: pool.sleeps) for pool in pair))  # type: ignore[misc]
    await queue.publish([item := work()])

    async def serve(pool: Pool) -> None:
        while True:
            await pool.until(lambda: bool(pool.got) or (pool.sleeps and pool.asks > 1))
            if not pool.got:
                return
            got.append(delivery := pool.got.pop())
            await delivery.ack()

    got: list[Delivery] = []
    await asyncio.gather(*map(serve, pair))
    assert [(delivery.item, delivery.number) for delivery in got] == [(item, 1)]


@pytest.mark.usefixtures("brief")
async def test_a_consumer_that_was_lost_during_the_sleep_is_made_again_when_work_comes(
    connection: NatsConnection, queue: JetStreamWorkQueue, pools: Callable[..., Pool]
) -> None:
    pool = pools()
    await queue.publish([work()])
    await (await pool.next()).ack()
    await pool.until(lambda: pool.sleeps)
    [consumer] = await names(connection)
    await call(connection, f"CONSUMER.DELETE.{STREAM}.{consumer}")
    await queue.publish([item := work()])
    with pytest.raises(Unavailable):
        await pool.next()
    assert (await pools().next()).item == item, "the owner makes another puller"


async def test_work_comes_through_a_stream_that_was_lost_during_the_sleep(
    connection: NatsConnection, queue: JetStreamWorkQueue, pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens hides from the publisher that nobody stores: there is no answer instead of "no responders"."""
    monkeypatch.setattr("adapters.nats.work.queue.PUBLISH_S", 0.5)
    pool = pools()
    await pool.until(lambda: pool.sleeps)
    await delete_stream(connection, STREAM)
    item = work()
    _, delivery = await asyncio.gather(queue.publish([item]), pool.next())
    assert delivery.item == item


async def test_after_a_lost_connection_the_owner_is_told_and_finds_what_came_meanwhile(
    nats: NatsProcess, queue: JetStreamWorkQueue, pools: Callable[..., Pool], connection: NatsConnection
) -> None:
    pool = pools()
    await pool.until(lambda: pool.sleeps)
    await connection.client.close()
    with pytest.raises(Unavailable):
        await pool.next()

    async def put() -> bool:
        try:
            await queue.publish([item])
        except Unavailable:
            return False
        return True

    item = work()
    await eventually(put, "the connection")
    assert (await pools().next()).item == item
    info = await stream_info(connection, STREAM)
    assert info is not None and info["state"]["messages"] == 1
