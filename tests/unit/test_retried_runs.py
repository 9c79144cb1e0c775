"""Retries of whole runs, in memory: what failed runs again, what was finished is not done again, and the run comes to its end."""

from typing import Any

import pytest

from application.runs.admission import RunAdmission
from application.runs.retry import retry_run
from domain import runs
from domain.errors import (
    InvalidCommand,
    InvalidState,
    RunOfParent,
    StillEnding,
    TooManyOpenRuns,
)
from domain.failures import Failure
from domain.invocations import FailInvocation
from domain.kernel import who_asked
from domain.plans import Adaptive, AgentRef, ChildRun, Each, Gather, Plan, Repeat, Step, Wait
from domain.runs import CancelRun, RetryRun
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryLog, MemoryOpenRuns
from tests.kit.retries import do, fail, retry, status
from tests.kit.waiting import TENANT, new_id, request_of

# --- a step that is one agent run ---------------------------------------------------------------------------------------------


async def test_a_failed_run_goes_on_with_what_failed_and_keeps_what_was_done(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta", "gamma")
    await do(worker, "alpha", 1)
    failed = await fail(worker, "beta")
    assert (await engine.run(run_id)).status == "failed"
    await retry(engine, run_id)
    run = await engine.run(run_id)
    assert (run.status, run.retries, status(run)) == ("running", 1, {"alpha": "completed", "beta": "scheduled", "gamma": "pending"})
    again = await do(worker, "beta", 2)
    assert again.work_id == failed.work_id and again.attempt == failed.attempt + 1 and again.given.results == {"alpha": 1}
    await do(worker, "gamma", 3)
    run = await engine.run(run_id)
    assert (run.status, run.steps["gamma"].result) == ("completed", 3)
    assert engine.of_stream(run_id)[-4:] == ["run.step_completed", "run.step_scheduled", "run.step_completed", "run.completed"]


async def test_the_journal_is_taken_over_and_a_failed_call_is_made_again(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.step("parse", {"n": 1})
    good, bad = await alpha.call("good", "add", a=1), await alpha.call("bad", "add", a=2)
    await (await worker.next("add", "tool")).complete(10)
    await (await worker.next("add", "tool")).fail()
    await engine.settled()
    await alpha.fail()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    entries = {entry.key: (entry.status, entry.result) for entry in again.given.journal.entries}
    assert entries == {"parse": ("ok", {"n": 1}), "good": ("ok", 10)}, "without the call that failed"
    assert await again.call("good", "add", a=1) == good, "a call that was made is the same call"
    anew = await again.call("bad", "add", a=2)
    assert anew != bad
    await (await worker.next("add", "tool")).complete(20)
    await again.complete()
    run = await engine.run(run_id)
    assert run.status == "completed"
    assert (await engine.invocation(bad)).status == "failed" and (await engine.invocation(anew)).status == "succeeded"


async def test_from_nothing_everything_of_the_agent_is_done_again(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.step("parse", 1)
    call = await alpha.call("good", "add", a=1)
    await (await worker.next("add", "tool")).complete(10)
    await engine.settled()
    await alpha.fail()
    await retry(engine, run_id, fresh=True)
    again = await worker.next("alpha")
    assert again.given.journal.entries == []
    assert await again.call("good", "add", a=1) != call


async def test_a_call_without_a_known_outcome_must_be_resolved_first(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register("alpha", tools_={"once": {"idempotent": False}})
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "once")
    await worker.next("once", "tool")
    await alpha.fail()
    await engine.settled()
    with pytest.raises(StillEnding, match=f"the call {call} is still ending"):
        await retry(engine, run_id)


async def test_new_work_is_for_whom_the_run_was_started(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta", request=request_of()._replace(on_behalf_of="user:ada"))
    await fail(worker, "alpha")
    await engine.settled()
    await retry(engine, run_id)
    await do(worker, "alpha")
    assert (await worker.next("beta")).given.on_behalf_of == "user:ada"
    events = [event for event in engine.log.events if event.root_id == run_id]
    assert {who_asked(event.metadata)[1] for event in events} == {"user:ada"}


async def test_a_repeat_gets_the_first_answer(engine: Engine, worker: PlayedWorker) -> None:
    run_id, request = await engine.start("alpha"), request_of()._replace(repeatable=True)
    await fail(worker, "alpha")
    await engine.settled()
    command = RetryRun(run_id=run_id, reason="mended")
    first, again = [await retry_run(engine.commands, engine.feed, request, command, lambda request: request) for _ in range(2)]
    assert (again.duplicate, again.versions[run_id], again.position) == (True, first.versions[run_id], first.position)
    assert (await engine.run(run_id)).retries == 1
    await fail(worker, "alpha")
    await engine.settled()
    late = await retry_run(engine.commands, engine.feed, request, command, lambda request: request)
    assert late.duplicate and (await engine.run(run_id)).retries == 1


async def test_a_run_that_had_ended_is_one_more_open_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id, told = await engine.start("alpha"), list[str]()
    await fail(worker, "alpha")
    await engine.settled()
    command = RetryRun(run_id=run_id, reason="mended")
    full = RunAdmission(MemoryOpenRuns(MemoryLog()), most=0, refused=told.append)
    with pytest.raises(TooManyOpenRuns):
        await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request, admission=full)
    assert (await engine.run(run_id)).retries == 0 and told == ["too-many-open-runs"]
    room = RunAdmission(MemoryOpenRuns(MemoryLog()), most=1)
    await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request, admission=room)
    assert (await engine.run(run_id)).retries == 1
    with pytest.raises(TooManyOpenRuns), room.admitted(TENANT):
        pass
    await full.close()
    await room.close()


async def test_a_run_that_goes_on_is_retried_whatever_is_open(engine: Engine, worker: PlayedWorker) -> None:
    plan = Plan(steps=(Step(key="a", agent="alpha", on_failure="continue"), Step(key="b", agent="beta")))
    run_id, full = await engine.start(plan=plan), RunAdmission(MemoryOpenRuns(MemoryLog()), most=0)
    await fail(worker, "alpha")
    await engine.settled()
    command = RetryRun(run_id=run_id, steps=("a",), reason="mended")
    await retry_run(engine.commands, engine.feed, request_of(), command, lambda request: request, admission=full)
    assert (await engine.run(run_id)).retries == 1
    await full.close()


# --- plans --------------------------------------------------------------------------------------------------------------------


async def test_a_degraded_run_goes_on_with_what_it_had_missed(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="alpha", agent="alpha", on_failure="continue"), Step(key="beta", agent="beta")))
    run_id = await engine.start(plan=graph)
    await fail(worker, "alpha")
    await do(worker, "beta")
    assert (await engine.run(run_id)).missing == ("alpha",)
    await retry(engine, run_id)
    await do(worker, "alpha", 1)
    run = await engine.run(run_id)
    assert (run.status, run.missing, run.steps["alpha"].result) == ("completed", (), 1)


async def test_a_cancelled_run_goes_on_where_it_was(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta"), Step(key="c", agent="gamma", after=("a",))))
    run_id = await engine.start(plan=graph)
    alpha, _ = await worker.next("alpha"), await do(worker, "beta")
    await alpha.step("parse", 1)
    await engine.give(CancelRun(run_id=run_id, reason="too early"))
    await engine.settled()
    await retry(engine, run_id)
    run = await engine.run(run_id)
    assert (run.status, run.cancel_reason, status(run)) == ("running", None, {"a": "scheduled", "b": "completed", "c": "pending"})
    again = await do(worker, "alpha")
    assert [entry.key for entry in again.given.journal.entries] == ["parse"]
    await do(worker, "gamma")
    assert (await engine.run(run_id)).status == "completed"


async def test_steps_that_were_skipped_because_of_a_failure_are_looked_at_again(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(
        steps=(
            Step(key="a", agent="alpha", on_failure="continue"),
            Step(key="b", agent="beta", after=("a",), when="steps.a.status == 'completed'"),
            Step(key="c", agent="gamma", after=("a",), when="steps.a.status == 'failed'"),
            Step(key="d", agent="gamma", after=("b",)),
            Step(key="e", agent="beta", after=("a",), on_failure="continue"),
        )
    )
    run_id = await engine.start(plan=graph)
    await fail(worker, "alpha")
    await do(worker, "gamma", "cleaned up")
    run = await engine.run(run_id)
    ends = {"a": "failed", "b": "skipped", "c": "completed", "d": "skipped", "e": "failed"}
    assert (run.status, status(run)) == ("completed", ends)
    await retry(engine, run_id, "a")
    run = await engine.run(run_id)
    assert status(run) == {"a": "scheduled", "b": "pending", "c": "completed", "d": "pending", "e": "pending"}
    await do(worker, "alpha")
    await do(worker, "beta")
    await do(worker, "beta")
    await do(worker, "gamma")
    run = await engine.run(run_id)
    assert (run.status, set(status(run).values()), run.steps["c"].result) == ("completed", {"completed"}, "cleaned up")


async def test_only_the_items_of_a_list_that_did_not_complete_run_again(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(each=Each(over="input", max_parallel=2)), input=[10, 20, 30, 40])
    await do(worker, "alpha", "first")
    second, third = await worker.next("alpha"), await worker.next("alpha")
    await second.fail()
    assert (await engine.run(run_id)).status == "failed"
    await retry(engine, run_id)
    again = [await worker.next("alpha"), await worker.next("alpha")]
    assert {claim.work_id for claim in again} == {second.work_id, third.work_id}
    assert sorted(claim.given.input for claim in again) == [20, 30]
    for claim in again:
        await claim.complete(claim.given.input)
    await do(worker, "alpha", 40)
    run = await engine.run(run_id)
    assert (run.status, run.steps["a"].result) == ("completed", ["first", 20, 30, 40])


async def test_a_loop_goes_on_with_the_time_that_failed(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(repeat=Repeat(times=3)), input=1)
    await do(worker, "alpha", "one")
    await fail(worker, "alpha")
    await retry(engine, run_id)
    again = await do(worker, "alpha", "two")
    assert (again.given.step_key, again.given.input) == ("a.1", "one")
    await do(worker, "alpha", "three")
    run = await engine.run(run_id)
    assert (run.status, run.steps["a"].result) == ("completed", "three")


async def test_an_adaptive_step_goes_on_with_the_round_that_failed(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(adaptive=Adaptive(agents=(AgentRef(agent="beta"),))), input=1)
    await do(worker, "alpha", {"steps": [{"key": "read", "agent": "beta"}]})
    await fail(worker, "beta")
    assert (await engine.run(run_id)).status == "failed"
    await retry(engine, run_id)
    await do(worker, "beta", "read it")
    await fail(worker, "alpha")
    await retry(engine, run_id)
    again = await do(worker, "alpha", {"result": "all"})
    assert again.given.input == {"input": 1, "round": 2, "results": {"read": "read it"}}
    run = await engine.run(run_id)
    assert (run.status, run.steps["a"].result, run.retries) == ("completed", "all", 2)


async def test_a_child_run_goes_on_with_its_parent(engine: Engine, worker: PlayedWorker) -> None:
    body = Plan(steps=(Step(key="x", agent="alpha"), Step(key="y", agent="beta", after=("x",))))
    run_id = await engine.start(plan=Plan(steps=(Step(key="a", run=ChildRun(plan=body.model_dump(mode="json"))),)))
    await do(worker, "alpha", 1)
    await fail(worker, "beta")
    child_id = runs.child_id_of(run_id, "a", 0)
    assert ((await engine.run(run_id)).status, (await engine.run(child_id)).status) == ("failed", "failed")
    with pytest.raises(RunOfParent, match=f"of the step 'a' of the run {run_id}") as refused:
        await retry(engine, child_id)
    assert refused.value.run_id == run_id
    over = await engine.run(child_id)
    for fresh in (False, True):  # a parent that asks for the run anew means the same
        start = runs.StartRun(
            run_id=child_id, project_id=new_id(), plan=body, input=None, parent=over.parent, again=1, fresh=fresh
        )  # fmt: skip
        again = runs.RetryRun(run_id=child_id, parent_id=run_id, fresh=fresh)
        assert runs.decide(over, start) == runs.decide(over, again) != []
    await retry(engine, run_id)
    assert status(await engine.run(child_id)) == {"x": "completed", "y": "scheduled"}
    await do(worker, "beta", 2)
    run, child = await engine.run(run_id), await engine.run(child_id)
    assert (run.status, child.status, run.steps["a"].result, child.retries) == ("completed", "completed", 2, 1)


async def test_results_are_gathered_anew(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(
        steps=(
            Step(key="a", agent="alpha", on_failure="continue"),
            Step(key="b", agent="beta", on_failure="continue"),
            Step(key="c", agent="gamma", on_failure="continue"),
            Step(key="g", after=("a", "b", "c"), gather=Gather(mode="any", count=2)),
        )
    )
    run_id = await engine.start(plan=graph)
    await do(worker, "alpha", 1)
    await fail(worker, "beta")
    gamma = await worker.next("gamma")
    await gamma.fail()
    assert status(await engine.run(run_id))["g"] == "failed"
    await retry(engine, run_id)
    await do(worker, "beta", 2)
    run = await engine.run(run_id)
    assert (run.status, run.steps["g"].result, run.steps["c"].status) == ("completed", {"a": 1, "b": 2}, "skipped")


async def test_votes_are_counted_anew(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(
        steps=(
            Step(key="a", agent="alpha"),
            Step(key="b", agent="beta"),
            Step(key="g", after=("a", "b"), gather=Gather(mode="vote", by="result.vote")),
        )
    )
    run_id = await engine.start(plan=graph)
    await do(worker, "alpha", {"vote": "yes"})
    await do(worker, "beta", {})
    assert (await engine.run(run_id)).status == "failed", "a result has no vote"
    with pytest.raises(InvalidState, match="the step 'b' is completed: only failed steps run again"):
        await retry(engine, run_id, "b")
    await retry(engine, run_id)
    run = await engine.run(run_id)
    assert (run.status, run.retries) == ("failed", 1), "it fails as before, and does not hang"


async def test_a_wait_that_was_interrupted_begins_once_more(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(steps=(Step(key="w", wait=Wait(s=60)), Step(key="a", agent="alpha")))
    run_id = await engine.start(plan=graph)
    await fail(worker, "alpha")
    await engine.advance(59)
    await retry(engine, run_id)
    await do(worker, "alpha")
    await engine.advance(59)
    assert (await engine.run(run_id)).status == "running"
    await engine.advance(1)
    assert (await engine.run(run_id)).status == "completed"


async def test_a_step_begins_with_its_first_agent_and_falls_back_again(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(fallbacks=(AgentRef(agent="beta"),)))
    first, second = await fail(worker, "alpha"), await fail(worker, "beta")
    await retry(engine, run_id)
    again = await fail(worker, "alpha")
    assert (again.work_id, again.attempt) == (first.work_id, 2)
    other = await do(worker, "beta", 2)
    assert (other.work_id, other.attempt) == (second.work_id, 2)
    assert (await engine.run(run_id)).steps["a"].result == 2


async def test_a_time_limit_counts_from_the_retry(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=plan_of(timeout_s=60))
    await (await worker.next("alpha")).delivery.ack()
    await engine.advance(60)
    assert (await engine.run(run_id)).status == "failed"
    await retry(engine, run_id)
    again = await worker.next("alpha")
    await engine.advance(59)
    await again.complete()
    assert (await engine.run(run_id)).status == "completed"


async def test_a_retry_may_ask_for_a_version(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta")
    await fail(worker, "alpha")
    with pytest.raises(InvalidCommand, match="no agent of the step 'beta' runs again"):
        await retry(engine, run_id, versions={"beta": "2"})
    await retry(engine, run_id, versions={"alpha": "2"})
    again = await worker.next("alpha")
    assert (again.given.agent_version, again.given.version_asked) == ("2", True)


async def test_mail_that_was_received_stays_received_unless_all_begins_from_nothing(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start(plan=Plan(steps=(Step(key="a", agent="alpha"), Step(key="b", agent="beta"))))
    alpha, beta = await worker.next("alpha"), await worker.next("beta")
    sent = await beta.send("m", "a", "hello")
    await alpha.receive("r", sent)
    await beta.complete()
    await alpha.fail()
    await engine.settled()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    assert ([entry.key for entry in again.given.journal.entries], again.given.journal.mailbox) == (["r"], [])
    await again.fail()
    await engine.settled()
    await retry(engine, run_id, fresh=True)
    again = await worker.next("alpha")
    assert (again.given.journal.entries, [mail.body for mail in again.given.journal.mailbox]) == ([], ["hello"])


async def test_what_a_step_had_enough_without_stays_skipped(engine: Engine, worker: PlayedWorker) -> None:
    graph = Plan(
        steps=(
            Step(key="a", agent="alpha"),
            Step(key="b", agent="beta"),
            Step(key="g", after=("a", "b"), gather=Gather(mode="any", count=1)),
            Step(key="c", agent="gamma", after=("g",)),
        )
    )
    run_id = await engine.start(plan=graph)
    beta = await worker.next("beta")
    await do(worker, "alpha")
    await fail(worker, "gamma")
    await beta.delivery.ack()
    await engine.settled()
    await retry(engine, run_id)
    assert status(await engine.run(run_id)) == {"a": "completed", "b": "skipped", "g": "completed", "c": "scheduled"}


async def test_an_effect_that_happened_in_a_failed_call_does_not_happen_again(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register("alpha", tools_={"pay": {}})
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "pay")
    pay = await worker.next("pay", "tool")
    wrong = Failure(type="InvalidResultError", message="wrong")
    await engine.give(FailInvocation(invocation_id=pay.work_id, attempt=1, error=wrong, effect="happened"))
    await engine.settled()
    await alpha.fail()
    await engine.settled()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    assert [(entry.key, entry.status) for entry in again.given.journal.entries] == [("k", "error")]
    assert await again.call("k", "pay") == call


async def test_calls_that_ended_after_their_agent_are_settled_by_the_retry(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    begun, waiting = await alpha.call("begun", "add", a=1), await alpha.call("waiting", "add", a=2)
    add = await worker.next("add", "tool")
    assert add.work_id == begun
    await alpha.fail()
    await engine.settled()
    assert (await engine.invocation(waiting)).status == "cancelled"
    with pytest.raises(StillEnding, match=f"the call {begun} is still ending: try again in a moment"):
        await retry(engine, run_id)
    await add.complete(10)
    await engine.settled()
    await retry(engine, run_id)
    again = await worker.next("alpha")
    assert [(entry.key, entry.status, entry.result) for entry in again.given.journal.entries] == [("begun", "ok", 10)]


def plan_of(**step: Any) -> Plan:
    return Plan(steps=(Step(key="a", agent="alpha", **step),))
