"""What a call counts as where its worker says nothing: the most that its tool declares, if the tool was called."""

from uuid import UUID

from domain import invocations
from domain.amounts import MaxCost
from domain.failures import Failure, Retry
from domain.invocations import (
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationFailed,
    InvocationSucceeded,
    RequestInvocation,
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
