"""Fallback tools and calls that are put off: which tool is called next, and when none is."""

from typing import Any, Literal
from uuid import UUID

import pytest

from application.catalog import SAGAS
from application.engine.sagas.reactions import ReactionCause
from domain import invocations
from domain.compensations import RecordEffect, RuleOutEffect
from domain.errors import InvalidState, NotFound, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry, spread_s
from domain.invocations import (
    AttemptStarted,
    CallCompensation,
    CancelInvocation,
    ClaimInvocation,
    Compensable,
    CompensateInvocation,
    CompleteInvocation,
    FailInvocation,
    FallbackTool,
    InvocationCancelled,
    InvocationFailed,
    InvocationFellBack,
    InvocationReconciled,
    InvocationRequested,
    InvocationRetryScheduled,
    InvocationSucceeded,
    LapseAttempt,
    PutOffInvocation,
    ReconcileInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
    scheduled_by,
)
from domain.kernel import Scheduled
from tests.kit import Given, given

ID, RUN, SESSION, AGENT_RUN = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
DOWN = Failure(type="BreakerOpen", message="down", kind="transient", retry_after_s=9)
B = FallbackTool(tool="b", tool_version="2", idempotent=False, timeout_s=7, max_attempts=2, reconcile_timeout_s=3)
C = FallbackTool(tool="c", tool_version="1", idempotent=True, timeout_s=8, max_attempts=1)
CAUSE = ReactionCause(UUID(int=1), ID, 1, RUN, "", RUN)
FIRST = AttemptStarted(attempt=1, worker_id="w", dispatch=1, session_id=SESSION)


def failure(kind: Any = "transient") -> Failure:
    return Failure(type="E", message="no", kind=kind)


def request(*fallbacks: FallbackTool, tool: str = "a", **fields: Any) -> RequestInvocation:
    said = {"idempotent": True, "retry": Retry(max_attempts=1), **fields}
    return RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool=tool, tool_version="1", timeout_s=5, priority="high",
        fallbacks=fallbacks, fallbacks_skipped={"d": "there is no such tool"}, **said,
    )  # fmt: skip


def call(*fallbacks: FallbackTool, **fields: Any) -> Given:
    return given(invocations.DECIDER).after(request(*fallbacks, **fields))


def claim(dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=dispatch, session_id=SESSION)


def fail(kind: Any = "transient", attempt: int = 1, effect: Literal["unknown"] | None = None) -> FailInvocation:
    return FailInvocation(invocation_id=ID, attempt=attempt, error=failure(kind), effect=effect)


def put_off(dispatch: int = 1, wait_s: float | None = 9) -> PutOffInvocation:
    return PutOffInvocation(invocation_id=ID, dispatch=dispatch, error=DOWN, wait_s=wait_s)


def fell(number: int = 1, error: Failure = DOWN, attempt: int = 0, dispatch: int = 2) -> InvocationFellBack:
    names = ["a", "b", "c"]
    return InvocationFellBack(
        run_id=RUN, from_tool=names[number - 1], tool=names[number], version=(B, C)[number - 1].tool_version, number=number,
        attempt=attempt, error=error, dispatch=dispatch, priority="high",
    )  # fmt: skip


def ends(error: Failure, attempt: int = 1, **more: Any) -> InvocationFailed:
    return InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=attempt, error=error, **more)


# --- which tool is called next ----------------------------------------------------------------------------------------------


def test_a_request_has_its_fallbacks_and_is_of_a_version_that_says_so() -> None:
    [requested] = given(invocations.DECIDER).when(request(B, C)).events()
    assert isinstance(requested, InvocationRequested)
    assert (requested.fallbacks, requested.fallbacks_skipped) == ((B, C), {"d": "there is no such tool"})
    [plain] = given(invocations.DECIDER).when(request()).events()
    assert (requested.stored_version, plain.stored_version) == (2, 1)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    ("kind", "goes_on"),
    [("transient", True), ("rate_limited", True), ("timeout", True), ("lost", True), ("permanent", False), ("invalid", False),
     ("upstream", False), ("ambiguous", False)],
)  # fmt: skip
def test_after_a_failure_that_is_not_the_calls_own_fault_the_next_tool_is_called(
    kind: str, goes_on: bool, idempotent: bool
) -> None:
    held = call(B, idempotent=idempotent).after(claim())
    held.when(fail(kind)).then(fell(error=failure(kind), attempt=1) if goes_on else ends(failure(kind)))


def test_a_tool_is_tried_as_often_as_it_may_before_the_next_one() -> None:
    held = call(B, retry=Retry(max_attempts=2)).after(claim())
    assert [event.TOPIC for event in held.when(fail()).events()] == ["invocation.retry_scheduled"]
    again = held.after(fail(), RequeueInvocation(invocation_id=ID, dispatch=2), claim(2))
    again.when(fail(attempt=2)).then(fell(error=failure(), attempt=2, dispatch=3))


def test_while_the_effect_is_in_doubt_no_other_tool_is_called() -> None:
    """Unless a second effect would do no harm."""
    call(B, idempotent=False).after(claim()).when(fail(effect="unknown")).then(ends(failure(), effect="unknown"))
    call(B).after(claim()).when(fail(effect="unknown")).then(fell(error=failure(), attempt=1))
    lost = LapseAttempt(invocation_id=ID, attempt=1, reason="lost")
    in_doubt = call(B, idempotent=False).after(claim(), lost)
    assert in_doubt.state.status == "ambiguous"
    in_doubt.when(put_off()).then()


UNDO = CallCompensation(tool="undo", idempotent=True, timeout_s=5, retry=Retry())
UNDOABLE = B.model_copy(update={"compensation": UNDO.model_copy(update={"tool": "undo-b"})})


def test_what_may_have_to_be_taken_back_is_not_done_by_another_tool_too() -> None:
    held = call(B, compensation=UNDO).after(claim())
    held.when(fail(effect="unknown")).then(
        ends(failure(), effect="unknown", compensable=Compensable(tool="a", compensated_by="undo"))
    )  # fmt: skip
    held.when(fail()).then(fell(error=failure(), attempt=1))


@pytest.mark.parametrize(
    ("first", "second", "awaited", "compensated_by"),
    [(UNDO, UNDOABLE, True, "undo-b"), (UNDO, B, True, ""), (None, UNDOABLE, True, "undo-b"), (None, B, False, None)],
)
def test_the_tool_that_was_called_in_the_end_says_what_takes_its_effect_back(
    first: CallCompensation | None, second: FallbackTool, awaited: bool, compensated_by: str | None
) -> None:
    asked = call(second, compensation=first)
    requested = asked.state.requested
    assert requested is not None and requested.is_awaited is awaited and requested.stored_version == 2
    done = asked.after(claim(), fail(), claim(2))
    [event] = done.when(CompleteInvocation(invocation_id=ID, attempt=2, result=1)).events()
    assert isinstance(event, InvocationSucceeded)
    assert event.compensable == (
        None if compensated_by is None else Compensable(tool="b", compensated_by=compensated_by)
    )  # fmt: skip
    assert bool(SAGAS["compensations"][InvocationRequested](requested, CAUSE)) is awaited
    expected = {None: None, "": RuleOutEffect}.get(compensated_by, RecordEffect)
    assert [type(one) for one in SAGAS["compensations"][InvocationSucceeded](event, CAUSE)] == (
        [] if expected is None else [expected]
    )
    if compensated_by in (None, ""):
        refused = CompensateInvocation(invocation_id=ID, compensation_id=RUN)
        done.after(CompleteInvocation(invocation_id=ID, attempt=2)).when(refused).refused(InvalidState, "declared no compensation")


def test_an_idempotent_tool_whose_workers_vanish_is_given_up_for_the_next_one() -> None:
    held = call(B)
    for number in range(1, MAX_LOST_CLAIMS + 1):
        held = held.after(claim(number))
        if number < MAX_LOST_CLAIMS:
            held = held.after(LapseAttempt(invocation_id=ID, attempt=number, reason="lost"))
    [event] = held.when(LapseAttempt(invocation_id=ID, attempt=MAX_LOST_CLAIMS, reason="lost")).events()
    assert isinstance(event, InvocationFellBack) and (event.tool, event.error.type, event.error.kind) == (
        "b",
        "WorkersLost",
        "lost",
    )


def test_when_it_is_known_that_there_was_no_effect_the_next_tool_is_called() -> None:
    held = call(B, idempotent=False, reconcile_timeout_s=5).after(claim(), fail(effect="unknown"))
    assert held.state.status == "reconciling"
    answer = ReconcileInvocation(invocation_id=ID, attempt=2, outcome="not_happened")
    held.after(claim(2)).when(answer).then(
        InvocationReconciled(attempt=2, outcome="not_happened"), fell(error=failure(), attempt=1, dispatch=3)
    )
    permanent = call(B, idempotent=False, reconcile_timeout_s=5).after(claim(), fail("permanent", effect="unknown"), claim(2))
    assert [event.TOPIC for event in permanent.when(answer).events()] == ["invocation.reconciled", "invocation.failed"]


def test_after_workers_that_vanished_and_no_effect_the_next_tool_is_called() -> None:
    held = call(B, idempotent=False, reconcile_timeout_s=5)
    attempt, dispatch = 0, 1
    for _ in range(MAX_LOST_CLAIMS):
        lost = LapseAttempt(invocation_id=ID, attempt=attempt + 1, reason="lost")
        held = held.after(claim(dispatch), lost, claim(dispatch + 1))
        before = held
        held = held.after(ReconcileInvocation(invocation_id=ID, attempt=attempt + 2, outcome="not_happened"))
        attempt, dispatch = attempt + 2, dispatch + 2
    [_, event] = before.when(ReconcileInvocation(invocation_id=ID, attempt=attempt, outcome="not_happened")).events()
    assert isinstance(event, InvocationFellBack) and event.error.type == "WorkersLost"


def test_the_next_tool_is_called_by_its_own_declaration() -> None:
    held = call(B, C, reconcile_timeout_s=1).after(claim(), fail())
    state = held.state
    now = state.requested
    assert (state.status, state.fallback, state.asked_tool, state.dispatch, state.failures, state.lost_claims) == (
        "requested", 1, "a", 2, 0, 0,
    )  # fmt: skip
    assert (now.tool, now.tool_version, now.idempotent, now.timeout_s, now.retry, now.reconcile_timeout_s) == (
        "b", "2", False, 7, Retry(max_attempts=2), 3,
    )  # fmt: skip
    assert (now.key, now.run_id, now.arguments, now.priority) == ("k", RUN, {}, "high")
    held.when(claim(2)).then(AttemptStarted(attempt=2, worker_id="w", dispatch=2, session_id=SESSION))
    with pytest.raises(WorkOver):
        held.when(claim(1)).events()
    held.when(fail(attempt=1)).refused(StaleAttempt)
    done = held.after(claim(2)).when(CompleteInvocation(invocation_id=ID, attempt=2, result=1))
    done.then(InvocationSucceeded(agent_run_id=AGENT_RUN, key="k", attempt=2, result=1))
    second = held.after(claim(2)).when(fail(attempt=2))
    second.then(fell(2, failure(), attempt=2, dispatch=3))
    last = held.after(claim(2), fail(attempt=2))
    assert (last.state.fallback, last.state.asked_tool, last.state.requested.tool) == (2, "a", "c")
    last.after(claim(3)).when(fail(attempt=3)).then(ends(failure(), attempt=3))


def test_a_repeat_names_the_tool_that_was_asked_for() -> None:
    held = call(B).after(claim(), fail())
    held.when(request(B)).then()
    held.when(request(B, tool="b")).refused(RepeatedDifferently, "key 'k' called 'a' before, with other arguments", pointer="/key")


def test_a_cancelled_call_goes_on_with_no_other_tool() -> None:
    held = call(B).after(claim(), CancelInvocation(invocation_id=ID, reason="enough"))
    held.when(fail()).then(ends(failure()))
    call(B).after(claim(), fail()).when(CancelInvocation(invocation_id=ID)).then(InvocationCancelled())


# --- a call that is put off -------------------------------------------------------------------------------------------------


def test_a_call_that_is_put_off_goes_to_the_next_tool_at_once() -> None:
    call(B, C).when(put_off()).then(fell())
    call(B, C).when(put_off(wait_s=None)).then(fell())
    on_b = call(B, C).after(put_off())
    on_b.when(put_off(2)).then(fell(2, dispatch=3))


@pytest.mark.parametrize("idempotent", [True, False])
def test_without_another_tool_it_waits_as_a_try_that_failed(idempotent: bool) -> None:
    """Also a tool that must not be called twice: it was not called."""
    held = call(idempotent=idempotent, retry=Retry(max_attempts=2))
    delay = spread_s(ID, 1, 9)
    retry = InvocationRetryScheduled(attempt=0, error=DOWN, delay_s=delay, dispatch=2)
    held.when(put_off()).then(retry)
    assert scheduled_by(retry, ID) == Scheduled(delay, RequeueInvocation(invocation_id=ID, dispatch=2))
    again = held.after(put_off(), RequeueInvocation(invocation_id=ID, dispatch=2))
    again.when(put_off()).then()
    again.when(put_off(2)).then(ends(DOWN, attempt=0))
    again.when(claim(2)).then(AttemptStarted(attempt=1, worker_id="w", dispatch=2, session_id=SESSION))


def test_it_keeps_its_place_while_others_are_tried() -> None:
    call().when(put_off(wait_s=None)).then()


def test_what_is_not_waiting_for_a_worker_is_not_put_off() -> None:
    given(invocations.DECIDER).when(put_off()).refused(NotFound)
    call(B).after(claim()).when(put_off()).then()
    call(B).when(put_off(2)).then()
    call().after(claim(), fail()).when(put_off()).then()
    resolved = ResolveInvocation(invocation_id=ID, not_happened=True, by="key:ann", reason="r")
    lost = LapseAttempt(invocation_id=ID, attempt=1, reason="lost")
    again = call(B, idempotent=False).after(claim(), lost, resolved)
    again.when(put_off(2)).then(fell(attempt=1, dispatch=3))


def test_those_who_wait_for_one_moment_do_not_come_all_at_once() -> None:
    waits = [spread_s(UUID(int=number), 1, 30) for number in range(1_000)]
    assert all(30 < wait <= 33 for wait in waits) and max(waits) - min(waits) > 2.9
    assert len({spread_s(ID, number, 30) for number in range(20)}) == 20
    many = [UUID(int=number) for number in range(1_000)]
    assert 0.09 < max(spread_s(one, 1, 0) for one in many) <= 0.1
    assert 1009 < max(spread_s(one, 1, 1000) for one in many) <= 1010
