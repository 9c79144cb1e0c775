"""The testing kit knows budgets: calls cost what their tools say, and a budget stops, degrades or asks."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from tidelog import Agent, BudgetExceededError, Context, Cost, Policy, ServiceRateLimitedError, ToolContext, tool
from tidelog.testing import (
    BudgetAskError,
    BudgetStopError,
    CrashPoint,
    MemoryJournal,
    ShortCall,
    Spent,
    TestBudget,
    run_agent,
)


@tool("search", max_attempts=1, policy=Policy(max_cost=Cost(money="0.002", tokens=500)))
async def search(ctx: ToolContext, query: str) -> str:
    if query == "said":
        ctx.usage(money="0.0005", tokens=3)
    if query == "busy":
        raise ServiceRateLimitedError("later")
    if query == "broken":
        raise ValueError("broken")
    return query


@tool("plain")
async def plain() -> None:
    return None


class Asks(Agent):
    """Calls for each of its input, whatever comes of it."""

    async def execute(self, ctx: Context) -> Any:
        found = []
        for number, query in enumerate(ctx.input):
            try:
                found.append(await ctx.tool("search", query=query, key=f"search#{number}"))
            except BudgetExceededError:
                found.append("no budget")
            except Exception as error:  # noqa: BLE001  # loops that catch everything are what budgets are for
                found.append(type(error).__name__)
        return found


class AtOnce(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await asyncio.gather(*(ctx.tool("search", query="said") for _ in range(3)))


async def test_calls_cost_what_their_tools_say_or_else_the_most() -> None:
    outcome = await run_agent(Asks, ["said", "silent", "busy", "broken"], tools=[search], budget=TestBudget(calls=9))
    assert outcome.spent == Spent(Decimal("0.0045"), 1_003, 4)
    assert (await run_agent(Asks, [], tools=[search])).spent == Spent()

    class Plain(Agent):
        async def execute(self, ctx: Context) -> None:
            await ctx.tool("plain")

    assert (await run_agent(Plain, tools=[plain])).spent == Spent(calls=1)


async def test_stop_ends_an_agent_that_catches_everything() -> None:
    journal = MemoryJournal()
    with pytest.raises(BudgetStopError, match="too little money left for the call 'search#2' of search"):
        await run_agent(Asks, ["a"] * 9, tools=[search], budget=TestBudget(money="0.005"), journal=journal)
    assert len(journal.calls) == 2 and journal.spending.spent.calls == 2


async def test_degrade_fails_the_call_alone() -> None:
    outcome = await run_agent(Asks, ["a", "b"], tools=[search], budget=TestBudget(tokens=500, on_spent="degrade"))
    assert outcome.result == ["a", "no budget"]


async def test_people_give_more_or_do_not() -> None:
    asked: list[ShortCall] = []

    async def give(call: ShortCall) -> Any:
        asked.append(call)
        return ({"calls": 1}, True, None)[len(asked) - 1]

    with pytest.raises(BudgetStopError):
        await run_agent(Asks, ["a"] * 9, tools=[search], budget=TestBudget(calls=1, on_spent="ask", give=give))
    assert [(call.key, call.kind, call.left) for call in asked] == [(f"search#{n}", "calls", {"calls": 0}) for n in (1, 2, 3)]
    assert asked[0].needs == Spent(Decimal("0.002"), 500, 1) and asked[0].tool == "search"
    with pytest.raises(BudgetAskError, match="people are asked now") as refused:
        await run_agent(Asks, ["a"], tools=[search], budget=TestBudget(money=Decimal(0), on_spent="ask"))
    assert refused.value.call.left == {"money": 0}
    wrong = TestBudget(calls=0, on_spent="ask", give=lambda _: {"money": "1"})
    with pytest.raises(ValueError, match="give more of what the budget limits: calls"):
        await run_agent(Asks, ["a"], tools=[search], budget=wrong)


async def test_what_others_do_not_use_pays_a_call_and_a_crash_pays_nothing_twice() -> None:
    budget = TestBudget(money="0.0035")
    outcome = await run_agent(AtOnce, tools=[search], budget=budget)
    assert outcome.spent == Spent(Decimal("0.0015"), 9, 3)
    again = await run_agent(Asks, ["said", "said"], tools=[search], budget=budget, crash_at=CrashPoint(entry=1))
    assert again.spent == Spent(Decimal("0.001"), 6, 2)
