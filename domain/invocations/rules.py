"""What each command brings about: the intent before the effect, retries, and what becomes of an effect in doubt.

A cancelled call is never tried again. The outcome of an attempt that was under way is recorded when it arrives, also when the call
has become ambiguous meanwhile and no person has resolved it.
"""

import json
from typing import assert_never
from uuid import UUID

from domain.errors import (
    AlreadyResolved,
    InvalidCommand,
    InvalidState,
    NotFound,
    RepeatedDifferently,
    RunIsPaused,
    StaleAttempt,
    WorkOver,
)
from domain.failures import MAX_LOST_CLAIMS, RETRYABLE, Failure, backoff_s, spread_s
from domain.invocations import compensating, holding, reconciling
from domain.invocations.commands import (
    CancelInvocation,
    ChangeInvocationPriority,
    ClaimInvocation,
    CompensateInvocation,
    CompleteInvocation,
    DenyInvocation,
    DispatchInvocation,
    EndInvocation,
    FailInvocation,
    GiveUpReconcile,
    InvocationCommand,
    LapseAttempt,
    PauseInvocation,
    PutOffInvocation,
    ReconcileInvocation,
    ReleaseInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
    UnpauseInvocation,
)
from domain.invocations.events import (
    AttemptStarted,
    InvocationCancelRequested,
    InvocationNotHappened,
    InvocationPaused,
    InvocationPriorityChanged,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationReconcileStarted,
    InvocationRequested,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
)
from domain.invocations.reconciling import (
    asked,
    cancelled,
    failed,
    fell_back,
    nobody_knows,
    over,
    requeued,
    succeeded,
    workers_lost,
)
from domain.invocations.spending import is_covered, told
from domain.invocations.state import HELD, IN_DOUBT, RECONCILING, TERMINAL, Invocation, evolve
from domain.kernel import NO_FUNCTIONS, Decider, Event, Functions, Scheduled, same_json

_ASKERS = {
    "agent_run": "an agent", "client": "a client", "chain": "a chain of tools", "compensation": "a compensation",
}  # fmt: skip


def decide(invocation: Invocation, command: InvocationCommand) -> list[Event]:
    return holding.with_hold(invocation, command.invocation_id, _decided(invocation, command))


def _decided(invocation: Invocation, command: InvocationCommand) -> list[Event]:
    if isinstance(command, RequestInvocation):
        return _request(invocation, command)
    requested = invocation.requested
    if requested is None:
        raise NotFound(f"there is no invocation {command.invocation_id}")
    match command:
        case ClaimInvocation():
            return [_claim(invocation, requested, command)]
        case PutOffInvocation():
            return _put_off(invocation, requested, command)
        case LapseAttempt():
            return _lapse(invocation, requested, command)
        case CompleteInvocation() | FailInvocation():
            return _report(invocation, requested, command)
        case EndInvocation():
            return _end(invocation, requested, command)
        case ReconcileInvocation():
            return reconciling.answer(invocation, requested, command)
        case GiveUpReconcile():
            return reconciling.give_up(invocation, requested, command)
        case ResolveInvocation():
            return _resolve(invocation, requested, command)
        case RequeueInvocation():
            return _requeue(invocation, requested, command)
        case CompensateInvocation():
            return compensating.compensate(invocation, command, NO_FUNCTIONS)
        case CancelInvocation():
            return _cancel(invocation, requested, command)
        case ReleaseInvocation() | DenyInvocation():
            return holding.settle(invocation, requested, command)
        case PauseInvocation() | UnpauseInvocation() | DispatchInvocation() | ChangeInvocationPriority():
            return _steer(invocation, requested, command)
        case _:
            assert_never(command)


def _request(invocation: Invocation, command: RequestInvocation) -> list[Event]:
    if invocation.requested is not None:
        first = invocation.requested
        tool = invocation.asked_tool or first.tool
        arguments = first.arguments if invocation.asked_arguments is None else invocation.asked_arguments
        if command.tool != tool or not same_json(command.arguments, arguments):
            raise RepeatedDifferently(f"key '{first.key}' called '{tool}' before, with other arguments", pointer="/key")
        return []
    requested = InvocationRequested(
        **command.model_dump(exclude=_NOT_TAKEN_OVER),
        arguments=command.arguments,
        retry=command.retry,
        fallbacks=command.fallbacks,
        compensation=command.compensation,
        cached_from=None if command.cached is None else command.cached.invocation_id,
        approval=command.approval,
        max_cost=command.max_cost,
        reserved=command.reserved,
        spender=command.spender,
        refused=command.refused is not None,
        allowances=command.allowances,
        unpaid=command.unpaid,
    )
    if command.approval is not None and command.cached is not None:
        raise InvalidCommand("a call that needs an approval is not answered from the cache")
    if command.approval is not None and command.begin_with:
        raise InvalidCommand("people approve of the tool that was asked for: the call does not begin with another one")
    if command.unpaid is not None and (command.cached is not None or command.begin_with):
        raise InvalidCommand("a call that waits for a budget is not answered from the cache, and begins with its tool")
    if command.refused is not None:
        return [requested, failed(Invocation(), requested, command.refused, began=False)]
    if command.begin_with:
        return [requested, *_degraded(requested, command.begin_with)]
    if command.cached is None:
        return [requested]
    answer = InvocationSucceeded(
        **asked(requested), **told(Invocation(), requested, None, began=False), attempt=0, result=command.cached.result,
        cached_from=command.cached.invocation_id,
    )  # fmt: skip
    return [requested, answer]


_NOT_TAKEN_OVER = {
    "invocation_id", "arguments", "retry", "fallbacks", "compensation", "cached", "approval", "max_cost", "reserved", "spender",
    "refused", "unpaid", "begin_with", "allowances",
}  # fmt: skip


def _degraded(requested: InvocationRequested, number: int) -> list[Event]:
    """A fallback tool is called at once: a budget has too little for the tool itself."""
    error = Failure(type="BudgetExceeded", message=f"a budget has too little for the tool '{requested.tool}'")
    instead = fell_back(evolve(Invocation(), requested), requested, error, number=number)
    assert instead is not None
    return [instead]


def _end(invocation: Invocation, requested: InvocationRequested, command: EndInvocation) -> list[Event]:
    if invocation.status in TERMINAL:
        return []
    if requested.chain_id is None:
        raise InvalidState("a worker carries out the invocation, no chain does")
    if invocation.status == "held":
        raise InvalidState("the invocation is held: its chain has not begun")
    if command.error is not None:
        return [failed(invocation, requested, command.error)]
    return [succeeded(invocation, requested, command.result)]


def decide_with(invocation: Invocation, command: InvocationCommand, functions: Functions) -> list[Event]:
    if isinstance(command, CompensateInvocation):
        return compensating.compensate(invocation, command, functions)
    return decide(invocation, command)


def _cancel(invocation: Invocation, requested: InvocationRequested, command: CancelInvocation) -> list[Event]:
    if command.asked_by not in (None, requested.asked_by):
        raise InvalidState(f"{_ASKERS[requested.asked_by]} waits for this call: cancel its run instead")
    if invocation.status == "held":  # the question for more of a budget is not of this call alone
        waits_for = None if invocation.is_unpaid else invocation.approval_id
        return [cancelled(invocation, requested, command.reason, approval_id=waits_for)]
    if invocation.status in ("requested", "waiting"):
        return [cancelled(invocation, requested, command.reason)]
    if invocation.status in TERMINAL or invocation.cancel_request is not None:
        return []
    return [InvocationCancelRequested(attempt=invocation.attempt, reason=command.reason)]


def _claim(invocation: Invocation, requested: InvocationRequested, command: ClaimInvocation) -> Event:
    if requested.chain_id is not None:
        raise WorkOver("a chain carries out the invocation, no worker does")
    if invocation.status in TERMINAL or invocation.status in ("ambiguous", "held"):
        raise WorkOver(f"the invocation is {invocation.status}")
    if invocation.status in ("waiting", "asking_later") or command.dispatch != invocation.dispatch:
        raise WorkOver(f"dispatch {command.dispatch} is over; {invocation.dispatch} is the newest")
    if invocation.is_paused:
        raise RunIsPaused(f"dispatch {command.dispatch} is paused with the run")
    if invocation.status in HELD:
        if invocation.session_id is not None:
            raise WorkOver(f"dispatch {command.dispatch} is claimed by a session, as attempt {invocation.attempt}")
        # The queue delivered the work again, so the worker of the open attempt has vanished.
        if invocation.status == "started" and (end := _end_of_lost(invocation, requested, "lost")) is not None:
            return end
    started = {
        "attempt": invocation.attempt + 1, "worker_id": command.worker_id, "dispatch": command.dispatch,
        "session_id": command.session_id,
    }  # fmt: skip
    if invocation.status in RECONCILING:
        return InvocationReconcileStarted(**started)
    return AttemptStarted(**started, permit_holder=command.permit_holder)


def _end_of_lost(invocation: Invocation, requested: InvocationRequested, reason: str, lapsed: int | None = None) -> Event | None:
    """What becomes of an invocation whose worker vanished in an attempt, with an unknown outcome. None: it is tried again."""
    if reconciling.can_tell(invocation, requested):
        return reconciling.ask(invocation, requested, reason, lapsed=lapsed)
    if not requested.idempotent or invocation.cancel_request is not None:
        return nobody_knows(invocation, requested, None)
    if invocation.lost_claims >= MAX_LOST_CLAIMS:
        return over(invocation, requested, workers_lost(), "unknown")
    return None


def _put_off(invocation: Invocation, requested: InvocationRequested, command: PutOffInvocation) -> list[Event]:
    """Counts as a failed try, also of a tool that must not be called twice: it was not called at all.

    Nothing, for a dispatch that is over, or that was claimed.
    """
    if invocation.status != "requested" or command.dispatch != invocation.dispatch:
        return []
    if (instead := fell_back(invocation, requested, command.error)) is not None:
        return [instead]
    if command.wait_s is None:
        return []
    tries, dispatch = invocation.failures + 1, invocation.dispatch + 1
    if tries < requested.retry.max_attempts:
        delay = spread_s(command.invocation_id, tries, command.wait_s)
        return [InvocationRetryScheduled(attempt=invocation.called, error=command.error, delay_s=delay, dispatch=dispatch)]
    return [failed(invocation, requested, command.error, began=False)]


def _lapse(invocation: Invocation, requested: InvocationRequested, command: LapseAttempt) -> list[Event]:
    """Nothing, for an attempt that no session began, that has ended, or after which the invocation was claimed again."""
    if invocation.status not in HELD or command.attempt != invocation.attempt or invocation.session_id is None:
        return []
    if invocation.status == "asking":
        return [reconciling.vanished(invocation, requested, command.attempt, command.reason)]
    if command.reason == "unsent":  # the tool was never called: not even a call that must not be repeated is in doubt
        if invocation.cancel_request is not None:
            return [cancelled(invocation, requested, invocation.cancel_request.reason, unsent=True)]
    elif (end := _end_of_lost(invocation, requested, command.reason, command.attempt)) is not None:
        return [end]
    return [requeued(requested, invocation.dispatch + 1, lapsed=command.attempt, reason=command.reason)]


def _requeue(invocation: Invocation, requested: InvocationRequested, command: RequeueInvocation) -> list[Event]:
    if command.dispatch != invocation.dispatch + 1:
        return []
    if invocation.status == "waiting":
        return [requeued(requested, command.dispatch)]
    if invocation.status == "asking_later":
        return [reconciling.ask(invocation, requested, "retry", again=True)]
    return []


def _steer(
    invocation: Invocation, requested: InvocationRequested,
    command: PauseInvocation | UnpauseInvocation | DispatchInvocation | ChangeInvocationPriority,
) -> list[Event]:  # fmt: skip
    waits = invocation.status == "requested" and requested.chain_id is None
    match command:
        case PauseInvocation():
            taken_back = waits and command.dispatch == invocation.dispatch and not invocation.is_paused
            return [InvocationPaused(dispatch=command.dispatch)] if taken_back else []
        case UnpauseInvocation():
            return [requeued(requested, invocation.dispatch + 1, reason="unpaused")] if waits else []
        case DispatchInvocation():
            return [_dispatched(invocation, requested, command, waits=waits)]
        case ChangeInvocationPriority():
            return _change_priority(invocation, requested, command, waits=waits and not invocation.is_paused)
        case _:
            assert_never(command)


def _change_priority(
    invocation: Invocation, requested: InvocationRequested, command: ChangeInvocationPriority, *, waits: bool
) -> list[Event]:
    """`waits`: whether its work is in the queue, and no worker has claimed it."""
    if invocation.status in TERMINAL or command.number <= invocation.priorities:
        return []
    changed = InvocationPriorityChanged(number=command.number, priority=command.priority)
    if not waits or requested.priority == command.priority:
        return [changed]
    return [
        changed,
        requeued(requested.model_copy(update={"priority": command.priority}), invocation.dispatch + 1, reason="priority"),
    ]


def _dispatched(invocation: Invocation, requested: InvocationRequested, command: DispatchInvocation, *, waits: bool) -> Event:
    if invocation.is_paused:
        raise InvalidState("the run is paused: resume it, and its work is dispatched anew")
    if invocation.status == "ambiguous":
        raise InvalidState("nobody knows whether the call took effect: say what became of it (resolve), and it goes on")
    if invocation.status == "held":
        raise InvalidState("the call waits for a decision, and for no worker")
    if requested.chain_id is not None and invocation.status not in TERMINAL:
        raise InvalidState("a chain carries out the call: dispatch the call of its step")
    if not waits and invocation.status != "waiting":
        how = "a worker has it" if invocation.status in HELD else f"it is {invocation.status}"
        raise InvalidState(f"the call does not wait for a worker: {how}")
    again = requeued(requested, invocation.dispatch + 1, reason="person")
    said = {"by": command.by, "because": command.reason, "on_behalf_of": command.on_behalf_of}
    return again.model_copy(update=said)


def _report(invocation: Invocation, requested: InvocationRequested, command: CompleteInvocation | FailInvocation) -> list[Event]:
    if invocation.status in TERMINAL:
        raise WorkOver(f"the invocation is {invocation.status}")
    if not invocation.may_be_reported(command.attempt):
        raise StaleAttempt(f"attempt {command.attempt} lost its lease; {invocation.attempt} is the newest")
    if command.attempt != invocation.called:
        if isinstance(command, FailInvocation):
            return reconciling.fail(invocation, requested, command)
        raise InvalidState(f"attempt {command.attempt} asks whether the effect happened: it has an answer, not a result")
    if isinstance(command, CompleteInvocation):
        return [succeeded(invocation, requested, command.result, command.usage)]
    error, usage = command.error, command.usage
    if command.effect == "unknown" and reconciling.can_tell(invocation, requested):
        if invocation.status in IN_DOUBT:  # the worker knows no more than before
            return []
        return [reconciling.ask(invocation, requested, "reported", error=error)]
    if _may_be_tried_again(invocation, requested, error) and is_covered(invocation, requested, requested.max_cost, usage):
        delay = backoff_s(requested.retry, command.invocation_id, invocation.failures + 1, error)
        dispatch = invocation.dispatch + 1
        return [
            InvocationRetryScheduled(attempt=command.attempt, error=error, delay_s=delay, dispatch=dispatch, usage=usage)
        ]  # fmt: skip
    return [over(invocation, requested, error, command.effect, usage)]


def _may_be_tried_again(invocation: Invocation, requested: InvocationRequested, error: Failure) -> bool:
    if invocation.cancel_request is not None or not requested.idempotent:
        return False
    return error.kind in RETRYABLE and invocation.failures + 1 < requested.retry.max_attempts


def _resolve(invocation: Invocation, requested: InvocationRequested, command: ResolveInvocation) -> list[Event]:
    if command.not_happened:
        return _not_happened(invocation, requested, command)
    resolution = InvocationResolved(
        **asked(requested),
        **told(invocation, requested, None),
        attempt=invocation.called,
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
        raise _resolved_before(first)
    _must_be_in_doubt(invocation, command)
    return [resolution]


def _not_happened(invocation: Invocation, requested: InvocationRequested, command: ResolveInvocation) -> list[Event]:
    """The tool may be called again, with the same idempotency key. A cancelled call is over instead."""
    attempt = invocation.called if command.attempt is None else command.attempt
    said = InvocationNotHappened(
        attempt=attempt, by=command.by, reason=command.reason, evidence=command.evidence, on_behalf_of=command.on_behalf_of
    )
    before = invocation.not_happened
    if before is not None and before.attempt == attempt:
        if _said(before) == _said(said):
            return []
        raise AlreadyResolved(f"{before.by} said before that attempt {attempt} had no effect (reason: {before.reason})")
    if invocation.resolved is not None:
        raise _resolved_before(invocation.resolved)
    _must_be_in_doubt(invocation, command)
    if invocation.cancel_request is not None:
        return [said, cancelled(invocation, requested, invocation.cancel_request.reason)]
    return [said, requeued(requested, invocation.dispatch + 1, reason="not_happened")]


_OVER = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled"}
"""Status of a call that is over → the end of a sentence."""


def _must_be_in_doubt(invocation: Invocation, command: ResolveInvocation) -> None:
    """Raises InvalidState if no attempt is in doubt, or another one than the person speaks of."""
    if invocation.status not in IN_DOUBT:
        how = _OVER.get(invocation.status, "is not ambiguous")
        raise InvalidState(f"the call {how}; only an ambiguous one is resolved by hand")
    if command.attempt not in (None, invocation.called):
        raise InvalidState(f"attempt {invocation.called} is in doubt, not attempt {command.attempt}", pointer="/attempt")


def _resolved_before(first: InvocationResolved) -> AlreadyResolved:
    told = first.error.message if first.error is not None else json.dumps(first.result, ensure_ascii=False)
    return AlreadyResolved(f"{first.by} said before that the call {first.outcome}: {told[:200]} (reason: {first.reason})")


def _said(resolution: InvocationResolved | InvocationNotHappened) -> str:
    """The content of a resolution, without its author: another person, or one for another, may say the same."""
    return json.dumps(resolution.model_dump(mode="json", exclude={"by", "on_behalf_of"}), sort_keys=True)


def scheduled_by(event: Event, invocation_id: UUID) -> Scheduled | None:
    """The command that an event of an invocation schedules; None for events that schedule nothing."""
    match event:
        case InvocationRetryScheduled():
            return Scheduled(event.delay_s, RequeueInvocation(invocation_id=invocation_id, dispatch=event.dispatch))
        case InvocationReconcileFailed(delay_s=float() as delay_s, dispatch=int() as dispatch):
            return Scheduled(delay_s, RequeueInvocation(invocation_id=invocation_id, dispatch=dispatch))
        case InvocationReconcileRequested(give_up_s=float() as give_up_s):
            return Scheduled(give_up_s, GiveUpReconcile(invocation_id=invocation_id, attempt=event.attempt))
        case _:
            return None


DECIDER: Decider[Invocation] = Decider("invocations", Invocation, decide, evolve, decide_with=decide_with)
