"""Hears of work of the classes `high` and `low`, so that nobody need wait at their consumers while there is none.

JetStream stores what is published to a subject, and a plain subscription to the subject gets the same message. So two subscriptions
of a process tell it of all work of these classes, without any question. What is published while nobody listens is found by one
question for each class at the start. What the server took before the subscriptions and stored after that question is found by a
second look (`second_look.py`). A message that a subscription misses, at the moment when a cluster learns of the subscription, comes
again: the reconciler publishes work that waits, and the queue alone ignores the repeat.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple
from uuid import UUID

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from adapters.nats.connection import NatsConnection, unavailable
from adapters.nats.jetstream import holds_message, next_message, stream_info
from adapters.nats.work.second_look import SecondLook
from domain.errors import Unavailable
from domain.kernel import PRIORITIES, Priority

log = structlog.get_logger(__name__)

WATCHED: tuple[Priority, ...] = ("high", "low")
MOST_HEARD = 10_000
"""Pools of which a process remembers that work was published for them, before it serves them."""
MOST_LOOKED_AT = 1_000
"""Messages of a class that the second look reads. If there are more, every pool looks for itself."""


class Place(NamedTuple):
    """An agent or tool of a tenant."""

    kind: str
    tenant_id: UUID
    pool: str


Listener = Callable[[Priority], None]


class ClassWatch:
    """The subscriptions of one process. `watch` begins them, and they end with the last watch."""

    def __init__(self, connection: NatsConnection, stream: str, subjects: str) -> None:
        """`subjects`: the beginning of the stream's subjects. The class and the place follow."""
        self._connection = connection
        self._stream = stream
        self._subjects = subjects
        self._listeners: dict[Place, set[Listener]] = {}
        self._lock = asyncio.Lock()
        self._client: Client | None = None
        self._subscriptions: list[Subscription] = []
        self._lost = True
        """Whether messages may have gone unheard."""
        self._some: set[Priority] = set()
        """Classes that may have work for any place since before the subscriptions began."""
        self._heard: set[tuple[Priority, Place]] = set()
        """Work that was heard of before somebody watched its place."""
        self._watching_loss: AbstractContextManager[None] | None = None
        self._stored_before = 0
        """The last sequence of the stream before the first look."""
        self._second_look = SecondLook(self._look_again, "second-look-at-classes")

    async def watch(self, place: Place, listener: Listener) -> list[Priority]:
        """Calls `listener` for each new piece of work, from now on until `unwatch`. Returns the classes that have work already.

        Raises Unavailable.
        """
        async with self._lock:
            await self._listen()
        self._listeners.setdefault(place, set()).add(listener)
        try:
            return [priority for priority in WATCHED if await self._has(priority, place)]
        except BaseException:
            await self.unwatch(place, listener)
            raise

    async def unwatch(self, place: Place, listener: Listener) -> None:
        listeners = self._listeners.get(place, set())
        listeners.discard(listener)
        if not listeners:
            self._listeners.pop(place, None)
        if not self._listeners:
            async with self._lock:
                if not self._listeners:
                    await self._stop()

    async def _listen(self) -> None:
        client = self._connection.client
        if client is not self._client or not self._subscriptions:
            self._client, self._subscriptions, self._lost = client, [], True
            if self._watching_loss is None:
                self._watching_loss = self._connection.on_loss(self._on_loss)
                self._watching_loss.__enter__()
            for priority in WATCHED:
                with unavailable("subscribe to classes of work"):
                    self._subscriptions.append(await client.subscribe(f"{self._subjects}.{priority}.>", cb=self._on_message))
        if self._lost:
            self._lost, self._heard = False, set()
            try:
                info = await stream_info(self._connection, self._stream)
                self._stored_before = info["state"]["last_seq"] if info is not None else 0
                self._some = {priority for priority in WATCHED if await self._stored(f"{priority}.>")}
                self._second_look.arm()
            except BaseException:
                self._lost = True
                raise

    async def _stop(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        self._heard, self._lost = set(), True
        await self._second_look.close()
        if self._watching_loss is not None:
            self._watching_loss.__exit__(None, None, None)
            self._watching_loss = None
        if self._client is not None and self._client.is_connected:
            for subscription in subscriptions:
                with unavailable("unsubscribe from classes of work"):
                    await subscription.unsubscribe()

    async def _has(self, priority: Priority, place: Place) -> bool:
        """Whether work of a class waits for a place, or may wait there."""
        if (priority, place) in self._heard:
            self._heard.discard((priority, place))
            return True
        return priority in self._some and await self._stored(f"{priority}.{subject_of(place)}.*.*")

    async def _stored(self, subject: str) -> bool:
        return await holds_message(self._connection, self._stream, f"{self._subjects}.{subject}")

    async def _look_again(self) -> None:
        for priority in WATCHED:
            try:
                heard_all = await self._hear_stored(priority)
            except Unavailable as error:
                log.debug("second_look_failed", priority=priority, reason=error.message)
                heard_all = False
            if not heard_all:  # any place may have work of the class
                self._some.add(priority)
                for listener in itertools.chain.from_iterable(list(self._listeners.values())):
                    listener(priority)

    async def _hear_stored(self, priority: Priority) -> bool:
        """What has been stored since the first look counts as heard, as nearly all of it was. False: there is too much of it.

        Raises Unavailable.
        """
        last = self._stored_before
        for _ in range(MOST_LOOKED_AT):
            found = await next_message(self._connection, self._stream, f"{self._subjects}.{priority}.>", last + 1)
            if found is None:
                return True
            last, subject = found
            self._hear(subject)
        return False

    async def _on_message(self, message: Msg) -> None:
        self._hear(message.subject)

    def _hear(self, subject: str) -> None:
        found = self._read(subject)
        if found is None:
            return
        priority, place = found
        if listeners := self._listeners.get(place):
            for listener in list(listeners):
                listener(priority)
        elif len(self._heard) < MOST_HEARD:
            self._heard.add((priority, place))
        else:
            self._some.add(priority)

    def _read(self, subject: str) -> tuple[Priority, Place] | None:
        """The class and the place of a subject, whose last tokens are the work and its dispatch."""
        name, kind, tenant, *pool = subject.removeprefix(f"{self._subjects}.").split(".")[:-2]
        try:
            return next((priority, Place(kind, UUID(tenant), ".".join(pool))) for priority in PRIORITIES if priority == name)
        except (ValueError, StopIteration):
            return None

    def _on_loss(self) -> None:
        self._lost = True


def subject_of(place: Place) -> str:
    return f"{place.kind}.{place.tenant_id}.{place.pool}"
