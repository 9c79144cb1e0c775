"""The work queue on a real server, from both sides: the server that fills the queue, and workers with the rights of workers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from uuid import UUID

import nats as nats_client
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from adapters.nats import JetStreamError, JetStreamWorkQueue, NatsConnection
from adapters.nats.jetstream import call, delete_stream, stream_info
from application.engine.ports.queue import Queue, WorkItem
from tests.integration.nats_kit import LOG, NatsProcess, connected, consumer_of, new_id
from tests.pace import ANSWER_S

TENANT, OTHER = new_id(), new_id()
STREAM = f"TIDELOG_WORK_{LOG}"


def work(
    pool: str = "critic", *, tenant: UUID = TENANT, kind: str = "agent", work_id: UUID | None = None, dispatch: int = 1
) -> WorkItem:
    return WorkItem(tenant, kind, pool, work_id or new_id(), dispatch, new_id())


@pytest_asyncio.fixture
async def connection(nats: NatsProcess) -> AsyncIterator[NatsConnection]:
    async with connected(nats.url) as connection:
        yield connection


async def pull(client: Client, queue: Queue, count: int = 10, *, timeout: float = 0.3) -> list[Msg]:
    """Pulls as a worker does: one request, then all messages until the server reports the end."""
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox)
    request = {"batch": count, "expires": int(timeout * 1e9)}
    await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{queue.stream}.{queue.consumer}", json.dumps(request).encode(), reply=inbox)
    messages: list[Msg] = []
    while len(messages) < count:
        message = await subscription.next_msg(timeout=timeout + ANSWER_S)
        if message.headers and "Status" in message.headers:
            assert message.headers["Status"] in ("404", "408", "409"), message.headers
            break
        messages.append(message)
    await subscription.unsubscribe()
    return messages


def ids(messages: list[Msg]) -> list[str]:
    return [json.loads(message.data)["work_id"] for message in messages]


async def test_item_reaches_a_worker_of_its_pool(connection: NatsConnection) -> None:
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    item = work()
    await queue.publish([item])
    [message] = await pull(connection.client, await consumer_of(queue, TENANT, "agent", "critic", max_pending=5))
    assert message.subject == f"tidelog-work.{LOG}.agent.{TENANT}.critic.{item.work_id}.1"
    assert json.loads(message.data) == {
        "kind": "agent",
        "pool": "critic",
        "work_id": str(item.work_id),
        "dispatch": 1,
        "tenant_id": str(TENANT),
        "root_id": str(item.root_id),
        "log_id": LOG,
    }
    await message.ack_sync(timeout=ANSWER_S)
    info = await stream_info(connection, STREAM)
    assert info is not None
    assert info["state"]["messages"] == 0


async def test_full_store_is_not_taken_for_success(connection: NatsConnection) -> None:
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
    info = await stream_info(connection, STREAM)
    assert info is not None
    await call(connection, f"STREAM.UPDATE.{STREAM}", info["config"] | {"max_msgs": 2})
    await queue.publish([work(), work()])
    with pytest.raises(JetStreamError, match="maximum messages exceeded"):
        await queue.publish([work()])


async def test_work_of_a_dead_worker_goes_to_another(connection: NatsConnection, nats: NatsProcess) -> None:
    queue = JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=2.0)
    item = work()
    await queue.publish([item])
    served = await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
    dying = await nats_client.connect(nats.url)
    before = time.monotonic()
    assert ids(await pull(dying, served, 1)) == [str(item.work_id)]
    await dying.close()
    [message] = await pull(connection.client, served, 1, timeout=10)
    assert ids([message]) == [str(item.work_id)] and time.monotonic() - before >= 2.0
    for _ in range(13):  # a living worker keeps the item beyond the time
        await asyncio.sleep(0.2)
        await message.in_progress()
    assert await pull(connection.client, served, 1, timeout=0.1) == []


async def test_lost_stream_is_made_again(connection: NatsConnection) -> None:
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    item = work()
    await queue.publish([item])
    served = await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
    await delete_stream(connection, STREAM)
    await queue.publish([item])
    assert await consumer_of(queue, TENANT, "agent", "critic", max_pending=5) == served
    assert ids(await pull(connection.client, served)) == [str(item.work_id)]


async def test_who_pulls_makes_the_stream(connection: NatsConnection) -> None:
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    for _ in range(2):
        served = await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
        assert (served.stream, served.log_id) == (STREAM, LOG)
        await delete_stream(connection, STREAM)


async def test_two_logs_with_the_same_work_have_queues_of_their_own(connection: NatsConnection) -> None:
    """A copy of a database has the same tenants, agents and work. Only its log id differs."""
    original, copy = (JetStreamWorkQueue(connection, log_id=log_id) for log_id in ("6a2f-5", "6a2f-6"))
    items = [work(), work(), work("names.shorten", kind="tool")]
    for queue in (original, copy):
        await queue.publish(items)
    for queue, log_id in ((original, "6a2f-5"), (copy, "6a2f-6")):
        for pool, kind, count in (("critic", "agent", 2), ("names.shorten", "tool", 1)):
            served = await consumer_of(queue, TENANT, kind, pool, max_pending=10)
            messages = await pull(connection.client, served)
            assert ids(messages) == [str(item.work_id) for item in items if item.pool == pool] and len(messages) == count
            assert {json.loads(message.data)["log_id"] for message in messages} == {log_id}
            for message in messages:
                await message.ack_sync(timeout=ANSWER_S)
        await queue.publish(items)  # an item that one log's worker acknowledged is still open for the other log
    for queue in (original, copy):
        served = await consumer_of(queue, TENANT, "agent", "critic", max_pending=10)
        assert len(await pull(connection.client, served)) == 2


async def test_a_queue_of_an_earlier_release_is_in_nobodys_way(connection: NatsConnection) -> None:
    await call(connection, "STREAM.CREATE.WORK", {"name": "WORK", "subjects": ["WORK.>"], "retention": "workqueue"})
    await connection.request(f"WORK.agent.{TENANT}.critic.{new_id()}.1", b"{}")
    queue, item = JetStreamWorkQueue(connection, log_id=LOG), work()
    await queue.publish([item])
    served = await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
    assert ids(await pull(connection.client, served)) == [str(item.work_id)]
    old = await stream_info(connection, "WORK")
    assert old is not None and old["state"]["messages"] == 1


async def test_a_thousand_agents_and_tools_are_not_the_end(connection: NatsConnection) -> None:
    """NATS 2.15 gives a stream without a bound of its own one of 1,000 consumers. A stream of an earlier release has none."""
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    await consumer_of(queue, TENANT, "agent", "critic", max_pending=5)
    info = await stream_info(connection, STREAM)
    assert info is not None and info["config"]["max_consumers"] == 1_000_000
    await call(connection, f"STREAM.UPDATE.{STREAM}", info["config"] | {"max_consumers": -1})
    await consumer_of(JetStreamWorkQueue(connection, log_id=LOG), TENANT, "agent", "critic", max_pending=5)
    again = await stream_info(connection, STREAM)
    assert again is not None and again["config"]["max_consumers"] == 1_000_000
