"""BudgetAsking the tool's `reconcile` function whether an effect happened, and what its answer brings about.

The function has no effect of its own. So it may be asked as often as it takes, by any worker that has it: one that vanished is
asked anew, one that failed is asked again after a while, and after `PATIENCE_S` a person is asked instead.
"""

from typing import Any, Literal
from uuid import UUID

from domain.amounts import Amounts
from domain.errors import StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, LapseReason, Retry, backoff_s
from domain.invocations.commands import FailInvocation, GiveUpReconcile, ReconcileInvocation
from domain.invocations.declared import NOTHING_TAKES_IT_BACK, Compensable
from domain.invocations.events import (
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationFailed,
    InvocationFellBack,
    InvocationReconciled,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationRequested,
    InvocationRequeued,
    InvocationRetryScheduled,
    InvocationSucceeded,
)
from domain.invocations.spending import cost_of_cancelled, is_covered, told
from domain.invocations.state import RECONCILING, TERMINAL, Invocation
from domain.kernel import Event, Json

Effect = Literal["unknown", "happened"]

PATIENCE_S = 600.0
"""Seconds after which a person is asked. So long may a worker with the function be away, or the function fail."""
GOES_ON = RETRYABLE | {"timeout", "lost"}
"""Kinds of failures after which another tool may do what this one could not."""
RETRY = Retry(max_attempts=10, initial_s=1.0, max_s=60.0)
"""Of the function, where its failure may pass."""


def can_tell(invocation: Invocation, requested: InvocationRequested) -> bool:
    """Whether the tool's `reconcile` function is to be asked about an effect in doubt.

    A call that may be repeated is repeated instead, unless it was cancelled.
    """
    return requested.reconcile_timeout_s is not None and (not requested.idempotent or invocation.cancel_request is not None)


def ask(
    invocation: Invocation,
    requested: InvocationRequested,
    reason: str,
    *,
    lapsed: int | None = None,
    error: Failure | None = None,
    again: bool = False,
) -> InvocationReconcileRequested:
    """`again`: it is not the first request about this effect."""
    return InvocationReconcileRequested(
        run_id=requested.run_id,
        tool=requested.tool,
        attempt=invocation.called,
        worker_id=invocation.called_by or "",
        dispatch=invocation.dispatch + 1,
        reason=reason,
        lapsed=lapsed,
        error=error,
        give_up_s=None if again else PATIENCE_S,
        priority=requested.priority,
    )


def vanished(invocation: Invocation, requested: InvocationRequested, attempt: int, reason: LapseReason) -> Event:
    """What follows when a worker vanished while it asked."""
    if reason == "lost" and invocation.lost_reconciles >= MAX_LOST_CLAIMS:
        return nobody_knows(invocation, requested, f"{MAX_LOST_CLAIMS} workers in a row vanished while they asked")
    return ask(invocation, requested, reason, lapsed=attempt, again=True)


def fail(invocation: Invocation, requested: InvocationRequested, command: FailInvocation) -> list[Event]:
    """The function failed."""
    if invocation.status not in RECONCILING:  # a person is asked already
        return []
    error, failures = command.error, invocation.reconcile_failures + 1
    if error.kind in RETRYABLE and failures < RETRY.max_attempts:
        delay = backoff_s(RETRY, command.invocation_id, failures, error)
        return [InvocationReconcileFailed(attempt=command.attempt, error=error, delay_s=delay, dispatch=invocation.dispatch + 1)]
    failed = InvocationReconcileFailed(attempt=command.attempt, error=error)
    return [failed, nobody_knows(invocation, requested, f"the reconcile function failed: {error.message}"[:500])]


def give_up(invocation: Invocation, requested: InvocationRequested, command: GiveUpReconcile) -> list[Event]:
    """Nothing, if the effect is not in doubt any more, or another attempt's is."""
    if invocation.status not in RECONCILING or command.attempt != invocation.called:
        return []
    return [nobody_knows(invocation, requested, f"the reconcile function gave no answer within {PATIENCE_S:.0f} s")]


def answer(invocation: Invocation, requested: InvocationRequested, command: ReconcileInvocation) -> list[Event]:
    """The function has answered. The answer still counts while a person is asked who has not spoken."""
    if invocation.status in TERMINAL:
        raise WorkOver(f"the invocation is {invocation.status}")
    if command.attempt == invocation.called or not invocation.may_be_reported(command.attempt):
        raise StaleAttempt(f"attempt {command.attempt} does not ask about the effect; {invocation.attempt} is the newest attempt")
    reconciled = InvocationReconciled(attempt=command.attempt, outcome=command.outcome)
    if command.outcome == "succeeded":
        return [reconciled, succeeded(invocation, requested, command.result)]
    if command.outcome == "not_happened":
        return [reconciled, had_no_effect(invocation, requested, command)]
    if invocation.status == "ambiguous":
        return []
    return [reconciled, nobody_knows(invocation, requested, "the reconcile function does not know")]


def succeeded(
    invocation: Invocation, requested: InvocationRequested, result: Json, usage: Amounts | None = None
) -> InvocationSucceeded:
    used = told(invocation, requested, usage)
    return InvocationSucceeded(**asked(requested), **used, attempt=invocation.called, result=result)


def had_no_effect(invocation: Invocation, requested: InvocationRequested, command: ReconcileInvocation) -> Event:
    """The tool may be called again, as after a failure: within its attempts, and never after a cancel."""
    if invocation.cancel_request is not None:
        return cancelled(invocation, requested, invocation.cancel_request.reason)
    error = invocation.doubt
    if error is not None:
        may = invocation.failures + 1 < requested.retry.max_attempts and is_covered(invocation, requested, requested.max_cost, None)
        if error.kind in RETRYABLE and may:
            delay = backoff_s(requested.retry, command.invocation_id, invocation.failures + 1, error)
            return InvocationRetryScheduled(attempt=invocation.called, error=error, delay_s=delay, dispatch=invocation.dispatch + 1)
        return over(invocation, requested, error)
    if invocation.lost_claims >= MAX_LOST_CLAIMS:
        return over(invocation, requested, workers_lost())
    return requeued(requested, invocation.dispatch + 1, reason="not_happened")


def nobody_knows(invocation: Invocation, requested: InvocationRequested, reason: str | None) -> Event:
    """The end of an attempt with an unknown effect that is not repeated: a person must say what became of it, or, where a
    second effect would do no harm and nobody waits for the call, it is over."""
    if requested.idempotent and invocation.cancel_request is not None:
        return cancelled(invocation, requested, invocation.cancel_request.reason, effect="unknown")
    return InvocationBecameAmbiguous(attempt=invocation.called, worker_id=invocation.called_by or "", reason=reason)


def workers_lost() -> Failure:
    why = f"{MAX_LOST_CLAIMS} workers in a row vanished while they ran this tool"
    return Failure(type="WorkersLost", message=why, kind="lost")


def failed(
    invocation: Invocation,
    requested: InvocationRequested,
    error: Failure,
    effect: Effect | None = None,
    usage: Amounts | None = None,
    *,
    began: bool = True,
) -> InvocationFailed:
    used = told(invocation, requested, usage, error, began=began)
    return InvocationFailed(**asked(requested), **used, attempt=invocation.called, error=error, effect=effect)


def over(
    invocation: Invocation,
    requested: InvocationRequested,
    error: Failure,
    effect: Effect | None = None,
    usage: Amounts | None = None,
) -> InvocationFellBack | InvocationFailed:
    """The tries of a tool are over: the next tool is called instead, if there is one and the failure is not the call's own fault.

    `effect`: None if the tool had none, as far as anybody can say. Else the next tool is called only where a second effect would do
    no harm, and where the effect of the first is not to be taken back.
    """
    can_go_on = effect is None or (requested.idempotent and requested.compensation is None)
    if error.kind in GOES_ON and can_go_on and invocation.cancel_request is None:
        instead = fell_back(invocation, requested, error, usage)
        if instead is not None:
            return instead
    return failed(invocation, requested, error, effect, usage)


def fell_back(
    invocation: Invocation, requested: InvocationRequested, error: Failure, usage: Amounts | None = None, number: int | None = None
) -> InvocationFellBack | None:
    """`number`: which of the fallbacks. None: the next one. Returns None: there is no other tool, or not any more, or what was set
    aside for the call is not enough for it."""
    number = invocation.fallback + 1 if number is None else number
    if number > len(requested.fallbacks):
        return None
    chosen = requested.fallbacks[number - 1]
    if not is_covered(invocation, requested, chosen.max_cost, usage):
        return None
    return InvocationFellBack(
        run_id=requested.run_id,
        from_tool=requested.tool,
        tool=chosen.tool,
        version=chosen.tool_version,
        number=number,
        attempt=invocation.called,
        error=error,
        dispatch=invocation.dispatch + 1,
        priority=requested.priority,
        held=chosen.approval is not None,
        usage=usage,
    )


def asked(requested: InvocationRequested) -> dict[str, Any]:
    """The fields of an outcome that name the stream that asked, and say whether the effect can be taken back."""
    told: dict[str, Any] = {"agent_run_id": requested.agent_run_id, "key": requested.key, "asked_by": requested.asked_by}
    if requested.untrusted:
        told["untrusted"] = True
    if requested.allowances:
        told["allowances"] = requested.allowances
    return {**told, "compensable": compensable(requested)} if requested.is_awaited else told


def compensable(requested: InvocationRequested) -> Compensable:
    """What an outcome says about taking the effect back."""
    declared = requested.compensation or NOTHING_TAKES_IT_BACK
    return Compensable(tool=requested.tool, compensated_by=declared.tool, on_failure=declared.on_failure)


def cancelled(
    invocation: Invocation,
    requested: InvocationRequested,
    reason: str | None,
    effect: Literal["unknown"] | None = None,
    approval_id: UUID | None = None,
    unsent: bool = False,
) -> InvocationCancelled:
    """`approval_id`: the decision that the call waits for. `unsent`: the newest attempt has not reached its worker."""
    cost = cost_of_cancelled(invocation, requested, invocation.tries - unsent, effect)
    told = asked(requested) if requested.asked_by != "agent_run" or requested.is_awaited or cost is not None else {}
    return InvocationCancelled(
        reason=reason, effect=effect, chain_id=requested.chain_id, approval_id=approval_id, cost=cost, **told
    )  # fmt: skip


def requeued(
    requested: InvocationRequested, dispatch: int, *, lapsed: int | None = None, reason: str | None = None
) -> InvocationRequeued:
    run_id, tool, priority = requested.run_id, requested.tool, requested.priority
    return InvocationRequeued(run_id=run_id, tool=tool, dispatch=dispatch, lapsed=lapsed, reason=reason, priority=priority)
