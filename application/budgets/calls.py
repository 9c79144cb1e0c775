"""A call before its budgets, of an agent or of somebody without a run: what it may cost, what is paid, and what becomes of it where
a budget is spent."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from application.budgets.books import Books, Cover, names
from application.budgets.paying import BudgetSpent, MustWait, Paid, Paying
from application.chains import cost_of_chain
from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandRequest
from application.fallbacks import Fallbacks
from application.tool_calls import declared_cost
from domain import runs
from domain.agent_runs import AgentRun, FailAgentRun, FinishCall, StartCall
from domain.allowances import DrawPortion, WaitingCall
from domain.amounts import NOTHING, Amounts, MaxCost, Spender, Unpaid
from domain.approval_rules import arguments_hash
from domain.chains import StartChain
from domain.failures import Failure
from domain.invocations import RequestInvocation
from domain.kernel import Command
from domain.tools import ToolRegistered


class CallWithBudget(NamedTuple):
    """A call with what its budgets make of it."""

    commands: tuple[Command, ...]
    """In place of the start and the request."""
    goes_on: bool = True
    """Whether the call begins, and a chain of tools with it."""
    beside: tuple[UUID, ...] = ()
    """Roots of allowances that are drawn from in the append of the call."""
    held: bool = False
    """It waits for people to give more of a budget, and begins after that."""
    uncached: bool = False
    """It is to be asked for again, without an answer from the cache: a call that waits is not answered from there."""


class BudgetedCalls:
    """One for each process, for all calls of agents."""

    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands
        self.books = Books(commands)
        self.paying = Paying(commands, self.books)

    async def close(self) -> None:
        await self.paying.close()

    async def settled(
        self, caller: Caller, state: AgentRun, start: StartCall, requested: RequestInvocation, tool: ToolRegistered,
        instead: Fallbacks, begun: Sequence[Command], *, in_call: bool = False,
    ) -> CallWithBudget:  # fmt: skip
        """The call as it may go on. Raises StaleAttempt, WorkOver, Unavailable.

        `in_call`: as this process takes the budgets to be; a portion is drawn in the append of the call.
        """
        assert state.requested is not None
        cost = max_cost_of(tool, begun)
        covers = await self.books.covering(caller.tenant_id, state.requested)
        if not covers and cost is None:
            return CallWithBudget((start, requested))
        requested = requested.model_copy(update={"max_cost": cost, "spender": await self._spender(caller.tenant_id, state)})
        if not covers or start.key in state.journal:
            return CallWithBudget((start, requested))
        most = Amounts(calls=1) if requested.cached else (cost or MaxCost()).of_call
        for other in instead.tools:
            most = most.at_least((other.max_cost or MaxCost()).of_call)
        answer = await self.paying.pay(caller, start.agent_run_id, start.attempt, most, covers=covers, in_call=in_call)
        if isinstance(answer, Paid):
            return _paid(start, requested, answer, most)
        if isinstance(answer, MustWait):
            if requested.cached is not None:
                return CallWithBudget((), uncached=True)
            return _held(start, requested, covers, answer, most)
        may_change = requested.cached is None and requested.approval is None  # people approve of the tool that was asked for
        if answer.allowance.on_spent == "degrade" and may_change:
            cheaper = await self._cheaper(caller, start, requested, covers, most)
            if cheaper is not None:
                return cheaper
        return _refused(start, requested, answer)

    async def of_client(
        self, request: CommandRequest, begun: Sequence[Command], tool: ToolRegistered, instead: Fallbacks, *, fresh: bool
    ) -> CallWithBudget:
        """A call without a run, which holds its portion itself. `begun`: the request of the call, and what begins with it.

        `fresh`: not as this process takes the budgets to be. Raises Unavailable.
        """
        requested = begun[0]
        assert isinstance(requested, RequestInvocation)
        covers, cost = await self.books.of_day(request.tenant_id), max_cost_of(tool, begun)
        if not covers and cost is None:
            return CallWithBudget(tuple(begun))
        requested = requested.model_copy(update={"max_cost": cost})
        if not covers:
            return CallWithBudget((requested, *begun[1:]))
        most = Amounts(calls=1) if requested.cached else (cost or MaxCost()).of_call
        for other in instead.tools:
            most = most.at_least((other.max_cost or MaxCost()).of_call)
        caller = Caller(request.tenant_id, request.actor)
        answer = await self.paying.pay_once(caller, requested.invocation_id, most, covers=covers, fresh=fresh)
        changes = {"spender": Spender(run_id=requested.run_id)}
        if isinstance(answer, Paid):
            paid = requested.model_copy(update={**changes, "reserved": most, "allowances": names(covers)})
            return CallWithBudget((paid, *answer.first, *begun[1:]), beside=answer.beside)
        error = Failure(type="BudgetExceeded", message=answer.message)
        nothing = {"refused": error, "cached": None, "chain_id": None, "approval": None}
        return CallWithBudget((requested.model_copy(update={**changes, **nothing}),), goes_on=False)

    async def _cheaper(
        self, caller: Caller, start: StartCall, requested: RequestInvocation, covers: Sequence[Cover], most: Amounts
    ) -> CallWithBudget | None:
        """The call with the tool itself, if its fallbacks alone cost too much, or with the first fallback that can be paid."""
        for number, cost in enumerate((requested.max_cost, *(other.max_cost for other in requested.fallbacks))):
            wanted = (cost or MaxCost()).of_call
            needs_approval = number > 0 and requested.fallbacks[number - 1].approval is not None
            if not most.covers(wanted) or wanted == most or needs_approval:
                continue
            answer = await self.paying.pay(caller, start.agent_run_id, start.attempt, wanted, covers=covers)
            if isinstance(answer, Paid):
                return _paid(start, requested.model_copy(update={"begin_with": number}), answer, wanted)
        return None

    async def _spender(self, tenant_id: UUID, state: AgentRun) -> Spender:
        assert state.requested is not None
        run = await self._commands.load(runs.DECIDER, tenant_id, state.requested.run_id, fresh=False)
        return Spender(run_id=state.requested.run_id, project_id=run.state.project_id, agent=state.requested.agent)


def _paid(start: StartCall, requested: RequestInvocation, paid: Paid, reserve: Amounts) -> CallWithBudget:
    also: dict[str, Any] = {"reserve": reserve, "purse": paid.purse}
    commands = (*paid.first, start.model_copy(update=also), requested.model_copy(update={"reserved": reserve}))
    return CallWithBudget(commands, beside=paid.beside)


def _held(
    start: StartCall, requested: RequestInvocation, covers: Sequence[Cover], waits: MustWait, most: Amounts
) -> CallWithBudget:
    """Each budget sets aside what the call may cost, or has it stand in its line."""
    assert requested.spender is not None
    call = WaitingCall(
        invocation_id=requested.invocation_id, key=start.key, hold=waits.question, tool=requested.tool,
        tool_version=requested.tool_version, arguments_hash=arguments_hash(requested.arguments),
        project_id=requested.spender.project_id, on_behalf_of=requested.on_behalf_of,
    )  # fmt: skip
    draws = [
        DrawPortion(
            allowance_id=cover.ref.allowance_id, root_id=cover.ref.root_id, holder=start.agent_run_id, amounts=most, exact=True,
            opening=cover.opening, call=call, question=number,
        )
        for cover, number in zip(covers, waits.numbers, strict=True)
    ]  # fmt: skip
    unpaid = Unpaid(allowances=names(covers), amounts=most, hold=waits.question)
    held = requested.model_copy(update={"reserved": most, "unpaid": waits.question})
    return CallWithBudget((*draws, start.model_copy(update={"unpaid": unpaid}), held), held=True)


def _refused(start: StartCall, requested: RequestInvocation, spent: BudgetSpent) -> CallWithBudget:
    """The call is in the journal, with its failure. `stop`: the agent run fails, whatever its code makes of the failure."""
    error = Failure(type="BudgetExceeded", message=spent.message)
    refused = requested.model_copy(update={"refused": error, "cached": None, "chain_id": None, "approval": None})
    invocation_id = requested.invocation_id
    told = FinishCall(agent_run_id=start.agent_run_id, key=start.key, invocation_id=invocation_id, succeeded=False, usage=NOTHING)
    commands: tuple[Command, ...] = (start.model_copy(update={"refused": True}), refused, told)
    if spent.allowance.on_spent != "degrade":
        commands += (FailAgentRun(agent_run_id=start.agent_run_id, attempt=start.attempt, error=error),)
    return CallWithBudget(commands, goes_on=False)


def max_cost_of(tool: ToolRegistered, begun: Sequence[Command] = ()) -> MaxCost | None:
    """What a call of a tool costs at most: as it declares, or for a chain that declares nothing, as its tools do."""
    declared = declared_cost(tool)
    if declared is not None:
        return declared
    chain = next((command for command in begun if isinstance(command, StartChain)), None)
    return None if chain is None else cost_of_chain(chain)
