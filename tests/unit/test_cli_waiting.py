"""Work that waits in a queue for long is told while a run is watched."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.cli.waiting import WaitingWork, with_pauses

WRITER, CALL = "agent-run", "invocation"


def event(topic: str, subject: str, age_s: float = 0, **data: Any) -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
    return {"type": topic, "subject": subject, "time": at, "data": data}


def requested(age_s: float) -> dict[str, Any]:
    return event("agent_run.requested", WRITER, age_s, step="draft", agent="writer")


def called(age_s: float) -> dict[str, Any]:
    return event("invocation.requested", CALL, age_s, agent_run_id=WRITER, key="web.search#1", tool="web.search")


def test_a_step_that_no_worker_takes_is_told_with_its_agent() -> None:
    work = WaitingWork()
    work.feed(requested(75))
    [note] = work.notes()
    assert note == (
        "draft waits for a worker with agent 'writer': the agent is registered, but the work has waited 75 s. "
        "No worker with this agent runs now, or all of them are busy."
    )
    assert work.notes() == [], "not again at once"
    work.feed(event("agent_run.mail_delivered", WRITER))
    assert len(work._items) == 1, "mail takes no work"


def test_short_waits_and_taken_work_are_not_told() -> None:
    work = WaitingWork()
    work.feed(requested(1))
    assert work.notes() == []
    for topic in ("agent_run.claimed", "agent_run.cancelled", "run.failed"):
        work.feed(requested(75))
        work.feed(event(topic, WRITER))
        assert work.notes() == []


def test_a_call_that_no_worker_takes_is_told_with_its_tool() -> None:
    work = WaitingWork()
    work.feed(requested(100))
    work.feed(event("agent_run.claimed", WRITER))
    work.feed(called(30))
    [note] = work.notes()
    assert note.startswith("draft: web.search#1 waits for a worker with tool 'web.search': the tool is registered, but")
    work.feed(event("invocation.retry_scheduled", CALL))
    assert work.notes() == []
    work.feed(event("invocation.requeued", CALL, 20))
    assert len(work.notes()) == 1
    work.feed(event("invocation.fell_back", CALL, 20, tool="web.find"))
    [note] = work.notes()
    assert note.startswith("draft: web.search#1 waits for a worker with tool 'web.find'")


def test_a_wait_is_told_again_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("api.cli.waiting.monotonic", lambda: now)
    work = WaitingWork()
    work.feed(requested(0))
    told = []
    while now < 4000:
        now += 1
        told += [now] * len(work.notes())
    assert told == [10, 60, 360, 960, 1560, 2160, 2760, 3360, 3960]


async def test_pauses_of_a_stream_are_seen_and_no_item_is_lost() -> None:
    gate = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        yield 1
        await gate.wait()
        yield 2

    seen: list[int | None] = []
    async for item in with_pauses(stream(), 0.01):
        if item is None:
            gate.set()
        seen.append(item)
    assert [item for item in seen if item is not None] == [1, 2] and None in seen


async def test_the_end_of_the_watcher_ends_the_stream() -> None:
    ended = asyncio.Event()

    async def stream() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.set()

    watched = with_pauses(stream(), 0.01)
    assert await anext(watched) == 1
    assert await anext(watched) is None
    await watched.aclose()  # type: ignore[attr-defined]
    assert ended.is_set()


async def test_an_error_of_the_stream_reaches_the_watcher() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        async for _ in with_pauses(stream(), 1):
            pass
