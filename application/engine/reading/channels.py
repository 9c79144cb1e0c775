"""How one process hands each event to any number of listeners: a channel for each filter, and in it a place for each listener."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import ANYBODY, AskedBy
from domain.kernel import RecordedEvent

MOST_BYTES = 16 * 1024 * 1024
"""Bytes of events that may wait for a listener. With more, it must come again."""


class TooSlow(Exception):
    """The listener did not keep up. It must come again with its last position."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events of a tenant a listener wants."""

    tenant_id: UUID
    root_id: UUID | None = None
    topics: frozenset[str] | None = None
    asked: AskedBy = ANYBODY

    def __call__(self, event: RecordedEvent) -> bool:
        return (
            event.tenant_id == self.tenant_id
            and (self.root_id is None or event.root_id == self.root_id)
            and (self.topics is None or event.topic in self.topics)
            and self.asked(event)
        )


class Batch(list[RecordedEvent]):
    """Events in order. All listeners with the same filter get the same object, so each of its outward forms is made once."""

    __slots__ = ("_made", "_parts", "size")

    def __init__(self, events: Iterable[RecordedEvent] = (), parts: "Sequence[Batch]" = ()) -> None:
        super().__init__(events)
        self._parts = parts
        self._made: dict[str, bytes] = {}
        self.size = sum([len(event.state) for event in self])
        """Bytes of the events' data."""

    @classmethod
    def joined(cls, parts: "Sequence[Batch]") -> "Batch":
        return cls((event for part in parts for event in part), parts)

    def once(self, make: Callable[[Sequence[RecordedEvent]], bytes], form: str = "", *, whole: bool = False) -> bytes:
        """The outward form of a name, made by the first caller. The form of a joined batch is that of its parts, one after the
        other; `whole`: it is made of all its events.
        """
        made = self._made.get(form)
        if made is None:
            of_parts = self._parts and not whole
            made = b"".join([part.once(make, form) for part in self._parts]) if of_parts else make(self)
            self._made[form] = made
        return made

    def split(self, most: int, size: int) -> "Sequence[Batch]":
        """The events as batches of at most so many events, and so many bytes where one event is not larger."""
        if len(self) <= most and self.size <= size:
            return (self,)
        parts: list[Batch] = []
        begin = held = 0
        for at, event in enumerate(self):
            if at > begin and (at - begin >= most or held + len(event.state) > size):
                parts.append(Batch(self[begin:at]))
                begin, held = at, 0
            held += len(event.state)
        return (*parts, Batch(self[begin:]))


NOTHING = Batch()


class _Link:
    """One batch in a channel's chain. `total` and `size`: number and bytes of the channel's events up to here."""

    __slots__ = ("batch", "next", "size", "total")

    def __init__(self, batch: Batch, total: int, size: int) -> None:
        self.batch = batch
        self.total = total
        self.size = size
        self.next: _Link | None = None


class Channel:
    """The events of all listeners with the same filter, as a chain of batches in which each listener has its own place.

    Nothing refers to batches that all listeners have passed, so they are freed.
    """

    __slots__ = ("_made", "_made_for", "end", "listeners")

    def __init__(self) -> None:
        self.listeners: set[FeedListener] = set()
        self.end = _Link(NOTHING, 0, 0)
        self._made, self._made_for = NOTHING, (0, 0)

    def offer(self, batch: Batch) -> None:
        link = _Link(batch, self.end.total + len(batch), self.end.size + batch.size)
        self.end.next = link
        self.end = link

    def after(self, place: _Link) -> Batch:
        """All events after a place, as one batch. The batch is kept, because listeners mostly ask from the same place."""
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


class FeedListener:
    """One listener's place in a channel. `woken` is called after events were offered, and at the end of the listener's history."""

    __slots__ = ("_bound", "_place", "_woken", "channel", "due", "ended", "overflowed")

    def __init__(self, channel: Channel, bound: int, woken: Callable[[], None]) -> None:
        self.channel = channel
        self._bound = bound
        self._woken = woken
        self._place = channel.end
        self.due = False
        """The listener is queued to be woken."""
        self.overflowed = False
        self.ended = False
        """The history that the listener follows has ended."""

    @property
    def queued(self) -> int:
        """Number of events that wait."""
        return self.channel.end.total - self._place.total

    def take(self) -> Batch:
        """Takes all waiting events."""
        batch = self.channel.after(self._place) if self.queued else NOTHING
        self._place = self.channel.end
        return batch

    def take_some(self, most: int, size: int) -> Batch:
        """Takes whole batches that wait: one at least, and more up to so many events and bytes."""
        first, end = self._place, self.channel.end
        if end.total - first.total <= most and end.size - first.size <= size:
            return self.take()
        parts: list[Batch] = []
        place = first
        while (following := place.next) is not None:
            if parts and (following.total - first.total > most or following.size - first.size > size):
                break
            place = following
            parts.append(place.batch)
        self._place = place
        return parts[0] if len(parts) == 1 else Batch.joined(parts)

    def wake(self) -> None:
        if self.queued > self._bound or self.channel.end.size - self._place.size > MOST_BYTES:
            self.overflowed = True
        if self.overflowed:
            self._place = self.channel.end  # the listener must not hold events that it will never read
        self._woken()

    def close(self) -> None:
        """Nothing is called any more."""
        self._woken = _nothing


def _nothing() -> None:
    pass


class LiveListener(FeedListener):
    """A listener that a task waits for. With a thousand of them each step counts: a bare future, one timer for each silence."""

    __slots__ = ("_loop", "_quiet", "_silence_s", "_timer", "_waiter", "silent")

    def __init__(self, channel: Channel, bound: int, silence_s: float) -> None:
        super().__init__(channel, bound, _nothing)
        self._silence_s = silence_s
        self.silent = False
        """Nothing came for a whole beat, and the reader has not been told yet."""
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._quiet = False
        self._timer = self._loop.call_later(silence_s, self._beat)

    def take(self) -> Batch:
        """Takes all waiting events."""
        self.silent = False
        return super().take()

    async def wait(self) -> None:
        """Returns when events were offered, after a silence, and for events that were taken before their wake was in turn."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        super().wake()
        self._quiet = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _beat(self) -> None:
        if self._quiet:
            self.silent = True
            self.wake()
        self._quiet = True
        self._timer = self._loop.call_later(self._silence_s, self._beat)

    def close(self) -> None:
        super().close()
        self._timer.cancel()
