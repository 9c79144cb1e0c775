"""Use cases of reading: following a run to its end, waiting for its end, and a run as it was; in memory."""

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import UUID

import pytest

from application.invocations import resolve_invocation
from application.runs.await_end import watching_end
from application.runs.follow import RunOver, RunStreams
from application.runs.lookup import current_run, must_be_a_run
from application.runs.replay_at import run_as_of
from domain.errors import AlreadyResolved, InvalidCommand, InvalidState, NotFound, WorkOver
from domain.failures import Failure
from domain.invocations import ResolveInvocation
from domain.kernel import timestamp
from domain.runs import CancelRun
from projections.replays import RunReplays
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryRunReads
from tests.kit.waiting import TENANT, new_id, running, turns
from tests.pace import within


class Follower:
    """Takes a run's events until its stream ends."""

    def __init__(self, engine: Engine, run_id: UUID, *, after: int | None = None, topics: frozenset[str] | None = None) -> None:
        self.replays = RunReplays(engine.feed)
        self._engine, self._run_id, self._after, self._topics = engine, run_id, after, topics
        self.positions: list[int] = []
        self.over: RunOver | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        engine = self._engine
        streams = RunStreams(engine.live, engine.feed, engine.histories, self.replays)
        history = (await engine.histories.fresh()).histories.current
        following = streams.follow(TENANT, self._run_id, topics=self._topics, history=history, after=self._after)
        try:
            async with aclosing(following):
                async for batch in following:
                    assert self.over is None, "nothing comes after the end"
                    if isinstance(batch, RunOver):
                        self.over = batch
                    else:
                        self.positions += [event.position for event in batch]
        finally:
            await self.replays.close()

    async def ended(self) -> "Follower":
        async with within(15):
            await self.task
        return self


def positions(engine: Engine, run_id: UUID) -> list[int]:
    return [event.position for event in engine.log.events if event.root_id == run_id]


async def test_a_run_is_followed_to_its_end(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    follower = Follower(engine, run_id)
    claim = await worker.next("alpha")
    await turns()
    assert not follower.task.done()
    await engine.start("beta")  # another run
    await claim.complete()
    await follower.ended()
    assert follower.positions == positions(engine, run_id)
    assert follower.over == RunOver(follower.positions[-1])


async def test_what_follows_from_a_cancellation_still_belongs_to_the_stream(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    follower = Follower(engine, run_id)
    await turns()
    await engine.give(CancelRun(run_id=run_id))
    await follower.ended()
    await engine.settled()
    assert follower.positions == positions(engine, run_id)
    assert engine.topics(run_id)[-1] == "invocation.cancelled"


@pytest.mark.parametrize("from_the_end", [False, True])
async def test_a_run_that_has_ended_is_given_whole_and_ends(engine: Engine, worker: PlayedWorker, from_the_end: bool) -> None:
    run_id = await engine.start("alpha")
    await (await worker.next("alpha")).complete()
    await engine.settled()
    expected = positions(engine, run_id)
    follower = await Follower(engine, run_id, after=expected[-1] if from_the_end else 0).ended()
    assert follower.positions == ([] if from_the_end else expected)
    assert follower.over == RunOver(expected[-1])


async def is_at_end(engine: Engine, run_id: UUID, after: int) -> bool:
    replays = RunReplays(engine.feed)
    streams = RunStreams(engine.live, engine.feed, engine.histories, replays)
    try:
        return await streams.is_at_end(TENANT, run_id, after)
    finally:
        await replays.close()


async def test_nothing_follows_for_a_reader_of_a_run_that_has_ended_and_only_for_that(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    assert not await is_at_end(engine, run_id, 10**6), "the run goes on"
    assert not await is_at_end(engine, new_id(), 10**6), "there is no such run"
    await (await worker.next("alpha")).complete()
    await engine.settled()
    all_of_it = positions(engine, run_id)
    assert await is_at_end(engine, run_id, all_of_it[-1]) and await is_at_end(engine, run_id, all_of_it[-1] + 5)
    assert not await is_at_end(engine, run_id, all_of_it[-2]) and not await is_at_end(engine, run_id, 0)


async def test_the_end_is_not_reached_while_a_part_of_the_run_is_open() -> None:
    """The cancellation of a run's parts follows after the event that ends the run. No checkpoint tells when: the events do."""
    engine = Engine(reactions=False)
    await engine.set_up()
    worker = engine.worker()
    async with engine.running():
        await worker.register("alpha", tools_=["add"])
        run_id = await engine.start("alpha")
        await (await worker.next("alpha")).call("k", "add", a=1)
        await engine.settled()
    await engine.give(CancelRun(run_id=run_id))
    assert not await is_at_end(engine, run_id, 10**6), "no saga has reacted yet"
    async with engine.running():
        follower = Follower(engine, run_id)
        await follower.ended()
        assert follower.positions == positions(engine, run_id)
        assert await is_at_end(engine, run_id, follower.positions[-1])
        assert not await is_at_end(engine, run_id, follower.positions[-2]), "the reader lacks an event"


async def test_a_run_whose_parts_nobody_cancels_is_given_up_after_a_silence() -> None:
    """The sagas are down. What they owe is not waited for without end."""
    engine = Engine(silence_s=0.05, reactions=False)
    await engine.set_up()
    worker = engine.worker()
    async with engine.running():
        await worker.register("alpha")
        run_id = await engine.start("alpha")
        await worker.next("alpha")
    await engine.give(CancelRun(run_id=run_id))
    async with running(engine.live.run()):
        follower = await Follower(engine, run_id).ended()
    assert follower.positions == positions(engine, run_id) and follower.over == RunOver(follower.positions[-1])
    assert not await is_at_end(engine, run_id, follower.positions[-1])


async def test_the_end_is_not_reached_while_an_attempt_is_under_way(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    alpha = await worker.next("alpha")
    await alpha.call("k", "add", a=1)
    add = await worker.next("add", "tool")
    await engine.give(CancelRun(run_id=run_id))
    await engine.settled()
    assert not await is_at_end(engine, run_id, 10**6), "the outcome of the attempt follows"
    await add.complete(2)
    await engine.settled()
    assert await is_at_end(engine, run_id, positions(engine, run_id)[-1])


async def test_wanted_topics_come_and_the_end_is_told_all_the_same(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    follower = Follower(engine, run_id, topics=frozenset({"agent_run.claimed"}))
    await (await worker.next("alpha")).complete()
    await follower.ended()
    assert follower.positions == [e.position for e in engine.log.events if e.topic == "agent_run.claimed"]
    assert follower.over == RunOver(positions(engine, run_id)[-1])


async def test_a_stream_of_a_process_that_stops_ends_without_the_end(engine: Engine, worker: PlayedWorker) -> None:
    follower = Follower(engine, await engine.start("alpha"))
    await turns()
    engine.live.close()
    await follower.ended()
    assert follower.over is None


# --- waiting for the end --------------------------------------------------------------------------------------------------


async def test_an_end_after_the_watch_began_is_not_missed(engine: Engine, worker: PlayedWorker) -> None:
    run_id, replays = new_id(), RunReplays(engine.feed)
    async with watching_end(engine.live, replays, TENANT, run_id) as end:
        await engine.start("alpha", run_id=run_id)
        waiting = asyncio.create_task(end.view(60, may_be_over=False))
        await (await worker.next("alpha")).complete("done")
        async with within(15):
            view = await waiting
    assert view is not None and (view.status, view.result) == ("completed", "done")
    assert engine.live.watched(run_id) == 0
    await replays.close()


async def test_an_end_before_the_watch_began_is_found(engine: Engine, worker: PlayedWorker) -> None:
    run_id, replays = await engine.start("alpha"), RunReplays(engine.feed)
    await (await worker.next("alpha")).complete()
    await engine.settled()
    async with watching_end(engine.live, replays, TENANT, run_id) as end, within(15):
        view = await end.view(60, may_be_over=True)
    assert view is not None and view.status == "completed"
    await replays.close()


async def test_after_the_time_the_run_is_given_as_it_is(engine: Engine, worker: PlayedWorker) -> None:
    run_id, replays = await engine.start("alpha"), RunReplays(engine.feed)
    async with watching_end(engine.live, replays, TENANT, run_id) as end:
        view = await end.view(0, may_be_over=True)
        assert view is not None and view.status == "running"
    async with watching_end(engine.live, replays, TENANT, new_id()) as end:
        assert await end.view(0, may_be_over=True) is None
    await replays.close()


# --- a run as it was ------------------------------------------------------------------------------------------------------


async def test_a_run_at_every_position_is_the_fold_up_to_there(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    await (await worker.next("alpha")).complete("done")
    await engine.settled()
    reads = MemoryRunReads(engine.log)

    async def at(as_of: Any) -> Any:
        return await run_as_of(reads, engine.feed, engine.histories, TENANT, run_id, str(as_of))

    first, *_, last = positions(engine, run_id)
    assert [(await at(position)).value.event_count for position in range(first, last + 1)] == list(range(1, last - first + 2))
    with pytest.raises(NotFound):
        await at(first - 1)
    beyond = await at(10_000)
    assert (beyond.position, beyond.value) == (engine.log.head, (await current_run(reads, TENANT, run_id)).value)
    assert (await at(timestamp(engine.clock.now()))).value.status == "completed"
    with pytest.raises(NotFound):
        await at("2020-01-01T00:00:00Z")
    for neither in ("yesterday", "2026-01-01T00:00:00", "1.5", "", "2026-13-01T00:00:00Z"):
        with pytest.raises(InvalidCommand):
            await at(neither)


async def test_whether_there_is_such_a_run(engine: Engine, worker: PlayedWorker) -> None:
    run_id = await engine.start("alpha")
    reads = MemoryRunReads(engine.log)
    await must_be_a_run(engine.feed, TENANT, run_id)
    assert (await current_run(reads, TENANT, run_id)).position == engine.log.head
    for tenant, asked in ((TENANT, new_id()), (new_id(), run_id), (TENANT, engine.log.events[0].stream_id)):
        with pytest.raises(NotFound):
            await must_be_a_run(engine.feed, tenant, asked)
        with pytest.raises(NotFound):
            await current_run(reads, tenant, asked)


# --- what a person says of a call -----------------------------------------------------------------------------------------


async def test_the_first_person_counts(engine: Engine, worker: PlayedWorker) -> None:
    await engine.start("alpha")
    alpha = await worker.next("alpha")
    invocation_id = await alpha.call("k", "mail")

    def said(**changed: Any) -> Any:
        values = {"invocation_id": invocation_id, "result": {"sent": True}, "by": "key:1", "reason": "I looked"} | changed
        return resolve_invocation(engine.commands, engine.workers.results, worker.caller, ResolveInvocation(**values))

    with pytest.raises(InvalidState):
        await said()
    await worker.next("mail", "tool")
    engine.clock.advance(10)
    with pytest.raises(WorkOver):
        await worker.next("mail", "tool")
    first = await said()
    again = await said()
    assert again.duplicate and again.position == first.position
    assert (await said(by="key:2")).duplicate, "another person may say the same"
    error = Failure(type="T", message="not sent")
    for other in ({"result": {"sent": False}}, {"result": None, "error": error}, {"reason": "I guessed"}, {"evidence": 1}):
        with pytest.raises(AlreadyResolved, match="key:1 said before"):
            await said(**other)
    with pytest.raises(NotFound):
        await said(invocation_id=new_id())


# --- workers: registering -------------------------------------------------------------------------------------------------


async def test_a_tool_with_broken_parameters_refuses_itself_only(engine: Engine, worker: PlayedWorker) -> None:
    head = engine.log.head
    with pytest.raises(InvalidCommand) as caught:
        await worker.register(tools_={"fine": {}, "broken": {"parameters": {"type": "no such type"}}})
    assert caught.value.pointer == "/parameters" and "'broken'" in caught.value.message
    assert engine.log.head == head + 1 and ("tool", "fine") in worker.queues


async def test_registering_again_makes_no_event(engine: Engine, worker: PlayedWorker) -> None:
    await worker.register("fresh", tools_=["tool"])
    head = engine.log.head
    await worker.register("fresh", tools_=["tool"])
    assert engine.log.head == head
