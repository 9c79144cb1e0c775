"""Pulls work from one JetStream consumer. The loop replaces `fetch` of nats-py, which loses messages when cancelled and does not
notice a deleted consumer."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Protocol

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from pydantic import ValidationError

from tidelog.logs import log, log_failure
from tidelog.worker.deliveries import Delivery, Publisher, WorkMessage
from tidelog.worker.protocol import Queue

logger = logging.getLogger(__name__)

EXPIRES_S = 30.0
IDLE_HEARTBEAT_S = 5.0
SILENCE_S = 12.0
"""Longer than two heartbeats: after such a silence the pull or the server is lost."""
PAUSE_S = 1.0


class Slots(Protocol):
    """Number of pieces of work that may run at once."""

    async def wait_free(self) -> None: ...

    def offer(self, delivery: Delivery) -> None:
        """Take over the delivery; the taker gives it back if no slot gets free soon."""
        ...


class ConsumerLostError(Exception):
    """The consumer is gone or silent: the worker has to register again."""


class Puller:
    """Pulls from one queue, with one request for one message at a time, and only when a slot is free."""

    def __init__(
        self,
        nats: NatsClient,
        queue: Queue,
        publisher: Publisher,
        slots: Slots,
        report_lost: Callable[[Queue, str], None],
        ack_wait_s: float,
    ) -> None:
        self._nats = nats
        self._queue = queue
        self._publisher = publisher
        self._slots = slots
        self._report_lost = report_lost
        self._ack_wait_s = ack_wait_s

    async def run(self) -> None:
        """Pull until cancelled. After trouble it reports, pauses and tries again: the registration may bring the consumer back."""
        while True:
            try:
                await self._pull_on_new_inbox()
            except (ConsumerLostError, NatsError, OSError) as error:
                self._report_lost(self._queue, f"{type(error).__name__}: {error}")
                await asyncio.sleep(PAUSE_S)

    async def _pull_on_new_inbox(self) -> None:
        """A new inbox each time: a late message of an earlier pull goes nowhere, and JetStream delivers it again."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by the server: one message per request

        async def take(message: Msg) -> None:
            arrived.put_nowait(message)

        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=take)
        try:
            while True:
                await self._slots.wait_free()
                await self._request(inbox)
                await self._receive(arrived)
        finally:
            if not self._nats.is_closed:
                try:
                    await subscription.unsubscribe()
                except (NatsError, OSError) as error:
                    logger.debug("unsubscribe failed: %r", error)
            while not arrived.empty():
                await self._give_back(arrived.get_nowait())

    async def _request(self, inbox: str) -> None:
        request = {"batch": 1, "expires": int(EXPIRES_S * 1e9), "idle_heartbeat": int(IDLE_HEARTBEAT_S * 1e9)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._queue.stream}.{self._queue.consumer}"
        await self._nats.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def _receive(self, arrived: "asyncio.Queue[Msg]") -> None:
        """Wait for the answer to one request: a message, or the status that there is none."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    message = await arrived.get()
            except TimeoutError:
                raise ConsumerLostError(f"no heartbeat for {SILENCE_S:.0f} s") from None
            status = (message.headers or {}).get("Status")
            if status is None:
                await self._hand_over(message)
                return
            if status == "100":  # idle heartbeat
                continue
            description = (message.headers or {}).get("Description", "")
            if status == "408" or (status == "404" and "No Messages" in description):
                return
            if status == "409" and "Consumer Deleted" not in description:  # too many pulls, a new leader, a full server
                log(logger, logging.INFO, "pull_refused", pool=self._queue.pool, reason=description)
                await asyncio.sleep(PAUSE_S)
                return
            raise ConsumerLostError(f"{status} {description}".strip())

    async def _hand_over(self, message: Msg) -> None:
        try:
            work = WorkMessage.model_validate_json(message.data)
        except ValidationError as error:
            # Not readable by this version: left unacknowledged, so that a newer worker gets the message after the ack wait.
            log_failure(logger, "work_message_not_understood", error, pool=self._queue.pool)
            return
        ours, number = self._queue.log_id, message.metadata.num_delivered
        of_our_log = ours is not None and work.log_id == ours
        delivery = Delivery(work, number, message.reply, self._publisher, self._ack_wait_s, of_our_log)
        if of_our_log or None in (ours, work.log_id):
            self._slots.offer(delivery)
        else:  # never acknowledged: the workers of that log would wait for it in vain
            pause_s = await delivery.set_aside()
            fields = {"work_id": work.work_id, "log_id": work.log_id, "our_log_id": ours, "again_in_s": pause_s}
            log(logger, logging.WARNING, "work_of_another_log", pool=work.pool, stream=self._queue.stream, **fields)

    async def _give_back(self, message: Msg) -> None:
        if (message.headers or {}).get("Status") is None:
            await self._publisher.publish(message.reply, b"-NAK")
