"""Budgets: the allowance of a run begins with the run, what an agent run has spent or gives back goes to the allowances of its
portion, also what a call has cost that nobody waited for, and the end of a run's time stops the run.

A budget that asks: people are asked once for all calls that wait, a call goes on when all its budgets have enough for it, and ends
with its agent run where nobody gives more.
"""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, allowances, invocations, runs
from domain.access import Action, roles_that_may
from domain.agent_runs import PayCall, RefuseCall, SettleCancelled
from domain.allowances import (
    DropPortion,
    OpenAllowance,
    Opening,
    ServeLine,
    SettlePortion,
    allowance_of_run,
    question_id_of,
)
from domain.amounts import CURRENCY, NOTHING, ONE_CALL, AllowanceRef, Amounts, BudgetQuestion
from domain.approval_rules import Demand, Requirement
from domain.approvals import RequestApproval, WithdrawApproval
from domain.failures import Failure
from domain.invocations import DenyInvocation, ReleaseInvocation
from domain.runs import StopRun


def on_run_started(event: runs.RunStarted, cause: ReactionCause) -> list[Reaction]:
    budget = event.budget
    if budget is None:
        return []
    opening = Opening(
        budget=budget.budget or "run",
        run_id=cause.stream_id,
        project_id=event.project_id,
        limits=budget.limits,
        wall_s=budget.wall_s,
        on_spent=budget.on_spent,
        asking=budget.asking,
        currency=budget.currency or CURRENCY,
        on_behalf_of=cause.on_behalf_of,
    )
    run_id = cause.stream_id
    return [OpenAllowance(allowance_id=allowance_of_run(run_id), root_id=run_id, opening=opening)]


def on_portion_settled(event: agent_runs.PortionSettled, cause: ReactionCause) -> list[Reaction]:
    return [
        SettlePortion(
            allowance_id=ref.allowance_id, root_id=ref.root_id, holder=cause.stream_id, spent=event.spent, returned=event.returned,
            exact=event.exact,
        )
        for ref in event.allowances
    ]  # fmt: skip


def on_outcome(event: invocations.Outcome, cause: ReactionCause) -> list[Reaction]:
    return _settled(event.allowances, cause, ONE_CALL + (event.usage or NOTHING))


def _settled(of_call: tuple[AllowanceRef, ...], cause: ReactionCause, cost: Amounts) -> list[Reaction]:
    """What a call without a run has held of its budgets."""
    return [
        SettlePortion(
            allowance_id=ref.allowance_id, root_id=ref.root_id, holder=cause.stream_id, spent=cost, exact=True, ends=True
        )
        for ref in of_call
    ]  # fmt: skip


def on_invocation_cancelled(event: invocations.InvocationCancelled, cause: ReactionCause) -> list[Reaction]:
    if event.allowances:
        return _settled(event.allowances, cause, event.cost or NOTHING)
    if event.cost is None or event.agent_run_id is None or event.key is None or event.asked_by != "agent_run":
        return []
    return [SettleCancelled(agent_run_id=event.agent_run_id, key=event.key, cost=event.cost)]


def on_allowance_spent(event: allowances.AllowanceSpent, cause: ReactionCause) -> list[Reaction]:
    if event.run_id is None:
        return []
    why = f"the wall time of the budget '{event.budget}' is over"
    return [StopRun(run_id=event.run_id, error=Failure(type="BudgetExceeded", message=why))]


def on_allowance_asked(event: allowances.AllowanceAsked, cause: ReactionCause) -> list[Reaction]:
    asking, call = event.asking, event.call
    roles: tuple[str, ...] = asking.roles or tuple(str(role) for role in roles_that_may(Action.BUDGETS_LIFT))
    demand = Demand(
        requirements=(Requirement(roles=tuple(sorted(roles))),), deadline_s=asking.deadline_s, default=asking.default,
        project_id=None if event.run_id is None else call.project_id,
    )  # fmt: skip
    question = BudgetQuestion(
        allowance=AllowanceRef(allowance_id=cause.stream_id, root_id=cause.root_id), number=event.number, budget=event.budget,
        day=event.day, run_id=event.run_id, currency=event.currency, kind=event.kind, limits=event.limits, spent=event.spent,
        reserved=event.held, asked=event.amounts, add=event.add,
    )  # fmt: skip
    return [
        RequestApproval(
            approval_id=question_id_of(cause.stream_id, event.number), run_id=cause.root_id, invocation_id=call.invocation_id,
            tool=call.tool, tool_version=call.tool_version, arguments_hash=call.arguments_hash, demand=demand,
            agent_run_id=event.holder, key=call.key, on_behalf_of=call.on_behalf_of, kind="budget", budget=question,
        )
    ]  # fmt: skip


def on_allowance_unasked(event: allowances.AllowanceUnasked, cause: ReactionCause) -> list[Reaction]:
    why = "no call waits for more of the budget"
    return [WithdrawApproval(approval_id=question_id_of(cause.stream_id, event.number), reason=why)]


def on_allowance_drawn(event: allowances.AllowanceDrawn, cause: ReactionCause) -> list[Reaction]:
    if event.call is None or event.key is None:
        return []
    paid = PayCall(agent_run_id=event.holder, key=event.key, invocation_id=event.call, allowance_id=cause.stream_id)
    return [paid, *_next(cause, more=event.more)]


def on_allowance_refused(event: allowances.AllowanceRefused, cause: ReactionCause) -> list[Reaction]:
    error = Failure(type="BudgetExceeded", message=event.message)
    return [
        RefuseCall(agent_run_id=event.holder, key=event.key, invocation_id=event.invocation_id, error=error),
        DenyInvocation(invocation_id=event.invocation_id, approval_id=event.hold, error=error),
        *_next(cause, more=event.more),
    ]


def _next(cause: ReactionCause, *, more: bool) -> list[Reaction]:
    return [ServeLine(allowance_id=cause.stream_id, root_id=cause.root_id)] if more else []


def on_call_paid(event: agent_runs.CallPaid, cause: ReactionCause) -> list[Reaction]:
    return [ReleaseInvocation(invocation_id=event.invocation_id, approval_id=event.hold)]


def on_call_unpaid(event: agent_runs.CallUnpaid, cause: ReactionCause) -> list[Reaction]:
    return [
        DropPortion(
            allowance_id=ref.allowance_id, root_id=ref.root_id, holder=cause.stream_id, invocation_id=event.invocation_id,
            amounts=event.amounts,
        )
        for ref in event.allowances
    ]  # fmt: skip


REACTIONS: Reactions = {
    runs.RunStarted: on_run_started,
    agent_runs.PortionSettled: on_portion_settled,
    invocations.InvocationSucceeded: on_outcome,
    invocations.InvocationFailed: on_outcome,
    invocations.InvocationResolved: on_outcome,
    invocations.InvocationCancelled: on_invocation_cancelled,
    agent_runs.CallPaid: on_call_paid,
    agent_runs.CallUnpaid: on_call_unpaid,
    allowances.AllowanceSpent: on_allowance_spent,
    allowances.AllowanceAsked: on_allowance_asked,
    allowances.AllowanceUnasked: on_allowance_unasked,
    allowances.AllowanceDrawn: on_allowance_drawn,
    allowances.AllowanceRefused: on_allowance_refused,
}
