"""Rules of invocations: intent before effect, no silent second effect, retries of what may be repeated."""

from uuid import UUID

from domain import invocations
from domain.errors import InvalidState, NotFound, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry
from domain.invocations import (
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from tests.kit import Given, given

ID = UUID("01900000-0000-7000-8000-0000000000ee")
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient", retry_after_s=7)


def requested(*, idempotent: bool) -> Given:
    return given(invocations.DECIDER).after(
        RequestInvocation(
            invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="mail.send", arguments={"to": "x"},
            idempotent=idempotent, timeout_s=5, retry=Retry(max_attempts=2),
        )
    )  # fmt: skip


def claim(worker: str = "w1", dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id=worker, dispatch=dispatch)


def test_an_attempt_is_on_record_before_the_tool_is_called() -> None:
    requested(idempotent=False).when(claim()).then_topics("invocation.attempt_started")


def test_a_tool_that_must_not_run_twice_is_not_called_again_when_its_worker_vanished() -> None:
    vanished = requested(idempotent=False).after(claim())
    vanished.when(claim("w2")).then_topics("invocation.became_ambiguous")
    ambiguous = vanished.after(claim("w2"))
    ambiguous.when(claim("w3")).refused(WorkOver, "ambiguous")
    ambiguous.when(ResolveInvocation(invocation_id=ID, result={"sent": True})).then_topics("invocation.succeeded")


def test_the_vanished_worker_may_still_say_what_happened() -> None:
    ambiguous = requested(idempotent=False).after(claim(), claim("w2"))
    ambiguous.when(CompleteInvocation(invocation_id=ID, attempt=1, result=1)).then_topics("invocation.succeeded")


def test_an_idempotent_tool_is_called_again_a_bounded_number_of_times() -> None:
    vanished = requested(idempotent=True)
    for _ in range(MAX_LOST_CLAIMS):
        vanished = vanished.after(claim())
    events = vanished.when(claim()).then_topics("invocation.failed")
    assert events[0].error.kind == "lost"


def test_an_older_attempt_is_fenced() -> None:
    taken_over = requested(idempotent=True).after(claim(), claim("w2"))
    taken_over.when(CompleteInvocation(invocation_id=ID, attempt=1)).refused(StaleAttempt)
    done = taken_over.after(CompleteInvocation(invocation_id=ID, attempt=2))
    done.when(CompleteInvocation(invocation_id=ID, attempt=2)).refused(WorkOver)


def test_a_transient_failure_waits_at_least_as_long_as_it_asks_for() -> None:
    fail = FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)
    (event,) = requested(idempotent=True).after(claim()).when(fail).then_topics("invocation.retry_scheduled")
    assert event.delay_s >= 7
    waiting = requested(idempotent=True).after(claim(), fail)
    waiting.when(claim()).refused(WorkOver)
    again = waiting.after(RequeueInvocation(invocation_id=ID, dispatch=2), claim(dispatch=2))
    last = FailInvocation(invocation_id=ID, attempt=2, error=TRANSIENT)
    again.when(last).then_topics("invocation.failed")


def test_a_failure_of_a_tool_that_must_not_run_twice_is_final() -> None:
    fail = FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)
    requested(idempotent=False).after(claim()).when(fail).then_topics("invocation.failed")


def test_only_what_has_not_begun_is_called_off() -> None:
    requested(idempotent=True).when(CancelInvocation(invocation_id=ID)).then_topics("invocation.cancelled")
    requested(idempotent=True).after(claim()).when(CancelInvocation(invocation_id=ID)).then()
    given(invocations.DECIDER).when(CancelInvocation(invocation_id=ID)).refused(NotFound)
    resolve = ResolveInvocation(invocation_id=ID, result=1)
    requested(idempotent=True).when(resolve).refused(InvalidState, "ambiguous")
