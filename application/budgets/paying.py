"""Paying for a call: what it may cost at most is set aside of the portion that the agent run holds.

If that is not enough, a further portion is drawn.

Drawing is one append: of each allowance, and the grant to the agent run. Where an allowance is short, those that hold more than
they need give it back first; nobody hears that a budget is spent before they have.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from application.budgets.books import Books, Cover, names
from application.engine.background import end
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.workers.agent_runs import load_agent_run
from domain import allowances
from domain.agent_runs import AgentRun, GrantPortion, ReleasePortion
from domain.allowances import Allowance, AllowanceShort, DrawPortion, NoteSpent, TightenAllowance, question_id_of
from domain.amounts import NOTHING, Amounts, money_text
from domain.errors import TidelogError, Unavailable, VersionConflict
from domain.kernel import Command

MOST_TRIES = 50
RECALL_S = 5.0
"""Seconds that holders have to give back what they do not need."""
GRACE_S = 1.0
"""Seconds that calls under way have to end and to give back what they did not use. Then somebody hears that a budget is spent."""
MOST_RECALLS = 3
"""How often one call waits for those who have not answered."""
LOOK_S = 0.02
AT_ONCE = 16
"""Holders that are asked side by side."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Paid:
    """The call may begin, with what comes before it in its append."""

    purse: int
    """Of which portion it is paid."""
    first: tuple[Command, ...] = ()
    """Draws a further portion."""
    beside: tuple[UUID, ...] = ()
    """The roots, other than its run's, of the allowances that are drawn from."""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """A budget has too little left."""

    allowance: Allowance
    kind: str
    asked: Amounts

    @property
    def message(self) -> str:
        opened, limits = self.allowance.opened, self.allowance.limits
        assert opened is not None
        limit, used = getattr(limits, self.kind), getattr(self.allowance.used, self.kind)
        asked, left = getattr(self.asked, self.kind), max(0, limit - used)
        of = f" of {opened.day}" if opened.day else ""
        if self.kind == "money":
            unit = opened.currency
            amounts = f"{money_text(left)} of {money_text(limit)} {unit} is left, the call may cost {money_text(asked)}"
        else:
            amounts = f"{left:,} of {limit:,} {self.kind} are left, the call may need {asked:,}"
        return f"the budget '{opened.budget}'{of} is spent: {amounts}"


@dataclass(frozen=True, slots=True)
class MustWait:
    """Budgets have too little left, and all of these ask people for more."""

    question: UUID
    """The one of the first of them."""
    numbers: tuple[int, ...]
    """Of each allowance that counts the call: the question for which the call would wait there."""


STRICTEST = ("stop", "ask", "degrade")


class Paying:
    def __init__(self, commands: CommandLoop, books: Books) -> None:
        self._commands = commands
        self._books = books
        self._recalls: dict[UUID, asyncio.Task[None]] = {}
        self.refused: Callable[[str, str], None] = lambda _scope, _kind: None
        """Is told of each call for which a budget has too little: the budget's scope, and what there is too little of."""

    async def pay(
        self, caller: Caller, agent_run_id: UUID, attempt: int, cost: Amounts, *, covers: Sequence[Cover], in_call: bool = False
    ) -> Paid | BudgetSpent | MustWait:
        """Makes sure that the agent run holds enough for a call. Raises StaleAttempt, WorkOver, Unavailable.

        `in_call`: a portion is drawn in the append of the call, if this process believes that there is enough. The call itself
        finds out whether it is so.
        """
        refs, fresh, recalls = names(covers), False, 0
        for _ in range(MOST_TRIES):
            run = await load_agent_run(self._commands, caller.tenant_id, agent_run_id, fresh=fresh)
            purse = run.purse if run.purse is not None and run.purse.allowances == refs else None
            if purse is not None and purse.free.covers(cost):
                return Paid(run.newest_purse)
            missing = cost if purse is None else cost - purse.free
            states = [await self._state(caller.tenant_id, cover, fresh=fresh) for cover in covers]
            short = _short(states, missing)
            if short is None:
                commands = _draws(agent_run_id, attempt, covers, states, missing)
                if in_call and not fresh:
                    assert run.requested is not None
                    roots = tuple(dict.fromkeys(ref.root_id for ref in refs if ref.root_id != run.requested.run_id))
                    if not roots or not self._commands.is_crowded(caller.tenant_id, roots[0]):
                        return Paid(run.purse_for(refs), commands, roots)
                if await self._draw(caller, run, commands):
                    fresh = False
                    continue
            elif fresh:
                waits = await self._waited(caller, covers[short[0]], short[1], missing, recalls)
                if waits:
                    recalls += waits
                    continue
                if (asks := _asking(covers, states, missing)) is not None:
                    return asks
                return await self._spent(caller, agent_run_id, covers, states, missing, BudgetSpent(*short[1:], missing))
            fresh = True
        raise Unavailable("the budgets of the call are being drawn from by too many at once: try again")

    async def pay_once(
        self, caller: Caller, holder: UUID, cost: Amounts, *, covers: Sequence[Cover], fresh: bool
    ) -> Paid | BudgetSpent:
        """As `pay`, of a call that holds what it may cost itself. The draws are in its own append. Raises Unavailable."""
        recalls = 0
        for _ in range(MOST_TRIES):
            states = [await self._state(caller.tenant_id, cover, fresh=fresh) for cover in covers]
            short = _short(states, cost)
            if short is None:
                draws = tuple(_draw_of(holder, cover, cost, exact=True) for cover in covers)
                return Paid(0, draws, tuple(dict.fromkeys(cover.ref.root_id for cover in covers)))
            if fresh:
                waits = await self._waited(caller, covers[short[0]], short[1], cost, recalls)
                if not waits:
                    return await self._spent(caller, holder, covers, states, cost, BudgetSpent(*short[1:], cost))
                recalls += waits
            fresh = True
        raise Unavailable("the budgets of the call are being drawn from by too many at once: try again")

    async def close(self) -> None:
        await end(*self._recalls.values())

    async def _state(self, tenant_id: UUID, cover: Cover, *, fresh: bool) -> Allowance:
        """The allowance. One that nobody has opened is as it will be."""
        loaded = await self._commands.load(allowances.DECIDER, tenant_id, cover.ref.allowance_id, fresh=fresh)
        state: Allowance = loaded.state
        if state.opened is None and cover.opening is not None:
            return allowances.DECIDER.evolve(state, allowances.AllowanceOpened(**dict(cover.opening)))
        return state

    async def _draw(self, caller: Caller, run: AgentRun, commands: Sequence[Command]) -> bool:
        """Draws a portion. False: others were faster."""
        try:
            await self._commands.execute(self._request(caller, run), *commands)
        except (AllowanceShort, VersionConflict):
            return False
        return True

    def _request(self, caller: Caller, run: AgentRun) -> CommandRequest:
        assert run.requested is not None
        request = caller.reporting(uuid7(), run.requested.run_id)
        return request._replace(repeatable=False, goes_on=False, on_behalf_of=run.requested.on_behalf_of)

    # --- what others do not need ------------------------------------------------------------------------------------------

    async def _waited(self, caller: Caller, cover: Cover, state: Allowance, missing: Amounts, recalls: int) -> int:
        """Waits for what others do not need, if that may help. Returns what it counts of `MOST_RECALLS`; 0: nobody was asked."""
        was_asked = state.asks and state.line.is_open  # holders were, before people
        if was_asked or recalls >= MOST_RECALLS or not (state.loose or _may_come_back(state, missing)):
            return 0
        await self._recall(caller, cover, missing)
        return 1 if state.loose else MOST_RECALLS

    async def _recall(self, caller: Caller, cover: Cover, missing: Amounts) -> None:
        """Waits until holders have given back what they do not need, or have had the time. All who ask wait for one recall."""
        allowance_id = cover.ref.allowance_id
        task = self._recalls.get(allowance_id)
        if task is None:
            task = asyncio.create_task(self._called_back(caller, cover, missing), name="budget-recall")
            self._recalls[allowance_id] = task
            task.add_done_callback(lambda _: self._recalls.pop(allowance_id, None))
        await asyncio.shield(task)

    async def _called_back(self, caller: Caller, cover: Cover, missing: Amounts) -> None:
        allowance_id, root_id = cover.ref.allowance_id, cover.ref.root_id
        tighten = TightenAllowance(allowance_id=allowance_id, root_id=root_id, asked=missing)
        await self._tried(caller, tighten)
        state = await self._state(caller.tenant_id, cover, fresh=True)
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(holder: UUID) -> None:
            async with gate:
                await self._tried(caller, ReleasePortion(agent_run_id=holder, allowance_id=allowance_id))

        await asyncio.gather(*(ask(holder) for holder in state.loose))
        loop = asyncio.get_running_loop()
        began, pause = loop.time(), LOOK_S
        while True:
            state = await self._state(caller.tenant_id, cover, fresh=True)
            waited = loop.time() - began
            if state.limits.short(state.used, missing) is None or waited > RECALL_S:
                return
            if not state.loose and (waited > GRACE_S or not _may_come_back(state, missing)):
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    async def _tried(self, caller: Caller, command: Command) -> None:
        """What comes of it is seen at the allowance. One holder that cannot be asked must not be in the way of the others."""
        request = CommandRequest(caller.tenant_id, "system", uuid7(), uuid7(), "budget recall", checked=True)
        try:
            await self._commands.execute(request, command)
        except Unavailable:
            raise
        except TidelogError as error:
            log.info("portion_not_released", command=type(command).__name__, error=error.message)

    async def _spent(
        self, caller: Caller, agent_run_id: UUID, covers: Sequence[Cover], states: Sequence[Allowance], missing: Amounts,
        first: BudgetSpent,
    ) -> BudgetSpent:  # fmt: skip
        """Notes it at each allowance that is short. The strictest one says what follows."""
        found = [(cover, state, kind) for cover, state in zip(covers, states, strict=True) if (kind := _kind(state, missing))]
        for cover, state, _ in found:
            if not state.told:
                ref = cover.ref
                note = NoteSpent(
                    allowance_id=ref.allowance_id, root_id=ref.root_id, holder=agent_run_id, asked=missing, opening=cover.opening
                )  # fmt: skip
                await self._tried(caller, note)
        told = [BudgetSpent(state, kind, missing) for _, state, kind in found] or [first]
        for spent in told:
            assert spent.allowance.opened is not None
            self.refused(spent.allowance.opened.budget.partition(":")[0], spent.kind)
        return min(told, key=lambda spent: STRICTEST.index(spent.allowance.on_spent))


def _draws(
    agent_run_id: UUID, attempt: int, covers: Sequence[Cover], states: Sequence[Allowance], missing: Amounts
) -> tuple[Command, ...]:
    """The commands that draw a portion of each of the allowances."""
    exact = any(state.tight for state in states)
    portion = missing
    if not exact:
        for number, state in enumerate(states):
            own = state.limits.portion(state.used, missing)
            portion = own if not number else portion.at_most(own)
        portion = portion.at_least(missing)
    draws = [_draw_of(agent_run_id, cover, portion, exact=exact) for cover in covers]
    grant = GrantPortion(agent_run_id=agent_run_id, attempt=attempt, allowances=names(covers), amounts=portion, exact=exact)
    return (*draws, grant)


def _draw_of(holder: UUID, cover: Cover, amounts: Amounts, *, exact: bool) -> DrawPortion:
    ref = cover.ref
    return DrawPortion(
        allowance_id=ref.allowance_id, root_id=ref.root_id, holder=holder, amounts=amounts, exact=exact, opening=cover.opening
    )  # fmt: skip


def _asking(covers: Sequence[Cover], states: Sequence[Allowance], missing: Amounts) -> MustWait | None:
    """None: one of those that are short does not ask, so that people's answer would not help the call."""
    short = [number for number, state in enumerate(states) if _kind(state, missing)]
    if not short or not all(states[number].asks for number in short):
        return None
    first = short[0]
    question = question_id_of(covers[first].ref.allowance_id, states[first].line.question)
    return MustWait(question, tuple(state.line.question for state in states))


def _kind(state: Allowance, missing: Amounts) -> str | None:
    return state.limits.short(state.used, missing)


def _short(states: Sequence[Allowance], missing: Amounts) -> tuple[int, Allowance, str] | None:
    """The first allowance that has too little: its number, and what there is too little of."""
    for number, state in enumerate(states):
        kind = _kind(state, missing)
        if kind is not None:
            return number, state, kind
    return None


def _may_come_back(state: Allowance, missing: Amounts) -> bool:
    """Whether calls under way, if they use nothing, leave enough."""
    return bool(state.held) and not state.told and state.limits.short(state.spent or NOTHING, missing) is None
