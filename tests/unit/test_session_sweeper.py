"""The sweeper of sessions in memory: whose work lapses, when time counts, and what an outage does to the count."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from application.engine import lapses
from application.engine.lapses import SessionSweeper, SteadyTime
from application.engine.leases import SessionPresence
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import LapsedWork, Look, WorkerSession
from application.lapses import lapsing
from tests.kit.engine import Engine, PlayedWorker
from tests.kit.memory import MemoryWorkerSessions
from tests.kit.waiting import TENANT, new_id, running, turns, until


class Sweeping:
    """A sweeper, an api process that renews sessions, and a clock for all."""

    def __init__(self, engine: Engine, worker: PlayedWorker) -> None:
        self.engine, self.worker = engine, worker
        self.api = engine.sessions
        self.alive: set[UUID] = set()
        self.away = False
        self.presence = SessionPresence()
        self.sweeper = self.another()

    def another(self, sessions: MemoryWorkerSessions | None = None) -> SessionSweeper:
        own = sessions or MemoryWorkerSessions(self.engine.session_board)
        return SessionSweeper(own, self.engine.commands, lapsing, self.presence, clock=self.seconds)

    def seconds(self) -> float:
        return self.engine.clock.now().timestamp()

    async def session(self) -> WorkerSession:
        session = WorkerSession(new_id(), TENANT, "s1", "key:test", uuid4(), "0.9.0")
        assert await self.api.open(session, "secret", most_of_actor=100, most_of_tenant=100)
        self.alive.add(session.session_id)
        return session

    async def holds(self, session: WorkerSession, tool: str | None = None) -> WorkItem:
        """Work that a session has claimed: an agent run, or a call of a tool."""
        if tool is None:
            await self.engine.start("alpha")
        else:
            await self.engine.start("beta")
            await (await self.worker.next("beta")).call("c", tool, **({"a": 1} if tool == "add" else {}))
        item = await self.dispatched("alpha" if tool is None else tool, "agent" if tool is None else "tool")
        assert await self.engine.workers.sessions.claim(self.worker.caller, session, item, uuid4())
        return item

    async def dispatched(self, pool: str = "alpha", kind: str = "agent") -> WorkItem:
        await self.engine.settled()
        delivery = await self.worker.take(pool, kind)
        await delivery.ack()
        return delivery.item

    async def pass_time(self, seconds: int, sweeper: SessionSweeper | None = None) -> None:
        """Each second the sweeper looks, and the api renews its sessions unless it is away."""
        for _ in range(seconds):
            self.engine.clock.advance(1)
            if not self.away:
                await self.api.seen(list(self.alive))
            await (sweeper or self.sweeper).sweep()

    def status(self, item: WorkItem) -> str:
        return self.engine.of_stream(item.work_id)[-1]


@pytest.fixture
def sweeping(engine: Engine, worker: PlayedWorker) -> Sweeping:
    return Sweeping(engine, worker)


async def test_the_work_of_a_lost_session_is_dispatched_anew_within_its_lease(sweeping: Sweeping) -> None:
    lost, kept = await sweeping.session(), await sweeping.session()
    gone, stays = await sweeping.holds(lost), await sweeping.holds(kept)
    await sweeping.pass_time(3)
    sweeping.alive.discard(lost.session_id)
    await sweeping.pass_time(10)
    assert sweeping.status(gone) == "agent_run.claimed", "the lease has not passed yet"
    await sweeping.pass_time(1)
    assert sweeping.status(gone) == "agent_run.resumed" and sweeping.status(stays) == "agent_run.claimed"
    again = await sweeping.dispatched()
    assert (again.work_id, again.dispatch) == (gone.work_id, 2)


async def test_lapsed_work_lapses_once(sweeping: Sweeping) -> None:
    lost = await sweeping.session()
    items = [await sweeping.holds(lost) for _ in range(3)]
    await sweeping.pass_time(1)
    sweeping.alive.clear()
    await sweeping.pass_time(12)
    await sweeping.pass_time(3, sweeping.another())
    assert sweeping.sweeper._done == set(), "the read model knows of the lapses"
    for item in items:
        assert sweeping.engine.of_stream(item.work_id).count("agent_run.resumed") == 1


async def test_calls_lapse_by_what_their_tool_allows(sweeping: Sweeping) -> None:
    lost = await sweeping.session()
    repeatable, once = await sweeping.holds(lost, "add"), await sweeping.holds(lost, "mail")
    await sweeping.pass_time(1)
    sweeping.alive.clear()
    await sweeping.pass_time(12)
    assert (sweeping.status(repeatable), sweeping.status(once)) == ("invocation.requeued", "invocation.became_ambiguous")


async def test_what_a_worker_leaves_behind_lapses_at_the_next_look(sweeping: Sweeping) -> None:
    left = await sweeping.session()
    item = await sweeping.holds(left)
    await sweeping.pass_time(2)
    await sweeping.api.end([left.session_id])
    await sweeping.pass_time(1)
    [resumed] = [e for e in sweeping.engine.log.events if e.topic == "agent_run.resumed"]
    assert sweeping.status(item) == "agent_run.resumed" and b'"left"' in resumed.state


async def test_work_of_a_session_that_is_not_kept_any_more_lapses_too(sweeping: Sweeping) -> None:
    gone, other = await sweeping.session(), await sweeping.session()
    item = await sweeping.holds(gone)
    sweeping.alive.discard(gone.session_id)
    del sweeping.engine.session_board.rows[gone.session_id]
    await sweeping.pass_time(lapses.WHOLE_EVERY)
    assert sweeping.status(item) == "agent_run.resumed" and not await sweeping.api.over([other.session_id])


async def test_no_session_is_lost_while_no_process_takes_sessions(sweeping: Sweeping) -> None:
    """The only api process is killed, and is back after half a minute: its workers come back to it."""
    one = await sweeping.session()
    item = await sweeping.holds(one)
    await sweeping.pass_time(20)
    sweeping.away = True
    await sweeping.pass_time(30)
    sweeping.away = False
    sweeping.alive.clear()
    await sweeping.pass_time(8)
    assert await sweeping.api.resume(TENANT, one.session_id, "secret", one.incarnation)
    sweeping.alive.add(one.session_id)
    await sweeping.pass_time(30)
    assert sweeping.status(item) == "agent_run.claimed"


async def test_a_worker_that_vanished_with_its_process_is_lost_after_the_process_is_back(sweeping: Sweeping) -> None:
    item = await sweeping.holds(await sweeping.session())
    await sweeping.pass_time(20)
    sweeping.alive.clear()
    sweeping.away = True
    await sweeping.pass_time(30)
    sweeping.away = False
    await sweeping.pass_time(10)
    assert sweeping.status(item) == "agent_run.claimed"
    await sweeping.pass_time(2)
    assert sweeping.status(item) == "agent_run.resumed"


async def test_an_outage_of_the_database_begins_the_count_anew(sweeping: Sweeping) -> None:
    engine, item = sweeping.engine, await sweeping.holds(await sweeping.session())
    await sweeping.pass_time(20)
    async with running(sweeping.sweeper.run()):
        sweeping.presence.tell(True)
        engine.log.away = True
        with capture_logs() as lines:
            await until(lambda: lines, "a failed look")
        assert [line["event"] for line in lines] == ["sweep_of_sessions_failed"]
    engine.clock.advance(60)
    engine.log.away = False
    await sweeping.sweeper.sweep()
    assert sweeping.status(item) == "agent_run.claimed", "the first look after the outage"
    await sweeping.pass_time(30)
    assert sweeping.status(item) == "agent_run.claimed"


async def test_an_outage_of_the_sweeper_begins_the_count_anew(sweeping: Sweeping) -> None:
    engine, item = sweeping.engine, await sweeping.holds(await sweeping.session())
    await sweeping.pass_time(20)
    engine.clock.advance(60)
    await sweeping.api.seen([])
    await sweeping.sweeper.sweep()
    await sweeping.another().sweep()
    assert sweeping.status(item) == "agent_run.claimed"


async def test_a_session_that_is_over_is_forgotten_in_the_end(sweeping: Sweeping) -> None:
    one = await sweeping.session()
    await sweeping.holds(one)
    await sweeping.api.end([one.session_id])
    await sweeping.pass_time(3 * lapses.WHOLE_EVERY)
    assert sweeping.engine.session_board.rows == {}


async def test_work_that_cannot_lapse_does_not_stop_the_other_work(sweeping: Sweeping, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await sweeping.session()
    broken, fine = await sweeping.holds(one), await sweeping.holds(one)
    execute = sweeping.engine.commands.execute

    async def broken_stream(request, *commands, **options):  # type: ignore[no-untyped-def]
        if commands[0].agent_run_id == broken.work_id:
            raise ValueError("an event cannot be read")
        return await execute(request, *commands, **options)

    monkeypatch.setattr(sweeping.engine.commands, "execute", broken_stream)
    await sweeping.api.end([one.session_id])
    with capture_logs() as lines:
        await sweeping.pass_time(3)
    assert [line["work_id"] for line in lines if line["event"] == "lapse_failed"] == [str(broken.work_id)]
    assert sweeping.status(fine) == "agent_run.resumed"


async def test_without_sessions_nothing_is_asked(sweeping: Sweeping) -> None:
    class Counting(MemoryWorkerSessions):
        looks = 0

        async def look(self, *, lease_s: float = 10, ready_s: float = 5) -> Look:
            self.looks += 1
            return await super().look(lease_s=lease_s, ready_s=ready_s)

        async def lapsed(self, *, after: UUID | None, limit: int) -> list[LapsedWork]:
            self.looks += 1
            return await super().lapsed(after=after, limit=limit)

    counting = Counting(sweeping.engine.session_board)
    async with running(sweeping.another(counting).run()):
        await turns()
        assert counting.looks == 0
        sweeping.presence.tell(True)
        await until(lambda: counting.looks >= 2, "a look, and one for work that was left over")


# --- steady time ----------------------------------------------------------------------------------------------------------

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def look(at: float, ready: int = 1) -> Look:
    return Look(NOON + timedelta(seconds=at), ready, 1, 0, frozenset())


def steady_after(looks: Sequence[tuple[float, float, Look]]) -> float:
    steady, seconds = SteadyTime(1.0), 0.0
    for began, ended, one in looks:
        seconds = steady.after(began, ended, one)
    return seconds


def every_second(upto: int, start: int = 0) -> list[tuple[float, float, Look]]:
    return [(float(n), n + 0.1, look(n)) for n in range(start, upto + 1)]


def test_time_counts_from_the_first_of_looks_without_a_pause() -> None:
    assert steady_after(every_second(0)) == 0
    assert steady_after(every_second(12)) == pytest.approx(12)


@pytest.mark.parametrize(
    "odd",
    [
        (8.2, 8.3, look(8)),  # late: the sweeper was away
        (6.0, 8.3, look(8)),  # slow: the database was away
        (6.0, 6.1, look(3600)),  # the database's clock was set
        (6.0, 6.1, look(-3600)),
        (6.0, 6.1, look(6, ready=0)),  # nobody takes sessions
    ],
)
def test_time_counts_anew_after_an_interruption(odd: tuple[float, float, Look]) -> None:
    assert steady_after([*every_second(5), odd]) == 0


def test_a_look_that_is_a_little_late_is_no_interruption() -> None:
    assert steady_after([*every_second(5), (7.5, 7.6, look(7.5))]) == pytest.approx(7.5)


def test_time_counts_anew_after_a_look_that_failed() -> None:
    steady = SteadyTime(1.0)
    assert [steady.after(*one) for one in every_second(12)][-1] == pytest.approx(12)
    steady.interrupt()
    assert [steady.after(*one) for one in every_second(14, start=13)] == [0, pytest.approx(1)]


def test_time_counts_from_the_first_process_that_takes_sessions() -> None:
    assert steady_after([(0.0, 0.0, look(0, ready=0)), (1.0, 1.0, look(1)), (2.0, 2.0, look(2))]) == 1


async def test_the_presence_of_sessions_is_what_the_last_beat_said() -> None:
    presence = SessionPresence()
    waiting = asyncio.create_task(presence.wait())
    await turns()
    assert not presence.there and not waiting.done()
    presence.tell(True)
    await waiting
    assert presence.there
    presence.tell(False)
    assert not presence.there
