"""Handing over without the queue: a session of this process claims work in the append that requests it.

A slot is set aside before the append, and a permit where the tool has limits, and only where the queue of the agent or tool is
known to be empty: work that waits there goes first. The claim is the same command as that of an item from the queue. So whoever
sends the work to the queue as well does no harm.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

import structlog

from application.engine.commands.request import CommandRequest
from application.engine.ports.queue import WorkItem
from application.engine.retry import persistently
from application.engine.sagas.reactions import ReactionCause
from application.workers import Workers
from application.workers.claims import claim_name
from application.workers.hosting.dispatch import Dispatcher, Pool
from application.workers.hosting.gate import LimitGate
from application.workers.hosting.taker import Taker
from application.workers.sessions import Claimed, claim_of
from domain import runs
from domain.kernel import Command, derive_id

T = TypeVar("T", bound=Taker)
log = structlog.get_logger(__name__)

DOUBTS_S = (0.05, 0.5, 1.5, 4.0, 15.0, 60.0)
"""Pauses, in seconds, after which the log is asked for a claim whose append has no answer: it may still be written."""


class Handover(Generic[T]):
    """Implements the port `WorkTaker` for the sessions of one process."""

    def __init__(self, workers: Workers, dispatcher: Dispatcher[T]) -> None:
        self._workers = workers
        self._dispatcher = dispatcher

    def take(self, item: WorkItem, cause: ReactionCause, state: Any) -> "ClaimedAhead[T] | None":
        pool = self._dispatcher.pool_of(item)
        if (
            pool is None
            or (pool.gate is not None and not pool.gate.is_closed)
            or not pool.is_empty(asyncio.get_running_loop().time())
        ):
            return None
        session = _fitting(pool, item, state)
        if session is None or (pool.limit is not None and not pool.limit.take(item, 0)):
            return None
        needs_run = item.kind == "agent" or state.requested.needs_run
        return ClaimedAhead(self._workers, self._dispatcher, session, item, cause, needs_run=needs_run, gate=pool.limit)


def _fitting(pool: Pool[T], item: WorkItem, state: Any) -> T | None:
    """The session with the most free slots for the version that the work wants. None: the work waits for another one."""
    if item.kind != "agent":
        return pool.best()
    requested = state.requested
    wanted: str | None = requested.agent_version
    if wanted is None:
        return pool.best()
    return pool.best(wanted) or (None if requested.version_asked else pool.best())


class ClaimedAhead(Generic[T]):
    """Implements the port `TakenWork`."""

    def __init__(
        self, workers: Workers, dispatcher: Dispatcher[T], session: T, item: WorkItem, cause: ReactionCause, *, needs_run: bool,
        gate: LimitGate | None,
    ) -> None:  # fmt: skip
        """`needs_run`: the work is for nothing once its run is over. `gate`: has let the call begin. None: there are no limits."""
        assert session.session is not None
        self._workers = workers
        self._dispatcher = dispatcher
        self._session = session
        self._opened = opened = session.session
        self._item = item
        self._gate = gate
        claim = claim_of(opened, item, None if gate is None else gate.holder_of(item))
        self.commands: Sequence[Command] = (claim, runs.CheckRun(run_id=item.root_id)) if needs_run else (claim,)
        name = claim_name(opened.worker_id, item.dispatch, str(uuid4()))
        self.request = CommandRequest(
            item.tenant_id, session.caller.actor, derive_id(item.work_id, name), item.root_id, cause.name, cause.traceparent,
            checked=True, goes_on=True,
        )  # fmt: skip
        self._hand = session.hands.new(item.kind, item.work_id)
        session.slots.reserve(item.kind)
        dispatcher.claiming.add(item.work_id)

    def appended(self) -> None:
        """Hands the work over, at once where nothing has to be loaded: the worker has it before anything else goes on."""
        if self._gate is not None:
            self._gate.claimed(self._item)
        claimed = self._workers.sessions.content_at_once(self._opened, self._item)
        if claimed is None:
            self._dispatcher.start(self._deliver(), self._item)
            return
        try:
            self._hand_over(claimed)
        except Exception:  # the work is claimed all the same, and the caller of the command must learn that
            log.exception("hand_over_failed", kind=self._item.kind, work_id=str(self._item.work_id))

    def dropped(self) -> None:
        self._hand.drop()
        if self._gate is not None:
            self._gate.release(self._item)
        self._session.slots.release(self._item.kind)
        self._dispatcher.claiming.discard(self._item.work_id)

    def doubtful(self) -> None:
        self._session.slots.release(self._item.kind)
        self._dispatcher.start(self._look(), self._item)

    async def _deliver(self) -> None:
        """Hands the work over: the worker has the slot that was set aside."""
        try:
            claimed = await self._content(fresh=False)
        except BaseException:
            self.dropped()
            raise
        if claimed is None:  # cancelled in the same moment
            self.dropped()
            return
        self._hand_over(claimed)

    def _hand_over(self, claimed: Claimed) -> None:
        self._dispatcher.claiming.discard(self._item.work_id)
        self._dispatcher.deliver(self._session, self._hand, claimed, reserved=True)

    async def _look(self) -> None:
        """Hands the work over if the log turns out to have the claim."""
        work_id = self._item.work_id
        try:
            for pause_s in DOUBTS_S:
                await asyncio.sleep(pause_s)
                claimed = await self._content(fresh=True)
                if claimed is not None:
                    if self._gate is not None:
                        self._gate.claimed(self._item)
                    log.info("claim_found", kind=self._item.kind, work_id=str(work_id))
                    self._dispatcher.deliver(self._session, self._hand, claimed, reserved=False)
                    return
            self._hand.drop()
        except BaseException:
            self._hand.drop()
            raise
        finally:
            self._dispatcher.claiming.discard(work_id)
            if self._gate is not None:
                self._gate.release(self._item)

    async def _content(self, *, fresh: bool) -> Claimed | None:
        return await persistently(partial(self._workers.sessions.claimed_content, self._opened, self._item, fresh=fresh))
