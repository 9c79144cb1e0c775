"""Budgets: the allowance of a run begins with the run, what an agent run has spent or gives back goes to the allowances of its
portion, also what a call has cost that nobody waited for, and the end of a run's time stops the run."""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import agent_runs, allowances, invocations, runs
from domain.agent_runs import SettleCancelled
from domain.allowances import OpenAllowance, Opening, SettlePortion, allowance_of_run
from domain.amounts import CURRENCY, NOTHING, ONE_CALL, AllowanceRef, Amounts
from domain.failures import Failure
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
        currency=budget.currency or CURRENCY,
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


REACTIONS: Reactions = {
    runs.RunStarted: on_run_started,
    agent_runs.PortionSettled: on_portion_settled,
    invocations.InvocationSucceeded: on_outcome,
    invocations.InvocationFailed: on_outcome,
    invocations.InvocationResolved: on_outcome,
    invocations.InvocationCancelled: on_invocation_cancelled,
    allowances.AllowanceSpent: on_allowance_spent,
}
