"""What a worker that comes back gets: the work that it still has, and the work that it claimed and that never reached it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.sessions import HeldWork
from application.engine.retry import persistently
from application.workers.claimed import ClaimedWork
from application.workers.hosting.claiming import Claiming
from application.workers.hosting.messages import InHand, Stop
from application.workers.hosting.peer import Peer
from application.workers.hosting.taker import Taker
from application.workers.sessions import SessionWork

AT_ONCE = 16
"""Pieces of work that are looked at side by side when a worker comes back."""


class TakingBack:
    """The return of one worker."""

    def __init__(
        self,
        taker: Taker,
        peer: Peer,
        work: SessionWork,
        claimed: ClaimedWork,
        claiming: Claiming,
        reports_wait: Callable[[UUID], bool],
        start: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        """`reports_wait`: whether reports about a piece of work have no answer yet. `start`: starts a task of the session."""
        self._taker = taker
        self._peer = peer
        self._work = work
        self._claimed = claimed
        self._claiming = claiming
        self._reports_wait = reports_wait
        self._start = start
        self._sending: set[UUID] = set()
        self._end_following: Callable[[], None] = lambda: None

    async def take(self, in_hand: Sequence[InHand]) -> None:
        """The worker has come back with work. What is not its any more, it is told to stop."""
        for start in range(0, len(in_hand), AT_ONCE):
            await asyncio.gather(*map(self._take, in_hand[start : start + AT_ONCE]))

    async def _take(self, one: InHand) -> None:
        kind = await persistently(lambda: self._work.may_report(self._taker.tenant_id, one.work, one.attempt, one.token))
        if kind is None:
            self._peer.put(Stop(one.work, one.attempt, "lost"), urgent=True)
            return
        hands = self._taker.hands
        if one.work in hands.held or self._taker.is_over:
            return
        hand = hands.new(kind, one.work)
        hand.attempt, hand.token, hand.seen = one.attempt, one.token, one.version
        hands.hold(hand)
        hands.wake(hand)  # the worker may have missed something

    async def send_claimed(self) -> None:
        """Sends the work that the log gives this session and that never reached the worker, under the same attempt.

        Claims that other processes record later are heard of, and their work follows.
        """
        session = self._taker.session
        assert session is not None
        self._end_following = self._claimed.follow(session.session_id, self._send_later)
        held = await persistently(lambda: self._claimed.of(session))
        for start in range(0, len(held), AT_ONCE):
            await asyncio.gather(*map(self._send, held[start : start + AT_ONCE]))

    def _send_later(self, work: HeldWork) -> None:
        if not self._is_known(work.work_id):
            self._start(self._send(work), "send-claimed")

    def _is_known(self, work_id: UUID) -> bool:
        """Whether the worker has the work, as far as this session knows."""
        return work_id in self._taker.hands.held or self._reports_wait(work_id)

    async def _send(self, work: HeldWork) -> None:
        if work.work_id in self._sending:
            return
        self._sending.add(work.work_id)
        try:
            # This process hands the work over, or finds out that another one has claimed it.
            await self._claiming.over(work.work_id)
            if not self._is_known(work.work_id) and not self._taker.is_over:
                await self._send_unknown(work)
        finally:
            self._sending.discard(work.work_id)

    async def _send_unknown(self, work: HeldWork) -> None:
        hands = self._taker.hands
        hand = hands.new(work.kind, work.work_id)
        try:
            content = await persistently(lambda: self._work.content_of(work))
        except BaseException:
            hand.drop()
            raise
        if content is None or self._taker.is_over or self._is_known(work.work_id):
            hand.drop()
        else:
            self._taker.hand_over(hand, content, reserved=False)

    def close(self) -> None:
        """The connection is over."""
        self._end_following()
