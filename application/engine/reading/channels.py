"""How one process hands each event to any number of listeners: a channel for each filter, and in it a place for each listener."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from application.engine.ports.log import ANYBODY, AskedBy
from domain.kernel import RecordedEvent


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
    """Events in order. All listeners with the same filter get the same object, so its outward form is made once."""

    __slots__ = ("_made", "_parts")

    def __init__(self, events: Iterable[RecordedEvent] = (), parts: "Sequence[Batch]" = ()) -> None:
        super().__init__(events)
        self._parts = parts
        self._made: bytes | None = None

    @classmethod
    def joined(cls, parts: "Sequence[Batch]") -> "Batch":
        return cls((event for part in parts for event in part), parts)

    def once(self, make: Callable[[Sequence[RecordedEvent]], bytes]) -> bytes:
        """The outward form, made by the first caller. There is one form only; the form of a joined batch is that of its parts."""
        if self._made is None:
            self._made = b"".join([part.once(make) for part in self._parts]) if self._parts else make(self)
        return self._made


NOTHING = Batch()


class _Link:
    """One batch in a channel's chain. `total`: number of the channel's events up to here."""

    __slots__ = ("batch", "next", "total")

    def __init__(self, batch: Batch, total: int) -> None:
        self.batch = batch
        self.total = total
        self.next: _Link | None = None


class Channel:
    """The events of all listeners with the same filter, as a chain of batches in which each listener has its own place.

    Nothing refers to batches that all listeners have passed, so they are freed.
    """

    __slots__ = ("_made", "_made_for", "end", "listeners")

    def __init__(self) -> None:
        self.listeners: set[LiveListener] = set()
        self.end = _Link(NOTHING, 0)
        self._made, self._made_for = NOTHING, (0, 0)

    def offer(self, batch: Batch) -> None:
        link = _Link(batch, self.end.total + len(batch))
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


class LiveListener:
    """One listener's place in a channel. With a thousand listeners each step counts: a bare future, one timer for each silence."""

    __slots__ = (
        *("_bound", "_channel", "_loop", "_place", "_quiet", "_silence_s", "_timer", "_waiter"),
        *("due", "ended", "overflowed", "silent"),
    )

    def __init__(self, channel: Channel, bound: int, silence_s: float) -> None:
        self._channel = channel
        self._bound = bound
        self._silence_s = silence_s
        self._place = channel.end
        self.due = False
        """The listener is queued to be woken."""
        self.overflowed = False
        self.ended = False
        """The history that the listener follows has ended."""
        self.silent = False
        """Nothing came for a whole beat, and the reader has not been told yet."""
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._quiet = False
        self._timer = self._loop.call_later(silence_s, self._beat)

    @property
    def queued(self) -> int:
        """Number of events that wait."""
        return self._channel.end.total - self._place.total

    def take(self) -> Batch:
        """Takes all waiting events."""
        self.silent = False
        batch = self._channel.after(self._place) if self.queued else NOTHING
        self._place = self._channel.end
        return batch

    async def wait(self) -> None:
        """Returns when events were offered, after a silence, and for events that were taken before their wake was in turn."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        if self.queued > self._bound:
            self.overflowed = True
        if self.overflowed:
            self._place = self._channel.end  # the listener must not hold events that it will never read
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
        self._timer.cancel()
