"""The command loop, the same for every slice: load → decide → append → on a conflict reload and decide again, bounded."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import structlog

from application.ports import AppendRequest, AppendResult, EventStore, NewEvent, StreamAppend
from application.routes import ROUTES, Route
from domain import registry
from domain.errors import DomainError, PayloadTooLarge, VersionConflict
from domain.kernel import MAX_EVENT_BYTES, Command, Decider, Event, Metadata

MAX_CONFLICTS = 10
CACHE_BYTES = 16 * 1024 * 1024
"""Bound of the state cache, counted in bytes of the events that the states were built from and ENTRY_BYTES for each state.

Larger makes everything slower: what is kept is walked through by each full run of the garbage collector.
"""
ENTRY_BYTES = 4096

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to: the position to wait for, each stream's version, and whether it had been recorded before."""

    position: int
    versions: dict[UUID, int]
    events: tuple[Event, ...]
    recorded_at: datetime | None
    duplicate: bool = False


class StateCache:
    """States of recently used streams, least recently used out first. A hint only: the append checks the version."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._entries: OrderedDict[tuple[UUID, UUID], Loaded] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes

    def get(self, tenant_id: UUID, stream_id: UUID) -> Loaded | None:
        key = (tenant_id, stream_id)
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, tenant_id: UUID, stream_id: UUID, loaded: Loaded) -> None:
        key = (tenant_id, stream_id)
        old = self._entries.get(key)
        if old is not None and old.version >= loaded.version:
            return  # a slower task must not put back an older state
        self._bytes += loaded.size + ENTRY_BYTES - (old.size + ENTRY_BYTES if old else 0)
        self._entries[key] = loaded
        self._entries.move_to_end(key)
        while self._bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._bytes -= dropped.size + ENTRY_BYTES


class CommandLoop:
    """Executes commands against the event store. One for each process; safe for any number of concurrent callers."""

    def __init__(self, store: EventStore, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._store = store
        self._cache = StateCache()
        self._max_event_bytes = max_event_bytes

    async def load(self, decider: Decider[S], tenant_id: UUID, stream_id: UUID, *, fresh: bool = True) -> Loaded:
        """The state of a stream. With `fresh=False` what this process knows will do, if it knows the stream at all."""
        known = self._cache.get(tenant_id, stream_id)
        if known is not None and not fresh:
            return known
        base = known or Loaded(decider.initial())
        newer = await self._store.read_stream(tenant_id, stream_id, after_version=base.version)
        if not newer:
            return base
        state, size = base.state, base.size
        for recorded in newer:
            state = decider.evolve(state, registry.decode(recorded.topic, recorded.schema_version, recorded.state))
            size += len(recorded.state)
        loaded = Loaded(state, newer[-1].version, newer[-1].position, size)
        self._cache.put(tenant_id, stream_id, loaded)
        return loaded

    async def execute(self, request: Request, *commands: Command, expected_version: int | None = None) -> Outcome:
        """Decides the commands, each for a stream of its own, and appends all that follows as one atomic append.

        `expected_version` is the caller's own condition on the first command's stream.

        Raises:
            DomainError: refused by the rules.
            VersionConflict: the stream is not at the version the caller expects, or conflicts did not end.
            PayloadTooLarge, Unavailable: see `EventStore.append`.
        """
        routes = [(command, ROUTES[type(command)]) for command in commands]
        refresh: set[UUID] = set()
        conflicts = 0
        while True:
            parts, unsure = await self._load_all(request, routes, refresh)
            if expected_version is not None and parts[0].version != expected_version:
                stream_id = routes[0][1].stream(commands[0])
                if stream_id in unsure:
                    refresh.add(stream_id)
                    continue
                conflict = VersionConflict(stream_id, expected_version, parts[0].version)
                return await self._recorded_before(request, routes, conflict)
            try:
                decided = [route.decider.decide(part.state, c) for (c, route), part in zip(routes, parts, strict=True)]
            except DomainError as error:
                if unsure:  # refused on what the cache knew: look again before saying no
                    refresh |= unsure
                    continue
                return await self._recorded_before(request, routes, error)
            idle = {route.stream(c) for (c, route), events in zip(routes, decided, strict=True) if not events}
            if idle & unsure:  # the same before believing that there is nothing to do
                refresh |= idle & unsure
                continue
            if len(idle) == len(routes):
                versions = {route.stream(c): part.version for (c, route), part in zip(routes, parts, strict=True)}
                return Outcome(max(part.position for part in parts), versions, (), None)
            try:
                append, states = self._append_request(request, routes, parts, decided)
                result = await self._store.append(append)
            except VersionConflict as conflict:
                conflicts += 1
                if conflicts > MAX_CONFLICTS:
                    raise
                refresh = {conflict.stream_id}
                await asyncio.sleep(0.001 * (conflicts - 1))
                continue
            if result.duplicate:
                return await self._duplicate(request, routes, result)
            return self._accepted(append, states, routes, parts, decided, result)

    async def _load_all(
        self, request: Request, routes: Sequence[tuple[Command, Route]], refresh: set[UUID]
    ) -> tuple[list[Loaded], set[UUID]]:
        """States to decide on, and the streams of which more may be in the log than this process knows."""
        loaded, unsure = [], set()
        for command, route in routes:
            stream_id = route.stream(command)
            known = self._cache.get(request.tenant_id, stream_id)
            if stream_id in refresh or (known is None and not route.creates):
                loaded.append(await self.load(route.decider, request.tenant_id, stream_id))
            else:
                loaded.append(known or Loaded(route.decider.initial()))
                unsure.add(stream_id)
        return loaded, unsure

    def _append_request(
        self, request: Request, routes: Sequence[tuple[Command, Route]], parts: list[Loaded], decided: list[list[Event]]
    ) -> tuple[AppendRequest, list[Any]]:
        """What to append, and the states that the streams will be in."""
        streams, states = [], []
        for (command, route), part, events in zip(routes, parts, decided, strict=True):
            state = part.state
            for event in events:
                state = route.decider.evolve(state, event)
            states.append(state)
            if events:
                encoded = tuple(map(self._encoded, events))
                streams.append(StreamAppend(route.stream(command), route.root(command, state), part.version, encoded))
        return AppendRequest(request.tenant_id, request.command_id, tuple(streams), request.metadata()), states

    def _encoded(self, event: Event) -> NewEvent:
        state = registry.encode(event)
        if len(state) > self._max_event_bytes:
            raise PayloadTooLarge(
                f"a {event.TOPIC} event of {len(state):,} bytes is over the limit of {self._max_event_bytes:,} bytes"
            )
        return NewEvent(event.TOPIC, event.VERSION, state)

    def _accepted(
        self,
        append: AppendRequest,
        states: list[Any],
        routes: Sequence[tuple[Command, Route]],
        parts: list[Loaded],
        decided: list[list[Event]],
        result: AppendResult,
    ) -> Outcome:
        versions, all_events = {}, []
        sizes = {stream.stream_id: sum(len(event.state) for event in stream.events) for stream in append.streams}
        for (command, route), state, part, events in zip(routes, states, parts, decided, strict=True):
            stream_id = route.stream(command)
            versions[stream_id] = part.version + len(events)
            if events:
                loaded = Loaded(state, versions[stream_id], result.last_position, part.size + sizes[stream_id])
                self._cache.put(append.tenant_id, stream_id, loaded)
                all_events.extend(events)
        return Outcome(result.last_position, versions, tuple(all_events), result.recorded_at)

    async def _recorded_before(
        self, request: Request, routes: Sequence[tuple[Command, Route]], error: DomainError | VersionConflict
    ) -> Outcome:
        """A refused command may be one that was recorded before: then it gets its first answer again."""
        result = await self._store.find_command(request.tenant_id, request.command_id)
        if result is None:
            raise error
        return await self._duplicate(request, routes, result)

    async def _duplicate(self, request: Request, routes: Sequence[tuple[Command, Route]], result: AppendResult) -> Outcome:
        versions = {}
        for command, route in routes:
            stream_id = route.stream(command)
            versions[stream_id] = (await self.load(route.decider, request.tenant_id, stream_id)).version
        return Outcome(result.last_position, versions, (), result.recorded_at, duplicate=True)
