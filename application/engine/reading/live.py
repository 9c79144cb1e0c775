"""The live feed of one process: one reader of the log, any number of listeners, each with a bounded queue.

The log is read only while somebody listens or watches. Otherwise each process that answers requests would decode every event for
nobody. A listener gets all events after its position: first from the database, then from the live log, without a gap or a double.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from uuid import UUID

import structlog

from application.engine.ports.log import AppendRequest, AppendResult, EventFeed, Subscription
from application.engine.reading.channels import Batch, Channel, FeedListener, Filter, LiveListener, TooSlow
from application.engine.reading.event_pages import read_wanted
from application.engine.reading.histories import History, HistoryEnded
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.own_events import OwnEvents
from application.engine.reading.watches import CallingWatch, HeardEvent, Watch, Watches, Watching
from application.engine.retry import persistently
from domain.kernel import RecordedEvent

QUEUE_EVENTS = 5_000
"""Number of events that may wait for a slow listener. With more, the listener must come again."""
PAGE = 500
SILENCE_S = 10.0
"""After so many seconds without an event a listener gets an empty batch."""
LINGER_S = 60.0
"""Seconds for which the log is still read for nobody, so that clients that come again need no new subscription."""
WOKEN_AT_ONCE = 32
"""Listeners and watches that are woken in one turn of the event loop. Waking a thousand in one turn would take 20 ms, and all other
requests, and each step on the way of the next event, would wait for that. An event needs half a dozen turns."""

log = structlog.get_logger(__name__)


class LiveFeed:
    """Owns the process's one reader of the log. Listeners get live events only while `run` runs."""

    def __init__(
        self,
        feed: EventFeed,
        subscription: Subscription,
        histories: HistoryKeeper,
        *,
        queue_events: int = QUEUE_EVENTS,
        silence_s: float = SILENCE_S,
        linger_s: float = LINGER_S,
        degraded: Callable[[], bool] = lambda: False,
    ) -> None:
        """`degraded`: whether what the subscription brings may come late."""
        self.subscription = subscription
        """Where live events come from."""
        self.silence_s = silence_s
        self._feed = feed
        self._histories = histories
        self._queue_events = queue_events
        self._linger_s = linger_s
        self._degraded = degraded
        self._channels: dict[Filter, Channel] = {}
        self._due: deque[FeedListener | Watch] = deque()
        self._watches = Watches()
        self._overhearing: set[Callable[[Sequence[RecordedEvent]], None]] = set()
        self.own = OwnEvents()
        """What this process has appended for roots that somebody follows."""
        self._wanted = asyncio.Event()
        """Set when a listener or a watch needs the log to be read."""
        self._started = asyncio.Event()
        self._history = ""
        """Id of the history that is being read."""
        self._restarted = asyncio.Event()
        """Set, and replaced, when the next history is about to be read."""
        self.position = 0
        self.closed = False
        """The process is about to stop: streams end, and clients come again elsewhere."""

    @property
    def listeners(self) -> int:
        """How many listen."""
        return sum(len(channel.listeners) for channel in self._channels.values())

    @property
    def watches(self) -> int:
        """How many watches there are, of all streams."""
        return len(self._watches)

    @property
    def overhearing(self) -> int:
        """How many are called with all events."""
        return len(self._overhearing)

    @property
    def most_queued(self) -> int:
        """Events that wait for the slowest listener."""
        return max((listener.queued for channel in self._channels.values() for listener in channel.listeners), default=0)

    @property
    def reading(self) -> bool:
        """Whether the log is being read."""
        return self._started.is_set()

    @property
    def is_current(self) -> bool:
        """Whether the log is being read, and events come within moments."""
        return self._started.is_set() and not self.closed and not self._degraded()

    def close(self) -> None:
        """Ends all streams of events and wakes all watches."""
        self.closed = True
        self._started.set()  # for callers that wait for a log which cannot be read
        self._restarted.set()
        for channel in tuple(self._channels.values()):
            for listener in tuple(channel.listeners):  # one that is woken may leave
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
        """The log that listeners follow is gone: ends their streams, and wakes all watches."""
        self._started.clear()
        self.own.forget()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            for listener in tuple(channel.listeners):  # one that is woken may leave
                listener.ended = True
                listener.wake()
        self._wake_in_turn(self._watches.all())
        restarted, self._restarted = self._restarted, asyncio.Event()
        restarted.set()

    async def _read(self) -> None:
        """Reads from the head on, until nobody has listened or watched for a while. Raises HistoryEnded."""
        state = await persistently(self._histories.fresh)
        self.position, self._history = state.head, state.histories.current.history_id
        self._started.set()
        self._wake_in_turn(self._watches.all())  # events since they came are before the head
        idle_since: float | None = None
        async with aclosing(self.subscription.batches(after=self.position, name="live")) as batches:
            async for batch in batches:
                self.position = batch[-1].position
                self._offer(batch)
                for heard in tuple(self._overhearing):
                    heard(batch)
                self.heard(HeardEvent(event.stream_id, event.topic, event.version) for event in batch)
                if self._channels or self._watches or self._overhearing:
                    idle_since = None
                elif idle_since is None:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > self._linger_s:
                    self._wanted.clear()
                    self._started.clear()
                    return

    def _offer(self, events: Sequence[RecordedEvent]) -> None:
        """Offers events to channels. Each event is tested once for each filter."""
        tenants = {event.tenant_id for event in events}
        for wanted, channel in self._channels.items():
            if wanted.tenant_id in tenants:
                batch = Batch(event for event in events if wanted(event))
                if batch:
                    channel.offer(batch)
                    self._wake_in_turn(channel.listeners)

    def _wake_in_turn(self, those: Iterable[FeedListener | Watch]) -> None:
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
        finally:  # an error of one must not cost the others their turn
            if self._due:
                asyncio.get_running_loop().call_soon(self._wake_some)

    async def events(self, wanted: Filter, *, after: int | None, history: History) -> AsyncGenerator[Batch, None]:
        """Events of a history after a position (None: from now on) that pass the filter, in order, in batches; waits for more.

        An empty batch means that nothing came for a while.

        Raises:
            TooSlow: more came than the bound of the queue while the caller was busy.
            HistoryEnded: the log has a later history.
        """
        await self.joined(history)
        if self.closed:
            return
        channel = self._channels.setdefault(wanted, Channel())
        listener = LiveListener(channel, self._queue_events, self.silence_s)
        channel.listeners.add(listener)
        try:
            joined_at = self.position
            reached = joined_at if after is None else max(after, joined_at)
            if after is not None:
                async with aclosing(self.replay(wanted, after, joined_at)) as pages:
                    async for page in pages:
                        yield page
            while not self.closed:
                if not (listener.queued or listener.overflowed or listener.ended or listener.silent):
                    await listener.wait()
                    continue  # look again: the wake may have been for events that were taken while it was due
                if listener.ended:
                    raise HistoryEnded("the log has a new history")
                if listener.overflowed:
                    raise TooSlow
                live = listener.take()
                if live and live[0].position <= reached:  # this process had not read up to the caller's position then
                    live = Batch(event for event in live if event.position > reached)
                    if not live:
                        continue
                yield live
        finally:
            self.leave(wanted, listener)

    async def replay(self, wanted: Filter, after: int, until: int) -> AsyncGenerator[Batch, None]:
        """The stored events of a filter after a position and up to another one, in pages. Raises Unavailable."""
        while after < until:
            page, looked_to = await read_wanted(self._feed, wanted, after=after, until=until, limit=PAGE)
            if page:
                yield Batch(page)
            after = page[-1].position if len(page) == PAGE else until if looked_to is None else looked_to

    def listen(self, wanted: Filter, woken: Callable[[], None]) -> FeedListener:
        """Listens from `position` on, without a task: `woken` is called when there is something to take, and must not wait. The
        caller has awaited `joined`, nothing else since then, and calls `leave`.
        """
        channel = self._channels.setdefault(wanted, Channel())
        listener = FeedListener(channel, self._queue_events, woken)
        channel.listeners.add(listener)
        return listener

    def leave(self, wanted: Filter, listener: FeedListener) -> None:
        """Ends a listener."""
        channel = listener.channel
        listener.close()
        channel.listeners.discard(listener)
        if not channel.listeners and self._channels.get(wanted) is channel:
            del self._channels[wanted]

    async def joined(self, history: History) -> None:
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

    def appended(self, request: AppendRequest, result: AppendResult) -> None:
        """This process has appended something. Its event store says so (`TellingStore`) before the log brings the events."""
        self.own.appended(request, result)
        if self._watches:
            self._wake_in_turn(self._watches.concerned(_watched(self._watches, request)))

    def heard(self, events: Iterable[HeardEvent]) -> None:
        """Wakes the watches that one of the events is for."""
        if self._watches:
            self._wake_in_turn(self._watches.concerned(events))

    async def begun(self, seconds: float) -> bool:
        """Returns True as soon as the log is read, False after the time-out (seconds).

        A watch that begins while the log is read is woken by events alone.
        """
        if self._started.is_set():
            return True
        self._wanted.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._started.wait()
        return self._started.is_set()

    def watch(self, stream_id: UUID, topics: frozenset[str] | None = None) -> Watching:
        """Watches a stream for events of any topic or of some topics. No event after this call is missed.

        A watch that begins before the log is read is woken once without an event, as soon as the log is read.
        """
        self._wanted.set()
        return self._watches.watching(stream_id, topics)

    def call(self, stream_id: UUID, topics: frozenset[str], woken: Callable[[int], None]) -> Callable[[], None]:
        """As `watch`, but a function is called for each event, or once for several. Returns the function that ends the watch.

        `woken` gets the highest version of these events; ANY_VERSION: an event of any version may have come.
        """
        self._wanted.set()
        watch = CallingWatch(topics, woken)
        self._watches.add(stream_id, watch)
        return partial(self._watches.remove, stream_id, watch)

    def overhear(self, heard: Callable[[Sequence[RecordedEvent]], None]) -> Callable[[], None]:
        """Calls a function with all events of the log from now on. It must not wait, and must not raise. Returns the function that
        ends this. While the log is not read yet, `begun` tells when it is: events after that are heard.
        """
        self._wanted.set()
        self._overhearing.add(heard)
        return partial(self._overhearing.discard, heard)

    def watched(self, stream_id: UUID) -> int:
        """Number of watches of a stream."""
        return self._watches.of(stream_id)


def _watched(watches: Watches, request: AppendRequest) -> Iterator[HeardEvent]:
    """The events of an append, of watched streams only."""
    streams = [stream.stream_id if watches.of(stream.stream_id) else None for stream in request.streams]
    if not any(streams):
        return
    versions = [stream.expected_version for stream in request.streams]
    for place, event, _ in request.events:
        versions[place] += 1
        stream_id = streams[place]
        if stream_id is not None:
            yield HeardEvent(stream_id, event.topic, versions[place])
