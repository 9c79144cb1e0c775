"""The testing kit: scripted tools, counted effects, and a clock that the test moves."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tidelog import (
    Agent,
    Context,
    InvalidResultError,
    PermanentError,
    Reconciled,
    ServiceRateLimitedError,
    ToolContext,
    ToolError,
    TransientError,
    tool,
)
from tidelog.errors import ProcessCrashedError
from tidelog.testing import Effects, MemoryJournal, Outcome, ScriptedTool, TestClock, clock, run_agent
from tidelog.tools import Tool

BUSY = TransientError("busy")


class Calls(Agent):
    """Calls `pay` with each of the arguments given."""

    async def execute(self, ctx: Context) -> Any:
        found = []
        for arguments in ctx.input:
            try:
                found.append(await ctx.tool("pay", **arguments))
            except ToolError as error:
                found.append(f"{error.kind}: {error.type}")
        return found


async def called(paying: Tool[..., Any], *arguments: dict[str, Any], **options: Any) -> Outcome:
    options = {"clock": TestClock(), **options}
    return await run_agent(Calls, list(arguments) or [{}], tools=[paying], **options)


def attempts(paying: ScriptedTool) -> list[int]:
    return [call.attempt for call in paying.calls]


# --- scripts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paying", "result", "tried", "asked", "effects"),
    [
        (ScriptedTool("pay").returns(1), 1, [1], 0, 1),
        (ScriptedTool("pay").fails(BUSY).then_returns(1), "transient: TransientError", [1], 0, 0),
        (ScriptedTool("pay", idempotent=True).fails(BUSY).then_returns(1), 1, [1, 2], 0, 1),
        (ScriptedTool("pay", idempotent=True).fails(BUSY), "transient: TransientError", [1, 2, 3], 0, 0),
        (ScriptedTool("pay", idempotent=True, max_attempts=1).fails(BUSY), "transient: TransientError", [1], 0, 0),
        (ScriptedTool("pay", idempotent=True).fails(PermanentError("no")), "permanent: PermanentError", [1], 0, 0),
        (ScriptedTool("pay", idempotent=True).fails(ServiceRateLimitedError("slow", 7)).then_returns(1), 1, [1, 2], 0, 1),
        (ScriptedTool("pay", idempotent=True).times_out(after_effect=True).then_returns(1), 1, [1, 2], 0, 1),
        (ScriptedTool("pay", idempotent=True).times_out(after_effect=True).then_returns(1).reconciles(), 1, [1, 2], 0, 1),
        (ScriptedTool("pay", idempotent=True).vanishes(after_effect=True).then_returns(1).reconciles(), 1, [1, 2], 0, 1),
        (ScriptedTool("pay").times_out(), "transient: ToolTimeoutError", [1], 0, 0),
        (ScriptedTool("pay").times_out(after_effect=True).then_returns(1).reconciles(), 1, [1], 1, 1),
        (ScriptedTool("pay").times_out().then_returns(1).reconciles(), 1, [1, 3], 1, 1),
        (ScriptedTool("pay").times_out().reconciles(), "transient: ToolTimeoutError", [1, 3, 5], 3, 0),
        (ScriptedTool("pay").fails(ProcessCrashedError("SEGV")).then_returns(1).reconciles(), 1, [1, 3], 1, 1),
        (ScriptedTool("pay").fails(BUSY, after_effect=True).reconciles(), "transient: TransientError", [1], 0, 1),
        (ScriptedTool("pay", idempotent=True).vanishes().then_vanishes(after_effect=True).then_returns(1), 1, [1, 2, 3], 0, 1),
        (ScriptedTool("pay", idempotent=True).vanishes(), "lost: WorkersLost", [*range(1, 11)], 0, 0),
        (ScriptedTool("pay").vanishes(after_effect=True).then_returns(1).reconciles(), 1, [1], 1, 1),
        (ScriptedTool("pay").vanishes().then_returns(1).reconciles(), 1, [1, 3], 1, 1),
        (ScriptedTool("pay").vanishes().reconciles(), "lost: WorkersLost", [*range(1, 21, 2)], 10, 0),
        (ScriptedTool("pay").vanishes().reconciles(BUSY, BUSY, Reconciled.succeeded(1)), 1, [1], 3, 0),
        (ScriptedTool("pay").vanishes().reconciles(BUSY), "asked", [1], 10, 0),
        (ScriptedTool("pay").vanishes().reconciles(TransientError("later", 400)), "asked", [1], 2, 0),
        (ScriptedTool("pay").vanishes().reconciles(PermanentError("broken")), "asked", [1], 1, 0),
        (ScriptedTool("pay").vanishes().reconciles(Reconciled.unknown()), "asked", [1], 1, 0),
        (ScriptedTool("pay").vanishes(), "asked", [1], 0, 0),
    ],
)
async def test_a_fault_leads_to_what_the_ledger_does(
    paying: ScriptedTool, result: Any, tried: list[int], asked: int, effects: int
) -> None:
    outcome = await called(paying, resolve=lambda call: Reconciled.succeeded("asked"))
    assert outcome.result == [result]
    assert (attempts(paying), len(outcome.asked), len(paying.effects)) == (tried, asked, effects)
    assert len(paying.idempotency_keys) == 1 and outcome.calls == paying.calls
    assert {call.idempotency_key for call in outcome.asked} <= {*paying.idempotency_keys}


async def test_a_reconcile_function_that_hangs_is_asked_again_until_a_person_is() -> None:
    async def hangs(ctx: ToolContext) -> Reconciled:
        await asyncio.Event().wait()
        raise AssertionError

    @tool("pay", reconcile=hangs, reconcile_timeout_s=0.05)
    async def pay() -> None:
        raise ProcessCrashedError("SEGV")

    reasons: list[str] = []

    def person(call: Any) -> Reconciled:
        reasons.append(call.reason)
        return Reconciled.succeeded(1)

    outcome = await called(pay, resolve=person)
    assert (outcome.result, len(outcome.asked)) == ([1], 10)
    assert reasons == ["the reconcile function failed: the reconcile function gave no answer within 0.05 s"]


async def test_an_execution_that_ends_while_a_function_is_asked_leaves_the_question_to_the_next() -> None:
    asked, called = asyncio.Event(), list[int]()

    async def looks(ctx: ToolContext) -> Reconciled:
        if not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return Reconciled.succeeded(ctx.attempt)

    @tool("pay", reconcile=looks)
    async def pays(ctx: ToolContext) -> None:
        called.append(ctx.attempt)
        raise ProcessCrashedError("SEGV")

    class Leaves(Agent):
        async def execute(self, ctx: Context) -> Any:
            call = asyncio.ensure_future(ctx.tool("pay"))
            await asked.wait()
            if ctx.attempt == 1:
                call.cancel()
                raise OSError("gone")
            return await call

    journal = MemoryJournal()
    with pytest.raises(OSError, match="gone"):
        await run_agent(Leaves, tools=[pays], journal=journal)
    outcome = await run_agent(Leaves, tools=[pays], journal=journal)
    assert (outcome.result, called) == (3, [1]), "the tool is not called again"


async def test_the_last_answer_stays_and_calls_with_certain_arguments_have_answers_of_their_own() -> None:
    paying = (
        ScriptedTool("pay")
        .returns("a")
        .then_returns("b")
        .when(order=7)
        .fails(PermanentError("no"))
        .then_returns(lambda order: order)
    )
    outcome = await called(paying, {}, {"order": 7}, {}, {"order": 7}, {"order": 8})
    assert outcome.result == ["a", "permanent: PermanentError", "b", 7, "b"]
    assert [call.arguments for call in paying.calls] == [{}, {"order": 7}, {}, {"order": 7}, {"order": 8}]
    assert len(paying.idempotency_keys) == 5 and [call.key for call in paying.calls][1] == "pay#2"
    paying.reset()
    assert (await called(paying)).result == ["a"] and len(paying.calls) == len(paying.effects) == 1


async def test_a_tool_without_a_script_says_so() -> None:
    outcome = await called(ScriptedTool("pay"), {"order": 1})
    assert outcome.result == ["permanent: PermanentError"]
    assert "the script of pay has no answer for {'order': 1}; add .returns(...)" in outcome.journal.recorded()["pay#1"]["message"]
    with pytest.raises(TypeError, match="has a name, or is like another tool"):
        ScriptedTool()


class Receipt(BaseModel):
    cents: int


@tool("pay", idempotent=True, max_attempts=2, timeout_s=5, returns=Receipt)
def pay(order: int) -> Receipt:
    """Pay an order."""
    raise AssertionError("the real tool is not called")


async def test_a_tool_like_another_one_has_its_declaration() -> None:
    paying = ScriptedTool(like=pay).fails(BUSY).then_returns({"cents": 7})
    assert paying.describe() == pay.describe()
    outcome = await called(paying, {"order": 1}, {"order": "x"}, {})
    assert outcome.result == [{"cents": 7}, "invalid: None", "invalid: None"]
    assert attempts(paying) == [1, 2], "arguments that are refused are no call"
    wrong = ScriptedTool(like=pay).returns({"cents": "many"})
    assert (await called(wrong, {"order": 1})).result == [f"permanent: {InvalidResultError.__name__}"]
    once = ScriptedTool("pay", like=pay, idempotent=False, max_attempts=1, timeout_s=1)
    assert (once.describe().idempotent, once.describe().max_attempts, once.describe().timeout_s) == (False, 1, 1)


@tool("pay", returns={"type": "integer", "minimum": 0})
def counted(given: int) -> int:
    return given


async def test_a_result_that_breaks_a_json_schema_fails_the_call_as_on_a_server() -> None:
    assert (await called(counted, {"given": 1}, {"given": -1})).result == [1, "permanent: InvalidResultError"]
    scripted = ScriptedTool(like=counted).returns(-1)
    assert (await called(scripted, {"given": 1})).result == ["permanent: InvalidResultError"]


async def test_calls_and_effects_may_stand_in_files_for_several_processes(tmp_path: Path) -> None:
    def other_process() -> ScriptedTool:
        return ScriptedTool("pay", idempotent=True, file=tmp_path / "pay").vanishes(after_effect=True).then_returns(1)

    assert other_process().calls == [] and len(other_process().effects) == 0
    here = ToolContext(tmp_path, "key", 1)
    with pytest.raises(PermanentError, match=r"start it with `python -m tidelog.worker`"):
        await other_process().invoke({"order": 1}, here)
    assert await other_process().invoke({"order": 1}, ToolContext(tmp_path, "key", 2)) == 1
    seen = other_process()
    assert [(call.attempt, call.arguments, call.idempotency_key) for call in seen.calls] == [
        (1, {"order": 1}, "key"),
        (2, {"order": 1}, "key"),
    ]
    seen.effects.assert_once("key")
    seen.reset()
    assert other_process().calls == [] and len(other_process().effects) == 0


# --- effects -----------------------------------------------------------------------------------------------------------


async def test_effects_are_counted_and_told_with_their_attempts(tmp_path: Path) -> None:
    known: list[Effects] = [Effects()]

    @tool("pay", idempotent=True)
    def pays(ctx: ToolContext, order: int) -> int:
        known[0].happened(f"order {order}", cents=7)
        if ctx.attempt == 1:
            raise BUSY
        return 1

    for seen in (Effects(), Effects(tmp_path / "effects")):
        known[0] = seen
        seen.assert_none()
        with pytest.raises(AssertionError, match="no effect happened"):
            seen.assert_once()
        assert (await called(pays, {"order": 3})).result == [1]
        assert seen.count("order 3") == 2 and "order 3" in seen and "order 4" not in seen and len(seen) == len([*seen]) == 2
        assert seen.all[0].details == {"cents": 7} and seen.counts() == {"order 3": 2}
        with pytest.raises(AssertionError) as caught:
            seen.assert_once("order 4")
        text = str(caught.value)
        assert "'order 3' happened 2 times: in attempt 1 of pay (pay#1), then in attempt 2 of pay (pay#1). A tool" in text
        assert "\nthe effect 'order 4' did not happen\nthe effect 'order 3' happened, which nobody expected" in text
        with pytest.raises(AssertionError, match="nothing should have happened, but this did: 'order 3'"):
            seen.assert_none()
        seen.clear()
        assert (await called(pays, {"order": 5}, {"order": 5})).result == [1, 1]
        with pytest.raises(AssertionError, match="Two calls did it: give the call a key"):
            seen.assert_once()
        seen.clear()
        seen.happened(ToolContext(tmp_path, "the key", 1))
        seen.assert_once()
        seen.assert_once("the key")
        seen.clear()


# --- the clock ---------------------------------------------------------------------------------------------------------


class Waits(Agent):
    async def execute(self, ctx: Context) -> Any:
        first = await ctx.receive(timeout_s=600)
        await ctx.step("work", lambda: None)
        second = await ctx.receive(timeout_s=ctx.input)
        return [first and first.body, second and second.body]


async def test_a_clock_goes_by_itself_while_nothing_is_at_work() -> None:
    moved, began = TestClock(), time.monotonic()
    assert (await run_agent(Waits, 86_400, clock=moved)).result == [None, None]
    assert moved.passed_s == 87_000 and moved.now() == datetime(2030, 1, 2, 0, 10, tzinfo=UTC)
    assert time.monotonic() - began < 60


async def test_mail_comes_at_the_time_of_the_clock() -> None:
    moved = TestClock(datetime(2031, 5, 1, tzinfo=UTC))

    class Reads(Agent):
        async def execute(self, ctx: Context) -> Any:
            await ctx.receive(timeout_s=30, sender="nobody")
            await ctx.send("peer", "ask")
            message = await ctx.receive()
            return message and str(message.sent_at)

    outcome = await run_agent(Reads, peers=["peer"], answers=lambda to, body: "answer", clock=moved)
    assert outcome.result == "2031-05-01 00:00:30+00:00"


async def test_pauses_between_attempts_are_those_of_the_server_and_pass_at_once() -> None:
    moved = TestClock()
    paying = ScriptedTool("pay", idempotent=True, max_attempts=4).fails(ServiceRateLimitedError("slow", 120)).then_fails(BUSY)
    outcome = await called(paying, clock=moved)
    first, second, third, fourth = [call.at for call in outcome.calls if call.at is not None]
    assert (second - first).total_seconds() == 120
    assert 0 < (third - second).total_seconds() <= 1 and 0 < (fourth - third).total_seconds() <= 2


async def test_a_test_moves_a_clock_by_hand() -> None:
    moved = TestClock(by_hand=True)
    running = asyncio.create_task(run_agent(Waits, 30, clock=moved, inbox=[]))
    await moved.move(599)
    assert not running.done() and moved.passed_s == 599
    await moved.move(30)
    assert not running.done()
    await moved.move(1)
    assert (await running).result == [None, None] and moved.passed_s == 630


async def test_a_move_goes_past_each_moment_on_the_way() -> None:
    moved = TestClock(by_hand=True)
    running = asyncio.create_task(run_agent(Waits, 30, clock=moved))
    await moved.move(1000)
    assert (await running).result == [None, None] and moved.passed_s == 1000


async def test_a_tool_that_hangs_runs_out_of_time_when_the_test_moves_the_clock() -> None:
    @tool("pay", timeout_s=300)
    async def hangs() -> None:
        await asyncio.Event().wait()

    moved = TestClock(by_hand=True)
    running = asyncio.create_task(called(hangs, clock=moved))
    await moved.move(300)
    assert (await running).result == ["transient: ToolTimeoutError"]


async def test_a_clock_that_nobody_waits_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "PATIENCE_S", 0.1)
    with pytest.raises(TimeoutError, match=r"nobody waits for the clock after 0.1 real seconds; was it given to run_agent\?"):
        await TestClock(by_hand=True).move(1)


async def test_a_tool_at_work_holds_the_clock() -> None:
    @tool("pay", timeout_s=600)
    async def works() -> str:
        await asyncio.sleep(0.05)
        return "done"

    class Both(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await asyncio.gather(ctx.tool("pay"), ctx.receive(timeout_s=700))

    moved = TestClock()
    assert (await run_agent(Both, tools=[works], clock=moved)).result == ["done", None]
    assert moved.passed_s == 700, "the time of the tool was not over before the tool was"
