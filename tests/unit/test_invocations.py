"""Rules of invocations: intent before effect, no silent second effect, retries of repeatable calls only."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain import invocations
from domain.errors import (
    AlreadyResolved,
    DomainError,
    InvalidState,
    NotFound,
    RepeatedDifferently,
    StaleAttempt,
    WorkOver,
)
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry
from domain.invocations import (
    AttemptStarted,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationSucceeded,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from domain.kernel import Command, Event
from tests.kit import Given, given

ID = UUID("01900000-0000-7000-8000-0000000000ee")
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient", retry_after_s=7)


def requested(*, idempotent: bool, attempts: int = 2) -> Given:
    return given(invocations.DECIDER).after(
        RequestInvocation(
            invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="mail.send", arguments={"to": "x"},
            idempotent=idempotent, timeout_s=5, retry=Retry(max_attempts=attempts),
        )
    )  # fmt: skip


def claim(worker: str = "w1", dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id=worker, dispatch=dispatch)


def test_an_attempt_is_on_record_before_the_tool_is_called() -> None:
    requested(idempotent=False).when(claim()).then_topics("invocation.attempt_started")


def test_an_attempt_says_whose_permit_it_has() -> None:
    limited = claim().model_copy(update={"permit_holder": RUN})
    started = AttemptStarted(attempt=1, worker_id="w1", dispatch=1, permit_holder=RUN)
    requested(idempotent=False).when(limited).then(started)
    requested(idempotent=False).when(claim()).then(started.model_copy(update={"permit_holder": None}))


def test_a_tool_that_must_not_run_twice_is_not_called_again_when_its_worker_vanished() -> None:
    vanished = requested(idempotent=False).after(claim())
    vanished.when(claim("w2")).then_topics("invocation.became_ambiguous")
    ambiguous = vanished.after(claim("w2"))
    ambiguous.when(claim("w3")).refused(WorkOver, "ambiguous")
    (event,) = ambiguous.when(resolve(result={"sent": True})).then_topics("invocation.resolved")
    assert (event.outcome, event.result, event.by, event.reason) == ("succeeded", {"sent": True}, "key:ann", "I looked")


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


# --- resolving --------------------------------------------------------------------------------------------------------


def resolve(by: str = "key:ann", reason: str = "I looked", **said: Any) -> ResolveInvocation:
    return ResolveInvocation(invocation_id=ID, by=by, reason=reason, **said)


def test_the_first_person_counts() -> None:
    ambiguous = requested(idempotent=False).after(claim(), claim("w2"))
    resolved = ambiguous.after(resolve(result={"sent": True}, evidence={"id": 1}))
    assert (resolved.state.status, resolved.state.result) == ("succeeded", {"sent": True})
    resolved.when(resolve("key:bob", result={"sent": True}, evidence={"id": 1}, on_behalf_of="carol")).then()
    for other in (
        resolve("key:bob", error=Failure(type="NotSent", message="no trace")),
        resolve(result={"sent": 1}, evidence={"id": 1}),  # Python says `1 == True`; in JSON the two differ
        resolve(result=None, evidence={"id": 1}),
        resolve(result={"sent": True}),
        resolve(reason="a guess", result={"sent": True}, evidence={"id": 1}),
    ):
        resolved.when(other).refused(AlreadyResolved, r'key:ann said before that the call succeeded: \{"sent": true\}')
    resolved.when(CompleteInvocation(invocation_id=ID, attempt=1, result=1)).refused(WorkOver)


def test_an_error_that_a_person_says_is_the_outcome() -> None:
    ambiguous = requested(idempotent=False).after(claim(), claim("w2"))
    failed = ambiguous.after(resolve(error=TRANSIENT))
    assert (failed.state.status, failed.state.error, failed.state.result) == ("failed", TRANSIENT, None)
    failed.when(resolve(result=None)).refused(AlreadyResolved, "failed: slow")


def test_a_log_of_before_has_a_plain_outcome_after_ambiguous() -> None:
    success = InvocationSucceeded(agent_run_id=RUN, key="k", attempt=1, result="by hand")
    before = requested(idempotent=False).after(claim(), claim("w2"))
    state = invocations.evolve(before.state, success)
    assert (state.status, state.result, state.resolved) == ("succeeded", "by hand", None)
    Given(invocations.DECIDER, state).when(resolve(result="by hand")).refused(
        InvalidState, "the call has succeeded; only an ambiguous one is resolved by hand"
    )
    for status, told in (("failed", "the call has failed;"), ("cancelled", "the call was cancelled;")):
        Given(invocations.DECIDER, replace(state, status=status)).when(resolve(result=1)).refused(InvalidState, told)


def test_only_an_ambiguous_call_is_resolved() -> None:
    requested(idempotent=True).when(resolve(result=1)).refused(InvalidState, "the call is not ambiguous; only")
    given(invocations.DECIDER).when(resolve(result=1)).refused(NotFound)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\0b"])
def test_a_reason_is_words(reason: str) -> None:
    with pytest.raises(ValidationError, match="reason"):
        resolve(reason=reason, result=1)


def test_a_key_calls_one_tool_with_one_set_of_arguments() -> None:
    again = RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="mail.send", arguments={"to": "x"},
        idempotent=True, timeout_s=9, retry=Retry(),
    )  # fmt: skip
    requested(idempotent=False).when(again).then()  # the tool was registered again in between, which the caller did not say
    for other in ({"tool": "mail.drop"}, {"arguments": {"to": "y"}}):
        requested(idempotent=False).when(again.model_copy(update=other)).refused(RepeatedDifferently, "'k'")


# --- cancelling -------------------------------------------------------------------------------------------------------

CANCEL = CancelInvocation(invocation_id=ID, reason="the agent run failed")
FAIL = FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)


def test_what_has_not_begun_is_cancelled() -> None:
    for waiting in (requested(idempotent=True), requested(idempotent=True).after(claim(), FAIL)):
        (event,) = waiting.when(CANCEL).then_topics("invocation.cancelled")
        assert (event.reason, event.effect) == ("the agent run failed", None)
        over = waiting.after(CANCEL)
        over.when(CANCEL).then()
        over.when(RequeueInvocation(invocation_id=ID, dispatch=2)).then()
        over.when(claim()).refused(WorkOver)
    given(invocations.DECIDER).when(CANCEL).refused(NotFound)


def test_what_is_under_way_ends_as_it_happens_and_is_not_tried_again() -> None:
    under_way = requested(idempotent=True).after(claim())
    (event,) = under_way.when(CANCEL).then_topics("invocation.cancel_requested")
    assert (event.attempt, event.reason) == (1, "the agent run failed")
    cancelled = under_way.after(CANCEL)
    cancelled.when(CANCEL).then()
    cancelled.when(CompleteInvocation(invocation_id=ID, attempt=1, result=1)).then_topics("invocation.succeeded")
    (failed,) = cancelled.when(FAIL).then_topics("invocation.failed")
    assert failed.error == TRANSIENT


def test_a_cancelled_call_whose_worker_vanished_ends_without_another_attempt() -> None:
    (over,) = requested(idempotent=True).after(claim(), CANCEL).when(claim("w2")).then_topics("invocation.cancelled")
    assert (over.effect, over.reason) == ("unknown", "the agent run failed")
    unsafe = requested(idempotent=False).after(claim(), CANCEL)
    unsafe.when(claim("w2")).then_topics("invocation.became_ambiguous")
    unsafe.after(claim("w2")).when(resolve(result=1)).then_topics("invocation.resolved")


def test_an_ambiguous_call_remembers_its_cancellation() -> None:
    ambiguous = requested(idempotent=False).after(claim(), claim("w2"))
    ambiguous.when(CANCEL).then_topics("invocation.cancel_requested")
    ambiguous.after(CANCEL).when(CompleteInvocation(invocation_id=ID, attempt=1)).then_topics("invocation.succeeded")


ACTIONS: dict[str, Callable[[invocations.Invocation], Command]] = {
    "claim": lambda call: claim("w1", max(1, call.dispatch)),
    "another worker, the first having vanished": lambda call: claim("w2", max(1, call.dispatch)),
    "claim of an old dispatch": lambda call: claim("w3", max(1, call.dispatch - 1)),
    "fail, to be tried again": lambda call: FailInvocation(invocation_id=ID, attempt=call.attempt, error=TRANSIENT),
    "fail for good": lambda call: FailInvocation(invocation_id=ID, attempt=call.attempt, error=PERMANENT),
    "late failure": lambda call: FailInvocation(invocation_id=ID, attempt=call.attempt - 1, error=TRANSIENT),
    "complete": lambda call: CompleteInvocation(invocation_id=ID, attempt=call.attempt, result=call.attempt),
    "late result": lambda call: CompleteInvocation(invocation_id=ID, attempt=call.attempt - 1),
    "timer": lambda call: RequeueInvocation(invocation_id=ID, dispatch=call.dispatch + 1),
    "timer again": lambda call: RequeueInvocation(invocation_id=ID, dispatch=call.dispatch),
    "cancel": lambda call: CANCEL,
    "resolve": lambda call: resolve(result=call.attempt),
}
PERMANENT = Failure(type="E", message="no", kind="permanent")
ENDS = {"invocation.succeeded", "invocation.failed", "invocation.resolved", "invocation.cancelled"}
AGAIN = {"invocation.attempt_started", "invocation.retry_scheduled", "invocation.requeued"}
actions = st.lists(st.sampled_from(sorted(ACTIONS)), max_size=12)


@settings(max_examples=500)
@hypothesis.given(idempotent=st.booleans(), attempts=st.integers(2, 4), before=actions, after=actions)
def test_whatever_happens_a_cancelled_call_is_over(idempotent: bool, attempts: int, before: list[str], after: list[str]) -> None:
    """Clients, vanished workers, late workers, timers and people act in any order: no attempt begins after the cancel."""
    call, events, cancelled_at = requested(idempotent=idempotent, attempts=attempts), list[Event](), 0
    for number, name in enumerate([*before, "cancel", *after]):
        if number == len(before):
            cancelled_at = len(events)
        command, status = ACTIONS[name](call.state), call.state.status
        try:
            told = call.when(command).events()
        except DomainError:
            told = []
        call, events = call.after(command) if told else call, events + told
        if name == "complete" and status == "started":
            assert [event.TOPIC for event in told] == ["invocation.succeeded"], "the outcome is recorded, cancelled or not"
        if call.state.status == "cancelled" and status == "started":
            assert told[0].effect == "unknown" and idempotent
    topics = [event.TOPIC for event in events]
    assert not AGAIN & set(topics[cancelled_at:])
    ends = [i for i, topic in enumerate(topics) if topic in ENDS]
    assert ends in ([], [len(topics) - 1]), "it ends at most once, and nothing follows"
    assert ends or call.state.cancel_request is not None, "it is over, or remembers that it was cancelled"
