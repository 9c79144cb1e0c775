"""The log's stream in JetStream: its name, its configuration, which incarnation is the current one, and what it holds.

A stream is named `TIDELOG_<log id>_<incarnation>`; the incarnation is a number that only grows (milliseconds when it was made). The
current stream is the one with the highest number. Everybody finds it by listing streams, so nothing must be stored or agreed on.
The relay makes a new stream if there is none, if the newest message has aged out, or if the stream differs from the log (a database
that was restored). Then it deletes the older streams, which makes their readers look again.

Correctness does not depend on this module; it comes from the positions on each message.
"""

import time
from dataclasses import dataclass
from typing import Any

import structlog

from adapters.nats import names
from adapters.nats.connection import NatsConnection
from adapters.nats.jetstream import (
    STREAM_NAME_IN_USE,
    JetStreamError,
    call,
    delete_stream,
    reconfigure,
    stored_message,
    stream_info,
    stream_names,
)
from adapters.nats.log.wire import HISTORY, MalformedBatch, Span, decode
from application.engine.ports.log import EventFeed
from application.engine.reading.histories import Parting
from domain.kernel import RecordedEvent

log = structlog.get_logger(__name__)

_SECOND = 1_000_000_000

MIN_BYTES = 4 * 1024 * 1024
"""Lower bound for the size of a bounded stream: several of the largest messages. The newest message must stay, because it says how
far the stream has come."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """`replicas`: how many servers of a cluster keep the stream. `max_bytes` -1: bounded by age alone; else at least `MIN_BYTES`.
    `tail`: how many of the newest events a new stream begins with; readers that are further behind are served by the database."""

    replicas: int = 1
    max_age_s: float = 7 * 24 * 3600
    max_bytes: int = -1
    tail: int = 10_000


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream's edges. `last_sequence` 0: it never held a message."""

    name: str
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A stored message. `history`: id of the history in which it was published. None: before histories had ids."""

    span: Span
    history: str | None
    body: bytes

    def events(self) -> list[RecordedEvent]:
        """The events of the message. None for a message that only names them. Raises MalformedBatch."""
        return decode(self.body) if self.body else []


class LogStream:
    """The stream of one log. `log_id`: short id of the log, so that several logs can share one NATS."""

    def __init__(self, connection: NatsConnection, log_id: str, settings: StreamSettings | None = None) -> None:
        self._connection = connection
        self.log_id = names.checked(log_id)
        self.settings = settings or StreamSettings()
        if 0 <= self.settings.max_bytes < MIN_BYTES:
            raise ValueError(f"a stream of {self.settings.max_bytes} bytes is too small; at least {MIN_BYTES}")

    async def current(self) -> StreamState | None:
        """The newest incarnation; None if there is none. Raises Unavailable."""
        for name in await self._names():
            if (info := await stream_info(self._connection, name)) is not None:
                return StreamState(name, info["state"]["first_seq"], info["state"]["last_seq"])
        return None

    async def is_current(self, name: str) -> bool:
        """Whether a stream exists and still is the newest incarnation. Raises Unavailable."""
        return (await self._names())[:1] == [name]

    async def copied(self) -> int | None:
        """The position up to which the stream has the log. 0 without a stream; None if its last message has aged out.

        Raises Unavailable.
        """
        state = await self.current()
        if state is None or state.last_sequence == 0:
            return 0
        try:
            span = await self.span(state.name, state.last_sequence)
        except MalformedBatch:
            return 0  # a foreign stream with that name; the relay replaces it
        return None if span is None else span.last

    async def create(self) -> StreamState:
        """A new, empty incarnation, which is the current one from now on. Raises Unavailable."""
        newest = max((self._incarnation(name) for name in await self._names()), default=0)
        incarnation = max(time.time_ns() // 1_000_000, newest + 1)
        configuration = self._configuration(incarnation)
        try:
            await call(self._connection, f"STREAM.CREATE.{configuration['name']}", configuration)
        except JetStreamError as error:
            if error.err_code != STREAM_NAME_IN_USE:  # another relay in the same millisecond
                raise
        log.info("log_stream_created", stream=configuration["name"])
        return StreamState(configuration["name"], 0, 0)

    async def tidy(self, current: StreamState) -> None:
        """Deletes older incarnations, and brings the current one's configuration in line with the settings."""
        for name in await self._names():
            if self._incarnation(name) < self._incarnation(current.name):
                await delete_stream(self._connection, name)
                log.info("log_stream_deleted", stream=name)
        info = await stream_info(self._connection, current.name)
        wanted = self._configuration(self._incarnation(current.name))
        if info is not None and (changed := await reconfigure(self._connection, info["config"], wanted)):
            log.info("log_stream_reconfigured", stream=current.name, changed=changed)

    async def message(self, stream: str, sequence: int) -> LogMessage | None:
        """A stored message; None if it does not exist. Raises MalformedBatch, Unavailable."""
        message = await stored_message(self._connection, stream, sequence)
        if message is None:
            return None
        return LogMessage(Span.of(message.headers), message.headers.get(HISTORY), message.data)

    async def span(self, stream: str, sequence: int) -> Span | None:
        """The span of a message; None if it does not exist. Raises MalformedBatch, Unavailable."""
        message = await self.message(stream, sequence)
        return None if message is None else message.span

    async def find(self, state: StreamState, position: int) -> int:
        """The sequence of the first message that reaches beyond a position; one after the last sequence if none does.

        Missing messages count as older: only the oldest messages are removed.
        """
        low, high = state.first_sequence, state.last_sequence + 1
        while low < high:
            middle = (low + high) // 2
            span = await self.span(state.name, middle)
            if span is None or span.last <= position:
                low = middle + 1
            else:
                high = middle
        return low

    def subject(self, stream: str) -> str:
        return f"{self._prefix}.{self._incarnation(stream)}"

    @property
    def _prefix(self) -> str:
        return names.log_subjects(self.log_id)

    async def _names(self) -> list[str]:
        """Newest first."""
        found = await stream_names(self._connection, f"{self._prefix}.*")
        return sorted((name for name in found if self._is_ours(name)), key=self._incarnation, reverse=True)

    def _is_ours(self, name: str) -> bool:
        return names.owner_of(name) == names.StreamOwner("log", self.log_id)

    def _incarnation(self, name: str) -> int:
        return int(name.rpartition("_")[2])

    def _configuration(self, incarnation: int) -> dict[str, Any]:
        return {
            "name": names.log_stream(self.log_id, incarnation),
            "description": f"Tidelog's log {self.log_id}: a copy that the relay fills from the database",
            "subjects": [f"{self._prefix}.{incarnation}"],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self.settings.replicas,
            "max_age": int(self.settings.max_age_s * _SECOND),
            "max_bytes": self.settings.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
            "duplicate_window": int(min(30.0, self.settings.max_age_s) * _SECOND),  # the sequence check is what counts
            "deny_delete": True,
            "deny_purge": True,
        }


async def is_in_log(feed: EventFeed, message: LogMessage) -> bool:
    """Whether the log holds the last event of a message. Raises MalformedBatch, Unavailable.

    A stream may hold a history that the log lost: a database restored from a backup, a failover that cut the end off. The name of
    an event is not enough: an event that follows from the same events, such as a saga's command, has the same name in both
    histories.
    """
    span, events = message.span, message.events()
    found = await feed.read(after=span.last - 1, limit=1)
    if not found or found[0].position != span.last:
        return False
    return _is_same(found[0], events[-1]) if events else found[0].name == span.tail


def _is_same(event: RecordedEvent, theirs: RecordedEvent) -> bool:
    """Whether an event of the log is that of a message. Messages of format 1 do not say what is settled."""
    return event._replace(settled=theirs.settled) == theirs


async def parting(stream: LogStream, feed: EventFeed) -> Parting | None:
    """The place from which a stream differs from the log.

    None: the stream ends with an event of the log, or does not exist, or holds no event from before they differ. Raises
    Unavailable.
    """
    state = await stream.current()
    tail = await stream.message(state.name, state.last_sequence) if state is not None and state.last_sequence else None
    if state is None or tail is None or await is_in_log(feed, tail):
        return None
    first = low = max(1, state.first_sequence)
    high, other = state.last_sequence, tail  # the first message that ends with a foreign event is at most this one
    while low < high:
        middle = (low + high) // 2
        message = await stream.message(state.name, middle)
        if message is None or await is_in_log(feed, message):
            low = middle + 1
        else:
            high, other = middle, message
    ours = await feed.read(after=other.span.first - 1, limit=other.span.last - other.span.first + 1)
    same = [event.position for event, theirs in zip(ours, other.events(), strict=False) if _is_same(event, theirs)]
    if not same and low == first:
        return None
    return Parting(same[-1] if same else other.span.previous, tail.history)
