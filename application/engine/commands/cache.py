"""States of recently used streams, in memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from domain.kernel import Decider

CACHE_BYTES = 16 * 1024 * 1024
"""Bound of the state cache, counted in bytes of the events that the states were built from and ENTRY_BYTES for each state.

A larger cache makes everything slower: each full run of the garbage collector walks through it.
"""
ENTRY_BYTES = 4096
LARGE_BYTES = 64 * 1024 * 1024
"""Bound of the states that are larger than CACHE_BYTES, together. The newest of them stays whatever its size is."""
LARGE_UNUSED_S = 60.0
"""Such a state is dropped when it was not used for so long, at the next change of any state."""


class Loaded(NamedTuple):
    """A stream's state, the version it is at and the position of its last event (0 and 0: no events)."""

    state: Any
    version: int = 0
    position: int = 0
    size: int = 0
    """Bytes of the events that the state was built from; of those in a snapshot, the bytes of the snapshot."""
    slice: str = ""
    """The slice of the stream. Empty: the stream has no events."""
    root_id: UUID | None = None
    """The root of the stream, if it is known: a snapshot does not tell it."""

    def seen_by(self, decider: Decider[Any]) -> "Loaded":
        """The stream as the rules of a slice see it. A stream of another slice looks empty, but its id is taken."""
        return self if self.slice == decider.slice else Loaded(decider.initial(), slice=self.slice, root_id=self.root_id)


class StateCache:
    """States of recently used streams, least recently used out first. A hint only: the append checks the version.

    A state that is larger than the bound alone has a place beside the others: in one order with them it would put all of them out,
    and the next of them would put it out again. So work on a large state would read the state anew each time.
    """

    def __init__(
        self, max_bytes: int = CACHE_BYTES, max_large_bytes: int = LARGE_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._entries: OrderedDict[tuple[int, int], Loaded] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._large: OrderedDict[tuple[int, int], tuple[Loaded, float]] = OrderedDict()
        """With the time of the last use."""
        self._max_large_bytes = max_large_bytes
        self._clock = clock

    @property
    def bytes_held(self) -> int:
        """What all entries are taken to need."""
        return self._bytes + sum(loaded.size + ENTRY_BYTES for loaded, _ in self._large.values())

    def get(self, tenant_id: UUID, stream_id: UUID) -> Loaded | None:
        key = (tenant_id.int, stream_id.int)  # hashing an int costs a tenth of hashing a UUID
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        elif self._large and key in self._large:
            found = self._large.pop(key)[0]
            self._large[key] = found, self._clock()
        return found

    def put(self, tenant_id: UUID, stream_id: UUID, loaded: Loaded) -> None:
        key = (tenant_id.int, stream_id.int)
        old = self._entries.get(key)
        if self._large:
            old = self._look_at_large(key) or old
        if old is not None and old.version >= loaded.version:
            return  # a slower task must not put back an older state
        if loaded.size + ENTRY_BYTES > self._max_bytes:
            self._put_large(key, loaded)
            return
        if self._large:
            self._large.pop(key, None)
        old = self._entries.get(key)
        self._bytes += loaded.size + ENTRY_BYTES - (old.size + ENTRY_BYTES if old else 0)
        self._entries[key] = loaded
        self._entries.move_to_end(key)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: tuple[int, int]) -> None:
        if (dropped := self._entries.pop(key, None)) is not None:
            self._bytes -= dropped.size + ENTRY_BYTES

    def _put_large(self, key: tuple[int, int], loaded: Loaded) -> None:
        self._drop(key)
        self._large.pop(key, None)
        self._large[key] = loaded, self._clock()
        while len(self._large) > 1 and sum(other.size for other, _ in self._large.values()) > self._max_large_bytes:
            self._large.popitem(last=False)

    def _look_at_large(self, key: tuple[int, int]) -> Loaded | None:
        """The large state of a stream. Drops large states that nobody has used for long."""
        known, now = self._large.get(key), self._clock()
        while self._large and now - next(iter(self._large.values()))[1] > LARGE_UNUSED_S:
            self._large.popitem(last=False)
        return None if known is None else known[0]
