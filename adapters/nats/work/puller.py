"""Takes the items of one agent or tool (`WorkPuller`): a consumer for each class of work, the higher classes first.

Nearly all work is of the class `normal`: while nothing else waits, one request at its consumer waits for the next item, and costs
what it would cost without classes. The request sleeps while the agent or tool has no work (`SleepingPull`). The consumers of the
other classes are pulled only while they have work, by requests that the server answers at once. `ClassWatch` tells when such work
comes; then the request that waits is taken back, and the next one begins with a look at all classes that have work. The server may
tell of a message before its consumer has it: a class that was heard of just before a look in vain is looked at again soon.
"""

import asyncio
from collections.abc import Callable

import structlog

from adapters.nats.connection import NatsConnection
from adapters.nats.jetstream import JetStreamError, call
from adapters.nats.work.pull import ConsumerPull, JetStreamDelivery
from adapters.nats.work.second_look import SECOND_LOOK_S
from adapters.nats.work.sleeping import SleepingPull, Source
from application.engine.background import OnDemand
from application.engine.ports.precedence import Precedence
from domain.errors import Unavailable
from domain.kernel import PRIORITIES, Priority

log = structlog.get_logger(__name__)

CROWDED_S = 0.02
"""Seconds after which a class is looked at again whose items another process took at the same moment."""
LOOK_S, LONGEST_LOOK_S = 5.0, 60.0
"""Seconds after which a class without work is looked at once more: an item that somebody held may be free again. The pause doubles
as long as items are held. Once nothing is held, nobody looks any more."""
CONSUMER_NOT_FOUND = 10014


class JetStreamPuller:
    """Implements the port `WorkPuller`."""

    def __init__(self, connection: NatsConnection, source: Source, changed: Callable[[], None]) -> None:
        self._connection = connection
        self._source = source
        self._changed = changed
        self._normal = SleepingPull(connection, source, changed)
        self._pulls: dict[Priority, ConsumerPull] = {"normal": self._normal}
        self._awake: set[Priority] = set()
        """Classes other than `normal` that may have work."""
        self._precedence = Precedence()
        self._watching = self._closed = False
        self._lock = asyncio.Lock()
        self._looks: dict[Priority, asyncio.TimerHandle] = {}
        self._pauses: dict[Priority, float] = {}
        self._news: set[Priority] = set()
        """Classes of which new work was heard since the last look in vain."""
        self._looked_early: set[Priority] = set()
        """Classes whose next look is the second one after such news."""
        self._due: set[Priority] = set()
        """Classes that are to be looked at."""
        self._attention = OnDemand(self._attend, f"classes-of-{source.place.kind}-{source.place.pool}")

    @property
    def asked(self) -> int:
        return self._normal.asked

    async def ask(self, count: int) -> None:
        async with self._lock:
            if self.asked or self._closed or self._failure() is not None:
                return
            if not self._watching:
                await self._watch()
            rest = count - (await self._take(count) if self._awake else 0)
            if rest > 0:
                await self._normal.ask(rest)
                if self._awake:  # something was heard of meanwhile
                    self._attention.start()

    def arrived(self) -> list[JetStreamDelivery]:
        found = [delivery for priority in PRIORITIES if priority in self._pulls for delivery in self._pulls[priority].arrived()]
        if not found and (failure := self._failure()) is not None:
            raise failure
        return found

    async def stop(self) -> None:
        async with self._lock:
            for pull in list(self._pulls.values()):
                await pull.stop()

    async def close(self) -> None:
        self._closed = True
        for timer in self._looks.values():
            timer.cancel()
        await self._attention.close()
        async with self._lock:
            if self._watching:
                self._watching = False
                await self._unwatch()
            for pull in self._pulls.values():
                await pull.close()

    def _failure(self) -> Unavailable | None:
        return next((pull.failure for pull in self._pulls.values() if pull.failure is not None), None)

    # --- the classes other than `normal` ----------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        self._awake.update(await self._source.watch.watch(self._source.place, self._wake))
        self._watching = True

    async def _unwatch(self) -> None:
        try:
            await self._source.watch.unwatch(self._source.place, self._wake)
        except Unavailable as error:
            log.debug("classes_not_unwatched", pool=self._source.place.pool, reason=error.message)

    def _wake(self, priority: Priority) -> None:
        """New work of a class was heard of."""
        if self._closed:
            return
        self._pauses.pop(priority, None)
        self._news.add(priority)
        self._awake.add(priority)
        if self.asked:
            self._attention.start()

    async def _take(self, count: int) -> int:
        """Takes what waits at this moment, at most `count` items, in the order of the classes. Returns the number of items.

        A class that has less than its share sleeps afterwards, unless new work of it was heard of meanwhile. Raises Unavailable.
        """
        classes = [priority for priority in PRIORITIES if priority == "normal" or priority in self._awake]
        taken = 0
        while taken < count and classes and classes != ["normal"]:
            shares = self._precedence.split(count - taken, classes)
            for priority, share in shares.items():
                if not share:
                    continue
                self._awake.discard(priority)
                came = await self._take_of(priority, share)
                taken += came
                self._precedence.took(came)
                if came < share:
                    classes.remove(priority)
                    self._sleep(priority, came)
                elif priority != "normal":
                    self._awake.add(priority)
        return taken

    async def _take_of(self, priority: Priority, count: int) -> int:
        pull = self._pulls.get(priority)
        if pull is None:
            pull = ConsumerPull(self._connection, await self._source.make(priority), self._changed)
            self._pulls[priority] = pull
        await pull.ask_at_once(count)
        await pull.at_rest()
        if pull.failure is not None:
            raise pull.failure
        return pull.came

    def _sleep(self, priority: Priority, came: int) -> None:
        """Nothing of a class waits. Once more it is looked at later, because somebody may hold an item and give it back.

        It is looked at soon if this was the first look in vain after news: the consumer may not have had the work yet.
        """
        if priority == "normal":
            return
        if (timer := self._looks.pop(priority, None)) is not None:
            timer.cancel()
        if self._pulls[priority].crowded:
            pause = CROWDED_S
        elif priority in self._news:
            self._news.discard(priority)
            self._looked_early.add(priority)
            pause = min(SECOND_LOOK_S, LOOK_S)
        else:
            pause = LOOK_S if came else self._pauses.get(priority, LOOK_S)
            self._pauses[priority] = min(2 * pause, LONGEST_LOOK_S)
        self._looks[priority] = asyncio.get_running_loop().call_later(pause, self._look_later, priority)

    def _look_later(self, priority: Priority) -> None:
        del self._looks[priority]
        if not self._closed:
            self._due.add(priority)
            self._attention.start()

    async def _attend(self) -> None:
        """Looks at the classes that are due, and takes the request that waits back if a class has work. The owner asks anew."""
        async with self._lock:
            while self._due:
                await self._look(self._due.pop())
            if self._awake and self.asked:
                try:
                    await self._normal.stop()
                except Unavailable:  # `arrived` says so
                    return
                self._changed()

    async def _look(self, priority: Priority) -> None:
        """A class whose consumer holds nothing more is forgotten until new work of it is heard of."""
        pull, early = self._pulls.get(priority), priority in self._looked_early
        self._looked_early.discard(priority)
        if pull is None:
            return
        try:
            info = await call(self._connection, f"CONSUMER.INFO.{pull.queue.stream}.{pull.queue.consumer}")
        except JetStreamError as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                self._sleep(priority, 0)
                return
            info = {}
        except Unavailable:
            self._sleep(priority, 0)
            return
        if info.get("num_pending") or info.get("num_ack_pending"):
            self._awake.add(priority)
        elif early:
            self._sleep(priority, 0)
        elif priority not in self._awake and not pull.has_items:
            del self._pulls[priority]
            self._pauses.pop(priority, None)
            await pull.close()
