"""Tells the server how far one execution is: at once at first, then only the newest, and the less often the longer it takes.

Nothing waits for a note, and no note fails the agent.
"""

import asyncio
import logging

from tidelog.calling import end_tasks
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.inbox import NOBODY
from tidelog.logs import log
from tidelog.progress import Progress
from tidelog.worker.pieces import Piece
from tidelog.worker.protocol import WorkerApi

logger = logging.getLogger(__name__)

SHORTEST_S, LONGEST_S = 1.0, 60.0
"""Between two notes. It is a hundredth of the time that the execution has taken, within these bounds: an hour has 460 of them."""
SHARE = 0.01
FLUSH_S = 1.0


class Progressing:
    def __init__(self, api: WorkerApi, piece: Piece) -> None:
        self._api = api
        self._piece = piece
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._next = self._began
        """When the next note may be sent."""
        self._newest: Progress | None = None
        """What waits to be sent."""
        self._told: Progress | None = None
        self._looking = False
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, note: Progress) -> None:
        """Takes a note, in any thread."""
        self._newest = note
        if not self._looking and not self._closed:
            self._looking = True
            self._loop.call_soon_threadsafe(self._look, context=NOBODY)

    async def flush(self) -> None:
        """Sends the newest note before what the caller says next, however soon it comes."""
        self._stop()
        if self._newest is None and self._sending is None:
            return
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=FLUSH_S)
        if self._sending is None:
            self._send()
        if self._sending is not None:
            await asyncio.wait({self._sending}, timeout=FLUSH_S)

    async def close(self) -> None:
        self._closed = True
        self._stop()
        if self._sending is not None:
            await end_tasks(self._sending)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._looking = False
        if self._closed or self._newest is None or self._sending is not None or self._timer is not None:
            return
        left_s = self._next - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._send, context=NOBODY)
        else:
            self._send()

    def _send(self) -> None:
        self._stop()
        note, self._newest = self._newest, None
        session = self._api.session
        if note is None or note == self._told or session is None or not session.progress or self._closed:
            return
        self._told, now = note, self._loop.time()
        self._next = now + min(LONGEST_S, max(SHORTEST_S, (now - self._began) * SHARE))
        what = f"progress of {self._piece.ticket.work}"
        self._sending = self._loop.create_task(self._report(note), name=what, context=NOBODY)

    async def _report(self, note: Progress) -> None:
        try:
            await self._api.report_progress(self._piece.ticket, note)
        except (TidelogAPIError, TidelogConnectionError) as error:  # what is wrong with the work, its own reports will learn
            log(logger, logging.DEBUG, "progress_not_told", reason=str(error), **self._piece.fields())
        finally:
            self._sending = None
            self._look()
