"""`ctx.schedule` and `ctx.unschedule`, as the testing kit carries them out."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.test_sdk_context import agent_of
from tidelog import Agent, Context, PermanentError
from tidelog.testing import MemoryJournal, run_agent

TOMORROW = datetime.now(UTC) + timedelta(days=1)


class Watcher(Agent):
    """Looks again in an hour."""

    async def execute(self, ctx: Context) -> Any:
        made = await ctx.schedule("again", in_s=3600, input=ctx.input)
        return made.name


async def test_an_agent_schedules_itself() -> None:
    outcome = await run_agent(Watcher, input={"n": 1})
    assert outcome.result == "watcher.again"
    [(name, definition)] = outcome.schedules.items()
    assert (name, definition["start"]) == ("again", {"agent": "watcher", "input": {"n": 1}})
    assert datetime.fromisoformat(definition["when"]["at"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert outcome.journal.recorded()["schedule:again#1"]["status"] == "active"


@pytest.mark.parametrize("entry", [1, 2])
async def test_an_agent_that_crashes_schedules_once(entry: int) -> None:
    async def execute(ctx: Context) -> Any:
        await ctx.schedule("once", every_s=60)
        await ctx.step("work", lambda: 1)
        return await ctx.unschedule("once", reason="done")

    outcome = await run_agent(agent_of(execute), crash_at=entry)
    assert (outcome.result, outcome.attempts, outcome.schedules) == (True, 2, {})
    assert [written.key for written in outcome.journal.written] == ["schedule:once#1", "work", "unschedule:once#1"]


async def test_what_is_said_is_in_the_definition() -> None:
    async def execute(ctx: Context) -> Any:
        await ctx.schedule(
            "nightly", cron="0 2 * * *", time_zone="Europe/Berlin", workflow="digest", version=3, input_from={"until": "due_at"},
            end_at=TOMORROW, jitter_s=5, catch_up="all", overlap="queue", description="d", metadata={"m": 1}, priority="low",
            compensate="on_failure",
        )  # fmt: skip
        found = await ctx.schedule("every", every_s=60, plan={"kind": "sequential", "agents": ["a"]})
        return [found.status, found.next_at is not None, await ctx.unschedule("nobody")]

    outcome = await run_agent(agent_of(execute))
    assert outcome.result == ["active", True, False]
    assert outcome.schedules == {
        "nightly": {
            "when": {"cron": "0 2 * * *", "time_zone": "Europe/Berlin"},
            "start": {
                "workflow": "digest", "version": 3, "input_from": {"until": "due_at"}, "metadata": {"m": 1}, "priority": "low",
                "compensate": "on_failure",
            },
            "end_at": TOMORROW.isoformat(), "jitter_s": 5, "catch_up": "all", "overlap": "queue", "description": "d",
        },
        "every": {"when": {"every_s": 60}, "start": {"plan": {"kind": "sequential", "agents": ["a"]}}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "exactly one of cron, every_s, at and in_s"),
        ({"every_s": 5, "in_s": 5}, "exactly one of cron, every_s, at and in_s"),
        ({"every_s": 5, "agent": "a", "workflow": "b"}, "exactly one of workflow, agent and plan"),
        ({"at": datetime(2099, 1, 1)}, "at has no time zone"),  # noqa: DTZ001
        ({"every_s": 5, "end_at": datetime(2099, 1, 1)}, "end_at has no time zone"),  # noqa: DTZ001
        ({"at": datetime(2001, 1, 1, tzinfo=UTC)}, "the time has passed"),
    ],
)
async def test_nonsense_is_refused(given: dict[str, Any], said: str) -> None:
    async def execute(ctx: Context) -> Any:
        await ctx.schedule("x", **given)

    with pytest.raises(PermanentError, match=said):
        await run_agent(agent_of(execute))


async def test_a_key_that_had_another_content_is_no_schedule() -> None:
    journal = MemoryJournal()

    async def first(ctx: Context) -> Any:
        await ctx.step("k", lambda: 1)
        await ctx.step("l", lambda: {"was_there": "yes"})

    async def second(ctx: Context) -> Any:
        for use in (ctx.schedule("x", in_s=1, key="k"), ctx.unschedule("x", key="l")):
            with pytest.raises(PermanentError, match="is not"):
                await use

    await run_agent(agent_of(first), journal=journal)
    await run_agent(agent_of(second), journal=journal)
