"""States of recently used streams, in memory."""

from collections import OrderedDict
from typing import Any, NamedTuple
from uuid import UUID

from domain.kernel import Decider

CACHE_BYTES = 16 * 1024 * 1024
"""Bound of the state cache, counted in bytes of the events that the states were built from and ENTRY_BYTES for each state.

A larger cache makes everything slower: each full run of the garbage collector walks through it.
"""
ENTRY_BYTES = 4096


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
    """States of recently used streams, least recently used out first. A hint only: the append checks the version."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._entries: OrderedDict[tuple[int, int], Loaded] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    @property
    def bytes_held(self) -> int:
        """What all entries are taken to need."""
        return self._bytes

    def get(self, tenant_id: UUID, stream_id: UUID) -> Loaded | None:
        key = (tenant_id.int, stream_id.int)  # hashing an int costs a tenth of hashing a UUID
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, tenant_id: UUID, stream_id: UUID, loaded: Loaded) -> None:
        key = (tenant_id.int, stream_id.int)
        old = self._entries.get(key)
        if old is not None and old.version >= loaded.version:
            return  # a slower task must not put back an older state
        self._bytes += loaded.size + ENTRY_BYTES - (old.size + ENTRY_BYTES if old else 0)
        self._entries[key] = loaded
        self._entries.move_to_end(key)
        while self._bytes > self._max_bytes and len(self._entries) > 1:  # the newest state stays: the next event would read it anew
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size + ENTRY_BYTES
