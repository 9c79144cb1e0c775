"""A call whose effect can be taken back: what its events say, and the arguments of the tool that takes it back."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from domain import runs
from domain.errors import InvalidState, NotFound
from domain.failures import Failure, Retry
from domain.invocations import (
    DECIDER,
    CallCompensation,
    CancelInvocation,
    ClaimInvocation,
    Compensable,
    CompensateInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationCancelled,
    InvocationCompensationRefused,
    InvocationCompensationRequested,
    InvocationFailed,
    InvocationRequested,
    InvocationSucceeded,
    RequestInvocation,
)
from domain.kernel import MAX_EVENT_BYTES, Event, Json
from tests.kit import given

ID, RUN, AGENT_RUN, UNDO, OTHER = (UUID(f"01900000-0000-7000-8000-00000000020{n}") for n in range(5))
MAX_ARGUMENTS = MAX_EVENT_BYTES - 16 * 1024
DECLARED = CallCompensation(
    tool="refund", tool_version="2", idempotent=True, timeout_s=5.0, retry=Retry(max_attempts=4), reconcile_timeout_s=3.0,
    takes=("arguments", "result", "invocation_id"), on_failure="continue",
)  # fmt: skip
REQUEST = RequestInvocation(
    invocation_id=ID, run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="pay", arguments={"amount": 5}, idempotent=False,
    timeout_s=9, retry=Retry(), priority="high", on_behalf_of="user:ada", compensation=DECLARED,
)  # fmt: skip
CLAIM = ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=1)
DONE = CompleteInvocation(invocation_id=ID, attempt=1, result={"id": 7})
NOTED = Compensable(tool="pay", compensated_by="refund", on_failure="continue")
COMPENSATE = CompensateInvocation(invocation_id=ID, compensation_id=UNDO)
ERROR = Failure(type="Late", message="late")
requested = given(DECIDER).after(REQUEST)
succeeded = requested.after(CLAIM, DONE)


class Doubling:
    """Evaluates `result` and `twice`; knows no other expression."""

    def evaluate(self, expression: str, values: Mapping[str, Json], spent: Any = None) -> Any:
        from domain.kernel import Evaluated

        if expression == "twice":
            return Evaluated(values["arguments"]["amount"] * 2)
        return Evaluated(values["result"]) if expression == "result" else Evaluated(error="what is that?")

    def misfit(self, schema: Json, value: Json) -> str | None:
        return None


def mapped(**arguments: str) -> list[Event]:
    declared = DECLARED.model_copy(update={"arguments": arguments})
    state = given(DECIDER).after(REQUEST.model_copy(update={"compensation": declared}), CLAIM, DONE).state
    return DECIDER.events(state, COMPENSATE, Doubling())


def asked(arguments: dict[str, Json], declared: CallCompensation = DECLARED) -> InvocationCompensationRequested:
    return InvocationCompensationRequested(
        run_id=RUN, compensation_id=UNDO, compensation=declared, arguments=arguments, priority="high", on_behalf_of="user:ada"
    )


def test_the_request_holds_the_compensation_and_outcomes_say_that_there_is_one() -> None:
    [event] = given(DECIDER).when(REQUEST).events()
    assert isinstance(event, InvocationRequested) and (event.compensation, event.stored_version) == (DECLARED, 2)
    who = {"agent_run_id": AGENT_RUN, "key": "k", "compensable": NOTED}
    claimed = requested.after(CLAIM)
    claimed.when(DONE).then(InvocationSucceeded(**who, attempt=1, result={"id": 7}))
    for effect in (None, "unknown", "happened"):
        fail = FailInvocation(invocation_id=ID, attempt=1, error=ERROR, effect=effect)  # type: ignore[arg-type]
        claimed.when(fail).then(InvocationFailed(**who, attempt=1, error=ERROR, effect=effect))
    requested.when(CancelInvocation(invocation_id=ID, reason="r")).then(InvocationCancelled(**who, reason="r"))


def test_a_call_without_a_compensation_says_nothing_of_it() -> None:
    plain = REQUEST.model_copy(update={"compensation": None})
    [event] = given(DECIDER).when(plain).events()
    assert isinstance(event, InvocationRequested) and event.stored_version == 1
    given(DECIDER).after(plain).when(CancelInvocation(invocation_id=ID)).then(InvocationCancelled())
    given(DECIDER).after(plain, CLAIM, DONE).when(COMPENSATE).refused(
        InvalidState, "the tool 'pay' declared no compensation at the"
    )


def test_the_arguments_are_what_the_tool_takes() -> None:
    whole: dict[str, Any] = {"arguments": {"amount": 5}, "result": {"id": 7}, "invocation_id": str(ID)}
    succeeded.when(COMPENSATE).then(asked(whole))
    some = DECLARED.model_copy(update={"takes": ("result",)})
    less = given(DECIDER).after(REQUEST.model_copy(update={"compensation": some}), CLAIM, DONE)
    less.when(COMPENSATE).then(asked({"result": {"id": 7}}, some))


def test_expressions_make_them() -> None:
    declared = DECLARED.model_copy(update={"arguments": {"money": "twice", "of": "result"}})
    assert mapped(money="twice", of="result") == [asked({"money": 10, "of": {"id": 7}}, declared)]
    [refused] = mapped(money="twice", of="x")
    assert isinstance(refused, InvocationCompensationRefused) and (refused.run_id, refused.compensation_id) == (RUN, UNDO)
    why = "the argument 'of' of 'refund' cannot be made of the call: what is that?"
    assert refused.error == Failure(type="ExpressionError", message=why)


def test_arguments_that_no_event_can_hold_are_refused() -> None:
    def with_result(size: int) -> list[Event]:
        large = CompleteInvocation(invocation_id=ID, attempt=1, result="ü" * (size // 2))
        declared = DECLARED.model_copy(update={"takes": ("result",)})
        return given(DECIDER).after(REQUEST.model_copy(update={"compensation": declared}), CLAIM, large).when(COMPENSATE).events()

    beside = len('{"result": ""}')
    [fits] = with_result(MAX_ARGUMENTS - beside)
    assert isinstance(fits, InvocationCompensationRequested)
    [refused] = with_result(MAX_ARGUMENTS - beside + 2)
    assert isinstance(refused, InvocationCompensationRefused) and refused.error.type == "ArgumentsTooLarge"
    size = f"{MAX_ARGUMENTS + 2:,} bytes, over the limit of {MAX_ARGUMENTS:,}"
    told = f"the arguments of 'refund' would have {size}: choose what it needs with `compensation.arguments`"
    assert refused.error.message == told


def test_it_is_asked_once_for_each_call_that_takes_it_back() -> None:
    succeeded.after(COMPENSATE).when(COMPENSATE).then()
    again = CompensateInvocation(invocation_id=ID, compensation_id=OTHER)
    assert len(succeeded.after(COMPENSATE).when(again).events()) == 1
    requested.after(CLAIM).when(COMPENSATE).refused(
        InvalidState, "the invocation is started; only the effect of one that has ended"
    )
    given(DECIDER).when(COMPENSATE).refused(NotFound, f"there is no invocation {ID}")


# --- runs -------------------------------------------------------------------------------------------------------------------

PLAN = runs.sequential(("a",))


@pytest.mark.parametrize(
    ("policy", "on_failure", "on_cancel"),
    [("never", False, False), ("on_failure", True, False), ("on_cancel", False, True), ("on_failure_or_cancel", True, True)],
)
def test_a_run_says_at_its_end_whether_its_effects_are_taken_back(policy: Any, on_failure: bool, on_cancel: bool) -> None:
    start = runs.StartRun(run_id=RUN, project_id=OTHER, plan=PLAN, compensate=policy)
    run = given(runs.DECIDER).after(start)
    [begun, _] = given(runs.DECIDER).when(start).events()
    assert isinstance(begun, runs.RunStarted) and begun.stored_version == (1 if policy == "never" else 3)
    fail = runs.FailStep(run_id=RUN, step="a", agent_run_id=runs.agent_run_id_of(RUN, "a"), error=ERROR)
    [_, failed] = run.when(fail).events()
    assert isinstance(failed, runs.RunFailed) and failed.compensate is on_failure
    for asked, expected in ((None, on_cancel), (True, True), (False, False)):
        run.when(runs.CancelRun(run_id=RUN, compensate=asked)).then(
            runs.RunCancelled(abandoned=(runs.agent_run_id_of(RUN, "a"),), compensate=expected)
        )


def test_also_where_all_steps_were_tolerated_and_failed() -> None:
    plan = runs.Plan(steps=(runs.Step(key="a", agent="a", on_failure="continue"),))
    start = runs.StartRun(run_id=RUN, project_id=OTHER, plan=plan, compensate="on_failure")
    fail = runs.FailStep(run_id=RUN, step="a", agent_run_id=runs.agent_run_id_of(RUN, "a"), error=ERROR)
    [*_, failed] = given(runs.DECIDER).after(start).when(fail).events()
    assert isinstance(failed, runs.RunFailed) and failed.compensate
