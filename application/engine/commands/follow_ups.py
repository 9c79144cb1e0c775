"""Reactions in the append that causes them: what the saga manager would do later is decided at once, where it can be.

Breadth first: the commands that follow from the events of one command, in the order of the events and of the sagas, then those that
follow from their events. All or nothing for each event and saga: the answer is in the append as a whole, and the saga's bit in the
mask of the event says so, or none of it is, and the saga manager gives it. Where one saga's answer to an event is left to the
manager, the answers of the sagas after it are, too: sagas react to an event in the order of the catalog.
"""

from collections.abc import Sequence
from uuid import UUID

import structlog

from application.engine.catalog import Catalog, SagaHandler
from application.engine.commands.deciding import Deciding
from application.engine.commands.draft import Decided, Draft
from application.engine.commands.handing import WorkTaker
from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import NotRecordedYet, Reaction, ReactionCause, name_of, request_for
from domain.errors import DomainError, TidelogError, Unavailable
from domain.kernel import Command

MAX_FOLLOW_UPS = 128
"""Follow-ups of one append."""
MAX_ROOTS = 16
"""Roots that begin in one append: what follows in them finds room, too, and goes not into an append for each."""
MAX_FOLLOW_UP_BYTES = 256 * 1024
"""Sum of the events of all follow-ups of one append, in bytes."""

log = structlog.get_logger(__name__)


class LeftToManager(Exception):
    """An answer is not for this append."""


class FollowUpRoom:
    """What the follow-ups of one append have used of their bounds."""

    count = 0
    size = 0
    roots = 0
    """Roots that have begun, or were about to."""
    short = False
    """An answer did not fit."""
    closed = False
    """Streams cannot be loaded at present: nothing more is tried."""
    beside: Sequence[UUID] = ()
    """Roots beside that of the causes whose streams an answer may be for."""

    def __init__(self, known: frozenset[UUID]) -> None:
        self.known = known
        """Ids of follow-ups that were recorded before. They are not appended again."""


class FollowUps:
    taker: WorkTaker | None = None
    """Who may claim work in the append that requests it."""

    def __init__(self, deciding: Deciding, catalog: Catalog) -> None:
        self._deciding = deciding
        self._handlers = catalog.handlers
        self._routes = catalog.routes

    async def add(self, draft: Draft, room: FollowUpRoom) -> bool:
        """Adds to the draft what follows from the last commands in it, and from that in turn. False: some did not fit."""
        place = len(draft.decided) - 1
        while place < len(draft.decided):
            decided = draft.decided[place]
            for number in range(decided.first, decided.first + decided.number):
                handlers = self._handlers.get(type(draft.events[number].event))
                if handlers is not None:
                    await self._react(draft, decided, number, handlers, room)
            place += 1
        return not room.short

    async def _react(
        self, draft: Draft, decided: Decided, number: int, handlers: Sequence[SagaHandler], room: FollowUpRoom
    ) -> None:
        """Adds the answers of all sagas to one event, as far as they are for this append."""
        drafted, request = draft.events[number], decided.request
        stream = drafted.stream
        root_id = stream.root_id or stream.stream_id
        cause = ReactionCause(
            draft.tenant_id, stream.stream_id, drafted.version, root_id, drafted.event.TOPIC,
            request.correlation_id, request.traceparent, decided.on_behalf_of,
        )  # fmt: skip
        for saga, bit, handler in handlers:
            if not bit:
                continue
            mark, used = draft.mark(), (room.count, room.size)
            try:
                answer = handler(drafted.event, cause)
                commands = [each for each in answer if isinstance(each, Command)]
                if len(commands) < len(answer):
                    if len(answer) > 1 or not await self._taken(draft, cause, answer[0], room):
                        continue  # work goes to the queue once the event is recorded
                    draft.settled[number] = draft.settled.get(number, 0) | bit
                    continue
                await self._answer(draft, cause, saga, commands, room)
            except Exception as error:  # noqa: BLE001  # the first command is never refused because of a follow-up
                draft.undo(mark)
                room.count, room.size = used
                self._note(saga, cause, error)
                return
            draft.settled[number] = draft.settled.get(number, 0) | bit

    async def _taken(self, draft: Draft, cause: ReactionCause, answer: Reaction, room: FollowUpRoom) -> bool:
        """Whether somebody claims the work in this append. Where the claim does not come about, the draft has nothing of it."""
        if self.taker is None or room.closed or room.count >= MAX_FOLLOW_UPS or not isinstance(answer, WorkItem):
            return False
        work = self.taker.take(answer, cause, draft.streams[cause.stream_id].state)
        if work is None:
            return False
        mark, size = draft.mark(), draft.size
        try:
            await self._deciding.decide(draft, work.request, self._deciding.parts(work.request, work.commands))
        except BaseException as error:
            draft.undo(mark)
            work.dropped()
            if not isinstance(error, Exception):
                raise
            self._note("hand_over", cause, error)
            return False
        draft.takes(work)
        room.count += 1
        room.size += draft.size - size
        return True

    async def _answer(self, draft: Draft, cause: ReactionCause, saga: str, commands: Sequence[Command], room: FollowUpRoom) -> None:
        """Adds one answer of one saga. After an error the draft has some of it."""
        if commands and room.closed:
            raise LeftToManager("streams cannot be loaded")
        if room.count + len(commands) > MAX_FOLLOW_UPS:
            room.short = True
            raise LeftToManager("too many follow-ups")
        for index, command in enumerate(commands):
            size = draft.size
            await self._one(draft, cause, name_of(saga, cause, index), command, room)
            room.count += 1
            room.size += draft.size - size
            if room.size > MAX_FOLLOW_UP_BYTES:
                room.short = True
                raise LeftToManager("too large")

    async def _one(self, draft: Draft, cause: ReactionCause, name: str, command: Command, room: FollowUpRoom) -> None:
        request = request_for(cause, name, self._routes[type(command)], command)
        if request.command_id in room.known:
            raise LeftToManager("recorded before")
        parts = self._deciding.parts(request, [command])
        try:
            mark = draft.mark()
            try:
                await self._deciding.decide(draft, request, parts)
            except DomainError:  # refused on a state that this process only believes: the log is asked
                draft.undo(mark)
                streams = [part.stream_id for part in parts]
                if draft.uses(streams) or not draft.reopen(streams):
                    raise
                await self._deciding.decide(draft, request, parts)
        except Unavailable:
            room.closed = True
            raise
        stream = draft.streams[parts[0].stream_id]
        if stream.root_id is None:  # nothing was decided, and no event has told the root
            stream.root_id = parts[0].route.root(command, stream.state) if stream.version else cause.root_id
        if stream.root_id != cause.root_id and stream.root_id not in room.beside:
            if not stream.begins_root:
                raise LeftToManager("the stream has another root")
            room.roots += 1
            if room.roots > MAX_ROOTS:
                room.short = True
                raise LeftToManager("too many roots")

    def _note(self, saga: str, cause: ReactionCause, error: Exception) -> None:
        told = log.debug if isinstance(error, TidelogError | LeftToManager | NotRecordedYet) else log.warning
        told("reaction_left_to_manager", saga=saga, cause=cause.name, topic=cause.topic, error=f"{type(error).__name__}: {error}")
