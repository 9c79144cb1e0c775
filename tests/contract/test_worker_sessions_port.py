"""What the port `WorkerSessions` promises; in memory and on PostgreSQL."""

from uuid import UUID, uuid4

from uuid_utils.compat import uuid7

from adapters.postgres.pool import Pool
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import HeldWork, LapsedWork, Offered, WorkerSession, WorkerSessions
from tests.contract.session_sides import PostgresSessionSide, SessionSide

TENANT = uuid7()


def session(tenant_id: UUID = TENANT, actor: str = "key:one", worker: str = "w1") -> WorkerSession:
    return WorkerSession(uuid7(), tenant_id, worker, actor, uuid4(), "0.9.0")


def item(kind: str = "agent", pool: str = "historian", tenant_id: UUID = TENANT) -> WorkItem:
    return WorkItem(tenant_id, kind, pool, uuid7(), 1, uuid7())


def held(of: WorkItem, by: WorkerSession, attempt: int = 1) -> HeldWork:
    return HeldWork(of.tenant_id, of.kind, of.work_id, of.root_id, attempt, by.session_id)


async def open_at(process: WorkerSessions, one: WorkerSession, secret: str = "secret") -> WorkerSession:
    assert await process.open(one, secret, most_of_actor=10, most_of_tenant=20)
    return one


async def test_a_session_goes_on_while_its_process_renews_it(sessions: SessionSide) -> None:
    kept, forgotten = await open_at(sessions.one, session()), await open_at(sessions.one, session())
    for _ in range(3):
        await sessions.pass_time(6)
        seen = await sessions.one.seen([kept.session_id, uuid7()])
        assert seen.kept == {kept.session_id} and seen.any_session
    look = await sessions.other.look()
    assert (look.going_on, look.over, look.unseen) == (2, 0, {forgotten.session_id})
    await sessions.other.lose([kept.session_id, forgotten.session_id])
    look = await sessions.other.look()
    assert (look.going_on, look.over, look.unseen) == (1, 1, frozenset())
    assert (await sessions.one.seen([kept.session_id, forgotten.session_id])).kept == {kept.session_id}
    assert await sessions.one.over([kept.session_id, forgotten.session_id]) == {forgotten.session_id}


async def test_a_session_that_is_seen_after_the_look_is_not_lost(sessions: SessionSide) -> None:
    one = await open_at(sessions.one, session())
    await sessions.pass_time(11)
    unseen = (await sessions.other.look()).unseen
    await sessions.one.seen([one.session_id])
    await sessions.other.lose(list(unseen))
    assert await sessions.one.over([one.session_id]) == frozenset()


async def test_a_session_that_was_seen_in_the_future_is_unseen(sessions: SessionSide) -> None:
    """The database's clock was set back by an hour: the session would go on for an hour without a worker."""
    one = await open_at(sessions.one, session())
    await sessions.pass_time(-3600)
    assert (await sessions.other.look()).unseen == {one.session_id}


async def test_a_worker_comes_back_with_its_secret_and_incarnation(sessions: SessionSide) -> None:
    one = await open_at(sessions.one, session())
    await sessions.pass_time(9)
    for wrong in (
        (TENANT, one.session_id, "guessed", one.incarnation),
        (TENANT, one.session_id, "secret", uuid4()),
        (TENANT, uuid7(), "secret", one.incarnation),
        (uuid7(), one.session_id, "secret", one.incarnation),
    ):
        assert await sessions.other.resume(*wrong) is None
    assert await sessions.other.resume(TENANT, one.session_id, "secret", one.incarnation) == one
    await sessions.pass_time(3)
    assert (await sessions.other.look()).unseen == frozenset(), "the return renews the session"
    assert (await sessions.one.seen([one.session_id])).kept == frozenset(), "it belongs to the other process now"
    assert (await sessions.other.seen([one.session_id])).kept == {one.session_id}


async def test_a_session_that_is_over_does_not_come_back(sessions: SessionSide) -> None:
    left, lost = await open_at(sessions.one, session()), await open_at(sessions.one, session())
    await sessions.other.end([left.session_id])
    assert await sessions.one.over([left.session_id]) == frozenset(), "another process does not end it"
    await sessions.one.end([left.session_id])
    await sessions.pass_time(11)
    await sessions.one.lose([lost.session_id])
    for one in (left, lost):
        assert await sessions.one.resume(TENANT, one.session_id, "secret", one.incarnation) is None
    assert (await sessions.one.seen([left.session_id, lost.session_id])).kept == frozenset()


async def test_a_repeated_opening_is_the_same_session(sessions: SessionSide) -> None:
    one = await open_at(sessions.one, session())
    assert await sessions.one.open(one, "secret", most_of_actor=1, most_of_tenant=1)
    assert not await sessions.one.open(one, "another secret", most_of_actor=10, most_of_tenant=10)
    assert len(await sessions.one.of_tenant(TENANT)) == 1


async def test_sessions_of_a_key_and_of_a_tenant_are_bounded(sessions: SessionSide) -> None:
    first = session()
    assert await sessions.one.open(first, "s", most_of_actor=1, most_of_tenant=2)
    assert not await sessions.one.open(session(), "s", most_of_actor=1, most_of_tenant=2)
    assert await sessions.one.open(session(actor="key:two"), "s", most_of_actor=1, most_of_tenant=2)
    assert not await sessions.one.open(session(actor="key:three"), "s", most_of_actor=1, most_of_tenant=2)
    assert await sessions.one.open(session(uuid7()), "s", most_of_actor=1, most_of_tenant=2)
    await sessions.one.end([first.session_id])
    assert await sessions.one.open(session(), "s", most_of_actor=1, most_of_tenant=2)


async def test_work_of_a_session_is_found_by_its_session(sessions: SessionSide) -> None:
    one, two = await open_at(sessions.one, session()), await open_at(sessions.one, session(worker="w2"))
    agent, call, others = item(), item("tool"), item()
    await sessions.claimed(agent, one.session_id, attempt=3)
    await sessions.claimed(call, one.session_id)
    await sessions.claimed(others, two.session_id)
    assert (await sessions.other.held_by([one.session_id])).work == sorted(
        [held(agent, one, 3), held(call, one)], key=lambda work: work.work_id
    )
    await sessions.closed(agent.work_id)
    assert (await sessions.other.held_by([one.session_id])).work == [held(call, one)]
    first, last = await sessions.one.of_tenant(TENANT)
    assert (first.session, first.agent_runs, first.calls) == (one, 0, 1)
    assert (last.session, last.agent_runs, last.calls) == (two, 1, 0)
    assert await sessions.one.of_tenant(TENANT, limit=1) == [first] and await sessions.one.of_tenant(uuid7()) == []
    assert await sessions.one.of_tenant(TENANT, after=("w1", one.session_id)) == [last]


async def test_what_a_session_has_in_hand_is_told_to_its_tenant(sessions: SessionSide) -> None:
    one = await open_at(sessions.one, session())
    assert await sessions.other.in_hand(TENANT, one.session_id, limit=9) == []
    first, then, waiting = item(), item("tool"), item()
    await sessions.claimed(first, one.session_id, attempt=3)
    await sessions.pass_time(5)
    await sessions.claimed(then, one.session_id)
    await sessions.waits(waiting)
    found = await sessions.other.in_hand(TENANT, one.session_id, limit=9)
    assert found is not None
    assert [(work.kind, work.name, work.work_id, work.root_id, work.attempt) for work in found] == [
        ("agent", first.pool, first.work_id, first.root_id, 3), ("tool", then.pool, then.work_id, then.root_id, 1),
    ]  # fmt: skip
    assert 4 < (found[1].dispatched_at - found[0].dispatched_at).total_seconds() < 60
    assert await sessions.other.in_hand(TENANT, one.session_id, limit=1) == found[:1]
    assert await sessions.other.in_hand(uuid7(), one.session_id, limit=9) is None
    await sessions.one.end([one.session_id])
    assert await sessions.other.in_hand(TENANT, one.session_id, limit=9) is None


async def test_a_session_says_what_it_offers(sessions: SessionSide) -> None:
    one, again = await open_at(sessions.one, session()), await open_at(sessions.one, session())
    other = await open_at(sessions.one, session(worker="w2"))
    assert [listed.offered for listed in await sessions.other.of_tenant(TENANT)] == [None] * 3
    await sessions.one.offer(one.session_id, Offered({"historian": "1", "gone": "1"}, {"mail": "1"}))
    await sessions.one.offer(one.session_id, Offered({"historian": "2"}, {"mail": "1"}))
    await sessions.one.offer(again.session_id, Offered({"historian": "2"}))
    await sessions.one.offer(other.session_id, Offered({"historian": "3"}))
    await sessions.one.offer(uuid7(), Offered({"of a session that was removed": "1"}))
    offered = {listed.session.session_id: listed.offered for listed in await sessions.other.of_tenant(TENANT)}
    assert offered[one.session_id] == Offered({"historian": "2"}, {"mail": "1"})
    names = ["historian", "gone", "mail"]
    assert await sessions.other.offering(TENANT, "agent", names) == {"historian": 2}, "a worker with two sessions is one worker"
    assert await sessions.other.offering(TENANT, "tool", names) == {"mail": 1}
    assert await sessions.other.offering(uuid7(), "agent", names) == {}
    await sessions.one.end([one.session_id])
    assert await sessions.other.offering(TENANT, "tool", names) == {}
    await sessions.pass_time(61)
    await sessions.one.tidy(kept_s=60)
    assert await sessions.other.offering(TENANT, "agent", names) == {"historian": 2}


async def test_work_that_no_session_offers_is_named(sessions: SessionSide) -> None:
    stranger, mine = uuid7(), uuid7()
    of_stranger = await open_at(sessions.one, session(stranger))
    await sessions.one.offer(of_stranger.session_id, Offered({"lonely": "1"}, {"historian": "1"}))
    await sessions.waits(item(pool="lonely", tenant_id=mine))
    await sessions.waits(item(pool="historian", tenant_id=mine))
    await sessions.claimed(item(pool="claimed", tenant_id=mine), of_stranger.session_id)
    await sessions.pass_time(500)
    await sessions.waits(item(pool="lonely", tenant_id=mine))
    await sessions.waits(item("tool", "mail", mine))
    await sessions.pass_time(100)
    await sessions.waits(item(pool="new", tenant_id=mine))

    async def named(waiting_s: float = 60, limit: int = 100) -> list[tuple[str, str, int]]:
        found = await sessions.other.unoffered(waiting_s=waiting_s, limit=limit)
        assert all(waiting_s < queue.oldest_waiting_s < 1_000 for queue in found)
        return [(queue.kind, queue.name, queue.waiting) for queue in found]

    assert sorted(await named()) == [("agent", "historian", 1), ("agent", "lonely", 2), ("tool", "mail", 1)]
    assert (await named())[-1] == ("tool", "mail", 1) and len(await named(limit=2)) == 2, "the oldest first"
    assert sorted(await named(300)) == [("agent", "historian", 1), ("agent", "lonely", 1)]
    one = await open_at(sessions.one, session(mine))
    assert await named() == [], "nobody knows yet what the session offers"
    await sessions.one.offer(one.session_id, Offered({"historian": "1"}))
    assert sorted(await named()) == [("agent", "lonely", 2), ("tool", "mail", 1)]
    await sessions.one.end([one.session_id])
    assert len(await named()) == 3


async def test_work_of_sessions_that_are_over_is_lapsed_work(sessions: SessionSide) -> None:
    alive, left, lost = [await open_at(sessions.one, session()) for _ in range(3)]
    never = session()
    work = {one.session_id: item() for one in (alive, left, lost, never)}
    for session_id, of in work.items():
        await sessions.claimed(of, session_id)
    await sessions.one.end([left.session_id])
    await sessions.pass_time(11)
    await sessions.one.seen([alive.session_id])
    await sessions.one.lose([lost.session_id])
    expected = [
        LapsedWork(held(work[left.session_id], left), "left"),
        LapsedWork(held(work[lost.session_id], lost), "lost"),
        LapsedWork(held(work[never.session_id], never), "lost"),
    ]
    expected.sort(key=lambda one: one.work.work_id)
    assert await sessions.other.lapsed(after=None, limit=10) == expected
    assert await sessions.other.lapsed(after=None, limit=2) == expected[:2]
    assert await sessions.other.lapsed(after=expected[0].work.work_id, limit=10) == expected[1:]


async def test_a_session_is_removed_after_its_work_has_lapsed(sessions: SessionSide) -> None:
    busy, idle = await open_at(sessions.one, session()), await open_at(sessions.one, session())
    of = item()
    await sessions.claimed(of, busy.session_id)
    await sessions.one.end([busy.session_id, idle.session_id])
    await sessions.one.tidy(kept_s=60)
    assert (await sessions.one.look()).over == 2, "they are kept for a while"
    await sessions.pass_time(61)
    await sessions.one.tidy(kept_s=60)
    assert (await sessions.one.look()).over == 1
    await sessions.closed(of.work_id)
    await sessions.one.tidy(kept_s=60)
    assert (await sessions.one.look()).over == 0
    assert not (await sessions.one.seen([])).any_session


async def test_processes_that_take_sessions_say_so(sessions: SessionSide) -> None:
    assert (await sessions.one.look()).ready == 0
    await sessions.one.seen([])
    await sessions.other.seen([])
    assert (await sessions.one.look(ready_s=60)).ready == 2
    await sessions.other.withdraw()
    assert (await sessions.one.look(ready_s=60)).ready == 1
    await sessions.pass_time(61)
    assert (await sessions.one.look(ready_s=60)).ready == 0
    await sessions.pass_time(-200)
    assert (await sessions.one.look(ready_s=60)).ready == 0, "what was said in the future was said before the clock was set back"


async def test_the_database_keeps_no_secret(postgres_sessions: PostgresSessionSide, pool: Pool) -> None:
    await open_at(postgres_sessions.one, session(), secret="in plain words")
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT worker_session::text FROM worker_session")).fetchall()
    assert rows and "plain" not in str(rows) and b"in plain words".hex() not in str(rows)


async def test_the_queue_need_not_hold_what_a_session_has(sessions: SessionSide) -> None:
    one = await open_at(sessions.one, session())
    await sessions.claimed(item(), one.session_id)
    await sessions.pass_time(60)
    assert await sessions.open_work.older_than(-60, after=None, limit=10) == []
