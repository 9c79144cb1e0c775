"""Where the answers to requests at the queue come: a subscription that goes on hearing for a while after it was given up.

JetStream takes a request as taken back as soon as nobody listens to its inbox. But an item may be on its way at that moment, and
come even after the server has answered the end of the subscription. The library throws such a message away, and the queue would
wait for its acknowledgement in vain. So the client still hears the inbox for `LATE_S`, while the server has forgotten it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.connection import NatsConnection, unavailable

LATE_S = 2.0
DRAIN_S = 5.0

Heard = Callable[[Msg], Awaitable[None]]


class Inbox:
    """`open` makes it. The owner gives it up."""

    def __init__(self, connection: NatsConnection, client: Client, heard: Heard, late: Heard) -> None:
        self._connection = connection
        self._client = client
        self._heard = heard
        self._late = late
        self._is_late = False
        self._address = client.new_inbox()
        self._subscription: Subscription
        self._watching_loss: AbstractContextManager[None] | None = None

    @classmethod
    async def open(cls, connection: NatsConnection, heard: Heard, late: Heard) -> "Inbox":
        """`heard` gets each message to a subject below the address, `late` each one that comes after the inbox was given up.

        Raises Unavailable.
        """
        own = cls(connection, connection.client, heard, late)
        with unavailable("subscribe to work"):
            own._subscription = await own._client.subscribe(f"{own._address}.*", cb=own._hear)
        return own

    def subject_of(self, request: int) -> str:
        """Where the answers to a request come. Items come under the subjects of the queue."""
        return f"{self._address}.{request}"

    async def ask(self, subject: str, payload: bytes, request: int) -> None:
        """Makes a request, by number. Raises Unavailable."""
        with unavailable("pull work"):
            await self._client.publish(subject, payload, reply=self.subject_of(request))

    async def give_up(self, *, wait: bool) -> None:
        """The server forgets the inbox. Raises Unavailable. `wait`: for the messages that are on their way."""
        if self._client.is_closed:
            return
        self._watching_loss = self._connection.on_loss(self._forget)  # a new connection would subscribe anew
        self._watching_loss.__enter__()
        asyncio.get_running_loop().call_later(LATE_S, self._forget)
        try:
            with unavailable("take a pull back"):
                async with asyncio.timeout(DRAIN_S):
                    await self._client._send_unsubscribe(self._subscription._id)
                    if wait:
                        await self._client.flush()
                        await self._subscription._pending_queue.join()
        finally:
            self._is_late = True

    async def _hear(self, message: Msg) -> None:
        await (self._late if self._is_late else self._heard)(message)

    def _forget(self) -> None:
        if self._watching_loss is not None:
            self._watching_loss.__exit__(None, None, None)
            self._watching_loss = None
            self._subscription._stop_processing()
            self._client._remove_sub(self._subscription._id)
