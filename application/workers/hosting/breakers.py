"""Breakers in this process: what the tools of its sessions are allowed at the moment, and how their calls end.

A process follows the breaker of each tool that its sessions offer. What changes is heard of at once, from the process's own commits
or the live feed, so asking is a look into memory. Outcomes are counted here, and added to the counts of all processes at most every
`EVERY_S`, or at once where they may open a breaker: no call waits for it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import CommandRequest
from application.engine.ports.outcomes import CountedOutcomes, NewOutcomes, OutcomeCounts
from application.engine.ports.queue import WorkItem
from application.engine.reading.live import LiveFeed
from application.engine.retry import persistently
from domain import breakers, tools
from domain.breakers import COUNTS_AS_FAILURE, Counts, ToolBreaker, because_of, breaker_id_of, is_open
from domain.errors import Unavailable
from domain.failures import Failure
from domain.invocations import PutOffInvocation
from domain.kernel import Command, derive_id
from domain.tool_policy import Breaker as BreakerPolicy

EVERY_S = 0.05
LOOK_AGAIN_S = 1.0
"""Seconds after which work is looked at again that waits for the calls that are tried."""
MOST_TEXT = 500
TOPICS = frozenset(
    event.TOPIC for event in (breakers.BreakerOpened, breakers.BreakerHalfOpened, breakers.BreakerClosed, breakers.BreakerForced)
)
OF_TOOLS = frozenset({tools.ToolRegistered.TOPIC})

log = structlog.get_logger(__name__)


class PutOff(NamedTuple):
    """The tool is not called. `again_s`: seconds after which the item is to be delivered again. None: its dispatch is over."""

    again_s: float | None


class ToolGate:
    """The breaker of one tool of a tenant, as this process knows it."""

    __slots__ = (
        "breaker", "breaker_id", "calls", "counted", "error", "failures", "in_a_row", "known", "lock", "policy", "probes",
        "succeeded", "tenant_id", "tool", "tool_id", "trials", "unwatch", "wins",
    )  # fmt: skip

    def __init__(self, tenant_id: UUID, tool: str) -> None:
        self.tenant_id = tenant_id
        self.tool = tool
        self.tool_id = tools.tool_id_of(tenant_id, tool)
        self.breaker_id = breaker_id_of(self.tool_id)
        self.breaker = ToolBreaker()
        self.policy: BreakerPolicy | None = None
        self.known = asyncio.Event()
        """Set when the log has been asked."""
        self.lock = asyncio.Lock()
        self.unwatch: list[Callable[[], None]] = []
        # Outcomes that are to be told.
        self.calls = self.failures = self.in_a_row = 0
        self.succeeded = False
        self.counted = Counts()
        """Of all processes, as they were when this process told the last time."""
        self.error: str | None = None
        """The last failure."""
        # While this process tries calls.
        self.probes = 0
        """Calls that may still be begun."""
        self.trials: set[UUID] = set()
        """Invocations that are tried."""
        self.wins = 0

    @property
    def is_closed(self) -> bool:
        """Whether calls go on without a question."""
        return self.breaker.in_force == "closed" and self.known.is_set()

    def learn(self, breaker: ToolBreaker, policy: BreakerPolicy | None) -> None:
        self.policy = policy
        if breaker.changes != self.breaker.changes:
            if breaker.trying is None or breaker.trying != self.breaker.trying:
                self.probes, self.wins = 0, 0
                self.trials.clear()
            self.forget()
            self.counted = Counts()
        self.breaker = breaker
        self.known.set()

    def forget(self) -> None:
        """Drops the outcomes that are not told."""
        self.calls = self.failures = self.in_a_row = 0
        self.succeeded = False

    def count(self, *, failed: bool) -> None:
        self.calls += 1
        if failed:
            self.failures += 1
            self.in_a_row += 1
        else:
            self.in_a_row, self.succeeded = 0, True

    @property
    def may_open(self) -> bool:
        """Whether the outcomes that are to be told may open the breaker, as far as this process knows those of others."""
        before = self.counted
        in_a_row = self.in_a_row if self.succeeded else before.in_a_row + self.in_a_row
        counts = Counts(calls=before.calls + self.calls, failures=before.failures + self.failures, in_a_row=in_a_row)
        return self.policy is not None and because_of(self.policy, counts) is not None

    def told(self) -> NewOutcomes:
        """What is new. From now on nothing is."""
        assert self.policy is not None
        new = NewOutcomes(
            self.tenant_id, self.breaker_id, self.breaker.changes, self.policy.window_s, self.calls, self.failures, self.succeeded,
            self.in_a_row,
        )  # fmt: skip
        self.forget()
        return new

    def not_called(self, invocation_id: UUID) -> None:
        """A call that was to be tried was not begun, or its outcome says nothing: another one may be tried."""
        if invocation_id in self.trials:
            self.trials.discard(invocation_id)
            self.probes += 1


class Breakers:
    """The breakers of the tools that the sessions of one process offer."""

    def __init__(
        self,
        commands: CommandLoop,
        live: LiveFeed,
        counts: OutcomeCounts,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`changed`: is told what this process does with breakers, for metrics."""
        self._commands = commands
        self._live = live
        self._counts = counts
        self._clock = clock
        self._changed = changed
        self.process_id = uuid4()
        self._gates: dict[tuple[UUID, str], ToolGate] = {}
        self._unread: dict[ToolGate, None] = {}
        self._untold: dict[ToolGate, None] = {}
        self._decided: list[tuple[ToolGate, Command]] = []
        """What follows from calls that were tried."""
        self._told_at = -EVERY_S
        self._hurry = asyncio.Event()
        """Set when what is to be told may open a breaker."""
        self._reading = OnDemand(self._read, "breakers")
        self._telling = OnDemand(self._tell, "outcomes-of-calls")

    def states(self) -> dict[str, int]:
        """State → the tools of this process whose breakers are in it."""
        found = {"closed": 0, "open": 0, "half_open": 0}
        for gate in self._gates.values():
            found[gate.breaker.in_force] += 1
        return found

    # --- following ----------------------------------------------------------------------------------------------------------

    def follow(self, tenant_id: UUID, tool: str) -> ToolGate:
        """Follows the breaker of a tool from now on."""
        gate = self._gates[tenant_id, tool] = ToolGate(tenant_id, tool)
        gate.unwatch = [
            self._live.call(gate.breaker_id, TOPICS, lambda _: self._stale(gate)),
            self._live.call(gate.tool_id, OF_TOOLS, lambda _: self._stale(gate)),
        ]
        self._stale(gate)
        return gate

    def unfollow(self, gate: ToolGate) -> None:
        for unwatch in gate.unwatch:
            unwatch()
        self._unread.pop(gate, None)
        if self._gates.get((gate.tenant_id, gate.tool)) is gate:
            del self._gates[gate.tenant_id, gate.tool]

    def _stale(self, gate: ToolGate) -> None:
        self._unread[gate] = None
        try:
            self._reading.start()
        except Unavailable:  # the process stops
            self._unread.clear()

    async def _read(self) -> None:
        """Asks the log about all that have changed, together."""
        while self._unread:
            gates, self._unread = list(self._unread), {}
            await asyncio.gather(*(persistently(partial(self._load, gate)) for gate in gates))

    async def _load(self, gate: ToolGate) -> None:
        breaker, tool = await asyncio.gather(
            self._commands.load(breakers.DECIDER, gate.tenant_id, gate.breaker_id),
            self._commands.load(tools.DECIDER, gate.tenant_id, gate.tool_id),
        )
        current: tools.ToolRegistered | None = tool.state.current
        before = gate.breaker.in_force
        gate.learn(breaker.state, None if current is None else current.rules.breaker)
        if gate.breaker.in_force != before:
            log.info("breaker_changed", tool=gate.tool, state=gate.breaker.in_force, before=before)

    # --- before a call --------------------------------------------------------------------------------------------------------

    async def admit(self, gate: ToolGate, item: WorkItem) -> PutOff | None:
        """Whether a call may be claimed. None: it may. Otherwise the call was put off, or is to come again. Raises TidelogError."""
        await gate.known.wait()
        async with gate.lock:
            now, state = self._clock(), gate.breaker.in_force
            left = gate.breaker.left_s(now)
            if state != "closed" and not left and gate.breaker.forced is None:
                await self._try(gate, now)
                now, state = self._clock(), gate.breaker.in_force
                left = gate.breaker.left_s(now)
            if state == "closed":
                return None
            if state == "half_open" and gate.probes:
                gate.probes -= 1
                gate.trials.add(item.work_id)
                return None
        waits = state == "half_open"
        await self._put_off(item, is_open(gate.tool, gate.breaker, now), None if waits else left)
        return PutOff(min(left, LOOK_AGAIN_S) if waits else None)

    async def _try(self, gate: ToolGate, now: datetime) -> None:
        """Asks to be the one that tries calls."""
        breaker = gate.breaker
        attempt = breakers.TryTool(
            breaker_id=gate.breaker_id, tool=gate.tool, changes=breaker.changes, prober=self.process_id, at=now
        )  # fmt: skip
        await self._execute(gate, attempt, f"try:{breaker.changes}:{self.process_id}")
        if gate.breaker.trying is not None and gate.breaker.trying.prober == self.process_id and gate.breaker.trying.at == now:
            gate.probes, gate.wins = gate.breaker.trying.probes, 0

    async def _put_off(self, item: WorkItem, error: Failure, wait_s: float | None) -> None:
        self._changed("put_off")
        command = PutOffInvocation(invocation_id=item.work_id, dispatch=item.dispatch, error=error, wait_s=wait_s)
        request = CommandRequest(
            item.tenant_id, "system", derive_id(item.work_id, f"put off:{item.dispatch}"), item.root_id, f"{item.work_id}:put off",
            checked=True, goes_on=True,
        )  # fmt: skip
        await self._commands.execute(request, command)

    async def _execute(self, gate: ToolGate, command: Command, name: str) -> None:
        """Changes a breaker, and learns at once what became of it."""
        command_id = derive_id(gate.breaker_id, name)
        request = CommandRequest(gate.tenant_id, "system", command_id, command_id, str(command_id), checked=True)
        await persistently(lambda: self._commands.execute(request, command))
        await persistently(partial(self._load, gate))

    # --- after a call ---------------------------------------------------------------------------------------------------------

    def heard(self, tenant_id: UUID, tool: str, invocation_id: UUID, error: Failure | None) -> None:
        """A call has ended. `error`: None for a success."""
        gate = self._gates.get((tenant_id, tool))
        if gate is None or (gate.policy is None and not gate.trials):
            return
        says_nothing = error is not None and error.kind not in COUNTS_AS_FAILURE
        if invocation_id in gate.trials:
            if says_nothing:
                gate.not_called(invocation_id)
            else:
                gate.trials.discard(invocation_id)
                self._tried(gate, error)
        elif gate.policy is not None and not says_nothing and gate.is_closed and gate.breaker.forced is None:
            gate.count(failed=error is not None)
            gate.error = _text(error) or gate.error
            self._untold[gate] = None
            if error is not None and gate.may_open:
                self._hurry.set()
            self._start_telling()

    def _tried(self, gate: ToolGate, error: Failure | None) -> None:
        """A call that was tried has ended."""
        breaker = gate.breaker
        if breaker.trying is None:
            return
        told = {"breaker_id": gate.breaker_id, "tool": gate.tool, "changes": breaker.changes}
        if error is not None:
            self._decided.append((gate, breakers.ReopenBreaker(**told, at=self._clock(), error=_text(error))))
        else:
            gate.wins += 1
            if gate.wins < breaker.trying.probes:
                return
            self._decided.append((gate, breakers.CloseBreaker(**told)))
        self._start_telling()

    def _start_telling(self) -> None:
        try:
            self._telling.start()
        except Unavailable:  # the process stops
            self._untold.clear()
            self._decided.clear()

    async def _tell(self) -> None:
        """Changes the breakers of calls that were tried, and adds what was counted to the counts of all processes."""
        clock = asyncio.get_running_loop().time
        while self._untold or self._decided:
            try:
                while self._decided:
                    gate, command = self._decided.pop(0)
                    await self._execute(gate, command, f"{type(command).__name__}:{gate.breaker.changes}:{self.process_id}")
                if not self._untold:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._told_at + EVERY_S):
                        await self._hurry.wait()
                self._hurry.clear()
                self._told_at = clock()
                await self._add()
            except Exception:  # what was counted is lost, and counting goes on
                log.exception("outcomes_not_counted")

    async def _add(self) -> None:
        gates, self._untold = {gate.breaker_id: gate for gate in self._untold}, {}
        news = [gate.told() for gate in gates.values() if gate.policy is not None and gate.calls]
        if not news:
            return
        for counted in await persistently(lambda: self._counts.add(news)):
            await self._look(gates[counted.breaker_id], counted)

    async def _look(self, gate: ToolGate, counted: CountedOutcomes) -> None:
        """Opens a breaker whose calls have failed too often."""
        breaker, policy = gate.breaker, gate.policy
        if policy is None or breaker.status != "closed" or counted.changes != breaker.changes:
            return
        counts = gate.counted = Counts(calls=counted.calls, failures=counted.failures, in_a_row=counted.in_a_row)
        because = because_of(policy, counts)
        if because is None:
            return
        trip = breakers.TripBreaker(
            breaker_id=gate.breaker_id, tool=gate.tool, changes=breaker.changes, because=because, at=self._clock(),
            open_s=policy.open_s, probes=policy.probes, calls=counts.calls, error=gate.error,
            failures=counts.in_a_row if because == "failures" else counts.failures,
        )  # fmt: skip
        log.warning("breaker_opens", tool=gate.tool, because=because, failures=trip.failures, error=gate.error)
        self._changed("opened")
        await self._execute(gate, trip, f"trip:{breaker.changes}")

    async def close(self) -> None:
        for gate in list(self._gates.values()):
            self.unfollow(gate)
        await self._reading.close()
        await self._telling.close()


def _text(error: Failure | None) -> str | None:
    return None if error is None else f"{error.type}: {error.message}"[:MOST_TEXT]
