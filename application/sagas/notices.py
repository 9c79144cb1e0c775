"""Notices of approvals: each is a call of a tool, of its own root. What becomes of the call goes to the approval.

Nobody is told any more of what was settled: the settling word names the calls that are under way, and they are cancelled. A worker
that is faster finds the approval settled when it claims the call (`application/workers/invocations.py`).
"""

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from domain import approvals, invocations
from domain.approvals import Delivery, EndNotice
from domain.failures import Retry
from domain.invocations import CancelInvocation, RequestInvocation


def on_notice_started(event: approvals.NoticeStarted, cause: ReactionCause) -> list[Reaction]:
    notice = event.notice
    return [
        RequestInvocation(
            invocation_id=event.invocation_id,
            run_id=event.invocation_id,
            agent_run_id=cause.stream_id,
            key=str(event.number),
            tool=notice.tool,
            tool_version=notice.tool_version,
            arguments=notice.arguments,
            idempotent=notice.idempotent,
            timeout_s=notice.timeout_s,
            retry=Retry(max_attempts=notice.max_attempts),
            on_behalf_of=cause.on_behalf_of,
            asked_by="client",
        )
    ]


def on_settled(
    event: approvals.ApprovalDecided | approvals.ApprovalExpired | approvals.ApprovalWithdrawn, cause: ReactionCause
) -> list[Reaction]:
    return [CancelInvocation(invocation_id=call, reason="the approval is settled") for call in event.notices]


def on_invocation_succeeded(event: invocations.InvocationSucceeded, cause: ReactionCause) -> list[Reaction]:
    return _ended(event, cause, "delivered")


def on_invocation_failed(event: invocations.InvocationFailed, cause: ReactionCause) -> list[Reaction]:
    return _ended(event, cause, "failed", f"{event.error.type}: {event.error.message}")


def on_invocation_cancelled(event: invocations.InvocationCancelled, cause: ReactionCause) -> list[Reaction]:
    return _ended(event, cause, "cancelled", event.reason)


def on_invocation_resolved(event: invocations.InvocationResolved, cause: ReactionCause) -> list[Reaction]:
    if event.outcome == "succeeded":
        return _ended(event, cause, "delivered")
    return _ended(event, cause, "failed", None if event.error is None else event.error.message)


def _ended(
    event: invocations.Outcome | invocations.InvocationCancelled, cause: ReactionCause, outcome: Delivery, error: str | None = None
) -> list[Reaction]:
    approval_id = event.agent_run_id
    if event.asked_by != "client" or approval_id in (None, cause.stream_id) or event.key is None:
        return []
    assert approval_id is not None
    return [EndNotice(approval_id=approval_id, number=int(event.key), outcome=outcome, error=error)]


REACTIONS: Reactions = {
    approvals.NoticeStarted: on_notice_started,
    approvals.ApprovalDecided: on_settled,
    approvals.ApprovalExpired: on_settled,
    approvals.ApprovalWithdrawn: on_settled,
    invocations.InvocationSucceeded: on_invocation_succeeded,
    invocations.InvocationFailed: on_invocation_failed,
    invocations.InvocationCancelled: on_invocation_cancelled,
    invocations.InvocationResolved: on_invocation_resolved,
}
