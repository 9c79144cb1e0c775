"""Waits and fingerprints of the SDK: in memory, with the testing kit, and by the page that shows them."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tidelog import Agent, Context, PermanentError, ToolContext, tool
from tidelog.crews import CREW, Crew
from tidelog.errors import ChangedCallError, SignalTimeoutError
from tidelog.fingerprints import of_call, of_step, of_wait
from tidelog.inbox import OpenWait
from tidelog.journal import Journal, JournalEntry
from tidelog.spans import span_of
from tidelog.testing import MemoryJournal, TestClock, assert_survives_crashes, run_agent
from tidelog.worker.stillness import only_waits

PAGE = (Path(__file__).parents[2] / "docs/how-to/let-an-agent-wait.md").read_text("utf-8")


class Waits(Agent):
    async def execute(self, ctx: Context) -> Any:
        before = await ctx.step("before", lambda: 1)
        await ctx.sleep("1h")
        first, second = await asyncio.gather(ctx.signal("a"), ctx.signal("b"))
        try:
            await ctx.signal("never", timeout_s=60)
        except SignalTimeoutError as error:
            await ctx.sleep(datetime(2030, 1, 1, 2, tzinfo=UTC))
            return [before, first, second, error.signal, str(error)]


SIGNALS = [("b", {"n": 2}), ("a", 1)]


async def test_waits_on_the_clock_of_a_test() -> None:
    clock = TestClock()
    outcome = await run_agent(Waits, clock=clock, signals=SIGNALS)
    assert outcome.result == [1, 1, {"n": 2}, "never", "no signal 'never' came within 60 s"]
    assert clock.passed_s == 2 * 3600


async def test_waits_survive_crashes_at_every_point() -> None:
    report = await assert_survives_crashes(Waits, signals=SIGNALS)
    assert len(report.points) > 10


async def test_a_signal_may_come_while_the_agent_waits() -> None:
    class Listens(Agent):
        async def execute(self, ctx: Context) -> Any:
            return [await ctx.signal("go"), await ctx.signal("go")]

    journal = MemoryJournal()
    running = asyncio.create_task(run_agent(Listens, journal=journal))
    while not journal.waits:  # noqa: ASYNC110  # turns of the event loop
        await asyncio.sleep(0)
    for payload in (1, 2):
        journal.signal("go", payload)
    assert (await running).result == [1, 2]


async def test_the_page_that_shows_waits() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    spaces: list[dict[str, Any]] = [{"__name__": "page"} for _ in blocks]
    for block, space in zip(blocks, spaces, strict=True):
        exec(block, space)
    clock = TestClock()
    assert (await run_agent(spaces[0]["Reminder"], clock=clock)).result == "reminded ada@example.com"
    assert clock.passed_s == 3 * 86_400
    release = spaces[1]["Release"]
    assert (await run_agent(release, signals=[("go", {"by": "Ada"})])).result == "1.4.0 was released by Ada"
    assert "nobody said go" in (await run_agent(release, clock=TestClock())).result
    await spaces[2]["test_a_release_waits_for_three_days_and_a_word"]()


# --- spans of time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(0, 0), (1.5, 1.5), ("90s", 90), ("1h30m", 5400), ("0.5d", 43_200), ("2w", 1_209_600), ("365d", 31_536_000),
     (timedelta(days=1), 86_400)],
)  # fmt: skip
def test_spans(given: Any, seconds: float) -> None:
    assert span_of(given) == (seconds, None)


def test_a_time_is_a_span_too() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert span_of(at) == (None, at)


@pytest.mark.parametrize(
    "given", ["", "h", "1", "1x", "1h ", "-1h", "1e3s", "１h", -1, float("nan"), float("inf"), 1e12, "99999w", True, None, [1],
              datetime(2030, 1, 1), timedelta(days=-1), "9" * 5000 + "s"]  # noqa: DTZ001
)  # fmt: skip
def test_what_is_no_span_is_a_clear_error(given: Any) -> None:
    with pytest.raises(PermanentError, match=r"a time|the time|a sleep") as refused:
        span_of(given)
    assert len(str(refused.value)) < 200


# --- fingerprints ------------------------------------------------------------------------------------------------------------


def test_fingerprints_tell_calls_apart_and_do_not_depend_on_order() -> None:
    assert of_call("t", {"a": 1, "b": [2]}) == of_call("t", {"b": [2], "a": 1})
    different = [
        of_call("t", {"a": 1}), of_call("t", {"a": "1"}), of_call("t", {"a": True}), of_call("u", {"a": 1}),
        of_wait("signal", "t"), of_wait("sleep", None), of_step("t", (), {}), of_step("t", (1,), {}), of_step("t", (), {"a": 1}),
        of_step("t", ("x" * 5_000,), {}), of_step("t", ("x" * 5_001,), {}), of_step("t", ("y" + "x" * 4_999,), {}),
        of_step("t", (object(),), {}), of_step("t", ({1, 2},), {}), of_step("t", (list(range(3_000)),), {}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert all(re.fullmatch(r"[0-9a-f]{20}", one) for one in different)


def test_of_what_is_no_json_the_type_counts() -> None:
    assert of_step("t", ({1, 2},), {}) == of_step("t", ({3},), {})
    assert of_step("t", ({object: 1},), {}) == of_step("t", ({object: 1},), {})
    loop: list[Any] = []
    loop.append(loop)
    assert of_step("t", (loop,), {}) == of_step("t", (list(range(5_000)),), {}), "both are too large to look at"


def entry(key: str, fingerprint: str | None = None, result: Any = None) -> JournalEntry:
    return JournalEntry(key=key, kind="call", status="ok", result=result, fingerprint=fingerprint)


def test_a_key_answers_only_the_call_that_it_was_recorded_for() -> None:
    journal = Journal(1, [entry("k", "f"), entry("old")], [])
    with pytest.raises(ChangedCallError, match=r"key 'k' another call is recorded \(fingerprint f\) .* \(g\)") as changed:
        journal.take_key("k", "t", "g")
    assert (changed.value.key, changed.value.recorded, changed.value.asked) == ("k", "f", "g")
    assert journal.take_key("k", "t", "f") == "k"
    assert journal.take_key("old", "t", "g") == "old"
    assert journal.take_key("new", "t", "g") == "new"


def test_counted_calls_find_their_entries_in_another_order() -> None:
    journal = Journal(1, [entry("t#1", "a"), entry("t#2", "b"), entry("t#3", "b"), entry("t#4")], [])
    assert [journal.take_key(None, "t", fingerprint) for fingerprint in "bbaccc"] == ["t#2", "t#3", "t#1", "t#4", "t#5", "t#6"]
    journal = Journal(1, [entry("t#1", "a"), entry("t#2", "b")], [])
    with pytest.raises(ChangedCallError):
        journal.take_key(None, "t", "c")
    assert [journal.take_key(None, "t", fingerprint) for fingerprint in "ba"] == ["t#2", "t#1"]


CALLED: list[str] = []


@tool("note", idempotent=True)
def note(ctx: ToolContext, text: str) -> str:
    CALLED.append(text)
    return text


async def test_code_that_was_changed_in_between_gets_no_result_of_another_call() -> None:
    class Old(Agent):
        async def execute(self, ctx: Context) -> Any:
            await asyncio.gather(ctx.tool("note", text="a"), ctx.tool("note", text="b"))
            raise PermanentError("stop")

    class Swapped(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await asyncio.gather(ctx.tool("note", text="b"), ctx.tool("note", text="a"), ctx.step("s", lambda: 1))

    class New(Agent):
        async def execute(self, ctx: Context) -> Any:
            return await ctx.tool("note", text="c")

    CALLED.clear()
    journal = MemoryJournal()
    with pytest.raises(PermanentError, match="stop"):
        await run_agent(Old, tools=[note], journal=journal)
    assert (await run_agent(Swapped, tools=[note], journal=journal)).result == ["b", "a", 1]
    with pytest.raises(ChangedCallError):
        await run_agent(New, tools=[note], journal=journal)
    assert sorted(CALLED) == ["a", "b"]


# --- whether an agent only waits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "still"),
    [("wait", True), ("gather", True), ("group", True), ("any", True), ("beside", False), ("timeout", False), ("sleep", False),
     ("thread", False), ("limited", False)],
)  # fmt: skip
async def test_only_an_agent_that_does_nothing_else_only_waits(what: str, still: bool) -> None:
    crew, open_waits, over = Crew(), list[OpenWait](), asyncio.Event()

    async def wait() -> None:
        open_waits.append(OpenWait("k", asyncio.current_task()))
        await over.wait()

    async def execute() -> None:
        CREW.set(crew)
        match what:
            case "wait":
                await wait()
            case "gather":
                await asyncio.gather(wait(), wait())
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(wait())
                    group.create_task(wait())
            case "any":
                await asyncio.wait([asyncio.create_task(wait()), asyncio.create_task(wait())])
            case "beside":
                await asyncio.gather(wait(), over.wait())
            case "timeout":
                async with asyncio.timeout(60):
                    await wait()
            case "sleep":
                await asyncio.gather(wait(), asyncio.sleep(60))
            case "thread":
                await asyncio.gather(wait(), asyncio.to_thread(lambda: asyncio.run(asyncio.sleep(0.2))))
            case "limited":
                await asyncio.wait([asyncio.create_task(wait())], timeout=60)

    task = asyncio.create_task(execute())
    for _ in range(10):
        await asyncio.sleep(0)
    try:
        assert only_waits(crew, open_waits) is still
    finally:
        task.cancel()
        over.set()
        await asyncio.wait([task])
