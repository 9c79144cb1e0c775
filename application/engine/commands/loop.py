"""The command loop, the same for every slice: load → decide → append → on a conflict reload and decide again, bounded.

What follows from the events is decided as well and goes into the same append (`follow_ups.py`). The commands of one root take
turns, and those that wait go together (`turns.py`).
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from application.engine.catalog import Catalog
from application.engine.commands.cache import Loaded
from application.engine.commands.deciding import Deciding
from application.engine.commands.draft import NOTHING, Draft
from application.engine.commands.follow_ups import FollowUpRoom, FollowUps
from application.engine.commands.handing import TakenWork, WorkTaker
from application.engine.commands.hooks import Hook
from application.engine.commands.part import Part
from application.engine.commands.repeats import Repeats
from application.engine.commands.request import CommandOutcome, CommandRequest
from application.engine.commands.snapshots import Snapshotter
from application.engine.commands.states import States
from application.engine.commands.turns import COMPANY_S, Lane, TurnEntry, Turns
from application.engine.ports.log import AppendResult, CommandRecord, EventStore
from domain.errors import DomainError, TidelogError, Unavailable, VersionConflict
from domain.kernel import MAX_EVENT_BYTES, Command, Decider, RecordedEvent

MAX_CONFLICTS = 10
CONFLICTS_WITH_FOLLOW_UPS = 5
"""After so many conflicts a command goes without follow-ups: their streams must not be what it fails for."""
CONFLICTS_OF_A_CROWD = 3
"""After so many conflicts in a row the commands of a root wait for company."""
MAX_TOGETHER = 256
"""Calls whose commands go as one append."""
MAX_TOGETHER_BYTES = 1024 * 1024
"""Events of one append, in bytes, up to which further calls are taken along."""

S = TypeVar("S")


class RefusedCommands(NamedTuple):
    """Verdict: refused by the rules, by a hook or by the caller's own condition, unless it was recorded before."""

    error: DomainError | VersionConflict


class FailedCommands(NamedTuple):
    """Verdict: not done, for a reason that is none of the rules."""

    error: Exception


class Joined(Enum):
    YES = 1
    NO = 2
    """The entry has its verdict: it has nothing to append."""
    LATER = 3
    """What it would be told follows from events that are not in the log yet."""


NOTHING_TO_DO = object()
"""Verdict: the commands change nothing."""


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
        reactions: bool = True,
    ) -> None:
        """`reactions`: whether the reactions of sagas go into the append that causes them. If not, the saga manager gives them."""
        self._store = store
        self._routes = catalog.routes
        self.registry = catalog.registry
        self._hooks = bool(hooks)
        self._states = States(store, catalog, snapshots)
        self._deciding = Deciding(self._states, catalog, hooks, max_event_bytes)
        self._follow_ups = FollowUps(self._deciding, catalog) if reactions and catalog.numbers else None
        self._repeats = Repeats(store, self._states, catalog)
        self._turns = Turns()

    async def history(
        self, tenant_id: UUID, stream_id: UUID, *, after_version: int = 0, limit: int | None = None
    ) -> list[RecordedEvent]:
        """All events of one stream after a version, or the first ones up to a limit, in order; nothing for another tenant's."""
        return await self._store.read_stream(tenant_id, stream_id, after_version=after_version, limit=limit)

    async def end_of(self, tenant_id: UUID, recorded: Sequence[RecordedEvent]) -> int:
        """The position that the answer to a command has: of the last event that followed from its events in the same append."""
        return await self._repeats.end(tenant_id, recorded)

    async def recorded(self, request: CommandRequest) -> CommandOutcome | None:
        """The first answer to the request's command, for whoever cannot say the command again. None: it was not recorded.

        The outcome has no versions: it tells them by its recorded events. Raises RepeatedDifferently.
        """
        return await self._repeats.find(request, ())

    def hand_over_to(self, taker: WorkTaker | None) -> None:
        """From now on the taker may claim work in the append that requests it, where reactions go into the append."""
        if self._follow_ups is not None:
            self._follow_ups.taker = taker

    def forget(self) -> None:
        """Empties the cache. The log has a new history, so the cached states may be of events that are gone."""
        self._states.forget()

    async def load(self, decider: Decider[S], tenant_id: UUID, stream_id: UUID, *, fresh: bool = True) -> Loaded:
        """The state of a stream. With `fresh=False` a cached state is good enough.

        A stream of another slice looks like a stream without events.
        """
        known = None if fresh else self._states.known(tenant_id, stream_id)
        return (known or await self._states.read(decider, tenant_id, stream_id)).seen_by(decider)

    def known(self, decider: Decider[S], tenant_id: UUID, stream_id: UUID) -> Loaded | None:
        """The cached state of a stream, as `load` with `fresh=False`. None: the stream would have to be read."""
        known = self._states.known(tenant_id, stream_id)
        return None if known is None else known.seen_by(decider)

    async def meet(self, tenant_id: UUID, streams: Mapping[UUID, Decider[Any]], *, fresh: bool = False) -> None:
        """Reads those of the streams that this process does not know yet, together, before commands for them come. With `fresh`,
        what other processes have added to the others is read, too.

        A stream that cannot be read is no error here: the commands that need the stream say so.
        """
        await self._states.meet(tenant_id, streams, fresh=fresh)

    def is_crowded(self, tenant_id: UUID, root_id: UUID) -> bool:
        """Whether commands of this root met conflict upon conflict a moment ago."""
        return self._turns.is_crowded((tenant_id.int, root_id.int))

    async def execute(
        self, request: CommandRequest, *commands: Command, expected_version: int | None = None, beside: Sequence[UUID] = ()
    ) -> CommandOutcome:
        """Decides the commands and what follows from them, and appends all as one atomic append.

        Each command is decided on the state that those before it leave, also where several are for one stream. The versions of the
        outcome are those after the commands' own events, the position is that of the last event that followed in the append.
        `expected_version` is the caller's own condition on the first command's stream. `beside`: other roots, shared by many, that
        have streams in this append, or in what follows. The commands take turns with those of the first of them, so that the
        processes alone meet conflicts there.

        Raises:
            DomainError: refused by the rules, or by a hook.
            TidelogError: another error of a hook.
            VersionConflict: the stream is not at the version the caller expects, or conflicts did not end.
            InvalidCommand: also for a value that is nested more than 80 levels deep, where the request's values are not `checked`.
            PayloadTooLarge, Unavailable: see `EventStore.append`.
        """
        entry = self._entry(request, commands, expected_version)
        if beside:
            entry.beside = beside
        if entry.verdict is None:
            await self._take_turns([entry])
        verdict = entry.verdict
        return verdict if type(verdict) is CommandOutcome else await self._answer(entry)

    async def execute_each(self, commands: Sequence[tuple[CommandRequest, Command]]) -> list[CommandOutcome | Exception]:
        """Executes commands for one stream, in their order, and in one append as far as they fit. Each has a request of its own,
        and its own answer: an outcome, or what `execute` would raise.

        Raises Unavailable: none of the commands was executed.
        """
        return await self.execute_all([(request, (command,)) for request, command in commands])

    async def execute_all(
        self, requests: Sequence[tuple[CommandRequest, Sequence[Command]]], *, beside: Sequence[UUID] = ()
    ) -> list[CommandOutcome | Exception]:
        """As `execute_each`, of several commands for each request. The requests are for streams of one root, or each begins
        streams of its own. `beside`: see `execute`.

        Raises Unavailable: none of the requests was executed.
        """
        entries = [self._entry(request, commands) for request, commands in requests]
        for entry in entries if beside else ():
            entry.beside = beside
        if waiting := [entry for entry in entries if entry.verdict is None]:
            await self._take_turns(waiting)
        answers: list[CommandOutcome | Exception] = []
        for entry in entries:
            try:
                answers.append(entry.verdict if type(entry.verdict) is CommandOutcome else await self._answer(entry))
            except Exception as error:  # noqa: BLE001  # the answer of this command
                answers.append(error)
        return answers

    def _entry(self, request: CommandRequest, commands: Sequence[Command], expected_version: int | None = None) -> TurnEntry:
        try:
            return TurnEntry(request, self._deciding.parts(request, commands), expected_version)
        except DomainError as refusal:  # of a hook
            entry = TurnEntry(request, [Part(command, self._routes[type(command)]) for command in commands], expected_version)
            entry.settle(RefusedCommands(refusal))
            return entry

    async def _take_turns(self, entries: Sequence[TurnEntry]) -> None:
        """Until each entry has its verdict. All are for streams of one root."""
        tenant_id, part = entries[0].request.tenant_id, entries[0].parts[0]
        if entries[0].beside:
            root_id = entries[0].beside[0]
        else:
            root_id = await self._root_of(tenant_id, part) if part.route.of_state else part.route.root(part.command, None)
        await self._turns.take((tenant_id.int, root_id.int), entries, self._lead)

    async def _root_of(self, tenant_id: UUID, part: Part) -> UUID:
        """The root of a stream that must be known to know it. A stream without events is its own."""
        stream = self._states.known(tenant_id, part.stream_id)
        if stream is None:
            stream = await self._states.read(part.route.decider, tenant_id, part.stream_id)
        if stream.root_id is not None:
            return stream.root_id
        if not stream.version or stream.slice != part.route.decider.slice:
            return part.stream_id
        try:
            return part.route.root(part.command, stream.state)
        except AttributeError:  # a state that does not tell: of an agent run that has mail before it was requested
            return part.stream_id

    # --- the lead of a root ---------------------------------------------------------------------------------------------------

    async def _lead(self, lane: Lane, entry: TurnEntry) -> None:
        """Gives the entry its verdict. What waits in the lane comes along."""
        while entry.verdict is None:
            draft = Draft(entry.request.tenant_id)
            if lane.refresh:
                draft.refresh, lane.refresh = frozenset(lane.refresh), ()
            if await self._join(draft, entry) is not Joined.YES:
                return
            entries, room = [entry], FollowUpRoom(lane.known)
            try:
                if self._follow_ups is not None and self._may_react(entry):
                    room.beside = entry.beside
                    await self._follow_ups.add(draft, room)
                if lane.waiting and not entry.alone:
                    await self._take_along(lane, draft, room, entries)
            except BaseException:
                draft.undo(NOTHING)
                raise
            taken = draft.untie()
            try:
                result = await self._append(draft, taken)
            except VersionConflict as conflict:
                await self._after_conflict(lane, entries, conflict)
            except Exception as error:  # noqa: BLE001  # each gets it as its own
                self._not_appended(lane, draft, entries, error)
            else:
                if result.known:
                    self._known(lane, entries, result)
                else:
                    self._accepted(draft, entries, result)
                    for work in taken:
                        work.appended()
            lane.put_back()

    async def _append(self, draft: Draft, taken: Sequence[TakenWork]) -> AppendResult:
        """Appends the draft. `taken`: the work that is claimed in it. Its takers are told unless all of it is durable."""
        try:
            result = await self._store.append(draft.append_request())
        except BaseException as error:
            refused = isinstance(error, TidelogError) and not isinstance(error, Unavailable)
            for work in taken:
                work.dropped() if refused else work.doubtful()
            raise
        if result.known:
            for work in taken:
                work.dropped()
        return result

    def _may_react(self, entry: TurnEntry) -> bool:
        return not entry.bare and entry.conflicts < CONFLICTS_WITH_FOLLOW_UPS

    async def _join(self, draft: Draft, entry: TurnEntry) -> Joined:
        """Puts the entry's commands into the draft, if they have events. Raises nothing: an error is the entry's verdict."""
        request, parts = entry.request, entry.parts
        while True:
            mark = draft.mark()
            verdict: object
            try:
                decided = await self._deciding.decide(draft, request, parts, entry.expected)
                if decided.number:
                    return Joined.YES
                verdict = NOTHING_TO_DO
            except (DomainError, VersionConflict) as refusal:
                verdict = RefusedCommands(refusal)
            except Exception as error:  # noqa: BLE001  # a stream that cannot be read is the trouble of its own commands
                draft.undo(mark)
                entry.settle(FailedCommands(error))
                return Joined.NO
            draft.undo(mark)
            streams = list(draft.streams) if self._hooks else [part.stream_id for part in parts]  # hooks may have added parts
            if draft.uses(streams):
                return Joined.LATER
            if not draft.reopen(streams):  # decided on what the log holds, not on what this process believes
                entry.settle(verdict)
                return Joined.NO

    async def _take_along(self, lane: Lane, draft: Draft, room: FollowUpRoom, entries: list[TurnEntry]) -> None:
        """Adds what waits, in order, as long as it fits with its follow-ups. Each is decided on what those before it leave."""
        taken, reacts = {entries[0].request.command_id}, self._may_react(entries[0])
        while len(entries) < MAX_TOGETHER and draft.size < MAX_TOGETHER_BYTES and not room.short:
            other = lane.take()
            if other is None:
                return
            if other.alone or self._may_react(other) != reacts or other.request.command_id in taken:
                continue  # a repeat of what is in the append has its turn when the log knows the command
            mark, used = draft.mark(), (room.count, room.size)
            if await self._join(draft, other) is not Joined.YES:
                continue
            room.beside = other.beside
            if self._follow_ups is not None and reacts and not await self._follow_ups.add(draft, room):
                draft.undo(mark)
                room.count, room.size = used
                return
            taken.add(other.request.command_id)
            entries.append(other)

    async def _after_conflict(self, lane: Lane, entries: list[TurnEntry], conflict: VersionConflict) -> None:
        """Another process was faster: what it wrote is read, and all is decided again after a pause. The pause grows."""
        for entry in entries:
            entry.conflicts += 1
            if entry.conflicts > MAX_CONFLICTS:
                entry.settle(FailedCommands(conflict))
        lane.refresh = (conflict.stream_id,)
        if (first := entries[0]).verdict is None:
            pause = random.random() * 0.001 * 2 ** min(first.conflicts - 1, 5)
            if first.conflicts >= CONFLICTS_OF_A_CROWD:
                pause += COMPANY_S
                self._turns.crowd(lane.key)
            lane.put_back()
            await asyncio.sleep(pause)

    def _not_appended(self, lane: Lane, draft: Draft, entries: list[TurnEntry], error: Exception) -> None:
        """The log refused the append. One entry must not suffer for another one, nor a command for its follow-ups.

        An outage is told to those that wait, too: they have waited as long, and would find the same.
        """
        if isinstance(error, Unavailable):
            for entry in (*entries, *lane.waiting):
                entry.settle(FailedCommands(error))
            lane.waiting.clear()
        elif len(entries) > 1:
            for entry in entries:
                entry.alone = True
        elif len(draft.decided) > 1:
            entries[0].bare = True
        else:
            entries[0].settle(FailedCommands(error))

    def _known(self, lane: Lane, entries: list[TurnEntry], result: AppendResult) -> None:
        """Nothing was written, because some of the commands are recorded already: they are taken out."""
        known = dict(result.known)
        for entry in entries:
            if (record := known.pop(entry.request.command_id, None)) is not None:
                entry.settle(record)
        if known and known.keys() <= lane.known:
            entries[0].bare = True  # cannot be, unless the store names commands that it was not given
        lane.known |= known.keys()

    def _accepted(self, draft: Draft, entries: list[TurnEntry], result: AppendResult) -> None:
        first, tenant_id = result.last_position - result.event_count + 1, draft.tenant_id
        for stream in draft.streams.values():
            if stream.decider is not None:
                loaded = stream.after(first)
                self._states.learned(stream.decider, tenant_id, stream.stream_id, loaded, since=stream.base.version)
        if self._hooks:
            self._deciding.told_of_commit(draft.decided, first)
        if len(entries) == 1:
            self._tell(entries[0], draft.decided[0].parts, result.last_position, result)
            return
        places = {id(each.request): place for place, each in enumerate(draft.decided)}
        begins = [places[id(entry.request)] for entry in entries]
        for entry, place, after in zip(entries, begins, [*begins[1:], None], strict=True):
            end = len(draft.events) if after is None else draft.decided[after].first
            self._tell(entry, draft.decided[place].parts, first + end - 1, result)

    def _tell(self, entry: TurnEntry, parts: Sequence[Part], position: int, result: AppendResult) -> None:
        versions = {part.stream_id: part.version for part in parts}
        events = tuple(parts[0].events) if len(parts) == 1 else tuple([event for part in parts for event in part.events])
        entry.settle(CommandOutcome(position, versions, events, result.recorded_at))

    # --- answers ------------------------------------------------------------------------------------------------------------

    async def _answer(self, entry: TurnEntry) -> CommandOutcome:
        """The answer to an entry whose verdict is not an outcome. Raises what the verdict holds."""
        request, parts, verdict = entry.request, entry.parts, entry.verdict
        if isinstance(verdict, FailedCommands):
            raise verdict.error
        if isinstance(verdict, RefusedCommands):
            return await self._repeats.or_raise(request, parts, verdict.error)
        if isinstance(verdict, CommandRecord):
            return await self._repeats.answer(request, parts, verdict)
        if request.repeatable and (outcome := await self._repeats.find(request, parts)) is not None:
            return outcome
        versions = {part.stream_id: part.version for part in parts}
        return CommandOutcome(max(part.position for part in parts), versions, (), None)
