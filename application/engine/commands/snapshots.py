"""Snapshots by policy: now and then the state of a stream is stored, so that loading a long stream reads few events.

A state is stored every n events, but not before the events since the last snapshot are as large as that snapshot was. So all
snapshots of a stream together are at most about twice as large as its events, also where the state grows with each event. A stream
is loaded from a snapshot and from events that are hardly larger, or from n events.

Snapshots are never needed for correctness. A snapshot is used only by the rules that made it: its `model` is a digest of the
state's form and of the code that folds it. If a snapshot is of another release or history, or damaged, the events are read instead.
"""

import asyncio
import hashlib
import pkgutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple
from uuid import UUID

import pydantic_core
import structlog
from pydantic import TypeAdapter, ValidationError

from application.engine.commands.joint_reads import JointReads
from application.engine.ports.snapshots import Snapshot, SnapshotPlace, Snapshots, StreamSince
from domain import values
from domain.event_registry import EventRegistry
from domain.kernel import Decider, RecordedEvent
from domain.maps import MAP_VERSION

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
SAVE_TIMEOUT_S = 30.0
MAPS = "domain.maps"
"""The module that writes and reads the maps in states."""
PAUSE_S = 1.0
"""Pause after a failure, in seconds: the database is away, and snapshots can wait."""

log = structlog.get_logger(__name__)


class StateModel:
    """Writes and reads the states of one decider. Its digest covers all that gives a stored state its meaning."""

    def __init__(self, registry: EventRegistry, decider: Decider[Any]) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(type(decider.initial()))
        digest = hashlib.sha256(pydantic_core.to_json(self._adapter.json_schema()))
        digest.update(f"{MAP_VERSION}\n".encode())
        for module, code in (*code_of_slice(decider), (MAPS, _code_of(MAPS))):
            digest.update(f"{module} {len(code)}\n".encode() + code)
        for event in registry.slices.get(decider.slice, ()):
            digest.update(f"{event.TOPIC} {event.VERSION}\n".encode())
            for version in range(1, event.VERSION):
                digest.update(_code_of(registry.upcasts[event.TOPIC, version].to_next.__module__))
        self.digest = digest.hexdigest()

    def encode(self, state: Any) -> bytes:
        return self._adapter.serializer.to_json(state)

    def decode(self, state: bytes) -> Any:
        """Raises pydantic.ValidationError."""
        try:
            return self._adapter.validate_json(state)
        except ValidationError as error:
            if not values.is_beyond_parser(error):
                raise
        return self._adapter.validate_python(values.read(state))


@cache
def model_of(registry: EventRegistry, decider: Decider[Any]) -> StateModel:
    return StateModel(registry, decider)


def code_of_slice(decider: Decider[Any]) -> Iterator[tuple[str, bytes]]:
    """Dotted name and file of each module of the decider's slice, in a fixed order.

    The slice is the module or the package that is named after it. An `evolve` that stands elsewhere has only its own module.
    """
    parts = decider.evolve.__module__.split(".")
    depth = parts.index(decider.slice) + 1 if decider.slice in parts else len(parts)
    for name in _modules_below(".".join(parts[:depth])):
        yield name, _code_of(name)


def _modules_below(name: str) -> Iterator[str]:
    """The module, and all modules below it if it is a package."""
    yield name
    spec = find_spec(name)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        for inner in sorted(found.name for found in pkgutil.iter_modules(spec.submodule_search_locations, f"{name}.")):
            yield from _modules_below(inner)


def _code_of(module_name: str) -> bytes:
    """The module's file, read by its loader: the file may be in an archive."""
    spec = find_spec(module_name)
    assert spec is not None and spec.origin is not None
    loader: Any = spec.loader
    code: bytes = loader.get_data(spec.origin)
    return code


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
    """The last snapshot of a stream."""

    bytes: int
    size: int
    """The `Loaded.size` of the state."""


class Snapshotter:
    """Takes snapshots off the path of commands, in one owned loop (`run`), and loads streams with their help."""

    def __init__(
        self,
        store: Snapshots,
        registry: EventRegistry,
        *,
        every: int,
        max_waiting: int = MAX_WAITING,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`every`: the fewest events between two snapshots of a stream; `max_waiting`: streams; `pause_s`: after a failure."""
        self._store = store
        self._loads = JointReads(self._one_stream, store.read_streams)
        self._registry = registry
        self._every = every
        self._max_waiting = max_waiting
        self._pause_s = pause_s
        self._waiting: OrderedDict[tuple[UUID, UUID], Noted] = OrderedDict()
        self._taken: OrderedDict[tuple[UUID, UUID], Taken] = OrderedDict()
        self._wake = asyncio.Event()

    async def load(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, *, in_company: bool = False) -> Restored:
        """`in_company`: other streams are loaded in this moment, too. Raises Unavailable."""
        model = model_of(self._registry, decider)
        place = SnapshotPlace(tenant_id, stream_id, decider.slice, model.digest)
        snapshot, newer = await self._loads.read(place, in_company=in_company)
        if snapshot is not None:
            try:
                state = model.decode(snapshot.state)
                self._remember((tenant_id, stream_id), Taken(len(snapshot.state), len(snapshot.state)))
                return Restored(state, snapshot.version, snapshot.position, len(snapshot.state), newer)
            except ValidationError as error:
                log.warning("snapshot_unusable", stream_id=str(stream_id), version=snapshot.version, errors=error.error_count())
                _, newer = await self._store.read_stream(tenant_id, stream_id, slice_name=decider.slice, model="", limit=PAGE)
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
        if last is not None and size - last.size < last.bytes:
            return
        if key not in self._waiting and len(self._waiting) >= self._max_waiting:
            log.debug("snapshot_left_out", stream_id=str(stream_id), version=version)
            return
        self._waiting[key] = Noted(decider, state, version, position, size)
        self._wake.set()

    def _remember(self, key: tuple[UUID, UUID], taken: Taken) -> None:
        self._taken[key] = taken
        self._taken.move_to_end(key)
        if len(self._taken) > MAX_TAKEN:
            self._taken.popitem(last=False)

    async def run(self) -> None:
        """Stores noted snapshots until it is cancelled. A failure costs the snapshots of one batch and nothing else."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                kept = [snapshot for snapshot in self._batch() if len(snapshot.state) <= MAX_STATE_BYTES]
                try:
                    async with asyncio.timeout(SAVE_TIMEOUT_S):
                        await self._store.save(kept)
                except Exception as error:
                    log.warning("snapshots_not_stored", count=len(kept), error=str(error), exc_info=True)
                    await asyncio.sleep(self._pause_s)

    def _batch(self) -> list[Snapshot]:
        batch: list[Snapshot] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH and size < MAX_STATE_BYTES:
            batch.append(self._encoded(*self._waiting.popitem(last=False)))
            size += len(batch[-1].state)
        return batch

    def _encoded(self, key: tuple[UUID, UUID], noted: Noted) -> Snapshot:
        model = model_of(self._registry, noted.decider)
        state = model.encode(noted.state)
        self._remember(key, Taken(len(state), noted.size))
        return Snapshot(*key, noted.version, noted.position, noted.decider.slice, model.digest, state)
