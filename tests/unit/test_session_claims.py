"""Claims of sessions: a dispatch is claimed once, lapses once, and comes back as another dispatch."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from domain import agent_runs, invocations
from domain.agent_runs import (
    AgentRunClaimed,
    AgentRunFailed,
    AgentRunResumed,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    FailAgentRun,
    LapseClaim,
    RequestAgentRun,
    ResumeAgentRun,
    StartCall,
)
from domain.errors import DomainError, StaleAttempt, WorkOver
from domain.failures import MAX_LOST_CLAIMS, Failure, Retry
from domain.invocations import (
    AttemptStarted,
    CancelInvocation,
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationBecameAmbiguous,
    InvocationCancelled,
    InvocationFailed,
    InvocationRequeued,
    InvocationSucceeded,
    LapseAttempt,
    RequestInvocation,
    RequeueInvocation,
    ResolveInvocation,
)
from domain.kernel import Command, Event
from domain.registry import REGISTRY
from tests.kit import Given, given

ID, RUN, ONE, TWO, AGENT_RUN = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(5))
RETRY = Retry(max_attempts=3)
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")
LOST = "10 workers in a row vanished while they ran this"


def claim(session_id: UUID | None, dispatch: int = 1) -> ClaimAgentRun:
    return ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=dispatch, session_id=session_id)


def lapse(attempt: int = 1, reason: Any = "lost") -> LapseClaim:
    return LapseClaim(agent_run_id=ID, attempt=attempt, reason=reason)


def claim_call(session_id: UUID | None, dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id="w1", dispatch=dispatch, session_id=session_id)


def lapse_call(attempt: int = 1, reason: Any = "lost") -> LapseAttempt:
    return LapseAttempt(invocation_id=ID, attempt=attempt, reason=reason)


def completes(attempt: int) -> CompleteInvocation:
    return CompleteInvocation(invocation_id=ID, attempt=attempt, result=[attempt])


AGENT = given(agent_runs.DECIDER).after(RequestAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", retry=RETRY))


def call(*, idempotent: bool = True) -> Given:
    return given(invocations.DECIDER).after(
        RequestInvocation(
            invocation_id=ID, run_id=RUN, agent_run_id=AGENT_RUN, key="k", tool="t", idempotent=idempotent, timeout_s=1, retry=RETRY
        )
    )


# --- agent runs -----------------------------------------------------------------------------------------------------------


def test_a_claim_names_its_session_and_keeps_all_others_out() -> None:
    AGENT.when(claim(ONE)).then(AgentRunClaimed(attempt=1, worker_id="w1", dispatch=1, session_id=ONE))
    held = AGENT.after(claim(ONE))
    assert held.state.session_id == ONE
    for other in (claim(ONE), claim(TWO), claim(None)):
        held.when(other).refused(WorkOver, "dispatch 1 is claimed by a session, as attempt 1")


def test_a_claim_without_a_session_is_repeated_by_the_queue_as_before() -> None:
    """Also by a session: the worker without a session has vanished, else the queue would not give the item to another."""
    held = AGENT.after(claim(None))
    held.when(claim(None)).then(AgentRunClaimed(attempt=2, worker_id="w1", dispatch=1))
    held.when(claim(ONE)).then(AgentRunClaimed(attempt=2, worker_id="w1", dispatch=1, session_id=ONE))
    held.when(lapse()).then()


def test_a_lapsed_claim_becomes_another_dispatch() -> None:
    held = AGENT.after(claim(ONE))
    held.when(lapse()).then(AgentRunResumed(run_id=RUN, agent="a", dispatch=2, lapsed=1, reason="lost"))
    lapsed = held.after(lapse())
    lapsed.when(lapse()).then()
    lapsed.when(claim(TWO)).refused(WorkOver, "dispatch 1 is over; 2 is the newest")
    lapsed.when(CompleteAgentRun(agent_run_id=ID, attempt=1)).refused(StaleAttempt, "attempt 1 lost its lease; 1 is the newest")
    lapsed.when(claim(TWO, 2)).then(AgentRunClaimed(attempt=2, worker_id="w1", dispatch=2, session_id=TWO))
    again = lapsed.after(claim(TWO, 2))
    again.when(lapse(attempt=1)).then()
    again.when(CompleteAgentRun(agent_run_id=ID, attempt=1)).refused(StaleAttempt)


@pytest.mark.parametrize("end", [CompleteAgentRun(agent_run_id=ID, attempt=1), CancelAgentRun(agent_run_id=ID)])
def test_nothing_lapses_that_has_ended(end: Command) -> None:
    AGENT.after(claim(ONE), end).when(lapse()).then()


def test_nothing_lapses_that_waits_or_does_not_exist() -> None:
    waiting = AGENT.after(claim(ONE), FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))
    waiting.when(lapse()).then()
    AGENT.when(lapse(0)).then()
    given(agent_runs.DECIDER).when(lapse()).then()
    waiting.when(ResumeAgentRun(agent_run_id=ID, dispatch=2)).then(AgentRunResumed(run_id=RUN, agent="a", dispatch=2))


def test_sessions_lost_without_progress_are_counted_to_ten() -> None:
    state = AGENT
    for n in range(1, MAX_LOST_CLAIMS):
        state = state.after(claim(ONE, n), lapse(n))
    state = state.after(claim(ONE, MAX_LOST_CLAIMS))
    why = f"{LOST} agent, without any progress"
    failed = AgentRunFailed(run_id=RUN, step="s", error=Failure(type="WorkersLost", message=why, kind="lost"))
    state.when(lapse(MAX_LOST_CLAIMS)).then(failed)
    state.when(lapse(MAX_LOST_CLAIMS, "left")).then_topics("agent_run.resumed")
    progress = state.after(StartCall(agent_run_id=ID, attempt=MAX_LOST_CLAIMS, key="c", tool="t"))
    progress.when(lapse(MAX_LOST_CLAIMS)).then_topics("agent_run.resumed")


@pytest.mark.parametrize("reason", ["left", "unsent"])
def test_a_worker_that_gives_work_back_has_not_vanished(reason: str) -> None:
    state = AGENT
    for n in range(1, 2 * MAX_LOST_CLAIMS):
        state = state.after(claim(ONE, n), lapse(n, reason))
    assert (state.state.status, state.state.lost_claims) == ("requested", 0)
    calling = AGENT.after(claim(ONE), StartCall(agent_run_id=ID, attempt=1, key="c", tool="t"), lapse(1, reason))
    assert calling.state.lost_claims == 0


# --- calls ----------------------------------------------------------------------------------------------------------------


def test_a_claimed_call_names_its_session_and_keeps_all_others_out() -> None:
    call().when(claim_call(ONE)).then(AttemptStarted(attempt=1, worker_id="w1", dispatch=1, session_id=ONE))
    for idempotent in (True, False):
        held = call(idempotent=idempotent).after(claim_call(ONE))
        assert held.state.session_id == ONE
        for other in (claim_call(ONE), claim_call(TWO), claim_call(None)):
            held.when(other).refused(WorkOver, "dispatch 1 is claimed by a session, as attempt 1")


def test_a_call_without_a_session_is_repeated_by_the_queue_as_before() -> None:
    held = call().after(claim_call(None))
    held.when(claim_call(None)).then(AttemptStarted(attempt=2, worker_id="w1", dispatch=1))
    held.when(claim_call(ONE)).then(AttemptStarted(attempt=2, worker_id="w1", dispatch=1, session_id=ONE))
    held.when(lapse_call()).then()
    once = call(idempotent=False).after(claim_call(None))
    once.when(claim_call(ONE)).then(InvocationBecameAmbiguous(attempt=1, worker_id="w1"))


def test_a_lapsed_call_that_may_be_repeated_becomes_another_dispatch() -> None:
    held = call().after(claim_call(ONE))
    held.when(lapse_call()).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, lapsed=1, reason="lost"))
    lapsed = held.after(lapse_call())
    lapsed.when(lapse_call()).then()
    lapsed.when(completes(1)).refused(StaleAttempt, "attempt 1 lost its lease; 1 is the newest")
    lapsed.when(FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)).refused(StaleAttempt)
    lapsed.when(claim_call(ONE)).refused(WorkOver)
    lapsed.when(claim_call(TWO, 2)).then(AttemptStarted(attempt=2, worker_id="w1", dispatch=2, session_id=TWO))
    lapsed.after(claim_call(TWO, 2)).when(lapse_call(1)).then()
    lapsed.when(CancelInvocation(invocation_id=ID)).then(InvocationCancelled())


@pytest.mark.parametrize("reason", ["lost", "left"])
def test_a_lapsed_call_that_must_not_be_repeated_becomes_ambiguous(reason: str) -> None:
    held = call(idempotent=False).after(claim_call(ONE))
    held.when(lapse_call(1, reason)).then(InvocationBecameAmbiguous(attempt=1, worker_id="w1"))


def test_a_call_that_never_reached_its_worker_is_not_in_doubt() -> None:
    held = call(idempotent=False).after(claim_call(ONE))
    held.when(lapse_call(1, "unsent")).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, lapsed=1, reason="unsent"))
    cancelled = held.after(CancelInvocation(invocation_id=ID, reason="enough"))
    cancelled.when(lapse_call(1, "unsent")).then(InvocationCancelled(reason="enough"))


def test_an_ambiguous_call_is_taken_back_when_its_worker_reports() -> None:
    ambiguous = call(idempotent=False).after(claim_call(ONE), lapse_call())
    succeeded = InvocationSucceeded(agent_run_id=AGENT_RUN, key="k", attempt=1, result=[1])
    ambiguous.when(completes(1)).then(succeeded)
    failed = InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=1, error=TRANSIENT)
    ambiguous.when(FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)).then(failed)
    ambiguous.when(completes(2)).refused(StaleAttempt)
    ambiguous.when(lapse_call()).then()
    resolved = ambiguous.after(ResolveInvocation(invocation_id=ID, result="sent", by="key:ann", reason="I looked"))
    resolved.when(completes(1)).refused(WorkOver, "the invocation is succeeded")


def test_a_cancelled_call_that_lapses_is_not_tried_again() -> None:
    cancel = CancelInvocation(invocation_id=ID, reason="enough")
    call().after(claim_call(ONE), cancel).when(lapse_call()).then(InvocationCancelled(reason="enough", effect="unknown"))
    once = call(idempotent=False).after(claim_call(ONE), cancel)
    once.when(lapse_call()).then(InvocationBecameAmbiguous(attempt=1, worker_id="w1"))


@pytest.mark.parametrize("end", [completes(1), FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)])
def test_no_attempt_lapses_that_has_an_outcome(end: Command) -> None:
    ended = call().after(claim_call(ONE), end)
    ended.when(lapse_call()).then()


def test_sessions_lost_in_a_call_are_counted_to_ten() -> None:
    state = call()
    for n in range(1, MAX_LOST_CLAIMS):
        state = state.after(claim_call(ONE, n), lapse_call(n))
    state = state.after(claim_call(ONE, MAX_LOST_CLAIMS))
    why = Failure(type="WorkersLost", message=f"{LOST} tool", kind="lost")
    state.when(lapse_call(MAX_LOST_CLAIMS)).then(
        InvocationFailed(agent_run_id=AGENT_RUN, key="k", attempt=MAX_LOST_CLAIMS, error=why, effect="unknown")
    )
    given_back = call()
    for n in range(1, 2 * MAX_LOST_CLAIMS):
        given_back = given_back.after(claim_call(ONE, n), lapse_call(n, "unsent"))
    assert given_back.state.lost_claims == 0


# --- states of before -----------------------------------------------------------------------------------------------------


def test_claims_that_were_stored_before_there_were_sessions_are_repeated_by_the_queue() -> None:
    """An upgrade while workers have work in hand: nothing becomes ambiguous, and nothing lapses, while they live."""
    agent_claim = REGISTRY.decode("agent_run.claimed", 1, b'{"attempt":1,"worker_id":"w0","dispatch":1}')
    resumed = REGISTRY.decode("agent_run.resumed", 1, json.dumps({"run_id": str(RUN), "agent": "a", "dispatch": 2}).encode())
    held = Given(AGENT.decider, AGENT.decider.evolve(AGENT.state, agent_claim))
    held.when(lapse()).then()
    held.when(CompleteAgentRun(agent_run_id=ID, attempt=1)).then_topics("agent_run.completed")
    held.when(claim(ONE)).then(AgentRunClaimed(attempt=2, worker_id="w1", dispatch=1, session_id=ONE))
    assert AGENT.decider.evolve(held.state, resumed).lost_claims == held.state.lost_claims
    started = REGISTRY.decode("invocation.attempt_started", 1, b'{"attempt":1,"worker_id":"w0","dispatch":1}')
    once = call(idempotent=False)
    mail = Given(once.decider, once.decider.evolve(once.state, started))
    mail.when(lapse_call()).then()
    mail.when(completes(1)).then_topics("invocation.succeeded")
    mail.when(claim_call(ONE)).then(InvocationBecameAmbiguous(attempt=1, worker_id="w0"))


# --- any order ------------------------------------------------------------------------------------------------------------

numbers, sessions = st.integers(0, 4), st.sampled_from([ONE, TWO])
reasons, once = st.sampled_from(["lost", "left", "unsent"]), {"invocation_id": st.just(ID)}
commands_of_calls = st.lists(
    st.one_of(
        st.builds(ClaimInvocation, **once, worker_id=st.just("w1"), dispatch=st.integers(1, 4), session_id=sessions),
        st.builds(LapseAttempt, **once, attempt=numbers, reason=reasons),
        st.builds(CompleteInvocation, **once, attempt=numbers),
        st.builds(FailInvocation, **once, attempt=numbers, error=st.just(TRANSIENT)),
        st.builds(RequeueInvocation, **once, dispatch=numbers),
        st.builds(CancelInvocation, **once),
    ),
    max_size=30,
)


def history(state: Given, commands: list[Command]) -> list[Event]:
    """The events of all commands that were not refused."""
    events: list[Event] = []
    for command in commands:
        try:
            new = state.when(command).events()
        except DomainError:
            continue
        events += new
        state = state.after(command)
    return events


@settings(max_examples=300)
@any_of(commands_of_calls, st.booleans())
def test_a_call_is_begun_once_for_each_dispatch_and_never_twice_if_it_must_not_be_repeated(
    commands: list[Command], idempotent: bool
) -> None:
    events = history(call(idempotent=idempotent), commands)
    started = [event for event in events if isinstance(event, AttemptStarted)]
    assert [event.attempt for event in started] == list(range(1, len(started) + 1))
    assert len({event.dispatch for event in started}) == len(started)
    unsent = {event.lapsed for event in events if isinstance(event, InvocationRequeued) and event.reason == "unsent"}
    assert idempotent or len([event for event in started if event.attempt not in unsent]) <= 1
    outcomes = [event for event in events if isinstance(event, InvocationSucceeded | InvocationFailed | InvocationCancelled)]
    assert len(outcomes) <= 1


agent = {"agent_run_id": st.just(ID)}
commands_of_agents = st.lists(
    st.one_of(
        st.builds(ClaimAgentRun, **agent, worker_id=st.just("w1"), dispatch=st.integers(1, 4), session_id=sessions),
        st.builds(LapseClaim, **agent, attempt=numbers, reason=reasons),
        st.builds(CompleteAgentRun, **agent, attempt=numbers),
        st.builds(FailAgentRun, **agent, attempt=numbers, error=st.just(TRANSIENT)),
        st.builds(ResumeAgentRun, **agent, dispatch=numbers),
    ),
    max_size=30,
)


@settings(max_examples=300)
@any_of(commands_of_agents)
def test_an_agent_run_is_claimed_once_for_each_dispatch(commands: list[Command]) -> None:
    events = history(AGENT, commands)
    claims = [event for event in events if isinstance(event, AgentRunClaimed)]
    assert [event.attempt for event in claims] == list(range(1, len(claims) + 1))
    assert len({event.dispatch for event in claims}) == len(claims)
    dispatches = [1] + [event.dispatch for event in events if isinstance(event, AgentRunResumed)]
    assert dispatches == list(range(1, len(dispatches) + 1))
