"""The state of an invocation, and how each event changes it."""

from dataclasses import dataclass
from typing import Any, Literal, assert_never
from uuid import UUID

from domain.amounts import NOTHING, Amounts
from domain.failures import Failure, Retry
from domain.invocations.declared import NOTHING_TAKES_IT_BACK
from domain.invocations.events import (
    AttemptStarted,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationCompensationRefused,
    InvocationCompensationRequested,
    InvocationEvent,
    InvocationFailed,
    InvocationFellBack,
    InvocationHeld,
    InvocationNotHappened,
    InvocationPaused,
    InvocationPriorityChanged,
    InvocationReconciled,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationReconcileStarted,
    InvocationReleased,
    InvocationRequested,
    InvocationRequeued,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
)
from domain.kernel import Json, replace

Status = Literal[
    "absent", "requested", "started", "waiting", "succeeded", "failed", "ambiguous", "cancelled",
    "reconciling", "asking", "asking_later", "held",
]  # fmt: skip
"""`waiting`: between a failed attempt and the next. `ambiguous`: a worker vanished in an attempt that must not be repeated, and a
person must say what became of it.

`reconciling`: a worker is to ask the tool's `reconcile` function about the last attempt. `asking`: a worker does so.
`asking_later`: the function failed, and is asked again after a while.

`held`: the call must not begin before a decision (`approval_id`).
"""

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})
RECONCILING: frozenset[str] = frozenset({"reconciling", "asking", "asking_later"})
HELD: frozenset[str] = frozenset({"started", "asking"})
"""A worker has the work."""
IN_DOUBT: frozenset[str] = RECONCILING | {"ambiguous"}
"""The outcome of the last attempt is unknown. Its worker may still report it."""


@dataclass(frozen=True)
class Invocation:
    status: Status = "absent"
    requested: InvocationRequested | None = None
    """With the tool that is called now: a fallback has taken the place of the tool that was asked for."""
    asked_tool: str | None = None
    """The tool that was asked for, if a fallback has taken its place."""
    fallback: int = 0
    """The number of the fallback that is called now. 0: the tool that was asked for."""
    attempt: int = 0
    """The number of the newest claim: of a call of the tool, or of its `reconcile` function."""
    worker_id: str | None = None
    session_id: UUID | None = None
    """The session that made the newest claim."""
    called: int = 0
    """The number of the newest claim of the tool itself."""
    called_by: str | None = None
    """The worker of that claim."""
    called_in: UUID | None = None
    """The session of that claim."""
    dispatch: int = 0
    failures: int = 0
    lost_claims: int = 0
    reconcile_failures: int = 0
    """In a row, since an effect came in doubt."""
    lost_reconciles: int = 0
    """Claims of the `reconcile` function in a row whose workers vanished."""
    result: Json = None
    error: Failure | None = None
    doubt: Failure | None = None
    """What the worker of an attempt reported whose effect is in doubt."""
    resolved: InvocationResolved | None = None
    not_happened: InvocationNotHappened | None = None
    """What a person said last."""
    cancel_request: InvocationCancelRequested | None = None
    tries: int = 0
    """Attempts of the tools that may have run: a worker has had them."""
    vanished: bool = False
    """The worker of an attempt vanished that may have run, and the call was tried again."""
    used: Amounts = NOTHING
    """What the workers of attempts said that failed and were followed by another."""
    compensation_id: UUID | None = None
    """The last call that was to take the effect back."""
    approval_id: UUID | None = None
    """The decision that a held call waits for, or waited for last."""
    is_unpaid: bool = False
    """It is held until its budgets have enough."""
    asked_arguments: Any = None
    """The arguments that were asked for, where a person has changed them."""
    paused: int = 0
    """The dispatch that was taken back because the run is paused. 0: none was."""
    priorities: int = 0
    """The number of the newest change of the run's priority that has reached the call."""

    @property
    def is_paused(self) -> bool:
        return self.status == "requested" and self.paused == self.dispatch

    effect: bool = False
    """A call that failed or was cancelled: it had its effect all the same, or perhaps had it."""

    def session_of(self, attempt: int) -> UUID | None:
        """The session of an attempt about which its worker may still report. None: there is none."""
        if attempt == self.attempt:
            return self.session_id
        return self.called_in if attempt == self.called and self.status in IN_DOUBT else None

    def may_be_reported(self, attempt: int) -> bool:
        """Whether a report about an attempt, of the tool or of its `reconcile` function, still counts."""
        if attempt == self.called:
            return self.status == "started" or self.status in IN_DOUBT
        return attempt == self.attempt and self.status in ("asking", "ambiguous")


def evolve(invocation: Invocation, event: InvocationEvent) -> Invocation:
    match event:
        case InvocationRequested():
            status: Status = "requested" if event.approval is None and event.unpaid is None else "held"
            return replace(invocation, status=status, requested=event, dispatch=1)
        case AttemptStarted():
            return replace(
                invocation,
                status="started",
                attempt=event.attempt,
                worker_id=event.worker_id,
                session_id=event.session_id,
                called=event.attempt,
                called_by=event.worker_id,
                called_in=event.session_id,
                lost_claims=invocation.lost_claims + 1,
                tries=invocation.tries + 1,
                vanished=invocation.vanished or invocation.status == "started",
            )
        case InvocationSucceeded():
            return replace(invocation, status="succeeded", result=event.result)
        case InvocationRetryScheduled():
            used = invocation.used if event.usage is None else invocation.used + event.usage
            return replace(invocation, status="waiting", failures=invocation.failures + 1, lost_claims=0, used=used)
        case InvocationRequeued():
            counts = event.reason in (None, "lost", "not_happened", "unpaused", "person", "priority")
            lost = invocation.lost_claims if counts else max(0, invocation.lost_claims - 1)
            tries = invocation.tries - 1 if event.reason == "unsent" else invocation.tries
            vanished = invocation.vanished or (event.lapsed is not None and event.reason != "unsent")
            return replace(
                invocation, status="requested", dispatch=event.dispatch, lost_claims=lost, tries=tries, vanished=vanished
            )  # fmt: skip
        case InvocationFellBack():
            return _fell_back(invocation, event)
        case InvocationFailed():
            return replace(invocation, status="failed", error=event.error, effect=event.effect is not None)
        case InvocationBecameAmbiguous():
            return replace(invocation, status="ambiguous")
        case InvocationResolved():
            return replace(invocation, status=event.outcome, result=event.result, error=event.error, resolved=event)
        case InvocationNotHappened():
            return replace(invocation, not_happened=event, lost_claims=0)
        case InvocationCancelRequested():
            return replace(invocation, cancel_request=event)
        case InvocationCancelled():
            return replace(invocation, status="cancelled", effect=event.effect is not None)
        case InvocationReconcileRequested() | InvocationReconcileStarted() | InvocationReconcileFailed() | InvocationReconciled():
            return _of_doubt(invocation, event)
        case InvocationHeld() | InvocationReleased() | InvocationPaused() | InvocationPriorityChanged():
            return _of_decision(invocation, event)
        case InvocationCompensationRequested() | InvocationCompensationRefused():
            return replace(invocation, compensation_id=event.compensation_id)
        case _:
            assert_never(event)


def _of_doubt(
    invocation: Invocation,
    event: InvocationReconcileRequested | InvocationReconcileStarted | InvocationReconcileFailed | InvocationReconciled,
) -> Invocation:
    """How asking about an effect in doubt changes the invocation."""
    match event:
        case InvocationReconcileRequested():
            return _asked(invocation, event)
        case InvocationReconcileStarted():
            return replace(
                invocation,
                status="asking",
                attempt=event.attempt,
                worker_id=event.worker_id,
                session_id=event.session_id,
                lost_reconciles=invocation.lost_reconciles + 1,
            )
        case InvocationReconcileFailed():
            failures = invocation.reconcile_failures + 1
            return replace(invocation, status="asking_later", reconcile_failures=failures, lost_reconciles=0)
        case InvocationReconciled():
            return invocation
        case _:
            assert_never(event)


def _of_decision(
    invocation: Invocation, event: InvocationHeld | InvocationReleased | InvocationPaused | InvocationPriorityChanged
) -> Invocation:
    """With other arguments the call goes on with no other tool: nobody has looked at the arguments for those."""
    if isinstance(event, InvocationPaused):
        return replace(invocation, paused=event.dispatch)
    if isinstance(event, InvocationPriorityChanged):
        assert invocation.requested is not None
        asks = invocation.requested.model_copy(update={"priority": event.priority})
        return replace(invocation, requested=asks, priorities=event.number)
    if isinstance(event, InvocationHeld):
        return replace(invocation, status="held", approval_id=event.approval_id, is_unpaid=event.why == "budget")
    released = replace(invocation, status="requested", dispatch=event.dispatch, is_unpaid=False)
    requested = invocation.requested
    if event.arguments is None or requested is None:
        return released
    undo = requested.compensation or (NOTHING_TAKES_IT_BACK if requested.is_awaited else None)
    changed = {"arguments": event.arguments, "fallbacks": requested.fallbacks[: invocation.fallback], "compensation": undo}
    asked = requested.arguments if invocation.asked_arguments is None else invocation.asked_arguments
    return replace(released, requested=requested.model_copy(update=changed), asked_arguments=asked)


def _fell_back(invocation: Invocation, event: InvocationFellBack) -> Invocation:
    assert invocation.requested is not None
    chosen = invocation.requested.fallbacks[event.number - 1]
    declared = chosen.model_dump(exclude={"max_attempts", "compensation", "approval", "max_cost"}) | {
        "approval": chosen.approval,
        "max_cost": chosen.max_cost,
        "retry": Retry(max_attempts=chosen.max_attempts),
        "compensation": chosen.compensation or (NOTHING_TAKES_IT_BACK if invocation.requested.is_awaited else None),
    }
    return replace(
        invocation,
        status="held" if event.held else "requested",
        requested=invocation.requested.model_copy(update=declared),
        asked_tool=invocation.asked_tool or invocation.requested.tool,
        fallback=event.number,
        dispatch=event.dispatch,
        failures=0,
        lost_claims=0,
        used=invocation.used if event.usage is None else invocation.used + event.usage,
    )


def _asked(invocation: Invocation, event: InvocationReconcileRequested) -> Invocation:
    if event.give_up_s is not None:
        return replace(
            invocation, status="reconciling", dispatch=event.dispatch, doubt=event.error, reconcile_failures=0, lost_reconciles=0
        )
    lost = invocation.lost_reconciles if event.reason in ("lost", "retry") else max(0, invocation.lost_reconciles - 1)
    return replace(invocation, status="reconciling", dispatch=event.dispatch, lost_reconciles=lost)
