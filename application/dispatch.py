"""The command loop, the same for every slice: load → decide → append → on a conflict reload and decide again, bounded."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import structlog
from pydantic_core import PydanticSerializationError

from application.ports import AppendRequest, AppendResult, EventStore, NewEvent, StreamAppend
from application.routes import ROUTES, RULES, Route
from application.snapshots import Snapshotter
from domain import registry, values
from domain.errors import AlreadyExists, DomainError, InvalidCommand, PayloadTooLarge, RepeatedDifferently, VersionConflict
from domain.kernel import MAX_EVENT_BYTES, Command, Decider, Event, Metadata, RecordedEvent, same_json

MAX_CONFLICTS = 10
CACHE_BYTES = 16 * 1024 * 1024
"""Bound of the state cache, counted in bytes of the events that the states were built from and ENTRY_BYTES for each state.

Larger makes everything slower: what is kept is walked through by each full run of the garbage collector.
"""
ENTRY_BYTES = 4096
FOREIGN = "another program"
"""In place of the slice: the stream of somebody who only uses the log."""

S = TypeVar("S")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for what follows, and why: becomes the metadata of every event."""

    tenant_id: UUID
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: str
    traceparent: str | None = None
    repeatable: bool = False
    """The command id follows from a name or key that the caller gave, so a repeat comes under the same id. The repeat must say the
    same (`Route.said`), else it is refused. False for sagas and timers: of another release they may say the same otherwise."""
    checked: bool = False
    """The command's values came through a door that looked at their depth, or from the log, where they are as deep as they are."""

    def metadata(self) -> str:
        return Metadata(
            actor=self.actor,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            command_id=self.command_id,
            traceparent=self.traceparent,
        ).model_dump_json()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A stream's state, the version it is at and the position of its last event (0 and 0: no events)."""

    state: Any
    version: int = 0
    position: int = 0
    size: int = 0
    slice: str = ""
    """Whose stream it is; empty: nobody's yet, it has no events."""

    def seen_by(self, decider: Decider[Any]) -> "Loaded":
        """An id names one thing of one kind: for the rules of any other slice there is nothing, and the id is taken."""
        return self if self.slice == decider.slice else Loaded(decider.initial(), slice=self.slice)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to: the position to wait for, each stream's version, and whether it had been recorded before."""

    position: int
    versions: dict[UUID, int]
    events: tuple[Event, ...]
    recorded_at: datetime | None
    duplicate: bool = False
    recorded: tuple[RecordedEvent, ...] = ()
    """Of a duplicate: the events that the command came to at its first time."""


class StateCache:
    """States of recently used streams, least recently used out first. A hint only: the append checks the version."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._entries: OrderedDict[tuple[int, int], Loaded] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

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
        while self._bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size + ENTRY_BYTES


class _Part:
    """One command of an execution: its stream, what is known of it, and what follows."""

    __slots__ = ("command", "events", "loaded", "route", "size", "state", "stream_id", "unsure")

    def __init__(self, command: Command, route: Route) -> None:
        self.command = command
        self.route = route
        self.stream_id: UUID = self.route.stream(command)
        self.loaded: Loaded
        self.unsure = True
        """More may be in the log than this process knows."""
        self.events: list[Event] = []
        self.state: Any = None
        """The state after the events."""
        self.size = 0

    def decide(self) -> None:
        """Raises DomainError."""
        self.state = self.loaded.state
        self.events = self.route.decider.decide(self.state, self.command)
        if self.events and self.loaded.slice and self.loaded.slice != self.route.decider.slice:
            raise AlreadyExists(f"the id {self.stream_id} is taken by something else, of {self.loaded.slice}")
        for event in self.events:
            self.state = self.route.decider.evolve(self.state, event)

    def after(self, position: int) -> Loaded:
        loaded = self.loaded
        version, size = loaded.version + len(self.events), loaded.size + self.size
        return Loaded(self.state, version, position, size, self.route.decider.slice)


class CommandLoop:
    """Executes commands against the event store. One for each process; safe for any number of concurrent callers."""

    def __init__(
        self,
        store: EventStore,
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        snapshots: Snapshotter | None = None,
        routes: Mapping[type[Command], Route] = ROUTES,
    ) -> None:
        self._store = store
        self._routes = routes
        self._snapshots = snapshots
        self._cache = StateCache()
        self._max_event_bytes = max_event_bytes

    async def history(self, tenant_id: UUID, stream_id: UUID) -> list[RecordedEvent]:
        """All events of one stream, in order; nothing for another tenant's."""
        return await self._store.read_stream(tenant_id, stream_id)

    def forget(self) -> None:
        """The log has a new history: the states that this process knows may be of events that are gone."""
        self._cache = StateCache()

    async def load(self, decider: Decider[S], tenant_id: UUID, stream_id: UUID, *, fresh: bool = True) -> Loaded:
        """The state of a stream. With `fresh=False` what this process knows will do, if it knows the stream at all.

        A stream of another slice looks like one without events. It is folded by its own rules all the same, and known next time.
        """
        known = self._cache.get(tenant_id, stream_id)
        if known is not None and (not fresh or known.slice != decider.slice):
            return known.seen_by(decider)
        if known is not None or self._snapshots is None:
            base = known or Loaded(decider.initial())
            newer = await self._store.read_stream(tenant_id, stream_id, after_version=base.version)
        else:
            restored = await self._snapshots.load(decider, tenant_id, stream_id)
            base = Loaded(
                restored.state, restored.version, restored.position, restored.size, decider.slice if restored.version else ""
            )
            newer = restored.newer
        if not newer:
            if known is None and base.version:
                self._cache.put(tenant_id, stream_id, base)
            return base
        rules, state, size = decider, base.state, base.size
        if not base.version:
            own = RULES.get(newer[0].topic)
            if own is None:  # there are no rules to fold it by
                foreign = Loaded(None, newer[-1].version, newer[-1].position, slice=FOREIGN)
                self._cache.put(tenant_id, stream_id, foreign)
                return foreign.seen_by(decider)
            if own.slice != decider.slice:
                rules, state = own, own.initial()
        for recorded in newer:
            state = rules.evolve(state, registry.decode(recorded.topic, recorded.schema_version, recorded.state))
            size += len(recorded.state)
        loaded = Loaded(state, newer[-1].version, newer[-1].position, size, rules.slice)
        self._learned(rules, tenant_id, stream_id, loaded, since=base.version)
        return loaded.seen_by(decider)

    def _learned(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, loaded: Loaded, *, since: int) -> None:
        self._cache.put(tenant_id, stream_id, loaded)
        if self._snapshots is not None:
            state, version, position = loaded.state, loaded.version, loaded.position
            self._snapshots.offer(decider, tenant_id, stream_id, since=since, state=state, version=version, position=position)

    async def execute(self, request: Request, *commands: Command, expected_version: int | None = None) -> Outcome:
        """Decides the commands, each for a stream of its own, and appends all that follows as one atomic append.

        `expected_version` is the caller's own condition on the first command's stream.

        Raises:
            DomainError: refused by the rules.
            VersionConflict: the stream is not at the version the caller expects, or conflicts did not end.
            InvalidCommand: also for a value that is nested more than 80 levels deep, where the request's values are not `checked`.
            PayloadTooLarge, Unavailable: see `EventStore.append`.
        """
        parts = [_Part(command, self._routes[type(command)]) for command in commands]
        refresh: set[UUID] = set()
        conflicts = 0
        while True:
            await self._load_all(request, parts, refresh)
            first = parts[0]
            if expected_version is not None and first.loaded.version != expected_version:
                if first.unsure:
                    refresh.add(first.stream_id)
                    continue
                return await self._recorded_before(request, parts, _unexpected(first, expected_version))
            try:
                for part in parts:
                    part.decide()
            except DomainError as error:
                unsure = {part.stream_id for part in parts if part.unsure}
                if unsure:  # refused on what the cache knew: look again before saying no
                    refresh |= unsure
                    continue
                return await self._recorded_before(request, parts, error)
            unsure = {part.stream_id for part in parts if part.unsure and not part.events}
            if unsure:  # the same before believing that there is nothing to do
                refresh |= unsure
                continue
            if not any(part.events for part in parts):
                if request.repeatable and (first_answer := await self._store.find_command(request.tenant_id, request.command_id)):
                    return await self._duplicate(request, parts, first_answer)
                versions = {part.stream_id: part.loaded.version for part in parts}
                return Outcome(max(part.loaded.position for part in parts), versions, (), None)
            try:
                result = await self._store.append(self._append_request(request, parts))
            except VersionConflict as conflict:
                conflicts += 1
                if conflicts > MAX_CONFLICTS:
                    raise
                refresh = {conflict.stream_id}
                await asyncio.sleep(0.001 * (conflicts - 1))
                continue
            if result.duplicate:
                return await self._duplicate(request, parts, result)
            return self._accepted(request, parts, result)

    async def _load_all(self, request: Request, parts: list[_Part], refresh: set[UUID]) -> None:
        for part in parts:
            known = self._cache.get(request.tenant_id, part.stream_id)
            part.unsure = part.stream_id not in refresh and (known is not None or part.route.creates)
            if part.unsure:
                decider = part.route.decider
                part.loaded = known.seen_by(decider) if known is not None else Loaded(decider.initial())
            else:
                part.loaded = await self.load(part.route.decider, request.tenant_id, part.stream_id)

    def _append_request(self, request: Request, parts: list[_Part]) -> AppendRequest:
        streams = []
        for part in parts:
            if part.events:
                encoded = tuple(self._encoded(event, request.checked) for event in part.events)
                part.size = sum(len(event.state) for event in encoded)
                root_id = part.route.root(part.command, part.state)
                streams.append(StreamAppend(part.stream_id, root_id, part.loaded.version, encoded))
        return AppendRequest(request.tenant_id, request.command_id, tuple(streams), request.metadata())

    def _encoded(self, event: Event, checked: bool) -> NewEvent:
        try:
            state = registry.encode(event)
        except PydanticSerializationError as error:
            raise InvalidCommand(f"a {event.TOPIC} event cannot be written as JSON: {error}") from error
        if len(state) > self._max_event_bytes:
            raise PayloadTooLarge(
                f"a {event.TOPIC} event of {len(state):,} bytes is over the limit of {self._max_event_bytes:,} bytes"
            )
        if not checked and values.is_deeper(state, values.MAX_STORED_DEPTH):
            place = values.too_deep(event, values.MAX_STORED_DEPTH)
            if place is not None:
                where = "/".join(map(str, place))
                raise InvalidCommand(f"{where} of a {event.TOPIC} event is nested more than {values.MAX_STORED_DEPTH} levels deep")
        return NewEvent(event.TOPIC, event.VERSION, state)

    def _accepted(self, request: Request, parts: list[_Part], result: AppendResult) -> Outcome:
        versions, events = {}, []
        position = result.last_position - result.event_count  # positions follow in the order of the streams
        for part in parts:
            position += len(part.events)
            loaded = part.after(position) if part.events else part.loaded
            versions[part.stream_id] = loaded.version
            if part.events:
                self._learned(part.route.decider, request.tenant_id, part.stream_id, loaded, since=part.loaded.version)
                events += part.events
        return Outcome(result.last_position, versions, tuple(events), result.recorded_at)

    async def _recorded_before(self, request: Request, parts: list[_Part], error: DomainError | VersionConflict) -> Outcome:
        """A refused command may be one that was recorded before: then it gets its first answer again."""
        result = await self._store.find_command(request.tenant_id, request.command_id)
        if result is None:
            raise error
        try:
            return await self._duplicate(request, parts, result)
        except RepeatedDifferently as repeated:
            raise (error if isinstance(error, RepeatedDifferently) else repeated) from None

    async def _duplicate(self, request: Request, parts: list[_Part], result: AppendResult) -> Outcome:
        """The first answer of a command that was recorded before. Raises RepeatedDifferently."""
        recorded = await self._store.read_append(request.tenant_id, result)
        versions = {}
        for part in parts:
            mine = [event for event in recorded if event.stream_id == part.stream_id]
            if not mine:  # there was nothing to do in this stream
                versions[part.stream_id] = (await self.load(part.route.decider, request.tenant_id, part.stream_id)).version
                continue
            if request.repeatable:
                _check_repeat(part, mine[0])
            versions[part.stream_id] = mine[-1].version
        return Outcome(result.last_position, versions, (), result.recorded_at, duplicate=True, recorded=tuple(recorded))


def _check_repeat(part: _Part, first: RecordedEvent) -> None:
    """Raises RepeatedDifferently if the command does not say what it said at its first time."""
    names = set(part.route.said)
    known = registry.decode(first.topic, first.schema_version, first.state).model_dump(mode="json", include=names)
    said = part.command.model_dump(mode="json", include=known.keys() & names)
    different = [name for name in part.route.said if name in known and not same_json(said[name], known[name])]
    if different:
        raise RepeatedDifferently(f"this was recorded before, with another {' and another '.join(different)}")


def _unexpected(part: _Part, expected: int) -> DomainError | VersionConflict:
    """Why a command is refused whose stream is not at the caller's version: that there is no such thing says more."""
    if not part.loaded.version:
        try:
            part.decide()
        except DomainError as error:
            return error
    return VersionConflict(part.stream_id, expected, part.loaded.version)
