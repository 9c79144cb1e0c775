"""Invocations: one tool call each. The intent is recorded before the effect, so that an effect never happens twice unseen.

Others import from here, never from the modules:

- `events`: the facts of the stream.
- `commands`: what sagas, timers, workers and people may ask for.
- `state`: the invocation, and how each event changes it (`evolve`).
- `reconciling`: asking the tool's `reconcile` function whether an effect happened.
- `rules`: what each command brings about (`decide`), retries, resolutions, timers, and the `DECIDER`.
"""

from domain.invocations.commands import (
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    EndInvocation,
    FailInvocation,
    GiveUpReconcile,
    InvocationCommand,
    LapseAttempt,
    PutOffInvocation,
    Reason,
    ReconcileInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from domain.invocations.events import (
    AskedBy,
    AttemptStarted,
    FallbackTool,
    Found,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationEvent,
    InvocationFailed,
    InvocationFellBack,
    InvocationNotHappened,
    InvocationReconciled,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationReconcileStarted,
    InvocationRequested,
    InvocationRequestedV1,
    InvocationRequeued,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
    Outcome,
)
from domain.invocations.rules import (
    DECIDER,
    decide,
    scheduled_by,
)
from domain.invocations.state import (
    HELD,
    IN_DOUBT,
    RECONCILING,
    TERMINAL,
    Invocation,
    Status,
    evolve,
)

__all__ = [
    "DECIDER",
    "HELD",
    "IN_DOUBT",
    "RECONCILING",
    "TERMINAL",
    "AskedBy",
    "AttemptStarted",
    "CancelInvocation",
    "ClaimInvocation",
    "CompleteInvocation",
    "EndInvocation",
    "FailInvocation",
    "FallbackTool",
    "Found",
    "GiveUpReconcile",
    "Invocation",
    "InvocationBecameAmbiguous",
    "InvocationCancelRequested",
    "InvocationCancelled",
    "InvocationCommand",
    "InvocationEvent",
    "InvocationFailed",
    "InvocationFellBack",
    "InvocationNotHappened",
    "InvocationReconcileFailed",
    "InvocationReconcileRequested",
    "InvocationReconcileStarted",
    "InvocationReconciled",
    "InvocationRequested",
    "InvocationRequestedV1",
    "InvocationRequeued",
    "InvocationResolved",
    "InvocationRetryScheduled",
    "InvocationSucceeded",
    "LapseAttempt",
    "Outcome",
    "PutOffInvocation",
    "Reason",
    "ReconcileInvocation",
    "RequestInvocation",
    "RequeueInvocation",
    "ResolveInvocation",
    "Status",
    "decide",
    "evolve",
    "scheduled_by",
]
