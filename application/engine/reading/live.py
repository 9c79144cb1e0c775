"""The live feed of one process: one reader of the log, any number of listeners, each with a bounded queue.

The log is read only while somebody listens or watches: else each process that answers requests would decode every event for nobody.
A listener gets everything after its position: first from the database, then from the live log, without a gap or a double.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from uuid import UUID

import structlog

from application.engine.ports.log import EventFeed, Subscription
from application.engine.reading.histories import History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.watches import Watch, Watches
from application.engine.retry import persistently
from domain.kernel import RecordedEvent

QUEUE_EVENTS = 5_000
"""Events that may wait for a slow listener before it is told to come again."""
PAGE = 500
SILENCE_S = 10.0
"""After so long without an event a listener is told that there was none."""
LINGER_S = 60.0
"""How long the log is read on for nobody: clients that come again, and the next to wait, need no new subscription."""
WOKEN_AT_ONCE = 32
"""Listeners and watches in one turn of the event loop. Were a thousand woken in one, each step on the way of the next event, and
every other request, would wait for all of them: a turn would take 20 ms, and an event needs half a dozen."""

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


class Batch(list[RecordedEvent]):
    """Events in order, the same object for all listeners that want the same: what one made of it, the others need not make."""

    __slots__ = ("_made", "_parts")

    def __init__(self, events: Iterable[RecordedEvent] = (), parts: "Sequence[Batch]" = ()) -> None:
        super().__init__(events)
        self._parts = parts
        self._made: bytes | None = None

    @classmethod
    def joined(cls, parts: "Sequence[Batch]") -> "Batch":
        return cls((event for part in parts for event in part), parts)

    def once(self, make: Callable[[Sequence[RecordedEvent]], bytes]) -> bytes:
        """The outward form, made by the first who asks; there is one form only, and that of a whole is those of its parts."""
        if self._made is None:
            self._made = b"".join([part.once(make) for part in self._parts]) if self._parts else make(self)
        return self._made


NOTHING = Batch()


class _Link:
    """One batch in a channel's chain. `total`: events of the channel up to here."""

    __slots__ = ("batch", "next", "total")

    def __init__(self, batch: Batch, total: int) -> None:
        self.batch = batch
        self.total = total
        self.next: _Link | None = None


class _Channel:
    """What all listeners that want the same get, once: a chain in which each has its own place.

    Nobody holds what all of them have passed, so it goes by itself.
    """

    __slots__ = ("_made", "_made_for", "end", "listeners")

    def __init__(self) -> None:
        self.listeners: set[_Listener] = set()
        self.end = _Link(NOTHING, 0)
        self._made, self._made_for = NOTHING, (0, 0)

    def offer(self, batch: Batch) -> None:
        link = _Link(batch, self.end.total + len(batch))
        self.end.next = link
        self.end = link

    def after(self, place: _Link) -> Batch:
        """All that follows a place, as one batch: those who come one after the other mostly ask for the same."""
        if place.next is self.end:
            return self.end.batch
        wanted = (place.total, self.end.total)
        if wanted != self._made_for:
            self._made, self._made_for = Batch.joined(tuple(_batches_after(place))), wanted
        return self._made


def _batches_after(place: _Link) -> Iterator[Batch]:
    while place.next is not None:
        place = place.next
        yield place.batch


class _Listener:
    """One reader's place in a channel. With a thousand of them each step counts: a bare future, and one timer for each silence."""

    __slots__ = ("_bound", "_channel", "_loop", "_place", "_quiet", "_silence_s", "_timer", "_waiter", "due", "ended", "overflowed")

    def __init__(self, channel: _Channel, bound: int, silence_s: float) -> None:
        self._channel = channel
        self._bound = bound
        self._silence_s = silence_s
        self._place = channel.end
        self.due = False
        """Its turn to be woken is coming."""
        self.overflowed = False
        self.ended = False
        """The history that it reads has ended."""
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._quiet = False
        self._timer = self._loop.call_later(silence_s, self._beat)

    @property
    def queued(self) -> int:
        """Events that wait."""
        return self._channel.end.total - self._place.total

    def take(self) -> Batch:
        """All that waits."""
        batch = self._channel.after(self._place) if self.queued else NOTHING
        self._place = self._channel.end
        return batch

    async def wait(self) -> None:
        """Returns when something was offered, or after a silence."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self.queued > self._bound:
            self.overflowed = True
        if self.overflowed:
            self._place = self._channel.end  # it must not hold what it will never read
        self._quiet = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _beat(self) -> None:
        if self._quiet:
            self.wake()
        self._quiet = True
        self._timer = self._loop.call_later(self._silence_s, self._beat)

    def close(self) -> None:
        self._timer.cancel()


class LiveFeed:
    """Owns the process's one reader of the log; `run` must be running for listeners to get live events."""

    def __init__(
        self,
        feed: EventFeed,
        subscription: Subscription,
        histories: HistoryKeeper,
        *,
        queue_events: int = QUEUE_EVENTS,
        silence_s: float = SILENCE_S,
        linger_s: float = LINGER_S,
    ) -> None:
        self.subscription = subscription
        """Where live events come from."""
        self.silence_s = silence_s
        self._feed = feed
        self._histories = histories
        self._queue_events = queue_events
        self._linger_s = linger_s
        self._channels: dict[Filter, _Channel] = {}
        self._due: deque[_Listener | Watch] = deque()
        self._watches = Watches()
        self._wanted = asyncio.Event()
        """Somebody needs the log to be read."""
        self._started = asyncio.Event()
        self._history = ""
        """Id of the history that is being read."""
        self._restarted = asyncio.Event()
        """Set when the next one is about to be read, and replaced."""
        self.position = 0
        self.closed = False
        """Set when the process is about to stop: streams are to end, clients come again elsewhere."""

    @property
    def listeners(self) -> int:
        """How many listen."""
        return sum(len(channel.listeners) for channel in self._channels.values())

    @property
    def watches(self) -> int:
        """How many watches there are, of all streams."""
        return len(self._watches)

    @property
    def most_queued(self) -> int:
        """Events that wait for the slowest listener."""
        return max((listener.queued for channel in self._channels.values() for listener in channel.listeners), default=0)

    @property
    def reading(self) -> bool:
        """Whether the log is being read."""
        return self._started.is_set()

    def close(self) -> None:
        """Ends all streams of events and wakes all watches."""
        self.closed = True
        self._started.set()  # for those who wait for a log that cannot be read
        self._restarted.set()
        for channel in self._channels.values():
            for listener in channel.listeners:
                listener.wake()
        for watch in self._watches.all():
            watch.wake()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                await self._read()
            except HistoryEnded:
                self._restart()

    def _restart(self) -> None:
        """All that listeners have and wait for is of a log that is no more: ends their streams, and wakes all watches."""
        self._started.clear()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            for listener in channel.listeners:
                listener.ended = True
                listener.wake()
        self._wake_in_turn(self._watches.all())
        restarted, self._restarted = self._restarted, asyncio.Event()
        restarted.set()

    async def _read(self) -> None:
        """Reads from the head on until nobody has listened or watched for a while. Raises HistoryEnded."""
        state = await persistently(self._histories.fresh)
        self.position, self._history = state.head, state.histories.current.history_id
        self._started.set()
        self._wake_in_turn(self._watches.all())  # what has happened since they came is before the head
        idle_since: float | None = None
        async with aclosing(self.subscription.batches(after=self.position, name="live")) as batches:
            async for batch in batches:
                self.position = batch[-1].position
                self._offer(batch)
                self._wake_in_turn(self._watches.concerned(batch))
                if self._channels or self._watches:
                    idle_since = None
                elif idle_since is None:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > self._linger_s:
                    self._wanted.clear()
                    self._started.clear()
                    return

    def _offer(self, events: Sequence[RecordedEvent]) -> None:
        """Each event is looked at once for all listeners that want the same."""
        tenants = {event.tenant_id for event in events}
        for wanted, channel in self._channels.items():
            if wanted.tenant_id in tenants:
                batch = Batch(event for event in events if wanted(event))
                if batch:
                    channel.offer(batch)
                    self._wake_in_turn(channel.listeners)

    def _wake_in_turn(self, those: Iterable[_Listener | Watch]) -> None:
        idle = not self._due
        for one in those:
            if not one.due:
                one.due = True
                self._due.append(one)
        if idle and self._due:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def _wake_some(self) -> None:
        try:
            for _ in range(min(WOKEN_AT_ONCE, len(self._due))):
                one = self._due.popleft()
                one.due = False
                one.wake()
        finally:  # whatever became of one of them, the others wait for their turn
            if self._due:
                asyncio.get_running_loop().call_soon(self._wake_some)

    async def events(self, wanted: Filter, *, after: int | None, history: History) -> AsyncGenerator[Batch, None]:
        """Wanted events of a history after a position (None: from now on), in order, in small batches; waits for more.

        An empty batch says: nothing for a while.

        Raises:
            TooSlow: more came than the bound of the queue while the caller was busy.
            HistoryEnded: the log has a later history.
        """
        await self._joined(history)
        if self.closed:
            return
        channel = self._channels.setdefault(wanted, _Channel())
        listener = _Listener(channel, self._queue_events, self.silence_s)
        channel.listeners.add(listener)
        try:
            joined_at = self.position
            reached = joined_at if after is None else after
            while reached < joined_at:
                page = await self._page(wanted, reached, joined_at)
                if page:
                    yield Batch(page)
                reached = page[-1].position if len(page) == PAGE else joined_at
            while not self.closed:
                if not listener.queued and not listener.overflowed and not listener.ended:
                    await listener.wait()
                if listener.ended:
                    raise HistoryEnded("the log has a new history")
                if listener.overflowed:
                    raise TooSlow
                live = listener.take()
                if live and live[0].position <= reached:  # of a position that this process had not read up to when it was asked
                    live = Batch(event for event in live if event.position > reached)
                    if not live:
                        continue
                yield live
        finally:
            listener.close()
            channel.listeners.discard(listener)
            if not channel.listeners and self._channels.get(wanted) is channel:
                del self._channels[wanted]

    async def _joined(self, history: History) -> None:
        """Returns when a history is being read, or the process is about to stop. Raises HistoryEnded."""
        while True:
            restarted = self._restarted
            while not self._started.is_set():
                self._wanted.set()
                await self._started.wait()
            if self.closed or self._history == history.history_id:
                return
            if self._histories.is_current(self._history):
                raise HistoryEnded("the log has a new history")
            await restarted.wait()

    async def _page(self, wanted: Filter, after: int, until: int) -> list[RecordedEvent]:
        topics = sorted(wanted.topics) if wanted.topics is not None else None
        return await self._feed.read_tenant(
            wanted.tenant_id, after=after, until=until, limit=PAGE, root_id=wanted.root_id, topics=topics
        )

    def watch(self, stream_id: UUID, topics: frozenset[str] | None = None) -> AbstractContextManager[Watch]:
        """Watches a stream for events of any topic or of some; what happens in it from here on is not missed.

        A watch that begins before the log is read is woken once without a cause, as soon as it is read.
        """
        self._wanted.set()
        return self._watches.watching(stream_id, topics)

    def watched(self, stream_id: UUID) -> int:
        """How many watch a stream."""
        return self._watches.of(stream_id)
