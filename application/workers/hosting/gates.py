"""The gates of one process: the tools with limits whose workers it has, and its lease as a holder of permits and tokens.

A process that was not seen for a while is over as a holder: it holds nothing any more, and begins anew with another id. Its
attempts keep their permits under the old id until they end. So losing an answer costs some permits for some seconds, and never one
too many.
"""

from collections.abc import Callable
from functools import partial
from uuid import UUID, uuid4

from application.engine.background import OnDemand
from application.engine.commands.loop import CommandLoop
from application.engine.ports.permits import PermitBook, PermitNews, ToolLimits
from application.engine.reading.live import LiveFeed
from application.engine.retry import persistently
from application.workers.hosting.gate import InUse, LimitGate, Work
from domain import tools
from domain.tools import ToolDefinition, tool_id_of

FRESH_S = 6.0
"""Seconds after a renewal in which permits and tokens are used. The lease is longer: a claim is recorded within the difference."""
DECLARES = frozenset({tools.ToolRegistered.TOPIC, tools.ToolRemoved.TOPIC})


def limits_of(tool: ToolDefinition) -> ToolLimits:
    """What the current version of a tool declares."""
    rules = None if tool.current is None else tool.current.rules
    if rules is None:
        return ToolLimits(tool.changes)
    if rules.rate is None:
        return ToolLimits(tool.changes, rules.max_parallel)
    return ToolLimits(tool.changes, rules.max_parallel, rules.rate.calls, rules.rate.per_s)


class LimitGates:
    """The gates of a process, and its lease as a holder of permits and tokens."""

    def __init__(
        self, book: PermitBook, news: PermitNews, commands: CommandLoop, live: LiveFeed, clock: Callable[[], float]
    ) -> None:
        """`clock`: seconds that never go back."""
        self.book = book
        self.commands = commands
        self.live = live
        self.clock = clock
        self.holder_id = uuid4()
        self.closed = False
        self._fresh_until = 0.0
        self._gates: dict[tuple[UUID, str], LimitGate] = {}
        self._watches: list[Callable[[], None]] = [news.call(self._told, self._missed)]
        self._looks: dict[tuple[LimitGate, Work], None] = {}
        self._changed: dict[LimitGate, None] = {}
        self._looking = OnDemand(self._look_at_all, "ends-of-limited-calls")

    async def open(self, tenant_id: UUID, tool: str) -> LimitGate:
        """The gate of a tool, with what the tool declares. Raises Unavailable."""
        gate = self._gates.get((tenant_id, tool))
        if gate is None:
            gate = self._gates[tenant_id, tool] = LimitGate(self, tenant_id, tool)
            woken = partial(self._declares, gate)
            self._watches.append(self.live.call(tool_id_of(tenant_id, tool), DECLARES, woken))
        await self._read(gate)
        return gate

    def hold(self, tenant_id: UUID, tool: str, seconds: float) -> None:
        """The service behind a tool asks for silence."""
        if (gate := self._gates.get((tenant_id, tool))) is not None:
            gate.hold(seconds)

    # --- what happens to tools and calls ----------------------------------------------------------------------------------------

    def _declares(self, gate: LimitGate, _: int) -> None:
        self._changed[gate] = None
        self._start_looking()

    def look(self, gate: LimitGate, work: Work) -> None:
        self._looks[gate, work] = None
        self._start_looking()

    def _start_looking(self) -> None:
        if not self.closed:
            self._looking.start()

    async def _look_at_all(self) -> None:
        while self._changed or self._looks:
            if self._changed:
                gate = next(iter(self._changed))
                del self._changed[gate]
                await persistently(partial(self._read, gate))
            else:
                gate, work = next(iter(self._looks))
                del self._looks[gate, work]
                await persistently(partial(gate.look, work))

    async def _read(self, gate: LimitGate) -> None:
        tool_id = tool_id_of(gate.tenant_id, gate.tool)
        gate.declared(limits_of((await self.commands.load(tools.DECIDER, gate.tenant_id, tool_id)).state))

    def _told(self, tenant_id: UUID, tool: str, by: UUID) -> None:
        if by != self.holder_id and (gate := self._gates.get((tenant_id, tool))) is not None:
            gate.told()

    def _missed(self) -> None:
        for gate in self._gates.values():
            gate.told()

    # --- the lease --------------------------------------------------------------------------------------------------------------

    def is_fresh(self) -> bool:
        """Whether what this process holds may be used."""
        return self.clock() < self._fresh_until

    def renewed(self, asked_at: float) -> None:
        """The holder was seen, by a question that was asked then."""
        self._fresh_until = max(self._fresh_until, asked_at + FRESH_S)

    def lose(self, holder_id: UUID) -> None:
        """A holder is over. This process begins anew."""
        if holder_id != self.holder_id:
            return
        self.holder_id, self._fresh_until = uuid4(), 0.0
        for gate in self._gates.values():
            gate.lost()

    async def renew(self) -> None:
        """Renews the lease, while anything is held. Raises Unavailable."""
        if not self._fresh_until:
            return
        if not any(gate.is_needed for gate in self._gates.values()):
            if not self.is_fresh():
                self.holder_id, self._fresh_until = uuid4(), 0.0
            return
        asked_at, holder_id = self.clock(), self.holder_id
        if await self.book.seen(holder_id):
            self.renewed(asked_at)
        else:
            self.lose(holder_id)

    @property
    def counts(self) -> InUse:
        """What calls of this process use, how many wait, and tokens that are not spent."""
        counts = [gate.counts for gate in self._gates.values()]
        return InUse(sum(one.permits for one in counts), sum(one.waiting for one in counts), sum(one.tokens for one in counts))

    async def close(self) -> None:
        """Lets others have what this process holds, but for the permits of calls that go on. Raises Unavailable."""
        self.closed = True
        for unwatch in self._watches:
            unwatch()
        await self._looking.close()
        for gate in self._gates.values():
            await gate.close()
        if self._fresh_until:
            await self.book.leave(self.holder_id)
