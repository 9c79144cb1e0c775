"""Finds out that the history of the log has ended, begins the next one, and keeps one process's knowledge of the histories.

A new history begins when there is proof that the log has lost events: the copies in JetStream, a reader's cursor, a reader of this
process, another server or timeline. It also begins when an operator says so after a restore.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from application.engine.reading.histories import Cursor, Histories, History, HistoryEnded, HistoryStore, LogState, Parting, Server
from domain.errors import PositionBeyondHead, Unavailable

log = structlog.get_logger(__name__)

CHECK_S = 30.0
"""Seconds between two routine checks of the histories. A notification also announces a new history."""
AGAIN_S = 1.0
WITNESS_TIMEOUT_S = 5.0

Witness = Callable[[], Awaitable[Parting | None]]
"""A copy of the log outside the database. Answers None if the copy agrees with the log, or cannot tell. Raises Unavailable."""


class HistoryKeeper:
    """One process's knowledge of the histories. Finds out that the current history has ended, and begins the next one."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._known: Histories | None = None
        self._asking = asyncio.Lock()
        self._asked = 0
        """Number of questions to the database that have begun."""
        self._answered: tuple[int, LogState | Unavailable] | None = None
        """The last answer, and the number of its question."""
        self._seen = 0
        """The highest position that this process has read in the current history."""
        self._server: Server | None = None
        self._forgotten: str | None = None
        """Id of a history that this process knows, but the database no longer does."""
        self._listeners: set[Callable[[], None]] = set()
        self.heard: Callable[[], int] = lambda: 0
        """The newest position that this process has appended or was notified of, after the commit."""
        self.witnesses: list[Witness] = []
        self.changes = 0
        """Number of times that the current history has changed under this process."""

    async def fresh(self) -> LogState:
        """The present histories and head. Callers at the same time share a question to the database. Raises Unavailable."""
        came = self._asked
        async with self._asking:
            if self._answered is None or self._answered[0] <= came:  # an earlier question may not see what the caller knows
                self._asked += 1
                self._answered = (self._asked, await self._ask())
            answer = self._answered[1]
        if isinstance(answer, Unavailable):
            raise answer.with_traceback(None)  # all callers share the error, and each raise would lengthen its traceback
        return answer

    async def _ask(self) -> LogState | Unavailable:
        try:
            return await self._read()
        except Unavailable as error:
            return error

    async def _read(self) -> LogState:
        while True:
            before = self._known
            state = await self._store.read()
            if self._known is before:
                break  # else another reader may have learned something newer meanwhile
        if before is not None and not state.histories.knows(before.current.history_id):
            self._forgotten = before.current.history_id
        self._learn(state.histories)
        return state

    @property
    def known(self) -> Histories | None:
        """The histories of the last answer. None before the first answer."""
        return self._known

    def is_current(self, history_id: str) -> bool:
        """As far as this process knows."""
        return self._known is not None and self._known.current.history_id == history_id

    def saw(self, position: int, changes: int) -> None:
        """Notes that a reader of this process has read the log up to a position. `changes`: its value when the reading began."""
        if position > self._seen and changes == self.changes:
            self._seen = position

    async def must_have(self, position: int) -> None:
        """Raises PositionBeyondHead for a position that was never given out; Unavailable."""
        head = await self.at_most_head(position)
        if position > head:
            raise PositionBeyondHead(position, head)

    async def at_most_head(self, position: int) -> int:
        """The smaller one of the position and the head. Raises Unavailable."""
        # After the history has changed under this process, what it heard of may be of the history before.
        if position <= self._seen or (not self.changes and position <= self.heard()):
            return position
        changes = self.changes
        head = (await self.fresh()).head
        self.saw(head, changes)
        return min(position, head)

    @contextmanager
    def on_change(self, told: Callable[[], None]) -> Iterator[None]:
        """Calls `told` when this process learns that another history is the current one."""
        self._listeners.add(told)
        try:
            yield
        finally:
            self._listeners.discard(told)

    def check_unchanged(self, changes: int) -> None:
        """Raises HistoryEnded if `changes` has another value now."""
        if changes != self.changes:
            raise HistoryEnded("the log has a new history")

    async def until_changed(self, changes: int) -> None:
        """Returns when `changes` has another value."""
        changed = asyncio.Event()
        with self.on_change(changed.set):
            if changes == self.changes:
                await changed.wait()

    async def admit(self, cursor: Cursor | None) -> History:
        """The current history, for a reader who begins at a cursor (None: anywhere). Read the log after this, not before.

        A cursor that was given out and is beyond the head proves that the log has lost its end.
        Raises HistoryReplaced, PositionBeyondHead, Unavailable.
        """
        state = await self.fresh()
        if cursor is None:
            return state.histories.current
        try:
            state.histories.check(cursor, state.head)
        except PositionBeyondHead:
            history = state.histories.find(cursor.history)
            if cursor.history is None or history is None or not history.gave_out(cursor):
                raise
            reason = f"a reader had position {cursor.position}, the log is at {state.head}"
            histories = await self._begin(state.histories, "reader", reason, state.histories.current.last_common)
            histories.check(cursor, state.head)
        return state.histories.current

    async def lost(self, position: int, history_id: str | None, cause: str, reason: str) -> None:
        """Takes notice that a trusted reader had an event of a history which the log does not have. Raises Unavailable."""
        histories = (await self.fresh()).histories
        ended = history_id or histories.all[0].history_id
        if not histories.has_replaced(ended, position):
            await self._begin(histories, cause, reason, histories.current.last_common, replaces=ended)

    async def restored(self, reason: str, last_common: int | None = None) -> tuple[History, History]:
        """Takes notice that an operator has restored the log. Answers the history before, and the one that goes on.

        `last_common` None: the head of the log before the last start of PostgreSQL.
        """
        histories = (await self.fresh()).histories
        mark, server = await self._store.server()
        if last_common is None:
            if mark.server == server and histories.current.began_at > server.started_at:
                return histories.current, histories.current  # another process noticed before
            last_common = mark.position if mark.server != server else mark.earlier_position
        return histories.current, (await self._begin(histories, "restored", reason, last_common)).current

    async def check(self) -> None:
        """Checks that the log still is the one that this process and the mark know. Raises Unavailable."""
        seen, changes = self._seen, self.changes  # asked first: events that are read meanwhile are beyond the present head
        state = await self.fresh()
        mark, server = await self._store.server()
        if (moved := _moved(mark.server, server)) is not None:
            await self._begin(state.histories, "server", moved, mark.position)
        elif self._forgotten is not None and not state.histories.knows(self._forgotten):
            reason = f"history {self._forgotten} is not in the database any more"
            await self._begin(state.histories, "reader", reason, state.histories.current.last_common, replaces=self._forgotten)
        elif state.head < seen and changes == self.changes:
            certain = (
                mark.position if self._server is not None and mark.server == self._server else state.histories.current.last_common
            )
            reason = f"this server had read up to {seen}, the log is at {state.head}"
            await self._begin(state.histories, "reader", reason, certain)
        else:
            self.saw(state.head, changes)
            await self._store.note(server)
        self._forgotten, self._server = None, server

    async def run(self, wait: Callable[[float], Awaitable[None]]) -> None:
        """Checks at each notification, on each new connection and at intervals, until cancelled. `wait` takes seconds."""
        while True:
            try:
                await self.check()
            except Unavailable as error:
                log.info("histories_not_checked", reason=error.message)
                await wait(AGAIN_S)
            else:
                await wait(CHECK_S)

    async def _begin(self, known: Histories, cause: str, reason: str, certain: int, replaces: str | None = None) -> Histories:
        """`certain`: the position up to which the database knows the log to equal the history before. Witnesses may know more."""
        before = known.current.history_id
        replaces = replaces or before
        ended = {replaces, None} if replaces == known.all[0].history_id else {replaces}
        last_common = max([certain, *(parting.position for parting in await self._partings() if parting.history in ended)])
        if await self._store.begin(after=before, replaces=replaces, last_common=last_common, cause=cause, reason=reason):
            log.warning("history_began", replaces=replaces, last_common=last_common, cause=cause, reason=reason)
        return (await self.fresh()).histories

    async def _partings(self) -> list[Parting]:
        found = []
        for witness in self.witnesses:
            try:
                async with asyncio.timeout(WITNESS_TIMEOUT_S):
                    parting = await witness()
            except (Unavailable, TimeoutError) as error:
                log.info("history_without_witness", reason=str(error) or "no answer in time")
            else:
                found += [] if parting is None else [parting]
        return found

    def _learn(self, histories: Histories) -> None:
        known = self._known
        if known is not None and known.current.history_id == histories.current.history_id:
            return
        self._known = histories
        if known is None:
            return
        self._seen = 0
        self.changes += 1
        for told in tuple(self._listeners):
            told()


def _moved(before: Server | None, now: Server) -> str | None:
    """The reason why the server may lack events that the marked server had.

    None: it is the same server, or certainly has them all.
    """
    if before is None:
        return None
    if before.log_id != now.log_id:
        return f"the database was {before.log_id} and is {now.log_id}"
    if None not in (before.timeline, now.timeline) and before.timeline != now.timeline:
        return f"PostgreSQL was on timeline {before.timeline} and is on {now.timeline}"
    return None
