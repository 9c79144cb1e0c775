"""All work that one worker has, and the looks at what happens to it."""

import asyncio
from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any
from uuid import UUID

from application.engine.commands.loop import CommandLoop
from application.engine.reading.live import LiveFeed
from application.engine.reading.watches import ANY_VERSION
from application.engine.retry import persistently
from application.workers.hosting.hand import Hand, news_of
from application.workers.hosting.messages import Update
from application.workers.hosting.peer import Peer
from application.workers.journal import Journals

LOOKS_AT_ONCE = 16
"""Pieces of work that are looked at side by side after something has happened to them."""


class Hands:
    """The work that a worker has. What happens to it is told to the worker: pushed when its stream changes, never polled."""

    def __init__(
        self,
        commands: CommandLoop,
        journals: Journals,
        live: LiveFeed,
        tenant_id: UUID,
        peer: Peer,
        start: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        """`start`: starts a task of the session."""
        self._commands = commands
        self._journals = journals
        self._live = live
        self._tenant_id = tenant_id
        self._peer = peer
        self._start = start
        self.held: dict[UUID, Hand] = {}
        self._woken: dict[Hand, None] = {}
        self._looking = self._closed = False

    def new(self, kind: str, work_id: UUID) -> Hand:
        """Work that is about to be claimed or taken back. Its stream is watched from now on."""
        return Hand(kind, work_id, self._live, self.wake, self._forget)

    def has(self, work_id: UUID, attempt: int) -> bool:
        """Whether the worker has this attempt."""
        held = self.held.get(work_id)
        return held is not None and held.attempt == attempt

    def hold(self, hand: Hand) -> None:
        """The worker has the work."""
        if self._closed:
            hand.drop()
            return
        before = self.held.get(hand.work_id)
        if before is not None and before is not hand:
            before.drop()
        self.held[hand.work_id] = hand
        self.look()

    def wake(self, hand: Hand, version: int = ANY_VERSION) -> None:
        """Something may have happened to the work, up to this version of its stream."""
        if not self._closed and not hand.dropped:
            hand.heard = max(hand.heard, version)
            self._woken[hand] = None
            self.look()

    def look(self) -> None:
        """Looks at the work that something may have happened to. Of work that is not handed over yet, the look waits."""
        if not self._looking and self._ready():
            self._looking = True
            self._start(self._look_at_all(), "look")

    def drop(self, work_id: UUID) -> None:
        """The worker does not have the work any more."""
        hand = self.held.pop(work_id, None)
        if hand is not None:
            hand.drop()

    def let_go(self) -> None:
        """The worker hears of no work any more on this connection."""
        self._closed = True
        for hand in list(self.held.values()):
            hand.drop()
        self.held, self._woken = {}, {}

    def _forget(self, hand: Hand) -> None:
        self._woken.pop(hand, None)

    def _ready(self) -> list[Hand]:
        return [hand for hand in self._woken if self.held.get(hand.work_id) is hand and not hand.paging]

    async def _look_at_all(self) -> None:
        try:
            while ready := self._ready():
                some = list(islice(ready, LOOKS_AT_ONCE))
                for hand in some:
                    del self._woken[hand]
                await asyncio.gather(*map(self._look_at, some))
        finally:
            self._looking = False

    async def _look_at(self, hand: Hand) -> None:
        if hand.ending:
            return
        news = await persistently(lambda: news_of(self._commands, self._journals, self._tenant_id, hand))
        if self.held.get(hand.work_id) is not hand or hand.ending or news is None:
            return
        if isinstance(news, Update):
            hand.seen = news.news.version
            self._peer.put(news)
            if news.news.more:
                self._woken[hand] = None
        elif not hand.stopped:
            hand.stopped = True
            self._peer.put(news, urgent=True)
            if hand.kind == "agent" or news.reason != "cancelled":  # the outcome of a cancelled call still counts
                self.drop(hand.work_id)
