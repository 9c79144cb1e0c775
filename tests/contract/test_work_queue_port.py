"""The contract of the port `WorkQueue` as workers see it, in memory and on JetStream."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from uuid import UUID

import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from uuid_utils.compat import uuid7

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.nats.jetstream import call, stream_info
from application.engine.ports.queue import Queue, WorkItem, WorkQueue
from application.engine.retry import persistently
from domain.errors import InvalidCommand, Unavailable
from tests.integration.nats_kit import LOG, NatsProcess, connected, consumer_of
from tests.kit.memory import Delivery, ManualClock, MemoryWorkQueue
from tests.pace import ANSWER_S

TENANT, OTHER = uuid7(), uuid7()
ACK_WAIT_S, SILENCE_S = 60.0, 1.0
"""Seconds until an item goes to another worker: in all tests but one, which lets them pass, longer than any test holds an item."""
STREAM = f"TIDELOG_WORK_{LOG}"


def work(
    pool: str = "critic", *, tenant: UUID = TENANT, kind: str = "agent", work_id: UUID | None = None, dispatch: int = 1
) -> WorkItem:
    return WorkItem(tenant, kind, pool, work_id or uuid7(), dispatch, uuid7())


class Taken(Protocol):
    """An item that a worker holds."""

    @property
    def item(self) -> WorkItem: ...

    async def ack(self) -> None: ...


class QueueSide(Protocol):
    queue: WorkQueue

    async def pull(self, served: Queue, count: int = 10) -> list[Taken]:
        """Returns the items that are ready for a worker."""
        ...

    async def pull_when_silent(self, served: Queue) -> list[Taken]:
        """Returns the ready items after a worker was silent for too long about its items."""
        ...

    async def waiting(self) -> int:
        """Returns the number of items on the queue. Items that a worker holds count, too."""
        ...

    async def consumers(self) -> list[str]: ...

    async def cut(self) -> None:
        """The server is away within this block."""
        ...

    async def mend(self) -> None: ...


@dataclass
class MemorySide:
    clock: ManualClock = field(default_factory=ManualClock)

    ack_wait_s: float = ACK_WAIT_S

    def __post_init__(self) -> None:
        self.queue = MemoryWorkQueue(self.clock, ack_wait_s=self.ack_wait_s, log_id=LOG)

    async def pull(self, served: Queue, count: int = 10) -> list[Delivery]:
        return await self.queue.pull(served, count)

    async def pull_when_silent(self, served: Queue) -> list[Delivery]:
        self.clock.advance(self.ack_wait_s)
        return await self.queue.pull(served)

    async def waiting(self) -> int:
        return len(self.queue.entries)

    async def consumers(self) -> list[str]:
        return list(self.queue.consumers)

    async def cut(self) -> None:
        self.queue.away = True

    async def mend(self) -> None:
        self.queue.away = False


@dataclass
class Message:
    """A message of the queue, decoded as workers decode it."""

    message: Msg

    @property
    def item(self) -> WorkItem:
        body = json.loads(self.message.data)
        ids = {name: UUID(body[name]) for name in ("tenant_id", "work_id", "root_id")}
        assert body["log_id"] == LOG
        return WorkItem(kind=body["kind"], pool=body["pool"], dispatch=body["dispatch"], **ids)

    async def ack(self) -> None:
        await self.message.ack_sync(timeout=ANSWER_S)


@dataclass
class NatsSide:
    connection: NatsConnection
    server: NatsProcess
    ack_wait_s: float = ACK_WAIT_S

    def __post_init__(self) -> None:
        self.queue = JetStreamWorkQueue(self.connection, log_id=LOG, ack_wait_s=self.ack_wait_s)

    async def pull(self, served: Queue, count: int = 10, *, timeout: float = 0.2) -> list[Message]:
        await consumer_of(self.queue, served.tenant_id, served.kind, served.pool, max_pending=served.max_pending)
        messages = await self._request(served, count, timeout)
        while len(messages) < count and await self._has_more(served):  # a busy server let the request expire
            messages += await self._request(served, count - len(messages), timeout)
        return messages

    async def _has_more(self, served: Queue) -> bool:
        info = await call(self.connection, f"CONSUMER.INFO.{served.stream}.{served.consumer}")
        return bool(info["num_pending"] and info["num_ack_pending"] < info["config"]["max_ack_pending"])

    async def _request(self, served: Queue, count: int, timeout: float) -> list[Message]:
        client = self.connection.client
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        request = {"batch": count, "expires": int(timeout * 1e9)}
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{served.stream}.{served.consumer}", json.dumps(request).encode(), reply=inbox
        )
        messages: list[Message] = []
        while len(messages) < count:
            message = await subscription.next_msg(timeout=timeout + ANSWER_S)
            if message.headers and "Status" in message.headers:
                assert message.headers["Status"] in ("404", "408", "409"), message.headers
                break
            messages.append(Message(message))
        await subscription.unsubscribe()
        return messages

    async def pull_when_silent(self, served: Queue) -> list[Message]:
        return await self.pull(served, 1, timeout=ANSWER_S)

    async def waiting(self) -> int:
        info = await stream_info(self.connection, STREAM)
        return int(info["state"]["messages"]) if info else 0

    async def consumers(self) -> list[str]:
        return list((await call(self.connection, f"CONSUMER.NAMES.{STREAM}"))["consumers"])

    async def cut(self) -> None:
        await self.server.kill()

    async def mend(self) -> None:
        await self.server.start()
        await self.connection.ready(ANSWER_S)


@pytest.fixture
def ack_wait_s() -> float:
    return ACK_WAIT_S


@pytest.fixture
def memory_side(ack_wait_s: float) -> MemorySide:
    return MemorySide(ack_wait_s=ack_wait_s)


@pytest_asyncio.fixture
async def nats_side(nats: NatsProcess, ack_wait_s: float) -> AsyncIterator[NatsSide]:
    async with connected(nats.url) as connection:
        yield NatsSide(connection, nats, ack_wait_s)


@pytest.fixture(params=["memory", "nats"])
def side(request: pytest.FixtureRequest, ack_wait_s: float) -> QueueSide:
    found: QueueSide = request.getfixturevalue(f"{request.param}_side")
    return found


def items(taken: list[Taken]) -> list[WorkItem]:
    return [each.item for each in taken]


async def test_an_item_reaches_a_worker_of_its_pool_whole(side: QueueSide) -> None:
    item = work(dispatch=3)
    await side.queue.publish([item])
    served = side.queue.address(TENANT, "agent", "critic", max_pending=5)
    assert (served.kind, served.pool, served.log_id) == ("agent", "critic", LOG)
    [taken] = await side.pull(served)
    assert taken.item == item
    await taken.ack()
    assert await side.waiting() == 0


async def test_items_come_in_the_order_in_which_they_were_put(side: QueueSide) -> None:
    put = [work() for _ in range(6)]
    await side.queue.publish(put[:4])
    await side.queue.publish(put[4:])
    served = side.queue.address(TENANT, "agent", "critic", max_pending=10)
    assert items(await side.pull(served, 2)) == put[:2]
    assert items(await side.pull(served)) == put[2:]


async def test_a_queue_can_be_asked_before_there_is_work(side: QueueSide) -> None:
    served = side.queue.address(TENANT, "agent", "critic", max_pending=5)
    assert await side.pull(served) == []
    item = work()
    await side.queue.publish([item])
    assert items(await side.pull(served)) == [item]
    await side.queue.publish([])


async def test_item_that_waits_is_not_put_twice(side: QueueSide) -> None:
    item = work()
    await side.queue.publish([item, item])
    await side.queue.publish([item, work(work_id=item.work_id, dispatch=2)])
    served = side.queue.address(TENANT, "agent", "critic", max_pending=5)
    taken = await side.pull(served)
    assert [each.item.dispatch for each in taken] == [1, 2]
    await side.queue.publish([item])  # the item was taken and is not done, so it is still on the queue
    assert await side.pull(served) == []
    await taken[0].ack()
    await side.queue.publish([item])  # the item is done; the log decides what follows
    assert items(await side.pull(served)) == [item]


async def test_pools_kinds_and_tenants_are_apart(side: QueueSide) -> None:
    put = [work("sql"), work("sql.query"), work("sql.query.fast"), work("sql", kind="tool"), work("sql", tenant=OTHER)]
    await side.queue.publish(put)
    for item in put:
        served = side.queue.address(item.tenant_id, item.kind, item.pool, max_pending=10)
        assert items(await side.pull(served)) == [item]


async def test_the_same_queue_with_another_limit(side: QueueSide) -> None:
    first = side.queue.address(TENANT, "tool", "sql.query", max_pending=1)
    assert side.queue.address(TENANT, "tool", "sql.query", max_pending=1) == first
    await side.queue.publish([work("sql.query", kind="tool") for _ in range(4)])
    assert len(await side.pull(first)) == 1
    more = side.queue.address(TENANT, "tool", "sql.query", max_pending=3)
    assert more == first and len(await side.pull(more)) == 2
    assert await side.consumers() == [first.consumer]


async def test_many_items_at_once(side: QueueSide) -> None:
    put = [work() for _ in range(1_000)]
    # Both publish as the sagas do: again after Unavailable, which a busy server may answer.
    await asyncio.gather(*(persistently(partial(side.queue.publish, put)) for _ in range(2)))
    assert await side.waiting() == 1_000


@pytest.mark.parametrize("ack_wait_s", [SILENCE_S])
async def test_an_item_whose_worker_is_silent_goes_to_another(side: QueueSide) -> None:
    assert side.queue.ack_wait_s == SILENCE_S
    item = work()
    await side.queue.publish([item])
    served = side.queue.address(TENANT, "agent", "critic", max_pending=1)
    assert items(await side.pull(served, 1)) == [item]
    [again] = await side.pull_when_silent(served)
    assert again.item == item
    await again.ack()
    assert await side.waiting() == 0


async def test_without_its_server_the_queue_is_unavailable_and_loses_nothing(side: QueueSide) -> None:
    put = [work() for _ in range(20)]
    await side.queue.publish(put)
    served = side.queue.address(TENANT, "agent", "critic", max_pending=50)
    await side.cut()
    with pytest.raises(Unavailable):
        await side.queue.publish([work()])
    with pytest.raises(Unavailable):
        await side.queue.puller(side.queue.address(TENANT, "agent", "other", max_pending=5), lambda: None).ask(1)
    await side.mend()
    await side.queue.publish(put)
    assert sorted(items(await side.pull(served, 50)), key=lambda item: item.work_id) == put


@pytest.mark.parametrize(
    ("kind", "pool"), [("agent", "a b"), ("agent", "*"), ("agent", "a..b"), ("agent", ">"), ("x.y", "a"), ("", "a")]
)
async def test_names_that_would_change_the_subject_are_refused(side: QueueSide, kind: str, pool: str) -> None:
    with pytest.raises(InvalidCommand):
        await side.queue.publish([work(pool, kind=kind)])
    with pytest.raises(InvalidCommand):
        side.queue.address(TENANT, kind, pool, max_pending=1)
