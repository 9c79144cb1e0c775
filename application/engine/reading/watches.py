"""Watches: callers that wait for an event of one stream.

The appends of this process wake them first; the live feed wakes them for events that other processes wrote. A watch costs no query.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from uuid import UUID

ANY_VERSION = 2**62
"""Stands for the version of an event that may have come unnoticed: higher than every version."""


class HeardEvent(NamedTuple):
    """What a watch needs of an event."""

    stream_id: UUID
    topic: str
    version: int


class Watch:
    """A caller that waits for an event of a stream, of any topic or of some topics. Thousands may wait, so a watch is small."""

    __slots__ = ("_changed", "_waiting", "due", "topics", "version")

    def __init__(self, topics: frozenset[str] | None) -> None:
        self.topics = topics
        self.due = False
        """The watch is queued to be woken."""
        self.version = 0
        """The highest version of an event that the watch is to be woken for."""
        self._changed = False
        self._waiting: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._changed = True
        if self._waiting is not None:
            _settle(self._waiting)

    async def next(self, seconds: float) -> bool:
        """Returns True when an event has come, or may have come, since the last call. False after the time-out (seconds)."""
        if not self._changed and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            timer = loop.call_later(seconds, _settle, self._waiting)
            try:
                await self._waiting
            finally:
                timer.cancel()
                self._waiting = None
        changed, self._changed = self._changed, False
        return changed


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class CallingWatch(Watch):
    """A watch of a caller that has no task which waits: a function is called instead. It must not wait, and must not raise."""

    __slots__ = ("_call",)

    def __init__(self, topics: frozenset[str] | None, call: Callable[[int], None]) -> None:
        super().__init__(topics)
        self._call = call

    def wake(self) -> None:
        version, self.version = self.version, 0
        self._call(version)


class Watches:
    """All watches of a process, by stream. An event costs nothing for watches of other streams."""

    def __init__(self) -> None:
        self._by_stream: defaultdict[int, set[Watch]] = defaultdict(set)
        """By the number of the id: hashing an int costs a tenth of hashing a UUID."""

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._by_stream.values())

    def __bool__(self) -> bool:
        return bool(self._by_stream)

    def of(self, stream_id: UUID) -> int:
        """Number of watches of a stream."""
        return len(self._by_stream.get(stream_id.int, ()))

    def watching(self, stream_id: UUID, topics: frozenset[str] | None) -> "Watching":
        """A watch for the time of a block."""
        return Watching(self, stream_id, Watch(topics))

    def add(self, stream_id: UUID, watch: Watch) -> None:
        self._by_stream[stream_id.int].add(watch)

    def remove(self, stream_id: UUID, watch: Watch) -> None:
        watches = self._by_stream.get(stream_id.int)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._by_stream[stream_id.int]

    def concerned(self, events: Iterable[HeardEvent]) -> Iterator[Watch]:
        """Watches that one of the events is for."""
        for stream_id, topic, version in events:
            for watch in self._by_stream.get(stream_id.int, ()):
                if watch.topics is None or topic in watch.topics:
                    watch.version = max(watch.version, version)
                    yield watch

    def all(self) -> Iterator[Watch]:
        """All watches: any event may have come."""
        for watches in self._by_stream.values():
            for watch in watches:
                watch.version = ANY_VERSION
                yield watch


class Watching:
    """A watch for the time of a block. Smaller than a generator, because thousands may wait."""

    __slots__ = ("_stream_id", "_watch", "_watches")

    def __init__(self, watches: Watches, stream_id: UUID, watch: Watch) -> None:
        self._watches = watches
        self._stream_id = stream_id
        self._watch = watch

    def __enter__(self) -> Watch:
        self._watches.add(self._stream_id, self._watch)
        return self._watch

    def __exit__(self, *_: object) -> None:
        self._watches.remove(self._stream_id, self._watch)
