"""The sweeper of sessions: the work of a session that nobody sees any more, or that its worker has left, is dispatched anew.

Time counts against a session only while sessions can be renewed. If the sweeper or the database was away, or no api process takes
sessions, the count begins anew: an outage loses no session. Doing a piece of work twice changes nothing, because ids are derived.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from uuid import UUID

import structlog

from application.engine.background import side_by_side
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.leases import SessionPresence
from application.engine.ports.sessions import KEPT_S, LEASE_S, READY_S, LapsedWork, Look, WorkerSessions
from application.engine.retry import persistently
from domain.errors import Unavailable
from domain.kernel import Command

LOOK_EVERY_S = 1.0
LATE_S = 2.0
"""A look that is later than this, or a clock that differs by more, says that somebody was away."""
WHOLE_EVERY = 30
"""Every so many looks the sweeper also looks for work of sessions that are no longer kept."""
PAGE = 500
MAX_ROOTS_AT_ONCE = 64

Lapse = Callable[[LapsedWork], tuple[CommandRequest, Command]]
"""The command that takes lapsed work away from its session, and its request. The request's id is the same each time."""

log = structlog.get_logger(__name__)


class SteadyTime:
    """For how many seconds sessions could be renewed without a pause, as far as the sweeper saw."""

    def __init__(self, look_every_s: float) -> None:
        self._patience_s = look_every_s + LATE_S
        self._last: tuple[float, Look] | None = None
        self._since = 0.0

    def after(self, began: float, ended: float, look: Look) -> float:
        """Takes a look that was asked for and answered at these times of the sweeper's clock. Returns the seconds."""
        if not self._goes_on(began, ended, look):
            self._since = ended
        self._last = (ended, look)
        return ended - self._since

    def _goes_on(self, began: float, ended: float, look: Look) -> bool:
        if self._last is None or not look.ready or not self._last[1].ready:
            return False
        before, last = self._last
        passed = (look.now - last.now).total_seconds()
        return began - before <= self._patience_s and ended - began <= LATE_S and abs(passed - (ended - before)) <= LATE_S

    def interrupt(self) -> None:
        self._last = None


class SessionSweeper:
    """Looks after all sessions. One process should run it; two do no harm. While no worker has a session, it asks for nothing."""

    def __init__(
        self,
        sessions: WorkerSessions,
        commands: CommandLoop,
        lapse: Lapse,
        presence: SessionPresence,
        *,
        look_every_s: float = LOOK_EVERY_S,
        lease_s: float = LEASE_S,
        ready_s: float = READY_S,
        kept_s: float = KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: seconds that never go back."""
        self._sessions = sessions
        self._commands = commands
        self._lapse = lapse
        self._presence = presence
        self._look_every_s = look_every_s
        self._lease_s = lease_s
        self._ready_s = ready_s
        self._kept_s = kept_s
        self._clock = clock
        self._steady = SteadyTime(look_every_s)
        self._looks = 0
        self._done: set[tuple[UUID, int]] = set()
        """Work and attempts that have lapsed, until the read model knows."""

    async def run(self) -> None:
        """Works until cancelled; outages are waited out."""
        while True:
            if not self._presence.there:
                self._looks = 0  # the next look is a whole one
                await self._presence.wait()
            try:
                await self.sweep()
            except Unavailable as error:
                self._steady.interrupt()
                log.warning("sweep_of_sessions_failed", error=error.message)
            await asyncio.sleep(self._look_every_s)

    async def sweep(self) -> None:
        """One look, and what follows from it. Raises Unavailable."""
        began = self._clock()
        look = await self._sessions.look(lease_s=self._lease_s, ready_s=self._ready_s)
        lost = look.unseen if self._steady.after(began, self._clock(), look) >= self._lease_s else frozenset()
        if lost:
            log.warning("sessions_lost", count=len(lost), sessions=[str(id) for id in sorted(lost)[:10]])
            await self._sessions.lose(sorted(lost), lease_s=self._lease_s)
        whole = self._looks % WHOLE_EVERY == 0
        self._looks += 1
        if look.over or lost or whole:
            await self._lapse_all()
        if look.over and whole:
            await self._sessions.tidy(kept_s=self._kept_s)

    async def _lapse_all(self) -> None:
        after, known = None, set()
        while page := await self._sessions.lapsed(after=after, limit=PAGE):
            after = page[-1].work.work_id
            known |= {_key(lapsed) for lapsed in page}
            if new := [lapsed for lapsed in page if _key(lapsed) not in self._done]:
                await self._lapse_page(new)
        self._done &= known

    async def _lapse_page(self, page: Sequence[LapsedWork]) -> None:
        gate = asyncio.Semaphore(MAX_ROOTS_AT_ONCE)

        async def in_order(of_root: Sequence[LapsedWork]) -> None:
            async with gate:
                for lapsed in of_root:
                    await self._lapse_one(lapsed)

        by_root = groupby(sorted(page, key=lambda one: one.work.root_id), key=lambda one: one.work.root_id)
        await side_by_side(*(in_order(list(of_root)) for _, of_root in by_root))
        log.info("work_lapsed", count=len(page))

    async def _lapse_one(self, lapsed: LapsedWork) -> None:
        request, command = self._lapse(lapsed)
        try:
            await persistently(partial(self._commands.execute, request, command))
        except Exception as error:  # a stream that cannot be folded: the other work must go on
            log.error("lapse_failed", work_id=str(lapsed.work.work_id), root_id=str(lapsed.work.root_id), exc_info=error)
        self._done.add(_key(lapsed))


def _key(lapsed: LapsedWork) -> tuple[UUID, int]:
    return lapsed.work.work_id, lapsed.work.attempt
