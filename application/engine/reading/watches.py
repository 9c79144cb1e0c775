"""Watches: callers that wait for an event of one stream. The live feed wakes them."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

from domain.kernel import RecordedEvent


class Watch:
    """A caller that waits for an event of a stream, of any topic or of some topics."""

    __slots__ = ("_changed", "due", "topics")

    def __init__(self, topics: frozenset[str] | None) -> None:
        self.topics = topics
        self.due = False
        """The watch is queued to be woken."""
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def next(self, seconds: float) -> bool:
        """Returns True when an event has come, or may have come, since the last call. False after the time-out (seconds)."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True


class CallingWatch(Watch):
    """A watch of a caller that has no task which waits: a function is called instead. It must not wait, and must not raise."""

    __slots__ = ("_call",)

    def __init__(self, topics: frozenset[str] | None, call: Callable[[], None]) -> None:
        super().__init__(topics)
        self._call = call

    def wake(self) -> None:
        self._call()


class Watches:
    """All watches of a process, by stream. An event costs nothing for watches of other streams."""

    def __init__(self) -> None:
        self._by_stream: defaultdict[UUID, set[Watch]] = defaultdict(set)

    def __len__(self) -> int:
        return sum(len(watches) for watches in self._by_stream.values())

    def __bool__(self) -> bool:
        return bool(self._by_stream)

    def of(self, stream_id: UUID) -> int:
        """Number of watches of a stream."""
        return len(self._by_stream.get(stream_id, ()))

    @contextmanager
    def watching(self, stream_id: UUID, topics: frozenset[str] | None) -> Iterator[Watch]:
        watch = Watch(topics)
        self.add(stream_id, watch)
        try:
            yield watch
        finally:
            self.remove(stream_id, watch)

    def add(self, stream_id: UUID, watch: Watch) -> None:
        self._by_stream[stream_id].add(watch)

    def remove(self, stream_id: UUID, watch: Watch) -> None:
        watches = self._by_stream.get(stream_id)
        if watches is not None:
            watches.discard(watch)
            if not watches:
                del self._by_stream[stream_id]

    def concerned(self, events: Sequence[RecordedEvent]) -> Iterator[Watch]:
        """Watches that one of the events is for."""
        for event in events:
            for watch in self._by_stream.get(event.stream_id, ()):
                if watch.topics is None or event.topic in watch.topics:
                    yield watch

    def all(self) -> Iterator[Watch]:
        for watches in self._by_stream.values():
            yield from watches
