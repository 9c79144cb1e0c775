"""The bench owns each piece of work from its delivery to its acknowledgement, a bounded number at a time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from tidelog.calling import STOP_WAIT_S, end_tasks
from tidelog.crews import Crew
from tidelog.errors import TidelogAPIError, TidelogConnectionError
from tidelog.logs import log, log_failure
from tidelog.worker.deliveries import Delivery
from tidelog.worker.leases import Loss, loss_of
from tidelog.worker.slots import Slot, Slots
from tidelog.worker.tasks import going_on

logger = logging.getLogger(__name__)

HOLD_S = 1.0
"""Seconds that a message may wait here for a free slot before it is given back to other workers."""
NAK_DELAY_S: dict[Loss, float] = {"unavailable": 5.0, "refused": 30.0}
HANDOVER_DELAY_S = 0.1
UNKNOWN_TRIES = 6
"""Deliveries of one message, in about five minutes, after which work of our log that the server does not know is dropped."""

FIRST_REMINDER_S, LONGEST_REMINDER_S = 5.0, 600.0
"""Seconds between the log lines about code that does not stop; the pause doubles."""

Run = Callable[[Delivery, Slot, Crew], Awaitable[Loss | None]]
"""Executes the code of users in tasks and threads of the crew."""


class Bench:
    """Runs deliveries of one kind (agents or tools). Each kind has a bench of its own, because agents wait for tools."""

    def __init__(self, kind: str, concurrency: int, run: Run, waiting_limit: int = 0) -> None:
        """`waiting_limit`: see `Slots`."""
        self._kind = kind
        self._run = run
        self._concurrency = concurrency
        self._slots = Slots(concurrency, waiting_limit)
        self._owners: dict[UUID, tuple[Delivery, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[asyncio.Task[None], Crew] = {}
        """Slots of work that is over, but whose code still runs."""

    @property
    def busy(self) -> int:
        return len(self._tasks)

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

    async def wait_free(self) -> None:
        async with self._slots:
            return

    @property
    def in_hand(self) -> set[str]:
        """Names of the agents or tools whose work is in hand."""
        return {delivery.work.pool for delivery, _ in self._owners.values()}

    def offer(self, delivery: Delivery) -> None:
        """Take over a delivery. Work that is already in hand is not started twice: its heartbeat goes on with the new delivery."""
        held = self._owners.get(delivery.work.work_id)
        if held is not None and held[0].work.dispatch == delivery.work.dispatch:
            held[0].reply = delivery.reply
            return
        task = asyncio.create_task(self._own(delivery), name=f"{self._kind} {delivery.work.pool} {delivery.work.work_id}")
        self._owners[delivery.work.work_id] = (delivery, task)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(delivery, done))

    async def finish(self, grace_s: float) -> None:
        """Let running work end; after `grace_s` seconds give the rest back, so that other workers continue it.

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

    async def _own(self, delivery: Delivery) -> None:
        name = f"keep {delivery.work.work_id}"
        keeper = asyncio.create_task(going_on(name, delivery.keep), name=name)
        settled = False
        try:
            async with asyncio.timeout(HOLD_S):
                await self._slots.acquire()
        except TimeoutError:
            keeper.cancel()
            await delivery.nak(0)
            return
        except asyncio.CancelledError:
            keeper.cancel()
            await delivery.nak(HANDOVER_DELAY_S)
            raise
        slot, crew = Slot(self._slots), Crew()
        try:
            loss = await self._work(delivery, slot, crew)
            settled = True
        finally:
            keeper.cancel()
            self._free(slot, crew, delivery)
            if not settled:  # shutting down, or a defect of the worker: another worker continues
                await delivery.nak(HANDOVER_DELAY_S)
        if loss is None or loss == "over":
            await delivery.ack()
        elif loss == "unknown":
            await self._set_aside(delivery)
        else:
            await delivery.nak(NAK_DELAY_S[loss])

    async def _set_aside(self, delivery: Delivery) -> None:
        """Give back work that the server does not know; the server of another worker may know it.

        Only work that names our own log is dropped in the end: that log lost the work, as after a restore from a backup. Without
        the drop the message would count as unacknowledged for ever, and a queue with too many such messages stands still.
        """
        work = delivery.work
        fields = {"kind": self._kind, "pool": work.pool, "work_id": work.work_id, "log_id": work.log_id}
        if delivery.of_our_log and delivery.number >= UNKNOWN_TRIES:
            await delivery.ack()
            log(logger, logging.WARNING, "unknown_work_dropped", deliveries=delivery.number, **fields)
        else:
            log(logger, logging.WARNING, "work_not_known", again_in_s=await delivery.set_aside(), **fields)

    def _free(self, slot: Slot, crew: Crew, delivery: Delivery) -> None:
        """Free the slot of work that is over; code that still runs keeps the slot until its end."""
        if crew.ended:
            slot.end()
            return
        task = asyncio.create_task(self._hold(delivery, crew), name=f"hold {delivery.work.work_id}")
        self._held[task] = crew
        task.add_done_callback(partial(self._let_go, slot))

    def _let_go(self, slot: Slot, task: "asyncio.Task[None]") -> None:
        self._held.pop(task, None)
        slot.end()

    async def _hold(self, delivery: Delivery, crew: Crew) -> None:
        """Wait for the end of the code, cancel its tasks again from time to time, and say that they keep a slot."""
        work, seconds, pause_s = delivery.work, 0.0, FIRST_REMINDER_S
        fields = {"kind": self._kind, "pool": work.pool, "work_id": work.work_id, "run_id": work.root_id}
        while not await crew.end_within(pause_s):
            seconds, pause_s = seconds + pause_s, min(pause_s * 2, LONGEST_REMINDER_S)
            log(
                logger, logging.ERROR if self.held >= self._concurrency else logging.WARNING, "code_does_not_stop",
                seconds=seconds, code=crew.what_runs(), slots_held=self.held, slots=self._concurrency, **fields,
            )  # fmt: skip
            crew.cancel()
        if seconds:
            log(logger, logging.INFO, "code_stopped", slots_held=self.held - 1, slots=self._concurrency, **fields)

    async def _work(self, delivery: Delivery, slot: Slot, crew: Crew) -> Loss | None:
        try:
            return await self._run(delivery, slot, crew)
        except (TidelogAPIError, TidelogConnectionError) as error:
            loss = loss_of(error)
            level = logging.DEBUG if loss in ("over", "unknown") else logging.ERROR
            log(
                logger,
                level,
                "work_let_go",
                kind=self._kind,
                pool=delivery.work.pool,
                work_id=delivery.work.work_id,
                run_id=delivery.work.root_id,
                loss=loss,
                reason=str(error),
            )
            return loss

    def _forget(self, delivery: Delivery, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._owners.get(delivery.work.work_id, (None, None))[1] is task:
            del self._owners[delivery.work.work_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(
                logger,
                "work_crashed",
                error,
                kind=self._kind,
                pool=delivery.work.pool,
                work_id=delivery.work.work_id,
                run_id=delivery.work.root_id,
            )
