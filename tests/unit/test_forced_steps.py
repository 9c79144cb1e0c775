"""What a person says about a step: that it does not run, how it ends, that its work is dispatched again."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from application.runs.dispatching import dispatch_again
from domain import agent_runs, invocations, runs
from domain.agent_runs import AgentRunResumed, ClaimAgentRun, DispatchAgentRun, FailAgentRun, LapseClaim, PauseAgentRun
from domain.errors import InvalidState, NotFound
from domain.failures import Failure
from domain.invocations import (
    CancelInvocation,
    ClaimInvocation,
    DispatchInvocation,
    FailInvocation,
    InvocationRequeued,
    LapseAttempt,
    PauseInvocation,
)
from domain.plans import Plan
from domain.runs import ByPerson, ForceStep, PauseRun, ResumeRun, SkipStep, child_id_of
from tests.kit import given
from tests.kit.engine import RETRY, Engine, PlayedWorker, plan
from tests.kit.waiting import request_of
from tests.unit.test_pausing_runs import AT, RUN, of, played, played_on, topics
from tests.unit.test_runs import done, started

ANN = ByPerson(by="key:ann", reason="looked it up", on_behalf_of="ada")
FORCED = Failure(type="Forced", message="no answer")


def skip(step: str) -> SkipStep:
    return SkipStep(run_id=RUN, step=step, person=ANN)


def force(step: str, result: Any = None, error: Failure | None = None) -> ForceStep:
    return ForceStep(run_id=RUN, step=step, result=result, error=error, person=ANN)


# --- steps ----------------------------------------------------------------------------------------------------------------


def test_a_step_that_is_skipped_is_told_with_who_and_why() -> None:
    running = started(runs.parallel(("a", "b"), "c"))
    [skipped] = running.when(skip("a")).then_topics("run.step_skipped")
    assert (skipped.reason, skipped.person, skipped.abandoned) == ("person", ANN, (AT["a"],))
    _, scheduled = running.after(skip("a")).when(done("b")).then_topics("run.step_completed", "run.step_scheduled")
    assert scheduled.step == "c"


def test_what_comes_after_skipped_steps_only_is_skipped() -> None:
    events = started(runs.sequential(("a", "b"))).when(skip("a")).then_topics(
        "run.step_skipped", "run.step_skipped", "run.completed"
    )  # fmt: skip
    assert events[1].reason == "upstream"


def test_a_step_that_has_not_begun_can_be_skipped_or_forced() -> None:
    chain = started(runs.sequential(("a", "b", "c")))
    chain.when(skip("b")).then_topics("run.step_skipped", "run.step_skipped")
    completed, scheduled = chain.when(force("b", 1)).then_topics("run.step_completed", "run.step_scheduled")
    assert (completed.result, completed.abandoned, scheduled.step) == (1, (), "c")
    chain.after(force("b", 1)).when(done("a")).then_topics("run.step_completed")


def test_a_forced_result_is_the_step_s_own() -> None:
    chain = started(runs.sequential(("a", "b")))
    completed, scheduled = chain.when(force("a", {"price": 12})).then_topics("run.step_completed", "run.step_scheduled")
    assert (completed.result, completed.agent_run_id, completed.abandoned) == ({"price": 12}, None, (AT["a"],))
    assert completed.person == ANN and completed.stored_version == 2 and scheduled.step == "b"
    chain.after(force("a", 1)).when(done("a")).then()


def test_a_forced_failure_is_what_the_plan_makes_of_it() -> None:
    failed, run = started(runs.sequential(("a", "b"))).when(force("a", error=FORCED)).then_topics("run.step_failed", "run.failed")
    assert (failed.error, failed.person, failed.abandoned, run.error) == (FORCED, ANN, (AT["a"],), FORCED)
    tolerant = started(of(agent="a", on_failure="continue", fallbacks=[{"agent": "y"}]))
    tolerant.when(force("a", error=FORCED)).then_topics("run.step_failed", "run.step_failed", "run.failed")


def test_what_cannot_be_skipped_or_forced() -> None:
    for command in (skip("a"), force("a", 1)):
        given(runs.DECIDER).when(command).refused(NotFound, f"there is no run {RUN}")
        ended = started(runs.sequential(("a", "b"))).after(done("a"))
        ended.when(command).refused(InvalidState, "step 'a' is completed; only one that has not ended can be skipped or forced")
        ended.after(done("b")).when(command).refused(
            InvalidState, "the run is completed; only steps of a running one can be skipped or forced"
        )
    for command in (skip("x"), force("a.0", 1)):
        started(runs.sequential(("a",))).when(command).refused(NotFound, f"run {RUN} has no step '{command.step}'")
    run, _ = played(runs.sequential(("a",)))
    with pytest.raises(InvalidState, match="the result is too large") as refused:
        played_on(run, force("a", "x" * 200_001))
    assert refused.value.pointer == "/result"


def test_in_a_pause_nothing_follows() -> None:
    paused = started(runs.sequential(("a", "b"))).after(PauseRun(run_id=RUN))
    paused.when(force("a", 1)).then_topics("run.step_completed")
    paused.after(force("a", 1)).when(ResumeRun(run_id=RUN)).then_topics("run.resumed", "run.step_scheduled")


# --- parts ----------------------------------------------------------------------------------------------------------------


def test_an_item_of_a_list_can_be_skipped() -> None:
    run, _ = played(of(agent="a", each={"over": "input.list", "max_parallel": 1}))
    run, events = played_on(run, skip("a.0"))
    assert topics(events) == ["run.part_failed", "run.part_scheduled"]
    [failed, _] = events
    assert isinstance(failed, runs.PartFailed) and failed.tolerated and failed.person == ANN
    assert failed.error.message == "key:ann skipped it: looked it up" and failed.error.type == "Skipped"
    assert failed.abandoned == (runs.agent_run_id_of(RUN, "a.0"),) and failed.abandoned_runs == ()
    with pytest.raises(InvalidState, match=r"'a.0' is not under way; only such a part can be skipped or forced"):
        played_on(run, skip("a.0"))
    with pytest.raises(InvalidState, match=r"'a.2' is not under way"):
        played_on(run, force("a.2", 1))
    run, events = played_on(run, force("a.1", 7))
    assert isinstance(events[0], runs.PartCompleted) and (events[0].result, events[0].person) == (7, ANN)
    assert events[0].abandoned == (runs.agent_run_id_of(RUN, "a.1"),)
    run, events = played_on(run, force("a.2", error=FORCED))
    assert topics(events) == ["run.part_failed", "run.step_failed", "run.failed"], "as the plan says"


def test_an_item_whose_failure_is_tolerated() -> None:
    run, _ = played(of(agent="a", each={"over": "input.list", "max_parallel": 1, "on_failure": "continue"}))
    run, events = played_on(run, force("a.0", error=FORCED))
    assert topics(events) == ["run.part_failed", "run.part_scheduled"]


def test_parts_of_other_forms_have_results_only() -> None:
    run, _ = played(of(agent="a", repeat={"times": 2}))
    with pytest.raises(InvalidState, match=r"'a.0' is no item of a list: skip the step 'a', or force a result"):
        played_on(run, skip("a.0"))
    run, events = played_on(run, force("a.0", 7))
    assert topics(events) == ["run.part_completed", "run.part_scheduled"] and events[1].input == 7  # type: ignore[attr-defined]
    with pytest.raises(InvalidState, match=r"'a.5' is not under way"):
        played_on(run, force("a.5", 7))
    _, events = played_on(run, force("a.1", error=FORCED))
    assert topics(events) == ["run.part_failed", "run.step_failed", "run.failed"]
    child, _ = played(of(run={"plan": {"steps": [{"key": "x", "agent": "x"}]}}))
    _, events = played_on(child, force("a.0", 1))
    assert events[0].abandoned_runs == (child_id_of(RUN, "a", 0),) and not events[0].abandoned  # type: ignore[attr-defined]


# --- work that waits ------------------------------------------------------------------------------------------------------

ID, SESSION = UUID(int=1), UUID(int=2)
AGAIN = DispatchAgentRun(agent_run_id=ID, by="key:ann", reason="it hangs", on_behalf_of="ada")
CALL_AGAIN = DispatchInvocation(invocation_id=ID, by="key:ann", reason="it hangs", on_behalf_of="ada")
SAID: dict[str, Any] = {"reason": "person", "by": "key:ann", "because": "it hangs", "on_behalf_of": "ada"}
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")


def test_an_agent_run_is_dispatched_again() -> None:
    requested = agent_runs.RequestAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", retry=RETRY, priority="high")
    waits = given(agent_runs.DECIDER).after(requested)
    said = {"run_id": RUN, "agent": "a", "priority": "high", **SAID}
    waits.when(AGAIN).then(AgentRunResumed(dispatch=2, **said))
    claim = ClaimAgentRun(agent_run_id=ID, worker_id="w1", dispatch=1, session_id=SESSION)
    held = waits.after(claim)
    held.when(AGAIN).then(AgentRunResumed(dispatch=2, lapsed=1, **said))
    assert held.after(AGAIN).state.lost_claims == 0, "its worker has not vanished"
    lost = held.after(LapseClaim(agent_run_id=ID, attempt=1, reason="lost"))
    assert lost.after(AGAIN).state.lost_claims == 1
    later = held.after(FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT))
    later.when(AGAIN).then(AgentRunResumed(dispatch=2, **said))
    later.after(AGAIN).when(agent_runs.ResumeAgentRun(agent_run_id=ID, dispatch=2)).then()
    waits.after(PauseAgentRun(agent_run_id=ID, number=1)).when(AGAIN).refused(InvalidState, "the run is paused: resume it, and its")
    over = waits.after(agent_runs.CancelAgentRun(agent_run_id=ID))
    over.when(AGAIN).refused(InvalidState, "the agent run is cancelled: nothing waits for a worker")
    given(agent_runs.DECIDER).when(AGAIN).refused(NotFound, f"there is no agent run {ID}")


def test_a_call_is_dispatched_again() -> None:
    requested = invocations.RequestInvocation(
        invocation_id=ID, run_id=RUN, agent_run_id=RUN, key="k", tool="t", idempotent=True, timeout_s=1, retry=RETRY
    )
    waits = given(invocations.DECIDER).after(requested)
    waits.when(CALL_AGAIN).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, **SAID))
    held = waits.after(ClaimInvocation(invocation_id=ID, worker_id="w1", dispatch=1, session_id=SESSION))
    held.when(CALL_AGAIN).refused(InvalidState, "the call does not wait for a worker: a worker has it")
    later = held.after(FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT))
    later.when(CALL_AGAIN).then(InvocationRequeued(run_id=RUN, tool="t", dispatch=2, **SAID))
    lost = held.after(LapseAttempt(invocation_id=ID, attempt=1, reason="lost"))
    assert lost.after(CALL_AGAIN).state.lost_claims == 1
    waits.after(PauseInvocation(invocation_id=ID, dispatch=1)).when(CALL_AGAIN).refused(
        InvalidState, "the run is paused: resume it"
    )
    over = waits.after(CancelInvocation(invocation_id=ID))
    over.when(CALL_AGAIN).refused(InvalidState, "the call does not wait for a worker: it is cancelled")
    unsafe = given(invocations.DECIDER).after(requested.model_copy(update={"idempotent": False}))
    doubtful = unsafe.after(
        ClaimInvocation(invocation_id=ID, worker_id="w1", dispatch=1, session_id=SESSION),
        LapseAttempt(invocation_id=ID, attempt=1, reason="lost"),
    )
    doubtful.when(CALL_AGAIN).refused(InvalidState, "say what became of it")
    chain = given(invocations.DECIDER).after(requested.model_copy(update={"chain_id": RUN}))
    chain.when(CALL_AGAIN).refused(InvalidState, "a chain carries out the call: dispatch the call of its step")


# --- in the engine --------------------------------------------------------------------------------------------------------


async def again(engine: Engine, run_id: UUID, step: str, call: UUID | None = None) -> UUID:
    request = request_of()
    _, changed = await dispatch_again(
        engine.commands, request, lambda asked: asked, run_id=run_id, step=step, call=call, person=ANN
    )  # fmt: skip
    await engine.settled()
    return changed


async def test_a_retry_is_made_at_once(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(retry=RETRY))
    alpha = await worker.next("alpha")
    await alpha.fail("transient")
    assert await again(engine, run_id, "a") == alpha.work_id
    second = await worker.next("alpha")
    await engine.advance(60)
    await second.complete()
    assert (await engine.run(run_id)).status == "completed"


async def test_a_call_of_a_step_is_dispatched_again(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    call = await (await worker.next("alpha")).call("k", "add", a=1)
    assert await again(engine, run_id, "alpha", call) == call
    items = [(await worker.take("add", "tool")).item.dispatch for _ in range(2)]
    assert sorted(items) == [1, 2], "a claim of the first is refused"
    for stranger in (uuid4(), run_id):
        with pytest.raises(NotFound, match=f"step 'alpha' has no call {stranger}"):
            await again(engine, run_id, "alpha", stranger)


async def test_what_waits_for_no_worker_is_not_dispatched(engine: Engine, worker: PlayedWorker) -> None:
    missing = uuid4()
    with pytest.raises(NotFound, match=f"there is no run {missing}"):
        await again(engine, missing, "a")
    steps: list[dict[str, Any]] = [
        {"key": "clock", "wait": {"s": 50}}, {"key": "later", "agent": "alpha", "after": ["clock"]},
        {"key": "child", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}]}}},
        {"key": "list", "agent": "beta", "each": {"over": "[1, 2]"}},
    ]  # fmt: skip
    run_id = await engine.start(plan=Plan.model_validate({"steps": steps}))
    await engine.settled()
    for step, why in (
        ("clock", "step 'clock' waits for a clock, and for no worker"),
        ("later", "step 'later' is pending: nothing of it waits for a worker"),
        ("child", f"'child' is run {child_id_of(run_id, 'child', 0)}: dispatch its steps"),
        ("child.0", f"'child.0' is run {child_id_of(run_id, 'child', 0)}: dispatch its steps"),
        ("list", "step 'list' has 2 parts under way: name one, as 'list.0'"),
        ("list.7", "'list.7' is not under way: nothing of it waits for a worker"),
    ):
        with pytest.raises(InvalidState) as refused:
            await again(engine, run_id, step)
        assert refused.value.message == why
    with pytest.raises(NotFound, match=f"run {run_id} has no step 'no'"):
        await again(engine, run_id, "no")
    assert await again(engine, run_id, "list.1") == runs.agent_run_id_of(run_id, "list.1")
    await engine.give(runs.CancelRun(run_id=run_id))
    with pytest.raises(InvalidState, match="step 'list' is part of a run that is cancelled"):
        await again(engine, run_id, "list.1")


async def test_what_a_person_ends_is_cancelled(engine: Engine, worker: PlayedWorker) -> None:
    steps: list[dict[str, Any]] = [
        {"key": "child", "run": {"plan": {"steps": [{"key": "x", "agent": "alpha"}]}}},
        {"key": "list", "agent": "beta", "each": {"over": "[1, 2]"}},
    ]  # fmt: skip
    run_id = await engine.start(plan=Plan.model_validate({"steps": steps}))
    await engine.settled()
    for step in ("child.0", "list.0"):
        await engine.give(ForceStep(run_id=run_id, step=step, result=1, person=ANN))
    await engine.give(SkipStep(run_id=run_id, step="list.1", person=ANN))
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["list"].result == [1, None]
    assert (await engine.run(child_id_of(run_id, "child", 0))).status == "cancelled"
    for part in ("list.0", "list.1"):
        assert (await engine.agent_run(runs.agent_run_id_of(run_id, part))).status == "cancelled"
    assert engine.checkpoints.parked == {}
