"""The limits of one tool as one process keeps them: calls at once (permits) and calls that begin (tokens), over all processes.

This process holds a part of the permits of the tool and draws tokens in portions, by one question to the tool's row for many calls
(`PermitBook.settle`). So a call takes what the process has, without a question. What others wait for is given back when a call
ends; others are told, and nobody polls. A permit belongs to the process that claimed the call, until the log says that the attempt
is over, wherever the worker's session is by then.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from uuid import UUID

import structlog

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.ports.permits import PermitBook, Settled, ToolLimits, Wanted
from application.engine.ports.queue import WorkItem
from application.engine.reading.live import LiveFeed
from domain import invocations
from domain.errors import TidelogError, Unavailable
from domain.invocations import Invocation

KEPT_S = 30.0
"""Seconds for which permits are kept that no call uses and nobody else waits for."""
TOKENS_KEPT_S = 1.0
TICK_S = 1.0
AGAIN_S = 5.0
"""Whoever waits asks again after so many seconds: a word of others may be lost."""
COUNTING_S = 0.5
ALL = 2**31 - 1
MOST_ASKED = 1_000
PORTIONS = 8
"""Tokens drawn ahead are at most so small a part of the bucket."""
AHEAD_S = 0.25
"""Seconds for which tokens are drawn ahead, at the full rate."""

ENDS = frozenset(
    event.TOPIC
    for event in (
        invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationRetryScheduled,
        invocations.InvocationRequeued, invocations.InvocationBecameAmbiguous, invocations.InvocationResolved,
        invocations.InvocationCancelled, invocations.InvocationReconcileRequested, invocations.InvocationFellBack,
    )
)  # fmt: skip
"""Events after which an attempt may be over."""
log = structlog.get_logger(__name__)

Work = tuple[UUID, int]
"""The invocation and its dispatch."""


class InUse(NamedTuple):
    """What all gates of a process have."""

    permits: int
    waiting: int
    tokens: int


@dataclass(slots=True)
class Use:
    """A permit or a token of a call that is being claimed or goes on."""

    holder_id: UUID
    permit: bool
    token: bool
    end_watch: Callable[[], None]
    claimed: bool = False
    heard: int = 0


class Holder(Protocol):
    """What a gate needs of its process."""

    book: PermitBook
    commands: CommandLoop
    live: LiveFeed
    clock: Callable[[], float]
    holder_id: UUID
    closed: bool

    def is_fresh(self) -> bool:
        """Whether what this process holds may be used."""
        ...

    def renewed(self, asked_at: float) -> None:
        """The holder was seen, by a question that was asked then."""
        ...

    def lose(self, holder_id: UUID) -> None:
        """A holder is over."""
        ...

    def look(self, gate: "LimitGate", work: Work) -> None:
        """Calls `look` of the gate soon."""
        ...


class LimitGate:
    """The limits of one tool in this process. `take` lets a call begin, or does not."""

    def __init__(self, gates: Holder, tenant_id: UUID, tool: str) -> None:
        self.tenant_id = tenant_id
        self.tool = tool
        self.limits = ToolLimits(0)
        self.waiting = 0
        """Calls at hand that have a worker with a free slot, and got no permit or no token."""
        self.changed: Callable[[], None] = lambda: None
        """Called when calls that wait may begin."""
        self.free: Callable[[], int] = lambda: 0
        """Free slots of the workers here."""
        self._gates = gates
        self._uses: dict[Work, Use] = {}
        self._permits = 0
        """Uses with a permit."""
        self._held = 0
        self._bound: int | None = None
        """What a question under way keeps. None: no question is under way."""
        self._yielded = 0
        """Permits whose calls are over and that others wait for: they are about to be given back."""
        self._contended, self._share = False, 0
        self._tokens: deque[float] = deque()
        """When each drawn token may be spent."""
        self._spent = 0
        self._back = False
        self._silent_until = self._used_at = self._asked_at = 0.0
        self._hold_s = 0.0
        self._dirty = False
        self._answered: tuple[int, ...] | None = None
        """What the last question said. The same is not asked again for nothing."""
        self._asking = OnDemand(self._settle, f"permits-of-{tool}")
        self._ticking: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None

    # --- calls ----------------------------------------------------------------------------------------------------------------

    def take(self, item: WorkItem, waiting: int = 1) -> bool:
        """Lets a call begin. False: it waits for a permit or a token. `waiting`: calls at hand, with this one."""
        use = self._uses.get((item.work_id, item.dispatch))
        if not self.limits.any or (use is not None and use.claimed):  # a claim is refused that was made before
            return True
        now, limits, is_fresh = self._gates.clock(), self.limits, self._gates.is_fresh()
        lacks_permit = limits.max_parallel is not None and (not is_fresh or self._permits >= self._ceiling())
        lacks_token = limits.calls is not None and (not is_fresh or not self._has_token(now))
        if lacks_permit or lacks_token:
            self.waits(waiting)
            return False
        if limits.calls is not None:
            self._tokens.popleft()
            self._spent += 1
        self._begin(item, limits)
        self._used_at = now
        if limits.calls is not None and len(self._tokens) <= self._ahead() // 2 and self._ahead():
            self._ask()
        self._tick_later()
        return True

    def _begin(self, item: WorkItem, limits: ToolLimits) -> None:
        work, permit = (item.work_id, item.dispatch), limits.max_parallel is not None
        self.release(item)
        watch = self._gates.live.call(item.work_id, ENDS, partial(self._heard, work)) if permit else lambda: None
        self._uses[work] = Use(self._gates.holder_id, permit, limits.calls is not None, watch)
        self._permits += permit

    def holder_of(self, item: WorkItem) -> UUID | None:
        """Whose permit a call has that is being claimed. None: it needs none."""
        use = self._uses.get((item.work_id, item.dispatch))
        return use.holder_id if use is not None and use.permit else None

    def claimed(self, item: WorkItem) -> None:
        """The attempt is in the log: it has its permit until the log has its end."""
        work = (item.work_id, item.dispatch)
        if (use := self._uses.get(work)) is None:
            return
        use.claimed = True
        if not use.permit:
            self._drop(work)
        elif use.heard:
            self._heard(work, use.heard)

    def release(self, item: WorkItem) -> None:
        """A call that was let begin was not claimed after all. Does nothing for one that was."""
        work = (item.work_id, item.dispatch)
        use = self._uses.get(work)
        if use is None or use.claimed:
            return
        if use.token and use.holder_id == self._gates.holder_id and self._spent:
            self._spent -= 1
            self._tokens.appendleft(self._gates.clock())
        self._drop(work)

    def _heard(self, work: Work, version: int) -> None:
        use = self._uses.get(work)
        if use is None:
            return
        use.heard = max(use.heard, version)
        if not use.claimed:
            return
        known = self._gates.commands.known(invocations.DECIDER, self.tenant_id, work[0])
        if known is not None and known.version >= use.heard:
            use.heard = 0
            self._look(work, known.state)
        else:
            self._gates.look(self, work)

    async def look(self, work: Work) -> None:
        """Another process has recorded something about a call. Raises Unavailable."""
        use = self._uses.get(work)
        if use is not None:
            use.heard = 0
            self._look(work, (await self._gates.commands.load(invocations.DECIDER, self.tenant_id, work[0])).state)

    def _look(self, work: Work, call: Invocation) -> None:
        if call.status != "started" or call.dispatch != work[1]:
            self._drop(work)

    def _drop(self, work: Work) -> None:
        if (use := self._uses.pop(work, None)) is None:
            return
        use.end_watch()
        if use.permit and use.holder_id == self._gates.holder_id:
            self._permits -= 1
            if self._contended and self._held - self._yielded > max(0, self._share):
                self._yielded += 1
                self._ask()
            elif self._contended and self._held > self._kept():
                self._ask()
            self._tick_later()
        if self.waiting:
            self.changed()

    def waits(self, calls: int) -> None:
        """So many calls at hand could begin, but for the limits."""
        before, self.waiting = self.waiting, calls if self.limits.any else 0
        if before and not self.waiting and self._contended:
            self._ask()  # others need not wait for what this process wanted
        if self.waiting:
            if self._said() != self._answered or not self._gates.is_fresh():
                self._ask()
            self._tick_later()
            self._alarm_at_token()

    def room(self) -> int:
        """How many further calls may be fetched from the queue: those that may begin, or one to wait."""
        if self.limits.max_parallel is None:
            return MOST_ASKED
        return max(0 if self.waiting else 1, self._ceiling() - self._permits)

    # --- what others say ------------------------------------------------------------------------------------------------------

    def declared(self, limits: ToolLimits) -> None:
        """The tool declares these limits now."""
        if limits.declared < self.limits.declared or limits == self.limits:
            return
        self._take_limits(limits)
        if limits.any or self._uses or self._held:
            self.told()
        self.changed()

    def _take_limits(self, limits: ToolLimits) -> None:
        before, self.limits = self.limits, limits
        if limits.max_parallel != before.max_parallel:  # how many there are over all processes, the next answer says
            self._contended, self._share = True, -1
        if (limits.calls, limits.per_s) != (before.calls, before.per_s):
            self._back = True
        if not limits.any:
            self.waiting = 0

    def told(self) -> None:
        """Something may have changed for this process."""
        if self._held or self._tokens or self.waiting or self._uses or self._contended:
            self._answered = None
            self._ask()

    def hold(self, seconds: float) -> None:
        """The service behind the tool asks for silence."""
        if self.limits.calls is not None:
            self._silent_until = max(self._silent_until, self._gates.clock() + seconds)
            self._hold_s = max(self._hold_s, seconds)
            self._ask()

    def lost(self) -> None:
        """The holder of before is over. What goes on keeps its permits under that holder."""
        self._held, self._permits, self._spent, self._tokens = 0, 0, 0, deque()
        self._contended, self._share, self._yielded, self._answered = False, 0, 0, None
        if self.waiting:
            self._ask()

    # --- the question -----------------------------------------------------------------------------------------------------------

    def _ceiling(self) -> int:
        """Permits that calls of this process may have at this moment."""
        held = self._held if self._bound is None else min(self._held, self._bound)
        return self._permits if self._contended and self._share < 0 else held - self._yielded

    def _kept(self) -> int:
        """Permits that this process keeps while others wait."""
        waiting = self.waiting if self._share >= 0 else 0
        return max(self._permits, min(self._permits + waiting, self._held - self._yielded))

    def _has_token(self, now: float) -> bool:
        return not self._back and now >= self._silent_until and bool(self._tokens) and self._tokens[0] <= now

    def _ahead(self) -> int:
        """Tokens to draw ahead of calls."""
        calls, per_s = self.limits.calls, self.limits.per_s
        return 0 if calls is None or per_s is None else min(calls // PORTIONS, int(calls / per_s * AHEAD_S), MOST_ASKED)

    def _said(self) -> tuple[int, ...]:
        return self._permits, self.waiting, len(self._tokens), self._held, self.limits.declared

    def _ask(self) -> None:
        self._dirty = True
        if self._gates.closed:
            return
        try:
            self._asking.start()
        except Unavailable:
            log.debug("permits_not_asked", tool=self.tool)

    def _wanted(self, now: float) -> Wanted:
        """What this process keeps and needs. Takes the tokens that it gives back."""
        used, limits = self._permits, self.limits
        keep = want = like = used
        if limits.max_parallel is not None:
            want = used + self.waiting
            is_idle = now - self._used_at >= KEPT_S and not self.waiting
            if self._contended:
                keep = self._kept()
            elif not is_idle:
                keep = max(used, self._held)
                like = min(limits.max_parallel, max(want, used + self.free())) if self.waiting else 0
            if keep >= self._held:  # others may have given some that this process has not heard of yet
                keep = ALL
        back, ask = 0, 0
        is_quiet = now - self._used_at >= TOKENS_KEPT_S and not self.waiting
        if self._back or is_quiet:
            back, self._tokens, self._back = len(self._tokens), deque(), False
        if limits.calls is not None:
            room = self.waiting if limits.max_parallel is None else min(self.waiting, max(1, self._ceiling() - used))
            left = len(self._tokens)
            promised = bool(self._tokens) and self._tokens[0] > now
            if not promised and not is_quiet:
                ahead = self._ahead()
                ask = max(0, min(room, MOST_ASKED, limits.calls) - left, ahead - left if left <= ahead // 2 else 0)
        return Wanted(keep, want, like, self._spent, back, ask, self._hold_s)

    async def _settle(self) -> None:
        while self._dirty and not self._gates.closed:
            self._dirty = False
            now, holder_id, said = self._gates.clock(), self._gates.holder_id, self._said()
            wanted = self._wanted(now)
            self._bound, self._hold_s, yielded = wanted.keep, 0.0, self._yielded
            try:
                answer = await self._gates.book.settle(self.tenant_id, self.tool, holder_id, self.limits, wanted)
            except TidelogError as error:  # whether it was settled is not known
                self._bound = None
                self._hold_s = max(self._hold_s, wanted.hold_s)
                log.info("permits_not_settled", tool=self.tool, reason=error.message)
                self._gates.lose(holder_id)
                await asyncio.sleep(TICK_S)
                self._dirty = self._dirty or self.waiting > 0 or self._hold_s > 0
                continue
            self._bound, self._yielded = None, max(0, self._yielded - yielded)
            if answer is None:
                self._hold_s = max(self._hold_s, wanted.hold_s)
                self._gates.lose(holder_id)
                self._dirty = self._dirty or self.waiting > 0
            elif holder_id == self._gates.holder_id:
                self._answered = (*said[:2], len(self._tokens) + answer.granted, answer.held, answer.limits.declared)
                self._hear(answer, wanted, now)

    def _hear(self, answer: Settled, wanted: Wanted, asked_at: float) -> None:
        now, limits = self._gates.clock(), self.limits
        self._gates.renewed(asked_at)
        self._asked_at = now
        self._held, self._contended, self._share = answer.held, answer.contended, answer.share
        self._spent -= wanted.spent
        step = limits.per_s / limits.calls if answer.wait_s and limits.calls and limits.per_s else 0.0
        self._tokens.extend(now + answer.wait_s + number * step for number in range(answer.granted))
        if answer.hold_s:
            self._silent_until = max(self._silent_until, now + answer.hold_s)
        if answer.limits.declared > limits.declared:  # another process has heard of it before
            self._take_limits(answer.limits)
            self._dirty = True
        if self._contended and self._held > self._kept():
            self._dirty = True  # gives back what others wait for
        if self.waiting and answer.counting:
            self._alarm_in(COUNTING_S)
        elif self.waiting and not answer.granted and answer.wait_s:
            self._alarm_in(answer.wait_s)
        self._alarm_at_token()
        self._tick_later()
        if self.waiting:
            self.changed()

    # --- timers ---------------------------------------------------------------------------------------------------------------

    def _alarm_at_token(self) -> None:
        now = self._gates.clock()
        if self.waiting and self._tokens and (starts := max(self._tokens[0], self._silent_until)) > now:
            self._alarm_in(starts - now)

    def _alarm_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._alarm is not None:
            if not self._alarm.cancelled() and self._alarm.when() <= due and self._alarm.when() > loop.time():
                return
            self._alarm.cancel()
        self._alarm = loop.call_at(due, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._answered = None
        self.changed()

    def _tick_later(self) -> None:
        if self._ticking is None and (self.waiting or self._tokens or self._held > self._permits) and not self._gates.closed:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        now = self._gates.clock()
        idle_s = now - self._used_at
        gives_back = (self._tokens and idle_s >= TOKENS_KEPT_S) or (self._held > self._permits and idle_s >= KEPT_S)
        if (self.waiting and now - self._asked_at >= AGAIN_S) or (gives_back and not self.waiting):
            self._answered = None
            self._ask()
        self._tick_later()

    @property
    def counts(self) -> InUse:
        return InUse(self._permits, self.waiting, len(self._tokens))

    @property
    def is_needed(self) -> bool:
        """Whether this process holds anything of the tool, or waits."""
        return bool(self._held or self._tokens or self._uses or self.waiting or self._spent)

    async def close(self) -> None:
        for timer in (self._ticking, self._alarm):
            if timer is not None:
                timer.cancel()
        for use in self._uses.values():
            use.end_watch()
        await self._asking.close()
