"""What a call counts as where its worker says nothing: the most that its tool declares, if the tool was called. And where an
attempt vanished, or the call was cancelled."""

from typing import Any
from uuid import UUID

from domain import invocations
from domain.amounts import NOTHING, Amounts, MaxCost
from domain.failures import Failure, Retry
from domain.invocations import (
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationCancelled,
    InvocationCommand,
    InvocationFailed,
    InvocationSucceeded,
    LapseAttempt,
    RequestInvocation,
    RequeueInvocation,
)
from tests.kit import given

ID = UUID("01900000-0000-7000-8000-0000000000ee")
RUN = UUID("01900000-0000-7000-8000-0000000000aa")
called = given(invocations.DECIDER).after(
    RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="t", idempotent=False, timeout_s=5,
        retry=Retry(max_attempts=1), max_cost=MaxCost(money=7, tokens=3),
    ),
    ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=1),
)  # fmt: skip


def test_an_attempt_that_failed_costs_the_most_that_it_may() -> None:
    broken = Failure(type="E", message="no", kind="permanent")
    [failed] = invocations.decide(called.state, FailInvocation(invocation_id=ID, attempt=1, error=broken))
    assert isinstance(failed, InvocationFailed) and failed.usage is not None
    assert (failed.usage.money, failed.usage.tokens) == (7, 3)


def test_so_does_one_that_succeeded() -> None:
    [succeeded] = invocations.decide(called.state, CompleteInvocation(invocation_id=ID, attempt=1, result=1))
    assert isinstance(succeeded, InvocationSucceeded) and succeeded.usage is not None
    assert (succeeded.usage.money, succeeded.usage.tokens) == (7, 3)


def test_what_a_service_refused_for_its_rate_costs_nothing() -> None:
    busy = Failure(type="E", message="no", kind="rate_limited")
    [failed] = invocations.decide(called.state, FailInvocation(invocation_id=ID, attempt=1, error=busy))
    assert isinstance(failed, InvocationFailed) and failed.usage is not None and failed.usage.money == 0


# --- attempts that vanished, and calls that were cancelled --------------------------------------------------------------------


def of_budget(*commands: InvocationCommand, **said: Any) -> Any:
    """A call that may be repeated, for which more is set aside than its tool itself may cost: one of its fallbacks is dearer."""
    request = RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="t", idempotent=True, timeout_s=5,
        retry=Retry(max_attempts=3),
        **{"max_cost": MaxCost(money=7, tokens=3), "reserved": Amounts(money=9, tokens=3, calls=1), **said},
    )  # fmt: skip
    return given(invocations.DECIDER).after(request, *commands)


CLAIM = ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=1, session_id=RUN)
AGAIN = ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=2, session_id=RUN)
CANCEL = CancelInvocation(invocation_id=ID, reason="over")


def lapse(reason: Any, attempt: int = 1) -> LapseAttempt:
    return LapseAttempt(invocation_id=ID, attempt=attempt, reason=reason)


def done(attempt: int, **usage: int) -> CompleteInvocation:
    return CompleteInvocation(invocation_id=ID, attempt=attempt, result=1, usage=Amounts(**usage))


def test_a_call_with_an_attempt_whose_worker_vanished_costs_the_most_that_it_may() -> None:
    """The tool may have run, and the repeat may have cost the same once more."""
    for reason in ("lost", "left"):
        [end] = invocations.decide(of_budget(CLAIM, lapse(reason), AGAIN).state, done(2, money=2, tokens=8))
        assert end.usage == Amounts(money=9, tokens=8), reason
    [end] = invocations.decide(of_budget(CLAIM, lapse("lost"), AGAIN, reserved=None).state, done(2, money=2))
    assert end.usage == Amounts(money=7, tokens=3)
    [end] = invocations.decide(of_budget(CLAIM, lapse("lost"), AGAIN, reserved=None, max_cost=None).state, done(2, money=2))
    assert end.usage == Amounts(money=2)
    [end] = invocations.decide(of_budget(CLAIM, lapse("unsent"), AGAIN).state, done(2, money=2))
    assert end.usage == Amounts(money=2), "it never reached the worker"
    by_queue = ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=1)
    [end] = invocations.decide(of_budget(by_queue, by_queue).state, done(2, money=2))
    assert end.usage == Amounts(money=9, tokens=3), "the queue has given the work to another worker"


def cost(state: Any, command: InvocationCommand = CANCEL) -> Amounts | None:
    cancelled = invocations.decide(state, command)[-1]
    assert isinstance(cancelled, InvocationCancelled)
    if cancelled.cost is not None:
        assert (cancelled.agent_run_id, cancelled.key, cancelled.asked_by) == (RUN, "k", "agent_run")
    return cancelled.cost


def test_a_cancelled_call_costs_nothing_unless_an_attempt_may_have_run() -> None:
    assert cost(of_budget().state) == NOTHING
    assert cost(of_budget(reserved=None).state) is None
    assert cost(of_budget(CLAIM, lapse("unsent")).state) == NOTHING
    assert cost(of_budget(CLAIM, CANCEL).state, lapse("unsent")) == NOTHING
    most = Amounts(money=9, tokens=3, calls=1)
    assert cost(of_budget(CLAIM, lapse("lost")).state) == most
    assert cost(of_budget(CLAIM, CANCEL).state, lapse("lost")) == most
    broken = FailInvocation(invocation_id=ID, attempt=1, error=Failure(type="E", message="no", kind="transient"))
    assert cost(of_budget(CLAIM, broken).state) == most
    said = broken.model_copy(update={"usage": Amounts(money=2)})
    assert cost(of_budget(CLAIM, said).state) == Amounts(money=2, calls=1)
    assert cost(of_budget(CLAIM, lapse("lost"), AGAIN, said.model_copy(update={"attempt": 2})).state) == most
    assert (
        cost(of_budget(CLAIM, said, RequeueInvocation(invocation_id=ID, dispatch=2), AGAIN, CANCEL).state, lapse("lost", 2)) == most
    )
