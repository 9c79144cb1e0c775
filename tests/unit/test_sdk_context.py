"""The context's rules: keys, replay, waiting. The testing kit runs these tests, so they test the kit, too."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from tests.pace import ANSWER_S, in_time
from tidelog import (
    Agent,
    Context,
    PermanentError,
    RecipientOverError,
    ToolContext,
    ToolError,
    TransientError,
    tool,
)
from tidelog.calling import ProcessExitError
from tidelog.context import Assignment
from tidelog.errors import ChangedCallError, DuplicateKeyError, NotJsonError, ValueTooDeepError, ValueTooLargeError
from tidelog.journal import Journal, JournalEntry, JournalUpdate, Mail, Mailbox
from tidelog.testing import MemoryJournal, MemoryRecorder, SentMessage, ToolCall, run_agent

R = TypeVar("R", bound=MemoryRecorder)


@tool("echo", idempotent=True)
async def echo(value: Any, pause_s: float = 0) -> Any:
    await asyncio.sleep(pause_s)
    return value


@tool("flaky", idempotent=True, max_attempts=3)
def flaky(ctx: ToolContext, good_on: int) -> int:
    if ctx.attempt < good_on:
        raise TransientError("not yet")
    return ctx.attempt


@tool("refuse")
def refuse() -> None:
    raise PermanentError("never")


def agent_of(function: Any) -> type[Agent]:
    class Tested(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await function(ctx)

    return Tested


async def test_a_part_knows_its_number() -> None:
    async def execute(ctx: Context) -> Any:
        return [ctx.part, ctx.step_key]

    assert (await run_agent(agent_of(execute), step_key="reviews.3", part=3)).result == [3, "reviews.3"]
    assert (await run_agent(agent_of(execute))).result == [None, "tested"]


async def test_calls_are_keyed_by_name_and_count() -> None:
    fast = asyncio.Event()

    @tool("echo", idempotent=True)
    async def echo(value: Any) -> Any:
        if value == "slow":
            await fast.wait()
        fast.set()
        return value

    async def execute(ctx: Context) -> Any:
        await ctx.step("parse", lambda: 1)
        await asyncio.gather(ctx.tool("echo", value="slow"), ctx.tool("echo", value="fast"), ctx.tool("echo", key="mine", value=3))
        await ctx.send("peer", "hello")
        await ctx.receive(timeout_s=0)
        await ctx.receive(timeout_s=0, sender="peer")
        await ctx.state.set("x", 1)
        return [await ctx.state.get("x"), await ctx.state.get("y", default="none")]

    outcome = await run_agent(agent_of(execute), tools=[echo], peers=["peer"])
    assert outcome.result == [1, "none"]
    recorded = outcome.journal.recorded()
    assert [recorded[key] for key in ("parse", "echo#1", "echo#2", "mine")] == [1, "slow", "fast", 3]
    assert sorted(recorded) == sorted(
        [
            "parse",
            "echo#1",
            "echo#2",
            "mine",
            "send:peer#1",
            "receive#1",
            "receive:peer#1",
            "state.set:x#1",
            "state.get:x#1",
            "state.get:y#1",
        ]
    )
    assert outcome.sent == [SentMessage("peer", "hello")] and outcome.state == {"x": 1}


async def test_after_a_crash_recorded_calls_are_not_repeated() -> None:
    effects: list[str] = []
    crash = True

    async def execute(ctx: Context) -> Any:
        first = await ctx.step("first", effects.append, "first")
        told = await ctx.tool("echo", value="tool")
        got = await ctx.receive(timeout_s=1)
        await ctx.send("peer", "once")
        seen = await ctx.state.get("x", default=0)
        await ctx.state.set("x", seen + 1)
        if crash:
            raise OSError("the machine is gone")
        return [first, told, got.body if got else None, seen, await ctx.step("second", effects.append, "second"), ctx.attempt]

    journal = MemoryJournal()
    agent = agent_of(execute)
    with pytest.raises(OSError, match="gone"):
        await run_agent(agent, tools=[echo], peers=["peer"], inbox=[("peer", {"n": 1})], journal=journal)
    crash = False
    outcome = await run_agent(agent, tools=[echo], peers=["peer"], journal=journal)
    assert outcome.result == [None, "tool", {"n": 1}, 0, None, 2]
    assert effects == ["first", "second"]
    assert outcome.sent == [SentMessage("peer", "once")] and outcome.state == {"x": 1}
    assert outcome.calls == [ToolCall("echo", {"value": "tool"}, 1)] and outcome.unused_keys == ()


async def test_a_call_under_way_when_the_agent_crashed_is_waited_for_and_not_made_again() -> None:
    under_way, go = asyncio.Event(), asyncio.Event()

    @tool("late", idempotent=True)
    async def late() -> str:
        under_way.set()
        await go.wait()
        return "late"

    async def execute(ctx: Context) -> Any:
        call = asyncio.ensure_future(ctx.tool("late"))
        await under_way.wait()
        if ctx.attempt == 1:
            call.cancel()
            raise OSError
        await asyncio.sleep(0)  # so the result is asked for before it exists
        go.set()
        return await call

    journal = MemoryJournal()
    with pytest.raises(OSError):
        await run_agent(agent_of(execute), tools=[late], journal=journal)
    assert (await run_agent(agent_of(execute), tools=[late], journal=journal)).result == "late"
    assert list(journal.recorded()) == ["late#1"]


async def test_changed_code_runs_missing_keys_and_reports_left_over_ones() -> None:
    async def before(ctx: Context) -> Any:
        await ctx.step("old", lambda: "old")
        await ctx.step("kept", lambda: "kept by the first")
        raise OSError

    async def after(ctx: Context) -> Any:
        return [await ctx.step("new", lambda: "new"), await ctx.step("kept", lambda: "never run")]

    journal = MemoryJournal()
    with pytest.raises(OSError):
        await run_agent(agent_of(before), journal=journal)
    outcome = await run_agent(agent_of(after), journal=journal)
    assert outcome.result == ["new", "kept by the first"] and outcome.unused_keys == ("old",)


async def test_a_key_used_twice_is_an_error_and_not_a_stale_result() -> None:
    async def execute(ctx: Context) -> Any:
        for number in range(2):
            await ctx.step("same", int, number)

    with pytest.raises(DuplicateKeyError, match="'same'"):
        await run_agent(agent_of(execute))


async def test_a_step_gives_json_the_first_time_too() -> None:
    async def execute(ctx: Context) -> Any:
        value = await ctx.step("tuple", lambda: (1, {"a": {2}}))
        assert value == [1, {"a": [2]}]
        value.append("changed by the caller")

    outcome = await run_agent(agent_of(execute))
    assert outcome.journal.recorded() == {"tuple": [1, {"a": [2]}]}


async def test_sync_steps_run_side_by_side_in_threads() -> None:
    together = threading.Barrier(8, timeout=ANSWER_S)  # opens when all eight calls are under way

    async def execute(ctx: Context) -> Any:
        await asyncio.gather(*(ctx.step(f"wait {number}", together.wait) for number in range(8)))

    await run_agent(agent_of(execute))
    assert not together.broken


async def test_an_exception_of_a_step_comes_through_and_is_not_recorded() -> None:
    async def execute(ctx: Context) -> Any:
        with pytest.raises(ZeroDivisionError):
            await ctx.step("divide", lambda: 1 / 0)
        with pytest.raises(ProcessExitError):
            await ctx.step("exit", exit, 3)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await ctx.step("next", lambda: next(iter(())))
        return "alive"

    outcome = await run_agent(agent_of(execute))
    assert outcome.result == "alive" and outcome.journal.recorded() == {}


async def test_a_tool_is_retried_as_declared_and_fails_with_its_kind() -> None:
    async def execute(ctx: Context) -> Any:
        good = await ctx.tool("flaky", good_on=3)
        kinds = []
        calls: tuple[tuple[str, dict[str, Any]], ...] = (("flaky", {"good_on": 9}), ("refuse", {}), ("echo", {}), ("none", {}))
        for name, arguments in calls:
            try:
                await ctx.tool(name, **arguments)
            except ToolError as error:
                kinds.append(error.kind)
        return [good, kinds]

    outcome = await run_agent(agent_of(execute), tools=[flaky, refuse, echo])
    assert outcome.result == [3, ["transient", "permanent", "invalid", "permanent"]]
    assert [call.attempt for call in outcome.calls] == [1, 2, 3, 1, 2, 3, 1], "a call that is refused is not made"


async def test_mail_is_received_once_in_order_by_sender_and_times_out() -> None:
    async def execute(ctx: Context) -> Any:
        from_b = await ctx.receive(sender="b")
        both = await asyncio.gather(ctx.receive(), ctx.receive())
        nothing = await ctx.receive(timeout_s=0.05)
        await ctx.send("a", "ping")
        reply = await ctx.receive(timeout_s=5, sender="a")
        return [message.body if message else None for message in (from_b, *both, nothing, reply)]

    outcome = await run_agent(
        agent_of(execute), peers=["a", "b"], inbox=[("a", 1), ("b", 2), ("a", 3)], answers=lambda to, body: f"{to} {body}"
    )
    assert outcome.result == [2, 1, 3, None, "a ping"]


class SlowReceipts(MemoryRecorder):
    """A recorder whose receipts wait until they may go on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        self.begun.set()
        await self.go.wait()
        await super().record_receipt(key, message_id)


def recorder_on(journal: MemoryJournal, kind: Callable[..., R]) -> R:
    return kind(journal, {}, ["a"], None, Path())


def context_with(recorder: MemoryRecorder) -> Context:
    assignment = Assignment(uuid4(), uuid4(), 1, "me", "me", None, {}, ("a",), ())
    return Context(assignment, Journal(0, (), ()), recorder)


async def test_mail_is_not_lost_when_the_caller_gives_up_while_it_is_being_received() -> None:
    journal = MemoryJournal()
    recorder = recorder_on(journal, SlowReceipts)
    context = context_with(recorder)
    journal.deliver("a", "precious")
    receiving = asyncio.create_task(context.receive(timeout_s=60))
    await in_time(recorder.begun.wait(), 10)
    receiving.cancel()  # while the receipt is under way
    with pytest.raises(asyncio.CancelledError):
        await receiving
    recorder.go.set()
    message = await context.receive(timeout_s=10)
    assert message is not None and message.body == "precious"
    context.close()


async def test_mail_is_not_lost_when_the_caller_is_cancelled_in_the_moment_it_arrives() -> None:
    journal = MemoryJournal()
    context = context_with(recorder_on(journal, MemoryRecorder))
    waiting = asyncio.create_task(context.receive(timeout_s=60))
    for _ in range(20):  # now it waits
        await asyncio.sleep(0)
    journal.deliver("a", "precious")
    waiting.get_loop().call_soon(waiting.cancel)
    for _ in range(20):  # mail or cancellation, in either order
        await asyncio.sleep(0)
    first = None if waiting.cancelled() else await waiting
    second = await context.receive(timeout_s=10 if first is None else 0)
    assert [message.body for message in (first, second) if message] == ["precious"]
    context.close()


def test_an_update_that_overlaps_with_an_earlier_one_changes_nothing_twice() -> None:
    mail = Mail(message_id=uuid4(), sender="a", body=1)
    done = JournalEntry(key="k", kind="call", status="ok", result=1)
    journal = Journal(1, (), ())
    for version, entry in ((3, done), (2, done.model_copy(update={"status": "pending", "result": None}))):
        journal.apply(JournalUpdate(version=version, journal=(entry,), mailbox=(mail,)))
    assert journal.version == 3 and journal.find("k") == done
    assert (journal.mailbox.take(None), journal.mailbox.take(None)) == (mail, None)


def test_a_mailbox_gives_the_oldest_message_of_a_sender_or_of_all() -> None:
    mails = [Mail(message_id=uuid4(), sender=sender, body=number) for number, sender in enumerate("abab")]
    box = Mailbox(mails)
    assert box.has(None) and box.has("a") and not box.has("c") and box.take("c") is None
    assert [box.take("b"), box.take(None)] == [mails[1], mails[0]]
    box.put_back(mails[0])
    assert [box.take("a"), box.take("a"), box.take("a")] == [mails[0], mails[2], None]
    box.put_back(mails[1])
    assert [box.take(None), box.take(None), box.take(None)] == [mails[1], mails[3], None]
    assert not box.has("b")


async def test_the_shared_context_can_be_written_at_an_expected_version() -> None:
    async def execute(ctx: Context) -> Any:
        await ctx.state.set("x", "mine", expect=0)
        with pytest.raises(PermanentError, match="version 1, not 0"):
            await ctx.state.set("x", "again", expect=0)
        return await ctx.state.get("x")

    assert (await run_agent(agent_of(execute))).result == "mine"


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("x" * 300_000, ValueTooLargeError), (object(), NotJsonError), (float("inf"), NotJsonError),
        (nested(65), ValueTooDeepError), (nested(300), ValueTooDeepError), (nested(5_000), ValueTooDeepError),
    ],
    ids=["large", "object", "infinite", "65 levels", "300 levels", "5,000 levels"],
)  # fmt: skip
async def test_values_over_the_limit_or_not_json_are_refused_everywhere(value: Any, error: type[Exception]) -> None:
    async def execute(ctx: Context) -> Any:
        for call in (
            lambda: ctx.step("s", lambda: value),
            lambda: ctx.tool("echo", value=value),
            lambda: ctx.send("a", value),
            lambda: ctx.state.set("x", value),
        ):
            with pytest.raises(error):
                await call()
        return value

    with pytest.raises(error):
        await run_agent(agent_of(execute), tools=[echo], peers=["a"])
    for given in ({"input": value}, {"results": {"a": value}}, {"state": {"a": value}}, {"inbox": [("a", value)]}):
        with pytest.raises(error):
            await run_agent(agent_of(execute), **given)


async def test_the_deepest_values_go_through_every_call() -> None:
    deep, inner = nested(64), nested(63)

    async def execute(ctx: Context) -> Any:
        assert ctx.input == deep
        assert await ctx.step("s", lambda: deep) == deep
        assert await ctx.tool("echo", value=inner) == inner
        await ctx.send("a", deep)
        await ctx.state.set("x", deep)
        return await ctx.state.get("x")

    outcome = await run_agent(agent_of(execute), deep, tools=[echo], peers=["a"], inbox=[("a", deep)])
    assert outcome.result == deep and outcome.sent[0].body == deep


async def test_an_agent_that_exits_does_not_exit_the_process() -> None:
    async def execute(ctx: Context) -> Any:
        raise SystemExit(3)

    with pytest.raises(ProcessExitError):
        await run_agent(agent_of(execute))


async def test_calls_that_an_agent_leaves_open_end_with_it() -> None:
    left: list[asyncio.Task[Any]] = []
    gates = asyncio.Event()

    @tool("slow")
    async def slow() -> None:
        await gates.wait()

    class Leaves(Agent):
        async def execute(self, ctx: Context) -> str:
            left.extend(asyncio.create_task(call) for call in (ctx.tool("slow"), ctx.receive(timeout_s=600)))
            while not ctx.open_calls():  # noqa: ASYNC110  # a turn or two
                await asyncio.sleep(0)
            assert ctx.open_calls() == ("slow#1",)

            async def after_the_end() -> None:
                await gates.wait()
                await ctx.tool("slow", key="later")

            left.append(asyncio.create_task(after_the_end()))
            return "quick"

    assert (await in_time(run_agent(Leaves, tools=[slow]), 10)).result == "quick"
    gates.set()
    await in_time(asyncio.wait(left), 10)
    assert [task.cancelled() for task in left] == [True, True, True]


async def test_a_message_to_a_step_that_has_ended_is_an_error() -> None:
    async def writes(ctx: Context) -> None:
        with pytest.raises(RecipientOverError, match="the message to 'gone' was not sent: the recipient is completed") as caught:
            await ctx.send("gone", 1)
        assert caught.value.to == "gone" and isinstance(caught.value, PermanentError)

    assert (await run_agent(agent_of(writes), peers=["gone"], over=["gone"])).sent == []


async def test_agents_and_tools_read_for_whom_they_work() -> None:
    @tool(idempotent=True)
    def whom(ctx: ToolContext) -> Any:
        return ctx.on_behalf_of

    async def execute(ctx: Context) -> Any:
        return [ctx.on_behalf_of, await ctx.tool("whom")]

    assert (await run_agent(agent_of(execute), tools=[whom], on_behalf_of="Ada")).result == ["Ada", "Ada"]
    assert (await run_agent(agent_of(execute), tools=[whom])).result == [None, None]


async def _child(named: dict[str, Any], ctx: Context) -> Any:
    return await ctx.child(**named)


async def test_a_child_run_of_a_plan_is_known_by_the_plan() -> None:
    plan = {"steps": [{"key": "a", "agent": "critic"}]}

    async def twice(ctx: Context) -> Any:
        return [await ctx.child(plan=plan, input=number) for number in (1, 2)]

    made = {"plan": lambda number: 10 * number}
    outcome = await run_agent(agent_of(twice), children=made)
    assert outcome.result == [10, 20] and outcome.journal.started == [("plan", 1), ("plan", 2)]

    async def others(ctx: Context) -> Any:
        return await ctx.child(plan={**plan, "result": "1"}, input=1)

    with pytest.raises(ChangedCallError):
        await run_agent(agent_of(others), children=made, journal=outcome.journal)
    wrong: list[dict[str, Any]] = [{}, {"agent": "critic", "plan": plan}]
    for named in wrong:
        with pytest.raises(PermanentError, match="give one of them"):
            await run_agent(agent_of(partial(_child, named)))
