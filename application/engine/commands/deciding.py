"""Deciding commands on a draft: opens their streams, asks the rules, encodes the events, asks the hooks."""

from collections.abc import Sequence

import structlog
from pydantic_core import PydanticSerializationError

from application.engine.catalog import Catalog
from application.engine.commands.cache import Loaded
from application.engine.commands.draft import Decided, Draft, OpenStream
from application.engine.commands.hooks import DecidedCommand, Hook
from application.engine.commands.part import Part
from application.engine.commands.request import CommandRequest
from application.engine.commands.states import States
from application.engine.ports.log import NewEvent
from domain import values
from domain.errors import AlreadyExists, InvalidCommand, PayloadTooLarge, VersionConflict
from domain.kernel import Command, Event

MAX_PARTS = 100
"""Commands that hooks add to those of one request. A hook that adds without end is a defect."""

NO_EVENTS = Loaded(None)

log = structlog.get_logger(__name__)


class Deciding:
    def __init__(self, states: States, catalog: Catalog, hooks: Sequence[Hook], max_event_bytes: int) -> None:
        self._states = states
        self._routes = catalog.routes
        self._functions = catalog.functions
        self._encode = catalog.registry.encode
        self._hooks = tuple(hooks)
        self._max_event_bytes = max_event_bytes

    def parts(self, request: CommandRequest, commands: Sequence[Command]) -> list[Part]:
        """The commands with their streams, and those that hooks add. Raises what a hook raises."""
        parts = [Part(command, self._routes[type(command)]) for command in commands]
        if self._hooks:
            for part in parts:  # grows while hooks add commands
                for hook in self._hooks:
                    self._add(parts, hook.before_decide(request, part.command, part.stream_id), len(commands))
        return parts

    def _add(self, parts: list[Part], commands: Sequence[Command] | None, given: int) -> None:
        parts += [Part(command, self._routes[type(command)]) for command in commands or ()]
        if len(parts) > MAX_PARTS + given:
            raise RuntimeError(f"hooks added more than {MAX_PARTS} commands to those of one request")

    async def decide(self, draft: Draft, request: CommandRequest, parts: Sequence[Part], expected: int | None = None) -> Decided:
        """Decides all parts, in order, each on the state that the draft and the parts before leave. Adds them to the draft.

        `expected`: the caller's own condition on the first part's stream. After an error the draft has some of the parts.

        Raises:
            DomainError: refused by the rules or by a hook.
            VersionConflict: the first stream is not at the expected version.
            PayloadTooLarge, Unavailable; whatever the decoding of a stored event raises.
        """
        first = len(draft.events)
        for part in parts:
            stream = draft.streams.get(part.stream_id)
            if stream is None:
                stream = self._believed(draft, part) or await self._read(draft, part)
            if expected is not None:
                self._check_version(stream, part, expected)
                expected = None
            self._decide_one(draft, request, part, stream)
        if self._hooks:
            parts = await self._with_hooks(draft, request, list(parts), first)
        if request.along is not None and len(draft.events) > first:
            part = Part(request.along, self._routes[type(request.along)])
            stream = draft.streams.get(part.stream_id) or self._believed(draft, part) or await self._read(draft, part)
            self._decide_one(draft, request, part, stream)
        on_behalf_of = _work_is_for(draft, parts) if request.goes_on else request.on_behalf_of
        decided = Decided(request, parts, first, len(draft.events) - first, on_behalf_of)
        draft.decided.append(decided)
        return decided

    def _believed(self, draft: Draft, part: Part) -> OpenStream | None:
        """The part's stream as this process knows it, or takes it to be. None: the log must be asked."""
        stream_id = part.stream_id
        if stream_id in draft.refresh:
            return None
        base = self._states.known(draft.tenant_id, stream_id)
        if base is None:
            if not part.route.creates:
                return None
            base = NO_EVENTS  # the append finds out whether the stream is new
        stream = draft.streams[stream_id] = OpenStream(stream_id, base, False)
        return stream

    async def _read(self, draft: Draft, part: Part) -> OpenStream:
        base = await self._states.read(part.route.decider, draft.tenant_id, part.stream_id)
        stream = draft.streams[part.stream_id] = OpenStream(part.stream_id, base, True)
        return stream

    def _decide_one(self, draft: Draft, request: CommandRequest, part: Part, stream: OpenStream) -> None:
        route, decider = part.route, part.route.decider
        own = stream.slice == decider.slice
        state = stream.state if own else decider.initial()
        events = decider.events(state, part.command, self._functions)
        part.events = events
        if events:
            _check_slice(stream, part)
            for event in events:
                state = decider.evolve(state, event)
            root_id = route.root(part.command, state)
            draft.add(stream, part, state, root_id, [self._encoded(event, request.checked) for event in events])
            return
        part.version, part.position = (stream.version, stream.base.position) if own else (0, 0)
        if own or not stream.slice:  # a stream of another slice stays one, so its version is no condition
            draft.rely_on(stream)

    def _check_version(self, stream: OpenStream, part: Part, expected: int) -> None:
        """Refuses a command whose stream is not at the caller's version. If the thing does not exist, that says more."""
        decider = part.route.decider
        version = stream.version if stream.slice == decider.slice else 0
        if version == expected:
            return
        if not version and decider.events(decider.initial(), part.command, self._functions):
            _check_slice(stream, part)
        raise VersionConflict(part.stream_id, expected, version)

    async def _with_hooks(self, draft: Draft, request: CommandRequest, parts: list[Part], first: int) -> list[Part]:
        """All parts, with those that hooks add now that the others are decided."""
        given = len(parts)
        for hook in self._hooks:
            added = hook.before_append(request, _told(draft, parts, first))
            before = len(parts)
            self._add(parts, added, given)
            for part in parts[before:]:
                stream = draft.streams.get(part.stream_id) or self._believed(draft, part) or await self._read(draft, part)
                self._decide_one(draft, request, part, stream)
        return parts

    def told_of_commit(self, decided: Sequence[Decided], position_of_first: int) -> None:
        """Tells the hooks about everything that has events. An error of a hook is logged: the events are in the log."""
        for each in decided:
            commands = tuple(part.command for part in each.parts)
            first = position_of_first + each.first
            for hook in self._hooks if each.number else ():
                try:
                    hook.after_commit(each.request, commands, first, first + each.number - 1)
                except Exception as error:  # the events are in the log, and the caller must learn that
                    log.exception("hook_failed", hook=type(hook).__name__, error=str(error))

    def _encoded(self, event: Event, checked: bool) -> NewEvent:
        try:
            state = self._encode(event)
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
        return NewEvent(event.TOPIC, event.stored_version, state)


def _check_slice(stream: OpenStream, part: Part) -> None:
    if stream.slice and stream.slice != part.route.decider.slice:
        raise AlreadyExists(f"the id {part.stream_id} is taken by something else, of {stream.slice}")


def _work_is_for(draft: Draft, parts: Sequence[Part]) -> str | None:
    """For whom the work is that the commands go on with."""
    for part in parts:
        if part.route.on_behalf_of is not None:
            stream = draft.streams[part.stream_id]
            return part.route.on_behalf_of(stream.state) if stream.slice == part.route.decider.slice else None
    return None


def _told(draft: Draft, parts: Sequence[Part], first: int) -> tuple[DecidedCommand, ...]:
    told, place = [], first
    for part in parts:
        events = tuple(drafted.encoded for drafted in draft.events[place : place + len(part.events)])
        told.append(DecidedCommand(part.command, part.stream_id, events))
        place += len(part.events)
    return tuple(told)
