"""Rules of retries, one by one: of the run, of its agent runs and their calls, of its compensation."""

from uuid import UUID

from domain import agent_runs, compensations, runs
from domain.agent_runs import (
    AgentRunReopened,
    CallFinished,
    CancelAgentRun,
    ClaimAgentRun,
    FailAgentRun,
    FinishCall,
    RecordStep,
    ReopenAgentRun,
    RequestAgentRun,
    SettleCalls,
    SettledCall,
    StartCall,
    TimeOutAgentRun,
    invocation_id_of,
    message_id_of,
)
from domain.compensations import BeginCompensation, CheckEffects, ExpectCall, RecordCompensation, RecordEffect, compensation_id_of
from domain.errors import EffectsTakenBack, InvalidCommand, InvalidState, NotFound, RunOfParent
from domain.failures import Failure, Retry
from domain.kernel import Scheduled
from domain.plans import Plan, Step
from domain.runs import CancelRun, FailStep, Parent, RetryRun, RunRetried, SetDeadline, StartRun, StepScheduled, agent_run_id_of
from tests.kit import given

RUN = UUID("01900000-0000-7000-8000-0000000000aa")
ID = UUID("01900000-0000-7000-8000-0000000000cc")
OTHER = UUID("01900000-0000-7000-8000-0000000000dd")
BROKEN = Failure(type="ValueError", message="broken")
SAID = {
    "agent_run_id": ID, "run_id": RUN, "step": "a", "agent": "alpha", "agent_version": "1", "timeout_s": 60.0,
    "retry": Retry(max_attempts=2),
}  # fmt: skip
REQUEST = RequestAgentRun(**SAID)
CLAIM = ClaimAgentRun(agent_run_id=ID, worker_id="w", dispatch=1)


def reopen(number: int = 1, **more: object) -> ReopenAgentRun:
    return ReopenAgentRun(**{**SAID, "number": number, **more})


def call(key: str) -> StartCall:
    return StartCall(agent_run_id=ID, attempt=1, key=key, tool="t")


def finish(key: str, succeeded: bool, *, effect: bool = False, number: int = 0) -> FinishCall:
    id_ = invocation_id_of(ID, key, number)
    return FinishCall(agent_run_id=ID, key=key, invocation_id=id_, succeeded=succeeded, effect=effect)


running = given(agent_runs.DECIDER).after(REQUEST, CLAIM)
failed = running.after(FailAgentRun(agent_run_id=ID, attempt=1, error=BROKEN))


# --- agent runs ---------------------------------------------------------------------------------------------------------------


def test_an_agent_run_that_ended_is_opened_once_for_each_retry() -> None:
    opened = AgentRunReopened(
        run_id=RUN, step="a", number=1, agent="beta", agent_version="2", version_asked=True, timeout_s=30.0, retry=Retry(),
        dispatch=2, fresh=True, priority="high", on_behalf_of="ada",
    )  # fmt: skip
    said = {"agent": "beta", "agent_version": "2", "version_asked": True, "timeout_s": 30.0, "retry": Retry(), "priority": "high"}
    failed.when(reopen(fresh=True, on_behalf_of="ada", **said)).then(opened)
    again = failed.after(reopen(agent="beta", agent_version="2", version_asked=True))
    again.when(reopen()).then()
    again.when(reopen(2)).then()
    over = again.after(CancelAgentRun(agent_run_id=ID))
    over.when(reopen()).then()
    over.when(reopen(2)).then_topics("agent_run.reopened")
    running.when(reopen()).then()
    given(agent_runs.DECIDER).when(reopen()).then_topics("agent_run.requested")
    state = again.state
    assert state.requested is not None
    assert (state.requested.agent, state.requested.agent_version, state.requested.version_asked) == ("beta", "2", True)
    assert (state.status, state.dispatch, state.reopened, state.failures, state.lost_claims) == ("requested", 2, 1, 0, 0)
    again.when(ClaimAgentRun(agent_run_id=ID, worker_id="w", dispatch=2)).then_topics("agent_run.claimed")


def test_its_journal_stays_without_calls_that_failed_and_had_no_effect() -> None:
    before = running.after(
        RecordStep(agent_run_id=ID, attempt=1, key="s", result=1), call("ok"), call("no"), call("effect"), call("open"),
        finish("ok", True), finish("no", False), finish("effect", False, effect=True),
        FailAgentRun(agent_run_id=ID, attempt=1, error=BROKEN),
    )  # fmt: skip
    kept = before.after(reopen()).state
    assert sorted(kept.journal) == ["effect", "ok", "open", "s"] == sorted(kept.changed.values())
    assert kept.pending_keys == {"open": invocation_id_of(ID, "open")}
    assert kept.call_id(ID, "ok") == invocation_id_of(ID, "ok")
    assert kept.call_id(ID, "no") == invocation_id_of(ID, "no", 1) != invocation_id_of(ID, "no")
    assert message_id_of(ID, "m") != message_id_of(ID, "m", 1)
    empty = before.after(reopen(fresh=True)).state
    assert (len(empty.journal), len(empty.changed), len(empty.pending)) == (0, 0, 0)
    late = before.after(reopen(), ClaimAgentRun(agent_run_id=ID, worker_id="w", dispatch=2))
    late = late.after(StartCall(agent_run_id=ID, attempt=2, key="no", tool="t"))
    late.when(finish("no", True)).then()
    late.when(finish("no", True, number=1)).then_topics("agent_run.call_finished")


def test_calls_are_settled_only_after_the_end() -> None:
    open_ = running.after(call("k"))
    settle = SettleCalls(
        agent_run_id=ID, calls=(SettledCall(key="k", invocation_id=invocation_id_of(ID, "k"), succeeded=False, effect=True),)
    )
    open_.when(settle).refused(InvalidState, "the agent run is running: its calls are its own")
    over = open_.after(CancelAgentRun(agent_run_id=ID))
    over.when(settle).then(CallFinished(key="k", invocation_id=invocation_id_of(ID, "k"), succeeded=False, effect=True))
    over.after(settle).when(settle).then()


def test_a_time_limit_is_that_of_its_retry() -> None:
    again = failed.after(reopen())
    again.when(TimeOutAgentRun(agent_run_id=ID)).then()
    again.when(TimeOutAgentRun(agent_run_id=ID, number=1)).then_topics("agent_run.failed")
    [event] = failed.when(reopen()).events()
    due = agent_runs.scheduled_by(event, ID)
    assert due == Scheduled(60.0, TimeOutAgentRun(agent_run_id=ID, number=1))
    [event] = failed.when(reopen(timeout_s=None)).events()
    assert agent_runs.scheduled_by(event, ID) is None


# --- runs ---------------------------------------------------------------------------------------------------------------------

PLAN = Plan(steps=(Step(key="a", agent="alpha", agent_version="1"), Step(key="b", agent="beta")))
START = StartRun(run_id=RUN, project_id=RUN, plan=PLAN)
A, B = agent_run_id_of(RUN, "a"), agent_run_id_of(RUN, "b")
broken = given(runs.DECIDER).after(START, FailStep(run_id=RUN, step="a", agent_run_id=A, error=BROKEN))


def test_a_retry_names_what_runs_again_and_begins_it() -> None:
    retry = RetryRun(run_id=RUN, reason="mended", fresh=True, versions={"a": "2"})
    broken.when(retry).then(
        RunRetried(number=1, reason="mended", was="failed", steps=("a", "b"), fresh=True, versions={"a": "2"}),
        StepScheduled(step="a", agent="alpha", agent_version="2", agent_run_id=A, version_asked=True, again=1, fresh=True),
        StepScheduled(step="b", agent="beta", agent_version=None, agent_run_id=B, again=1, fresh=True),
    )


def test_what_is_refused() -> None:
    given(runs.DECIDER).when(RetryRun(run_id=RUN)).refused(NotFound, f"there is no run {RUN}")
    broken.when(RetryRun(run_id=RUN, steps=("a", "x"))).refused(InvalidCommand, "the run has no step 'x'", pointer="/steps/1")
    nobody = RetryRun(run_id=RUN, versions={"x": "2"})
    broken.when(nobody).refused(InvalidCommand, "no agent of the step 'x' runs again", pointer="/versions/x")
    going = given(runs.DECIDER).after(START)
    going.when(RetryRun(run_id=RUN)).refused(
        InvalidState, "the run is running, and no step of it has failed: there is nothing to retry"
    )
    under_way = "the step 'a' is under way: only failed steps run again"
    going.when(RetryRun(run_id=RUN, steps=("a",))).refused(InvalidState, under_way, pointer="/steps/0")
    child = given(runs.DECIDER).after(
        START.model_copy(update={"parent": Parent(run_id=OTHER, step="s", part=0)}), CancelRun(run_id=RUN)
    )
    why = f"the run is a part of the step 's' of the run {OTHER}, which has heard of its end: retry that step"
    child.when(RetryRun(run_id=RUN)).refused(RunOfParent, why)
    child.when(RetryRun(run_id=RUN, parent_id=OTHER)).then_topics("run.retried", "run.step_scheduled", "run.step_scheduled")
    [retried, *_] = runs.decide(child.state, RetryRun(run_id=RUN, parent_id=OTHER))
    assert isinstance(retried, RunRetried) and retried.parent == Parent(run_id=OTHER, step="s", part=0)
    going.when(RetryRun(run_id=RUN, parent_id=OTHER)).then()


def test_what_was_skipped_because_of_a_failure_is_not_skipped_any_more() -> None:
    plan = Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta", after=("a",), when="steps.a.status == 'failed'")))
    state = runs.Run()
    for event in (
        runs.RunStarted(project_id=RUN, plan=plan),
        StepScheduled(step="a", agent="alpha", agent_version=None, agent_run_id=A),
        runs.StepFailed(step="a", agent_run_id=A, error=BROKEN, tolerated=True),
        runs.StepSkipped(step="b", reason="condition"),
        runs.RunFailed(step="a", error=BROKEN),
    ):
        state = runs.evolve(state, event)
    assert dict(state.skipped) == {"b": "condition"}
    again = runs.evolve(state, RunRetried(number=1, was="failed", steps=("a",), reset=("b",)))
    assert dict(again.skipped) == {} and again.steps["b"].status == "pending"


def test_a_deadline_names_the_first_step_of_the_plan_that_has_not_ended() -> None:
    plan = Plan(steps=(Step(key="late", agent="beta", after=("a",)), Step(key="a", agent="alpha")))
    timed = given(runs.DECIDER).after(START.model_copy(update={"plan": plan}), SetDeadline(run_id=RUN, deadline_s=60.0))
    [failed] = runs.decide(timed.state, runs.EndAtDeadline(run_id=RUN, number=1))
    assert isinstance(failed, runs.RunFailed) and failed.step == "late"


def test_a_deadline_is_not_that_of_the_run_before_its_retry() -> None:
    timed = given(runs.DECIDER).after(START, SetDeadline(run_id=RUN, deadline_s=60.0), CancelRun(run_id=RUN))
    assert timed.state.deadline_s == 60.0
    assert timed.after(RetryRun(run_id=RUN)).state.deadline_s is None


# --- compensations ------------------------------------------------------------------------------------------------------------


def test_effects_that_are_taken_back_are_no_ground_to_go_on_from() -> None:
    check = CheckEffects(run_id=RUN)
    none = given(compensations.DECIDER)
    none.when(check).then()
    effect = RecordEffect(run_id=RUN, invocation_id=ID, key="k", tool="t", compensated_by="u", on_error="continue", unknown=False)
    begun = none.after(effect, BeginCompensation(run_id=RUN, because="failed"))
    begun.when(check).refused(EffectsTakenBack, f"the effects of the run {RUN} are being taken back: it cannot go on from them")
    waiting = none.after(ExpectCall(run_id=RUN, invocation_id=ID), BeginCompensation(run_id=RUN, because="failed"))
    waiting.when(check).refused(EffectsTakenBack, f"the effects of the run {RUN} are being taken back: it cannot go on from them")
    call_id = begun.state.effects[1].compensation_id
    assert call_id is not None and compensation_id_of(RUN)
    ended = RecordCompensation(run_id=RUN, invocation_id=ID, compensation_id=call_id)
    begun.after(ended).when(check).refused(
        EffectsTakenBack, f"the effects of the run {RUN} were taken back: it cannot go on from them"
    )
    partly = begun.after(ended.model_copy(update={"error": BROKEN}))
    partly.when(check).refused(EffectsTakenBack, f"the effects of the run {RUN} were partly taken back: it cannot go on from them")
