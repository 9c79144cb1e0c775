"""Snapshots by policy: now and then the state of a stream is stored, so that loading a long stream reads few events.

A snapshot is a whole state, or what changed since the snapshot before. So snapshots cost an event the same, whatever its number. A
long stream has a snapshot of what changed each time it got a twentieth longer, and after n events at first: it is loaded from one
whole state, some tens of changes, and events that are a twentieth of its entries at most.

A whole state is stored where there is none to build on, or where changes would not be smaller. Once more it is stored only when the
events since the last snapshot are as large as that snapshot. So all snapshots of a stream are at most a few times as large as its
events, whatever the form of its state.

Snapshots are never needed for correctness. A snapshot is used only by the rules that made it: its `model` is a digest of the
state's form and of the code that folds it. If a snapshot is of another release or history, or damaged, the events are read instead.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from application.engine.commands.joint_reads import JointReads
from application.engine.commands.state_models import StateModel, model_of
from application.engine.ports.snapshots import Snapshot, SnapshotPlace, Snapshots, StreamSince
from domain.event_registry import EventRegistry
from domain.kernel import Decider, RecordedEvent

PAGE = 1_000
"""Events of one stream that are read at once: those of a long stream are not all in memory together, and other work goes on in
between. Where several streams are read with one statement, each is read to its end."""
MAX_WAITING = 1_000
"""Number of snapshots that may wait to be stored. A further one is left out."""
MAX_BATCH = 20
MAX_STATE_BYTES = 16 * 1024 * 1024
"""A larger state is not stored: reading its events takes no longer. A batch of snapshots ends when it is as large."""
MAX_TAKEN = 1_000
"""Streams whose last snapshot is remembered, so that the next one comes in time. Any other stream gets one after n events."""
MAX_HELD_BYTES = 8 * 1024 * 1024
"""Events of the states that are kept to find out what changed, in bytes. Such a state shares nearly all with the newest one of its
stream, where that is in the cache. A stream whose state was let go gets a whole snapshot next."""
GROWN = 20
"""A stream gets the next snapshot when the events since the last one are one in so many of its entries."""
MAX_CHANGES = 100
"""Snapshots of changes after a whole one."""
WORN = 3
"""Changes have written the entries of a state so many times: a whole state is stored, so that a load does not read what is gone."""
LINGER_S = 0.5
"""How long a snapshot waits in a server. The command that made it due comes first, and states of one stream become one snapshot."""
SAVE_TIMEOUT_S = 30.0
PAUSE_S = 1.0
"""Pause after a failure, in seconds: the database is away, and snapshots can wait."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Restored:
    """A state to go on from, and the events after it. Without a snapshot: the initial state, and the events from the first on."""

    state: Any
    version: int
    position: int
    size: int
    """Bytes of the snapshot."""
    newer: list[RecordedEvent]


class Noted(NamedTuple):
    """A state that waits to be stored."""

    decider: Decider[Any]
    state: Any
    version: int
    position: int
    size: int
    """See `Loaded.size`."""


class Taken(NamedTuple):
    """The last snapshot of a stream, with those that it builds on."""

    version: int
    bytes: int
    """Of all of them."""
    size: int
    """The `Loaded.size` of the state."""
    state: Any = None
    """None: not held, so that the next snapshot is a whole one."""
    changes: int = 0
    written: int = 0
    """Entries that the changes have written."""


class Snapshotter:
    """Takes snapshots off the path of commands, in one owned loop (`run`), and loads streams with their help."""

    def __init__(
        self,
        store: Snapshots,
        registry: EventRegistry,
        *,
        every: int,
        max_waiting: int = MAX_WAITING,
        linger_s: float = 0.0,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`every`: the fewest events between two snapshots of a stream; `max_waiting`: streams; `linger_s`: how long a snapshot
        waits; `pause_s`: after a failure."""
        self._store = store
        self._loads = JointReads(self._one_stream, store.read_streams)
        self._registry = registry
        self._every = every
        self._max_waiting = max_waiting
        self._linger_s = linger_s
        self._pause_s = pause_s
        self._waiting: OrderedDict[tuple[UUID, UUID], Noted] = OrderedDict()
        self._taken: OrderedDict[tuple[UUID, UUID], Taken] = OrderedDict()
        self._held = 0
        """Bytes of the events of all states in `_taken`."""
        self._wake = asyncio.Event()

    async def load(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, *, in_company: bool = False) -> Restored:
        """`in_company`: other streams are loaded in this moment, too. Raises Unavailable."""
        model = model_of(self._registry, decider)
        place = SnapshotPlace(tenant_id, stream_id, decider.slice, model.digest)
        snapshot, newer = await self._loads.read(place, in_company=in_company)
        if snapshot is not None:
            try:
                state = model.decode(snapshot.state, snapshot.changes)
            except ValueError as error:
                log.warning("snapshot_unusable", stream_id=str(stream_id), version=snapshot.version, error=type(error).__name__)
                _, newer = await self._store.read_stream(tenant_id, stream_id, slice_name=decider.slice, model="", limit=PAGE)
            else:
                size = len(snapshot.state) + sum(map(len, snapshot.changes))
                taken = Taken(snapshot.version, size, size, state, len(snapshot.changes), sum(model.entries(state)))
                self._remember((tenant_id, stream_id), taken)
                return Restored(state, snapshot.version, snapshot.position, size, newer)
        return Restored(decider.initial(), 0, 0, 0, newer)

    async def _one_stream(self, place: SnapshotPlace) -> StreamSince:
        return await self._store.read_stream(
            place.tenant_id, place.stream_id, slice_name=place.slice_name, model=place.model, limit=PAGE
        )

    def offer(
        self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, *,
        since: int, state: Any, version: int, position: int, size: int,
    ) -> None:  # fmt: skip
        """A stream got from version `since` to `version`: notes the state if a snapshot is due. Returns at once.

        `size`: see `Loaded.size`.
        """
        if since // self._every == version // self._every:
            return
        key = (tenant_id, stream_id)
        last = self._taken.get(key)
        if last is not None and not _is_large(last, size) and not self._is_longer(decider, last, state, version):
            return
        if key not in self._waiting and len(self._waiting) >= self._max_waiting:
            log.debug("snapshot_left_out", stream_id=str(stream_id), version=version)
            return
        self._waiting[key] = Noted(decider, state, version, position, size)
        self._wake.set()

    def _is_longer(self, decider: Decider[Any], last: Taken, state: Any, version: int) -> bool:
        """Whether a stream got so much longer that what changed since its last snapshot is worth a snapshot."""
        if last.state is None:
            return False
        entries = max(model_of(self._registry, decider).entries(state), default=0)
        return entries > 0 and version - last.version >= max(self._every, entries // GROWN)

    def forget(self) -> None:
        """The log has a new history: no snapshot builds on what was stored before."""
        self._waiting.clear()
        self._taken.clear()
        self._held = 0

    def _remember(self, key: tuple[UUID, UUID], taken: Taken) -> None:
        self._drop(key)
        self._taken[key] = taken
        self._held += _held_by(taken)
        while len(self._taken) > MAX_TAKEN:
            self._drop(next(iter(self._taken)))
        if self._held > MAX_HELD_BYTES:
            for other, one in self._taken.items():  # longest unused first
                self._held -= _held_by(one)
                self._taken[other] = one._replace(state=None)
                if self._held <= MAX_HELD_BYTES:
                    return

    def _drop(self, key: tuple[UUID, UUID]) -> None:
        if (taken := self._taken.pop(key, None)) is not None:
            self._held -= _held_by(taken)

    async def run(self) -> None:
        """Stores noted snapshots until it is cancelled. A failure costs the snapshots of one batch and nothing else."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._linger_s)
            self._wake.clear()
            while self._waiting:
                kept = self._batch()
                try:
                    async with asyncio.timeout(SAVE_TIMEOUT_S):
                        await self._store.save(kept)
                except Exception as error:
                    log.warning("snapshots_not_stored", count=len(kept), error=str(error), exc_info=True)
                    for snapshot in kept:  # nothing builds on a snapshot that may not be there
                        self._drop((snapshot.tenant_id, snapshot.stream_id))
                    await asyncio.sleep(self._pause_s)

    def _batch(self) -> list[Snapshot]:
        batch: list[Snapshot] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_STATE_BYTES:
            snapshot = self._encoded(*self._waiting.popitem(last=False))
            if snapshot is not None:
                batch.append(snapshot)
                size += len(snapshot.state)
        return batch

    def _encoded(self, key: tuple[UUID, UUID], noted: Noted) -> Snapshot | None:
        """The snapshot of a state. None: it is not worth its bytes, or too large."""
        model, last = model_of(self._registry, noted.decider), self._taken.get(key)
        if last is not None and last.state is not None and (changed := self._changed(model, key, last, noted)) is not None:
            return changed
        if last is not None and not _is_large(last, noted.size):
            return None
        state = model.encode(noted.state)
        taken = Taken(noted.version, len(state), noted.size, noted.state)
        if len(state) > MAX_STATE_BYTES:
            self._remember(key, taken._replace(state=None))
            return None
        self._remember(key, taken)
        return Snapshot(*key, noted.version, noted.position, noted.decider.slice, model.digest, state)

    def _changed(self, model: StateModel, key: tuple[UUID, UUID], last: Taken, noted: Noted) -> Snapshot | None:
        """What changed since the last snapshot. None where a whole state is better."""
        entries = sum(model.entries(noted.state))
        if not entries or noted.version <= last.version or last.changes >= MAX_CHANGES or last.bytes > MAX_STATE_BYTES:
            return None
        change = model.change(last.state, noted.state)
        written = last.written + change.size
        if 2 * change.size > entries or written > WORN * entries:
            return None
        state = model.encode_change(change, noted.state)
        self._remember(key, Taken(noted.version, last.bytes + len(state), noted.size, noted.state, last.changes + 1, written))
        return Snapshot(*key, noted.version, noted.position, noted.decider.slice, model.digest, state, since=last.version)


def _is_large(last: Taken, size: int) -> bool:
    """Whether the events since the last snapshot are as large as that one, with all that it builds on."""
    return size - last.size >= last.bytes


def _held_by(taken: Taken) -> int:
    return 0 if taken.state is None else taken.size
