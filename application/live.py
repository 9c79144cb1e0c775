"""The live feed of one process: one reader of the log, any number of listeners, each with a bounded queue.

A listener gets everything after its position: first from the database, then from the live log, without a gap or a double.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from application.patience import persistently
from application.ports import EventFeed, Subscription
from domain.kernel import RecordedEvent

QUEUE_EVENTS = 5_000
"""Events that may wait for a slow listener before it is told to come again."""
PAGE = 500
SILENCE_S = 10.0

log = structlog.get_logger(__name__)


class TooSlow(Exception):
    """The listener did not keep up: it must come again with its last position."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events of a tenant a listener wants."""

    tenant_id: UUID
    root_id: UUID | None = None
    topics: frozenset[str] | None = None

    def __call__(self, event: RecordedEvent) -> bool:
        return (
            event.tenant_id == self.tenant_id
            and (self.root_id is None or event.root_id == self.root_id)
            and (self.topics is None or event.topic in self.topics)
        )


@dataclass(eq=False, slots=True)
class _Listener:
    wanted: Filter
    queue: deque[RecordedEvent] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    overflowed: bool = False

    def offer(self, events: Sequence[RecordedEvent]) -> None:
        kept = [event for event in events if self.wanted(event)]
        if not kept:
            return
        if len(self.queue) + len(kept) > QUEUE_EVENTS:
            self.overflowed = True
            self.queue.clear()
        else:
            self.queue.extend(kept)
        self.ready.set()


class LiveFeed:
    """Owns the process's one reader of the log; `run` must be running for listeners to get live events."""

    def __init__(self, feed: EventFeed, subscription: Subscription) -> None:
        self._feed = feed
        self._subscription = subscription
        self._listeners: set[_Listener] = set()
        self._watchers: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._started = asyncio.Event()
        self.position = 0
        self.closed = False
        """Set when the process is about to stop: streams are to end, clients come again elsewhere."""

    def close(self) -> None:
        """Ends all streams of events and wakes all watchers."""
        self.closed = True
        for listener in self._listeners:
            listener.ready.set()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()

    async def run(self) -> None:
        self.position = await persistently(self._feed.head)
        self._started.set()
        async for batch in self._subscription.batches(after=self.position, name="live"):
            self.position = batch[-1].position
            for listener in self._listeners:
                listener.offer(batch)
            for root_id in {event.root_id for event in batch}:
                for watcher in self._watchers.get(root_id, ()):
                    watcher.set()

    async def events(self, wanted: Filter, *, after: int | None) -> AsyncIterator[list[RecordedEvent]]:
        """Wanted events after a position (None: from now on), in order, in small lists; waits for more.

        An empty list says: nothing for a while.

        Raises:
            TooSlow: more came than the bound of the queue while the caller was busy.
        """
        await self._started.wait()
        listener = _Listener(wanted)
        self._listeners.add(listener)
        try:
            joined_at = self.position
            reached = joined_at if after is None else after
            while reached < joined_at:
                page = await self._page(wanted, reached, joined_at)
                if page:
                    yield page
                reached = page[-1].position if len(page) == PAGE else joined_at
            while not self.closed:
                if listener.overflowed:
                    raise TooSlow
                if not listener.queue:
                    listener.ready.clear()
                    await wait_for(listener.ready, SILENCE_S)
                live = [event for event in listener.queue if event.position > reached]
                listener.queue.clear()
                reached = live[-1].position if live else reached
                yield live
        finally:
            self._listeners.discard(listener)

    async def _page(self, wanted: Filter, after: int, until: int) -> list[RecordedEvent]:
        topics = sorted(wanted.topics) if wanted.topics is not None else None
        return await self._feed.read_tenant(
            wanted.tenant_id, after=after, until=until, limit=PAGE, root_id=wanted.root_id, topics=topics
        )

    @contextmanager
    def watch(self, root_id: UUID) -> Iterator["Watch"]:
        """Watches a root; what happens under it from here on is not missed."""
        watch = Watch()
        self._watchers[root_id].add(watch.changed)
        try:
            yield watch
        finally:
            watchers = self._watchers[root_id]
            watchers.discard(watch.changed)
            if not watchers:
                del self._watchers[root_id]


class Watch:
    """Somebody waiting for anything to happen under a root."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def next(self, seconds: float) -> bool:
        """Returns True when something has happened since the last call, False after the time-out."""
        await wait_for(self.changed, seconds)
        happened = self.changed.is_set()
        self.changed.clear()
        return happened


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or after the time-out."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
