"""Takes items from one consumer of the queue, with one request at a time and an inbox of its own.

A request ends when all its items have come, or with a status from the server. Heartbeats tell silence from death. To take a request
back, the inbox is given up in order (`inbox.py`): the server forgets the request, and what was on its way still arrives. An inbox
that was only dropped would leave its messages to the ack wait. An item that comes even later is given back at once.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

import orjson
import structlog
from nats.aio.msg import Msg

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import API
from adapters.nats.work.inbox import Inbox
from application.engine.ports.queue import Queue, WorkItem
from domain.errors import Unavailable
from domain.kernel import PRIORITIES

log = structlog.get_logger(__name__)

EXPIRES_S = 60.0
HEARTBEAT_S = 20.0
SILENCE_S = 2 * HEARTBEAT_S + 5
"""After so many seconds without a heartbeat the request, or the consumer, counts as lost."""
AT_ONCE_S = 1.0
"""Seconds that a request for what waits at this moment may take."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0
"""Seconds until a message that this process cannot use is delivered again. The pause doubles with each delivery."""
_SECOND = 1_000_000_000
_CROWDED = "Requests Pending"
_EXPIRED = "Request Timeout"
_ORDINARY_ENDS = ("Batch Completed", _EXPIRED, "No Messages", _CROWDED)


class JetStreamDelivery:
    """Implements the port `Delivery`. An acknowledgement is a publish, so any connection can send it."""

    __slots__ = ("_connection", "_message", "item", "number")

    def __init__(self, connection: NatsConnection, item: WorkItem, number: int, message: Msg) -> None:
        self._connection = connection
        self._message = message
        self.item = item
        self.number = number

    async def ack(self) -> None:
        await self._say(b"+ACK")

    async def in_progress(self) -> None:
        await self._say(b"+WPI")

    async def give_back(self, delay_s: float = 0.0) -> None:
        await self._say(_nak(delay_s))
        if self.item.priority != "normal" and not delay_s:
            # Nobody waits at the consumers of these classes. The queue ignores the repeat, and whoever serves the pool hears it.
            with unavailable("tell of work"):
                await self._connection.client.publish(self._message.subject, self._message.data)

    async def _say(self, word: bytes) -> None:
        with unavailable("acknowledge work"):
            await self._connection.client.publish(self._message.reply, word)


class ConsumerPull:
    """The request for items at one consumer."""

    def __init__(self, connection: NatsConnection, queue: Queue, changed: Callable[[], None]) -> None:
        """`changed`: called when an item has arrived, and when the request has ended or was lost."""
        self._connection = connection
        self.queue = queue
        self._changed = changed
        self._next = f"{API}.CONSUMER.MSG.NEXT.{queue.stream}.{queue.consumer}"
        self._inbox: Inbox | None = None
        self._requests = 0
        self.asked = 0
        """Items of the request under way that have not come. 0: no request is under way."""
        self.came = 0
        """Messages that have come since the last request was made."""
        self.crowded = False
        """Whether the last request for what waits at this moment came to nothing because of another process's request."""
        self._items: list[JetStreamDelivery] = []
        self.failure: Unavailable | None = None
        """The consumer is lost, or the connection to it."""
        self._at_rest = asyncio.Event()
        self._silence: asyncio.TimerHandle | None = None
        self._watching_loss: AbstractContextManager[None] | None = None

    async def ask(self, count: int) -> None:
        """Asks for the next items, also for those that come within the next minute. Raises Unavailable."""
        await self._request(
            count, {"batch": count, "expires": int(EXPIRES_S * _SECOND), "idle_heartbeat": int(HEARTBEAT_S * _SECOND)}
        )

    async def ask_at_once(self, count: int) -> None:
        """Asks for items that wait at this moment: `at_rest` says when they have come. Raises Unavailable."""
        await self._request(count, {"batch": count, "no_wait": True})

    @property
    def has_items(self) -> bool:
        """Whether items have come that nobody has taken over."""
        return bool(self._items)

    async def at_rest(self) -> None:
        """Waits until no request is under way. A request that the server leaves without an end is taken back. Raises Unavailable.

        A consumer that has as many items under way as it may leaves a request without an end.
        """
        try:
            async with asyncio.timeout(AT_ONCE_S):
                while self.asked:
                    self._at_rest.clear()
                    await self._at_rest.wait()
        except TimeoutError:
            await self.stop()

    async def _request(self, count: int, request: dict[str, int]) -> None:
        if self.asked or self.failure is not None:
            return
        self.asked, self.came, self.crowded = count, 0, False
        self._requests += 1
        try:
            if self._inbox is None:
                self._watch_loss()
                self._inbox = await Inbox.open(self._connection, self._on_message, self._on_late_message)
            self._hear()
            await self._inbox.ask(self._next, orjson.dumps(request), self._requests)
        except Unavailable as error:
            self._fail(error)
            raise

    def _watch_loss(self) -> None:
        if self._watching_loss is None:
            self._watching_loss = self._connection.on_loss(lambda: self._fail(Unavailable("the connection to NATS was lost")))
            self._watching_loss.__enter__()

    def arrived(self) -> list[JetStreamDelivery]:
        """The items that have come since the last call."""
        found, self._items = self._items, []
        return found

    async def stop(self) -> None:
        """Takes the request back. Items that were on their way have arrived when this returns. Raises Unavailable."""
        try:
            await self._give_up_inbox()
        except Unavailable as error:
            self._fail(error)
            raise
        finally:
            self.asked = 0
            self._still()

    async def _give_up_inbox(self) -> None:
        """Raises Unavailable."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await inbox.give_up(wait=self.asked > 0)

    def _ended(self, *, in_vain: bool) -> None:
        """The server has ended the request. `in_vain`: no item has come for it in all its time."""

    async def close(self) -> None:
        """Takes the request back, and gives back the items that nobody has taken over with `arrived`."""
        try:
            await self.stop()
        except Unavailable as error:
            log.debug("pull_not_taken_back", pool=self.queue.pool, reason=error.message)
        if self._watching_loss is not None:
            self._watching_loss.__exit__(None, None, None)
            self._watching_loss = None
        for delivery in self._items:
            await self._give_back(delivery)
        self._items = []

    # --- what comes from the server -----------------------------------------------------------------------------------------

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self.asked = max(0, self.asked - 1)
            self.came += 1
            if (delivery := await self._read(message)) is not None:
                self._items.append(delivery)
        elif self._inbox is not None and message.subject != self._inbox.subject_of(self._requests):
            return  # the end of an earlier request
        elif status != "100":
            description = (message.headers or {}).get("Description", "")
            self.asked = 0
            self.crowded = description == _CROWDED
            if description not in _ORDINARY_ENDS:
                self._fail(Unavailable(f"JetStream: pull work: {status} {description}".rstrip()))
                return
            self._ended(in_vain=description == _EXPIRED and not self.came)
        if self.asked:
            self._hear()
        else:
            self._still()
        if status != "100":
            self._tell()

    async def _on_late_message(self, message: Msg) -> None:
        """The request of an item was taken back."""
        if not (message.headers and "Status" in message.headers) and (delivery := await self._read(message)) is not None:
            log.debug("work_came_late", pool=self.queue.pool, work_id=str(delivery.item.work_id))
            await self._give_back(delivery)

    async def _give_back(self, delivery: JetStreamDelivery) -> None:
        try:
            await delivery.give_back()
        except Unavailable as error:  # the queue delivers the item again after the ack wait
            log.debug("work_not_given_back", pool=self.queue.pool, reason=error.message)

    async def _read(self, message: Msg) -> JetStreamDelivery | None:
        """The item of a message. A message that this process cannot use is set aside."""
        number = int(message.metadata.num_delivered)
        item = self._item(message)
        if item is not None:
            return JetStreamDelivery(self._connection, item, number, message)
        # Work of another log, or a message of a later release: another process may be able to use the message.
        pause_s = min(FIRST_PAUSE_S * 2.0 ** min(number - 1, 16), LONGEST_PAUSE_S)
        log.warning("work_message_set_aside", pool=self.queue.pool, stream=self.queue.stream, again_in_s=pause_s)
        with unavailable("set work aside"):
            await self._connection.client.publish(message.reply, _nak(pause_s))
        return None

    def _item(self, message: Msg) -> WorkItem | None:
        """The item of a message. None: the message is not of this queue, or not readable by this release."""
        try:
            body = orjson.loads(message.data)
            if body.get("log_id") != self.queue.log_id or (body["kind"], body["pool"]) != (self.queue.kind, self.queue.pool):
                return None
            ids = {name: UUID(body[name]) for name in ("tenant_id", "work_id", "root_id")}
            priority = body.get("priority", "normal")
            if priority not in PRIORITIES:
                return None
            return WorkItem(kind=body["kind"], pool=body["pool"], dispatch=int(body["dispatch"]), priority=priority, **ids)
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
        self.failure = self.failure or error
        self.asked = 0
        self._still()
        self._tell()

    def _tell(self) -> None:
        if not self.asked:
            self._at_rest.set()
        self._changed()


def _nak(delay_s: float) -> bytes:
    return b"-NAK" if not delay_s else b"-NAK " + json.dumps({"delay": int(delay_s * _SECOND)}).encode()
