"""Where retries, pauses, waits, budgets, approvals, taint and forks meet: each leaves the others what is theirs."""

from typing import Any
from uuid import UUID

import pytest

from application.budgets import paying
from application.runs.forking.fork import AskedFork, Forks
from application.workers.children import ChildRuns
from application.workflows import Workflows
from application.workflows.children import Children
from application.workflows.versions import Versions
from domain import agents, run_keys, runs
from domain.agent_runs import StartWait, SuspendAgentRun, child_id_of
from domain.allowances import allowance_of_run, question_id_of
from domain.amounts import BudgetLimits
from domain.approvals import DecideApproval
from domain.concurrency import Concurrency, key_id_of
from domain.errors import InvalidState, RunIsPaused, RunKeyBusy, TidelogError
from domain.failures import Failure
from domain.run_keys import Turn
from domain.runs import ByPerson, CancelRun, ForceStep, PauseRun, ResumeRun, RunBudget, SignalRun, TaintRun
from domain.starting import Target
from tests.kit import retries
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.memory import MemoryNames
from tests.kit.memory.schedules import NoStoredVersions
from tests.kit.waiting import TENANT, new_id, request_of
from tests.unit.test_firing_schedules import Clockwork
from tests.unit.test_run_keys import PROJECT
from tests.unit.test_run_keys import holder as key_of
from tests.unit.test_run_keys import start as start_with_key

TWO_CALLS = RunBudget(limits=BudgetLimits(calls=2))


@pytest.fixture(autouse=True)
def nobody_is_slow_to_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paying, "GRACE_S", 0.01)
    monkeypatch.setattr(paying, "RECALL_S", 0.1)


async def child(engine: Engine, claim: Claim, key: str = "c", agent: str = "beta") -> UUID:
    """The run that the agent starts."""
    known = MemoryNames(engine.log, agents.AgentRegistered)
    children = ChildRuns(engine.commands, Workflows(engine.commands, NoStoredVersions()), known)
    wait = StartWait(agent_run_id=claim.work_id, attempt=claim.attempt, key=key, kind="child")
    await children.start(claim.worker.caller, wait, agent=agent, workflow=None, version=None, input={"n": 1})
    return child_id_of(claim.work_id, key, (await engine.agent_run(claim.work_id)).reopened)


async def signalled(engine: Engine, claim: Claim, timeout_s: float | None = None) -> None:
    await engine.give(
        StartWait(agent_run_id=claim.work_id, attempt=claim.attempt, key="g", kind="signal", name="go", delay_s=timeout_s)
    )


async def suspend(engine: Engine, claim: Claim) -> None:
    seen = (await engine.agent_run(claim.work_id)).version
    await engine.give(SuspendAgentRun(agent_run_id=claim.work_id, attempt=claim.attempt, seen=seen))


async def retry(engine: Engine, run_id: UUID, *steps: str, **more: Any) -> None:
    await retries.retry(engine, run_id, *steps, **more)
    await engine.settled()


async def fork(engine: Engine, run_id: UUID, **asked: Any) -> UUID:
    forks = Forks(
        engine.commands, engine.feed, engine.histories, Children(engine.commands, Versions(engine.commands, NoStoredVersions()))
    )
    known, fork_id = MemoryNames(engine.log, agents.AgentRegistered), new_id()
    await forks.fork(
        request_of(TENANT, fork_id), run_id, AskedFork(**asked), fork_id=fork_id, known=known, admission=engine.admission
    )
    await engine.settled()
    return fork_id


# --- runs that agents start ---------------------------------------------------------------------------------------------------


async def test_a_run_that_an_agent_starts_draws_from_the_budget_of_its_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", budget=TWO_CALLS)
    await child(engine, await worker.next("alpha"))
    beta = await worker.next("beta")
    for number in range(3):
        await beta.call(f"k{number}", "add", a=number)
    assert (await engine.agent_run(beta.work_id)).status == "failed"
    assert (await engine.run(run_id)).budgets == (run_id,)


async def test_a_run_that_an_agent_starts_is_as_tainted_as_its_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await engine.run(run_id)
    await engine.another().give(TaintRun(run_id=run_id, invocation_id=new_id(), key="k"))
    assert (await engine.run(await child(engine, alpha))).tainted, "this process had not heard of it"


async def test_a_run_that_an_agent_started_is_paused_and_goes_on_with_its_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    child_id = await child(engine, alpha)
    await suspend(engine, alpha)
    beta = await worker.next("beta")
    await engine.give(PauseRun(run_id=run_id, by="key:ann"))
    paused = await engine.run(child_id)
    assert paused.pause_above is not None and paused.pause_above.parent_id == run_id
    assert (await engine.agent_run(beta.work_id)).paused == 1
    await engine.give(ResumeRun(run_id=run_id))
    assert not (await engine.run(child_id)).paused
    await (await worker.next("beta")).complete("B")
    await engine.settled()
    again = await worker.next("alpha")
    assert [(entry.key, entry.status, entry.result) for entry in again.given.journal.entries] == [("c", "ok", "B")]


@pytest.mark.parametrize("fresh", [False, True])
async def test_after_a_retry_an_agent_starts_another_run_and_waits_for_that(
    engine: Engine, worker: PlayedWorker, fresh: bool
) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    first = await child(engine, alpha)
    await alpha.fail()
    assert (await engine.run(first)).status == "cancelled"
    await retry(engine, run_id, fresh=fresh)
    again = await worker.next("alpha")
    second = await child(engine, again)
    assert second != first and (await engine.run(second)).status == "running"
    assert (await engine.agent_run(again.work_id)).open_waits[0].number == 1
    await engine.give(CancelRun(run_id=run_id))
    assert (await engine.run(second)).status == "cancelled"


# --- waits and pauses ---------------------------------------------------------------------------------------------------------


async def test_what_comes_in_a_pause_wakes_a_suspended_agent_after_it(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await signalled(engine, alpha)
    await suspend(engine, alpha)
    await engine.give(PauseRun(run_id=run_id))
    await engine.give(SignalRun(run_id=run_id, signal_id=new_id(), name="go", payload=7))
    assert (await engine.agent_run(alpha.work_id)).status == "requested"
    with pytest.raises(RunIsPaused):
        await worker.next("alpha")
    await engine.give(ResumeRun(run_id=run_id))
    again = await worker.next("alpha")
    assert [(entry.key, entry.result) for entry in again.given.journal.entries] == [("g", 7)]


async def test_a_suspended_agent_that_nothing_has_come_for_stays_so_after_a_pause(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await signalled(engine, alpha)
    await suspend(engine, alpha)
    await engine.give(PauseRun(run_id=run_id))
    await engine.give(ResumeRun(run_id=run_id))
    assert await worker.nothing_to_take("alpha")
    assert (await engine.agent_run(alpha.work_id)).status == "suspended"


async def test_the_time_of_a_wait_before_a_retry_does_not_end_the_wait_after_it(engine: Engine, worker: PlayedWorker) -> None:
    steps = [{"key": "a", "agent": "alpha", "on_failure": "continue"}, {"key": "b", "agent": "beta"}]
    run_id = await engine.start(plan=runs.Plan.model_validate({"steps": steps}))
    alpha = await worker.next("alpha")
    await signalled(engine, alpha, timeout_s=60)
    await alpha.fail()
    await engine.advance(50)
    await retry(engine, run_id, "a")
    again = await worker.next("alpha")
    await signalled(engine, again, timeout_s=60)
    await engine.advance(30)
    assert (await engine.agent_run(again.work_id)).waits, "80 s after the first wait, 30 s after the second"
    await engine.advance(31)
    state = await engine.agent_run(again.work_id)
    assert not state.waits and state.journal["g"].error is not None


# --- taint, budgets and forks of retried runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("with_child", [False, True])
async def test_untrusted_output_that_came_after_the_end_taints_the_retried_run(engine: Engine, with_child: bool) -> None:
    worker = engine.worker()
    await worker.register("alpha", tools_={"web": {"untrusted_output": True}})
    inner: dict[str, Any] = {"key": "a", "agent": "alpha"}
    outer: dict[str, Any] = {"key": "c", "run": {"plan": {"steps": [inner]}}}
    run_id = await engine.start(plan=runs.Plan.model_validate({"steps": [outer if with_child else inner]}))
    alpha = await worker.next("alpha")
    await alpha.call("k", "web")
    web = await worker.next("web", "tool")
    await engine.give(CancelRun(run_id=run_id))
    await engine.settled()
    await web.complete("what a stranger says")
    assert not (await engine.run(run_id)).tainted, "the end of a run is its last event"
    await retry(engine, run_id)
    again = await worker.next("alpha")
    assert [entry.result for entry in again.given.journal.entries] == ["what a stranger says"]
    assert (await engine.run(run_id)).tainted
    assert (await engine.run(again.given.run_id)).tainted


async def test_a_retried_run_has_what_its_budget_has_left(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", budget=TWO_CALLS)
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    await (await worker.next("add", "tool")).fail()
    await engine.settled()
    await alpha.fail()
    await engine.settled()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    state = await engine.agent_run(again.work_id)
    assert not state.purses and not state.reservations
    await again.call("k", "add", a=1)
    await engine.settled()
    assert (await engine.agent_run(again.work_id)).status == "running"
    await again.call("l", "add", a=2)
    assert (await engine.agent_run(again.work_id)).status == "failed", "the third call of two"


async def test_a_fork_has_the_budget_that_was_given_to_its_run_anew(engine: Engine, worker: PlayedWorker) -> None:
    inner = {"steps": [{"key": "x", "agent": "alpha"}]}
    plan = runs.Plan.model_validate({"steps": [{"key": "c", "run": {"plan": inner}}]})
    run_id = await engine.start(plan=plan, budget=TWO_CALLS)
    await (await worker.next("alpha")).fail()
    fork_id = await fork(engine, run_id)
    assert (await engine.run(fork_id)).budgets == (fork_id,)
    alpha = await worker.next("alpha")
    assert alpha.given.run_id == runs.child_id_of(fork_id, "c", 0)
    assert (await engine.run(alpha.given.run_id)).budgets == (fork_id,)
    for number in range(3):
        await alpha.call(f"k{number}", "add", a=number)
    assert (await engine.agent_run(alpha.work_id)).status == "failed"


@pytest.mark.parametrize(("fresh", "left"), [(False, ["s"]), (True, [])])
async def test_a_fork_of_a_retried_run_takes_over_what_the_retry_has_kept(
    engine: Engine, worker: PlayedWorker, fresh: bool, left: list[str]
) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.step("s", 1)
    await alpha.call("k", "mail")
    await (await worker.next("mail", "tool")).fail()
    await engine.settled()
    await alpha.fail()
    await engine.settled()
    await retry(engine, run_id, fresh=fresh)
    await (await worker.next("alpha")).call("k", "mail")
    await engine.settled()
    await fork(engine, run_id, position=engine.log.head)
    claim = await worker.next("alpha")
    assert [entry.key for entry in claim.given.journal.entries] == left


async def test_a_failed_agent_whose_wait_had_failed_is_forked(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.step("s", 1)
    await signalled(engine, alpha, timeout_s=5)
    await engine.advance(6)
    await alpha.fail()
    await engine.settled()
    await fork(engine, run_id)
    claim = await worker.next("alpha")
    assert [entry.key for entry in claim.given.journal.entries] == ["s"], "it waits once more"


# --- keys, deadlines, schedules and bulk actions ------------------------------------------------------------------------------

PERSON = ByPerson(by="key:ann", reason="known")


@pytest.mark.parametrize("queued", [False, True])
async def test_a_run_whose_steps_people_have_all_ended_still_has_its_deadline(
    engine: Engine, worker: PlayedWorker, queued: bool
) -> None:
    first = await start_with_key(engine)
    run_id = await start_with_key(engine, deadline_s=60, key="deploy" if queued else "other")
    if not queued:
        await engine.give(PauseRun(run_id=run_id))
    await engine.give(ForceStep(run_id=run_id, step="alpha", result=1, person=PERSON))
    await engine.advance(61)
    run = await engine.run(run_id)
    assert (run.status, engine.checkpoints.parked) == ("failed", {})
    [failed] = [e for e in engine.log.streams[run_id] if e.topic == "run.failed"]
    assert engine.catalog.registry.decoded(failed).step == "alpha"
    await engine.give(CancelRun(run_id=first))
    assert (await key_of(engine)).holder is None


async def test_nothing_of_a_queued_run_begins_by_a_retry(engine: Engine, worker: PlayedWorker) -> None:
    first = await start_with_key(engine)
    steps = [{"key": "a", "agent": "beta", "on_failure": "continue"}, {"key": "b", "agent": "beta", "after": ["a"]}]
    run_id = await start_with_key(engine, plan=runs.Plan.model_validate({"steps": steps}))
    error = Failure(type="No", message="no", kind="permanent")
    await engine.give(ForceStep(run_id=run_id, step="a", error=error, person=PERSON))
    with pytest.raises(
        InvalidState, match=r"^the run waits for its key, and nothing of it has begun: retry a step of it when it has$"
    ):
        await retry(engine, run_id, "a")
    assert await worker.nothing_to_take("beta")
    await engine.give(CancelRun(run_id=first))
    await engine.settled()
    await retry(engine, run_id, "a")
    assert (await engine.run(run_id)).steps["a"].status == "scheduled"


@pytest.mark.parametrize("cancelled", [1, 3])
async def test_a_key_is_free_when_those_who_have_and_want_it_were_cancelled(
    engine: Engine, worker: PlayedWorker, cancelled: int
) -> None:
    """The saga manager stands still here: the key has not heard of the ends."""
    all_of_them = [await start_with_key(engine) for _ in range(3)]
    for task in engine.tasks:
        task.cancel()
    for run_id in all_of_them[:cancelled]:
        await engine.give(CancelRun(run_id=run_id))
    if cancelled == 1:
        with pytest.raises(RunKeyBusy):
            await start_with_key(engine, "reject")
    else:
        newest = await start_with_key(engine, "reject")
        state = (await engine.commands.load(run_keys.DECIDER, TENANT, key_id_of(TENANT, PROJECT, "deploy"))).state
        assert (state.holder.run_id, state.waiting) == (newest, ())
        assert [engine.of_stream(each).count("run.begun") for each in all_of_them] == [1, 0, 0]
    engine.tasks.clear()


@pytest.mark.parametrize("now", [False, True])
async def test_a_schedule_that_cancels_its_run_of_before_gets_the_key_of_that(now: bool) -> None:
    """Nobody tells the key here that the run of before has ended."""
    works = await Clockwork().set_up()
    start = Target(agent="a", concurrency=Concurrency(key="k", on_busy="reject"))
    id = await works.create(start=start, rules={"overlap": "cancel"})
    async with works.running():
        await works.pass_(60)
        if not now:
            await works.pass_(60)
    if now:
        await works.use.run_now(request_of(TENANT), "s", new_id(), works.clock.now())
    first, second = works.started()
    assert "schedule.skipped" not in works.engine.of_stream(id)
    assert works.engine.of_stream(first)[-1] == "run.cancelled"
    assert "run.step_scheduled" in works.engine.of_stream(second)


async def test_a_queued_run_is_forked_when_nobody_has_the_key(engine: Engine, worker: PlayedWorker) -> None:
    first, queued = await start_with_key(engine), await start_with_key(engine)
    await worker.next("alpha")
    at = await engine.settled()
    with pytest.raises(RunKeyBusy, match=f"run {first} holds"):
        await fork(engine, queued, position=at)
    for run_id in (first, queued):
        await engine.give(CancelRun(run_id=run_id))
    fork_id = await fork(engine, queued, position=at)
    run = await engine.run(fork_id)
    assert (run.queued, run.steps["alpha"].status) == (False, "scheduled")
    assert (await key_of(engine)).holder == Turn(run_id=fork_id)
    await (await worker.next("alpha")).complete()
    assert (await key_of(engine)).holder is None


async def test_a_run_that_was_replaced_is_retried_when_its_successor_has_ended(engine: Engine, worker: PlayedWorker) -> None:
    first = await start_with_key(engine)
    held = await worker.next("alpha")
    newest = await start_with_key(engine, "replace")
    await engine.settled()
    with pytest.raises(RunKeyBusy, match=f"run {newest} holds"):
        await retry(engine, first)
    await (await worker.next("alpha")).complete()
    await engine.settled()
    await retry(engine, first)
    with pytest.raises(TidelogError):
        await held.complete("of a turn that is over")
    await (await worker.next("alpha")).complete()
    assert ((await engine.run(first)).status, (await key_of(engine)).holder) == ("completed", None)


async def test_a_paused_run_gets_its_key_and_keeps_it_until_it_has_ended(engine: Engine, worker: PlayedWorker) -> None:
    first, second, third = [await start_with_key(engine) for _ in range(3)]
    await worker.next("alpha")
    await engine.give(PauseRun(run_id=first))
    await engine.give(PauseRun(run_id=second))
    await engine.give(CancelRun(run_id=first))
    assert (await key_of(engine)).holder == Turn(run_id=second)
    assert (await engine.run(third)).queued and await worker.nothing_to_take("alpha")
    await engine.give(CancelRun(run_id=second))
    assert not (await engine.run(third)).queued


async def test_a_reason_of_blanks_still_gives_more_of_a_budget(engine: Engine, worker: PlayedWorker) -> None:
    limits = RunBudget(limits=BudgetLimits(calls=1), on_spent="ask")
    run_id = await engine.start("alpha", budget=limits)
    alpha = await worker.next("alpha")
    await alpha.call("one", "add", a=1)
    await (await worker.next("add", "tool")).complete(1)
    await engine.settled()
    await alpha.call("two", "add", a=1)
    await engine.settled()
    about = question_id_of(allowance_of_run(run_id), 1)
    await engine.give(DecideApproval(approval_id=about, decision="approve", by="key:ada", role="operator", reason="  "))
    await engine.settled()
    assert engine.checkpoints.parked == {} and not (await engine.agent_run(alpha.work_id)).unpaid
