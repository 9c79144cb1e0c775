"""Classes of work on a real NATS: who gets the next free slot, what waits at the server, and what an earlier release left."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.nats.jetstream import call
from adapters.nats.work import puller as puller_module
from adapters.nats.work.pull import ConsumerPull
from adapters.nats.work.watch import Place
from application.engine.ports.queue import Queue, WorkItem
from application.workers.hosting.messages import Complete, WorkForAgent
from domain.kernel import Priority
from tests.integration.nats_kit import LOG, NatsProcess, connected, new_id
from tests.integration.system_kit import eventually
from tests.kit.engine import Engine
from tests.kit.hosting import SpeakingWorker, hosting, with_key
from tests.kit.waiting import TENANT
from tests.pace import within

STREAM = f"TIDELOG_WORK_{LOG}"


def work(priority: Priority = "normal") -> WorkItem:
    return WorkItem(TENANT, "agent", "critic", new_id(), 1, new_id(), priority)


@pytest_asyncio.fixture
async def connection(nats: NatsProcess) -> AsyncIterator[NatsConnection]:
    async with connected(nats.url) as connection:
        yield connection


@pytest.fixture
def queue(connection: NatsConnection) -> JetStreamWorkQueue:
    return JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=600)  # no item comes again because the test stood still


class Owner:
    """Asks for one item at a time, as a pool with one free slot does."""

    def __init__(self, queue: JetStreamWorkQueue, served: Queue) -> None:
        self.changed = asyncio.Event()
        self.puller = queue.puller(served, self.changed.set)

    async def next(self) -> WorkItem:
        async with within(20):
            while True:
                self.changed.clear()
                if found := self.puller.arrived():
                    [delivery] = found
                    await delivery.ack()
                    return delivery.item
                if not self.puller.asked:
                    await self.puller.ask(1)
                await self.changed.wait()


@pytest_asyncio.fixture
async def owner(queue: JetStreamWorkQueue) -> AsyncIterator[Owner]:
    owner = Owner(queue, queue.address(TENANT, "agent", "critic", max_pending=100))
    try:
        yield owner
    finally:
        await owner.puller.close()


async def consumers(connection: NatsConnection) -> dict[str, int]:
    """Class of each consumer → the requests that wait at it."""
    found = (await call(connection, f"CONSUMER.LIST.{STREAM}"))["consumers"]
    classes = {name: name for name in ("high", "low")}
    return {classes.get(one["config"]["filter_subject"].split(".")[2], "normal"): one["num_waiting"] for one in found}


async def test_the_next_free_slot_is_for_the_high_run_and_low_ones_still_move(connection: NatsConnection) -> None:
    engine = Engine(work_queue=JetStreamWorkQueue(connection, log_id=LOG))
    async with with_key(engine), hosting(engine) as process:
        worker = process.connect()
        await worker.hello(["alpha"])
        low = [await engine.start("alpha", priority="low") for _ in range(400)]
        await engine.settled()
        work = await take(worker)
        assert work.claimed.run_id == low[0]
        high = [await engine.start("alpha", priority="high") for _ in range(2)]
        await engine.settled()
        taken = []
        for _ in range(32):
            await worker.done(work, Complete)
            work = await take(worker)
            taken.append(work.claimed.run_id)
            high.append(await engine.start("alpha", priority="high"))
            await engine.settled()
        assert taken[0] == high[0]
        assert [run_id for run_id in taken if run_id in high] == high[:28]
        assert [run_id for run_id in taken if run_id in low] == low[1:5]


async def take(worker: SpeakingWorker) -> WorkForAgent:
    worker.credit(agent=1)
    async with within(20):
        return await worker.hears(WorkForAgent)


async def test_without_work_of_other_classes_there_is_one_consumer_and_one_request(
    connection: NatsConnection, queue: JetStreamWorkQueue, owner: Owner
) -> None:
    await queue.publish([item := work()])
    assert await owner.next() == item
    await owner.puller.ask(1)

    async def waiting() -> bool:
        return await consumers(connection) == {"normal": 1}

    await eventually(waiting, "one request that waits")
    assert not owner.puller._looks and not owner.puller._attention.running


async def test_a_class_whose_work_is_done_is_left_alone(
    connection: NatsConnection, queue: JetStreamWorkQueue, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller_module, "LOOK_S", 0.05)
    put = [work("low"), work("high")]
    await queue.publish(put)
    assert [await owner.next() for _ in put] == [put[1], put[0]]
    await owner.puller.ask(1)

    async def forgotten() -> bool:
        requests = await consumers(connection)
        return set(owner.puller._pulls) == {"normal"} and requests == {"high": 0, "low": 0}

    await eventually(forgotten, "both classes forgotten")
    assert not owner.puller._looks, "nobody looks at a class that has nothing"
    await queue.publish([again := work("high")])
    assert await owner.next() == again


async def test_an_item_that_a_lost_process_holds_comes_after_its_time(
    connection: NatsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller_module, "LOOK_S", 0.2)
    queue = JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=1)
    served = queue.address(TENANT, "agent", "critic", max_pending=100)
    lost, owner = Owner(queue, served), Owner(queue, served)
    await queue.publish([item := work("high")])
    await lost.puller.ask(1)
    [held] = lost.puller.arrived()
    assert held.item == item
    await lost.puller.close()
    assert await owner.next() == item
    await owner.puller.close()


async def test_a_consumer_that_the_server_removed_is_made_again(
    connection: NatsConnection, queue: JetStreamWorkQueue, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller_module, "LOOK_S", 0.05)
    await queue.publish([item := work("low")])
    assert await owner.next() == item
    await owner.puller.ask(1)

    async def forgotten() -> bool:
        return set(owner.puller._pulls) == {"normal"}

    await eventually(forgotten, "the class forgotten")
    found = (await call(connection, f"CONSUMER.LIST.{STREAM}"))["consumers"]
    [of_class] = [one for one in found if one["config"].get("inactive_threshold")]
    await call(connection, f"CONSUMER.DELETE.{STREAM}.{of_class['name']}")
    await queue.publish([item := work("low")])
    assert await owner.next() == item


async def test_work_of_an_earlier_release_and_work_for_it_is_of_the_class_normal(
    connection: NatsConnection, queue: JetStreamWorkQueue, owner: Owner
) -> None:
    """The subject of normal work is the one that all work had, and a message of before says nothing of classes."""
    item, high = work(), work("high")
    body = {
        "kind": item.kind, "pool": item.pool, "work_id": str(item.work_id), "dispatch": 1, "tenant_id": str(TENANT),
        "root_id": str(item.root_id), "log_id": LOG,
    }  # fmt: skip
    before = f"tidelog-work.{LOG}.agent.{TENANT}.critic.{item.work_id}.1"
    await queue.publish([high])  # makes the stream
    await connection.request(before, json.dumps(body).encode())
    await queue.publish([item])
    subjects = (await call(connection, f"STREAM.INFO.{STREAM}", {"subjects_filter": ">"}))["state"]["subjects"]
    assert subjects == {before: 1, f"tidelog-work.{LOG}.high.agent.{TENANT}.critic.{high.work_id}.1": 1}
    assert [await owner.next() for _ in range(2)] == [high, item]


async def test_a_class_that_another_process_asks_at_the_same_moment_is_asked_again(
    connection: NatsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses a request for what waits if the requests before it ask for more than that."""
    monkeypatch.setattr(puller_module, "LOOK_S", 600.0)
    queue = JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=60)
    served = queue.address(TENANT, "agent", "critic", max_pending=1)
    holder, owner = Owner(queue, served), Owner(queue, served)
    await queue.publish(put := [work("high") for _ in range(3)])
    await holder.puller.ask(1)
    [held] = holder.puller.arrived()
    of_class = await queue._make(Place("agent", TENANT, "critic"), 1, "high")
    before = [ConsumerPull(connection, of_class, lambda: None) for _ in range(2)]
    for one in before:
        await one.ask_at_once(2)  # without an answer: as many items are under way as may be

    async def asked() -> bool:
        return (await consumers(connection))["high"] == 2

    await eventually(asked, "two requests before ours")
    await owner.puller.ask(1)
    assert owner.puller.asked == 1, "the request waits for normal work"
    for one in before:
        await one.close()
    await held.ack()
    assert await owner.next() == put[1]
    await holder.puller.close()
    await owner.puller.close()


async def test_a_class_whose_items_are_all_held_does_not_hold_up_the_others(
    connection: NatsConnection, queue: JetStreamWorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that has as many items under way as it may leaves a request without an answer."""
    monkeypatch.setattr(puller_module, "LOOK_S", 0.2)
    served = queue.address(TENANT, "agent", "critic", max_pending=1)
    holder, other = Owner(queue, served), Owner(queue, served)
    await queue.publish([work("high"), work("high"), normal := work()])
    await holder.puller.ask(1)
    [held] = holder.puller.arrived()
    monkeypatch.setattr("adapters.nats.work.pull.AT_ONCE_S", 0.2)
    assert held.item.priority == "high"
    assert await other.next() == normal
    await held.ack()
    assert Counter([(await other.next()).priority]) == {"high": 1}
    await holder.puller.close()
    await other.puller.close()
