"""The testing kit plays the people who approve calls; the page about approvals runs as it stands there."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.pages import block
from tidelog import Agent, Context, PermanentError, Policy, tool
from tidelog.testing import CrashPoint, HeldCall, HeldCallError, run_agent

PAGE = "docs/how-to/let-people-approve-calls.md"


@tool("mail", policy=Policy(approval=True))
async def mail(to: str) -> str:
    return f"sent to {to}"


@tool("pay", policy=Policy(approval="arguments.eur > 5"))
async def pay(eur: int) -> int:
    return eur


class Writer(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("mail", to=ctx.input)


class Payer(Agent):
    async def execute(self, ctx: Context) -> Any:
        return await ctx.tool("pay", eur=ctx.input)


async def test_people_approve_deny_and_change() -> None:
    asked: list[HeldCall] = []

    async def later(call: HeldCall) -> bool:
        asked.append(call)
        return True

    assert (await run_agent(Writer, "ada", tools=[mail], approve=later)).result == "sent to ada"
    assert asked == [HeldCall("mail", "mail#1", {"to": "ada"}, True)]
    changed = await run_agent(Writer, "ada", tools=[mail], approve=lambda _: {"to": "bob"})
    assert changed.result == "sent to bob" and changed.calls[0].arguments == {"to": "bob"}
    for answer, told in ((False, "the test denied the call$"), ("not today", "the test denied the call: not today$")):
        with pytest.raises(Exception, match=told):
            await run_agent(Writer, "ada", tools=[mail], approve=lambda _, answer=answer: answer)


async def test_without_people_a_call_that_needs_them_says_so() -> None:
    with pytest.raises(HeldCallError, match=r"the call 'mail#1' of mail needs an approval.*approve=lambda call: True") as held:
        await run_agent(Writer, "ada", tools=[mail])
    assert held.value.call.arguments == {"to": "ada"}
    assert (await run_agent(Payer, 7, tools=[pay])).result == 7  # nobody evaluates the expression
    with pytest.raises(Exception, match="too much"):
        await run_agent(Payer, 7, tools=[pay], approve=lambda _: "too much")


async def test_after_a_crash_of_the_agent_what_was_approved_goes_on() -> None:
    asked: list[HeldCall] = []

    def once(call: HeldCall) -> bool:
        asked.append(call)
        return True

    outcome = await run_agent(Writer, "ada", tools=[mail], approve=once, crash_at=CrashPoint(entry=1))
    assert outcome.result == "sent to ada" and len(asked) == 1 and len(outcome.calls) == 1


async def test_the_test_of_the_page_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mails = ModuleType("mails")
    exec(block(PAGE, "mails"), mails.__dict__)  # the page's own code
    monkeypatch.setitem(sys.modules, "mails", mails)
    page: dict[str, Any] = {}
    exec(block(PAGE, "test"), page)
    await page["test_the_mail_that_was_approved_goes_out"](tmp_path)


class Editor(Agent):
    async def execute(self, ctx: Context) -> Any:
        told = await ctx.approval("publish", "Publish it?", {"words": ctx.input}, roles=["admin"], deadline="2d", default="approve")
        await ctx.step("note", lambda: None)
        return [bool(told), told.approved, told.by, told.reason, told.expired]


async def test_people_answer_a_question_once_whatever_crashes() -> None:
    asked: list[HeldCall] = []

    def people(question: HeldCall) -> Any:
        asked.append(question)
        return "too long" if question.arguments["words"] > 900 else True

    assert (await run_agent(Editor, 900, approve=people)).result == [True, True, ["test"], None, False]
    assert asked == [HeldCall("publish", "approval:publish#1", {"words": 900}, True, "Publish it?")]
    for entry in (1, 2, 3):
        crashed = await run_agent(Editor, 901, approve=people, crash_at=entry)
        assert crashed.result == [False, False, ["test"], "too long", False]
    assert len(asked) == 4, "nobody is asked twice"
    with pytest.raises(HeldCallError, match="the question 'approval:publish#1' \\('Publish it\\?'\\) needs an answer"):
        await run_agent(Editor, 1)
    with pytest.raises(PermanentError, match="a question has no arguments that could be changed"):
        await run_agent(Editor, 1, approve=lambda _: {"words": 2})
