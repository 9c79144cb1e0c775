"""Agent runs and calls of a paused run: by the rules alone."""

from uuid import UUID

import pytest

from domain import agent_runs, invocations
from domain.agent_runs import (
    AgentRunPaused,
    AgentRunResumed,
    AgentRunUnpaused,
    CancelAgentRun,
    ClaimAgentRun,
    CompleteAgentRun,
    FailAgentRun,
    FinishWait,
    PauseAgentRun,
    ReopenAgentRun,
    RequestAgentRun,
    ResumeAgentRun,
    StartCall,
    StartWait,
    TimeOutAgentRun,
    UnpauseAgentRun,
    child_id_of,
    invocation_id_of,
)
from domain.errors import NotFound, RunIsPaused, StaleAttempt
from domain.failures import Failure, Retry
from domain.invocations import (
    ClaimInvocation,
    CompleteInvocation,
    FailInvocation,
    InvocationPaused,
    InvocationRequeued,
    PauseInvocation,
    RequestInvocation,
    RequeueInvocation,
    UnpauseInvocation,
)
from domain.kernel import Command
from tests.kit import Given, given

ID, RUN, SESSION = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(3))
RETRY = Retry(max_attempts=3)
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")
PAUSE, UNPAUSE = PauseAgentRun(agent_run_id=ID, number=1), UnpauseAgentRun(agent_run_id=ID, number=1)


def agent(**more: object) -> Given:
    requested = RequestAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", retry=RETRY, priority="high")
    return given(agent_runs.DECIDER).after(requested.model_copy(update=more))


def claim(dispatch: int = 1) -> ClaimAgentRun:
    return ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=dispatch, session_id=SESSION)


def resumed(dispatch: int) -> AgentRunResumed:
    return AgentRunResumed(run_id=RUN, agent="a", dispatch=dispatch, reason="unpaused", priority="high")


# --- agent runs -----------------------------------------------------------------------------------------------------------


def test_a_pause_takes_the_attempt_from_its_worker() -> None:
    held = agent().after(claim())
    held.when(PAUSE).then(AgentRunPaused(number=1, attempt=1))
    paused = held.after(PAUSE)
    assert (paused.state.status, paused.state.lost_claims) == ("requested", 0)
    paused.when(PAUSE).then()
    paused.when(claim()).refused(RunIsPaused, "dispatch 1 is paused with the run")
    paused.when(CompleteAgentRun(agent_run_id=ID, attempt=1)).refused(StaleAttempt)
    paused.when(UNPAUSE).then(AgentRunUnpaused(number=1), resumed(2))
    again = paused.after(UNPAUSE)
    assert again.state.lost_claims == 0
    again.when(UNPAUSE).then()
    again.when(PAUSE).then()
    again.when(claim(2)).then_topics("agent_run.claimed")
    again.when(PauseAgentRun(agent_run_id=ID, number=2)).then(AgentRunPaused(number=2))


def test_runs_that_the_agent_has_started_are_named_as_long_as_it_waits_for_them() -> None:
    kinds = (("c", "child"), ("g", "signal"))
    start = [StartWait(agent_run_id=ID, attempt=1, key=key, kind=kind, name="go") for key, kind in kinds]
    held, child = agent().after(claim(), *start), child_id_of(ID, "c")
    held.when(PAUSE).then(AgentRunPaused(number=1, attempt=1, children=(child,)))
    paused = held.after(PAUSE)
    paused.when(UNPAUSE).then(AgentRunUnpaused(number=1, children=(child,)), resumed(2))
    ended = paused.after(FinishWait(agent_run_id=ID, key="c", child_id=child))
    ended.when(UNPAUSE).then(AgentRunUnpaused(number=1), resumed(2))
    again = ReopenAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", number=3)
    later = held.after(CancelAgentRun(agent_run_id=ID), again, claim(2), start[0].model_copy(update={"attempt": 2}))
    later.when(PAUSE).then(AgentRunPaused(number=1, attempt=2, children=(child_id_of(ID, "c", 3),)))


def test_a_pause_of_before_a_retry_holds_up_nothing_that_goes_on() -> None:
    again = ReopenAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", number=3, timeout_s=9)
    over = agent().after(PAUSE, UNPAUSE, CancelAgentRun(agent_run_id=ID), again)
    ended_paused = agent().after(PAUSE, CancelAgentRun(agent_run_id=ID), again)
    for late in (over, ended_paused, over.after(CancelAgentRun(agent_run_id=ID), again.model_copy(update={"number": 4}))):
        late.when(PAUSE).then()
        late.when(UNPAUSE).then()
        late.when(PauseAgentRun(agent_run_id=ID, number=2)).then(AgentRunPaused(number=2))
        assert late.state.past_pause == 1
    over.when(TimeOutAgentRun(agent_run_id=ID, number=3)).then_topics("agent_run.failed")


def test_a_pause_keeps_what_waits_from_workers() -> None:
    agent().when(PAUSE).then(AgentRunPaused(number=1))
    paused = agent().after(PAUSE)
    paused.when(PauseAgentRun(agent_run_id=ID, number=1, dispatch=1)).then()
    paused.when(UNPAUSE).then(AgentRunUnpaused(number=1), resumed(2))
    assert agent().after(claim(), PAUSE, UNPAUSE, PauseAgentRun(agent_run_id=ID, number=2)).state.lost_claims == 0


def test_an_end_that_comes_before_its_pause_counts() -> None:
    running = agent().after(claim())
    running.when(UNPAUSE).then(AgentRunUnpaused(number=1))
    running.after(UNPAUSE).when(PAUSE).then()
    waiting = agent()
    waiting.when(UNPAUSE).then(AgentRunUnpaused(number=1), resumed(2))
    waiting.after(UNPAUSE).when(PAUSE).then()


def test_a_retry_that_is_due_in_the_pause_is_taken_back() -> None:
    waiting = agent().after(claim(), FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))
    waiting.when(PAUSE).then(AgentRunPaused(number=1))
    waiting.after(PAUSE).when(UNPAUSE).then(AgentRunUnpaused(number=1))
    due = waiting.after(PAUSE, ResumeAgentRun(agent_run_id=ID, dispatch=2))
    due.when(claim(2)).refused(RunIsPaused)
    due.when(PauseAgentRun(agent_run_id=ID, number=1, dispatch=1)).then()
    taken_back = PauseAgentRun(agent_run_id=ID, number=1, dispatch=2)
    due.when(taken_back).then(AgentRunPaused(number=1))
    due.after(taken_back).when(taken_back).then()
    due.after(taken_back).when(UNPAUSE).then(AgentRunUnpaused(number=1), resumed(3))


def test_the_time_out_begins_anew() -> None:
    timed = agent(timeout_s=9.0)
    old, new = TimeOutAgentRun(agent_run_id=ID), TimeOutAgentRun(agent_run_id=ID, pause=1)
    timed.when(old).then_topics("agent_run.failed")
    timed.when(new).then()
    timed.after(PAUSE).when(old).then()
    timed.after(PAUSE).when(new).then()
    unpaused, _ = timed.after(PAUSE).when(UNPAUSE).then_topics("agent_run.unpaused", "agent_run.resumed")
    scheduled = agent_runs.scheduled_by(unpaused, ID)
    assert scheduled is not None and (scheduled.delay_s, scheduled.command) == (9.0, new)
    timed.after(PAUSE, UNPAUSE).when(old).then()
    timed.after(PAUSE, UNPAUSE).when(new).then_topics("agent_run.failed")
    assert agent_runs.scheduled_by(AgentRunUnpaused(number=1), ID) is None


def test_calls_under_way_are_named() -> None:
    calls = agent().after(claim(), StartCall(agent_run_id=ID, attempt=1, key="k", tool="t"))
    [unpaused, _] = calls.after(PAUSE).when(UNPAUSE).then_topics("agent_run.unpaused", "agent_run.resumed")
    assert unpaused.calls == (invocation_id_of(ID, "k"),)


def test_what_has_ended_or_is_not_there() -> None:
    for command in (PAUSE, UNPAUSE):
        given(agent_runs.DECIDER).when(command).refused(NotFound, f"there is no agent run {ID}")
        agent().after(CancelAgentRun(agent_run_id=ID)).when(command).then()


def test_workers_that_vanish_are_counted_across_pauses() -> None:
    state = agent().after(claim(), agent_runs.LapseClaim(agent_run_id=ID, attempt=1, reason="lost")).state
    assert state.lost_claims == 1
    paused = agent().after(claim(), agent_runs.LapseClaim(agent_run_id=ID, attempt=1, reason="lost"), PAUSE, UNPAUSE)
    assert paused.state.lost_claims == 1, "no worker had it"


# --- calls ----------------------------------------------------------------------------------------------------------------


def call(**more: object) -> Given:
    requested = RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="t", idempotent=True, timeout_s=1, retry=RETRY
    )
    return given(invocations.DECIDER).after(requested.model_copy(update=more))


def claim_call(dispatch: int = 1) -> ClaimInvocation:
    return ClaimInvocation(invocation_id=ID, worker_id="w1", dispatch=dispatch, session_id=SESSION)


def pause(dispatch: int = 1) -> PauseInvocation:
    return PauseInvocation(invocation_id=ID, dispatch=dispatch)


GO_ON = UnpauseInvocation(invocation_id=ID)


def test_a_call_that_waits_is_paused_and_dispatched_anew() -> None:
    call().when(pause()).then(InvocationPaused(dispatch=1))
    paused = call().after(pause())
    paused.when(pause()).then()
    paused.when(claim_call()).refused(RunIsPaused, "dispatch 1 is paused with the run")
    paused.when(GO_ON).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, reason="unpaused"))
    again = paused.after(GO_ON)
    again.when(pause()).then()
    again.when(claim_call(2)).then_topics("invocation.attempt_started")
    again.when(pause(2)).then(InvocationPaused(dispatch=2))
    paused.when(invocations.CancelInvocation(invocation_id=ID)).then_topics("invocation.cancelled")


def test_a_call_that_waits_is_dispatched_anew_also_if_no_worker_had_asked() -> None:
    call().when(GO_ON).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, reason="unpaused"))
    call(chain_id=RUN).when(GO_ON).then()


@pytest.mark.parametrize("command", [pause(), GO_ON])
def test_a_call_that_has_begun_goes_on(command: Command) -> None:
    begun = call().after(claim_call())
    begun.when(command).then()
    begun.after(CompleteInvocation(invocation_id=ID, attempt=1)).when(command).then()
    begun.after(FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)).when(command).then()
    given(invocations.DECIDER).when(command).refused(NotFound, f"there is no invocation {ID}")


def test_lost_workers_are_counted_across_pauses() -> None:
    lost = call().after(claim_call(), invocations.LapseAttempt(invocation_id=ID, attempt=1, reason="lost"))
    assert lost.state.lost_claims == 1
    assert lost.after(pause(2), GO_ON).state.lost_claims == 1


def test_a_retry_after_a_pause_can_be_paused_again() -> None:
    waiting = call().after(claim_call(), FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT))
    due = waiting.after(RequeueInvocation(invocation_id=ID, dispatch=2))
    due.when(pause()).then()
    due.when(pause(2)).then(InvocationPaused(dispatch=2))
    assert not due.state.is_paused
    assert due.after(pause(2)).state.is_paused
    assert not due.after(pause(2), GO_ON).state.is_paused
