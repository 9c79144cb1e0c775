"""Invocations in full: every field of every event, and the whole state after it."""

from uuid import UUID

import pytest

from domain import invocations
from domain.errors import AlreadyResolved, NotFound, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry, backoff_s
from domain.invocations import (
    AttemptStarted,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    Invocation,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationCancelRequested,
    InvocationFailed,
    InvocationRequested,
    InvocationRequeued,
    InvocationResolved,
    InvocationRetryScheduled,
    InvocationSucceeded,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
    scheduled_by,
)
from domain.kernel import Command, Event, Scheduled, replace
from tests.kit import Given, fold, given

ID = UUID("01900000-0000-7000-8000-0000000000ee")
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
AGENT_RUN = UUID("01900000-0000-7000-8000-0000000000bb")
RETRY = Retry(max_attempts=2, initial_s=8)
ARGUMENTS = {"to": ["x"]}
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")
PERMANENT = Failure(type="ValueError", message="no")
STARTED = AttemptStarted(attempt=1, worker_id="w1", dispatch=1)
AMBIGUOUS = InvocationBecameAmbiguous(attempt=1, worker_id="w1")
SUCCEEDED = InvocationSucceeded(agent_run_id=AGENT_RUN, key="k", attempt=1, result=[1])
RETRIED = InvocationRetryScheduled(attempt=1, error=TRANSIENT, delay_s=backoff_s(RETRY, ID, 1, TRANSIENT), dispatch=2)
CANCEL_REQUESTED = InvocationCancelRequested(attempt=1, reason="enough")
RESOLVED = InvocationResolved(
    agent_run_id=AGENT_RUN, key="k", attempt=1, outcome="failed", error=PERMANENT, by="key:ann", reason="I looked",
    evidence={"id": 1},
)  # fmt: skip


def request(*, idempotent: bool = True) -> RequestInvocation:
    return RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="mail.send", arguments=ARGUMENTS,
        idempotent=idempotent, timeout_s=5, retry=RETRY,
    )  # fmt: skip


def requested(*, idempotent: bool = True) -> InvocationRequested:
    return InvocationRequested(
        run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="mail.send", arguments=ARGUMENTS,
        idempotent=idempotent, timeout_s=5, retry=RETRY,
    )  # fmt: skip


def after(*events: Event, idempotent: bool = True) -> Given:
    return given(invocations.DECIDER, requested(idempotent=idempotent), *events)


CLAIM = ClaimInvocation(invocation_id=ID, worker_id="w1", dispatch=1)
FAIL = FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)
CANCEL = CancelInvocation(invocation_id=ID, reason="enough")
ACTUAL = ResolveInvocation(invocation_id=ID, error=PERMANENT, by="key:ann", reason="I looked", evidence={"id": 1})


@pytest.mark.parametrize(
    ("state", "command", "event"),
    [
        (given(invocations.DECIDER), request(), requested()),
        (after(), CLAIM, STARTED),
        (after(STARTED), CLAIM, AttemptStarted(attempt=2, worker_id="w1", dispatch=1)),
        (after(STARTED, idempotent=False), CLAIM, AMBIGUOUS),
        (after(STARTED), CompleteInvocation(invocation_id=ID, attempt=1, result=[1]), SUCCEEDED),
        (after(STARTED), FAIL, RETRIED),
        (after(STARTED, RETRIED), RequeueInvocation(invocation_id=ID, dispatch=2),
         InvocationRequeued(run_id=RUN, tool="mail.send", dispatch=2)),
        (after(STARTED), FAIL.model_copy(update={"error": PERMANENT}),
         InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=1, error=PERMANENT)),
        (after(), CANCEL, InvocationCancelled(reason="enough")),
        (after(STARTED), CANCEL, CANCEL_REQUESTED),
        (after(STARTED, CANCEL_REQUESTED), CLAIM, InvocationCancelled(reason="enough", effect="unknown")),
        (after(STARTED, AMBIGUOUS, idempotent=False), ACTUAL, RESOLVED),
        (after(STARTED, AMBIGUOUS, idempotent=False),
         ResolveInvocation(invocation_id=ID, result=[1], by="key:ann", reason="I looked"),
         InvocationResolved(
             agent_run_id=AGENT_RUN, key="k", attempt=1, outcome="succeeded", result=[1], by="key:ann", reason="I looked"
         )),
    ],
)  # fmt: skip
def test_what_an_invocation_is_told_is_in_its_event(state: Given, command: Command, event: Event) -> None:
    state.when(command).then(event)


def test_nothing_is_requeued_that_does_not_wait_for_this_dispatch() -> None:
    after(STARTED).when(RequeueInvocation(invocation_id=ID, dispatch=2)).then()
    after(STARTED, RETRIED).when(RequeueInvocation(invocation_id=ID, dispatch=3)).then()


def test_a_claim_is_of_the_newest_dispatch() -> None:
    after().when(CLAIM.model_copy(update={"dispatch": 2})).refused(WorkOver, "dispatch 2 is over; 1 is the newest")
    after(STARTED, RETRIED).when(CLAIM.model_copy(update={"dispatch": 2})).refused(WorkOver)
    after(STARTED, SUCCEEDED).when(CLAIM).refused(WorkOver, "succeeded")


def test_a_report_is_of_the_attempt_that_is_under_way() -> None:
    for report in (FAIL, CompleteInvocation(invocation_id=ID, attempt=1)):
        given(invocations.DECIDER).when(report).refused(NotFound)
        after().when(report).refused(StaleAttempt)
        after(STARTED, RETRIED).when(report).refused(StaleAttempt)
        after(STARTED, STARTED.model_copy(update={"attempt": 2})).when(report).refused(StaleAttempt, "attempt 1 .* 2 is")
        after(STARTED, SUCCEEDED).when(report).refused(WorkOver)


def test_workers_that_vanish_are_counted_to_ten() -> None:
    lost = after()
    for _ in range(MAX_LOST_CLAIMS - 1):
        lost = lost.after(CLAIM)
    lost.when(CLAIM).then(AttemptStarted(attempt=MAX_LOST_CLAIMS, worker_id="w1", dispatch=1))
    why = "10 workers in a row vanished while they ran this tool"
    failure = Failure(type="WorkersLost", message=why, kind="lost")
    lost.after(CLAIM).when(CLAIM).then(
        InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=MAX_LOST_CLAIMS, error=failure, effect="unknown")
    )


def test_a_retry_counts_failures_and_not_attempts() -> None:
    """The claim of a vanished worker is no failure."""
    retry = Retry(max_attempts=3, initial_s=8)
    state = given(invocations.DECIDER, requested().model_copy(update={"retry": retry})).after(CLAIM, CLAIM)
    state = state.after(FAIL.model_copy(update={"attempt": 2}), RequeueInvocation(invocation_id=ID, dispatch=2))
    state = state.after(CLAIM.model_copy(update={"dispatch": 2}))
    delay = backoff_s(retry, ID, 2, TRANSIENT)
    state.when(FAIL.model_copy(update={"attempt": 3})).then(
        InvocationRetryScheduled(attempt=3, error=TRANSIENT, delay_s=delay, dispatch=3)
    )
    once = given(invocations.DECIDER, requested().model_copy(update={"retry": Retry()})).after(CLAIM)
    once.when(FAIL).then_topics("invocation.failed")


def test_a_cancel_of_what_is_over_changes_nothing() -> None:
    for end in (SUCCEEDED, InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=1, error=PERMANENT), InvocationCancelled()):
        after(STARTED, end).when(CANCEL).then()
    after(STARTED, CANCEL_REQUESTED).when(CANCEL.model_copy(update={"reason": "more"})).then()


def test_refusals_say_what_was_told_before() -> None:
    with pytest.raises(RepeatedDifferently) as refused:
        after().when(request().model_copy(update={"tool": "mail.drop"})).events()
    assert refused.value.pointer == "/key"
    long = RESOLVED.model_copy(update={"outcome": "succeeded", "error": None, "result": "ü" * 300})
    with pytest.raises(AlreadyResolved) as again:
        after(STARTED, AMBIGUOUS, long, idempotent=False).when(ACTUAL).events()
    told = '"' + "ü" * 199  # 200 characters of JSON
    assert again.value.message == f"key:ann said before that the call succeeded: {told} (reason: I looked)"


def test_the_order_of_fields_in_evidence_says_nothing() -> None:
    state = after(STARTED, AMBIGUOUS, RESOLVED.model_copy(update={"evidence": {"a": 1, "b": 2}}), idempotent=False)
    state.when(ACTUAL.model_copy(update={"evidence": {"b": 2, "a": 1}})).then()


def test_the_state_after_each_event() -> None:
    first = fold(invocations.DECIDER, [requested()])
    assert first == Invocation("requested", requested(), dispatch=1)
    started = invocations.evolve(first, STARTED)
    assert started == replace(first, status="started", attempt=1, worker_id="w1", called=1, called_by="w1", lost_claims=1, tries=1)
    again = invocations.evolve(started, AttemptStarted(attempt=2, worker_id="w2", dispatch=1))
    assert again == replace(
        first, status="started", attempt=2, worker_id="w2", called=2, called_by="w2", lost_claims=2, tries=2, vanished=True
    )  # fmt: skip
    for reason, tries, vanished in (("lost", 1, True), ("left", 1, True), ("unsent", 0, False)):
        after = invocations.evolve(started, InvocationRequeued(run_id=RUN, tool="t", dispatch=2, lapsed=1, reason=reason))
        assert (after.tries, after.vanished) == (tries, vanished), reason
    after = invocations.evolve(started, InvocationRequeued(run_id=RUN, tool="t", dispatch=2, reason="not_happened"))
    assert (after.tries, after.vanished) == (1, False)

    def becomes(event: invocations.InvocationEvent, **changes: object) -> None:
        assert invocations.evolve(again, event) == replace(again, **changes)  # type: ignore[arg-type]

    becomes(SUCCEEDED, status="succeeded", result=[1])
    becomes(RETRIED, status="waiting", failures=1, lost_claims=0)
    becomes(InvocationRequeued(run_id=RUN, tool="t", dispatch=2), status="requested", dispatch=2)
    becomes(InvocationFailed(agent_run_id=RUN, key="k", attempt=2, error=PERMANENT), status="failed", error=PERMANENT)
    becomes(AMBIGUOUS, status="ambiguous")
    becomes(RESOLVED, status="failed", error=PERMANENT, resolved=RESOLVED)
    said = RESOLVED.model_copy(update={"outcome": "succeeded", "error": None, "result": [1]})
    becomes(said, status="succeeded", result=[1], resolved=said)
    becomes(CANCEL_REQUESTED, cancel_request=CANCEL_REQUESTED)
    becomes(InvocationCancelled(), status="cancelled")


def test_timers() -> None:
    assert scheduled_by(RETRIED, ID) == Scheduled(RETRIED.delay_s, RequeueInvocation(invocation_id=ID, dispatch=2))
    assert scheduled_by(STARTED, ID) is None
