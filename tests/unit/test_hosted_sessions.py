"""Hosted sessions over the ports in memory: credit, dispatch, reports in order, news, coming back, bounds, the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from application.engine.background import end
from application.engine.ports.log import AppendRequest, AppendResult
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import Offered, Seen
from application.workers.hosting import host
from application.workers.hosting.credit import Credit
from application.workers.hosting.messages import (
    Call,
    Complete,
    Defined,
    Done,
    Drain,
    Fail,
    Hello,
    InHand,
    Leaving,
    LifeSign,
    MalformedMessage,
    Record,
    Refused,
    Return,
    Stop,
    Update,
    WorkForAgent,
    WorkForTool,
)
from domain import agent_runs, runs
from domain.failures import Failure
from domain.tenants import RevokeApiKey
from tests.kit.engine import Engine
from tests.kit.hosting import KEY, Define, Hosting, SpeakingWorker, hosting, issue_keys
from tests.kit.waiting import TENANT, turns, until

OTHER_KEY = uuid4()


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    await engine.set_up()
    await issue_keys(engine, KEY, OTHER_KEY)
    async with engine.running():
        yield engine


@pytest_asyncio.fixture
async def process(engine: Engine) -> AsyncIterator[Hosting]:
    async with hosting(engine) as found:
        yield found


async def welcomed(process: Hosting, *agents: str, tools: tuple[str, ...] = ()) -> SpeakingWorker:
    worker = process.connect()
    await worker.hello(agents, tools)
    return worker


# --- credit -------------------------------------------------------------------------------------------------------------


def test_credit_is_absolute_after_the_last_work_that_the_worker_has_seen() -> None:
    credit = Credit()
    assert credit.free == 0
    credit.tell(3, 0)
    credit.reserve()
    assert credit.free == 2
    credit.sent(1)
    credit.reserve()
    credit.sent(2)
    assert credit.free == 1
    credit.tell(2, 1)  # the worker has seen number 1 and has two slots left: number 2 takes one of them
    assert credit.free == 1
    credit.tell(9, 0)  # overtaken
    assert credit.free == 1
    credit.tell(2, 2)
    assert credit.free == 2
    credit.reserve()
    credit.release()
    credit.sent_again(3)
    assert credit.free == 1


async def test_work_comes_for_free_slots_only_and_nothing_is_asked_for_without(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    for _ in range(3):
        await engine.start("alpha")
    await engine.settled()
    assert not engine.queue.pullers
    worker.credit(agent=2)
    first, second = await worker.hears(WorkForAgent), await worker.hears(WorkForAgent)
    assert (first.n, second.n) == (1, 2)
    await turns()
    assert len(engine.queue.entries) == 1, "a claimed item is acknowledged, the third is not taken"
    worker.credit(agent=0)
    await worker.done(first, Complete)
    await turns()
    assert not [one for one in worker.ear.heard if isinstance(one, WorkForAgent)]
    worker.credit(agent=1)
    assert (await worker.hears(WorkForAgent)).n == 3


async def test_a_crowded_connection_gets_no_work(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.ear.is_crowded = True
    worker.credit(agent=1)
    await engine.start("alpha")
    await engine.settled()
    assert not engine.queue.pullers
    worker.ear.is_crowded = False
    worker.session.relieved()
    await worker.hears(WorkForAgent)


async def test_an_item_that_finds_no_slot_goes_back_to_the_queue(engine: Engine, process: Hosting) -> None:
    """One slot is shared by two pools: both ask for one item."""
    worker = await welcomed(process, "alpha", "beta")
    worker.credit(agent=1)
    await until(lambda: sum(puller.asked for puller in engine.queue.pullers) == 2, "two requests")
    await asyncio.gather(engine.start("alpha"), engine.start("beta"))
    await worker.hears(WorkForAgent)
    await until(
        lambda: [one for one in engine.queue.entries.values() if one.deliveries and one.held_until is None], "an item given back"
    )
    [left] = engine.queue.entries.values()
    assert left.held_until is None
    worker.credit(agent=1)
    await worker.hears(WorkForAgent)


async def test_work_that_was_never_handed_over_leaves_nothing_behind(engine: Engine, process: Hosting) -> None:
    await welcomed(process, "alpha")
    [session] = process.host.connected
    hand = session.hands.new("agent", uuid4())
    session.hands.wake(hand)
    hand.drop()
    session.hands.wake(hand)  # was due before the end of the watch
    assert not session.hands._woken and not engine.live.watched(hand.work_id)


async def test_a_lost_pull_is_made_anew(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    await until(lambda: engine.queue.pullers, "a request")
    engine.queue.lose_pulls()
    await engine.start("alpha")
    await worker.hears(WorkForAgent)


async def test_a_step_that_asks_for_a_version_waits_for_a_worker_of_that_version(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=5)
    run_id = await engine.start("alpha")
    await worker.done(await worker.hears(WorkForAgent), Complete)
    await engine.settled()
    item = WorkItem(TENANT, "agent", "alpha", uuid4(), 1, run_id)
    request = agent_runs.RequestAgentRun(
        agent_run_id=item.work_id, run_id=run_id, step="alpha", agent="alpha", agent_version="2", version_asked=True
    )
    await engine.give(request)
    await engine.settled()
    [entry] = await until(lambda: [one for one in engine.queue.entries.values() if one.held_until], "the item set aside")
    assert entry.item.work_id == item.work_id and entry.held_until is not None
    assert not [one for one in worker.ear.heard if isinstance(one, WorkForAgent)]


# --- reports ------------------------------------------------------------------------------------------------------------


async def test_reports_of_one_piece_of_work_take_effect_in_order(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    for i in range(10):
        worker.say(worker.about(work, Record, key=f"k{i}", result=i))
    worker.say(worker.about(work, Complete, result="done"))
    worker.say(worker.about(work, Record, key="late", result=1))
    assert isinstance(await worker.answer(12), Refused)
    state = await engine.agent_run(work.work_id)
    assert [state.journal[key].result for _, key in sorted(state.changed.items())] == list(range(10))
    assert (await engine.run(run_id)).status == "completed"
    answered = [one.id for one in worker.ear.heard if isinstance(one, object) and getattr(one, "id", None)]
    assert answered == list(range(1, 12))


async def test_steps_that_wait_together_are_one_append_and_each_has_its_answer(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    appended: list[int] = []
    append = engine.store.append

    async def noted(request: AppendRequest) -> AppendResult:
        appended.append(len(request.commands))
        return await append(request)

    engine.store.append = noted  # type: ignore[method-assign]
    for key, result in (("a", 1), ("b", 2), ("b", "another"), ("c", 3)):
        worker.say(worker.about(work, Record, key=key, result=result))
    answers = [await worker.answer(number) for number in (1, 2, 3, 4)]
    assert [type(answer) for answer in answers] == [Done, Done, Refused, Done]
    recorded = [event for event in engine.log.streams[work.work_id] if event.topic == "agent_run.step_recorded"]
    assert [answer.fields["version"] for answer in answers if isinstance(answer, Done)] == [event.version for event in recorded]
    assert appended == [3]


async def test_work_that_its_worker_gives_up_is_dispatched_anew(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    assert (await worker.done(work, Return, reason="a defect")).fields == {}
    assert engine.of_stream(work.work_id)[-1] == "agent_run.resumed"
    assert not process.opened[0].hands.held
    worker.credit(agent=1)
    await engine.settled()
    again = await worker.hears(WorkForAgent)
    assert (again.work_id, again.claimed.attempt) == (work.work_id, 2)


async def test_a_worker_that_closes_right_after_it_said_that_it_leaves_has_left(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.say(Leaving(t="leaving"))
    await process.lose(worker)
    assert await engine.sessions.over([worker.welcome.session_id])


async def test_an_outage_delays_reports_and_keeps_their_order(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    await engine.settled()
    engine.log.away = True
    worker.say(worker.about(work, Record, key="a", result=1))
    await turns()
    worker.say(worker.about(work, Complete))
    await turns()
    assert not [one for one in worker.ear.heard if isinstance(one, Refused)]
    engine.log.away = False
    engine.log.wake()
    await worker.answer(2)
    assert engine.of_stream(work.work_id)[-2:] == ["agent_run.step_recorded", "agent_run.completed"]


async def test_more_reports_than_may_wait_end_the_session(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=1)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    for i in range(1025):
        worker.say(worker.about(work, Record, key=f"k{i}"))
    assert worker.ear.ending is not None and worker.ear.ending[0] == "too-much"
    other = await welcomed(process, "alpha")
    other.credit(agent=1)
    await engine.start("alpha")
    work = await other.hears(WorkForAgent)
    other.say(other.about(work, Record, key="large"), size=5 * 1024 * 1024)
    assert other.ear.ending is not None and other.ear.ending[0] == "too-much"


async def test_what_comes_before_the_welcome_or_a_second_hello_is_malformed(process: Hosting) -> None:
    worker = process.connect()
    with pytest.raises(MalformedMessage):
        worker.credit(agent=1)
    await worker.hello([])
    with pytest.raises(MalformedMessage):
        worker.say(Hello(t="hello", versions=(1,), worker="w", incarnation=uuid4()))


# --- news ---------------------------------------------------------------------------------------------------------------


async def test_the_outcome_of_a_call_is_pushed_and_own_entries_are_not(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha", tools=("add",))
    worker.credit(agent=1, tool=1)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Record, key="own", result=1)
    await worker.done(work, Call, key="c", tool="add", arguments={})
    call = await worker.hears(WorkForTool)
    await worker.done(call, Complete, result=3)
    update = await worker.hears(Update)
    [entry] = update.news.entries
    assert (entry.key, entry.status, entry.result) == ("c", "ok", 3)
    await worker.done(work, Fail, error=Failure(type="E", message="m", kind="permanent"))
    await engine.settled()
    await turns()
    assert not [one for one in worker.ear.heard if isinstance(one, Update | Stop)]


async def test_a_cancellation_stops_agent_and_tool_at_once(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha", tools=("add",))
    worker.credit(agent=1, tool=1)
    run_id = await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    await worker.done(work, Call, key="c", tool="add", arguments={})
    call = await worker.hears(WorkForTool)
    await engine.give(runs.CancelRun(run_id=run_id))
    stops = [await worker.hears(Stop), await worker.hears(Stop)]
    assert {stop.work_id for stop in stops} == {work.work_id, call.work_id}
    assert {stop.reason for stop in stops} == {"cancelled"}
    assert len(worker.ear.urgent) == 2
    await worker.done(call, Complete, result="counts all the same")


# --- coming back --------------------------------------------------------------------------------------------------------


async def test_a_worker_comes_back_to_another_process_with_its_work(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha", tools=("add",))
    worker.credit(agent=2, tool=1)
    await engine.start("alpha")
    lost = await worker.hears(WorkForAgent)
    await worker.done(lost, Call, key="c", tool="add", arguments={})
    call = await worker.hears(WorkForTool)
    await process.lose(worker)
    other = engine.another()
    async with hosting(other) as elsewhere:
        live = asyncio.create_task(other.live.run())
        back = elsewhere.connect()
        kept = InHand(work=call.work_id, attempt=1, token=call.token)
        foreign = InHand(work=uuid4(), attempt=1, token="x")
        await back.hello(["alpha"], ["add"], back=worker, work=[kept, foreign])
        assert back.welcome.session_id == worker.welcome.session_id
        assert (await back.hears(Stop)).work_id == foreign.work
        again = await back.hears(WorkForAgent)  # it was not in hand: it never arrived
        assert (again.work_id, again.claimed.attempt, again.token) == (lost.work_id, 1, lost.token)
        await back.done(call, Complete, result=1)
        assert (await back.hears(Update)).work_id == lost.work_id
        live.cancel()
        await asyncio.wait({live})


async def test_a_session_that_is_at_another_process_ends_here_at_the_next_renewal(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    await process.host.renew()
    assert worker.ear.ending is None
    async with hosting(engine.another()) as elsewhere:
        back = elsewhere.connect()
        await back.hello([], back=worker)
        await process.host.renew()
        assert worker.ear.ending == ("replaced", None)
        await elsewhere.host.renew()
        assert back.ear.ending is None


async def test_an_outage_ends_no_session(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    engine.log.away = True
    await process.host.renew()
    engine.log.away = False
    assert worker.ear.ending is None


async def test_a_process_without_connections_says_that_it_takes_sessions_while_there_are_some(
    engine: Engine, process: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sessions of a process that died would not lapse: their workers might have had nowhere to go."""
    monkeypatch.setattr(host, "SEEN_EVERY_S", 0.0)
    said, seen = 0, engine.sessions.seen

    async def counted(ids: Sequence[UUID]) -> Seen:
        nonlocal said
        said += 1
        return await seen(ids)

    monkeypatch.setattr(engine.sessions, "seen", counted)
    running = asyncio.create_task(process.host.run())
    try:
        await until(lambda: said == 1)
        await turns(20)
        assert said == 1, "nobody has a session, so nothing is said"
        process.presence.tell(True)
        await until(lambda: said == 2)
    finally:
        await end(running)


# --- definitions, times, the end ------------------------------------------------------------------------------------------


async def test_a_definition_that_cannot_be_read_refuses_itself_and_the_set_can_be_changed(engine: Engine, process: Hosting) -> None:
    worker = process.connect()
    welcome = await worker.hello(["alpha", "-"], ["add"])
    assert [one.error is None for one in welcome.agents] == [True, False] and welcome.tools[0].error is None
    worker.credit(agent=1)
    await until(lambda: engine.queue.pullers, "a request for alpha")
    worker.say(Define(t="define", id=1, agents=("beta",)))
    await worker.hears(Defined)
    run_id = await engine.start("alpha", "beta")
    await engine.settled()
    await turns()
    assert not [one for one in worker.ear.heard if isinstance(one, WorkForAgent)], run_id


async def test_beats_and_silence(process: Hosting) -> None:
    worker, mute = process.connect(), process.connect()
    await worker.hello([])
    process.clock.now += 3
    process.host.tick(process.clock.now)
    assert [type(one) for one in worker.ear.urgent] == [LifeSign]
    process.clock.now += 2
    process.host.tick(process.clock.now)
    assert mute.ear.ending is not None and mute.ear.ending[0] == "silent"
    worker.say(LifeSign())
    process.clock.now += 14
    process.host.tick(process.clock.now)
    assert worker.ear.ending is None
    process.clock.now += 1
    process.host.tick(process.clock.now)
    assert worker.ear.ending is not None and worker.ear.ending[0] == "silent"


async def test_when_the_process_stops_a_session_answers_what_waits_and_gets_no_more(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha")
    worker.credit(agent=5)
    await engine.start("alpha")
    work = await worker.hears(WorkForAgent)
    report = worker.about(work, Record, key="a", result=1)
    worker.say(report)
    process.host.drain()
    assert isinstance(worker.ear.urgent[-1], Drain)
    await worker.answer(report.id)
    await until(lambda: worker.ear.ending == ("stopping", None), "the end")
    await engine.start("alpha")
    await engine.settled()
    assert len(engine.queue.entries) == 1


async def test_every_process_knows_what_a_session_offers(engine: Engine, process: Hosting) -> None:
    worker = await welcomed(process, "alpha", tools=("add",))
    [listed] = await engine.sessions.of_tenant(TENANT)
    assert listed.offered == Offered({"alpha": "1"}, {"add": "1"})
    worker.say(Define(t="define", id=1, agents=("beta",)))
    await worker.hears(Defined)
    [listed] = await engine.sessions.of_tenant(TENANT)
    assert listed.offered == Offered({"beta": "1"})
    process.host.drain()
    [listed] = await engine.sessions.of_tenant(TENANT)
    assert listed.offered == Offered({"beta": "1"}), "the worker comes back to another process"


async def test_a_revoked_key_ends_the_sessions_of_that_key_only(engine: Engine, process: Hosting) -> None:
    ends, stays = process.connect(), process.connect(OTHER_KEY)
    await ends.hello([])
    await stays.hello([])
    await engine.give(RevokeApiKey(tenant_id=TENANT, key_id=KEY))
    await until(lambda: ends.ear.ending is not None, "the end of the session")
    assert ends.ear.ending is not None and ends.ear.ending[0] == "key"
    assert stays.ear.ending is None
