"""Whole runs through the product's own catalog, in memory: from the start through steps, calls, mail and timers to the end."""

import pytest

from domain import runs
from domain.errors import NotFound, WorkOver
from domain.runs import CancelRun, Plan, Step, parallel
from tests.kit.engine import RETRY, Claim, Engine, PlayedWorker, plan


async def started(engine: Engine, worker: PlayedWorker) -> Claim:
    await engine.start("alpha", "beta")
    return await worker.next("alpha")


# --- plans ----------------------------------------------------------------------------------------------------------------


async def test_a_sequence_hands_results_on_and_ends(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta", input={"q": 1})
    alpha = await worker.next("alpha")
    assert (alpha.given.input, alpha.given.results, alpha.given.missing, alpha.given.peers) == ({"q": 1}, {}, [], ["beta"])
    assert (alpha.given.run_id, alpha.given.step_key, alpha.given.agent, alpha.attempt) == (run_id, "alpha", "alpha", 1)
    assert await worker.nothing_to_take("beta"), "a step waits for those before it"
    await alpha.complete({"found": 3})
    beta = await worker.next("beta")
    assert beta.given.results == {"alpha": {"found": 3}}
    await beta.complete("done")
    run = await engine.run(run_id)
    assert run.status == "completed" and run.steps["beta"].result == "done"
    assert engine.topics(run_id) == [
        "run.started", "run.step_scheduled", "agent_run.requested", "agent_run.claimed", "agent_run.completed",
        "run.step_completed", "run.step_scheduled", "agent_run.requested", "agent_run.claimed", "agent_run.completed",
        "run.step_completed", "run.completed",
    ]  # fmt: skip


async def test_members_run_side_by_side_and_a_failed_one_is_missed(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=parallel(("alpha", "beta"), "gamma"))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    await alpha.fail()
    assert await worker.nothing_to_take("gamma")
    await beta.complete("b")
    gamma = await worker.next("gamma")
    assert (gamma.given.results, gamma.given.missing) == ({"beta": "b"}, ["alpha"])
    await gamma.complete()
    run = await engine.run(run_id)
    assert run.status == "completed" and run.missing == ("alpha",)


async def test_a_failure_ends_the_run_and_what_is_under_way(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta"), Step(key="c", agent="gamma", after=("a",))))
    run_id = await engine.start(plan=graph)
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    call = await beta.call("k", "add", a=1)
    await alpha.fail()
    run = await engine.run(run_id)
    assert run.status == "failed" and run.steps["c"].status == "pending"
    assert (await engine.agent_run(beta.work_id)).status == "cancelled"
    assert (await engine.invocation(call)).status == "cancelled", "its open calls with it"
    with pytest.raises(WorkOver):
        await beta.complete()


async def test_the_order_of_ends_of_a_wide_plan_does_not_matter(engine: Engine, worker: PlayedWorker) -> None:
    steps = tuple(Step(key=f"m{n}", agent="alpha") for n in range(20))
    run_id = await engine.start(plan=Plan(steps=(*steps, Step(key="z", agent="beta", after=tuple(s.key for s in steps)))))
    claims = [await worker.next("alpha") for _ in steps]
    for claim in claims[::-1]:
        await claim.complete(claim.given.step_key)
    beta = await worker.next("beta")
    assert beta.given.results == {step.key: step.key for step in steps}
    await beta.complete()
    assert (await engine.run(run_id)).status == "completed"


async def test_a_cancelled_run_takes_its_parts_along(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "add", a=1)
    await engine.give(CancelRun(run_id=run_id, reason="enough"))
    run = await engine.run(run_id)
    assert (run.status, run.cancel_reason) == ("cancelled", "enough")
    assert [event.state for event in engine.log.streams[alpha.work_id] if event.topic == "agent_run.cancelled"]
    assert (await engine.invocation(call)).status == "cancelled"
    with pytest.raises(WorkOver):
        await alpha.step("late")
    with pytest.raises(WorkOver):
        await worker.claim(await worker.take("add", "tool"))


async def test_runs_do_not_touch_one_another(engine: Engine, worker: PlayedWorker) -> None:
    first, second = await engine.start("alpha"), await engine.start("alpha")
    one, other = await worker.next("alpha"), await worker.next("alpha")
    await other.complete("second")
    assert (await engine.run(second)).status == "completed"
    assert (await engine.run(first)).status == "running"
    await one.fail()
    assert [(await engine.run(run_id)).status for run_id in (first, second)] == ["failed", "completed"]


# --- time -----------------------------------------------------------------------------------------------------------------


async def test_a_failed_attempt_is_followed_by_the_next_until_they_are_used_up(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(retry=RETRY))
    for attempt in (1, 2, 3):
        claim = await worker.next("alpha")
        assert (claim.attempt, claim.delivery.item.dispatch) == (attempt, attempt)
        await claim.fail("transient")
        await engine.advance(RETRY.max_s)
    run = await engine.run(run_id)
    assert run.status == "failed"
    assert engine.topics(run_id).count("agent_run.retry_scheduled") == 2
    assert engine.timers.rows == {}


async def test_whether_another_attempt_follows_is_the_same_answer_for_a_repeat(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start(plan=plan(retry=RETRY))
    claim = await worker.next("alpha")
    assert [await claim.fail("transient"), await claim.fail("transient")] == [True, True]
    await engine.advance(RETRY.max_s)
    last = await worker.next("alpha")
    assert [await last.fail("permanent"), await last.fail("permanent"), await claim.fail("transient")] == [False, False, True]


async def test_a_step_that_takes_too_long_fails_at_its_time(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(timeout_s=60, retry=RETRY))
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "add", a=1)
    await engine.advance(59.9)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(0.1)
    assert (await engine.run(run_id)).status == "failed"
    assert (await engine.invocation(call)).status == "cancelled"
    with pytest.raises(WorkOver):
        await alpha.complete()


async def test_the_time_of_a_step_goes_over_all_its_attempts(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(timeout_s=60, retry=RETRY))
    await (await worker.next("alpha")).fail("transient")
    await engine.advance(20)
    await worker.next("alpha")
    await engine.advance(40)
    assert (await engine.run(run_id)).status == "failed"


async def test_a_step_in_time_takes_its_timer_along(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan(timeout_s=60))
    claim = await worker.next("alpha")
    assert len(engine.timers.rows) == 1
    await claim.complete()
    await engine.settled()
    assert engine.timers.rows == {}
    head = await engine.advance(3_600)
    assert engine.log.head == head and (await engine.run(run_id)).status == "completed"


# --- processes ------------------------------------------------------------------------------------------------------------


async def test_lost_work_is_put_on_the_queue_again_and_nothing_else(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start("alpha")
    finished = await engine.start("beta")
    await (await worker.next("beta")).complete()
    await engine.run(finished)
    engine.queue.entries.clear()
    await engine.reconciler.sweep()
    assert await worker.nothing_to_take("alpha"), "too young: it may be on its way"
    engine.clock.advance(60)
    for _ in range(3):
        await engine.reconciler.sweep()
    await (await worker.next("alpha")).complete()
    assert await worker.nothing_to_take("alpha") and await worker.nothing_to_take("beta")


async def test_two_processes_see_what_the_other_one_did(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.step("one", 1)
    elsewhere = engine.another()
    moved = Claim(elsewhere.worker(), "agent", alpha.work_id, alpha.attempt, alpha.delivery, alpha.view, alpha.outcome)
    await moved.step("two", 2)
    assert [entry.key for entry in (await alpha.journal()).entries] == ["one", "two"]
    await moved.complete("there")
    with pytest.raises(WorkOver):
        await alpha.step("three")
    assert (await engine.run(run_id)).status == "completed"


async def test_reading_the_whole_log_again_changes_nothing(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=parallel(("alpha", "beta"), "gamma"))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    await alpha.send("s", "beta", 1)
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).complete(1)
    await alpha.complete()
    await beta.complete()
    await (await worker.next("gamma")).complete()
    head = (await engine.settled(), (await engine.run(run_id)).status)[0]
    engine.checkpoints.rows.clear()
    again = engine.another()
    async with again.running():
        assert await again.settled() == head
    assert engine.checkpoints.parked == {}


async def test_another_tenant_sees_nothing_of_a_run(engine: Engine, worker: PlayedWorker) -> None:
    alpha = await started(engine, worker)
    stranger = engine.worker(tenant_id=runs.agent_run_id_of(alpha.work_id, "tenant"))
    theirs = Claim(stranger, "agent", alpha.work_id, alpha.attempt, alpha.delivery, None, alpha.outcome)
    for asking in (theirs.step("k"), theirs.complete(), theirs.journal(), theirs.call("k", "add", a=1)):
        with pytest.raises(NotFound):
            await asking
