"""Waiting for the end of a run: for callers that start a run and want its outcome in the same answer."""

import asyncio
import time
from typing import Self
from uuid import UUID

from application.engine.reading.live import LiveFeed
from application.reads import CurrentRuns
from application.views.parts import OpenParts
from application.views.runs import RunView
from domain.errors import NotFound, Unavailable
from domain.runs import ENDS

LAST_READ_S = 5.0
"""Seconds for reading the run from the log, beside the time of the wait. Many waits may be over in the same moment."""
BEGIN_S = 1.0
"""Seconds that a wait gives the live feed to begin. A watch that begins without the feed is woken once more than needed."""


class RunEnd:
    """The end of one run, to wait for in a block (`async with`). Thousands may wait, so each wait keeps little."""

    __slots__ = ("_following", "_live", "_run_id", "_runs", "_tenant_id", "_watch", "_watching")

    def __init__(self, live: LiveFeed, runs: CurrentRuns, tenant_id: UUID, run_id: UUID) -> None:
        self._live = live
        self._runs = runs
        self._tenant_id = tenant_id
        self._run_id = run_id

    async def __aenter__(self) -> Self:
        if not self._live.reading:
            await self._live.begun(BEGIN_S)
        self._watching = self._live.watch(self._run_id, ENDS)
        self._watch = self._watching.__enter__()
        self._following = self._live.own.following(self._tenant_id, self._run_id)
        self._following.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._following.__exit__(None, None, None)
        self._watching.__exit__()

    async def view(self, seconds: float, *, may_be_over: bool) -> RunView | None:
        """The run at its end, or in its state after the time. None if no such run exists.

        `may_be_over`: the run may have ended before the watch began, so the run is read before the wait.

        Raises Unavailable, and TimeoutError: the log could not be read in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            if not may_be_over and not self._live.closed:
                await self._watch.next(max(deadline - time.monotonic(), 0))
            if (view := self._own()) is not None:
                return view
            async with asyncio.timeout(max(deadline - time.monotonic(), 0) + LAST_READ_S):
                run = await self._runs.now(self._tenant_id, self._run_id)
            if run is None or run.parts.ended or time.monotonic() >= deadline or self._live.closed:
                return None if run is None else run.view
            may_be_over = False

    def _own(self) -> RunView | None:
        """The run at its end, if this process has appended all of it. Then no query is made.

        Nothing can be missing: the streams are complete from their first events on, and everything that began in the run has ended.
        What another process appends to a stream of the run would be a gap there, or the end of a part that has none here.
        """
        events = self._live.own.whole(self._tenant_id, self._run_id)
        return self._runs.of(events) if events and OpenParts().after(events).over else None


def watching_end(live: LiveFeed, runs: CurrentRuns, tenant_id: UUID, run_id: UUID) -> RunEnd:
    """Watches for the end of a run. Enter the block before the run is started, so that the end is not missed.

    While nothing ends, a watch costs no query: this process's own appends and the live feed wake those whose run has ended. A run
    that this process has carried through is known to it; one statement reads all other runs that ended together.
    """
    return RunEnd(live, runs, tenant_id, run_id)


async def ended_run(live: LiveFeed, runs: CurrentRuns, tenant_id: UUID, run_id: UUID, seconds: float) -> RunView:
    """A run that may have begun at any time: as it is at its end, or after the time. Raises NotFound, Unavailable."""
    try:
        async with watching_end(live, runs, tenant_id, run_id) as end, asyncio.timeout(seconds + LAST_READ_S):
            view = await end.view(seconds, may_be_over=True)
    except TimeoutError:
        raise Unavailable("the database did not answer in time") from None
    if view is None:
        raise NotFound(f"there is no run {run_id}")
    return view
