"""An agent's present code against what an execution of before recorded, without any effect."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import pytest

from tidelog import Agent, Context, ToolError, tool
from tidelog.testing import Record, Replayed, records_of, replay_agent, replay_agents

RUN, OTHER = UUID(int=1), UUID(int=9)
AGENT_RUN, CALL, MESSAGE = UUID(int=2), UUID(int=3), UUID(int=4)
PLAN = {"steps": [{"key": "first", "agent": "one"}, {"key": "review", "agent": "critic", "after": ["first"], "input": 7}]}
TRACEBACK = {"type": "E", "message": "no", "kind": "permanent", "traceback": "t"}
CALLED: list[str] = []


def event(topic: str, subject: object = RUN, **data: Any) -> dict[str, Any]:
    return {"type": topic, "subject": str(subject), "data": data}


def entry(key: str, kind: str, result: Any) -> dict[str, Any]:
    return event("agent_run.step_recorded", AGENT_RUN, key=key, kind=kind, result=result)


BEGUN = [
    event("run.started", input="in", plan=PLAN),
    event("run.step_completed", step="first", agent_run_id=str(OTHER), result="F"),
    event("run.step_scheduled", step="review", agent="critic", agent_run_id=str(AGENT_RUN)),
    event("agent_run.claimed", AGENT_RUN, attempt=2),
]
DONE = [
    *BEGUN, entry("s", "step", 5),
    event("agent_run.call_started", AGENT_RUN, key="look#1", tool="look", invocation_id=str(CALL)),
    event("invocation.requested", CALL, agent_run_id=str(AGENT_RUN), key="look#1", tool="look", arguments={"n": 1}),
    event("invocation.succeeded", CALL, key="look#1", result={"seen": 1}),
    entry("send:first#1", "send", str(MESSAGE)),
    event("message.sent", MESSAGE, sender="review", recipient="first", body="hello", sent_at="2026-11-30T08:00:00Z"),
    event("agent_run.mail_received", AGENT_RUN, key="receive#1", message_id=None),
    entry("state.set:v#1", "state_set", {"name": "v", "found": True, "value": 1, "value_version": 1}),
    entry("state.get:v#1", "state_get", {"name": "v", "found": True, "value": 1, "value_version": 1}),
    event("agent_run.completed", AGENT_RUN, result={"of": "F"}),
]  # fmt: skip


async def record_of(*events: Mapping[str, Any]) -> Record:
    async def given(run_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
        assert run_id == RUN
        for each in events:
            yield each

    [record] = await records_of(RUN, given)
    return record


class Critic(Agent):
    """As it was recorded."""

    name = "critic"
    first: Any = None

    def counted(self) -> int:
        CALLED.append("step")
        return 5

    async def execute(self, ctx: Context) -> Any:
        assert (ctx.input, dict(ctx.results), ctx.attempt, ctx.peers) == (7, {"first": "F"}, 2, ("first",))
        assert await ctx.step("s", self.counted) == 5
        assert await ctx.tool("look", n=1) == {"seen": 1}
        await ctx.send("first", "hello")
        assert await ctx.receive() is None
        await ctx.state.set("v", 1)
        assert await ctx.state.get("v") == 1
        return {"of": ctx.results["first"]}


@tool("look")
def look(n: int) -> None:
    CALLED.append("tool")


def told(replayed: Replayed) -> list[tuple[str, str | None, Any, Any]]:
    return [(one.what, one.key, one.recorded, one.now) for one in replayed.divergences]


async def test_the_same_code_does_not_diverge_and_has_no_effect() -> None:
    CALLED.clear()
    record = await record_of(*DONE)
    replayed = await replay_agent(Critic, record)
    assert (told(replayed), replayed.end, replayed.result) == ([], "completed", {"of": "F"})
    assert CALLED == []
    assert told(await replay_agent(Critic, record, run_steps=True)) == []
    assert CALLED == ["step"]
    assert Record.model_validate_json(record.model_dump_json()) == record


async def test_each_divergence_is_told_with_both_values() -> None:
    class Changed(Critic):
        def counted(self) -> int:
            return 6

        async def execute(self, ctx: Context) -> Any:
            await ctx.step("s", self.counted)
            await ctx.tool("look", n=2)
            await ctx.send("first", "bye")
            await ctx.receive()
            await ctx.state.set("v", 2)
            return "other"

    replayed = await replay_agent(Changed, await record_of(*DONE), run_steps=True)
    assert told(replayed) == [
        ("other recorded result", "s", 5, 6),
        ("other arguments", "look#1", {"n": 1}, {"n": 2}),
        ("other message", "send:first#1", {"to": "first", "body": "hello"}, {"to": "first", "body": "bye"}),
        ("other value", "state.set:v#1", {"name": "v", "value": 1}, {"name": "v", "value": 2}),
        ("left-over key", "state.get:v#1", None, None),
        ("other result", None, {"of": "F"}, "other"),
    ]
    assert str(replayed.divergences[1]) == "step 'review': other arguments 'look#1'"


async def test_other_tools_and_other_kinds_under_a_key() -> None:
    class Other(Critic):
        async def execute(self, ctx: Context) -> Any:
            await ctx.tool("watch", key="look#1", n=1)
            await ctx.tool("look", key="s")

    replayed = await replay_agent(Other, await record_of(*DONE))
    assert told(replayed) == [("other tool", "look#1", "look", "watch"), ("other kind", "s", "step", "call")]
    assert replayed.end == "diverged"


@pytest.mark.parametrize("way", ["step", "tool", "send", "receive", "get", "set"])
async def test_a_key_that_is_missing_ends_the_replay_whatever_the_agent_catches(way: str) -> None:
    class More(Critic):
        async def execute(self, ctx: Context) -> Any:
            ways = {
                "step": lambda: ctx.step("new", self.counted), "tool": lambda: ctx.tool("look", key="new", n=1),
                "send": lambda: ctx.send("first", 1, key="new"), "receive": lambda: ctx.receive(key="new"),
                "get": lambda: ctx.state.get("n", key="new"), "set": lambda: ctx.state.set("n", 1, key="new"),
            }  # fmt: skip
            try:
                await ways[way]()
            except Exception:  # noqa: BLE001  # an agent that goes on whatever fails
                CALLED.append("went on")
            CALLED.append("after")

    CALLED.clear()
    record = await record_of(*DONE)
    replayed = await replay_agent(More, record)
    assert (replayed.end, [(one.what, one.key) for one in replayed.divergences]) == ("diverged", [("missing key", "new")])
    unfinished = await replay_agent(More, await record_of(*BEGUN))
    assert (unfinished.end, told(unfinished)) == ("beyond", []), "an execution that had not completed goes on"
    assert CALLED == []


async def test_a_function_that_was_not_recorded_may_be_run() -> None:
    class More(Critic):
        async def execute(self, ctx: Context) -> Any:
            await ctx.step("new", self.counted)
            return await super().execute(ctx)

    replayed = await replay_agent(More, await record_of(*DONE), run_steps=True)
    assert told(replayed) == [("missing key", "new", None, {"kind": "step"})] and replayed.end == "completed"


async def test_outcomes_are_compared() -> None:
    class Broken(Critic):
        async def execute(self, ctx: Context) -> Any:
            await super().execute(ctx)
            raise ValueError("broken")

    failed = [*DONE[:-1], event("agent_run.failed", AGENT_RUN, error={"type": "ValueError", "message": "broken", "traceback": "t"})]
    error = {"type": "ValueError", "message": "broken"}
    assert told(await replay_agent(Broken, await record_of(*failed))) == []
    assert told(await replay_agent(Broken, await record_of(*DONE))) == [
        ("other outcome", None, {"completed": {"of": "F"}}, {"failed": error})
    ]
    assert told(await replay_agent(Critic, await record_of(*failed))) == [
        ("other outcome", None, {"failed": error}, {"completed": {"of": "F"}})
    ]


async def test_a_recorded_failure_of_a_call_is_raised() -> None:
    class Catching(Critic):
        async def execute(self, ctx: Context) -> Any:
            try:
                await ctx.tool("look", n=1)
            except ToolError as error:
                return error.reason

    record = await record_of(
        *BEGUN,
        event("invocation.requested", CALL, agent_run_id=str(AGENT_RUN), key="look#1", tool="look", arguments={"n": 1}),
        event("invocation.failed", CALL, error=TRACEBACK),
        event("agent_run.completed", AGENT_RUN, result="no"),
    )
    assert told(await replay_agent(Catching, record)) == []


async def test_what_a_fork_took_over_comes_from_its_run() -> None:
    held, taken = {"kind": "step", "held_by": str(OTHER)}, {"kind": "call", "invocation_id": str(CALL)}
    fork = [
        event("run.started", OTHER, input="in", plan=PLAN, forked_from={"run_id": str(RUN), "position": 5}),
        event("run.step_taken_over", OTHER, step="first", status="completed", result="F"),
        event("run.step_scheduled", OTHER, step="review", agent="critic", agent_run_id=str(MESSAGE)),
        event("agent_run.entry_taken_over", MESSAGE, key="s", **held),
        event("agent_run.entry_taken_over", MESSAGE, key="look#1", **taken),
    ]
    asked: list[UUID] = []

    async def events(run_id: UUID) -> AsyncIterator[Mapping[str, Any]]:
        asked.append(run_id)
        for each in fork if run_id == OTHER else DONE:
            yield each

    [record] = await records_of(OTHER, events)
    assert asked == [OTHER, RUN]
    assert {entry.key: entry.result for entry in record.entries} == {"s": 5, "look#1": {"seen": 1}}
    assert record.calls["look#1"].arguments == {"n": 1} and record.results == {"first": "F"}


async def test_records_without_code_are_told() -> None:
    record = await record_of(*DONE)
    replayed, left = await replay_agents([Critic], [record, record.model_copy(update={"agent": "other"})])
    assert [one.agent for one in replayed] == ["critic"] and [one.agent for one in left] == ["other"]
