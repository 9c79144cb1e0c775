"""Whole plans in the testing kit: the agents are real, the rules are the server's, and there is no server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tidelog import Agent, Context, PermanentError, RecipientOverError, TransientError, plans, tool
from tidelog.errors import SignalTimeoutError
from tidelog.policies import Policy
from tidelog.testing import (
    BudgetStopError,
    CrashPoint,
    HeldCallError,
    NoPlanEngineError,
    NoSuchCrash,
    PlanRefusedError,
    StuckPlanError,
    TestBudget,
    TestClock,
    engines,
    run_plan,
)


@tool("bank.charge", idempotent=True)
async def charge(cents: int) -> int:
    """Charges."""
    return cents


@tool("bank.wire", idempotent=True, policy=Policy(approval=True))
async def wire(cents: int) -> int:
    """Wires, if somebody approves."""
    return cents


class Pay(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("bank.charge", key="charge", cents=ctx.input)


class Wire(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("bank.wire", key="wire", cents=1)


class Sum(Agent):
    async def execute(self, ctx: Context) -> Any:
        return {"of": ctx.results, "missing": list(ctx.missing), "input": ctx.input}


class Fails(Agent):
    async def execute(self, ctx: Context) -> Any:
        raise PermanentError("no way")


class Flaky(Agent):
    async def execute(self, ctx: Context) -> Any:
        if ctx.attempt < 3:
            raise TransientError("not yet")
        return ctx.attempt


class Asks(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.state.set("topic", "tides")
        await ctx.send("answers", "what?")
        answer = await ctx.receive(timeout_s=3600)
        assert answer is not None
        return answer.body


class Answers(Agent):
    async def execute(self, ctx: Context) -> Any:
        asked = await ctx.receive(timeout_s=3600)
        assert asked is not None
        await ctx.sleep(600)
        await ctx.send("asks", [asked.sender, asked.body, await ctx.state.get("topic")])
        return "told"


class Late(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            await ctx.send("pay", "hello")
        except RecipientOverError:
            return "too late"
        return "sent"


class Waits(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            return await ctx.signal("go", timeout_s=None if ctx.input is None else ctx.input)
        except SignalTimeoutError:
            return "nobody came"


class Parent(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.child("pay", 5)


class Hangs(Agent):
    async def execute(self, ctx: Context) -> Any:
        await ctx.sleep(10_000)


async def test_one_after_the_other_with_a_condition_and_a_mapped_input() -> None:
    plan = plans.graph(
        plans.agent("pay", key="first"),
        plans.agent("pay", key="more", after="first", when="steps.first.result > 5", input_from="steps.first.result + 1"),
        plans.agent("sum", key="less", after="first", when="steps.first.result <= 5"),
        result="steps.more.result",
    )
    outcome = await run_plan(plan, 7, agents=[Pay, Sum], tools=[charge])
    assert (outcome.status, outcome.result) == ("completed", 8)
    assert [step.status for step in outcome.steps.values()] == ["completed", "completed", "skipped"]
    assert [call.arguments for call in outcome.calls] == [{"cents": 7}, {"cents": 8}]
    assert outcome.steps["more"].input == 8 and outcome.steps["more"].journal.recorded() == {"charge": 8}


async def test_side_by_side_with_an_aggregator_that_sees_what_is_missing() -> None:
    plan = plans.graph(plans.agent("pay"), plans.agent("fails", on_failure="continue"), plans.agent("sum", after=["pay", "fails"]))
    outcome = await run_plan(plan, 1, agents=[Pay, Sum, Fails], tools=[charge])
    assert outcome.status == "completed" and outcome.result == {"of": {"pay": 1}, "missing": ["fails"], "input": 1}
    error = outcome.steps["fails"].error
    assert error is not None and (error["type"], error["message"]) == ("PermanentError", "no way")


async def test_a_failure_ends_the_plan_and_stops_those_at_work() -> None:
    outcome = await run_plan(plans.graph("fails", "hangs"), agents=[Fails, Hangs])
    assert outcome.status == "failed" and outcome.steps["hangs"].status == "cancelled"


async def test_items_of_a_list_and_a_loop() -> None:
    clock = TestClock()
    each = plans.each(plans.agent("pay", key="all", input_from="item"), over="input", max_parallel=2)
    loop = plans.repeat(plans.agent("sum", key="again", after="all"), times=3, until="iteration == 2")
    outcome = await run_plan(plans.graph(each, loop), [1, 2, 3], agents=[Pay, Sum], tools=[charge], clock=clock)
    assert outcome.steps["all"].result == [1, 2, 3] and outcome.status == "completed"
    assert sorted(one.key for one in outcome.steps["all"].executions) == ["all.0", "all.1", "all.2"]
    assert len(outcome.steps["again"].executions) == 2 and clock.passed_s == 0


async def test_agents_talk_and_share_values_and_an_hour_passes_at_once() -> None:
    clock = TestClock()
    outcome = await run_plan(plans.parallel("asks", "answers"), agents=[Asks, Answers], clock=clock)
    assert outcome.steps["asks"].result == ["asks", "what?", "tides"] and clock.passed_s == 600
    assert [message.to for message in outcome.steps["answers"].sent] == ["asks"]
    outcome = await run_plan(plans.sequential("pay", "late"), 1, agents=[Pay, Late], tools=[charge])
    assert outcome.result == "too late"


async def test_an_agent_is_tried_again_after_the_pauses_of_its_plan() -> None:
    clock = TestClock()
    plan = plans.graph(plans.agent("flaky", retry={"max_attempts": 3, "initial_s": 100.0, "max_s": 1000.0}))
    outcome = await run_plan(plan, agents=[Flaky], clock=clock)
    assert outcome.result == 3 and outcome.steps["flaky"].executions[0].attempts == 3
    assert 0 < clock.passed_s < 1000


@pytest.mark.parametrize("terms", [{"deadline_s": 50.0}, {}], ids=["deadline", "time-out"])
async def test_who_is_too_late_is_stopped(terms: dict[str, Any]) -> None:
    clock = TestClock()
    plan = plans.graph(plans.agent("hangs", timeout_s=None if terms else 50.0))
    outcome = await run_plan(plan, agents=[Hangs], clock=clock, **terms)
    assert outcome.status == "failed" and clock.passed_s == 50


async def test_an_agent_whose_time_is_over_does_nothing_more_while_the_plan_goes_on() -> None:
    clock, told = TestClock(), list[str]()

    class Tells(Agent):
        async def execute(self, ctx: Context) -> None:
            await ctx.sleep(100)
            told.append("still here")

    plan = plans.graph(plans.agent("tells", timeout_s=50, on_failure="continue"), plans.agent("hangs"))
    outcome = await run_plan(plan, agents=[Tells, Hangs], clock=clock)
    assert outcome.status == "completed" and not told and clock.passed_s == 10_000


async def test_signals() -> None:
    signalled = await run_plan(plans.sequential("waits"), agents=[Waits], signals=[("go", {"by": "Ada"}, "waits")])
    assert signalled.result == {"by": "Ada"}
    clock = TestClock()
    alone = await run_plan(plans.sequential("waits"), 30, agents=[Waits], clock=clock)
    assert alone.result == "nobody came" and clock.passed_s == 30


async def test_a_plan_that_waits_for_nobody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidelog.testing.plans.STUCK_S", 0.01)
    with pytest.raises(StuckPlanError, match=r"agents that wait: waits"):
        await run_plan(plans.sequential("waits"), agents=[Waits])


async def test_child_runs_of_plans_and_of_agents() -> None:
    inner = plans.graph(plans.agent("pay"))
    plan = plans.graph(plans.run(inner, key="below"), plans.run("paying", key="named", after="below"), plans.agent("parent"))
    workflow = {"name": "paying", "plan": {"steps": [{"key": "pay", "agent": "pay"}]}}
    outcome = await run_plan(plan, 3, agents=[Pay, Parent], tools=[charge], workflows=[workflow])
    assert outcome.status == "completed" and outcome.result == {"named": 3, "parent": 5}
    [below] = outcome.steps["below"].runs
    assert below.steps["pay"].calls[0].arguments == {"cents": 3}
    assert [run.result for run in outcome.steps["parent"].runs] == [5]


async def test_workflows_as_text_and_as_files(tmp_path: Path) -> None:
    text = "name: paying\nparameters: {type: integer}\nplan:\n  steps:\n  - {key: pay, agent: pay}\n"
    (tmp_path / "paying.yaml").write_text(text)
    for given in (text, tmp_path / "paying.yaml", str(tmp_path / "paying.yaml")):
        assert (await run_plan(given, 4, agents=[Pay], tools=[charge])).result == 4
    assert (await run_plan("paying", 4, agents=[Pay], tools=[charge], workflows=[text])).result == 4
    with pytest.raises(PlanRefusedError):
        await run_plan(text, "four", agents=[Pay], tools=[charge])


async def test_a_crash_repeats_nothing_that_is_recorded() -> None:
    plan = plans.sequential("pay", "sum")
    for point in (1, 2, CrashPoint(call="charge")):
        outcome = await run_plan(plan, 1, agents=[Pay, Sum], tools=[charge], crash_at={"pay": point})
        pay = outcome.steps["pay"]
        assert outcome.status == "completed" and len({call.idempotency_key for call in pay.calls}) == 1
        assert pay.journal.attempts == (1 if isinstance(point, CrashPoint) else 2)
    clock = TestClock()
    for entry in (1, 2, 3):
        crash: dict[str, int | CrashPoint] = {"asks": entry, "answers": entry + 1}
        outcome = await run_plan(plans.parallel("asks", "answers"), agents=[Asks, Answers], clock=clock, crash_at=crash)
        assert outcome.steps["asks"].result == ["asks", "what?", "tides"], entry
    with pytest.raises(NoSuchCrash, match="'nobody'"):
        await run_plan(plan, 1, agents=[Pay, Sum], tools=[charge], crash_at={"nobody": 1})


async def test_people_and_budgets_are_those_of_run_agent() -> None:
    with pytest.raises(HeldCallError):
        await run_plan(plans.sequential("wire"), agents=[Wire], tools=[wire])
    approved = await run_plan(plans.sequential("wire"), agents=[Wire], tools=[wire], approve=lambda call: True)
    assert approved.result == 1
    denied = await run_plan(plans.sequential("wire"), agents=[Wire], tools=[wire], approve=lambda call: "too much")
    assert denied.status == "failed" and "too much" in denied.run.error["message"]  # type: ignore[index]
    twice = plans.parallel(plans.agent("pay", key="one"), plans.agent("pay", key="two"))
    enough = await run_plan(twice, 1, agents=[Pay], tools=[charge], budget=TestBudget(calls=2))
    assert enough.status == "completed" and enough.spent.calls == 2
    assert enough.steps["one"].journal.spending.spent.calls == 1
    with pytest.raises(BudgetStopError):
        await run_plan(twice, 1, agents=[Pay], tools=[charge], budget=TestBudget(calls=1))


async def test_a_plan_that_a_server_would_refuse_says_all_that_is_wrong() -> None:
    with pytest.raises(PlanRefusedError, match="no agent 'pays' is registered; did you mean 'pay'") as unknown:
        await run_plan(plans.sequential("pays"), agents=[Pay], tools=[charge])
    assert unknown.value.code == "unknown-agent"
    steps = [{"key": "a", "agent": "pay", "when": "1 +"}, {"key": "b", "agent": "pay", "after": ["c"]}]
    with pytest.raises(PlanRefusedError) as refused:
        await run_plan({"steps": steps}, agents=[Pay], tools=[charge])
    assert {pointer for pointer, _ in refused.value.faults} == {"/plan/steps/0/when", "/plan/steps/1/after/0"}
    with pytest.raises(PlanRefusedError, match=r"/plan"):
        await run_plan({"kind": "parallel", "agents": 3}, agents=[Pay])
    with pytest.raises(PlanRefusedError, match="/plan/steps"):
        await run_plan({"name": "x", "plan": {"steps": []}}, agents=[Pay])


async def test_a_clock_that_is_moved_by_hand() -> None:
    clock = TestClock(by_hand=True)
    running = asyncio.create_task(run_plan(plans.sequential("hangs"), agents=[Hangs], clock=clock))
    await clock.move(9_999)
    assert not running.done()
    await clock.move(1)
    assert (await running).status == "completed"


async def test_without_the_servers_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "entry_points", lambda **_: [])
    with pytest.raises(NoPlanEngineError, match=r"pip install 'tidelog-server\[expressions\]'"):
        await run_plan(plans.sequential("pay"), 1, agents=[Pay])
