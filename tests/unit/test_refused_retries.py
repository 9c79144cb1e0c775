"""What a retry of a run is refused for, and what it has to wait for."""

from typing import Any

import pytest

from domain import runs
from domain.compensations import BeginCompensation
from domain.errors import (
    EffectInDoubt,
    EffectsTakenBack,
    InvalidCommand,
    InvalidState,
    NotFound,
    RunIsPaused,
    WorkOver,
)
from domain.invocations import ResolveInvocation
from domain.plans import Plan, Step
from domain.runs import CancelRun, PauseRun, ResumeRun
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.retries import do, fail, retry, status
from tests.kit.waiting import new_id


async def test_an_ambiguous_call_is_named_and_resolved_first(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    await worker.next("mail", "tool")
    engine.clock.advance(10)
    with pytest.raises(WorkOver, match="ambiguous"):  # its worker vanished
        await worker.next("mail", "tool")
    await alpha.fail()
    await engine.settled()
    assert (await engine.invocation(call)).status == "ambiguous"
    with pytest.raises(EffectInDoubt, match=f"nobody knows whether calls had their effect: resolve {call} first"):
        await retry(engine, run_id)
    await engine.give(ResolveInvocation(invocation_id=call, result=7, by="key:test", reason="it was sent"))
    await engine.settled()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    assert [(entry.key, entry.status, entry.result) for entry in again.given.journal.entries] == [("k", "ok", 7)]


# --- refusals -----------------------------------------------------------------------------------------------------------------


async def test_what_cannot_be_retried_is_refused(engine: Engine, worker: PlayedWorker) -> None:
    with pytest.raises(NotFound):
        await retry(engine, new_id())
    run_id = await engine.start("alpha", "beta")
    with pytest.raises(InvalidState, match="the run is running, and no step of it has failed: there is nothing to retry"):
        await retry(engine, run_id)
    with pytest.raises(InvalidState, match="the step 'alpha' is under way: only failed steps run again"):
        await retry(engine, run_id, "alpha")
    with pytest.raises(InvalidCommand, match="the run has no step 'delta'") as refused:
        await retry(engine, run_id, "delta")
    assert refused.value.pointer == "/steps/0"


async def test_a_paused_run_is_resumed_before_it_is_retried(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="a", agent="alpha", on_failure="continue"), Step(key="b", agent="beta")))
    run_id = await engine.start(plan=graph)
    await fail(worker, "alpha")
    await engine.give(PauseRun(run_id=run_id, reason="look"))
    with pytest.raises(RunIsPaused, match="the run is paused: resume it before you retry a step of it"):
        await retry(engine, run_id, "a")
    await engine.give(CancelRun(run_id=run_id))
    await engine.settled()
    await retry(engine, run_id)
    run = await engine.run(run_id)
    assert (run.status, run.paused, status(run)) == ("running", False, {"a": "scheduled", "b": "scheduled"})
    await do(worker, "alpha")
    assert (await engine.agent_run(runs.agent_run_id_of(run_id, "b"))).paused == 0


async def test_a_time_limit_holds_after_a_pause_of_a_retried_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(timeout_s=60))
    await fail(worker, "alpha")
    await engine.settled()
    await retry(engine, run_id)
    await (await worker.next("alpha")).delivery.ack()
    await engine.give(PauseRun(run_id=run_id))
    await engine.give(ResumeRun(run_id=run_id))
    await engine.advance(59)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(1)
    assert (await engine.run(run_id)).status == "failed"


async def test_the_step_at_which_the_run_failed_must_run_again(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="a", agent="alpha", on_failure="continue"), Step(key="b", agent="beta")))
    run_id = await engine.start(plan=graph)
    await fail(worker, "alpha")
    await fail(worker, "beta")
    await engine.settled()
    with pytest.raises(InvalidState, match="the run failed at the step 'b': it cannot go on unless that step runs again, too"):
        await retry(engine, run_id, "a")
    await retry(engine, run_id, "b")
    assert status(await engine.run(run_id)) == {"a": "failed", "b": "scheduled"}


async def test_a_run_whose_effects_were_taken_back_does_not_go_on(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", compensate="on_failure")
    await fail(worker, "alpha")
    await engine.settled()
    with pytest.raises(EffectsTakenBack, match="were taken back: it cannot go on from them"):
        await retry(engine, run_id)


async def test_compensation_and_retry_do_not_cross(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    await fail(worker, "alpha")
    await engine.settled()
    await engine.give(BeginCompensation(run_id=run_id, because="failed"))
    with pytest.raises(EffectsTakenBack):
        await retry(engine, run_id)
    assert (await engine.run(run_id)).status == "failed"


def plan_of(**step: Any) -> Plan:
    return Plan(steps=(Step(key="a", agent="alpha", **step),))
