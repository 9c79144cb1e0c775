"""Dispatch: pulls work for the agents and tools of this process's sessions, claims each piece for a session, and hands it over.

There is one pool for each agent and each tool of a tenant, and one request at the queue for each pool at a time. Nothing is asked
for without a free slot. A session that offers many agents shares its slots among their requests. So more may come than there are
slots at that moment: such items wait for a short time, and then go back to the queue.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import structlog

from application.engine.background import TaskEnded, end
from application.engine.commands.loop import CommandLoop
from application.engine.ports.queue import Delivery, Queue, WorkItem, WorkPuller, WorkQueue
from application.engine.retry import persistently
from application.workers import Workers
from application.workers.hosting.breakers import Breakers, ToolGate
from application.workers.hosting.claiming import Claiming
from application.workers.hosting.credit import KINDS, SLOTS
from application.workers.hosting.gate import LimitGate
from application.workers.hosting.gates import LimitGates
from application.workers.hosting.hand import DECIDERS, Hand
from application.workers.hosting.looking import version_of
from application.workers.hosting.taker import Taker
from application.workers.sessions import Claimed
from domain import runs
from domain.errors import TidelogError, Unavailable

T = TypeVar("T", bound=Taker)
log = structlog.get_logger(__name__)

MOST_ASKED = 100
"""Items that one request asks for at most."""
PAUSE_S = 1.0
"""Seconds before a lost pull is made anew, on average."""
QUIET_S = 0.02
"""After so many seconds without an item for a request that waits, a queue counts as empty. Items take a millisecond."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Seconds until an item that no session of this process can take is delivered again. The pause doubles with each delivery."""


class Pool(Generic[T]):
    """The queue of one agent or tool, and the sessions that offer it."""

    def __init__(self, tenant_id: UUID, queue: Queue) -> None:
        self.tenant_id = tenant_id
        self.queue = queue
        self.gate: ToolGate | None = None
        """The breaker of a tool."""
        self.offers: dict[T, str] = {}
        """Session → the version that it offers, the newest offer last."""
        self.waiting: deque[Delivery] = deque()
        self.is_lost = False
        """The last request was lost, or could not be made."""
        self.starved = False
        """No session has had a free slot for a while."""
        self.changed = asyncio.Event()
        self.asked = 0
        """Items of the request under way."""
        self.limit: LimitGate | None = None
        """The limits of the tool. None: the work has none, or they are not known yet, and nothing is asked for."""
        self.kept_at = 0.0
        """When the queue was told last that the items which wait are kept."""
        self.moved_at = 0.0
        """When the request under way was made, or the last item came (seconds of the loop's clock)."""

    def best(self, version: str | None = None) -> T | None:
        """The session with the most free slots, among those that offer a version. None: no slot is free."""
        found: T | None = None
        most = 0
        for session, offered in self.offers.items():
            if version in (None, offered) and (free := session.free(self.queue.kind)) >= max(1, most):
                found, most = session, free
        return found

    def is_empty(self, now: float) -> bool:
        """Whether the queue is known to hold nothing: a request waits, and nothing has come for a while."""
        return self.asked > 0 and not self.waiting and now - self.moved_at >= QUIET_S

    def share(self) -> int:
        """The number of items to ask for: of each session its free slots, divided by the number of its pools. 0: no free slot."""
        kind, share = self.queue.kind, 0
        for session in self.offers:
            if free := session.free(kind):
                share += max(1, free // max(1, len(session.offered(kind))))
        return min(share, MOST_ASKED if self.limit is None else self.limit.room(), MOST_ASKED)

    def slots(self) -> int:
        """Free slots of all sessions that offer it."""
        return sum(session.free(self.queue.kind) for session in self.offers)


class Dispatcher(Generic[T]):
    """Owns the pools of a process and the claims under way."""

    def __init__(
        self, workers: Workers, commands: CommandLoop, queue: WorkQueue, breakers: Breakers, heir: Callable[[T], T | None],
        gates: LimitGates,
    ) -> None:  # fmt: skip
        """`heir`: the session that a worker has now, if the worker has come back meanwhile."""
        self._workers = workers
        self._commands = commands
        self._queue = queue
        self._breakers = breakers
        self._heir = heir
        self._gates = gates
        self._pools: dict[tuple[UUID, str, str], Pool[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims: set[asyncio.Task[None]] = set()
        self._failure: TaskEnded | None = None
        self._closed = False
        self.claiming = Claiming()

    @property
    def pools(self) -> Collection[Pool[T]]:
        """The agents and tools that sessions of this process offer."""
        return self._pools.values()

    def pool_of(self, item: WorkItem) -> Pool[T] | None:
        """The pool that an item is for. None: no session of this process offers the agent or tool."""
        return self._pools.get((item.tenant_id, item.kind, item.pool))

    # --- sessions say ---------------------------------------------------------------------------------------------------------

    def offer(self, session: T, queue: Queue, version: str) -> None:
        """A session offers an agent or a tool."""
        key = (session.tenant_id, queue.kind, queue.pool)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(session.tenant_id, queue)
            pool.gate = self._breakers.follow(session.tenant_id, queue.pool) if queue.kind == "tool" else None
            task = asyncio.create_task(self._serve(pool), name=f"work-of-{queue.kind}-{queue.pool}")
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        pool.offers.pop(session, None)
        pool.offers[session] = version
        pool.changed.set()

    def withdraw(self, session: T, kind: str, name: str) -> None:
        """A session no longer offers an agent or a tool."""
        pool = self._pools.get((session.tenant_id, kind, name))
        if pool is not None and pool.offers.pop(session, None) is not None:
            pool.starved = True
            pool.changed.set()

    def credit_grew(self, session: T, kind: str) -> None:
        """A session has more free slots. Requests under way go on as they are."""
        for pool in self._pools_of(session, kind):
            if pool.waiting or not pool.asked:
                pool.changed.set()

    def starved(self, session: T, kind: str) -> None:
        """A session has had no free slot for a while."""
        for pool in self._pools_of(session, kind):
            if (pool.waiting or pool.asked) and not pool.share():
                pool.starved = True
                pool.changed.set()

    def _pools_of(self, session: T, slots: str) -> Iterator[Pool[T]]:
        """The pools of a session whose work takes slots of a kind."""
        for kind in KINDS:
            if SLOTS[kind] == slots:
                for name in session.offered(kind):
                    if (pool := self._pools.get((session.tenant_id, kind, name))) is not None:
                        yield pool

    # --- the loop of a pool -----------------------------------------------------------------------------------------------------

    async def _serve(self, pool: Pool[T]) -> None:
        while pool.offers:
            try:
                await self._open_gate(pool)
                await self._pull(pool)
            except Unavailable as error:
                tell, pool.is_lost = log.debug if pool.is_lost else log.info, True
                tell("pull_lost", kind=pool.queue.kind, pool=pool.queue.pool, reason=error.message)
                # The next pull makes a consumer anew that is gone. Items that are held come again then, and their claims say so.
                await asyncio.sleep(PAUSE_S * random.uniform(0.5, 1.5))
        del self._pools[pool.tenant_id, pool.queue.kind, pool.queue.pool]
        if pool.gate is not None:
            self._breakers.unfollow(pool.gate)

    async def _open_gate(self, pool: Pool[T]) -> None:
        """Learns what the tool declares about its calls. Raises Unavailable."""
        if pool.queue.kind == "tool":
            gate = await self._gates.open(pool.tenant_id, pool.queue.pool)
            gate.changed, gate.free = pool.changed.set, pool.slots
            pool.limit = gate

    async def _pull(self, pool: Pool[T]) -> None:
        """Until no session offers the pool. Raises Unavailable."""
        puller = self._queue.puller(pool.queue, pool.changed.set)
        try:
            while pool.offers:
                pool.changed.clear()
                if arrived := puller.arrived():
                    pool.waiting.extend(arrived)
                    pool.moved_at = asyncio.get_running_loop().time()
                self._place(pool)
                share = pool.share()
                if share:
                    pool.starved = False
                    if not puller.asked:
                        await puller.ask(share)
                        pool.is_lost = False
                        pool.moved_at = asyncio.get_running_loop().time()
                elif pool.starved:
                    await self._starve(pool, puller)
                pool.asked = puller.asked
                await self._until_changed(pool)
        finally:
            pool.asked = 0
            await self._starve(pool, puller)
            await puller.close()

    async def _until_changed(self, pool: Pool[T]) -> None:
        """Waits until something has happened to the pool. What waits for a permit meanwhile is kept from other processes."""
        clock, every_s = asyncio.get_running_loop().time, self._queue.ack_wait_s / 3
        if not pool.waiting:
            pool.kept_at = clock() + every_s  # an item that comes is kept from then on by itself
        while pool.waiting and not pool.changed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pool.kept_at + every_s - clock())):
                    await pool.changed.wait()
            if clock() >= pool.kept_at + every_s:
                pool.kept_at = clock()
                for delivery in pool.waiting:
                    await delivery.in_progress()
        await pool.changed.wait()

    async def _starve(self, pool: Pool[T], puller: WorkPuller) -> None:
        """Takes the request back, and gives back what waits."""
        pool.starved = False
        try:
            if puller.asked:
                await puller.stop()
            pool.waiting.extend(puller.arrived())
        except Unavailable as error:
            log.debug("pull_not_taken_back", pool=pool.queue.pool, reason=error.message)
        while pool.waiting:
            await self._give_back(pool.waiting.popleft(), 0.0)

    def _place(self, pool: Pool[T]) -> None:
        """Begins a claim for each item that waits and finds a free slot, and a permit where the tool has limits."""
        gate = pool.limit
        while pool.waiting and (session := pool.best()) is not None:
            if gate is not None and not gate.take(pool.waiting[0].item, len(pool.waiting)):
                return
            delivery = pool.waiting.popleft()
            session.slots.reserve(pool.queue.kind)
            self.start(self._claim_or_release(pool, session, delivery), delivery.item)
        if gate is not None:
            gate.waits(0)

    async def _claim_or_release(self, pool: Pool[T], session: T, delivery: Delivery) -> None:
        """As `_claim`. The permit of a call whose claim came to nothing is free again."""
        try:
            await self._claim(pool, session, delivery)
        finally:
            if pool.limit is not None:
                pool.limit.release(delivery.item)

    def start(self, work: Coroutine[Any, Any, None], item: WorkItem) -> None:
        """Starts a task for one item. The task ends with this object, at the latest."""
        task = asyncio.create_task(work, name=f"claim-{item.work_id}")
        self._claims.add(task)
        task.add_done_callback(self._claims.discard)

    # --- one item -----------------------------------------------------------------------------------------------------------------

    async def _claim(self, pool: Pool[T], session: T, delivery: Delivery) -> None:
        """Claims an item for a session, hands the work over, and acknowledges the item: from then on the log has the work."""
        item = delivery.item
        self.claiming.add(item.work_id)
        try:
            await self._commands.meet(item.tenant_id, {item.root_id: runs.DECIDER, item.work_id: DECIDERS[item.kind]})
            fitting = await self._fitting(pool, session, item)
            if fitting is None:
                log.info("no_worker_of_the_version", agent=item.pool, agent_run_id=str(item.work_id), deliveries=delivery.number)
                session.slots.release(item.kind)
                await self._give_back(delivery, _pause_s(delivery.number))
                return None
            session = fitting
            if pool.gate is not None and not pool.gate.is_closed and await self._put_off(pool.gate, delivery):
                session.slots.release(item.kind)
                return None
            if await self._handed_over(pool, session, item):
                return await self._ack(delivery)
            if pool.gate is not None:
                pool.gate.not_called(item.work_id)
            session.slots.release(item.kind)
            await self._ack(delivery)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if isinstance(error, TidelogError):
                log.warning("claim_refused", kind=item.kind, pool=item.pool, work_id=str(item.work_id), reason=error.message)
            else:
                log.exception("claim_failed", kind=item.kind, pool=item.pool, work_id=str(item.work_id))
            if pool.gate is not None:
                pool.gate.not_called(item.work_id)
            session.slots.release(item.kind)
            await self._give_back(delivery, _pause_s(delivery.number))
        finally:
            self.claiming.discard(item.work_id)

    async def _put_off(self, gate: ToolGate, delivery: Delivery) -> bool:
        """Whether the breaker keeps the tool of an item from being called. Raises TidelogError."""
        put_off = await self._breakers.admit(gate, delivery.item)
        if put_off is None:
            return False
        if put_off.again_s is None:
            await self._ack(delivery)
        else:
            await self._give_back(delivery, put_off.again_s)
        return True

    async def _fitting(self, pool: Pool[T], session: T, item: WorkItem) -> T | None:
        """The session for an item, with a reserved slot: one of the version that the step asks for or notes, if there is a choice.

        None: the step asks for a version that no session of this process offers, or none with a free slot.
        """
        if item.kind != "agent":
            return session
        wanted = await persistently(lambda: version_of(self._commands, item.tenant_id, item.work_id))
        if wanted.version is None or pool.offers.get(session) == wanted.version:
            return session
        other = pool.best(wanted.version)
        if other is None:
            return None if wanted.asked else session
        other.slots.reserve(item.kind)
        session.slots.release(item.kind)
        return other

    async def _handed_over(self, pool: Pool[T], session: T, item: WorkItem) -> bool:
        """Claims an item and hands the work over. False: the claim came to nothing. Raises TidelogError, but not Unavailable."""
        assert session.session is not None
        claim_id = uuid4()
        hand = session.hands.new(item.kind, item.work_id)
        try:
            # Without an end: whether a claim was recorded must be known, or the work would stay with a session that has not got it.
            opened, permit = session.session, None if pool.limit is None else pool.limit.holder_of(item)
            claimed = await persistently(lambda: self._workers.sessions.claim(session.caller, opened, item, claim_id, permit))
        except BaseException:
            hand.drop()
            raise
        if claimed is None:
            hand.drop()
            return False
        if pool.limit is not None:
            pool.limit.claimed(item)
        self.deliver(session, hand, claimed, reserved=True)
        return True

    def deliver(self, session: T, hand: Hand, claimed: Claimed, *, reserved: bool) -> None:
        """Hands over work that a session has claimed. `reserved`: a slot was kept for it.

        Two claims may find that the session has the work, where the append of the first was in doubt. The work is handed over once:
        a worker reads nothing of work that it has, and would not learn of what happened between the two.
        """
        if not session.is_over:
            if session.hands.has(hand.work_id, claimed.attempt):
                hand.drop()
                if reserved:
                    session.slots.release(hand.kind)
            else:
                session.hand_over(hand, claimed, reserved=reserved)
            return
        hand.drop()
        if (heir := self._heir(session)) is not None:
            if not heir.hands.has(hand.work_id, claimed.attempt):
                heir.hand_over(heir.hands.new(hand.kind, hand.work_id), claimed, reserved=False)
        else:  # the worker gets the work when it comes back, or the claim lapses with the session
            log.info("claimed_for_a_lost_session", kind=hand.kind, work_id=str(hand.work_id))

    async def _ack(self, delivery: Delivery) -> None:
        try:
            await delivery.ack()
        except Unavailable as error:  # the item comes again, and the claim is refused
            log.debug("work_not_acknowledged", work_id=str(delivery.item.work_id), reason=error.message)

    async def _give_back(self, delivery: Delivery, delay_s: float) -> None:
        try:
            await delivery.give_back(delay_s)
        except Unavailable as error:  # the queue delivers the item again after the ack wait
            log.debug("work_not_given_back", work_id=str(delivery.item.work_id), reason=error.message)

    # --- the end ------------------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises TaskEnded if the task of a pool has ended by itself."""
        if self._failure is not None:
            raise self._failure

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._closed and (task.cancelled() or task.exception() is not None):
            self._failure = self._failure or TaskEnded.of(task, task.get_name())

    async def close(self) -> None:
        """Ends all pulls, and gives back what nobody has claimed."""
        self._closed = True
        await end(*self._tasks, *self._claims)


def _pause_s(deliveries: int) -> float:
    return min(FIRST_PAUSE_S * 2.0 ** min(deliveries - 1, 16), LONGEST_PAUSE_S)
