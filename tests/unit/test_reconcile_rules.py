"""Rules of an effect in doubt: the tool's `reconcile` function is asked, then a person, and nothing happens twice unseen."""

from uuid import UUID

from domain import invocations
from domain.errors import AlreadyResolved, InvalidState, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, LapseReason, Retry
from domain.invocations import (
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    Found,
    GiveUpReconcile,
    InvocationCancelled,
    InvocationFailed,
    InvocationReconcileFailed,
    InvocationReconcileRequested,
    InvocationRetryScheduled,
    InvocationSucceeded,
    LapseAttempt,
    ReconcileInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
    scheduled_by,
)
from domain.kernel import Json, Scheduled
from tests.kit import Given, given

ID = UUID("01900000-0000-7000-8000-0000000000ee")
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
FIRST, SECOND = UUID(int=1), UUID(int=2)
SLOW = Failure(type="ToolTimeoutError", message="slow", kind="transient")
BROKEN = Failure(type="KeyError", message="broken")


def requested(*, idempotent: bool = False, reconcile_timeout_s: float | None = 5, attempts: int = 2) -> Given:
    return given(invocations.DECIDER).after(
        RequestInvocation(
            invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="mail.send", arguments={"to": "x"}, priority="high",
            idempotent=idempotent, timeout_s=5, retry=Retry(max_attempts=attempts), reconcile_timeout_s=reconcile_timeout_s,
        )
    )  # fmt: skip


def claim(dispatch: int, session: UUID = FIRST) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id=f"w{session.int}", dispatch=dispatch, session_id=session)


def lapse(attempt: int, reason: LapseReason = "lost") -> LapseAttempt:
    return LapseAttempt(invocation_id=ID, attempt=attempt, reason=reason)


def fail(attempt: int, error: Failure = SLOW, *, unknown: bool = False) -> FailInvocation:
    return FailInvocation(invocation_id=ID, attempt=attempt, error=error, effect="unknown" if unknown else None)


def complete(attempt: int) -> CompleteInvocation:
    return CompleteInvocation(invocation_id=ID, attempt=attempt, result="done")


def answer(attempt: int, outcome: Found, result: Json = None) -> ReconcileInvocation:
    return ReconcileInvocation(invocation_id=ID, attempt=attempt, outcome=outcome, result=result)


def not_happened(attempt: int | None = None, reason: str = "seen") -> ResolveInvocation:
    return ResolveInvocation(invocation_id=ID, not_happened=True, attempt=attempt, by="key:ann", reason=reason)


CANCEL = CancelInvocation(invocation_id=ID, reason="enough")


def vanished(*, idempotent: bool = False) -> Given:
    """Attempt 1 was claimed, its worker vanished, and `reconcile` is to be asked as dispatch 2."""
    before = (CANCEL,) if idempotent else ()
    return requested(idempotent=idempotent).after(claim(1), *before, lapse(1))


def asking(*, idempotent: bool = False) -> Given:
    """Another worker asks, as attempt 2."""
    return vanished(idempotent=idempotent).after(claim(2, SECOND))


# --- who is asked -------------------------------------------------------------------------------------------------------


def test_the_function_is_asked_about_an_attempt_whose_worker_vanished() -> None:
    requested().after(claim(1)).when(lapse(1)).then(
        InvocationReconcileRequested(
            run_id=RUN, tool="mail.send", attempt=1, worker_id="w1", dispatch=2, reason="lost", lapsed=1,
            give_up_s=600.0, priority="high",
        )
    )  # fmt: skip


def test_a_worker_that_left_is_a_reason_of_its_own_and_work_that_never_arrived_is_none() -> None:
    [asked] = requested().after(claim(1)).when(lapse(1, "left")).then_topics("invocation.reconcile_requested")
    assert isinstance(asked, InvocationReconcileRequested) and asked.reason == "left"
    requested().after(claim(1)).when(lapse(1, "unsent")).then_topics("invocation.requeued")


def test_without_a_function_a_person_is_asked() -> None:
    [became] = requested(reconcile_timeout_s=None).after(claim(1)).when(lapse(1)).then_topics("invocation.became_ambiguous")
    assert became == invocations.InvocationBecameAmbiguous(attempt=1, worker_id="w1")


def test_a_call_that_may_be_repeated_is_repeated_instead_and_asked_about_after_a_cancel_only() -> None:
    requested(idempotent=True).after(claim(1)).when(lapse(1)).then_topics("invocation.requeued")
    requested(idempotent=True).after(claim(1), CANCEL).when(lapse(1)).then_topics("invocation.reconcile_requested")


def test_a_tool_that_was_stopped_in_the_middle_is_asked_about() -> None:
    [asked] = requested().after(claim(1)).when(fail(1, unknown=True)).then_topics("invocation.reconcile_requested")
    assert isinstance(asked, InvocationReconcileRequested)
    assert (asked.reason, asked.error, asked.lapsed) == ("reported", SLOW, None)
    requested().after(claim(1)).when(fail(1)).then_topics("invocation.failed")
    requested(reconcile_timeout_s=None).after(claim(1)).when(fail(1, unknown=True)).then_topics("invocation.failed")
    requested(idempotent=True).after(claim(1)).when(fail(1, unknown=True)).then_topics("invocation.retry_scheduled")


def test_a_worker_that_knows_no_more_than_before_changes_nothing() -> None:
    vanished().when(fail(1, unknown=True)).then()
    vanished().when(fail(1)).then_topics("invocation.failed")


def test_asking_is_claimed_once_with_a_number_of_its_own() -> None:
    vanished().when(claim(2, SECOND)).then(
        invocations.InvocationReconcileStarted(attempt=2, worker_id="w2", dispatch=2, session_id=SECOND)
    )
    asking().when(claim(2)).refused(WorkOver, match="claimed by a session, as attempt 2")
    vanished().when(claim(1)).refused(WorkOver, match="dispatch 1 is over; 2 is the newest")


# --- what it answers ----------------------------------------------------------------------------------------------------


def test_it_happened() -> None:
    asking().when(answer(2, "succeeded", {"id": 7})).then(
        invocations.InvocationReconciled(attempt=2, outcome="succeeded"),
        InvocationSucceeded(agent_run_id=RUN, key="k", attempt=1, result={"id": 7}),
    )


def test_it_did_not_happen_so_the_tool_is_called_again() -> None:
    events = asking().when(answer(2, "not_happened")).then_topics("invocation.reconciled", "invocation.requeued")
    assert events[1] == invocations.InvocationRequeued(
        run_id=RUN, tool="mail.send", dispatch=3, reason="not_happened", priority="high"
    )
    again = asking().after(answer(2, "not_happened"))
    again.when(claim(3)).then_topics("invocation.attempt_started")
    again.when(complete(1)).refused(StaleAttempt)
    again.after(claim(3)).when(complete(3)).then_topics("invocation.succeeded")
    again.after(claim(3)).when(lapse(3)).then_topics("invocation.reconcile_requested")


def test_nobody_knows_so_a_person_is_asked() -> None:
    events = asking().when(answer(2, "unknown")).then_topics("invocation.reconciled", "invocation.became_ambiguous")
    assert events[1] == invocations.InvocationBecameAmbiguous(
        attempt=1, worker_id="w1", reason="the reconcile function does not know"
    )


def test_after_a_cancel_nothing_is_called_again() -> None:
    for idempotent in (True, False):
        cancelled = asking(idempotent=idempotent).after(*([] if idempotent else [CANCEL]))
        events = cancelled.when(answer(2, "not_happened")).then_topics("invocation.reconciled", "invocation.cancelled")
        assert events[1] == InvocationCancelled(reason="enough")
        cancelled.when(answer(2, "succeeded")).then_topics("invocation.reconciled", "invocation.succeeded")
    unknown = asking(idempotent=True).when(answer(2, "unknown")).then_topics("invocation.reconciled", "invocation.cancelled")
    assert unknown[1] == InvocationCancelled(reason="enough", effect="unknown")
    asking().after(CANCEL).when(answer(2, "unknown")).then_topics("invocation.reconciled", "invocation.became_ambiguous")


def test_a_cancel_while_somebody_asks_is_remembered() -> None:
    vanished().when(CANCEL).then(invocations.InvocationCancelRequested(attempt=1, reason="enough"))
    asking().after(CANCEL).when(CANCEL).then()


def test_a_tool_that_is_always_stopped_is_called_again_within_its_attempts() -> None:
    stopped = requested().after(claim(1), fail(1, unknown=True), claim(2, SECOND))
    [_, later] = stopped.when(answer(2, "not_happened")).then_topics("invocation.reconciled", "invocation.retry_scheduled")
    assert isinstance(later, InvocationRetryScheduled) and (later.attempt, later.error, later.dispatch) == (1, SLOW, 3)
    assert 0 < later.delay_s <= 0.5
    again = stopped.after(
        answer(2, "not_happened"), RequeueInvocation(invocation_id=ID, dispatch=3), claim(3), fail(3, unknown=True), claim(4)
    )
    [_, failed] = again.when(answer(4, "not_happened")).then_topics("invocation.reconciled", "invocation.failed")
    assert failed == InvocationFailed(agent_run_id=RUN, key="k", attempt=3, error=SLOW)
    final = requested().after(claim(1), fail(1, BROKEN, unknown=True), claim(2))
    final.when(answer(2, "not_happened")).then_topics("invocation.reconciled", "invocation.failed")


def test_a_tool_that_kills_its_workers_is_given_up() -> None:
    state, dispatch, attempt = requested(), 1, 1
    for _ in range(MAX_LOST_CLAIMS - 1):
        state = state.after(claim(dispatch), lapse(attempt), claim(dispatch + 1), answer(attempt + 1, "not_happened"))
        dispatch, attempt = dispatch + 2, attempt + 2
    last = state.after(claim(dispatch), lapse(attempt), claim(dispatch + 1))
    [_, failed] = last.when(answer(attempt + 1, "not_happened")).then_topics("invocation.reconciled", "invocation.failed")
    assert isinstance(failed, InvocationFailed) and failed.error.kind == "lost"


# --- while it is asked --------------------------------------------------------------------------------------------------


def test_a_worker_that_vanishes_while_it_asks_is_nothing() -> None:
    for reason in ("lost", "left", "unsent"):
        [again] = asking().when(lapse(2, reason)).then_topics("invocation.reconcile_requested")
        assert isinstance(again, InvocationReconcileRequested)
        assert (again.attempt, again.dispatch, again.lapsed, again.reason, again.give_up_s) == (1, 3, 2, reason, None)
    asking().when(lapse(1)).then()


def kills(times: int, reason: LapseReason) -> Given:
    state = vanished()
    for number in range(times):
        state = state.after(claim(2 + number), lapse(2 + number, reason))
    return state.after(claim(2 + times))


def test_a_function_that_kills_its_workers_is_given_up() -> None:
    [became] = kills(MAX_LOST_CLAIMS - 1, "lost").when(lapse(MAX_LOST_CLAIMS + 1)).then_topics("invocation.became_ambiguous")
    assert isinstance(became, invocations.InvocationBecameAmbiguous)
    assert became.reason == "10 workers in a row vanished while they asked"
    kills(MAX_LOST_CLAIMS - 2, "lost").when(lapse(MAX_LOST_CLAIMS)).then_topics("invocation.reconcile_requested")
    kills(MAX_LOST_CLAIMS, "left").when(lapse(MAX_LOST_CLAIMS + 2)).then_topics("invocation.reconcile_requested")


def test_a_function_that_fails_is_asked_again_after_a_while_if_that_may_help() -> None:
    [failed] = asking().when(fail(2)).then_topics("invocation.reconcile_failed")
    assert isinstance(failed, InvocationReconcileFailed) and failed.delay_s is not None
    assert (failed.attempt, failed.error, failed.dispatch) == (2, SLOW, 3) and 0 < failed.delay_s <= 1
    later = asking().after(fail(2))
    later.when(claim(2)).refused(WorkOver)
    later.when(RequeueInvocation(invocation_id=ID, dispatch=4)).then()
    [again] = later.when(RequeueInvocation(invocation_id=ID, dispatch=3)).then_topics("invocation.reconcile_requested")
    assert isinstance(again, InvocationReconcileRequested)
    assert (again.dispatch, again.reason, again.lapsed, again.give_up_s) == (3, "retry", None, None)


def test_a_function_that_cannot_work_or_fails_too_often_leaves_it_to_a_person() -> None:
    events = asking().when(fail(2, BROKEN)).then_topics("invocation.reconcile_failed", "invocation.became_ambiguous")
    assert events[0] == InvocationReconcileFailed(attempt=2, error=BROKEN)
    assert isinstance(events[1], invocations.InvocationBecameAmbiguous)
    assert events[1].reason == "the reconcile function failed: broken"
    state, dispatch = asking(), 2
    for _ in range(9):
        state = state.after(fail(dispatch), RequeueInvocation(invocation_id=ID, dispatch=dispatch + 1), claim(dispatch + 1, SECOND))
        dispatch += 1
    state.when(fail(dispatch)).then_topics("invocation.reconcile_failed", "invocation.became_ambiguous")


def test_a_function_that_gives_no_answer_is_given_up_after_a_while() -> None:
    give_up = GiveUpReconcile(invocation_id=ID, attempt=1)
    for state in (vanished(), asking(), asking().after(fail(2))):
        [became] = state.when(give_up).then_topics("invocation.became_ambiguous")
        assert isinstance(became, invocations.InvocationBecameAmbiguous)
        assert became.reason == "the reconcile function gave no answer within 600 s"
    asking(idempotent=True).when(give_up).then(InvocationCancelled(reason="enough", effect="unknown"))
    asking().after(answer(2, "not_happened")).when(give_up).then()
    asking().after(answer(2, "not_happened"), claim(3), lapse(3)).when(give_up).then()


def test_the_answer_still_counts_while_a_person_is_asked() -> None:
    waits = asking().after(GiveUpReconcile(invocation_id=ID, attempt=1))
    waits.when(answer(2, "succeeded")).then_topics("invocation.reconciled", "invocation.succeeded")
    waits.when(answer(2, "not_happened")).then_topics("invocation.reconciled", "invocation.requeued")
    waits.when(answer(2, "unknown")).then()
    waits.when(fail(2)).then()


def test_only_who_asks_may_answer() -> None:
    asking().when(answer(1, "succeeded")).refused(StaleAttempt, match="attempt 1 does not ask")
    asking().when(answer(3, "succeeded")).refused(StaleAttempt)
    vanished().when(answer(2, "succeeded")).refused(StaleAttempt)
    asking().after(answer(2, "succeeded")).when(answer(2, "unknown")).refused(WorkOver)
    asking().when(complete(2)).refused(InvalidState, match="has an answer, not a result")


def test_the_worker_that_vanished_may_still_report() -> None:
    for state in (vanished(), asking(), asking().after(fail(2)), asking().after(answer(2, "unknown"))):
        state.when(complete(1)).then(InvocationSucceeded(agent_run_id=RUN, key="k", attempt=1, result="done"))
    asking().after(complete(1)).when(answer(2, "not_happened")).refused(WorkOver)


def test_the_session_of_an_attempt() -> None:
    call = asking().state
    assert (call.session_of(1), call.session_of(2), call.session_of(3)) == (FIRST, SECOND, None)
    assert [call.may_be_reported(attempt) for attempt in (1, 2, 3)] == [True, True, False]
    again = asking().after(answer(2, "not_happened")).state
    assert [again.may_be_reported(attempt) for attempt in (1, 2, 3)] == [False, False, False]
    assert again.session_of(1) is None


def test_what_is_due_later() -> None:
    def of(event: invocations.InvocationEvent) -> Scheduled | None:
        return scheduled_by(event, ID)

    [asked] = requested().after(claim(1)).when(lapse(1)).events()
    assert scheduled_by(asked, ID) == Scheduled(600.0, GiveUpReconcile(invocation_id=ID, attempt=1))
    [again] = asking().when(lapse(2)).events()
    assert scheduled_by(again, ID) is None
    later = InvocationReconcileFailed(attempt=2, error=SLOW, delay_s=1.5, dispatch=3)
    assert of(later) == Scheduled(1.5, RequeueInvocation(invocation_id=ID, dispatch=3))
    assert of(InvocationReconcileFailed(attempt=2, error=SLOW)) is None


# --- what a person says -------------------------------------------------------------------------------------------------


def ambiguous() -> Given:
    return requested(reconcile_timeout_s=None).after(claim(1), lapse(1))


def test_a_person_may_say_that_it_did_not_happen() -> None:
    events = ambiguous().when(not_happened()).then_topics("invocation.not_happened", "invocation.requeued")
    assert events[0] == invocations.InvocationNotHappened(attempt=1, by="key:ann", reason="seen")
    assert isinstance(events[1], invocations.InvocationRequeued)
    assert (events[1].dispatch, events[1].reason) == (2, "not_happened")
    ambiguous().after(not_happened()).when(claim(2)).then_topics("invocation.attempt_started")
    ambiguous().after(CANCEL).when(not_happened()).then_topics("invocation.not_happened", "invocation.cancelled")


def test_a_person_may_speak_while_the_function_is_asked() -> None:
    asking().when(not_happened(1)).then_topics("invocation.not_happened", "invocation.requeued")
    asking().after(not_happened(1)).when(answer(2, "succeeded")).refused(StaleAttempt)


def test_it_is_said_once_of_each_attempt() -> None:
    said = ambiguous().after(not_happened(1))
    said.when(not_happened(1)).then()
    said.when(not_happened(1, "other")).refused(AlreadyResolved, match="key:ann said before that attempt 1 had no effect")
    again = said.after(claim(2), lapse(2))
    again.when(not_happened(1)).then()
    again.when(not_happened(3)).refused(InvalidState, match="attempt 2 is in doubt, not attempt 3", pointer="/attempt")
    again.when(not_happened(2)).then_topics("invocation.not_happened", "invocation.requeued")
    requested().when(not_happened()).refused(InvalidState)


def test_who_comes_later_is_told_what_was_said() -> None:
    resolve = ResolveInvocation(invocation_id=ID, result=1, by="key:bob", reason="found")
    ambiguous().after(resolve).when(not_happened()).refused(AlreadyResolved, match="key:bob said before that the call succeeded")
    ambiguous().after(not_happened()).when(resolve).refused(InvalidState)


def test_a_persons_word_begins_the_count_of_lost_workers_anew() -> None:
    assert ambiguous().after(not_happened()).state.lost_claims == 0
    assert asking().after(answer(2, "not_happened")).state.lost_claims == 1


def test_a_first_request_forgets_what_was_before() -> None:
    state = asking().after(fail(2)).state
    assert (state.reconcile_failures, state.lost_reconciles) == (1, 0)
    anew = asking().after(answer(2, "not_happened"), claim(3), lapse(3)).state
    assert (anew.reconcile_failures, anew.lost_reconciles, anew.doubt) == (0, 0, None)
    assert vanished().after(claim(2), lapse(2, "left")).state.lost_reconciles == 0
    assert vanished().after(claim(2), lapse(2, "lost")).state.lost_reconciles == 1
