"""Handing over without the queue: a session claims work in the append that requests it, and nothing is lost or given twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from application.engine.background import end
from application.engine.commands.follow_ups import MAX_FOLLOW_UPS
from application.engine.ports.log import AppendRequest, AppendResult
from application.workers.hosting import dispatch, handover
from application.workers.hosting.messages import Call, Complete, Done, Record, Send, Update, WorkForAgent, WorkForTool
from domain import agent_runs, messages, runs
from domain.errors import Unavailable, VersionConflict
from domain.kernel import Command, Metadata, RecordedEvent, who_asked
from domain.projects import default_project_id
from tests.kit.engine import Engine
from tests.kit.hosting import Hosting, SpeakingWorker, hosting, with_key
from tests.kit.memory import MemoryEventStore, MemoryLog
from tests.kit.waiting import TENANT, new_id, request_of, turns, until


class FaultyStore(MemoryEventStore):
    """Fails the appends of some topic, once, before or after they are written."""

    topic: str | None = None
    error: Exception | None = None
    written = False
    """Whether the append that fails is written."""
    hold: asyncio.Event | None = None
    """The append waits for this after it is written."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.appends: list[AppendRequest] = []
        """All that are in the log."""
        self.reads: list[UUID] = []
        """Streams that were read."""

    async def read_stream(self, tenant_id: UUID, stream_id: UUID, **options: Any) -> list[RecordedEvent]:
        self.reads.append(stream_id)
        return await super().read_stream(tenant_id, stream_id, **options)

    async def append(self, request: AppendRequest) -> AppendResult:
        if self.topic is None or all(placed.event.topic != self.topic for placed in request.events):
            return await self._write(request)
        self.topic = None
        if self.error is not None and not self.written:
            raise self.error
        result = await self._write(request)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return result

    async def _write(self, request: AppendRequest) -> AppendResult:
        result = await super().append(request)
        if not result.duplicate:
            self.appends.append(request)
        return result


def faulty_engine() -> Engine:
    base = Engine()
    return base.another(store=FaultyStore(base.log))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits is enough: nothing is on its way in memory."""
    monkeypatch.setattr(dispatch, "QUIET_S", 0.0)
    monkeypatch.setattr(handover, "DOUBTS_S", (0.0, 0.01, 0.01))


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    async with with_key(faulty_engine()) as engine:
        yield engine


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    async with hosting(engine) as found:
        yield found


def store_of(engine: Engine) -> FaultyStore:
    assert isinstance(engine.store, FaultyStore)
    return engine.store


def fault(engine: Engine, topic: str, error: Exception | None, *, written: bool = False) -> None:
    """The next append with such an event fails."""
    store = store_of(engine)
    store.topic, store.error, store.written = topic, error, written


async def ready(process: Hosting, *agents: str, tools: tuple[str, ...] = (), slots: int = 5) -> SpeakingWorker:
    """A worker whose pools have asked the queue and got nothing."""
    worker = process.connect()
    await worker.hello(agents, tools)
    worker.credit(agent=slots, tool=slots)
    await asked(process, *agents, *tools)
    return worker


async def asked(process: Hosting, *names: str) -> None:
    def all_wait() -> bool:
        pools = {pool.queue.pool: pool for pool in process.host.dispatcher.pools}
        return all(name in pools and pools[name].asked for name in names)

    await until(all_wait, "requests at the queue")


def appends_of(engine: Engine, run_id: UUID) -> list[list[str]]:
    """The events of a run, an append each."""
    found = []
    for request in store_of(engine).appends:
        topics = [placed.event.topic for placed in request.events if request.streams[placed.stream].root_id == run_id]
        found += [topics] if topics else []
    return found


FIRST = ["run.started", "run.step_scheduled", "agent_run.requested", "agent_run.claimed"]


async def test_a_run_that_starts_is_claimed_in_the_same_append(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    assert appends_of(engine, run_id) == [FIRST]
    await worker.done(work, Complete, result=1)
    assert (await engine.run(run_id)).status == "completed"
    assert engine.queue.published == 0, "the saga manager has nothing left to do"
    requested, claimed = [event for event in engine.log.events if event.stream_id == work.work_id][:2]
    metadata = Metadata.model_validate_json(claimed.metadata)
    assert (metadata.actor, metadata.causation_id, metadata.correlation_id) == ("key:test", requested.name, run_id)
    assert requested.settled == 1 << engine.catalog.numbers["work_dispatch"]


async def test_a_claim_in_the_append_is_for_whom_the_run_is(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    for name in ("Ada", None):
        run_id = await engine.start("alpha", request=request_of()._replace(on_behalf_of=name))
        work = await worker.hears(WorkForAgent)
        assert appends_of(engine, run_id)[0] == FIRST and work.claimed.on_behalf_of == name
        await worker.done(work, Complete, result=1)
        assert (await engine.run(run_id)).status == "completed"
        assert {who_asked(event.metadata)[1] for event in engine.log.events if event.root_id == run_id} == {name}


async def test_the_worker_has_the_work_before_whoever_started_it_goes_on(engine: Engine, process: Hosting) -> None:
    """Nothing has to be loaded, and no task is made."""
    worker = await ready(process, "alpha", tools=("t",))
    await engine.start("alpha")
    [work] = [one for one in worker.ear.heard if isinstance(one, WorkForAgent)]
    await worker.done(work, Call, key="k", tool="t")
    [call] = [one for one in worker.ear.heard if isinstance(one, WorkForTool)]
    assert call.claimed.agent_run_id == work.work_id


async def test_work_with_mail_is_handed_over_once_the_mail_is_loaded(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", "beta")
    plan = runs.Plan(steps=(runs.Step(key="a", agent="alpha"), runs.Step(key="b", agent="beta", after=("a",))))
    await engine.start(plan=plan)
    first = await worker.hears(WorkForAgent)
    await worker.done(first, Send, key="m", to="b", body={"said": "hello"})
    await worker.done(first, Complete)
    second = await worker.hears(WorkForAgent)
    assert [mail.body for mail in second.claimed.journal.mailbox] == [{"said": "hello"}]


async def test_who_waits_for_the_end_of_a_run_is_answered_before_the_worker(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    with engine.live.watch(run_id, runs.ENDS) as watch:
        report = worker.about(work, Complete, result=1)
        worker.say(report)
        await watch.next(10)
        assert not [one for one in worker.ear.heard if isinstance(one, Done)]
        assert isinstance(await worker.answer(report.id), Done)


async def test_the_mask_of_an_event_names_all_sagas_that_have_answered(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    run_id = await engine.start("alpha")
    await worker.done(await worker.hears(WorkForAgent), Complete)
    [completed] = [event for event in engine.log.events if event.topic == "agent_run.completed" and event.root_id == run_id]
    numbers = engine.catalog.numbers
    assert completed.settled == sum(1 << numbers[saga] for saga in ("tool_execution", "run_lifecycle", "waits"))


async def test_an_append_has_room_for_so_many_claims_and_the_others_go_to_the_queue(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", slots=MAX_FOLLOW_UPS)
    many = runs.Plan(steps=tuple(runs.Step(key=f"s{number}", agent="alpha") for number in range(MAX_FOLLOW_UPS - 10)))
    run_id = await engine.start(plan=many)
    topics = appends_of(engine, run_id)[0]
    assert (topics.count("agent_run.requested"), topics.count("agent_run.claimed")) == (MAX_FOLLOW_UPS - 10, 10)
    works = [await worker.hears(WorkForAgent) for _ in many.steps]
    assert len({work.work_id for work in works}) == MAX_FOLLOW_UPS - 10


async def test_a_repeated_start_has_the_position_of_the_first_answer(engine: Engine, process: Hosting) -> None:
    await ready(process, "alpha")
    request, run_id = request_of(repeatable=True), new_id()
    command = runs.StartRun(run_id=run_id, project_id=default_project_id(TENANT), plan=runs.sequential(("alpha",)), input=1)
    first = await engine.commands.execute(request, command)
    again = await engine.commands.execute(request, command)
    assert again.duplicate and again.position == first.position == engine.log.head


async def test_a_call_is_claimed_in_the_append_that_makes_it(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", tools=("sum",))
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Call, key="c", tool="sum", arguments={"a": 1})
    call = await worker.hears(WorkForTool)
    assert appends_of(engine, run_id)[1] == ["agent_run.call_started", "invocation.requested", "invocation.attempt_started"]
    assert call.claimed.attempt == 1
    await worker.done(call, Complete, result=3)
    await worker.done(work, Complete, result=2)
    assert (await engine.run(run_id)).status == "completed"
    assert engine.queue.published == 0


async def test_a_run_with_a_call_reads_nothing_of_the_log_in_the_process_that_writes_it(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", tools=("sum",))
    await engine.start("alpha")
    work, reads = await worker.hears(WorkForAgent), store_of(engine).reads
    reads.clear()
    await worker.done(work, Call, key="c", tool="sum", arguments={"a": 1})
    await worker.done(await worker.hears(WorkForTool), Complete, result=3)
    [entry] = (await worker.hears(Update)).news.entries
    assert (entry.key, entry.result) == ("c", 3)
    await engine.settled()
    await turns()
    assert reads == [], "also when the log brings the same events"


async def test_news_that_another_process_wrote_are_read_and_come_in_pages(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    await engine.start("alpha")
    work, other = await worker.hears(WorkForAgent), engine.another()
    run_id, sent_at = work.claimed.run_id, engine.clock.now()
    wanted = [new_id() for _ in range(9)]
    commands: list[Command] = []
    for message_id in wanted:
        commands += [
            messages.SendMessage(
                message_id=message_id, run_id=run_id, sender="b", sender_id=new_id(), recipient="alpha", recipient_id=work.work_id,
                body="x" * 50_000, sent_at=sent_at,
            ),
            agent_runs.DeliverMail(
                agent_run_id=work.work_id, run_id=run_id, message_id=message_id, sender="b", sent_at=sent_at, by_sender=True
            ),
        ]  # fmt: skip
    await other.give(*commands)
    got: list[UUID] = []
    while len(got) < len(wanted):
        got += [mail.message_id for mail in (await worker.hears(Update)).news.mailbox]
    assert got == wanted


async def test_what_waits_in_the_queue_goes_first(engine: Engine, process: Hosting) -> None:
    worker = process.connect()
    await worker.hello(["alpha"])
    first = await engine.start("alpha")
    await engine.settled()
    second = await engine.start("alpha")
    assert appends_of(engine, second) == [FIRST[:3]]
    await engine.settled()
    worker.credit(agent=5)
    assert [(await worker.hears(WorkForAgent)).claimed.run_id for _ in range(2)] == [first, second]


async def test_without_a_free_slot_the_work_goes_to_the_queue(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", slots=1)
    run_ids = [await engine.start("alpha") for _ in range(2)]
    assert [appends_of(engine, run_id)[0] for run_id in run_ids] == [FIRST, FIRST[:3]]
    await engine.settled()
    work = await worker.hears(WorkForAgent)
    worker.credit(agent=0)
    await worker.done(work, Complete)
    worker.credit(agent=1)
    assert (await worker.hears(WorkForAgent)).claimed.run_id == run_ids[1]


async def test_a_queue_that_has_just_given_an_item_may_hold_more(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready(process, "alpha")
    monkeypatch.setattr(dispatch, "QUIET_S", 3600.0)
    run_id = await engine.start("alpha")
    assert appends_of(engine, run_id) == [FIRST[:3]]


async def test_after_a_conflict_the_work_is_claimed_once_and_no_slot_is_lost(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha", slots=1)
    run_id = new_id()
    fault(engine, "run.started", VersionConflict(run_id, 0, 1))
    await engine.start("alpha", run_id=run_id)
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Complete)
    worker.credit(agent=1)
    await until(lambda: worker.session.free("agent") == 1, "a free slot")
    assert (await engine.run(run_id)).status == "completed"
    assert not process.host.dispatcher.claiming


@pytest.mark.parametrize("written", [True, False])
async def test_an_append_without_an_answer_loses_neither_work_nor_slot(engine: Engine, process: Hosting, written: bool) -> None:
    worker = await ready(process, "alpha", slots=1)
    fault(engine, "run.started", Unavailable("the connection was lost"), written=written)
    run_id = new_id()
    with pytest.raises(Unavailable):
        await engine.start("alpha", run_id=run_id)
    if written:
        work = await worker.hears(WorkForAgent)
        await worker.done(work, Complete)
        assert (await engine.run(run_id)).status == "completed"
        worker.credit(agent=1)
    await until(lambda: not process.host.dispatcher.claiming, "the doubt to end")
    assert worker.session.free("agent") == 1
    assert not [one for one in worker.ear.heard if isinstance(one, WorkForAgent)]


async def test_a_claim_in_doubt_does_not_send_what_its_repeat_has_handed_over(engine: Engine, process: Hosting) -> None:
    """A worker reads nothing of work that it has. What happened since would be lost: here the result of a call."""
    worker = await ready(process, "alpha", slots=1)
    fault(engine, "run.started", Unavailable("the connection was lost"), written=False)
    run_id = new_id()
    with pytest.raises(Unavailable):
        await engine.start("alpha", run_id=run_id)
    await engine.start("alpha", run_id=run_id)
    work = await worker.hears(WorkForAgent)
    await until(lambda: not process.host.dispatcher._claims, "the doubt to end")
    await turns()
    assert not [one for one in worker.ear.heard if isinstance(one, WorkForAgent)], "sent once"
    await worker.done(work, Complete)
    worker.credit(agent=1)
    await until(lambda: worker.session.free("agent") == 1, "a free slot")


async def test_the_caller_goes_away_and_the_work_reaches_the_worker(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    store = store_of(engine)
    store.topic, store.hold = "run.started", asyncio.Event()
    starting = asyncio.create_task(engine.start("alpha"))
    await until(lambda: any(event.topic == "agent_run.claimed" for event in engine.log.events), "the append")
    await end(starting)
    await worker.done(await worker.hears(WorkForAgent), Complete)


async def test_a_worker_that_is_lost_meanwhile_gets_the_work_when_it_comes_back(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    store = store_of(engine)
    store.topic, store.hold = "run.started", asyncio.Event()
    starting = asyncio.create_task(engine.start("alpha"))
    await until(lambda: any(event.topic == "agent_run.claimed" for event in engine.log.events), "the append")
    await process.lose(worker)
    back = process.connect()
    await back.hello(["alpha"], back=worker)
    store.hold.set()
    await starting
    work = await back.hears(WorkForAgent)
    assert work.claimed.attempt == 1
    await turns()
    assert not [one for one in back.ear.heard if isinstance(one, WorkForAgent)], "sent once"
    await back.done(work, Complete)


async def test_a_version_that_was_asked_for_is_claimed_by_its_own_worker_only(engine: Engine, process: Hosting) -> None:
    worker = await ready(process, "alpha")
    for version, asked_for, last in (("1", True, 1), ("2", True, 0), ("2", False, 1)):
        run_id, agent_run_id = await engine.start("alpha"), new_id()
        command = agent_runs.RequestAgentRun(
            agent_run_id=agent_run_id, run_id=run_id, step="alpha", agent="alpha", agent_version=version, version_asked=asked_for
        )
        await worker.hears(WorkForAgent)
        await engine.give(command)
        assert engine.of_stream(agent_run_id)[1:] == ["agent_run.claimed"][:last], (version, asked_for)


async def test_a_process_that_stops_takes_no_more_work(engine: Engine, process: Hosting) -> None:
    await ready(process, "alpha")
    process.host.drain()
    run_id = await engine.start("alpha")
    assert appends_of(engine, run_id) == [FIRST[:3]]


async def test_a_step_of_another_root_is_not_touched_by_a_claim_that_is_refused(engine: Engine, process: Hosting) -> None:
    """A claim that the rules refuse is taken back: the work goes to the queue, and the slot is free again."""
    worker = await ready(process, "alpha", slots=1)
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Record, key="k", result=1)
    await engine.give(runs.CancelRun(run_id=run_id, reason="enough"))
    worker.credit(agent=1)
    late = new_id()
    await engine.give(agent_runs.RequestAgentRun(agent_run_id=late, run_id=run_id, step="alpha", agent="alpha"))
    assert engine.of_stream(late) == ["agent_run.requested"]
    await until(lambda: worker.session.free("agent") == 1, "a free slot")
