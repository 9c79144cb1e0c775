"""The priority of a run is changed while it goes on: what waits for a worker, what comes later, its calls and child runs."""

from typing import Any, cast
from uuid import UUID

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from application.bulk_actions.orders import RIGHTS, STATUSES, command_of, is_so
from domain import agent_runs, invocations, runs
from domain.access import Action
from domain.agent_runs import AgentRunPriorityChanged, AgentRunResumed, ChangeAgentRunPriority
from domain.bulk_actions import BulkOrder
from domain.errors import InvalidState, NotFound, WorkOver
from domain.failures import Failure
from domain.invocations import ChangeInvocationPriority, InvocationPriorityChanged, InvocationRequeued
from domain.kernel import Command, Priority
from domain.plans import Plan, Step
from domain.runs import CancelRun, ChangePriority, PauseRun, PriorityCause, ResumeRun, RunPriorityChanged
from projections.runs import replay
from tests.kit import Given, given
from tests.kit.engine import RETRY, Engine, PlayedWorker
from tests.unit.test_paused_work import ID, RUN, agent, call, claim, claim_call
from tests.unit.test_priority_of_runs import classes
from tests.unit.test_runs import done, start

HIGH = ChangePriority(run_id=RUN, priority="high", reason="they wait", by="key:ann", on_behalf_of="ada")
CAUSE = PriorityCause(by="key:ann", reason="they wait", on_behalf_of="ada")
OF_AGENT = ChangeAgentRunPriority(agent_run_id=ID, number=1, priority="low")
OF_CALL = ChangeInvocationPriority(invocation_id=ID, number=1, priority="low")
TRANSIENT = Failure(type="Timeout", message="slow", kind="transient")


def of_plan(*steps: dict[str, Any]) -> Given:
    return given(runs.DECIDER).after(start(Plan.model_validate({"steps": list(steps)})).model_copy(update={"run_id": RUN}))


# --- the run --------------------------------------------------------------------------------------------------------------


def test_a_change_names_what_is_under_way_and_who_wanted_it() -> None:
    child = {"plan": {"steps": [{"key": "x", "agent": "x"}]}}
    own = {"key": "own", "agent": "a", "priority": "low"}
    run = of_plan({"key": "a", "agent": "a"}, own, {"key": "c", "run": child}, {"key": "own2", "run": child, "priority": "low"})
    executions, children = (runs.agent_run_id_of(RUN, "a"),), (runs.child_id_of(RUN, "c", 0),)
    run.when(HIGH).then(
        RunPriorityChanged(number=1, priority="high", before="normal", cause=CAUSE, executions=executions, runs=children)
    )
    high = run.after(HIGH)
    assert (high.state.priority, high.state.priorities, high.state.priority_above) == ("high", 1, 0)
    high.when(HIGH).then()
    high.when(HIGH.model_copy(update={"reason": "another"})).then()
    [back] = high.when(ChangePriority(run_id=RUN, priority="normal")).then_topics("run.priority_changed")
    assert (back.number, back.before, back.priority, back.cause) == (2, "high", "normal", PriorityCause())


def test_steps_that_begin_later_have_it_unless_the_plan_says_another() -> None:
    steps = [{"key": key, "agent": key, "after": ["a"]} for key in ("b", "c")]
    run = of_plan({"key": "a", "agent": "a"}, steps[0], {**steps[1], "priority": "low"}).after(HIGH)
    finish = done("a").model_copy(update={"run_id": RUN, "agent_run_id": runs.agent_run_id_of(RUN, "a")})
    _, *scheduled = run.when(finish).then_topics("run.step_completed", "run.step_scheduled", "run.step_scheduled")
    assert [event.priority for event in scheduled] == ["high", "low"]


def test_only_a_run_that_goes_on_has_its_priority_changed() -> None:
    given(runs.DECIDER).when(HIGH).refused(NotFound, f"there is no run {RUN}")
    over = of_plan({"key": "a", "agent": "a"}).after(CancelRun(run_id=RUN))
    over.when(HIGH).refused(InvalidState, "the run is cancelled: only the priority of one that goes on can be changed")
    over.when(HIGH.model_copy(update={"parent_number": 1})).then()


def test_a_child_run_follows_the_newest_change_above() -> None:
    above = UUID(int=7)
    begun = start(Plan(steps=(Step(key="a", agent="a"),)))
    parent = runs.Parent(run_id=above, step="s", part=0)
    child = given(runs.DECIDER).after(begun.model_copy(update={"run_id": RUN, "parent": parent}))
    first, second = (HIGH.model_copy(update={"parent_number": n, "priority": p}) for n, p in ((1, "low"), (2, "high")))
    [event] = child.when(second).then_topics("run.priority_changed")
    assert (event.parent_number, event.cause) == (2, CAUSE.model_copy(update={"parent_id": above}))
    late = child.after(second)
    assert late.state.priority_above == 2
    late.when(first).then()
    late.when(second).then()
    itself = late.after(ChangePriority(run_id=RUN, priority="low"))
    assert (itself.state.priority, itself.state.priority_above) == ("low", 2)
    itself.when(first).then()
    [same] = child.when(first.model_copy(update={"priority": "normal"})).then_topics("run.priority_changed")
    assert same.before == same.priority == "normal", "what came before is not to take effect after it"


# --- an agent run ---------------------------------------------------------------------------------------------------------


def resumed(dispatch: int, **more: Any) -> AgentRunResumed:
    return AgentRunResumed(run_id=RUN, agent="a", dispatch=dispatch, **{"reason": "priority", "priority": "low", **more})


def test_an_agent_run_that_waits_for_a_worker_is_dispatched_anew() -> None:
    agent().when(OF_AGENT).then(AgentRunPriorityChanged(number=1, priority="low"), resumed(2))
    low = agent().after(OF_AGENT)
    low.when(claim()).refused(WorkOver, "dispatch 1 is over; 2 is the newest")
    low.when(claim(2)).then_topics("agent_run.claimed")
    low.when(OF_AGENT).then()
    low.when(OF_AGENT.model_copy(update={"number": 2})).then(AgentRunPriorityChanged(number=2, priority="low"))
    given(agent_runs.DECIDER).when(OF_AGENT).refused(NotFound, f"there is no agent run {ID}")
    agent().after(agent_runs.CancelAgentRun(agent_run_id=ID)).when(OF_AGENT).then()
    assert agent().after(claim(), agent_runs.LapseClaim(agent_run_id=ID, attempt=1, reason="lost"), OF_AGENT).state.lost_claims == 1


def test_an_agent_run_that_a_worker_has_goes_on_there_and_waits_later_in_its_class() -> None:
    calls = agent_runs.StartCall(agent_run_id=ID, attempt=1, key="k", tool="t")
    child = agent_runs.StartWait(agent_run_id=ID, attempt=1, key="c", kind="child", name="x")
    held = agent().after(claim(), calls, child)
    call_id, child_id = agent_runs.invocation_id_of(ID, "k"), agent_runs.child_id_of(ID, "c")
    held.when(OF_AGENT).then(AgentRunPriorityChanged(number=1, priority="low", calls=(call_id,), children=(child_id,)))
    low = held.after(OF_AGENT)
    lapse = agent_runs.LapseClaim(agent_run_id=ID, attempt=1, reason="left")
    low.when(lapse).then(resumed(2, lapsed=1, reason="left"))
    low.after(agent_runs.FailAgentRun(agent_run_id=ID, attempt=1, error=TRANSIENT)).when(
        agent_runs.ResumeAgentRun(agent_run_id=ID, dispatch=2)
    ).then(resumed(2, reason=None))


def test_a_paused_agent_run_gets_it_at_its_end() -> None:
    paused = agent().after(agent_runs.PauseAgentRun(agent_run_id=ID, number=1))
    paused.when(OF_AGENT).then(AgentRunPriorityChanged(number=1, priority="low"))
    unpause = agent_runs.UnpauseAgentRun(agent_run_id=ID, number=1)
    paused.after(OF_AGENT).when(unpause).then(agent_runs.AgentRunUnpaused(number=1), resumed(2, reason="unpaused"))


def test_an_agent_run_that_goes_on_after_its_end_has_the_priority_of_then() -> None:
    again = agent_runs.ReopenAgentRun(agent_run_id=ID, run_id=RUN, step="s", agent="a", number=1, priority="low")
    over = agent().after(agent_runs.CancelAgentRun(agent_run_id=ID), again, claim(2))
    over.when(agent_runs.LapseClaim(agent_run_id=ID, attempt=1, reason="left")).then(resumed(3, lapsed=1, reason="left"))


# --- a call ---------------------------------------------------------------------------------------------------------------


def requeued(dispatch: int, **more: Any) -> InvocationRequeued:
    return InvocationRequeued(run_id=RUN, tool="t", dispatch=dispatch, **{"reason": "priority", "priority": "low", **more})


def test_a_call_that_waits_is_dispatched_anew_and_one_that_has_begun_is_not() -> None:
    call().when(OF_CALL).then(InvocationPriorityChanged(number=1, priority="low"), requeued(2))
    low = call().after(OF_CALL)
    low.when(OF_CALL).then()
    low.when(OF_CALL.model_copy(update={"number": 2})).then(InvocationPriorityChanged(number=2, priority="low"))
    low.when(claim_call()).refused(WorkOver)
    begun = call().after(claim_call())
    begun.when(OF_CALL).then(InvocationPriorityChanged(number=1, priority="low"))
    failed = invocations.FailInvocation(invocation_id=ID, attempt=1, error=TRANSIENT)
    retried = begun.after(OF_CALL, failed)
    retried.when(invocations.RequeueInvocation(invocation_id=ID, dispatch=2)).then(requeued(2, reason=None))
    lost = begun.after(invocations.LapseAttempt(invocation_id=ID, attempt=1, reason="lost"))
    assert lost.after(OF_CALL).state.lost_claims == lost.state.lost_claims == 1


def test_a_call_that_no_worker_may_begin_is_not_dispatched() -> None:
    only = InvocationPriorityChanged(number=1, priority="low")
    call(chain_id=RUN).when(OF_CALL).then(only)
    call().after(invocations.PauseInvocation(invocation_id=ID, dispatch=1)).when(OF_CALL).then(only)
    call().after(invocations.CancelInvocation(invocation_id=ID)).when(OF_CALL).then()


# --- all together ---------------------------------------------------------------------------------------------------------


async def change(engine: Engine, run_id: UUID, priority: Priority) -> None:
    await engine.give(ChangePriority(run_id=run_id, priority=priority, reason="they wait", by="key:ann", on_behalf_of="ada"))
    await engine.settled()


@pytest.mark.parametrize("reactions", [True, False])
async def test_a_run_overtakes_and_its_retries_and_calls_follow(reactions: bool) -> None:
    engine = Engine(reactions=reactions)
    await engine.set_up()
    async with engine.running():
        worker = engine.worker()
        await worker.register("alpha", tools_={"add": {"max_attempts": 3}})
        before, run_id = [
            await engine.start("alpha"),
            await engine.start(plan=Plan(steps=(Step(key="a", agent="alpha", retry=RETRY),))),
        ]
        await engine.settled()
        await change(engine, run_id, "high")
        assert ("alpha", 2, "high") in classes(engine)
        alpha = await worker.next("alpha")
        assert alpha.given.run_id == run_id, f"run {before} was there before"
        await alpha.call("add#1", "add")
        await engine.settled()
        await change(engine, run_id, "low")
        assert ("add", 2, "low") in classes(engine)
        with pytest.raises(WorkOver):  # the item of before
            await worker.next("add", "tool")
        await (await worker.next("add", "tool")).fail("transient")
        await change(engine, run_id, "high")
        await engine.advance(60)
        assert ("add", 3, "high") in classes(engine)
        await alpha.fail("transient")
        await engine.advance(RETRY.max_s)
        assert ("alpha", 3, "high") in classes(engine)
        view = replay([event for event in engine.log.events if event.root_id == run_id])
        assert view is not None and view.priority == "high"


async def test_child_runs_follow_and_a_paused_run_goes_on_in_its_class(engine: Engine, worker: PlayedWorker) -> None:
    child = Plan(steps=(Step(key="x", agent="beta"),))
    run_id = await engine.start(plan=Plan.model_validate({"steps": [{"key": "c", "run": {"plan": child.model_dump()}}]}))
    await engine.settled()
    child_id = runs.child_id_of(run_id, "c", 0)
    await engine.give(PauseRun(run_id=run_id))
    await engine.settled()
    await change(engine, run_id, "high")
    assert [each for each in classes(engine) if each[2] == "high"] == [], "nothing is dispatched in a pause"
    assert (await engine.run(child_id)).priority == "high"
    [said] = [e for e in engine.log.streams[child_id] if e.topic == "run.priority_changed"]
    event = cast(RunPriorityChanged, engine.commands.registry.decoded(said))
    assert event.cause == PriorityCause(by="key:ann", reason="they wait", on_behalf_of="ada", parent_id=run_id)
    await engine.give(ResumeRun(run_id=run_id))
    await engine.settled()
    assert ("beta", 2, "high") in classes(engine)


# --- many runs, and the command line --------------------------------------------------------------------------------------


def test_a_bulk_action_changes_the_priority_of_runs_that_go_on() -> None:
    assert (RIGHTS["priority"], STATUSES["priority"]) == (Action.RUNS_STEER, ("queued", "running", "paused"))
    order = BulkOrder(verb="priority", priority="low", reason="later")
    told: Command = command_of(order, RUN, ID, "key:ann", "ada")
    assert told == ChangePriority(run_id=RUN, priority="low", reason="later", by="key:ann", on_behalf_of="ada")
    assert is_so(order, runs.Run(status="running", priority="low"))
    assert not is_so(order, runs.Run(status="running")) and not is_so(order, runs.Run(status="failed", priority="low"))


@pytest.mark.parametrize("given_", [["high", "0198"], ["0198"], ["0198", "urgent"], ["0198", "0199", "low"], ["low"]])
def test_the_command_wants_a_run_and_one_of_three_priorities(given_: list[str]) -> None:
    result = CliRunner().invoke(app, ["runs", "priority", *given_])
    assert result.exit_code == 2 and "ID of a run" in " ".join(result.output.replace("│", " ").split()), result.output
