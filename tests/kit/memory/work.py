"""The workers' queue in memory, with the calls of a worker, and the open work that must be on the queue."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from adapters.memory.clock import Clock, SystemClock
from adapters.memory.log import MemoryLog
from application.engine.ports.precedence import Precedence
from application.engine.ports.queue import Queue, WorkItem
from domain.errors import InvalidCommand, Unavailable
from domain.kernel import PRIORITIES, Name, Priority

ACK_WAIT_S = 10.0
_NAME: TypeAdapter[str] = TypeAdapter(Name)


@dataclass
class Delivery:
    """An item that a worker holds. Another worker gets the item when the holder is silent for too long."""

    item: WorkItem
    delivery: int
    """The number of times that the item was handed out."""
    _queue: "MemoryWorkQueue" = field(repr=False)

    async def in_progress(self) -> None:
        """Says that the worker lives: the worker keeps the item."""
        entry = self._queue.entries.get(_place(self.item))
        if entry is not None and entry.deliveries == self.delivery:
            entry.held_until = self._queue.deadline()

    @property
    def number(self) -> int:
        return self.delivery

    async def ack(self) -> None:
        """Says that the work is done: the item leaves the queue."""
        self._queue.entries.pop(_place(self.item), None)

    async def give_back(self, delay_s: float = 0.0) -> None:
        """Another worker gets the item after the delay."""
        entry = self._queue.entries.get(_place(self.item))
        if entry is not None and entry.deliveries == self.delivery:
            entry.held_until = self._queue.deadline(delay_s) if delay_s else None
            self._queue.wake()


@dataclass
class _Entry:
    item: WorkItem
    deliveries: int = 0
    held_until: datetime | None = None


_Place = tuple[UUID, str, str, UUID, int]


def _place(item: WorkItem) -> _Place:
    return item.tenant_id, item.kind, item.pool, item.work_id, item.dispatch


class MemoryWorkQueue:
    """Implements `application.engine.ports.queue.WorkQueue`."""

    def __init__(self, clock: Clock | None = None, *, log_id: str = "memory", ack_wait_s: float = ACK_WAIT_S) -> None:
        self._clock = clock or SystemClock()
        self._log_id = log_id
        self.ack_wait_s = ack_wait_s
        self.entries: dict[_Place, _Entry] = {}
        """Items in the order of publishing."""
        self.consumers: dict[str, tuple[UUID, str, str, int]] = {}
        """Consumer → tenant, kind, pool and the largest number of items that may be handed out at once."""
        self._precedence: dict[str, Precedence] = {}
        self.away = False
        self.published = 0
        """The number of calls of `publish` that were answered."""
        self._filled = asyncio.Event()
        self.pullers: set[MemoryPuller] = set()

    def deadline(self, seconds: float | None = None) -> datetime:
        return self._clock.now() + timedelta(seconds=self.ack_wait_s if seconds is None else seconds)

    def puller(self, queue: Queue, changed: Callable[[], None]) -> "MemoryPuller":
        return MemoryPuller(self, queue, changed)

    def wake(self) -> None:
        """Gives items that are ready to everybody who waits."""
        filled, self._filled = self._filled, asyncio.Event()
        filled.set()
        for puller in list(self.pullers):
            puller.feed()

    def lose_pulls(self) -> None:
        """All requests of pullers are lost, as if the connection had broken."""
        for puller in list(self.pullers):
            puller.lose()

    async def publish(self, items: Sequence[WorkItem]) -> None:
        for item in items:
            _check(item.kind, item.pool)
        self._reach()
        await asyncio.sleep(0)
        for item in items:
            self.entries.setdefault(_place(item), _Entry(item))
        self.published += 1
        self.wake()

    def address(self, tenant_id: UUID, kind: str, pool: str, *, max_pending: int) -> Queue:
        _check(kind, pool)
        consumer = f"{kind}/{tenant_id}/{pool}"
        self.consumers[consumer] = (tenant_id, kind, pool, max_pending)
        return Queue(kind, pool, "work", consumer, self._log_id, tenant_id, max_pending)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the queue is away")

    async def pull(self, queue: Queue, count: int = 10) -> list[Delivery]:
        """Returns the items that are ready for a worker, oldest first."""
        return self.take(queue, count)

    def take(self, queue: Queue, count: int) -> list[Delivery]:
        free = self._free(queue)
        order = self._precedence.setdefault(queue.consumer, Precedence())
        taken: list[_Entry] = []
        while len(taken) < count and free:
            [priority] = [one for one, share in order.split(1, list(free)).items() if share]
            taken.append(free[priority].pop(0))
            order.took(1)
            free = {one: entries for one, entries in free.items() if entries}
        for entry in taken:
            entry.deliveries += 1
            entry.held_until = self.deadline()
        return [Delivery(entry.item, entry.deliveries, self) for entry in taken]

    def _free(self, queue: Queue) -> dict[Priority, list[_Entry]]:
        """The items that may be handed out, by class, the highest class first. Classes without such items are left out."""
        tenant_id, kind, pool, max_pending = self.consumers[queue.consumer]
        now = self._clock.now()
        ours = [e for e in self.entries.values() if (e.item.tenant_id, e.item.kind, e.item.pool) == (tenant_id, kind, pool)]
        found: dict[Priority, list[_Entry]] = {}
        for priority in PRIORITIES:
            entries = [entry for entry in ours if entry.item.priority == priority]
            out = sum(entry.held_until is not None and entry.held_until > now for entry in entries)
            free = [entry for entry in entries if entry.held_until is None or entry.held_until <= now]
            found[priority] = free[: max(0, max_pending - out)]
        return {priority: entries for priority, entries in found.items() if entries}

    async def next(self, queue: Queue) -> Delivery:
        """Returns the next item for a worker, and waits until there is one."""
        while True:
            filled = self._filled
            if found := await self.pull(queue, 1):
                return found[0]
            await filled.wait()


class MemoryPuller:
    """Implements `application.engine.ports.queue.WorkPuller`."""

    def __init__(self, queue: MemoryWorkQueue, source: Queue, changed: Callable[[], None]) -> None:
        self._queue = queue
        self._source = source
        self._changed = changed
        self.asked = 0
        self._items: list[Delivery] = []
        self._failure: Unavailable | None = None

    async def ask(self, count: int) -> None:
        if self._queue.away:
            self.lose()
            raise Unavailable("the queue is away")
        if not self.asked and self._failure is None:
            self.asked = count
            self._queue.pullers.add(self)
            self.feed()

    def feed(self) -> None:
        if self.asked and not self._queue.away and (found := self._queue.take(self._source, self.asked)):
            self.asked -= len(found)
            self._items += found
            self._changed()

    def lose(self) -> None:
        self.asked, self._failure = 0, Unavailable("the connection to the queue was lost")
        self._changed()

    def arrived(self) -> list[Delivery]:
        found, self._items = self._items, []
        if not found and self._failure is not None:
            raise self._failure
        return found

    async def stop(self) -> None:
        self.asked = 0
        self._queue.pullers.discard(self)

    async def close(self) -> None:
        await self.stop()
        for delivery in self._items:
            await delivery.give_back()
        self._items = []


def _check(kind: str, pool: str) -> None:
    try:
        _NAME.validate_python(pool)
    except ValidationError as error:
        raise InvalidCommand(f"not a name of an agent or tool: {pool!r}") from error
    if not re.fullmatch(r"[a-z]+", kind):
        raise InvalidCommand(f"not a kind of work: {kind!r}")


class MemoryOpenWork:
    """Implements `application.engine.ports.queue.OpenWork`."""

    def __init__(self, log: MemoryLog, clock: Clock | None = None) -> None:
        self.log = log
        self.clock = clock or log.clock
        self.rows: dict[UUID, tuple[datetime, WorkItem]] = {}
        """Work → the time of its last dispatch, and the dispatched item."""
        self.claims: dict[UUID, tuple[UUID, int]] = {}
        """Work → the session that claimed it, and the attempt."""
        self.permit_holders: dict[UUID, UUID] = {}
        """Claimed work → the holder whose permit its attempt has."""
        self.stands_at: int | None = None
        """The position where the table stands still. None: it follows the log."""

    def open(self, item: WorkItem, dispatched_at: datetime) -> None:
        self.rows[item.work_id] = (dispatched_at, item)
        self.claims.pop(item.work_id, None)
        self.permit_holders.pop(item.work_id, None)

    def claim(self, work_id: UUID, session_id: UUID, attempt: int, permit_holder: UUID | None = None) -> None:
        self.claims[work_id] = (session_id, attempt)
        self.permit_holders.pop(work_id, None)
        if permit_holder is not None:
            self.permit_holders[work_id] = permit_holder

    def close(self, work_id: UUID) -> None:
        self.rows.pop(work_id, None)
        self.claims.pop(work_id, None)
        self.permit_holders.pop(work_id, None)

    async def older_than(self, seconds: float, *, after: UUID | None, limit: int) -> list[WorkItem]:
        self.log.reach()
        now, age = self.clock.now(), timedelta(seconds=seconds)
        free = {work_id: row for work_id, row in self.rows.items() if work_id not in self.claims}
        rows = sorted((work_id, row) for work_id, row in free.items() if after is None or work_id > after)
        return [item for _, (at, item) in rows if at < now - age or at > now + age][:limit]
