"""The live log for readers (`Subscription`): every event after a position, once, in order, whatever happens to NATS.

JetStream gives speed, the database gives truth. A reader follows the stream as long as the stream holds its position. Otherwise it
reads the database: too far behind, a gap, an oversized event, NATS away, a relay that stands still. Each batch names the position
that it follows. The reader hands out only events that follow the last one, and drops repetitions.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import structlog
from nats.aio.msg import Msg

from adapters.nats.connection import NatsConnection
from adapters.nats.log.pages import PageSize
from adapters.nats.log.pull import Puller
from adapters.nats.log.stream import LogStream, is_in_log
from adapters.nats.log.wire import Span, decode
from application.engine.ports.log import EventFeed
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import Unavailable
from domain.kernel import RecordedEvent

log = structlog.get_logger(__name__)

BATCH_BYTES = 1024 * 1024
"""About the size of the messages that are handed out as one batch."""

_STALL_CHECK = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_FIRST_RETRY, _LONGEST_RETRY = 0.1, 1.0
"""Seconds between two tries of a reader without a stream."""
_START = 10.0
"""Seconds after its begin in which a reader does not warn that it is without a stream. NATS and the relay may start beside it."""


class _ReadDatabase(Exception):
    """The stream cannot serve the reader's position. The database can, and perhaps the stream from `until` on."""

    def __init__(self, reason: str, until: int) -> None:
        super().__init__(reason)
        self.reason, self.until = reason, until


class _Behind(Unavailable):
    """The stream lacks events of the log: nobody fills it."""


class JetStreamSubscription:
    """Implements the port `Subscription`. One object serves any number of readers."""

    def __init__(
        self,
        connection: NatsConnection,
        feed: EventFeed,
        *,
        histories: HistoryKeeper,
        log_id: str,
        stall_check_s: float = _STALL_CHECK,
    ) -> None:
        """`stall_check_s`: after so many seconds of silence a reader asks the database whether the stream lacks events."""
        self._histories = histories
        self._connection = connection
        self._feed = feed
        self._stream = LogStream(connection, log_id)
        self._stall_check = stall_check_s
        self._apart: set[_Reader] = set()
        """Readers that do not follow the stream at the moment."""

    @property
    def degraded(self) -> bool:
        """Whether a reader reads the database, or nothing at all: its events may come late."""
        return bool(self._apart)

    async def batches(self, *, after: int, name: str) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """See the port. A batch has at most about 1 MiB of events; from the database at most about 4 MiB or 1,000 events."""
        reader = _Reader(name, after, self._histories.changes)
        self._apart.add(reader)
        try:
            async with aclosing(self._batches(reader)) as batches:
                async for events in batches:
                    yield events
        finally:
            self._apart.discard(reader)

    async def _batches(self, reader: "_Reader") -> AsyncGenerator[Sequence[RecordedEvent], None]:
        while True:
            until: int | None = None
            try:
                async with aclosing(self._from_stream(reader)) as live:
                    async for events in live:
                        yield events
            except _ReadDatabase as request:
                log.info("subscription_reads_database", reader=reader.name, position=reader.position, reason=request.reason)
                until = request.until
            except Unavailable as error:
                await self._check_ahead(reader.position)
                self._histories.check_unchanged(reader.changes)
                if not reader.told:
                    reader.told = reader.joined or asyncio.get_running_loop().time() > reader.began + _START
                    tell = log.warning if reader.told else log.debug
                    tell("subscription_degraded", reader=reader.name, position=reader.position, reason=error.message)
                reader.degraded = True
                reader.retry = min(reader.retry * 2, _LONGEST_RETRY)
            self._apart.add(reader)
            async with aclosing(self._from_database(reader, until)) as pages:
                async for events in pages:
                    yield events

    async def _from_stream(self, reader: "_Reader") -> AsyncGenerator[list[RecordedEvent], None]:
        """Ends only by an exception: _ReadDatabase, Unavailable."""
        stream, sequence = await self._seat(reader)
        async with AsyncExitStack() as stack:
            puller = await stack.enter_async_context(
                Puller.open(self._connection, stream=stream, sequence=sequence, name=reader.name)
            )
            stack.enter_context(self._histories.on_change(lambda: puller.interrupt("the log has a new history")))
            self._histories.check_unchanged(reader.changes)
            log.info("subscription_joined", reader=reader.name, stream=stream, sequence=sequence, position=reader.position)
            reader.degraded, reader.told, reader.joined, reader.retry = False, False, True, _FIRST_RETRY
            self._apart.discard(reader)
            while True:
                messages = await puller.take(max_bytes=BATCH_BYTES, timeout=self._stall_check)
                if not messages:
                    await self._check_stall(reader.position)
                    continue
                await puller.pull_ahead()
                events, doubt = _follow(messages, reader.position)
                if events:
                    reader.position = events[-1].position
                    self._histories.saw(reader.position, reader.changes)
                    yield events
                if doubt is not None:
                    raise doubt

    async def _seat(self, reader: "_Reader") -> tuple[str, int]:
        """The stream and the sequence from which it continues a position.

        A degraded reader joins only when the stream has caught up: until then the database serves it better.
        """
        state = await self._stream.current()
        if state is None:
            raise Unavailable("the log has no stream yet")
        last = await self._stream.message(state.name, state.last_sequence) if state.last_sequence else None
        reached = last.span.last if last else 0
        if last is not None and not await is_in_log(self._feed, last):
            raise Unavailable(f"the stream ends with another history than the log, at {reached}: the relay will make a new one")
        if reached <= reader.position:
            if reader.degraded and reached < reader.position:
                raise _Behind(f"the stream ends at {reached}")
            return state.name, state.last_sequence + 1
        sequence = await self._stream.find(state, reader.position)
        span = await self._stream.span(state.name, sequence)
        if span is None or span.previous > reader.position:
            raise _ReadDatabase("the stream does not hold the position", span.previous if span else reached)
        return state.name, sequence

    async def _check_stall(self, position: int) -> None:
        """Raises if the stream lacks events of the log: silence may also mean that nobody fills the stream."""
        head = await self._check_ahead(position)
        if head > position:
            raise _Behind(f"the stream brings nothing after {position}, the log is at {head}")

    async def _check_ahead(self, position: int) -> int:
        """The head of the log; 0 without a database. A reader that is ahead of the head has had events that the log lost."""
        try:
            head = await self._feed.head()
            if head < position:
                await self._histories.check()
        except Unavailable as error:
            log.warning("subscription_without_database", position=position, reason=error.message)
            return 0
        return head

    async def _from_database(self, reader: "_Reader", until: int | None) -> AsyncGenerator[list[RecordedEvent], None]:
        """Pages of the log, until the stream is worth a try: `until` is reached, or there is none and some time has passed."""
        loop = asyncio.get_running_loop()
        page, pause = PageSize(), _FIRST_PAUSE
        retry_at = loop.time() + reader.retry * random.uniform(0.5, 1.0)
        while until is None or reader.position < until:
            self._histories.check_unchanged(reader.changes)
            try:
                events = await self._feed.read(after=reader.position, limit=page.limit)
            except Unavailable as error:
                log.warning("subscription_without_database", reader=reader.name, position=reader.position, reason=error.message)
                events = []
            if events:
                pause, reader.position = _FIRST_PAUSE, events[-1].position
                self._histories.saw(reader.position, reader.changes)
                yield events
            if loop.time() >= retry_at and (until is None or not events):
                return
            full = len(events) == page.limit
            page.adapt(events)
            if not full:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)


@dataclass(slots=True, eq=False)
class _Reader:
    name: str
    position: int
    """Position of the last event that was handed out."""
    changes: int
    """Value of `HistoryKeeper.changes` at the beginning."""
    retry: float = _FIRST_RETRY
    degraded: bool = False
    """The reader reads the database, because the stream was missing or not up to date."""
    told: bool = False
    """Whether the present degradation stands in the log."""
    joined: bool = False
    """Whether the reader ever followed the stream."""
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())


def _follow(messages: Sequence[Msg], position: int) -> tuple[list[RecordedEvent], _ReadDatabase | None]:
    """The events of messages that follow a position, and the reason if not all messages do."""
    events: list[RecordedEvent] = []
    for message in messages:
        span = Span.of(message.headers)
        if span.last <= position:
            continue
        if span.previous > position:
            return events, _ReadDatabase(f"a gap in the stream after {position}", span.previous)
        if not message.data:
            return events, _ReadDatabase("an event too large for the stream", span.last)
        fresh = decode(message.data)
        if span.previous < position:
            fresh = [event for event in fresh if event.position > position]
        events.extend(fresh)
        position = span.last
    return events, None
