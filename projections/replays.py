"""Runs as the log holds them at this moment, independent of read models. Callers at the same time share the reading.

A thousand requests that wait for their runs to end ask a thousand times, most of them in the same moment. One statement reads all
runs that are asked for in one turn of the event loop, and one statement is under way at a time. So the number of statements grows
with time, not with the callers.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.engine.ports.log import EventFeed
from application.engine.retry import persistently
from application.reads import CurrentRun
from application.views.parts import OpenParts
from application.views.runs import RunView
from domain.errors import Unavailable
from domain.kernel import RecordedEvent
from projections.engine.kernel import TURN
from projections.runs import evolve_view
from projections.runs.folded import replay as replayed

MAX_ASKED = 100_000
"""Number of runs that may wait to be read. The next caller gets Unavailable."""
TOGETHER = 256
"""Runs that one statement reads."""
PAGE = 250
"""Events of each run that one statement reads at most. A longer run goes on with the next statement."""
ROWS = 8_192
"""Events that one statement reads at most. Of many runs it reads fewer events each."""

log = structlog.get_logger(__name__)


class _Replay:
    """One run's replay, and those who wait for it."""

    __slots__ = ("after", "askers", "done", "key", "parts", "view")

    def __init__(self, key: tuple[UUID, UUID]) -> None:
        self.key = key
        self.view: RunView | None = None
        self.parts = OpenParts()
        self.after = 0
        self.askers = 0
        self.done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None = None) -> None:
        if not self.done.done():
            self.done.set_result(error)


class RunReplays:
    """Reads runs for all callers of this process. The owner closes it."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        self._joinable: dict[tuple[UUID, UUID], _Replay] = {}
        """Replays whose first statement is still to come. A new caller for the same run shares it."""
        self._queue: deque[_Replay] = deque()
        self._reader = OnDemand(self._read_all, "run-replays")

    async def close(self) -> None:
        await self._reader.close()

    async def now(self, tenant_id: UUID, run_id: UUID) -> CurrentRun | None:
        """The run with all events that were recorded before the call; None if there is no such run. Callers share the view: read it
        only.

        An outage of the database is waited out, so callers set a time-out. Raises Unavailable if too many callers wait.
        """
        key = (tenant_id, run_id)
        replay = self._joinable.get(key)
        if replay is None:
            if len(self._queue) >= MAX_ASKED:
                raise Unavailable(f"{len(self._queue)} runs wait already to be read")
            self._reader.start()
            replay = self._joinable[key] = _Replay(key)
            self._queue.append(replay)
        replay.askers += 1
        try:
            error = await asyncio.shield(replay.done)
        finally:
            replay.askers -= 1
        if error is not None:
            raise error.with_traceback(None)  # all callers share the error, and each raise would lengthen its traceback
        return None if replay.view is None else CurrentRun(replay.view, replay.parts)

    def of(self, events: Sequence[RecordedEvent]) -> RunView:
        view = replayed(events)
        assert view is not None
        return view

    async def _read_all(self) -> None:
        while self._queue:
            await self._gathered()
            replays = [self._queue.popleft() for _ in range(min(TOGETHER, len(self._queue)))]
            for replay in replays:
                self._joinable.pop(replay.key, None)
            try:
                await self._go_on([replay for replay in replays if replay.askers])
            except Exception as error:
                log.exception("runs_not_replayed", runs=len(replays))
                for replay in replays:
                    replay.settle(error)

    async def _gathered(self) -> None:
        """Returns when a statement is full, or when a turn of the event loop has brought no further run."""
        before = 0
        while before < len(self._queue) < TOGETHER:
            before = len(self._queue)
            await asyncio.sleep(0)

    async def _go_on(self, replays: list[_Replay]) -> None:
        """Takes each replay a page further. Replays that are not at their end come again."""
        if not replays:
            return
        places = [(*replay.key, replay.after) for replay in replays]
        limit = min(PAGE, ROWS // len(replays))
        pages: defaultdict[UUID, list[RecordedEvent]] = defaultdict(list)
        for recorded in await persistently(lambda: self._feed.read_roots(places, limit=limit)):
            pages[recorded.root_id].append(recorded)
        folded = 0
        for replay in replays:
            page = pages[replay.key[1]]
            folded += len(page)
            if folded >= TURN:  # in between the event loop serves others
                folded = 0
                await asyncio.sleep(0)
            try:
                for recorded in page:
                    replay.view = evolve_view(replay.view, recorded)
                replay.parts = replay.parts.after(page)
            except Exception as error:
                log.exception("run_not_replayed", run_id=str(replay.key[1]))
                replay.settle(error)
                continue
            if len(page) < limit:
                replay.settle()
            else:
                replay.after = page[-1].position
                self._queue.append(replay)
