"""The relay: copies the log from the database to JetStream, in order, each event once, whatever goes away in between.

The stream's last message is the checkpoint: its headers say up to which position the stream has everything, and each publish names
the sequence that it must follow. So there is no second write that could disagree, and two relays at once cannot both succeed: the
slower one is refused, reads the tail again and goes on. A stream that lost its tail is filled up from its present end.

A new stream begins at most `StreamSettings.tail` events before the head of the log. Readers that are further behind read the
database; copying years of history would serve nobody.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
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
from domain.errors import Unavailable
from domain.kernel import RecordedEvent

log = structlog.get_logger(__name__)

PACE_S = 0.005
"""Seconds between two reads under load. What was appended meanwhile goes as one message. Each message costs every reader a
transaction, so larger messages save half of their work."""
PACED_EVENTS = 4
"""Load: the last message had so many events. One caller who waits for each answer does not bring them, and is not delayed."""
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
    ) -> None:
        """`readable`: see `Formats`. None: all processes are of this release."""
        self._readable = readable
        self._form, self._form_since = FORMATS[-1], -math.inf
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
        """Reads the last event again, as a proof that the log still is the one that was copied.

        With nothing to publish the relay checks from time to time that the stream exists: readers without a stream would poll the
        database.
        """
        last: RecordedEvent | None = None
        page, patience, next_read = PageSize(), _FIRST_WAIT, -math.inf
        max_payload = self._connection.client.max_payload - _PAYLOAD_RESERVE
        while True:
            events = await self._feed.read(after=max(0, position - 1), limit=page.limit)
            full = len(events) == page.limit
            page.adapt(events)
            if last is not None and events[:1] != [last]:
                raise OutOfStep(f"the log no longer holds {last.name} at {position}")
            if events and events[0].position == position:
                last = events.pop(0)
            form = await self._format() if events else FORMATS[-1]
            for batch in split(events, after=position, max_payload=max_payload, form=form):
                await publisher.send(batch)
            if events:
                position, last, patience = events[-1].position, events[-1], _FIRST_WAIT
                next_read = asyncio.get_running_loop().time() + PACE_S * (len(events) >= PACED_EVENTS)
            if not full:
                await self._signal.wait(position, patience)
                if (pause := next_read - asyncio.get_running_loop().time()) > 0:
                    await asyncio.sleep(pause)
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
        if not ours:
            reason = f"the stream has {tail.span.tail} at {tail.span.last}, the log does not"
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
        return state, await self._base()

    async def _base(self) -> int:
        return max(0, await self._feed.head() - self._stream.settings.tail)
