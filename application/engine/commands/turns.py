"""Turns: the commands of one root that are under way in one process are decided one after another, and those that wait go together.

The first command of a root has the lead: it is decided and appended at once, and what comes meanwhile waits in the root's lane.
Then the first that waits gets the lead and takes the others along, as many as fit, into one append. No task of its own works for a
lane: the task of the command that has the lead does, and passes the lead on at its end, also when it is cancelled.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

from application.engine.commands.part import Part
from application.engine.commands.request import CommandRequest
from domain.errors import Unavailable

MAX_WAITING = 10_000
"""Commands of one root that may wait for their turn. A further one is refused as Unavailable."""
COMPANY_S = 0.005
"""Seconds that the lead of a crowded root waits for others to take along."""
CROWDED_S = 1.0
"""Seconds for which a root counts as crowded after commands of it met conflict upon conflict."""
MAX_CROWDED = 1_000
"""Roots that are remembered as crowded."""

Key = tuple[int, int]
"""(tenant, root), as numbers: hashing an int costs a tenth of hashing a UUID."""


class TurnEntry:
    """The commands of one call, on their way through a lane."""

    verdict: Any = None
    """What became of the commands. None: nothing yet."""
    waiter: asyncio.Future[None] | None = None
    """Where the caller waits for the verdict, or for the lead."""
    leads = False
    conflicts = 0
    alone = False
    """The log refused an append that had this entry and others: it goes without company."""
    bare = False
    """The log refused an append of this entry with its follow-ups: it goes without them."""
    beside: Sequence[UUID] = ()
    """Roots of streams that many roots share, and for which some of the commands are, or what follows from them."""

    def __init__(self, request: CommandRequest, parts: Sequence[Part], expected: int | None) -> None:
        self.request = request
        self.parts = parts
        self.expected = expected
        """The caller's own condition on the first stream."""

    def settle(self, verdict: Any) -> None:
        self.verdict = verdict
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Lane:
    """The commands of one root that wait, and those that the present lead has taken along."""

    refresh: tuple[UUID, ...] = ()
    """Streams that met a conflict: the next draft reads them."""
    known: frozenset[UUID] = frozenset()
    """Ids of follow-ups that turned out to be recorded."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.waiting: deque[TurnEntry] = deque()
        self.taken: list[TurnEntry] = []

    def take(self) -> TurnEntry | None:
        """The next entry whose caller is still there."""
        while self.waiting:
            entry = self.waiting.popleft()
            if entry.waiter is not None and not entry.waiter.done():
                self.taken.append(entry)
                return entry
        return None

    def put_back(self) -> None:
        """Lets those wait again, in front, that were taken along and have no verdict."""
        if self.taken:
            self.waiting.extendleft(entry for entry in reversed(self.taken) if entry.verdict is None)
            self.taken.clear()


Lead = Callable[[Lane, TurnEntry], Awaitable[None]]


class Turns:
    def __init__(self) -> None:
        self._lanes: dict[Key, Lane] = {}
        self._crowded: OrderedDict[Key, float] = OrderedDict()
        """Root → until when it counts as crowded."""

    async def take(self, key: Key, entries: Sequence[TurnEntry], lead: Lead) -> None:
        """Returns when all entries, of one caller, have a verdict. They have their turns in their order.

        `lead`: gives an entry its verdict, and may take others of the lane along. Raises Unavailable if too many wait.
        """
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key)
            entries[0].leads = True
        elif len(lane.waiting) >= MAX_WAITING:
            raise Unavailable(f"{MAX_WAITING:,} commands of this root wait already")
        for entry in entries:
            if not entry.leads:
                entry.waiter = asyncio.get_running_loop().create_future()
                lane.waiting.append(entry)
        try:
            for entry in entries:
                if entry.waiter is not None:
                    await entry.waiter
                if entry.leads:
                    await self._lead(lane, entry, lead)
        except BaseException:
            self._leave(lane, entries)
            raise

    async def _lead(self, lane: Lane, entry: TurnEntry, lead: Lead) -> None:
        if self._crowded and self.is_crowded(lane.key):
            await asyncio.sleep(COMPANY_S)
        await lead(lane, entry)
        entry.leads = False
        self._pass_on(lane)

    def _leave(self, lane: Lane, entries: Sequence[TurnEntry]) -> None:
        """The caller has gone: nobody may wait for its entries."""
        for entry in entries:
            if entry.waiter is not None:
                entry.waiter.cancel()
        if any(entry.leads for entry in entries):
            self._pass_on(lane)

    def _pass_on(self, lane: Lane) -> None:
        """Gives the lead to the first that waits. Without one, the lane is closed."""
        lane.put_back()
        while lane.waiting:
            entry = lane.waiting.popleft()
            if entry.waiter is not None and not entry.waiter.done():
                entry.leads = True
                entry.waiter.set_result(None)
                return
        del self._lanes[lane.key]

    def crowd(self, key: Key) -> None:
        """Commands of this root meet conflicts: its next commands wait for company."""
        self._crowded[key] = asyncio.get_running_loop().time() + CROWDED_S
        self._crowded.move_to_end(key)
        if len(self._crowded) > MAX_CROWDED:
            self._crowded.popitem(last=False)

    def is_crowded(self, key: Key) -> bool:
        until = self._crowded.get(key)
        if until is None:
            return False
        if until < asyncio.get_running_loop().time():
            del self._crowded[key]
            return False
        return True
