"""The bench owns each piece of work from its arrival until its outcome is recorded, a bounded number at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from tidelog.calling import STOP_WAIT_S, end_tasks
from tidelog.crews import Crew
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.logs import log, log_failure
from tidelog.worker.leases import Loss, loss_of
from tidelog.worker.pieces import Kind, Piece
from tidelog.worker.protocol import WorkerApi
from tidelog.worker.slots import Slot, Slots

logger = logging.getLogger(__name__)

FIRST_REMINDER_S, LONGEST_REMINDER_S = 5.0, 600.0
"""Seconds between the log lines about code that does not stop; the pause doubles."""

Run = Callable[[Piece, Slot, Crew], Awaitable[Loss | None]]
"""Executes the code of users in tasks and threads of the crew."""


class Bench:
    """Runs work of one kind (agents or tools). Each kind has a bench of its own, because agents wait for tools."""

    def __init__(
        self, kind: Kind, concurrency: int, run: Run, api: WorkerApi, changed: Callable[[], None], waiting_limit: int = 0
    ) -> None:
        """`changed`: called after `free` has changed. `waiting_limit`: see `Slots`."""
        self._kind = kind
        self._run = run
        self._api = api
        self._concurrency = concurrency
        self._changed = changed
        self._slots = Slots(concurrency, waiting_limit, changed)
        self._in_line = 0
        """Pieces that have no slot yet."""
        self._owners: dict[str, Piece] = {}
        """The newest piece of each work."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[asyncio.Task[None], Crew] = {}
        """Slots of work that is over, but whose code still runs."""

    @property
    def busy(self) -> int:
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many pieces of work could begin now."""
        return max(0, self._slots.free - self._in_line)

    @property
    def waiting(self) -> int:
        """Executions that wait for a tool, a person or a message, and hold no slot."""
        return self._slots.waiting

    @property
    def held(self) -> int:
        """Number of slots that are kept by code that does not stop, though its work is over."""
        return len(self._held)

    def what_does_not_stop(self) -> list[str]:
        """Names and places of the code that keeps slots."""
        return [code for crew in self._held.values() for code in crew.what_runs()]

    @property
    def in_hand(self) -> set[str]:
        """Names of the agents or tools whose work is in hand."""
        return {piece.pool for piece in self._owners.values()}

    def __iter__(self) -> Iterator[Piece]:
        return iter(list(self._owners.values()))

    def find(self, work: str, attempt: int) -> Piece | None:
        """The piece of this attempt, if it is in hand."""
        piece = self._owners.get(work)
        return piece if piece is not None and piece.ticket.attempt == attempt else None

    def offer(self, piece: Piece) -> None:
        """Take over a piece. An attempt of before that is still in hand is lost by it."""
        before = self._owners.get(piece.ticket.work)
        if before is not None:
            before.stop("lost")
        placed = self._slots.take()
        if not placed:
            self._in_line += 1
        task = asyncio.create_task(self._own(piece, placed), name=f"{self._kind} {piece.pool} {piece.ticket.work}")
        self._owners[piece.ticket.work] = piece
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, piece))
        self._changed()

    async def finish(self, grace_s: float) -> None:
        """Let running work end; after `grace_s` seconds stop the rest, which other workers continue.

        Returns within `grace_s` + 2 seconds, whatever the code of users does.
        """
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace_s)
        rest = set(self._tasks)
        for task in rest:
            task.cancel()
        if rest:
            log(logger, logging.INFO, "work_given_back", kind=self._kind, count=len(rest))
            await asyncio.wait(rest, timeout=STOP_WAIT_S + 1)
        await end_tasks(*self._held)

    async def _own(self, piece: Piece, placed: bool) -> None:
        if not placed:
            try:
                await self._slots.acquire()
            finally:
                self._in_line -= 1
                self._changed()
        slot, crew = Slot(self._slots), Crew()
        try:
            loss = await self._work(piece, slot, crew)
        except Exception:
            self._free(slot, crew, piece)
            await self._give_back(piece, "a defect of the worker")
            raise
        except BaseException:  # shutting down: what is left goes to other workers as the worker leaves
            self._free(slot, crew, piece)
            raise
        self._free(slot, crew, piece)
        if loss in (None, "over", "unknown"):
            self._let_go(piece)
        else:
            await self._give_back(piece, loss)

    async def _work(self, piece: Piece, slot: Slot, crew: Crew) -> Loss | None:
        if piece.lease.lost.done():
            return piece.lease.lost.result()
        try:
            return await self._run(piece, slot, crew)
        except (TidelogAPIError, TidelogConnectionError) as error:
            loss = loss_of(error)
            level = logging.DEBUG if loss == "over" else logging.WARNING if loss == "unknown" else logging.ERROR
            log(logger, level, "work_let_go", loss=loss, reason=str(error), **piece.fields())
            return loss

    async def _give_back(self, piece: Piece, reason: str) -> None:
        """The server still counts on this worker for the piece: say that it must not. If the server cannot be told, the piece stays
        in hand for the server until the worker leaves."""
        try:
            await self._api.give_back(piece.ticket, reason)
        except (TidelogAPIError, TidelogConnectionError) as error:
            if loss_of(error) not in ("over", "unknown"):
                log(logger, logging.WARNING, "work_not_given_back", reason=str(error), **piece.fields())
                return
        self._let_go(piece)

    def _let_go(self, piece: Piece) -> None:
        if self._api.session is not None:
            self._api.session.let_go(piece.ticket.work, piece.ticket.attempt)

    def _free(self, slot: Slot, crew: Crew, piece: Piece) -> None:
        """Free the slot of work that is over; code that still runs keeps the slot until its end."""
        if crew.ended:
            slot.end()
            return
        task = asyncio.create_task(self._hold(piece, crew), name=f"hold {piece.ticket.work}")
        self._held[task] = crew
        task.add_done_callback(partial(self._end_hold, slot))

    def _end_hold(self, slot: Slot, task: "asyncio.Task[None]") -> None:
        self._held.pop(task, None)
        slot.end()

    async def _hold(self, piece: Piece, crew: Crew) -> None:
        """Wait for the end of the code, cancel its tasks again from time to time, and say that they keep a slot."""
        seconds, pause_s, fields = 0.0, FIRST_REMINDER_S, piece.fields()
        while not await crew.end_within(pause_s):
            seconds, pause_s = seconds + pause_s, min(pause_s * 2, LONGEST_REMINDER_S)
            log(
                logger, logging.ERROR if self.held >= self._concurrency else logging.WARNING, "code_does_not_stop",
                seconds=seconds, code=crew.what_runs(), slots_held=self.held, slots=self._concurrency, **fields,
            )  # fmt: skip
            crew.cancel()
        if seconds:
            log(logger, logging.INFO, "code_stopped", slots_held=self.held - 1, slots=self._concurrency, **fields)

    def _forget(self, piece: Piece, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._owners.get(piece.ticket.work) is piece:
            del self._owners[piece.ticket.work]
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(logger, "work_crashed", error, **piece.fields())
