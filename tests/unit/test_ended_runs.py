"""The end of an agent run or a run ends what is open in it: no tool starts afterwards, and nothing comes after the end is told."""

from collections.abc import Awaitable, Callable

import pytest

from domain.errors import WorkOver
from domain.runs import CancelRun, Plan, Step, parallel
from tests.kit.engine import Claim, Engine, PlayedWorker
from tests.kit.waiting import TENANT, turns
from tests.unit.test_following_runs import Follower, positions

End = Callable[[Engine, Claim], Awaitable[object]]

ENDS: dict[str, End] = {
    "completed": lambda engine, alpha: alpha.complete("quick"),
    "failed": lambda engine, alpha: alpha.fail(),
    "timed out": lambda engine, alpha: late(engine),
    "cancelled": lambda engine, alpha: engine.give(CancelRun(run_id=alpha.given.run_id)),
}
STATUS = {"timed out": "failed"}


async def late(engine: Engine) -> None:
    engine.clock.advance(61)


def one_step(on_failure: str = "fail") -> Plan:
    return Plan(steps=(Step.model_validate({"key": "a", "agent": "alpha", "timeout_s": 60, "on_failure": on_failure}),))


@pytest.mark.parametrize("how", ENDS)
async def test_a_call_that_no_worker_has_begun_is_cancelled_before_the_run_is_over(
    engine: Engine, worker: PlayedWorker, how: str
) -> None:
    run_id = await engine.start(plan=one_step())
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    delivery = await worker.take("mail", "tool")
    follower = Follower(engine, run_id)
    await ENDS[how](engine, alpha)
    await follower.ended()
    assert (await engine.run(run_id)).status == STATUS.get(how, how)
    assert (await engine.invocation(call)).status == "cancelled"
    with pytest.raises(WorkOver):
        await worker.claim(delivery)
    assert follower.positions == positions(engine, run_id), "nothing came after the end"
    if how == "completed":
        topics = engine.topics(run_id)
        assert topics.index("invocation.cancelled") < topics.index("run.completed")


@pytest.mark.parametrize("outcome", ["complete", "fail", "vanish"])
@pytest.mark.parametrize("how", ENDS)
async def test_the_end_is_told_after_the_outcome_of_the_attempt_under_way(
    engine: Engine, worker: PlayedWorker, how: str, outcome: str
) -> None:
    run_id = await engine.start(plan=one_step())
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "add", a=1)
    held = await worker.next("add", "tool")
    follower, wants_nothing = Follower(engine, run_id), Follower(engine, run_id, topics=frozenset())
    await ENDS[how](engine, alpha)
    await engine.settled()
    assert (await engine.run(run_id)).status == STATUS.get(how, how), "the run does not wait for the attempt"
    assert (await engine.invocation(call)).cancel_request is not None
    late_follower = Follower(engine, run_id)
    await turns()
    followers = (follower, wants_nothing, late_follower)
    assert not any(follower.task.done() for follower in followers)
    if outcome == "vanish":
        engine.clock.advance(30)
        with pytest.raises(WorkOver):
            await worker.next("add", "tool")
    elif outcome == "complete":
        await held.complete(1)
    else:
        await held.fail("transient")
    for follower in followers:
        await follower.ended()
        assert follower.over is not None and follower.over.position == positions(engine, run_id)[-1]
    await engine.settled()
    assert late_follower.positions == follower.positions == positions(engine, run_id)
    expected = {"complete": "succeeded", "fail": "failed", "vanish": "cancelled"}
    assert (await engine.invocation(call)).status == expected[outcome]


async def test_an_ambiguous_call_does_not_keep_the_stream_open(engine: Engine, worker: PlayedWorker) -> None:
    """A person may need days. What the person says is the one event that may come after the end."""
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "mail")
    await worker.next("mail", "tool")
    follower = Follower(engine, run_id)
    await alpha.complete()
    await engine.settled()
    engine.clock.advance(30)
    with pytest.raises(WorkOver):
        await worker.next("mail", "tool")
    await follower.ended()
    assert engine.topics(run_id)[-1] == "invocation.became_ambiguous"


async def test_calls_of_a_tolerated_failure_end_before_the_run(engine: Engine, worker: PlayedWorker) -> None:
    """The failure of the last step completes the run. Its calls must be cancelled before."""
    run_id = await engine.start(plan=Plan(steps=(*parallel(("beta",), None).steps, *one_step("continue").steps)))
    await (await worker.next("beta")).complete()
    alpha = await worker.next("alpha")
    call = await alpha.call("k", "mail")
    follower = Follower(engine, run_id)
    await alpha.fail()
    await follower.ended()
    await engine.settled()
    assert follower.positions == positions(engine, run_id)
    assert (await engine.run(run_id)).status == "completed" and (await engine.invocation(call)).status == "cancelled"


async def test_no_work_of_a_run_that_is_over_begins_while_the_sagas_are_away() -> None:
    """The run has ended, and nobody has reacted to its end yet. The claims reach another process, whose memory is older."""
    engine = Engine(reactions=False)
    await engine.set_up()
    other, worker = engine.another(), engine.worker()
    stranger = PlayedWorker(other, "worker-2")
    async with engine.running():
        for one in (worker, stranger):
            await one.register("alpha", "beta", tools_={"add": {}, "mail": {"idempotent": False}})
        run_id = await engine.start(plan=parallel(("alpha", "beta"), None))
        alpha, beta = await worker.next("alpha"), await stranger.take("beta")
        new, lost, again = [await alpha.call(f"k{n}", tool) for n, tool in enumerate(("mail", "mail", "add"))]
        await engine.settled()
        taken = {d.item.work_id: d for d in [await worker.take("mail", "tool"), await worker.take("mail", "tool")]}
        await worker.claim(taken[lost])
        held = await worker.next("add", "tool")
        for work_id in (new, lost, again, run_id):
            await other.commands.history(TENANT, work_id)
    await engine.give(CancelRun(run_id=run_id))
    with pytest.raises(WorkOver, match="the run is cancelled"):
        await stranger.claim(beta)
    for delivery, status in ((taken[new], "cancelled"), (taken[lost], "ambiguous"), (held.delivery, "cancelled")):
        with pytest.raises(WorkOver):
            await stranger.claim(delivery)
        assert (await other.invocation(delivery.item.work_id)).status == status
    assert not {"agent_run.cancelled", "agent_run.failed"} & set(engine.topics(run_id)), "the sagas have done nothing"
