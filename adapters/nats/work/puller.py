"""Takes the items of one queue (`WorkPuller`): a pull of the queue's consumer, with an inbox of its own.

A request ends when all its items have come, or with a status from the server. Heartbeats tell silence from death. To take a request
back, the inbox is given up in order (`drain`): the server forgets the request, and what was on its way still arrives. An inbox that
was only dropped would leave its messages to the ack wait.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import API
from application.engine.ports.queue import Queue, WorkItem
from domain.errors import Unavailable

log = structlog.get_logger(__name__)

EXPIRES_S = 60.0
HEARTBEAT_S = 20.0
SILENCE_S = 2 * HEARTBEAT_S + 5
"""After so many seconds without a heartbeat the request, or the consumer, counts as lost."""
DRAIN_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds until a message that this process cannot use is delivered again. The pause doubles with each delivery."""
_SECOND = 1_000_000_000
_ORDINARY_ENDS = ("Batch Completed", "Request Timeout", "No Messages")


class JetStreamDelivery:
    """Implements the port `Delivery`. An acknowledgement is a publish, so any connection can send it."""

    __slots__ = ("_connection", "_reply", "item", "number")

    def __init__(self, connection: NatsConnection, item: WorkItem, number: int, reply: str) -> None:
        self._connection = connection
        self._reply = reply
        self.item = item
        self.number = number

    async def ack(self) -> None:
        await self._say(b"+ACK")

    async def give_back(self, delay_s: float = 0.0) -> None:
        await self._say(_nak(delay_s))

    async def _say(self, word: bytes) -> None:
        with unavailable("acknowledge work"):
            await self._connection.client.publish(self._reply, word)


class JetStreamPuller:
    """Implements the port `WorkPuller`."""

    def __init__(self, connection: NatsConnection, queue: Queue, changed: Callable[[], None]) -> None:
        self._connection = connection
        self._queue = queue
        self._changed = changed
        self._next = f"{API}.CONSUMER.MSG.NEXT.{queue.stream}.{queue.consumer}"
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._requests = 0
        self.asked = 0
        self._items: list[JetStreamDelivery] = []
        self._failure: Unavailable | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._watching_loss: AbstractContextManager[None] | None = None

    async def ask(self, count: int) -> None:
        if self.asked or self._failure is not None:
            return
        self.asked = count
        self._requests += 1
        request = {"batch": count, "expires": int(EXPIRES_S * _SECOND), "idle_heartbeat": int(HEARTBEAT_S * _SECOND)}
        try:
            if self._subscription is None:
                await self._subscribe()
            assert self._client is not None
            self._hear()
            with unavailable("pull work"):
                await self._client.publish(self._next, orjson.dumps(request), reply=f"{self._inbox}.{self._requests}")
        except Unavailable as error:
            self._fail(error)
            raise

    async def _subscribe(self) -> None:
        self._client = client = self._connection.client
        self._inbox = client.new_inbox()
        if self._watching_loss is None:
            self._watching_loss = self._connection.on_loss(lambda: self._fail(Unavailable("the connection to NATS was lost")))
            self._watching_loss.__enter__()
        with unavailable("subscribe to work"):
            self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    def arrived(self) -> list[JetStreamDelivery]:
        found, self._items = self._items, []
        if not found and self._failure is not None:
            raise self._failure
        return found

    async def stop(self) -> None:
        subscription, self._subscription = self._subscription, None
        try:
            if subscription is not None and self.asked and self._failure is None:
                with unavailable("take a pull back"):
                    async with asyncio.timeout(DRAIN_S):
                        await subscription.drain()  # type: ignore[no-untyped-call]
            elif subscription is not None and self._client is not None and not self._client.is_closed:
                with unavailable("unsubscribe from work"):
                    await subscription.unsubscribe()
        except Unavailable as error:
            self._fail(error)
            raise
        finally:
            self.asked = 0
            self._still()

    async def close(self) -> None:
        try:
            await self.stop()
        except Unavailable as error:
            log.debug("pull_not_taken_back", pool=self._queue.pool, reason=error.message)
        if self._watching_loss is not None:
            self._watching_loss.__exit__(None, None, None)
            self._watching_loss = None
        for delivery in self._items:
            try:
                await delivery.give_back()
            except Unavailable as error:  # the queue delivers the item again after the ack wait
                log.debug("work_not_given_back", pool=self._queue.pool, reason=error.message)
        self._items = []

    # --- what comes from the server -----------------------------------------------------------------------------------------

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self.asked = max(0, self.asked - 1)
            await self._take(message)
        elif message.subject != f"{self._inbox}.{self._requests}":
            return  # the end of an earlier request
        elif status != "100":
            description = (message.headers or {}).get("Description", "")
            self.asked = 0
            if description not in _ORDINARY_ENDS:
                self._fail(Unavailable(f"JetStream: pull work: {status} {description}".rstrip()))
                return
        if self.asked:
            self._hear()
        else:
            self._still()
        if status != "100":
            self._changed()

    async def _take(self, message: Msg) -> None:
        number = int(message.metadata.num_delivered)
        item = self._item(message)
        if item is not None:
            self._items.append(JetStreamDelivery(self._connection, item, number, message.reply))
            return
        # Work of another log, or a message of a later release: another process may be able to use the message.
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(number - 1, 16), LONGEST_PAUSE_S)
        log.warning("work_message_set_aside", pool=self._queue.pool, stream=self._queue.stream, again_in_s=pause_s)
        with unavailable("set work aside"):
            await self._connection.client.publish(message.reply, _nak(pause_s))

    def _item(self, message: Msg) -> WorkItem | None:
        """The item of a message. None: the message is not of this queue, or not readable by this release."""
        try:
            body = orjson.loads(message.data)
            if body.get("log_id") != self._queue.log_id or (body["kind"], body["pool"]) != (self._queue.kind, self._queue.pool):
                return None
            tenant_id, work_id, root_id = (UUID(body[name]) for name in ("tenant_id", "work_id", "root_id"))
            return WorkItem(tenant_id, body["kind"], body["pool"], work_id, int(body["dispatch"]), root_id)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def _hear(self) -> None:
        """Starts the time of silence anew."""
        self._still()
        self._silence = asyncio.get_running_loop().call_later(
            SILENCE_S, lambda: self._fail(Unavailable(f"JetStream: no heartbeat for {SILENCE_S:g} s"))
        )

    def _still(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _fail(self, error: Unavailable) -> None:
        self._failure = self._failure or error
        self.asked = 0
        self._still()
        self._changed()


def _nak(delay_s: float) -> bytes:
    return b"-NAK" if not delay_s else b"-NAK " + json.dumps({"delay": int(delay_s * _SECOND)}).encode()
