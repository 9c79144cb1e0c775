"""What an event changes of a tool call, and the replay of a single call."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from application.views.invocations import InvocationView, ReconcileView, ResolutionView
from domain.invocations import (
    AttemptStarted,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationFellBack,
    InvocationHeld,
    InvocationNotHappened,
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
from domain.kernel import RecordedEvent
from domain.registry import SLICES
from projections.kernel import decoded

MAX_BECAUSE = 500
"""Characters of the failure that led to a fallback."""
TOPICS = frozenset(event.TOPIC for event in SLICES["invocations"])


REQUESTED = {"run_id", "agent_run_id", "key", "tool", "arguments", "idempotent", "asked_by", "cached_from"}


def changes(recorded: RecordedEvent) -> dict[str, Any]:
    """The fields of a call that an event after the first one changes."""
    match decoded(recorded):
        case AttemptStarted() as event:
            return {"status": "running", "attempt": event.attempt, "worker_id": event.worker_id}
        case InvocationRetryScheduled() as event:
            return {"status": "retrying", "error": event.error}
        case InvocationRequeued(lapsed=int()) | InvocationRequeued(reason=str()):
            return {"status": "requested"}
        case InvocationReconcileRequested():
            return {"status": "reconciling"}
        case InvocationFellBack() as event:
            return {"status": "requested", "error": event.error, "fallback": event.tool}
        case InvocationHeld():
            return {"status": "held"}
        case InvocationReleased():
            return {"status": "requested"}
        case InvocationSucceeded() as event:
            return {"status": "succeeded", "result": event.result, "error": None}
        case InvocationFailed() as event:
            return {"status": "failed", "error": event.error}
        case InvocationBecameAmbiguous():
            return {"status": "ambiguous"}
        case InvocationResolved() as event:
            said = resolution_of(event, recorded.recorded_at)
            return {"status": event.outcome, "result": event.result, "error": event.error, "resolution": said}
        case InvocationCancelRequested():
            return {"cancel_requested": True}
        case InvocationCancelled() as event:
            return {"status": "cancelled", "effect": event.effect}
        case _:
            return {}


def _of_fallback(recorded: RecordedEvent) -> dict[str, Any]:
    """Why a call goes on with another tool. The list of calls does not show it, so it costs no column."""
    if recorded.topic != InvocationFellBack.TOPIC:
        return {}
    event: InvocationFellBack = decoded(recorded)
    return {"fallback_because": f"{event.from_tool}: {event.error.type}: {event.error.message}"[:MAX_BECAUSE]}


def _of_approval(view: InvocationView, recorded: RecordedEvent) -> dict[str, Any]:
    """What holding a call changes of the single call."""
    match decoded(recorded):
        case InvocationHeld() as event:
            return {"approval_id": event.approval_id}
        case InvocationReleased(arguments=dict() as arguments):
            return {"arguments": arguments, "asked_arguments": view.asked_arguments or view.arguments}
        case _:
            return {}


def resolution_of(event: InvocationResolved | InvocationNotHappened, at: datetime) -> ResolutionView:
    return ResolutionView(by=event.by, on_behalf_of=event.on_behalf_of, reason=event.reason, evidence=event.evidence, at=at)


def _of_doubt(known: ReconcileView | None, recorded: RecordedEvent) -> dict[str, Any]:
    """What an event changes of what is shown of an effect in doubt. `known`: what is known of asking about it."""
    event = decoded(recorded)
    match event:
        case InvocationNotHappened():
            return {"not_happened": resolution_of(event, recorded.recorded_at)}
        case InvocationReconcileRequested(give_up_s=float()):
            return {"reconcile": ReconcileView(because=event.reason, attempt=event.attempt, since=recorded.recorded_at)}
    if known is None:
        return {}
    match event:
        case InvocationReconcileStarted():
            changed: dict[str, Any] = {"asked": known.asked + 1}
        case InvocationReconcileFailed():
            changed = {"failures": known.failures + 1, "error": event.error}
        case InvocationReconciled():
            changed = {"outcome": event.outcome}
        case InvocationBecameAmbiguous(reason=str()):
            changed = {"gave_up": event.reason}
        case _:
            return {}
    return {"reconcile": known.model_copy(update=changed)}


def replay(events: Iterable[RecordedEvent]) -> InvocationView | None:
    """A call after the given events of its stream, in order. None if the events are of another slice."""
    view: InvocationView | None = None
    for recorded in events:
        if recorded.topic == InvocationRequested.TOPIC:
            event: InvocationRequested = decoded(recorded)
            view = InvocationView(
                invocation_id=recorded.stream_id, status="requested", since=recorded.recorded_at, version=recorded.version,
                requested_at=recorded.recorded_at,
                **event.model_dump(include=REQUESTED),
            )  # fmt: skip
        elif view is not None:
            changed = (
                changes(recorded) | _of_doubt(view.reconcile, recorded) | _of_fallback(recorded) | _of_approval(view, recorded)
            )
            since = {"since": recorded.recorded_at} if "status" in changed else {}
            view = view.model_copy(update={**changed, **since, "version": recorded.version})
    return view
