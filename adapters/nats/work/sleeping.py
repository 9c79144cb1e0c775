"""The request for items of the class `normal` (`ConsumerPull`), which sleeps while nothing is stored for its agent or tool.

Most agents have no work at most times. A request that waits costs heartbeats and renewals, and a consumer of a work-queue stream
costs the server some milliseconds to make, and memory: with thousands of agents that is more than their work. So there is no
request, and at first no consumer either: a plain subscription to the subject of the agent's work hears each message that is put
there. The first request makes the consumer. A request that ends without an item is followed by sleep.

An agent falls asleep in this order: the subscription begins, then the stream says that it has no message for the agent. A message
that waits, or that another process holds, is stored and keeps the request awake. Each later message is heard. One that the server
took before the subscription and stored after the look is found by a second look (`second_look.py`). So the owner need not
tell the sleep from a request that waits: `asked` is the same. When a message was heard, the request counts as ended, and the owner
asks anew.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import holds_message
from adapters.nats.work.pull import ConsumerPull
from adapters.nats.work.second_look import SecondLook
from adapters.nats.work.watch import ClassWatch, Place
from application.engine.ports.queue import Queue
from domain.errors import Unavailable
from domain.kernel import Priority

log = structlog.get_logger(__name__)


class Source(NamedTuple):
    """The consumers of one agent or tool."""

    queue: Queue
    place: Place
    subject: str
    """Of the work of the class `normal`."""
    watch: ClassWatch
    ready: Callable[[], Awaitable[None]]
    """Makes sure of the stream. Raises Unavailable."""
    make: Callable[[Priority], Awaitable[Queue]]
    """Makes the consumer of a class, if it does not exist. Raises Unavailable."""


class SleepingPull(ConsumerPull):
    """See above."""

    def __init__(self, connection: NatsConnection, source: Source, changed: Callable[[], None]) -> None:
        super().__init__(connection, source.queue, changed)
        self._source = source
        self._is_made = False
        self._idle = True
        """The last request ended without an item, or there was none."""
        self._ear: tuple[Client, Subscription] | None = None
        self._heard = False
        self._second_look = SecondLook(self._look_again, f"second-look-for-{source.place.kind}-{source.place.pool}")

    async def ask(self, count: int) -> None:
        if self.asked or self.failure is not None:
            return
        if await self._sleeps():
            self.asked = count
        else:
            await super().ask(count)

    async def ask_at_once(self, count: int) -> None:
        if not self.asked and self.failure is None and not await self._sleeps():
            await super().ask_at_once(count)

    async def close(self) -> None:
        await super().close()
        try:
            await self._stop_listening()
        except Unavailable as error:
            log.debug("work_not_unheard", pool=self.queue.pool, reason=error.message)
        await self._second_look.close()

    async def _sleeps(self) -> bool:
        """Falls asleep or stays asleep, if there is nothing to ask for. Raises Unavailable."""
        self.came, self.crowded = 0, False
        try:
            if self._idle and self._ear is None:
                await self._give_up_inbox()
                await self._source.ready()
                await self._listen()
                if await self._is_stored():
                    self._heard = True
                else:
                    self._second_look.arm()
            if self._idle and not self._heard:
                return True
            self._idle = False
            await self._stop_listening()
            if not self._is_made:
                await self._source.make("normal")
                self._is_made = True
        except Unavailable as error:
            self._fail(error)
            raise
        return False

    async def _listen(self) -> None:
        client, self._heard = self._connection.client, False
        self._watch_loss()
        with unavailable("listen for work"):
            self._ear = client, await client.subscribe(self._source.subject, cb=self._hear_work)

    async def _stop_listening(self) -> None:
        self._second_look.disarm()
        ear, self._ear = self._ear, None
        if ear is not None and not ear[0].is_closed:
            with unavailable("end to listen for work"):
                await ear[1].unsubscribe()

    async def _is_stored(self) -> bool:
        """Whether the stream has a message for the agent or tool. Raises Unavailable."""
        return await holds_message(self._connection, self.queue.stream, self._source.subject)

    async def _look_again(self) -> None:
        ear = self._ear
        try:
            if ear is not None and await self._is_stored() and self._ear is ear:
                self._wake()
        except Unavailable as error:
            self._fail(error)

    async def _hear_work(self, _: Msg) -> None:
        self._wake()

    def _wake(self) -> None:
        """There is work: the request counts as ended."""
        if self._ear is None or self._heard:
            return
        self._heard = True
        if self.asked:
            self.asked = 0
            self._tell()

    def _ended(self, *, in_vain: bool) -> None:
        self._idle = in_vain
