"""Compensation: the stream of a run notes the effects of its calls that can be taken back, and takes them back when the run's end
asks for it.

The call that takes an effect back is made by way of the call whose effect it is: that one has the arguments and the result.
"""

from typing import Literal
from uuid import UUID

from application.engine.sagas.reactions import Reaction, ReactionCause, Reactions
from application.sagas.compensations_of_children import on_compensation_ended, on_part_scheduled, on_run_ended
from domain import compensations, invocations, runs
from domain.compensations import BeginCompensation, ExpectCall, RecordCompensation, RecordEffect, RuleOutEffect, compensation_id_of
from domain.failures import Failure
from domain.invocations import CompensateInvocation, RequestInvocation


def on_invocation_requested(event: invocations.InvocationRequested, cause: ReactionCause) -> list[Reaction]:
    if not event.is_awaited or event.asked_by == "client":  # whoever calls without a run takes nothing back by way of one
        return []
    return [ExpectCall(run_id=cause.root_id, invocation_id=cause.stream_id)]


def on_invocation_succeeded(event: invocations.InvocationSucceeded, cause: ReactionCause) -> list[Reaction]:
    return _outcome(event, cause, None)


def on_invocation_failed(event: invocations.InvocationFailed, cause: ReactionCause) -> list[Reaction]:
    return _outcome(event, cause, event.error, event.effect)


def on_invocation_resolved(event: invocations.InvocationResolved, cause: ReactionCause) -> list[Reaction]:
    return _outcome(event, cause, event.error)


def on_invocation_cancelled(event: invocations.InvocationCancelled, cause: ReactionCause) -> list[Reaction]:
    reason = "the call was cancelled" + (f": {event.reason}" if event.reason else "")
    return _outcome(event, cause, Failure(type="Cancelled", message=reason), event.effect)


def _outcome(
    event: invocations.Outcome | invocations.InvocationCancelled,
    cause: ReactionCause,
    error: Failure | None,
    effect: Literal["unknown", "happened"] | None = None,
) -> list[Reaction]:
    """What the outcome of a call says to the compensation of its run. `effect`: of a call that ended with an error."""
    run_id, call = cause.root_id, cause.stream_id
    if event.asked_by == "compensation":
        return [RecordCompensation(run_id=run_id, invocation_id=UUID(event.key), compensation_id=call, error=error)]
    declared = event.compensable
    if declared is None or event.asked_by == "client":
        return []
    if (error is not None and effect is None) or not declared.compensated_by:
        return [RuleOutEffect(run_id=run_id, invocation_id=call)]
    return [
        RecordEffect(
            run_id=run_id,
            invocation_id=call,
            key=event.key or "",
            tool=declared.tool,
            compensated_by=declared.compensated_by,
            on_error=declared.on_failure,
            unknown=effect == "unknown",
        )
    ]


def on_run_failed(event: runs.RunFailed, cause: ReactionCause) -> list[Reaction]:
    begins: list[Reaction] = [BeginCompensation(run_id=cause.stream_id, because="failed")] if event.compensate else []
    return begins if event.parent is None else [*begins, *on_run_ended(event, cause)]


def on_run_cancelled(event: runs.RunCancelled, cause: ReactionCause) -> list[Reaction]:
    begins: list[Reaction] = []
    if event.compensate:
        begins = [BeginCompensation(run_id=cause.stream_id, because="cancelled", reason=event.reason)]
    return begins if event.parent is None else [*begins, *on_run_ended(event, cause)]


def on_effect_started(event: compensations.EffectStarted, cause: ReactionCause) -> list[Reaction]:
    if event.run:
        parent_id = cause.root_id
        return [
            BeginCompensation(
                run_id=event.invocation_id,
                because="requested",
                reason="its parent takes its effects back",
                by=f"run:{parent_id}",
                parent_id=parent_id,
            )
        ]
    return [CompensateInvocation(invocation_id=event.invocation_id, compensation_id=event.compensation_id)]


def on_compensation_requested(event: invocations.InvocationCompensationRequested, cause: ReactionCause) -> list[Reaction]:
    declared = event.compensation
    return [
        RequestInvocation(
            invocation_id=event.compensation_id,
            run_id=event.run_id,
            agent_run_id=compensation_id_of(event.run_id),
            key=str(cause.stream_id),
            tool=declared.tool,
            tool_version=declared.tool_version,
            arguments=event.arguments,
            idempotent=declared.idempotent,
            timeout_s=declared.timeout_s,
            retry=declared.retry,
            reconcile_timeout_s=declared.reconcile_timeout_s,
            priority=event.priority,
            on_behalf_of=event.on_behalf_of,
            approval=event.approval,
            asked_by="compensation",
            max_cost=declared.max_cost,
        )
    ]


def on_compensation_refused(event: invocations.InvocationCompensationRefused, cause: ReactionCause) -> list[Reaction]:
    return [
        RecordCompensation(
            run_id=event.run_id, invocation_id=cause.stream_id, compensation_id=event.compensation_id, error=event.error
        )
    ]


REACTIONS: Reactions = {
    invocations.InvocationRequested: on_invocation_requested,
    invocations.InvocationSucceeded: on_invocation_succeeded,
    invocations.InvocationFailed: on_invocation_failed,
    invocations.InvocationResolved: on_invocation_resolved,
    invocations.InvocationCancelled: on_invocation_cancelled,
    runs.PartScheduled: on_part_scheduled,
    runs.RunCompleted: on_run_ended,
    runs.RunFailed: on_run_failed,
    runs.RunCancelled: on_run_cancelled,
    compensations.EffectStarted: on_effect_started,
    compensations.CompensationEnded: on_compensation_ended,
    invocations.InvocationCompensationRequested: on_compensation_requested,
    invocations.InvocationCompensationRefused: on_compensation_refused,
}
