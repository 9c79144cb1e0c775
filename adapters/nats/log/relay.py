"""The relay: copies the log from the database to JetStream, in order, each event once, whatever goes away in between.

The stream's last message is the checkpoint: its headers say up to which position the stream has everything, and each publish names
the sequence that it must follow. So there is no second write that could disagree, and two relays at once cannot both succeed: the
slower one is refused, reads the tail again and goes on. A stream that lost its tail is filled up from its present end.

A relay in the process that appends is handed what was just committed, and need not read it, as long as the positions follow. It
reads the log for everything else, and from time to time to prove that both see the same log.

A new stream begins at most `StreamSettings.tail` events before the head of the log. Readers that are further behind read the
database; copying years of history would serve nobody.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

import structlog

from adapters.nats.connection import NatsConnection
from adapters.nats.log.pages import PageSize
from adapters.nats.log.publisher import OrderedPublisher, OutOfStep
from adapters.nats.log.stream import LogStream, StreamSettings, StreamState, is_in_log
from adapters.nats.log.wire import FORMATS, MalformedBatch, split
from application.engine.background import end
from application.engine.ports.log import EventFeed
from application.engine.reading.history_keeper import HistoryKeeper
from domain.errors import NotFound, Unavailable
from domain.kernel import RecordedEvent

log = structlog.get_logger(__name__)

PACE_S = 0.005
"""Seconds between two reads under load. What was appended meanwhile goes as one message. Each message costs every reader a
transaction, so larger messages save half of their work."""
PACED_EVENTS = 4
"""Load: the last message had so many events. One caller who waits for each answer does not bring them, and is not delayed."""
PROOF_S = 5.0
"""Seconds after which a relay that is handed all events looks into the log all the same."""
FORMAT_KNOWN_S = 2.0
"""Seconds for which the relay relies on what it learnt of the formats that all processes read."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_PAYLOAD_RESERVE = 4 * 1024
"""Bytes of the server's max_payload that are reserved for headers."""


class Signal(Protocol):
    """A hint that something was appended."""

    async def wait(self, after: int, timeout: float) -> None:
        """Returns when there may be events after a position, or after `timeout` seconds."""
        ...

    async def pause(self, seconds: float) -> None:
        """Returns after some seconds, or as soon as somebody waits for what was appended."""
        ...


class HandedEvents(Protocol):
    """What this process has committed."""

    def take(self, last: RecordedEvent | None) -> Sequence[RecordedEvent]:
        """The events of this process that follow an event, and follow one another, in order. Empty: the log must be read."""
        ...


class LogExchanged(OutOfStep):
    """The log has other events than those that were copied, under the same head."""


Formats = Callable[[], Awaitable[frozenset[int]]]
"""Asks for the formats that every live process of the installation reads. Raises Unavailable."""


class Relay:
    def __init__(
        self,
        connection: NatsConnection,
        feed: EventFeed,
        signal: Signal,
        *,
        histories: HistoryKeeper,
        log_id: str,
        settings: StreamSettings | None = None,
        readable: Formats | None = None,
        own: HandedEvents | None = None,
    ) -> None:
        """`readable`: see `Formats`. None: all processes are of this release. `own`: None in a process that does not append."""
        self._readable = readable
        self._own = own
        self._form, self._form_since = FORMATS[-1], -math.inf
        self._exchanged = ""
        """Why the stream is not of the log any more, though it may end with the same event. Empty: no reason is known."""
        self._histories = histories
        self._connection = connection
        self._feed = feed
        self._signal = signal
        self._stream = LogStream(connection, log_id, settings)
        self.position = 0
        """The position up to which the stream has all events, as far as this process knows."""

    async def run(self) -> None:
        """Copies for ever; outages of NATS and of the database are waited out. Ends only by being cancelled."""
        pause, told = _FIRST_PAUSE, ""
        while True:
            before = self.position
            try:
                await self._session()
            except OutOfStep as error:
                log.info("relay_resync", reason=error.message)
                if isinstance(error, LogExchanged):
                    self._exchanged = error.message
            except Unavailable as error:
                repeated, told = error.message == told, error.message
                (log.debug if repeated else log.warning)("relay_interrupted", reason=error.message, position=self.position)
            pause = _FIRST_PAUSE if self.position != before else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _session(self) -> None:
        """Publishes until the first doubt about the stream. Raises Unavailable then."""
        history = (await self._histories.fresh()).histories.current.history_id
        changes = self._histories.changes
        state, position = await self._recover()
        if self._histories.changes != changes:
            raise OutOfStep("the log has a new history")
        self.position = position
        log.info("relay_active", stream=state.name, sequence=state.last_sequence, position=position)
        async with OrderedPublisher.open(
            self._connection,
            log_id=self._stream.log_id,
            history=history,
            stream=state.name,
            subject=self._stream.subject(state.name),
            sequence=state.last_sequence,
            on_stored=partial(self._stored, changes),
        ) as publisher:
            copying = asyncio.create_task(self._copy(publisher, state.name, position), name="relay-copy")
            failing = asyncio.create_task(publisher.failed(), name="relay-acks")
            ending = asyncio.create_task(self._histories.until_changed(changes), name="relay-history")
            try:
                done, _ = await asyncio.wait({copying, failing, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end(copying, failing, ending)
            for task in done:
                task.result()
            raise OutOfStep("the log has a new history")

    async def _copy(self, publisher: OrderedPublisher, stream: str, position: int) -> None:
        """With nothing to publish the relay checks from time to time that the stream exists: readers without a stream would poll
        the database.
        """
        loop = asyncio.get_running_loop()
        source = _Source(self._feed, self._own, position)
        patience, next_read = _FIRST_WAIT, -math.inf
        max_payload = self._connection.client.max_payload - _PAYLOAD_RESERVE
        while True:
            events, more = await source.next()
            form = await self._format() if events else FORMATS[-1]
            for batch in split(events, after=position, max_payload=max_payload, form=form):
                await publisher.send(batch)
            if events:
                position, patience = events[-1].position, _FIRST_WAIT
                next_read = loop.time() + PACE_S * (len(events) >= PACED_EVENTS)
            if not more:
                await self._signal.wait(position, patience)
                if (pause := next_read - loop.time()) > 0:
                    await self._signal.pause(pause)
                if patience == _LONGEST_WAIT and not await self._stream.is_current(stream):
                    raise OutOfStep(f"{stream} is gone")
                patience = min(patience * 2, _LONGEST_WAIT)

    async def _format(self) -> int:
        """The newest format that every live process reads."""
        now = asyncio.get_running_loop().time()
        if self._readable is not None and now - self._form_since > FORMAT_KNOWN_S:
            self._form = max(await self._readable() & set(FORMATS), default=FORMATS[0])
            self._form_since = now
        return self._form

    def _stored(self, changes: int, position: int) -> None:
        self._histories.saw(position, changes)
        self.position = position

    async def _recover(self) -> tuple[StreamState, int]:
        """The stream to append to, and the position up to which it has all events."""
        state = await self._stream.current()
        if state is None:
            return await self._begin("there is none")
        if state.last_sequence == 0:
            await self._stream.tidy(state)
            return state, await self._base()
        try:
            tail = await self._stream.message(state.name, state.last_sequence)
            ours = tail is not None and await is_in_log(self._feed, tail)
        except MalformedBatch as error:
            return await self._begin(error.message)
        if tail is None:
            return await self._begin("its newest message is gone")
        reason = self._exchanged if ours else f"the stream has {tail.span.tail} at {tail.span.last}, the log does not"
        if reason:
            await self._histories.lost(
                tail.span.last, tail.history, "relay", reason
            )  # before the stream is deleted: it is the witness
            return await self._begin(reason)
        await self._stream.tidy(state)
        return state, tail.span.last

    async def _begin(self, reason: str) -> tuple[StreamState, int]:
        log.info("log_stream_renewed", reason=reason)
        state = await self._stream.create()
        await self._stream.tidy(state)
        if not await self._stream.is_current(state.name):  # readers would not see the published events
            raise OutOfStep("another relay made a newer stream at the same time")
        self._exchanged = ""
        return state, await self._base()

    async def _base(self) -> int:
        return max(0, await self._feed.head() - self._stream.settings.tail)


class _Source:
    """The events after a position, from this process where they follow, else from the log.

    Each read begins with the last event, as a proof that the log still is the one that was copied. Events of this process follow it
    without a read, so what they stand on is proved later: the log must hold both the event of the last proof and the newest one.
    """

    def __init__(self, feed: EventFeed, own: HandedEvents | None, position: int) -> None:
        self._feed = feed
        self._own = own
        self._position = position
        self._last: RecordedEvent | None = None
        """The event at the position. None: not known yet, or there is none."""
        self._proved: RecordedEvent | None = None
        """The last event that was read."""
        self._prove_at = math.inf
        self._page = PageSize()

    async def next(self) -> tuple[Sequence[RecordedEvent], bool]:
        """The next events, perhaps none, and whether more are there for sure. Raises OutOfStep for another log, Unavailable."""
        if self._own is not None and (events := self._own.take(self._last)):
            if asyncio.get_running_loop().time() >= self._prove_at:
                await self._prove()
            self._last, self._position = events[-1], events[-1].position
            return events, False
        return await self._read()

    async def _read(self) -> tuple[Sequence[RecordedEvent], bool]:
        limit, last = self._page.limit, self._last
        events = await self._feed.read(after=max(0, self._position - 1), limit=limit)
        self._page.adapt(events)
        if last is not None and events[:1] != [last]:
            raise OutOfStep(f"the log no longer holds {last.name} at {self._position}")
        full = len(events) == limit
        if events:
            self._note_proof(events[-1])
        if events and events[0].position == self._position:
            events.pop(0)
        self._position = events[-1].position if events else self._position
        return events, full

    async def _prove(self) -> None:
        """Looks for the event of the last proof and for the last event in the log."""
        wanted = [event for event in dict.fromkeys((self._proved, self._last)) if event is not None]
        try:
            found = await self._feed.at([event.position for event in wanted])
        except NotFound as error:
            raise LogExchanged(f"the log has lost events: {error.message}") from error
        if found != wanted:
            raise LogExchanged(f"the log no longer holds {' and '.join(event.name for event in wanted)}")
        self._note_proof(wanted[-1])

    def _note_proof(self, event: RecordedEvent) -> None:
        self._last = self._proved = event
        self._prove_at = asyncio.get_running_loop().time() + PROOF_S
