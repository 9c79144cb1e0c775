"""Held calls: nothing of a call that needs an approval begins before the decision, whatever comes in which order."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from application.catalog import SAGAS
from application.engine.ports.queue import WorkItem
from application.engine.sagas.reactions import ReactionCause
from domain import invocations
from domain.approval_rules import ApprovalCheck, BoundRule, Demand, SeenCall, approval_id_of, arguments_hash
from domain.errors import DomainError, InvalidCommand, InvalidState, RepeatedDifferently, StaleAttempt, WorkOver
from domain.failures import Failure, Retry
from domain.invocations import (
    AttemptStarted,
    CachedResult,
    CallCompensation,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    DenyInvocation,
    EndInvocation,
    FailInvocation,
    FallbackTool,
    InvocationCancelled,
    InvocationFailed,
    InvocationFellBack,
    InvocationHeld,
    InvocationReleased,
    InvocationRequested,
    LapseAttempt,
    PutOffInvocation,
    ReleaseInvocation,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from domain.kernel import Event
from tests.kit import Given, given

ID, RUN, SESSION, AGENT_RUN = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(4))
APPROVAL, NEXT = approval_id_of(ID, 0), approval_id_of(ID, 1)
DEMAND = Demand(four_eyes=True)
DOWN = Failure(type="Down", message="down", kind="transient")
DENIED = Failure(type="ApprovalDenied", message="no")
CAUSE = ReactionCause(UUID(int=1), ID, 1, RUN, "", RUN)
CHECK = ApprovalCheck(rules=(BoundRule(),), seen=SeenCall(tool="u"))
GUARDED = FallbackTool(tool="b", tool_version="2", idempotent=True, timeout_s=7, max_attempts=2, approval=DEMAND, untrusted=True)
FREE = FallbackTool(tool="c", tool_version="1", idempotent=True, timeout_s=8, max_attempts=1)


def request(*fallbacks: FallbackTool, approval: Demand | None = DEMAND, **fields: Any) -> RequestInvocation:
    said = {"idempotent": True, "retry": Retry(max_attempts=1), "arguments": {"to": "ada"}, **fields}
    return RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="a", tool_version="1", timeout_s=5, priority="high",
        fallbacks=fallbacks, approval=approval, on_behalf_of="user:ada", **said,
    )  # fmt: skip


def held(*fallbacks: FallbackTool, **fields: Any) -> Given:
    return given(invocations.DECIDER).after(request(*fallbacks, **fields))


def claim(dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id="w", dispatch=dispatch, session_id=SESSION)


def release(arguments: dict[str, Any] | None = None, approval_id: UUID = APPROVAL) -> ReleaseInvocation:
    return ReleaseInvocation(invocation_id=ID, approval_id=approval_id, arguments=arguments)


def deny(approval_id: UUID = APPROVAL) -> DenyInvocation:
    return DenyInvocation(invocation_id=ID, approval_id=approval_id, error=DENIED)


def fail(attempt: int = 1) -> FailInvocation:
    return FailInvocation(invocation_id=ID, attempt=attempt, error=DOWN)


def released(dispatch: int = 2, **more: Any) -> InvocationReleased:
    said = {"tool": "a", "approval_id": APPROVAL, "priority": "high", **more}
    return InvocationReleased(run_id=RUN, dispatch=dispatch, **said)


def test_a_call_that_needs_an_approval_is_held_in_the_decision_that_requests_it() -> None:
    [requested, hold] = given(invocations.DECIDER).when(request()).events()
    assert work_of([requested, hold]) == []
    assert isinstance(requested, InvocationRequested) and requested.approval == DEMAND and requested.stored_version == 3
    assert hold == InvocationHeld(
        run_id=RUN, why="approval", approval_id=APPROVAL, tool="a", tool_version="1", arguments_hash=arguments_hash({"to": "ada"}),
        demand=DEMAND, agent_run_id=AGENT_RUN, key="k", on_behalf_of="user:ada",
    )  # fmt: skip
    state = held().state
    assert (state.status, state.approval_id) == ("held", APPROVAL)
    # The request alone holds it, too: nothing could read it and begin.
    assert given(invocations.DECIDER, requested).state.status == "held"


def test_a_call_without_a_demand_is_as_ever() -> None:
    [requested] = given(invocations.DECIDER).when(request(approval=None)).events()
    assert isinstance(requested, InvocationRequested) and requested.stored_version == 1
    assert given(invocations.DECIDER, requested).state.status == "requested"


@pytest.mark.parametrize(
    "fields",
    [
        {"fallbacks": (GUARDED,)},
        {"compensation": CallCompensation(
            tool="u", idempotent=True, timeout_s=1, retry=Retry(), approval=CHECK
        )},
    ],
)  # fmt: skip
def test_what_may_need_an_approval_later_is_of_a_version_that_older_readers_do_not_take(fields: dict[str, Any]) -> None:
    [requested] = given(invocations.DECIDER).when(request(approval=None).model_copy(update=fields)).events()
    assert requested.stored_version == 3


def test_a_call_that_needs_an_approval_begins_with_no_other_tool() -> None:
    when = given(invocations.DECIDER).when(request(FREE, begin_with=1))
    when.refused(InvalidCommand, "people approve of the tool that was asked for: the call does not begin with another one")
    _, fell_back, hold = given(invocations.DECIDER).when(request(GUARDED, approval=None, begin_with=1)).events()
    assert isinstance(fell_back, InvocationFellBack) and isinstance(hold, InvocationHeld) and hold.approval_id == NEXT


def test_a_held_call_is_not_claimed_reported_ended_or_answered() -> None:
    call = held()
    call.when(claim()).refused(WorkOver, "^the invocation is held$")
    call.when(claim(2)).refused(WorkOver, "^the invocation is held$")
    call.when(CompleteInvocation(invocation_id=ID, attempt=1)).refused(StaleAttempt)
    call.when(fail()).refused(StaleAttempt)
    call.when(EndInvocation(invocation_id=ID)).refused(InvalidState, "a worker carries out")
    held(chain_id=RUN).when(EndInvocation(invocation_id=ID)).refused(
        InvalidState, "^the invocation is held: its chain has not begun$"
    )
    call.when(ResolveInvocation(invocation_id=ID, by="p", reason="r")).refused(InvalidState, "not ambiguous")
    call.when(RequeueInvocation(invocation_id=ID, dispatch=2)).then()
    call.when(PutOffInvocation(invocation_id=ID, dispatch=1, error=DOWN, wait_s=1)).then()
    call.when(LapseAttempt(invocation_id=ID, attempt=0, reason="lost")).then()
    answer = request(cached=CachedResult(invocation_id=RUN, result=1))
    given(invocations.DECIDER).when(answer).refused(
        InvalidCommand, "^a call that needs an approval is not answered from the cache$"
    )


def test_the_decision_lets_it_begin_with_a_dispatch_of_its_own() -> None:
    held().when(release()).then(released())
    call = held().after(release())
    assert (call.state.status, call.state.dispatch) == ("requested", 2)
    call.when(claim(1)).refused(WorkOver, "dispatch 1 is over")
    call.when(claim(2)).then(AttemptStarted(attempt=1, worker_id="w", dispatch=2, session_id=SESSION))
    call.when(release()).then()  # once
    call.when(deny()).then()  # and not otherwise afterwards
    held(chain_id=RUN).when(release()).then(released(chain_id=RUN))


def test_another_decision_than_the_one_that_is_waited_for_changes_nothing() -> None:
    held().when(release(approval_id=NEXT)).refused(InvalidState, f"^the invocation does not wait for the approval {NEXT}$")
    held().when(deny(NEXT)).refused(InvalidState)
    given(invocations.DECIDER).after(request(approval=None)).when(release()).refused(InvalidState)


def test_a_denied_call_fails_and_never_begins() -> None:
    held().when(deny()).then(InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=0, error=DENIED))
    held(FREE).when(deny()).then(InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=0, error=DENIED))
    call = held().after(deny())
    call.when(release()).then()
    call.when(claim(2)).refused(WorkOver, "failed")


def test_a_cancelled_call_names_the_approval_that_nobody_needs_any_more() -> None:
    cancel = CancelInvocation(invocation_id=ID, reason="enough")
    held().when(cancel).then(InvocationCancelled(reason="enough", approval_id=APPROVAL))
    held().after(cancel).when(release()).then()
    given(invocations.DECIDER).after(request(approval=None)).when(cancel).then(InvocationCancelled(reason="enough"))


def test_changed_arguments_are_those_of_the_call_and_a_repeat_says_those_that_were_asked_for() -> None:
    held().when(release({"to": "bob"})).then(released(arguments={"to": "bob"}))
    call = held(FREE).after(release({"to": "bob"}))
    state = call.state
    assert state.requested.arguments == {"to": "bob"} and state.asked_arguments == {"to": "ada"}
    assert state.requested.fallbacks == ()  # nobody has looked at them for another tool
    call.when(request(FREE)).then()
    call.when(request(FREE, arguments={"to": "bob"})).refused(RepeatedDifferently)
    after = call.after(claim(2), fail())
    assert after.state.status == "failed"


def test_with_changed_arguments_the_compensation_of_the_run_still_hears_of_the_outcome() -> None:
    undo = CallCompensation(tool="u", idempotent=True, timeout_s=1, retry=Retry())
    other = FREE.model_copy(update={"compensation": undo})
    call = held(other).after(release({"to": "bob"}), claim(2))
    [ended] = call.when(CompleteInvocation(invocation_id=ID, attempt=1)).events()
    assert isinstance(ended, invocations.InvocationSucceeded)
    assert ended.compensable is not None and ended.compensable.compensated_by == ""


def test_a_fallback_has_an_approval_of_its_own() -> None:
    call = held(GUARDED).after(release(), claim(2))
    fell, hold = call.when(fail()).events()
    assert isinstance(fell, InvocationFellBack) and fell.held and fell.stored_version == 2
    assert isinstance(hold, InvocationHeld)
    assert (hold.approval_id, hold.tool, hold.tool_version, hold.demand) == (NEXT, "b", "2", DEMAND)
    assert work_of([fell, hold]) == []
    waits = call.after(fail())
    assert waits.state.status == "held" and waits.state.requested.approval == DEMAND and waits.state.requested.untrusted
    waits.when(claim(3)).refused(WorkOver, "held")
    waits.when(release()).refused(InvalidState)  # the approval of the tool before is none of this tool
    waits.when(release(approval_id=NEXT)).then(released(4, tool="b", approval_id=NEXT))


def test_a_fallback_without_a_demand_goes_on_and_is_read_by_all() -> None:
    [fell] = held(FREE).after(release(), claim(2)).when(fail()).events()
    assert isinstance(fell, InvocationFellBack) and not fell.held and fell.stored_version == 1


def test_a_call_that_is_put_off_falls_back_into_a_hold() -> None:
    call = given(invocations.DECIDER).after(request(GUARDED, approval=None))
    events = call.when(PutOffInvocation(invocation_id=ID, dispatch=1, error=DOWN, wait_s=1)).events()
    assert [event.TOPIC for event in events] == ["invocation.fell_back", "invocation.held"]


# --- no order of anything lets a held call begin -----------------------------------------------------------------------------

COMMANDS = st.sampled_from(
    [
        request(GUARDED), claim(1), claim(2), claim(3), claim(4), claim(5), fail(1), fail(2),
        CompleteInvocation(invocation_id=ID, attempt=1),
        CompleteInvocation(invocation_id=ID, attempt=2), LapseAttempt(invocation_id=ID, attempt=1, reason="lost"),
        LapseAttempt(invocation_id=ID, attempt=1, reason="unsent"), LapseAttempt(invocation_id=ID, attempt=2, reason="left"),
        PutOffInvocation(invocation_id=ID, dispatch=1, error=DOWN, wait_s=1),
        PutOffInvocation(invocation_id=ID, dispatch=2, error=DOWN, wait_s=None),
        PutOffInvocation(invocation_id=ID, dispatch=3, error=DOWN, wait_s=1), RequeueInvocation(invocation_id=ID, dispatch=2),
        RequeueInvocation(invocation_id=ID, dispatch=3), CancelInvocation(invocation_id=ID), release(), release({"to": "bob"}),
        release(approval_id=NEXT), deny(), deny(NEXT),
    ]
)  # fmt: skip


def work_of(events: list[Event]) -> list[WorkItem]:
    """What workers could get because of the events."""
    found = []
    for event in events:
        handler = SAGAS["work_dispatch"].get(type(event))
        found += [] if handler is None else [item for item in handler(event, CAUSE) if isinstance(item, WorkItem)]
    return found


PATHS: list[list[Any]] = [[], [release(), claim(2)], [release(), claim(2), fail(1)]]
"""Beginnings, from which the commands go on."""


@over(st.sampled_from(PATHS), st.lists(COMMANDS, min_size=1, max_size=12))
def test_no_order_of_commands_lets_a_tool_be_called_without_its_own_approval(path: list[Any], commands: list[Any]) -> None:
    call = given(invocations.DECIDER).after(request(GUARDED))
    approved: set[UUID] = set()
    for command in (*path, *commands):
        try:
            events = call.when(command).events()
        except DomainError:
            continue
        approved |= {event.approval_id for event in events if isinstance(event, InvocationReleased)}
        tool = call.state.requested.tool
        needed = APPROVAL if tool == "a" else NEXT
        if any(isinstance(event, AttemptStarted) for event in events):
            assert needed in approved, "a tool was called without its approval"
        call = call.after(command)
        if call.state.status == "held":
            assert not work_of(events), "a held call was given to the queue"
        for item in work_of(events):
            assert item.pool == call.state.requested.tool and item.dispatch == call.state.dispatch
