"""The testing kit: an agent crashes at every point, and a difference is told with its point and its cure."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tidelog import Agent, Context, PermanentError, Reconciled, ToolContext, ToolError, tool
from tidelog.testing import (
    AmbiguousCallError,
    CrashPoint,
    Effects,
    MemoryJournal,
    NoSuchCrash,
    Outcome,
    ScriptedTool,
    assert_survives_crashes,
    crash_points,
    run_agent,
)
from tidelog.tools import Tool

EFFECTS = Effects()


def told(caught: pytest.ExceptionInfo[AssertionError]) -> str:
    return str(caught.value)


class Shop(Agent):
    """Prices an order, charges it, and says so."""

    async def execute(self, ctx: Context) -> Any:
        price = await ctx.step("price", lambda: 7 * ctx.input)
        paid = await ctx.tool("payment.charge", order=ctx.input, cents=price)
        await ctx.state.set("paid", paid)
        await ctx.send("mailer", paid)
        answer = await ctx.receive(timeout_s=30)
        nothing = await ctx.receive(timeout_s=3600)
        return [price, paid, answer and answer.body, nothing]


def charge(idempotent: bool = False, reconcile: bool = False) -> ScriptedTool:
    made = ScriptedTool("payment.charge", idempotent=idempotent).returns(lambda order, cents: {"charged": cents})
    return made.reconciles() if reconcile else made


OPTIONS: dict[str, Any] = {"peers": ["mailer"], "answers": lambda to, body: ["thanks", body]}


@pytest.mark.parametrize(
    ("paying", "asked"),
    [(charge(idempotent=True), 0), (charge(reconcile=True), 0), (charge(), 2)],
    ids=["idempotent", "asks", "neither"],
)
async def test_each_crash_of_a_good_agent_leads_to_the_same_end(paying: ScriptedTool, asked: int) -> None:
    report = await assert_survives_crashes(Shop, 3, tools=[paying], **OPTIONS)
    entries = [point for point in report.points if point.call is None]
    assert [point.entry for point in entries] == [1, 1, 2, 3, 4, 5, 6, 7] and entries[0].before
    assert [point.after_effect for point in report.points if point.call == "payment.charge#1"] == [False, True]
    assert len(report.people_asked) == asked and report.left_out == 0
    paying.effects.assert_once()


@pytest.mark.parametrize("order", [3, 13])
async def test_the_person_of_the_kit_knows_what_a_vanished_worker_saw(order: int) -> None:
    @tool("payment.charge")
    def charges(ctx: ToolContext, order: int, cents: int) -> int:
        if order == 13:
            raise PermanentError("no cover")
        EFFECTS.happened(ctx)
        return cents

    class Pays(Agent):
        async def execute(self, ctx: Context) -> Any:
            try:
                return await ctx.tool("payment.charge", order=ctx.input, cents=7)
            except ToolError as error:
                return error.reason

    report = await assert_survives_crashes(Pays, order, tools=[charges], effects=EFFECTS)
    assert len(report.people_asked) == 2 and len(EFFECTS) == (order == 3)


async def test_ids_and_the_answers_of_a_script_are_the_same_after_a_crash() -> None:
    class Reads(Agent):
        async def execute(self, ctx: Context) -> Any:
            message = await ctx.receive()
            first, second = await ctx.tool("pay"), await ctx.tool("pay")
            return [message and str(message.id), first, second, str(await ctx.send("peer", 1))]

    paying = ScriptedTool("pay", idempotent=True).returns("first").then_returns("second")
    report = await assert_survives_crashes(Reads, tools=[paying], inbox=[("peer", "hello")], peers=["peer"])
    assert len(report.points) == 6 + 4


async def test_nobody_may_be_asked_where_the_test_says_so() -> None:
    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(Shop, 3, tools=[charge()], ask_people=False, **OPTIONS)
    assert "of the worker of 'payment.charge#1' in attempt 1, before the tool was called" in told(caught)
    assert "a person had to be asked: the worker vanished in attempt 1, and the tool must not be called again" in told(caught)
    assert "crash_at=CrashPoint(call='payment.charge#1', attempt=1, after_effect=False)" in told(caught)


async def test_a_call_whose_key_changes_is_named_with_both_keys() -> None:
    class Careless(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await ctx.tool("payment.charge", key=f"charge {ctx.attempt}", order=1)

    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(Careless, tools=[ScriptedTool("payment.charge").returns(1)])
    assert "Careless does not survive a crash at entry 1 of 2, when the call 'charge 1' was requested:" in told(caught)
    assert "it made the call 'charge 2', which it does not make without a crash. Give the call a key" in told(caught)
    assert "happened, which does not happen without a crash" in told(caught)
    assert "Point 1 of 4. Alone: run_agent(Careless, ..., crash_at=CrashPoint(entry=1))" in told(caught)


async def test_two_executions_that_differ_by_chance_are_no_fault_of_a_crash() -> None:
    class Chance(Agent):
        async def execute(self, ctx: Context) -> Any:
            await ctx.step("one", lambda: 1)
            return str(uuid4())

    with pytest.raises(AssertionError, match=r"two executions of Chance without a crash differ.*\n- the result is"):
        await assert_survives_crashes(Chance)
    await assert_survives_crashes(Chance, same=lambda outcome: len(outcome.result))


async def test_a_step_with_an_effect_is_found_between_the_step_and_its_entry() -> None:
    class Mails(Agent):
        async def execute(self, ctx: Context) -> Any:
            await ctx.step("mail", lambda: EFFECTS.happened("mail to Ada"))

    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(Mails, effects=EFFECTS)
    assert "Mails does not survive a crash between the step 'mail' and its entry:" in told(caught)
    assert "the effect 'mail to Ada' happened 2 times" in told(caught) and "let a tool do what must happen once" in told(caught)


async def test_a_tool_that_is_not_as_idempotent_as_it_says_is_found_with_its_attempts() -> None:
    @tool("payment.charge", idempotent=True)
    def forgetful(ctx: ToolContext, order: int, cents: int) -> int:
        EFFECTS.happened(f"order {order}", ctx)
        return cents

    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(Shop, 3, tools=[forgetful], effects=EFFECTS, **OPTIONS)
    assert "in attempt 1, after the tool was done, before its result was recorded" in told(caught)
    attempts = "in attempt 1 of payment.charge (payment.charge#1), then in attempt 2 of payment.charge (payment.charge#1)"
    assert f"the effect 'order 3' happened 2 times: {attempts}. A tool with idempotent=True" in told(caught)


async def test_an_agent_that_fails_or_hangs_after_a_crash_is_told() -> None:
    class Once(Agent):
        async def execute(self, ctx: Context) -> Any:
            await ctx.step("one", lambda: 1)
            if ctx.attempt > 1 and ctx.input == "fails":
                raise PermanentError("it cannot begin twice")
            if ctx.attempt > 1:
                await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="\n- it failed with PermanentError: it cannot begin twice\n"):
        await assert_survives_crashes(Once, "fails")
    with pytest.raises(AssertionError, match=r"\n- it came to no end within 1.5 real seconds\n"):
        await assert_survives_crashes(Once, "hangs", within_s=1.5)


async def test_an_agent_that_hangs_without_a_crash_is_told() -> None:
    class Hangs(Agent):
        async def execute(self, ctx: Context) -> Any:
            await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"Hangs comes to no end within 0\.05 real seconds, without any crash"):
        await assert_survives_crashes(Hangs, within_s=0.05)


async def test_calls_side_by_side_survive_every_crash() -> None:
    class Many(Agent):
        async def execute(self, ctx: Context) -> Any:
            calls = [ctx.tool("payment.charge", key=f"order {order}", order=order, cents=1) for order in range(5)]
            return [*await asyncio.gather(*calls, ctx.step("meanwhile", lambda: "done"))]

    paying = charge(reconcile=True)
    report = await assert_survives_crashes(Many, tools=[paying])
    assert len(report.points) == 2 * 5 + 2 + 2 * 5 and len(paying.effects) == 5


async def test_lost_answers_states_and_messages_are_told() -> None:
    class Counts(Agent):
        async def execute(self, ctx: Context) -> Any:
            await ctx.step("one", lambda: 1)
            await ctx.state.set("attempts", ctx.attempt)
            await ctx.send("peer", ctx.attempt)
            return ctx.attempt

    with pytest.raises(AssertionError) as caught:
        await assert_survives_crashes(Counts, peers=["peer"])
    for part in (
        "the result is 2, without a crash 1",
        'the shared state is {"attempts": 2}, without a crash {"attempts": 1}',
        'its messages were ["[\\"peer\\", 2]"], without a crash',
    ):
        assert part in told(caught)


async def test_a_recorded_key_that_is_not_used_again_is_told() -> None:
    class Forgets(Agent):
        async def execute(self, ctx: Context) -> Any:
            if ctx.attempt == 1:
                await ctx.step("one", lambda: 1)
            return 1

    with pytest.raises(AssertionError, match="it did not use these recorded keys again: one"):
        await assert_survives_crashes(Forgets)


async def test_of_many_points_some_are_left_out_evenly() -> None:
    class Long(Agent):
        async def execute(self, ctx: Context) -> Any:
            return [await ctx.step(f"step {number}", int) for number in range(20)]

    report = await assert_survives_crashes(Long, limit=10)
    assert (len(report.points), report.left_out) == (10, 30)
    assert [point.entry for point in report.points] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]


async def test_tools_may_be_made_anew_and_the_world_reset() -> None:
    world: list[str] = []

    def tools() -> list[Tool[..., Any]]:
        @tool("payment.charge", idempotent=True)
        def charges(ctx: ToolContext, order: int, cents: int) -> int:
            if ctx.idempotency_key not in world:
                world.append(ctx.idempotency_key)
            return len(world)

        return [charges]

    report = await assert_survives_crashes(Shop, 3, tools=tools, reset=world.clear, **OPTIONS)
    assert len(report.points) == 10 and len(world) == 1


# --- one crash ---------------------------------------------------------------------------------------------------------


async def test_an_agent_crashes_at_an_entry_and_goes_on() -> None:
    seen: list[str] = []

    class Two(Agent):
        async def execute(self, ctx: Context) -> Any:
            try:
                await ctx.step("one", seen.append, "one")
                await ctx.step("two", seen.append, "two")
            finally:
                if ctx.attempt == 1:
                    await ctx.step("cleans up", seen.append, "an agent that is gone cleans nothing up")
            return ctx.attempt

    outcome = await run_agent(Two, crash_at=1)
    assert (outcome.result, outcome.attempts, seen) == (2, 2, ["one", "two"])
    assert [(entry.number, entry.key) for entry in outcome.journal.written] == [(1, "one"), (2, "two")]
    seen.clear()
    assert (await run_agent(Two, crash_at=CrashPoint(entry=2, before=True))).result == 2
    assert seen == ["one", "two", "two"]


async def test_calls_go_on_while_the_agent_is_gone() -> None:
    paying = ScriptedTool("pay").returns("paid")

    class Pays(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await ctx.tool("pay")

    outcome = await run_agent(Pays, tools=[paying], crash_at=1)
    assert (outcome.result, outcome.attempts, len(paying.calls)) == ("paid", 2, 1)
    after: list[str] = []

    class Goes(Agent):
        async def execute(self, ctx: Context) -> Any:
            after.append(await ctx.tool("pay"))

    await run_agent(Goes, tools=[paying], crash_at=2)
    assert after == ["paid"], "an agent that is gone hears of nothing"
    assert [str(entry) for entry in outcome.journal.written] == [
        "the call 'pay#1' was requested",
        "the result of 'pay#1' was recorded",
    ]
    assert crash_points(outcome)[-1] == CrashPoint(call="pay#1", attempt=1, after_effect=True)


@pytest.mark.parametrize(
    "point", [9, CrashPoint(entry=9), CrashPoint(call="none#1"), CrashPoint(call="payment.charge#1", attempt=2)]
)
async def test_a_point_that_does_not_come_is_an_error(point: int | CrashPoint) -> None:
    with pytest.raises(
        NoSuchCrash, match=r"the agent did not come to CrashPoint.*: its entries were: 1 the step 'price' was recorded; 2"
    ):
        await run_agent(Shop, 1, tools=[charge()], crash_at=point, inbox=[("mailer", 1), ("mailer", 2)], peers=["mailer"])


@pytest.mark.parametrize("wrong", [{}, {"entry": 1, "call": "a"}, {"entry": 0}, {"entry": "a"}])
def test_a_crash_point_is_one_thing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an entry, from 1 on, or the key of a call"):
        CrashPoint(**wrong)


# --- a person ----------------------------------------------------------------------------------------------------------


class CallsOne(Agent):
    async def execute(self, ctx: Context) -> Any:
        try:
            return await ctx.tool("pay")
        except ToolError as error:
            return f"{error.kind}: {error.reason}"


async def test_without_a_person_an_ambiguous_call_ends_the_test_with_a_word() -> None:
    paying = ScriptedTool("pay").vanishes(after_effect=True).then_returns("paid")
    journal = MemoryJournal()
    with pytest.raises(
        AmbiguousCallError, match=r"the call 'pay#1' of pay is ambiguous: the worker vanished in attempt 1.*resolve="
    ):
        await run_agent(CallsOne, tools=[paying], journal=journal)
    outcome = await run_agent(CallsOne, tools=[paying], journal=journal, resolve=lambda call: Reconciled.succeeded(call.attempt))
    assert (outcome.result, len(paying.calls)) == (1, 1), "the next execution asks, it does not call again"


def refuses(_: object) -> Reconciled:
    raise PermanentError("no trace of it")


@pytest.mark.parametrize(
    ("person", "result", "calls"),
    [
        (lambda call: Reconciled.succeeded([call.tool, call.key, call.reason[:19]]), ["pay", "pay#1", "the worker vanished"], 1),
        (lambda call: Reconciled.not_happened(), "paid", 2),
        (refuses, "permanent: no trace of it", 1),
    ],
)
async def test_a_person_says_what_became_of_a_call(person: Any, result: Any, calls: int) -> None:
    paying = ScriptedTool("pay").vanishes().then_returns("paid")
    outcome: Outcome = await run_agent(CallsOne, tools=[paying], resolve=person)
    assert (outcome.result, len(paying.calls)) == (result, calls)


async def test_a_person_who_says_nothing_of_use_is_no_person() -> None:
    paying = ScriptedTool("pay").vanishes()
    with pytest.raises(AmbiguousCallError):
        await run_agent(CallsOne, tools=[paying], resolve=lambda call: Reconciled.unknown())
    with pytest.raises(TypeError, match="resolve must return a Reconciled, not str"):
        await run_agent(CallsOne, tools=[paying], resolve=lambda call: "yes")  # type: ignore[arg-type, return-value]
