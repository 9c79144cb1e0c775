"""Approvals: a call that is held asks for one, what comes of it goes to the call, and a call that is cancelled needs it no more.
Of more of a budget, what comes of it goes to the budget.

Untrusted output is noted on its run before anybody in the run gets it (the order of sagas: `application/catalog.py`).
"""

from typing import Any

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import approvals, invocations, runs
from domain.agent_runs import FinishWait
from domain.allowances import DenyMore, LiftAllowance
from domain.amounts import BudgetAnswer
from domain.approvals import RequestApproval, WithdrawApproval
from domain.failures import Failure
from domain.invocations import DenyInvocation, ReleaseInvocation
from domain.kernel import Json
from domain.runs import TaintRun


def on_invocation_held(event: invocations.InvocationHeld, cause: ReactionCause) -> list[Reaction]:
    if event.why != "approval":
        return []
    return [
        RequestApproval(
            approval_id=event.approval_id,
            run_id=event.run_id,
            invocation_id=cause.stream_id,
            tool=event.tool,
            tool_version=event.tool_version,
            arguments_hash=event.arguments_hash,
            demand=event.demand,
            agent_run_id=event.agent_run_id,
            key=event.key,
            asked_by=event.asked_by,
            on_behalf_of=event.on_behalf_of,
        )
    ]


def on_invocation_cancelled(event: invocations.InvocationCancelled, cause: ReactionCause) -> list[Reaction]:
    if event.approval_id is None:
        return []
    return [WithdrawApproval(approval_id=event.approval_id, reason=event.reason)]


def on_approval_decided(event: approvals.ApprovalDecided, cause: ReactionCause) -> list[Reaction]:
    if event.outcome is None:
        return []
    if event.budget is not None:
        denied = f"{event.by} gives no more of the budget '{event.budget.budget}'" + (f": {event.reason}" if event.reason else "")
        return _of_budget(event.budget, event.outcome, denied, by=event.by, reason=event.reason, for_whom=event.on_behalf_of)
    if event.invocation_id is None:
        answered = {"approved": event.outcome == "approved", "reason": event.reason}
        return _answered(event, answered)
    if event.outcome == "approved":
        return [ReleaseInvocation(invocation_id=event.invocation_id, approval_id=cause.stream_id, arguments=event.call_with)]
    why = f"{event.by} denied the call" + (f": {event.reason}" if event.reason else "")
    return [_denied(event, cause, "ApprovalDenied", why)]


def on_approval_expired(event: approvals.ApprovalExpired, cause: ReactionCause) -> list[Reaction]:
    if event.budget is not None:
        denied = f"nobody gave more of the budget '{event.budget.budget}' in time"
        return _of_budget(event.budget, event.outcome, denied, by="deadline", reason="nobody decided in time")
    if event.invocation_id is None:
        return _answered(event, {"approved": event.outcome == "approved", "reason": None})
    if event.outcome == "approved":
        return [ReleaseInvocation(invocation_id=event.invocation_id, approval_id=cause.stream_id)]
    return [_denied(event, cause, "ApprovalExpired", "nobody approved the call in time")]


def _of_budget(
    answer: BudgetAnswer, outcome: str, denied: str, *, by: str, reason: str | None, for_whom: str | None = None
) -> list[Reaction]:
    """One answer for all calls that wait."""
    place: dict[str, Any] = {"allowance_id": answer.allowance.allowance_id, "root_id": answer.allowance.root_id}
    if outcome == "denied":
        return [DenyMore(**place, question=answer.number, message=denied)]
    why = (reason or "").strip() or "approved"
    return [LiftAllowance(**place, extra=answer.add, by=by, reason=why, on_behalf_of=for_whom, question=answer.number)]


def _answered(event: approvals.ApprovalDecided | approvals.ApprovalExpired, answer: dict[str, Json]) -> list[Reaction]:
    """The answer to a question of an agent."""
    asked = event.question
    if asked is None:
        return []
    expired = isinstance(event, approvals.ApprovalExpired)
    result: dict[str, Json] = {**answer, "by": list(asked.by), "expired": expired}
    return [FinishWait(agent_run_id=asked.agent_run_id, key=asked.key, result=result, reopened=asked.reopened)]


def _denied(event: approvals.ApprovalDecided | approvals.ApprovalExpired, cause: ReactionCause, kind: str, why: str) -> Reaction:
    assert event.invocation_id is not None
    error = Failure(type=kind, message=why)
    return DenyInvocation(invocation_id=event.invocation_id, approval_id=cause.stream_id, error=error)


def on_outcome(event: invocations.Outcome, cause: ReactionCause) -> list[Reaction]:
    if not event.untrusted:
        return []
    return [TaintRun(run_id=cause.root_id, invocation_id=cause.stream_id, key=event.key)]


def on_run_tainted(event: runs.RunTainted, cause: ReactionCause) -> list[Reaction]:
    """The run above gets the result of the run."""
    if event.parent is None:
        return []
    return [TaintRun(run_id=event.parent.run_id, invocation_id=event.invocation_id, key=event.key)]


REACTIONS: Reactions = {
    invocations.InvocationHeld: on_invocation_held,
    invocations.InvocationCancelled: on_invocation_cancelled,
    invocations.InvocationSucceeded: on_outcome,
    invocations.InvocationFailed: on_outcome,
    invocations.InvocationResolved: on_outcome,
    approvals.ApprovalDecided: on_approval_decided,
    approvals.ApprovalExpired: on_approval_expired,
    runs.RunTainted: on_run_tainted,
}
