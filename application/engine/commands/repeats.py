"""Repeated commands: a command that was recorded before gets its first answer again, made from the events of then."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.part import Part
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.commands.states import States
from application.engine.ports.log import CommandRecord, EventStore
from domain.errors import DomainError, RepeatedDifferently, VersionConflict
from domain.kernel import Metadata, RecordedEvent

ANY = -1
"""All bits of a mask."""
PAGE = 128
"""Events that are read at once to find the end of what followed from a command."""


class Repeats:
    def __init__(self, store: EventStore, states: States, catalog: Catalog) -> None:
        self._store = store
        self._states = states
        self._registry = catalog.registry
        self._bits: Mapping[str, int] = {f"saga:{name}": 1 << number for name, number in catalog.numbers.items()}

    async def or_raise(
        self, request: CommandRequest, parts: Sequence[Part], error: DomainError | VersionConflict
    ) -> CommandOutcome:
        """A refused command may be one that was recorded before: then it gets its first answer. Else its refusal is raised."""
        record = await self._store.find_command(request.tenant_id, request.command_id)
        if record is None:
            raise error
        try:
            return await self.answer(request, parts, record)
        except RepeatedDifferently as repeated:
            raise (error if isinstance(error, RepeatedDifferently) else repeated) from None

    async def find(self, request: CommandRequest, parts: Sequence[Part]) -> CommandOutcome | None:
        """The first answer. None: the command was not recorded. Raises RepeatedDifferently."""
        record = await self._store.find_command(request.tenant_id, request.command_id)
        return None if record is None else await self.answer(request, parts, record)

    async def answer(self, request: CommandRequest, parts: Sequence[Part], record: CommandRecord) -> CommandOutcome:
        """The first answer of a recorded command. Raises RepeatedDifferently."""
        if request.content is not None and record.content not in (None, request.content):
            raise RepeatedDifferently("this was recorded before, with another content")
        recorded = await self._store.read_append(request.tenant_id, record)
        versions, compared = {}, set[UUID]()
        for part in parts:
            mine = [event for event in recorded if event.stream_id == part.stream_id]
            if not mine:  # the command had nothing to do in this stream
                loaded = await self._states.read(part.route.decider, request.tenant_id, part.stream_id)
                versions[part.stream_id] = loaded.seen_by(part.route.decider).version
                continue
            if request.repeatable and part.stream_id not in compared:
                part.check_repeat(self._registry, mine[0])
            compared.add(part.stream_id)
            versions[part.stream_id] = mine[-1].version
        position = await self.end(request.tenant_id, recorded) if recorded else record.last_position
        return CommandOutcome(position, versions, (), record.recorded_at, duplicate=True, recorded=tuple(recorded))

    def _settles(self, metadata: Metadata, event: RecordedEvent, last: RecordedEvent) -> int:
        """The bits, in the mask of its cause, of who may have brought an event about in the same append."""
        if metadata.actor.startswith("saga:"):
            return self._bits.get(metadata.actor, 0)
        return ANY if event.recorded_at == last.recorded_at else 0  # somebody who claimed work in the append, or who came later

    async def end(self, tenant_id: UUID, recorded: Sequence[RecordedEvent]) -> int:
        """The position of the last event that followed, in their own append, from the events of a command.

        Follow-ups stand behind their command. The mask of an event tells which sagas' answers to it are in the same append: what a
        saga added later is no follow-up. Work that was claimed in the append has the time of the append.
        """
        settled = {event.name: event.settled for event in recorded}
        last = recorded[-1]
        position = last.position
        while any(settled.values()):
            page = await self._store.read_append(tenant_id, CommandRecord(position + PAGE, PAGE, last.recorded_at))
            for event in page:
                metadata = Metadata.model_validate_json(event.metadata) if event.position == position + 1 else None
                if metadata is None or not settled.get(metadata.causation_id, 0) & self._settles(metadata, event, last):
                    return position
                settled[event.name] = event.settled
                position = event.position
            if len(page) < PAGE:
                return position
        return position
