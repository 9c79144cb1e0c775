"""The reports of one worker, and the answers to them, in order for each piece of work."""

from collections.abc import Callable, Sequence
from uuid import UUID

import structlog

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller
from application.engine.retry import persistently
from application.workers import Workers
from application.workers.hosting.hand import Hand
from application.workers.hosting.hands import Hands
from application.workers.hosting.lanes import Lanes
from application.workers.hosting.looking import kind_for
from application.workers.hosting.messages import (
    AnyReport,
    Complete,
    Done,
    Fail,
    InvalidToken,
    More,
    Reconciled,
    Record,
    Refused,
    Return,
    Suspend,
)
from application.workers.hosting.peer import Peer
from application.workers.hosting.reports import carry_out, steps_of, together, waiters_first
from domain.errors import TidelogError, Unavailable, VersionConflict

log = structlog.get_logger(__name__)

ENDS = Complete | Fail | Reconciled | Return | Suspend
"""Reports after which the worker does not have the work any more."""


class Answering:
    """Answers the reports of a session. Each piece of work has a lane of its own."""

    def __init__(
        self, workers: Workers, commands: CommandLoop, caller: Caller, peer: Peer, hands: Hands, session_id: Callable[[], UUID]
    ) -> None:
        """`session_id`: of the session, once its worker was welcomed. No report comes before."""
        self._workers = workers
        self._commands = commands
        self._caller = caller
        self._peer = peer
        self._hands = hands
        self._session_id = session_id
        self.lanes = Lanes(self._answer)

    async def _answer(self, reports: Sequence[AnyReport]) -> int:
        """Answers the first of the reports that wait about one piece of work; of several steps, those that were recorded together.

        Returns how many it has answered.
        """
        hand = self._hands.held.get(reports[0].work)
        steps = steps_of(reports, hand) if len(reports) > 1 else ()
        answered = await self._record(steps, hand) if len(steps) > 1 else 0
        if not answered:
            await self._handle_one(reports[0], hand)
        return answered or 1

    async def _record(self, steps: Sequence[Record], hand: Hand | None) -> int:
        """Records steps together. Returns how many it has answered: those before the first that has to be tried again."""
        answered = 0
        for step, answer in await together(self._workers.journals, self._caller, steps):
            if isinstance(answer, Unavailable | VersionConflict):
                break
            if isinstance(answer, Exception):
                self._refuse(step, answer, hand)
            else:
                self._peer.put(answer)
            answered += 1
        return answered

    async def _handle_one(self, report: AnyReport, hand: Hand | None) -> None:
        if hand is not None and isinstance(report, ENDS):
            hand.ending = True
        try:
            kind = await self._kind_for(report)
            if isinstance(report, Return):
                done = await persistently(lambda: self._take_over(kind, report))
            else:
                done = await persistently(lambda: carry_out(self._workers, self._commands, self._caller, kind, report))
        except Exception as error:  # noqa: BLE001  # a defect is an answer, too
            self._refuse(report, error, hand)
        else:
            ends = isinstance(report, ENDS)
            if isinstance(report, Suspend) and not done.fields["suspended"]:
                ends = False  # the worker is about to hear of what has come
                self._go_on(hand)
            if ends:
                await waiters_first()  # the client waits for the end of the run, the worker for nothing
            self._peer.put(done, alone=not ends and self.lanes.open == 1)
            if ends and self._hands.held.get(report.work) is hand:  # else the worker has got the call anew, to ask about its effect
                self._hands.drop(report.work)
            elif isinstance(report, More) and done.page is not None and hand is not None:
                hand.seen, hand.paging = max(hand.seen, done.page.version), done.page.more
                self._hands.look()

    async def _take_over(self, kind: str, report: Return) -> Done:
        log.info("work_returned", work_id=str(report.work), attempt=report.attempt, reason=report.reason)
        await self._workers.sessions.returned(self._caller.tenant_id, self._session_id(), kind, report.work, report.attempt)
        return Done(report.id)

    def _refuse(self, report: AnyReport, error: Exception, hand: Hand | None) -> None:
        if not isinstance(error, TidelogError):
            log.error("report_failed", type=report.t, work_id=str(report.work), exc_info=error)
        self._peer.put(Refused(report.id, error))
        self._go_on(hand)

    def _go_on(self, hand: Hand | None) -> None:
        """The worker has the work after all."""
        if hand is not None and hand.ending:
            hand.ending = False
            self._hands.wake(hand)

    async def _kind_for(self, report: AnyReport) -> str:
        """The kind of the work that a report is about. Raises InvalidToken: the report is not about work of this session."""
        hand = self._hands.held.get(report.work)
        if hand is not None and hand.fits(report):
            return hand.kind
        session_id, tokens = self._session_id(), self._workers.sessions.tokens
        tenant_id, work = self._caller.tenant_id, (report.work, report.attempt, report.token)
        kind = await persistently(lambda: kind_for(self._commands, tokens, tenant_id, session_id, *work))
        if kind is None:
            raise InvalidToken("the token is not the one of this work, attempt and session", pointer="/token")
        return kind
