"""The contract of the port `WorkPuller`: how a process of the server takes work from the queue, in memory and on JetStream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from uuid_utils.compat import uuid7

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.nats.jetstream import call, stream_info
from adapters.nats.work.pull import ConsumerPull
from adapters.nats.work.watch import ClassWatch
from application.engine.ports.queue import Delivery, Queue, WorkItem, WorkPuller, WorkQueue
from domain.errors import Unavailable
from domain.kernel import Priority
from tests.integration.nats_kit import LOG, NatsProcess, connected
from tests.integration.system_kit import eventually
from tests.kit.memory import MemoryWorkQueue
from tests.pace import within

TENANT = uuid7()
STREAM = f"TIDELOG_WORK_{LOG}"


def work(
    pool: str = "critic", *, kind: str = "agent", work_id: UUID | None = None, dispatch: int = 1, priority: Priority = "normal"
) -> WorkItem:
    return WorkItem(TENANT, kind, pool, work_id or uuid7(), dispatch, uuid7(), priority)


def some(count: int, priority: Priority) -> list[WorkItem]:
    return [work(priority=priority) for _ in range(count)]


@dataclass
class Side:
    queue: WorkQueue
    waiting: Callable[[], Awaitable[int]]
    """The number of items on the queue. Items that somebody holds count, too."""
    lose: Callable[[], Awaitable[None]]
    """Every request under way is lost."""

    def address(self) -> Queue:
        return self.queue.address(TENANT, "agent", "critic", max_pending=100)


@pytest.fixture
def memory_side() -> Side:
    queue = MemoryWorkQueue(log_id=LOG)

    async def waiting() -> int:
        return len(queue.entries)

    async def lose() -> None:
        queue.lose_pulls()

    return Side(queue, waiting, lose)


@pytest_asyncio.fixture
async def nats_side(nats: NatsProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Side]:
    # Nothing here may need the end of a request that waits, or a later look.
    monkeypatch.setattr("adapters.nats.work.pull.EXPIRES_S", 600.0)
    monkeypatch.setattr("adapters.nats.work.puller.LOOK_S", 600.0)
    async with connected(nats.url) as connection:

        async def waiting() -> int:
            info = await stream_info(connection, STREAM)
            return int(info["state"]["messages"]) if info else 0

        async def lose() -> None:
            for consumer in (await call(connection, f"CONSUMER.NAMES.{STREAM}"))["consumers"]:
                await call(connection, f"CONSUMER.DELETE.{STREAM}.{consumer}")

        yield Side(JetStreamWorkQueue(connection, log_id=LOG), waiting, lose)


@pytest.fixture(params=["memory", "nats"])
def side(request: pytest.FixtureRequest) -> Side:
    found: Side = request.getfixturevalue(f"{request.param}_side")
    return found


class Taker:
    """A puller, and the items that it has brought."""

    def __init__(self, side: Side, queue: Queue) -> None:
        self.changed = asyncio.Event()
        self.puller: WorkPuller = side.queue.puller(queue, self.changed.set)
        self.got: list[Delivery] = []

    def take(self) -> list[WorkItem]:
        self.got += self.puller.arrived()
        return [delivery.item for delivery in self.got]

    async def until(self, count: int) -> list[WorkItem]:
        async with within(15):
            while len(self.take()) < count:
                await self.changed.wait()
                self.changed.clear()
        return self.take()


@asynccontextmanager
async def taking(side: Side, queue: Queue) -> AsyncIterator[Taker]:
    taker = Taker(side, queue)
    try:
        yield taker
    finally:
        await taker.puller.close()


async def test_items_that_wait_come_in_order_up_to_the_number_asked_for(side: Side) -> None:
    put = [work() for _ in range(5)]
    await side.queue.publish(put)
    async with taking(side, side.address()) as taker:
        assert taker.puller.arrived() == [] and taker.puller.asked == 0
        await taker.puller.ask(3)
        assert await taker.until(3) == put[:3]
        assert taker.puller.asked == 0
        assert [delivery.number for delivery in taker.got] == [1, 1, 1]
        await taker.puller.ask(3)
        assert await taker.until(5) == put
        assert taker.puller.asked == 1


async def test_an_item_comes_when_it_is_put_and_a_second_request_waits_for_the_first(side: Side) -> None:
    async with taking(side, side.address()) as taker:
        await taker.puller.ask(2)
        await taker.puller.ask(50)
        assert taker.puller.asked == 2
        item = work()
        await side.queue.publish([item])
        await asked_until(taker, 1, 2)
        assert taker.take() == [item]
        assert taker.puller.asked == 1


async def test_an_acknowledged_item_is_off_the_queue_and_a_held_one_is_not(side: Side) -> None:
    await side.queue.publish([work(), work()])
    async with taking(side, side.address()) as taker:
        await taker.puller.ask(2)
        await taker.until(2)
        assert await side.waiting() == 2
        await taker.got[0].ack()

        async def one_left() -> bool:
            return await side.waiting() == 1

        await eventually(one_left, "one item on the queue")


async def test_an_item_that_is_given_back_comes_again_with_a_higher_number(side: Side) -> None:
    item = work()
    await side.queue.publish([item])
    queue = side.address()
    async with taking(side, queue) as first, taking(side, queue) as second:
        await first.puller.ask(1)
        await first.until(1)
        await second.puller.ask(1)
        await first.got[0].give_back()
        assert await second.until(1) == [item]
        assert second.got[0].number == 2


async def test_after_stop_nothing_is_asked_for_and_no_item_is_lost(side: Side) -> None:
    """An item that comes at the moment of the stop is either taken, or goes at once to the next who asks."""
    queue = side.address()
    for _ in range(20):
        item = work()
        async with taking(side, queue) as first, taking(side, queue) as second:
            await first.puller.ask(5)
            await asyncio.gather(side.queue.publish([item]), first.puller.stop())
            assert first.puller.asked == 0
            if not first.take():
                await second.puller.ask(1)
                assert await second.until(1) == [item]
            for delivery in [*first.got, *second.got]:
                await delivery.ack()


async def test_after_stop_it_can_ask_again(side: Side) -> None:
    async with taking(side, side.address()) as taker:
        await taker.puller.ask(1)
        await taker.puller.stop()
        await taker.puller.stop()
        await taker.puller.ask(1)
        item = work()
        await side.queue.publish([item])
        await asked_until(taker, 1, 1)
        assert taker.take() == [item]


async def test_close_gives_back_what_nobody_took(side: Side) -> None:
    item = work()
    queue = side.address()
    async with taking(side, queue) as first:
        await first.puller.ask(1)
        await side.queue.publish([item])
        async with within(15):
            await first.changed.wait()
    async with taking(side, queue) as second:
        await second.puller.ask(1)
        assert await second.until(1) == [item]


async def test_a_lost_request_is_told_and_the_items_before_it_are_not_lost(side: Side) -> None:
    item = work()
    await side.queue.publish([item])
    queue = side.address()
    async with taking(side, queue) as first:
        await first.puller.ask(5)
        async with within(15):
            await first.changed.wait()
        first.changed.clear()
        await side.lose()
        async with within(15):
            await first.changed.wait()
        assert first.take() == [item]
        with pytest.raises(Unavailable):
            first.puller.arrived()
        assert first.puller.asked == 0
    async with taking(side, queue) as second:
        await second.puller.ask(2)
        other = work()
        await side.queue.publish([other])
        async with within(15):
            while other not in second.take():
                await second.changed.wait()
                second.changed.clear()


# --- classes ----------------------------------------------------------------------------------------------------------------


async def one_by_one(taker: Taker, count: int) -> list[WorkItem]:
    """Takes items as a worker with one slot does."""
    before = len(taker.got)
    for number in range(before + 1, before + count + 1):
        await taker.puller.ask(1)
        found = await taker.until(number)
        await taker.got[-1].ack()
    return found[before:]


async def test_the_higher_class_comes_first_and_within_a_class_the_order_holds(side: Side) -> None:
    low, normal, high = some(3, "low"), some(3, "normal"), some(3, "high")
    await side.queue.publish([*low, *normal])
    await side.queue.publish(high)
    async with taking(side, side.address()) as taker:
        assert await one_by_one(taker, 7) == [*high, *normal, low[0]]
        await taker.puller.ask(5)
        assert (await taker.until(9))[7:] == low[1:]
        assert taker.puller.asked == 3


async def test_one_request_takes_all_classes(side: Side) -> None:
    put = [*some(2, "low"), *some(2, "normal"), *some(2, "high")]
    await side.queue.publish(put)
    async with taking(side, side.address()) as taker:
        await taker.puller.ask(10)
        assert sorted(item.work_id for item in await taker.until(6)) == sorted(item.work_id for item in put)
        assert taker.puller.asked == 4
        more = work()
        await side.queue.publish([more])
        assert (await taker.until(7))[6] == more


async def test_every_eighth_item_comes_from_the_lower_class(side: Side) -> None:
    high, low = some(30, "high"), some(30, "low")
    await side.queue.publish([*low, *high])
    async with taking(side, side.address()) as taker:
        found = await one_by_one(taker, 24)
        assert [number for number, item in enumerate(found, 1) if item.priority == "low"] == [8, 16, 24]
        assert [item for item in found if item.priority == "low"] == low[:3]
        assert [item for item in found if item.priority == "high"] == high[:21]


async def test_with_three_classes_the_lowest_one_is_not_forgotten(side: Side) -> None:
    await side.queue.publish([*some(20, "low"), *some(20, "normal"), *some(70, "high")])
    async with taking(side, side.address()) as taker:
        found = await one_by_one(taker, 64)
        counts = {priority: sum(item.priority == priority for item in found) for priority in ("high", "normal", "low")}
        assert counts == {"high": 56, "normal": 7, "low": 1}


@pytest.mark.parametrize("priority", ["high", "low"])
async def test_an_item_of_another_class_comes_to_a_request_that_waits(side: Side, priority: Priority) -> None:
    async with taking(side, side.address()) as taker:
        await taker.puller.ask(2)
        for number in range(1, 4):
            item = work(priority=priority)
            await side.queue.publish([item])
            await asked_until(taker, number, 2)
            assert taker.got[-1].item == item
            await taker.got[-1].ack()
        item = work()
        await side.queue.publish([item])
        await asked_until(taker, 4, 2)
        assert taker.got[-1].item == item


async def asked_until(taker: Taker, number: int, count: int) -> None:
    """Asks anew whenever no request is under way, as the owner of a puller does."""
    async with within(15):
        while len(taker.take()) < number:
            if not taker.puller.asked:
                await taker.puller.ask(count)
            await taker.changed.wait()
            taker.changed.clear()


@pytest.mark.parametrize("priority", ["high", "low"])
async def test_an_item_of_another_class_that_is_given_back_comes_again(side: Side, priority: Priority) -> None:
    queue = side.address()
    item = work(priority=priority)
    async with taking(side, queue) as first, taking(side, queue) as second:
        await side.queue.publish([item])
        await first.puller.ask(1)
        await first.until(1)
        await second.puller.ask(1)
        await first.got[0].give_back()
        await asked_until(second, 1, 1)
        assert (second.got[0].item, second.got[0].number) == (item, 2)


async def test_the_same_work_in_another_dispatch_waits_in_its_class_again(side: Side) -> None:
    item = work(priority="high")
    async with taking(side, side.address()) as taker:
        await side.queue.publish([item, item])
        await side.queue.publish(some(2, "normal"))
        assert await one_by_one(taker, 1) == [item]
        await side.queue.publish([again := replace(item, dispatch=2)])
        assert (await one_by_one(taker, 1))[0] == again


async def test_items_of_all_classes_are_found_after_a_loss(side: Side) -> None:
    queue = side.address()
    async with taking(side, queue) as first:
        await first.puller.ask(5)
        await side.queue.publish([*some(1, "high"), *some(1, "normal")])
        await asked_until(first, 2, 5)
        await side.lose()
        async with within(15):
            with pytest.raises(Unavailable):
                while True:
                    first.take()
                    if not first.puller.asked:
                        await first.puller.ask(5)
                    await first.changed.wait()
                    first.changed.clear()
    put = [work(priority=priority) for priority in ("low", "high", "normal")]
    await side.queue.publish(put)
    async with taking(side, queue) as second:
        await asked_until(second, 3, 5)
        assert {delivery.item for delivery in second.got} >= set(put)


async def test_without_a_connection_a_request_is_refused(nats: NatsProcess) -> None:
    connection = NatsConnection(nats.url, name="test")
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    puller = queue.puller(Queue("agent", "critic", STREAM, "none", LOG, TENANT, 10), lambda: None)
    with pytest.raises(Unavailable):
        await puller.ask(1)
    await puller.close()


@pytest.mark.parametrize("priority", ["high", "low"])
async def test_an_item_of_another_class_that_is_heard_of_before_its_consumer_has_it_comes(
    nats_side: Side, monkeypatch: pytest.MonkeyPatch, priority: Priority
) -> None:
    """The server tells plain subscriptions of a message on one thread and stores it on another."""
    heard: list[str] = []

    async def hears(watch: ClassWatch, message: Msg) -> None:
        heard.append(message.subject)

    monkeypatch.setattr(ClassWatch, "_on_message", hears)
    looks, asked = asyncio.Queue[int](), ConsumerPull.at_rest

    async def at_rest(pull: ConsumerPull) -> None:
        await asked(pull)
        if pull.queue.consumer != nats_side.address().consumer:
            looks.put_nowait(pull.came)

    monkeypatch.setattr(ConsumerPull, "at_rest", at_rest)
    queue, served = nats_side.queue, nats_side.address()
    assert isinstance(queue, JetStreamWorkQueue)
    async with taking(nats_side, served) as taker:
        await taker.puller.ask(1)
        queue._watch._second_look.disarm()  # that of the agent's first request
        item = work(priority=priority)
        queue._watch._hear(queue._subject(item))  # it is not there yet
        keeping = asyncio.create_task(asked_until(taker, 1, 1))
        async with within(15):
            assert await looks.get() == 0, "the first look is in vain"
        await queue.publish([item])
        await keeping
        assert taker.take() == [item] and heard == [queue._subject(item)]


async def test_messages_of_another_log_and_unreadable_ones_are_set_aside(nats: NatsProcess) -> None:
    async with connected(nats.url) as connection:
        queue = JetStreamWorkQueue(connection, log_id=LOG)
        served = queue.address(TENANT, "agent", "critic", max_pending=10)
        item = work()
        await queue.publish([item])
        subject = queue._subject(work())
        await connection.request(subject, b"not JSON")
        await connection.request(queue._subject(work()), b'{"log_id": "another"}')
        side = Side(queue, lambda: asyncio.sleep(0, 0), lambda: asyncio.sleep(0))
        async with taking(side, served) as taker:
            await taker.puller.ask(3)
            assert await taker.until(1) == [item]

            async def all_came() -> bool:
                return taker.puller.asked == 0

            await eventually(all_came, "all three messages")
            assert taker.take() == [item]
