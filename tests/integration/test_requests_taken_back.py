"""Requests at the work queue that are taken back while an item is on its way to them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from adapters.nats import JetStreamWorkQueue, NatsConnection
from adapters.nats.work.puller import JetStreamPuller
from application.engine.ports.queue import Delivery, WorkItem
from tests.integration.nats_kit import LOG, NatsProcess, connected, new_id
from tests.integration.system_kit import eventually
from tests.pace import ANSWER_S, within

TENANT = new_id()


class LateItems:
    """Lets the items that come to a connection wait: a server may send them when the end of the subscription was answered."""

    def __init__(self, connection: NatsConnection, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = asyncio.Event()
        self._way_free = asyncio.Event()
        self._process = connection.client._process_msg
        self._later: set[asyncio.Task[None]] = set()
        monkeypatch.setattr(connection.client, "_process_msg", self._come)

    async def _come(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if not reply.startswith(b"$JS.ACK.") or self._way_free.is_set():
            await self._process(sid, subject, reply, data, headers)
            return
        self._later.add(asyncio.create_task(self._come_later(sid, subject, reply, data, headers)))
        self.held.set()

    async def _come_later(self, *message: Any) -> None:
        await self._way_free.wait()
        await self._process(*message)

    async def let_go(self) -> None:
        self._way_free.set()
        await asyncio.gather(*self._later)


@pytest_asyncio.fixture
async def connection(nats: NatsProcess) -> AsyncIterator[NatsConnection]:
    async with connected(nats.url) as connection:
        yield connection


def work() -> WorkItem:
    return WorkItem(TENANT, "agent", "critic", new_id(), 1, new_id())


def puller(connection: NatsConnection, ack_wait_s: float = 3600.0) -> JetStreamPuller:
    queue = JetStreamWorkQueue(connection, log_id=LOG, ack_wait_s=ack_wait_s)
    return queue.puller(queue.address(TENANT, "agent", "critic", max_pending=10), lambda: None)


async def next_of(own: JetStreamPuller) -> Delivery:
    async def there() -> Sequence[Delivery]:
        if not own.asked:
            await own.ask(1)
        return own.arrived()

    [found] = await eventually(there)
    return found


@pytest.mark.parametrize("closed", [False, True])
async def test_an_item_that_comes_after_the_end_of_its_request_is_given_back_at_once(
    nats: NatsProcess, connection: NatsConnection, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    late, own, item = (
        LateItems(connection, monkeypatch),
        puller(connection),
        work(),
    )
    await JetStreamWorkQueue(connection, log_id=LOG).publish([item])
    await own.ask(1)
    async with within(10):
        await late.held.wait()
    await (own.close() if closed else own.stop())
    assert own.asked == 0 and not own.arrived()
    await late.let_go()
    async with connected(nats.url) as elsewhere:
        other = puller(elsewhere)
        found = await next_of(other)
        assert (found.item, found.number) == (item, 2), "long before the ack wait"
        await found.ack()
        await other.close()
    assert own.arrived() == []
    await own.close()


async def test_the_next_request_has_all_its_items(connection: NatsConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that comes late for the request before is not counted as one of the next request."""
    late, own = LateItems(connection, monkeypatch), puller(connection)
    items = [work() for _ in range(2)]
    queue = JetStreamWorkQueue(connection, log_id=LOG)
    await queue.publish(items[:1])
    await own.ask(1)
    async with within(10):
        await late.held.wait()
    await own.stop()
    await own.ask(2)
    await late.let_go()
    await queue.publish(items[1:])
    found: list[Delivery] = []

    async def both() -> bool:
        found.extend(own.arrived())
        return len(found) == 2

    await eventually(both)
    assert {delivery.item for delivery in found} == set(items) and own.asked == 0
    await own.close()


async def leave_with_a_request(connection: NatsConnection) -> int:
    """Takes an item, asks for another one, and closes. Returns the number of subscriptions before."""
    own = puller(connection)
    await JetStreamWorkQueue(connection, log_id=LOG).publish([work()])
    before = len(connection.client._subs)
    assert (await next_of(own)).number == 1
    await own.ask(1)
    await own.close()
    return before


async def until_subscribed(connection: NatsConnection, times: int) -> None:
    """Waits until the connection has so many subscriptions."""

    async def so_often() -> bool:
        return len(connection.client._subs) == times

    await eventually(so_often)


async def test_a_lost_connection_ends_the_grace(
    nats: NatsProcess, connection: NatsConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection would subscribe to the inbox once more."""
    monkeypatch.setattr("adapters.nats.work.inbox.LATE_S", 3600.0)
    before = await leave_with_a_request(connection)
    assert len(connection.client._subs) > before
    await nats.kill()
    await nats.start()
    await connection.ready(ANSWER_S)
    await until_subscribed(connection, before)


async def test_the_grace_ends(connection: NatsConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.nats.work.inbox.LATE_S", 0.01)
    before = await leave_with_a_request(connection)
    await until_subscribed(connection, before)
