"""Waiting for the ends of runs: who ends a run, what the wait costs, and what is known of a run whose end was not heard."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from application.engine.ports.log import EventFeed
from application.engine.reading.watches import HeardEvent
from application.reads import CurrentRun
from application.runs.await_end import watching_end
from application.views.parts import OpenParts
from application.views.runs import RunView
from domain.kernel import RecordedEvent
from domain.runs import CancelRun
from projections import replays as replaying
from projections.replays import RunReplays
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryEventFeed
from tests.kit.waiting import TENANT, new_id, turns, until
from tests.pace import within


class CountedFeed(MemoryEventFeed):
    """Notes the number of runs that each statement reads."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.log)
        self.statements: list[int] = []

    async def read_roots(self, roots: Sequence[tuple[UUID, UUID, int]], *, limit: int) -> list[RecordedEvent]:
        self.statements.append(len(roots))
        self.log.reach()
        wanted = {root_id for _, root_id, _ in roots}
        by_run: dict[UUID, list[RecordedEvent]] = {root_id: [] for root_id in wanted}
        for event in self.log.events:
            if event.root_id in wanted:
                by_run[event.root_id].append(event)
        found = [e for _, root_id, after in roots for e in [e for e in by_run[root_id] if e.position > after][:limit]]
        return sorted(found)


@asynccontextmanager
async def waiters(engine: Engine, run_ids: Sequence[UUID], seconds: float = 60) -> AsyncIterator[tuple[CountedFeed, list[Any]]]:
    """A task for each run that waits for its end. The block begins when all of them wait."""
    feed = CountedFeed(engine)
    replays = RunReplays(feed)
    await engine.live.begun(0 if engine.tasks == [] else 15)

    async def wait(run_id: UUID) -> RunView | None:
        async with watching_end(engine.live, replays, TENANT, run_id) as end:
            return await end.view(seconds, may_be_over=False)

    before = engine.live.watches  # of what else this process follows, as books of budgets
    tasks = [asyncio.create_task(wait(run_id)) for run_id in run_ids]
    await until(lambda: engine.live.watches == before + len(run_ids), "all wait")
    await turns()
    try:
        yield feed, tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await replays.close()


async def answers(tasks: Sequence["asyncio.Task[RunView | None]"]) -> list[RunView]:
    async with within(15):
        views = await asyncio.gather(*tasks)
    assert all(view is not None for view in views)
    return [view for view in views if view is not None]


async def test_ten_thousand_wait_for_nothing_and_those_that_end_together_are_read_together(
    engine: Engine, worker: PlayedWorker
) -> None:
    ending = [await engine.start("alpha") for _ in range(200)]
    for run_id in ending:
        await engine.give(CancelRun(run_id=run_id))
    written = [event for event in engine.log.events if event.topic == "run.cancelled"]
    others = engine.live.watches
    async with waiters(engine, [*ending, *(new_id() for _ in range(9_800))]) as (feed, tasks):
        assert feed.statements == [], "nothing has ended since"
        engine.live.heard([HeardEvent(event.stream_id, event.topic, event.version) for event in written])
        views = await answers(tasks[:200])
        assert [view.run_id for view in views] == ending and {view.status for view in views} == {"cancelled"}
        assert feed.statements == [200], "one statement for all that ended in one turn"
        assert engine.live.watches == others + 9_800


async def test_a_statement_reads_a_bounded_number_of_runs(engine: Engine, worker: PlayedWorker, monkeypatch: Any) -> None:
    monkeypatch.setattr(replaying, "TOGETHER", 8)
    run_ids = [await engine.start("alpha") for _ in range(20)]
    async with waiters(engine, run_ids) as (feed, tasks):
        await asyncio.gather(*(engine.give(CancelRun(run_id=run_id)) for run_id in run_ids))
        assert {view.status for view in await answers(tasks)} == {"cancelled"}
        assert sum(feed.statements) == 20 and max(feed.statements) == 8


async def test_an_end_that_this_process_wrote_is_heard_without_the_live_log(engine: Engine, worker: PlayedWorker) -> None:
    """NATS is away: the process hears its own appends all the same."""
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    async with waiters(engine, [run_id]) as (_, tasks):
        engine.subscription.away = True
        await alpha.complete("done")
        [view] = await answers(tasks)
        assert view.status == "completed"
        engine.subscription.away = False
        engine.log.wake()


async def test_an_end_that_another_process_wrote_is_heard_by_the_live_log(engine: Engine, worker: PlayedWorker) -> None:
    other = engine.another()
    run_id = await engine.start("alpha")
    async with waiters(engine, [run_id]) as (_, tasks):
        await other.give(CancelRun(run_id=run_id))
        [view] = await answers(tasks)
        assert view.status == "cancelled"


async def test_an_end_in_a_history_that_is_cut_off_is_no_end(engine: Engine, worker: PlayedWorker) -> None:
    """The log loses the end and goes on: the wait goes on, too, and no answer shows what is gone."""
    run_id = await engine.start("alpha")
    await engine.settled()
    async with waiters(engine, [run_id, lost := new_id()]) as (_, tasks):
        await engine.histories.restored("a test", engine.log.head)
        assert await asyncio.wait_for(tasks[1], 15) is None, f"there is no run {lost}"
        assert not tasks[0].done()
        engine.commands.forget()
        await engine.give(CancelRun(run_id=run_id))
        [view] = await answers(tasks[:1])
        assert view.status == "cancelled"


async def test_a_process_that_stops_answers_with_the_run_as_it_is(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    async with waiters(engine, [run_id]) as (_, tasks):
        engine.live.close()
        [view] = await answers(tasks)
        assert view.status == "running"


async def test_a_wait_begins_without_a_live_log_that_does_not_come(worker: PlayedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.runs.await_end.BEGIN_S", 0.01)
    engine = Engine()  # nobody runs its live feed
    await engine.set_up()
    await engine.worker().register("alpha")
    run_id = await engine.start("alpha")
    async with waiters(engine, [run_id]) as (_, tasks):
        await engine.give(CancelRun(run_id=run_id))
        [view] = await answers(tasks)
        assert view.status == "cancelled"


# --- open parts -----------------------------------------------------------------------------------------------------------


async def test_parts_that_are_counted_in_pages_are_those_of_the_whole(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha", "beta")
    alpha = await worker.next("alpha")
    await alpha.call("a", "add", a=1)
    await alpha.send("m", "beta", "hello")
    await worker.next("add", "tool")
    await engine.settled()
    events = [event for event in engine.log.events if event.root_id == run_id]
    parts = OpenParts().after(events)
    assert parts == OpenParts(False, 2), "the first step and its call; the message is delivered, the second step not scheduled"
    await engine.give(CancelRun(run_id=run_id))
    await engine.settled()
    events = [event for event in engine.log.events if event.root_id == run_id]
    parts = OpenParts().after(events)
    assert parts.ended and parts.open == 1 and len(parts.attempts) == 1 and not parts.over, "the attempt of the tool"
    paged = OpenParts()
    for event in events:
        paged = paged.after([event])
    assert paged == parts


REQUESTED, AMBIGUOUS = "invocation.requested", "invocation.became_ambiguous"


@pytest.mark.parametrize(
    ("topics", "open_"),
    [
        ([AMBIGUOUS], 0),
        ([AMBIGUOUS, "invocation.succeeded"], 0),
        ([AMBIGUOUS, "invocation.resolved"], 0),
        ([AMBIGUOUS, "invocation.cancelled"], 0),
        ([AMBIGUOUS, "invocation.not_happened", "invocation.requeued"], 1),
        ([AMBIGUOUS, "invocation.reconciled", "invocation.retry_scheduled"], 1),
        ([AMBIGUOUS, "invocation.requeued", "invocation.requeued", AMBIGUOUS], 0),
        ([AMBIGUOUS, "invocation.requeued", AMBIGUOUS, "invocation.failed"], 0),
        (["invocation.requeued"], 1),
    ],
)
def test_an_ambiguous_call_counts_as_ended_until_it_goes_on(topics: list[str], open_: int) -> None:
    call, run_id, at = new_id(), new_id(), datetime(2026, 1, 1, tzinfo=UTC)
    events = [
        RecordedEvent(number, TENANT, call, number, run_id, topic, 1, b"{}", "{}", at)
        for number, topic in enumerate([REQUESTED, *topics], start=1)
    ]
    assert OpenParts().after(events).open == open_
    cancelled = RecordedEvent(9, TENANT, call, 9, run_id, "invocation.cancel_requested", 1, b"{}", "{}", at)
    late = RecordedEvent(10, TENANT, call, 10, run_id, "invocation.succeeded", 1, b"{}", "{}", at)
    assert not OpenParts().after([*events[:2], cancelled, late]).attempts


async def current(feed: EventFeed, run_id: UUID) -> CurrentRun | None:
    replays = RunReplays(feed)
    try:
        return await replays.now(TENANT, run_id)
    finally:
        await replays.close()


async def test_a_run_as_it_is_now_comes_with_its_open_parts(engine: Engine, worker: PlayedWorker, monkeypatch: Any) -> None:
    monkeypatch.setattr(replaying, "PAGE", 3)
    run_id = await engine.start("alpha")
    await (await worker.next("alpha")).complete("done")
    await engine.settled()
    run = await current(engine.feed, run_id)
    assert run is not None and run.view.status == "completed" and run.parts == OpenParts(True, 0) and run.parts.over
    assert await current(engine.feed, new_id()) is None
