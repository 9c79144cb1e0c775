"""The command loop, the same for every slice: load → decide → append → on a conflict reload and decide again, bounded."""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

import structlog
from pydantic_core import PydanticSerializationError

from application.engine.catalog import Catalog
from application.engine.commands.cache import Loaded, StateCache
from application.engine.commands.hooks import Hook
from application.engine.commands.part import Part
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.commands.snapshots import Snapshotter
from application.engine.ports.log import AppendRequest, AppendResult, CommandRecord, EventStore, NewEvent, StreamAppend, one_command
from domain import values
from domain.errors import DomainError, InvalidCommand, PayloadTooLarge, RepeatedDifferently, VersionConflict
from domain.kernel import MAX_EVENT_BYTES, Command, Decider, Event, RecordedEvent

MAX_CONFLICTS = 10
FOREIGN = "another program"
"""Stands in place of the slice for a stream of a program that only uses the log."""

S = TypeVar("S")
log = structlog.get_logger(__name__)


class CommandLoop:
    """Executes commands against the event store. One for each process; safe for any number of concurrent callers."""

    def __init__(
        self,
        store: EventStore,
        catalog: Catalog,
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        snapshots: Snapshotter | None = None,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._store = store
        self._routes = catalog.routes
        self.registry = catalog.registry
        self._rules = catalog.rules
        self._hooks = tuple(hooks)
        self._snapshots = snapshots
        self._cache = StateCache()
        self._max_event_bytes = max_event_bytes

    async def history(self, tenant_id: UUID, stream_id: UUID) -> list[RecordedEvent]:
        """All events of one stream, in order; nothing for another tenant's."""
        return await self._store.read_stream(tenant_id, stream_id)

    def forget(self) -> None:
        """Empties the cache. The log has a new history, so the cached states may be of events that are gone."""
        self._cache = StateCache()

    async def load(self, decider: Decider[S], tenant_id: UUID, stream_id: UUID, *, fresh: bool = True) -> Loaded:
        """The state of a stream. With `fresh=False` a cached state is good enough.

        A stream of another slice looks like a stream without events. It is folded by its own rules and cached all the same.
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
            own = self._rules.get(newer[0].topic)
            if own is None:  # no slice has rules for its events
                foreign = Loaded(None, newer[-1].version, newer[-1].position, slice=FOREIGN)
                self._cache.put(tenant_id, stream_id, foreign)
                return foreign.seen_by(decider)
            if own.slice != decider.slice:
                rules, state = own, own.initial()
        decode, evolve = self.registry.decode, rules.evolve
        for recorded in newer:
            state = evolve(state, decode(recorded.topic, recorded.schema_version, recorded.state))
            size += len(recorded.state)
        loaded = Loaded(state, newer[-1].version, newer[-1].position, size, rules.slice)
        self._learned(rules, tenant_id, stream_id, loaded, since=base.version)
        return loaded.seen_by(decider)

    def _learned(self, decider: Decider[Any], tenant_id: UUID, stream_id: UUID, loaded: Loaded, *, since: int) -> None:
        self._cache.put(tenant_id, stream_id, loaded)
        if self._snapshots is not None:
            state, version, position = loaded.state, loaded.version, loaded.position
            self._snapshots.offer(decider, tenant_id, stream_id, since=since, state=state, version=version, position=position)

    async def execute(self, request: CommandRequest, *commands: Command, expected_version: int | None = None) -> CommandOutcome:
        """Decides the commands, each for a stream of its own, and appends all that follows as one atomic append.

        `expected_version` is the caller's own condition on the first command's stream.

        Raises:
            DomainError: refused by the rules, or by a hook.
            TidelogError: another error of a hook.
            VersionConflict: the stream is not at the version the caller expects, or conflicts did not end.
            InvalidCommand: also for a value that is nested more than 80 levels deep, where the request's values are not `checked`.
            PayloadTooLarge, Unavailable: see `EventStore.append`.
        """
        parts = [Part(command, self._routes[type(command)]) for command in commands]
        if self._hooks and (refusal := self._refusal(request, parts)) is not None:
            return await self._recorded_before(request, parts, refusal)
        refresh: set[UUID] = set()
        conflicts = 0
        while True:
            await self._load_all(request, parts, refresh)
            first = parts[0]
            if expected_version is not None and first.loaded.version != expected_version:
                if first.unsure:
                    refresh.add(first.stream_id)
                    continue
                return await self._recorded_before(request, parts, first.unexpected(expected_version))
            try:
                for part in parts:
                    part.decide()
            except DomainError as error:
                unsure = {part.stream_id for part in parts if part.unsure}
                if unsure:  # refused on a cached state: look at the log before refusing
                    refresh |= unsure
                    continue
                return await self._recorded_before(request, parts, error)
            unsure = {part.stream_id for part in parts if part.unsure and not part.events}
            if unsure:  # look at the log before believing that there is nothing to do
                refresh |= unsure
                continue
            if not any(part.events for part in parts):
                if request.repeatable and (first_answer := await self._store.find_command(request.tenant_id, request.command_id)):
                    return await self._duplicate(request, parts, first_answer)
                versions = {part.stream_id: part.loaded.version for part in parts}
                return CommandOutcome(max(part.loaded.position for part in parts), versions, (), None)
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
                return await self._duplicate(request, parts, result.known[request.command_id])
            return self._accepted(request, parts, result)

    def _refusal(self, request: CommandRequest, parts: list[Part]) -> DomainError | None:
        """The refusal of a hook. As with a refusal by the rules, a repeat of a recorded command still gets its first answer."""
        try:
            for part in parts:
                for hook in self._hooks:
                    hook.before_decide(request, part.command, part.stream_id)
        except DomainError as error:
            return error
        return None

    def _tell_hooks(self, request: CommandRequest, parts: list[Part], result: AppendResult) -> None:
        commands = tuple(part.command for part in parts)
        for hook in self._hooks:
            try:
                hook.after_commit(request, commands, result.last_position - result.event_count + 1, result.last_position)
            except Exception as error:  # the events are in the log, and the caller must learn that
                log.exception("hook_failed", hook=type(hook).__name__, error=str(error))

    async def _load_all(self, request: CommandRequest, parts: list[Part], refresh: set[UUID]) -> None:
        for part in parts:
            known = self._cache.get(request.tenant_id, part.stream_id)
            part.unsure = part.stream_id not in refresh and (known is not None or part.route.creates)
            if part.unsure:
                decider = part.route.decider
                part.loaded = known.seen_by(decider) if known is not None else Loaded(decider.initial())
            else:
                part.loaded = await self.load(part.route.decider, request.tenant_id, part.stream_id)

    def _append_request(self, request: CommandRequest, parts: list[Part]) -> AppendRequest:
        streams = []
        for part in parts:
            if part.events:
                encoded = tuple(self._encoded(event, request.checked) for event in part.events)
                part.size = sum(len(event.state) for event in encoded)
                root_id = part.route.root(part.command, part.state)
                streams.append(StreamAppend(part.stream_id, root_id, part.loaded.version, encoded))
        return one_command(request.tenant_id, request.command_id, streams, request.metadata(), request.content)

    def _encoded(self, event: Event, checked: bool) -> NewEvent:
        try:
            state = self.registry.encode(event)
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

    def _accepted(self, request: CommandRequest, parts: list[Part], result: AppendResult) -> CommandOutcome:
        versions, events = {}, []
        position = result.last_position - result.event_count  # positions follow in the order of the streams
        for part in parts:
            position += len(part.events)
            loaded = part.after(position) if part.events else part.loaded
            versions[part.stream_id] = loaded.version
            if part.events:
                self._learned(part.route.decider, request.tenant_id, part.stream_id, loaded, since=part.loaded.version)
                events += part.events
        if self._hooks:
            self._tell_hooks(request, parts, result)
        return CommandOutcome(result.last_position, versions, tuple(events), result.recorded_at)

    async def _recorded_before(
        self, request: CommandRequest, parts: list[Part], error: DomainError | VersionConflict
    ) -> CommandOutcome:
        """A refused command may be one that was recorded before: then it gets its first answer again."""
        first = await self._store.find_command(request.tenant_id, request.command_id)
        if first is None:
            raise error
        try:
            return await self._duplicate(request, parts, first)
        except RepeatedDifferently as repeated:
            raise (error if isinstance(error, RepeatedDifferently) else repeated) from None

    async def _duplicate(self, request: CommandRequest, parts: list[Part], first: CommandRecord) -> CommandOutcome:
        """The first answer of a command that was recorded before. Raises RepeatedDifferently."""
        if request.content is not None and first.content not in (None, request.content):
            raise RepeatedDifferently("this was recorded before, with another content")
        recorded = await self._store.read_append(request.tenant_id, first)
        versions = {}
        for part in parts:
            mine = [event for event in recorded if event.stream_id == part.stream_id]
            if not mine:  # the command had nothing to do in this stream
                versions[part.stream_id] = (await self.load(part.route.decider, request.tenant_id, part.stream_id)).version
                continue
            if request.repeatable:
                part.check_repeat(self.registry, mine[0])
            versions[part.stream_id] = mine[-1].version
        return CommandOutcome(first.last_position, versions, (), first.recorded_at, duplicate=True, recorded=tuple(recorded))
