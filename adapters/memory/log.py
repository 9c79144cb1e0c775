"""The log in memory: a list of events, and the commands that led to the events."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

from adapters.memory.clock import Clock, SystemClock
from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord, StreamEvent, StreamHead, StreamPlace
from domain.errors import AlreadyExists, InvalidCommand, PayloadTooLarge, Unavailable, VersionConflict
from domain.kernel import MAX_EVENT_BYTES, RecordedEvent

MAX_APPEND_BYTES = 16 * 1024 * 1024
"""Largest sum of states and metadata of one append."""
MAX_APPEND_EVENTS = 10_000
MAX_VERSION = 2**53


class MemoryLog:
    """The log that all ports share. Nothing is lost or refused unless a test says so (`away`, `cut`)."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.events: list[RecordedEvent] = []
        """The event of position n is at index n - 1."""
        self.commands: dict[tuple[UUID, UUID], CommandRecord] = {}
        self.streams: defaultdict[UUID, list[RecordedEvent]] = defaultdict(list)
        self.away = False
        """Whether the database is out of reach. Every call then raises Unavailable."""
        self.followers: list[Callable[[Sequence[RecordedEvent]], None]] = []
        """Read models in memory, called with the events of each append."""
        self._grown = asyncio.Event()
        self._recorded_at = datetime.min.replace(tzinfo=self.clock.now().tzinfo)

    @property
    def head(self) -> int:
        return len(self.events)

    def reach(self) -> None:
        """Raises Unavailable while the database is away."""
        if self.away:
            raise Unavailable("the database is away")

    async def moved(self) -> None:
        """Returns at the next append, cut or `wake`."""
        await self._grown.wait()

    def wake(self) -> None:
        """Lets every waiter look at the log again."""
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def add(self, request: AppendRequest) -> AppendResult:
        """Writes a checked append in one step."""
        tenant_id = request.tenant_id
        ids = [command.command_id for command in request.commands]
        known = {one: self.commands[tenant_id, one] for one in ids if (tenant_id, one) in self.commands}
        if known:
            first = next(iter(known.values()))
            return AppendResult(first.last_position, first.event_count, first.recorded_at, known)
        for stream in request.streams:
            self._check_version(tenant_id, stream)
        self._recorded_at = max(self._recorded_at, self.clock.now())  # the log's time never goes back, whatever the clock does
        versions = [stream.expected_version for stream in request.streams]
        waiting = iter(request.events)
        added: list[RecordedEvent] = []
        for command in request.commands:
            for placed in islice(waiting, command.event_count):
                versions[placed.stream] += 1
                stream, event = request.streams[placed.stream], placed.event
                recorded = RecordedEvent(
                    self.head + len(added) + 1, tenant_id, stream.stream_id, versions[placed.stream], stream.root_id, event.topic,
                    event.schema_version, event.state, command.metadata, self._recorded_at, placed.settled,
                )  # fmt: skip
                added.append(recorded)
                self.streams[stream.stream_id].append(recorded)
            self.commands[tenant_id, command.command_id] = CommandRecord(
                self.head + len(added), command.event_count, self._recorded_at, command.content
            )
        self.events += added
        for follower in self.followers:
            follower(added)
        self.wake()
        return AppendResult(self.head, len(added), self._recorded_at)

    def _check_version(self, tenant_id: UUID, stream: StreamHead) -> None:
        events = self.streams.get(stream.stream_id)
        if not events:
            if stream.expected_version > 0:
                raise VersionConflict(stream.stream_id, stream.expected_version, 0)
        elif events[-1].tenant_id != tenant_id:
            raise AlreadyExists(f"the id {stream.stream_id} is taken by something else")
        elif events[-1].version != stream.expected_version:
            raise VersionConflict(stream.stream_id, stream.expected_version, events[-1].version)

    def cut(self, position: int) -> None:
        """Loses all events after a position, as a restore from a backup does."""
        del self.events[position:]
        self.commands = {  # a command without events at the cut may have been appended with events after the cut
            key: known for key, known in self.commands.items() if known.last_position < position + bool(known.event_count)
        }
        self.streams.clear()
        for event in self.events:
            self.streams[event.stream_id].append(event)
        self.wake()


class MemoryEventStore:
    """Implements `application.engine.ports.log.EventStore`."""

    def __init__(self, log: MemoryLog, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.log = log
        self._max_event_bytes = max_event_bytes

    async def append(self, request: AppendRequest) -> AppendResult:
        _check(request, self._max_event_bytes)
        self.log.reach()
        await asyncio.sleep(0)  # other tasks have their turn before the append is in the log, as with a database
        self.log.reach()
        return self.log.add(request)

    async def read_stream(
        self,
        tenant_id: UUID,
        stream_id: UUID,
        *,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int | None = None,
    ) -> list[RecordedEvent]:
        self.log.reach()
        found = [
            event
            for event in self.log.streams.get(stream_id, ())
            if event.tenant_id == tenant_id
            and event.version > after_version
            and (until_position is None or event.position <= until_position)
        ]
        return found[:limit]

    async def read_streams(self, places: Sequence[StreamPlace]) -> list[list[RecordedEvent]]:
        return [await self.read_stream(tenant_id, stream_id, after_version=after) for tenant_id, stream_id, after in places]

    async def read_page(self, place: StreamPlace, limit: int) -> list[StreamEvent]:
        found = await self.read_stream(place.tenant_id, place.stream_id, after_version=place.after_version, limit=limit)
        return [StreamEvent(one.version, one.position, one.root_id, one.topic, one.schema_version, one.state) for one in found]

    async def find_command(self, tenant_id: UUID, command_id: UUID) -> CommandRecord | None:
        self.log.reach()
        return self.log.commands.get((tenant_id, command_id))

    async def read_append(self, tenant_id: UUID, recorded: CommandRecord | AppendResult) -> list[RecordedEvent]:
        self.log.reach()
        events = self.log.events[recorded.last_position - recorded.event_count : recorded.last_position]
        return [event for event in events if event.tenant_id == tenant_id]


def _check(request: AppendRequest, max_event_bytes: int) -> None:
    """Refuses what no log takes, before anything is written."""
    size = 0
    for command in request.commands:
        _check_text(command.metadata, "metadata")
        size += len(command.metadata.encode()) * command.event_count
    for stream in request.streams:
        if not -1 <= stream.expected_version < MAX_VERSION:
            raise InvalidCommand(f"{stream.expected_version} is no version that a stream can have")
    for _, event, _ in request.events:
        _check_text(event.topic, "topic")
        if len(event.state) > max_event_bytes:
            raise PayloadTooLarge(f"{event.topic}: an event of {len(event.state)} bytes; the limit is {max_event_bytes}")
        if b"\\u0000" in event.state.replace(b"\\\\", b""):  # a doubled backslash stands for one backslash
            raise InvalidCommand(f"{event.topic}: text must not contain a NUL character")
        size += len(event.state)
    count = len(request.events)
    if not count or count != sum(command.event_count for command in request.commands):
        raise ValueError("an append without events, or with events of no command")
    if len({stream.stream_id for stream in request.streams}) < len(request.streams):
        raise ValueError("an append with one stream twice")
    if len({command.command_id for command in request.commands}) < len(request.commands):
        raise ValueError("an append with one command twice")
    if count > MAX_APPEND_EVENTS or size > MAX_APPEND_BYTES:
        raise PayloadTooLarge(f"an append of {count} events and {size} bytes")


def _check_text(value: str, what: str) -> None:
    if "\x00" in value:
        raise InvalidCommand(f"{what} must not contain a NUL character")
    if len(value) > MAX_EVENT_BYTES:
        raise PayloadTooLarge(f"{what} of {len(value)} characters; the limit is {MAX_EVENT_BYTES}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidCommand(f"{what} is not valid Unicode text: {error.reason}") from error
