"""Workers that come back to another process, over the ports in memory: what they claimed before, and what is claimed meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from application.engine.background import end
from application.engine.commands.request import Caller
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import KnownWork
from application.workers import claimed
from application.workers.hosting.messages import Complete, WorkForAgent
from tests.kit.engine import Engine
from tests.kit.hosting import Hosting, SpeakingWorker, hosting, with_key
from tests.kit.waiting import TENANT, turns, until


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with with_key(Engine()) as engine:
        yield engine


@pytest_asyncio.fixture
async def before(engine: Engine) -> AsyncIterator[Hosting]:
    """The process that workers leave."""
    async with hosting(engine) as found:
        yield found


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    """The process that workers come back to."""
    other = engine.another()
    async with hosting(other) as found:
        live = asyncio.create_task(other.live.run())
        yield found
        await end(live)


async def lost(before: Hosting) -> SpeakingWorker:
    """A worker that has lost its connection."""
    worker = before.connect()
    await worker.hello(["alpha"])
    await before.lose(worker)
    return worker


async def dispatched(engine: Engine) -> WorkItem:
    known = {entry.item.work_id for entry in engine.queue.entries.values()}
    await engine.start("alpha")
    [item] = await until(
        lambda: [entry.item for entry in engine.queue.entries.values() if entry.item.work_id not in known], "an item"
    )
    return item


async def claim(engine: Engine, worker: SpeakingWorker, item: WorkItem | None = None) -> UUID:
    """A process claims work for the session of a worker, and hands it to nobody."""
    session = engine.session_board.rows[worker.welcome.session_id].session
    item = item or await dispatched(engine)
    assert await engine.workers.sessions.claim(Caller(TENANT, "key:test"), session, item, uuid4())
    return item.work_id


async def test_one_look_finds_a_claim_that_the_read_model_does_not_know(engine: Engine, before: Hosting, process: Hosting) -> None:
    """The process that was killed may have been the one that copied the log, so the read model stands still."""
    worker, other = await lost(before), await lost(before)
    known = await claim(engine, worker)
    engine.stop_tables()
    unknown, _ = await claim(engine, worker), await claim(engine, other)
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    found = [await back.hears(WorkForAgent), await back.hears(WorkForAgent)]
    assert {work.work_id for work in found} == {known, unknown} and [work.claimed.attempt for work in found] == [1, 1]
    for work in found:
        await back.done(work, Complete, result="done")
    assert not [said for said in back.ear.heard if isinstance(said, WorkForAgent)]


async def test_claims_on_several_pages_are_found(
    engine: Engine, before: Hosting, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimed, "PAGE", 2)
    worker = await lost(before)
    engine.stop_tables()
    claims = {await claim(engine, worker) for _ in range(5)}
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    assert {(await back.hears(WorkForAgent)).work_id for _ in range(5)} == claims


async def test_work_that_was_given_to_somebody_else_meanwhile_is_not_sent(
    engine: Engine, before: Hosting, process: Hosting
) -> None:
    worker = await lost(before)
    engine.stop_tables()
    lapsed, mine = await claim(engine, worker), await claim(engine, worker)
    [held] = [work for work in await claims_of(process, worker) if work.work_id == lapsed]
    await engine.workers.sessions.give_back(held, "unsent")
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    assert (await back.hears(WorkForAgent)).work_id == mine
    await turns(20)
    assert not [said for said in back.ear.heard if isinstance(said, WorkForAgent)]


async def claims_of(process: Hosting, worker: SpeakingWorker) -> Sequence[claimed.HeldWork]:
    engine = process.engine
    lookup = claimed.ClaimedWork(engine.sessions, engine.feed, engine.live, engine.catalog.registry)
    return await lookup.of(engine.session_board.rows[worker.welcome.session_id].session)


async def test_a_claim_that_is_recorded_after_the_look_is_heard_of(engine: Engine, before: Hosting, process: Hosting) -> None:
    """PostgreSQL may carry out what a killed process has sent, and a living process may claim for a worker that has left it."""
    worker = await lost(before)
    item = await dispatched(engine)
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    await until(lambda: process.engine.live.overhearing == 1, "the session listens")
    await engine.settled()
    work_id = await claim(engine, worker, item)
    found = await back.hears(WorkForAgent)
    assert (found.work_id, found.claimed.attempt) == (work_id, 1)
    await back.done(found, Complete, result="done")
    await process.lose(back)
    assert not process.engine.live.overhearing, "nobody listens any more"


async def test_listening_ends_by_itself(engine: Engine, before: Hosting, process: Hosting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claimed, "IN_FLIGHT_S", 0.01)
    back = process.connect()
    await back.hello(["alpha"], back=await lost(before))
    live = process.engine.live
    await until(lambda: live.reading and not live.overhearing, "nobody listens")


async def test_a_claim_that_this_process_makes_is_handed_over_once(engine: Engine, before: Hosting, process: Hosting) -> None:
    """The look may find the claim before the answer to its append has come."""
    worker = await lost(before)
    work_id = await claim(engine, worker)
    claiming = process.host.dispatcher.claiming
    claiming.add(work_id)
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    await turns(20)
    assert not [said for said in back.ear.heard if isinstance(said, WorkForAgent)]
    claiming.discard(work_id)  # the claim of this process was refused: the one of before counts
    assert (await back.hears(WorkForAgent)).work_id == work_id


async def test_new_work_of_a_worker_that_came_back_comes_once(engine: Engine, before: Hosting, process: Hosting) -> None:
    """Its own claims are heard of, too, when the worker may have finished them."""
    back = process.connect()
    await back.hello(["alpha"], back=await lost(before))
    back.credit(agent=5)
    for _ in range(5):
        run_id = await engine.start("alpha")
        await back.done(await back.hears(WorkForAgent), Complete, result="done")
        await until(lambda: engine.topics(run_id)[-1] == "run.completed", "the end of the run")  # noqa: B023
    await turns(20)
    assert not [said for said in back.ear.heard if isinstance(said, WorkForAgent)]


async def test_a_crowd_that_comes_back_shares_the_looks(
    engine: Engine, before: Hosting, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [await lost(before) for _ in range(20)]
    engine.stop_tables()
    claims = [await claim(engine, worker) for worker in workers]
    looks, held_by = [], process.engine.sessions.held_by

    async def counted(session_ids: Sequence[UUID]) -> KnownWork:
        looks.append(len(session_ids))
        await turns(20)
        return await held_by(session_ids)

    monkeypatch.setattr(process.engine.sessions, "held_by", counted)
    back = [process.connect() for _ in workers]
    await asyncio.gather(*(one.hello(["alpha"], back=worker) for one, worker in zip(back, workers, strict=True)))
    assert [(await one.hears(WorkForAgent)).work_id for one in back] == claims
    assert sum(looks) == 20 and len(looks) <= 5, looks
