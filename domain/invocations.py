"""Invocations: one tool call each. The intent is recorded before the effect, so that an effect never happens twice unseen.

A cancelled call is never tried again. The outcome of an attempt that was under way is recorded when it arrives, also when the call
has become ambiguous meanwhile and no person has resolved it.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Literal, assert_never
from uuid import UUID

from pydantic import Field, StringConstraints

from domain.errors import AlreadyResolved, InvalidState, NotFound, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, LapseReason, Retry, backoff_s
from domain.kernel import Command, Decider, Event, Json, Name, Priority, Scheduled, ShortText, replace, same_json

Status = Literal["absent", "requested", "started", "waiting", "succeeded", "failed", "ambiguous", "cancelled"]
"""`waiting`: between a failed attempt and the next. `ambiguous`: a worker vanished in an attempt that must not be repeated."""

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

Reason = Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True, pattern=r"^[^\x00]+$")]
"""Why a person did something, in the person's own words."""


class InvocationRequested(Event):
    TOPIC = "invocation.requested"
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: str
    arguments: dict[str, Json]
    idempotent: bool
    timeout_s: float
    retry: Retry
    priority: Priority = "normal"
    """The priority of the run."""
    on_behalf_of: str | None = None
    """For whom the call is: the metadata of all that comes of the call has it, too. None: for nobody."""


class AttemptStarted(Event):
    """Appended before the tool is called."""

    TOPIC = "invocation.attempt_started"
    attempt: int
    worker_id: str
    dispatch: int
    session_id: UUID | None = None
    """The session that holds the lease. None: the queue of the work keeps the lease."""


class InvocationRetryScheduled(Event):
    TOPIC = "invocation.retry_scheduled"
    attempt: int
    error: Failure
    delay_s: float
    dispatch: int


class InvocationRequeued(Event):
    TOPIC = "invocation.requeued"
    run_id: UUID
    tool: str
    dispatch: int
    lapsed: int | None = None
    """The attempt whose claim lapsed. None: the delay of a retry is over."""
    reason: str | None = None
    """Why the claim lapsed."""
    priority: Priority = "normal"
    """The priority of the run."""


class InvocationSucceeded(Event):
    TOPIC = "invocation.succeeded"
    agent_run_id: UUID
    key: str
    attempt: int
    result: Json = None


class InvocationFailed(Event):
    TOPIC = "invocation.failed"
    agent_run_id: UUID
    key: str
    attempt: int
    error: Failure


class InvocationBecameAmbiguous(Event):
    """The worker vanished after the intent was recorded. A person must say whether the effect happened, unless the worker comes
    back and reports the outcome first."""

    TOPIC = "invocation.became_ambiguous"
    attempt: int
    worker_id: str


class InvocationResolved(Event):
    """A person said what became of an ambiguous invocation."""

    TOPIC = "invocation.resolved"
    agent_run_id: UUID
    key: str
    attempt: int
    outcome: Literal["succeeded", "failed"]
    result: Json = None
    error: Failure | None = None
    by: str
    """The actor of the person's key."""
    reason: str
    evidence: Json = None
    on_behalf_of: str | None = None
    """For whom the actor asked."""


class InvocationCancelRequested(Event):
    """The invocation was cancelled while an attempt was under way, or while the outcome of the last attempt was unknown."""

    TOPIC = "invocation.cancel_requested"
    attempt: int
    reason: str | None = None


class InvocationCancelled(Event):
    TOPIC = "invocation.cancelled"
    reason: str | None = None
    effect: Literal["unknown"] | None = None
    """`unknown`: the worker of the last attempt vanished. None: no attempt was under way."""


InvocationEvent = (
    InvocationRequested | AttemptStarted | InvocationRetryScheduled | InvocationRequeued | InvocationSucceeded
    | InvocationFailed | InvocationBecameAmbiguous | InvocationResolved | InvocationCancelRequested | InvocationCancelled
)  # fmt: skip


@dataclass(frozen=True)
class Invocation:
    status: Status = "absent"
    requested: InvocationRequested | None = None
    attempt: int = 0
    worker_id: str | None = None
    session_id: UUID | None = None
    """The session that made the newest claim."""
    dispatch: int = 0
    failures: int = 0
    lost_claims: int = 0
    result: Json = None
    error: Failure | None = None
    resolved: InvocationResolved | None = None
    cancel_request: InvocationCancelRequested | None = None


def evolve(invocation: Invocation, event: InvocationEvent) -> Invocation:
    match event:
        case InvocationRequested():
            return replace(invocation, status="requested", requested=event, dispatch=1)
        case AttemptStarted():
            return replace(
                invocation,
                status="started",
                attempt=event.attempt,
                worker_id=event.worker_id,
                session_id=event.session_id,
                lost_claims=invocation.lost_claims + 1,
            )
        case InvocationSucceeded():
            return replace(invocation, status="succeeded", result=event.result)
        case InvocationRetryScheduled():
            return replace(invocation, status="waiting", failures=invocation.failures + 1, lost_claims=0)
        case InvocationRequeued():
            lost = invocation.lost_claims if event.reason in (None, "lost") else max(0, invocation.lost_claims - 1)
            return replace(invocation, status="requested", dispatch=event.dispatch, lost_claims=lost)
        case InvocationFailed():
            return replace(invocation, status="failed", error=event.error)
        case InvocationBecameAmbiguous():
            return replace(invocation, status="ambiguous")
        case InvocationResolved():
            return replace(invocation, status=event.outcome, result=event.result, error=event.error, resolved=event)
        case InvocationCancelRequested():
            return replace(invocation, cancel_request=event)
        case InvocationCancelled():
            return replace(invocation, status="cancelled")
        case _:
            assert_never(event)


class RequestInvocation(Command):
    invocation_id: UUID
    run_id: UUID
    agent_run_id: UUID
    key: str
    tool: Name
    arguments: dict[str, Json] = {}
    idempotent: bool
    timeout_s: float
    retry: Retry
    priority: Priority = "normal"
    on_behalf_of: str | None = None


class ClaimInvocation(Command):
    invocation_id: UUID
    worker_id: ShortText
    dispatch: int = Field(ge=1)
    session_id: UUID | None = None


class LapseAttempt(Command):
    """Takes the invocation away from the session that claimed it."""

    invocation_id: UUID
    attempt: int
    reason: LapseReason


class CompleteInvocation(Command):
    invocation_id: UUID
    attempt: int
    result: Json = None


class FailInvocation(Command):
    invocation_id: UUID
    attempt: int
    error: Failure


class ResolveInvocation(Command):
    """A person says what became of an ambiguous invocation: an error, or else the result."""

    invocation_id: UUID
    result: Json = None
    error: Failure | None = None
    by: str
    reason: Reason
    evidence: Json = None
    on_behalf_of: str | None = None


class RequeueInvocation(Command):
    invocation_id: UUID
    dispatch: int


class CancelInvocation(Command):
    invocation_id: UUID
    reason: ShortText | None = None


InvocationCommand = (
    RequestInvocation | ClaimInvocation | CompleteInvocation | FailInvocation | ResolveInvocation | RequeueInvocation
    | CancelInvocation | LapseAttempt
)  # fmt: skip


def decide(invocation: Invocation, command: InvocationCommand) -> list[Event]:
    if isinstance(command, RequestInvocation):
        if invocation.requested is not None:
            first = invocation.requested
            if command.tool != first.tool or not same_json(command.arguments, first.arguments):
                raise RepeatedDifferently(f"key '{first.key}' called '{first.tool}' before, with other arguments", pointer="/key")
            return []
        return [
            InvocationRequested(
                **command.model_dump(exclude={"invocation_id", "arguments", "retry"}),
                arguments=command.arguments,
                retry=command.retry,
            )
        ]
    requested = invocation.requested
    if requested is None:
        raise NotFound(f"there is no invocation {command.invocation_id}")
    match command:
        case ClaimInvocation():
            return [_claim(invocation, requested, command)]
        case LapseAttempt():
            return _lapse(invocation, requested, command)
        case CompleteInvocation() | FailInvocation():
            return _report(invocation, requested, command)
        case ResolveInvocation():
            return _resolve(invocation, requested, command)
        case RequeueInvocation():
            if invocation.status != "waiting" or command.dispatch != invocation.dispatch + 1:
                return []
            return [_requeued(requested, command.dispatch)]
        case CancelInvocation():
            if invocation.status in ("requested", "waiting"):
                return [InvocationCancelled(reason=command.reason)]
            if invocation.status in TERMINAL or invocation.cancel_request is not None:
                return []
            return [InvocationCancelRequested(attempt=invocation.attempt, reason=command.reason)]
        case _:
            assert_never(command)


def _claim(invocation: Invocation, requested: InvocationRequested, command: ClaimInvocation) -> Event:
    if invocation.status in TERMINAL or invocation.status == "ambiguous":
        raise WorkOver(f"the invocation is {invocation.status}")
    if invocation.status == "waiting" or command.dispatch != invocation.dispatch:
        raise WorkOver(f"dispatch {command.dispatch} is over; {invocation.dispatch} is the newest")
    if invocation.status == "started":
        if invocation.session_id is not None:
            raise WorkOver(f"dispatch {command.dispatch} is claimed by a session, as attempt {invocation.attempt}")
        # The queue delivered the work again, so the worker of the open attempt has vanished.
        if (end := _end_of_lost(invocation, requested)) is not None:
            return end
    attempt = invocation.attempt + 1
    return AttemptStarted(attempt=attempt, worker_id=command.worker_id, dispatch=command.dispatch, session_id=command.session_id)


def _end_of_lost(invocation: Invocation, requested: InvocationRequested) -> Event | None:
    """What ends an invocation whose worker vanished in an attempt, with an unknown outcome. None: it is tried again."""
    if not requested.idempotent:
        return InvocationBecameAmbiguous(attempt=invocation.attempt, worker_id=invocation.worker_id or "")
    if invocation.cancel_request is not None:
        return InvocationCancelled(reason=invocation.cancel_request.reason, effect="unknown")
    if invocation.lost_claims >= MAX_LOST_CLAIMS:
        why = f"{MAX_LOST_CLAIMS} workers in a row vanished while they ran this tool"
        return _outcome(invocation, requested, None, Failure(type="WorkersLost", message=why, kind="lost"))
    return None


def _lapse(invocation: Invocation, requested: InvocationRequested, command: LapseAttempt) -> list[Event]:
    """Nothing, for an attempt that no session began, that has ended, or after which the invocation was claimed again."""
    if invocation.status != "started" or command.attempt != invocation.attempt or invocation.session_id is None:
        return []
    if command.reason == "unsent":  # the tool was never called: not even a call that must not be repeated is in doubt
        if invocation.cancel_request is not None:
            return [InvocationCancelled(reason=invocation.cancel_request.reason)]
    elif (end := _end_of_lost(invocation, requested)) is not None:
        return [end]
    return [_requeued(requested, invocation.dispatch + 1, lapsed=command.attempt, reason=command.reason)]


def _requeued(
    requested: InvocationRequested, dispatch: int, *, lapsed: int | None = None, reason: str | None = None
) -> InvocationRequeued:
    run_id, tool, priority = requested.run_id, requested.tool, requested.priority
    return InvocationRequeued(run_id=run_id, tool=tool, dispatch=dispatch, lapsed=lapsed, reason=reason, priority=priority)


def _report(invocation: Invocation, requested: InvocationRequested, command: CompleteInvocation | FailInvocation) -> list[Event]:
    if invocation.status in TERMINAL:
        raise WorkOver(f"the invocation is {invocation.status}")
    if command.attempt != invocation.attempt or invocation.status in ("requested", "waiting"):
        raise StaleAttempt(f"attempt {command.attempt} lost its lease; {invocation.attempt} is the newest")
    if isinstance(command, CompleteInvocation):
        return [_outcome(invocation, requested, command.result, None)]
    error = command.error
    if _may_be_tried_again(invocation, requested, error):
        delay = backoff_s(requested.retry, command.invocation_id, invocation.failures + 1, error)
        dispatch = invocation.dispatch + 1
        return [InvocationRetryScheduled(attempt=command.attempt, error=error, delay_s=delay, dispatch=dispatch)]
    return [_outcome(invocation, requested, None, error)]


def _may_be_tried_again(invocation: Invocation, requested: InvocationRequested, error: Failure) -> bool:
    if invocation.cancel_request is not None or not requested.idempotent:
        return False
    return error.kind in RETRYABLE and invocation.failures + 1 < requested.retry.max_attempts


def _resolve(invocation: Invocation, requested: InvocationRequested, command: ResolveInvocation) -> list[Event]:
    resolution = InvocationResolved(
        agent_run_id=requested.agent_run_id,
        key=requested.key,
        attempt=invocation.attempt,
        outcome="succeeded" if command.error is None else "failed",
        result=command.result,
        error=command.error,
        by=command.by,
        reason=command.reason,
        evidence=command.evidence,
        on_behalf_of=command.on_behalf_of,
    )
    first = invocation.resolved
    if first is not None:
        if _said(first) == _said(resolution):
            return []
        told = first.error.message if first.error is not None else json.dumps(first.result, ensure_ascii=False)
        raise AlreadyResolved(f"{first.by} said before that the call {first.outcome}: {told[:200]} (reason: {first.reason})")
    if invocation.status != "ambiguous":
        raise InvalidState(f"the invocation is {invocation.status}; only an ambiguous one is resolved by hand")
    return [resolution]


def _said(resolution: InvocationResolved) -> str:
    """The content of a resolution, without its author: another person, or one for another, may say the same."""
    return json.dumps(resolution.model_dump(mode="json", exclude={"by", "on_behalf_of"}), sort_keys=True)


def _outcome(invocation: Invocation, requested: InvocationRequested, result: Json, error: Failure | None) -> Event:
    where = {"agent_run_id": requested.agent_run_id, "key": requested.key, "attempt": invocation.attempt}
    if error is None:
        return InvocationSucceeded.model_validate({**where, "result": result})
    return InvocationFailed.model_validate({**where, "error": error})


def scheduled_by(event: Event, invocation_id: UUID) -> Scheduled | None:
    """The command that an event of an invocation schedules; None for events that schedule nothing."""
    if isinstance(event, InvocationRetryScheduled):
        return Scheduled(event.delay_s, RequeueInvocation(invocation_id=invocation_id, dispatch=event.dispatch))
    return None


DECIDER: Decider[Invocation] = Decider("invocations", Invocation, decide, evolve)
