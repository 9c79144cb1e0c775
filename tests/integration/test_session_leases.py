"""Leases of sessions on real servers: lost sessions, outages, and the read model that knows which session has which work."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from adapters.postgres.database import PostgresDatabase
from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.worker_sessions import PostgresInstallationSecrets, PostgresWorkerSessions
from application.engine import lapses, leases
from application.engine.commands.request import Caller
from application.engine.lapses import SessionSweeper
from application.engine.leases import SessionPresence
from application.engine.ports.queue import WorkItem
from application.engine.ports.sessions import LEASE_S, READY_S, Look, WorkerSession
from application.lapses import lapsing
from domain import agent_runs, invocations
from domain.errors import Unavailable
from domain.failures import Failure, Retry
from domain.kernel import Event, RecordedEvent
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from projections import work as work_table
from tests.integration.played_worker import PlayedWorker
from tests.integration.system_kit import System, eventually, new_id, stopped
from tests.pace import slowness_lately

CALLER = Caller(DEFAULT_TENANT_ID, "key:test")
SHORT_LEASE_S = 2.0
"""Seconds. Living sessions are renewed twenty times in these, so that the test may stand still for a while on a busy machine."""


class CountedSessions(PostgresWorkerSessions):
    looks = 0

    async def look(self, *, lease_s: float = LEASE_S, ready_s: float = READY_S) -> Look:
        found = await super().look(lease_s=lease_s, ready_s=ready_s)
        self.looks += 1
        return found


@dataclass
class Process:
    """What an api process does for the sessions of its workers: renews them, a few times in a lease."""

    sessions: PostgresWorkerSessions
    alive: set[UUID] = field(default_factory=set)

    async def renew(self) -> None:
        while True:
            with suppress(Unavailable):
                await self.sessions.seen(list(self.alive))
            await asyncio.sleep(0.1)

    async def session(self) -> WorkerSession:
        session = WorkerSession(new_id(), DEFAULT_TENANT_ID, "s1", CALLER.actor, uuid4(), "0.9.0")
        assert await self.sessions.open(session, "secret", most_of_actor=10, most_of_tenant=10)
        self.alive.add(session.session_id)
        return session


@pytest_asyncio.fixture
async def own_pool(system: System) -> AsyncIterator[Pool]:
    pool = await open_pool(system.database_url, role="test", max_size=3)
    yield pool
    await pool.close()


@asynccontextmanager
async def quick(system: System, pool: Pool, *, lease_s: float) -> AsyncIterator[tuple[Process, CountedSessions]]:
    """An api process and a sweeper whose leases are short, beside the server."""
    process, own, presence = (
        Process(PostgresWorkerSessions(PostgresDatabase(pool))),
        CountedSessions(PostgresDatabase(pool)),
        SessionPresence(),
    )
    presence.tell(True)
    sweeper = SessionSweeper(own, system.container.commands, lapsing, presence, look_every_s=0.05, lease_s=lease_s, ready_s=1.0)
    tasks = [asyncio.create_task(process.renew()), asyncio.create_task(sweeper.run())]
    try:
        yield process, own
        assert not any(task.done() for task in tasks), tasks
    finally:
        await stopped(*tasks)


async def claimed(system: System, worker: PlayedWorker, session: WorkerSession, pool: str, kind: str = "agent") -> WorkItem:
    """Takes the next item of a queue for a session: claims it and acknowledges the message."""
    work = await worker.take(pool, kind)
    item = WorkItem(DEFAULT_TENANT_ID, kind, pool, UUID(work.work_id), work.dispatch, new_id())
    assert await system.container.workers.sessions.claim(CALLER, session, item, uuid4())
    await work.ack()
    return item


def test_lost_work_is_on_the_queue_again_within_thirteen_seconds() -> None:
    """The lease, the beat that tells the sweeper of sessions, and its look; a second is left for the dispatch."""
    assert LEASE_S + leases.BEAT_S + lapses.LOOK_EVERY_S <= 12


async def test_the_work_of_a_killed_worker_is_given_to_another(system: System, worker: PlayedWorker, own_pool: Pool) -> None:
    async with quick(system, own_pool, lease_s=SHORT_LEASE_S) as (process, _):
        killed, other = await process.session(), await process.session()
        run_id, kept_run = await system.start("alpha"), await system.start("beta")
        agent = await claimed(system, worker, killed, "alpha")
        kept = await claimed(system, worker, other, "beta")
        assert [(await system.run(run))["steps"][0]["status"] for run in (run_id, kept_run)] == ["running", "running"]
        process.alive.discard(killed.session_id)
        await system.until_topic(run_id, "agent_run.resumed")
        assert (await system.run(run_id))["steps"][0]["status"] == "scheduled"
        again = await claimed(system, worker, other, "alpha")
        assert (again.work_id, again.dispatch) == (agent.work_id, 2)
        [resumed] = await system.until_topic(run_id, "agent_run.resumed")
        [(seen_at,)] = await system.sql("SELECT seen_at FROM worker_session WHERE session_id = %s", killed.session_id)
        assert (resumed.recorded_at - seen_at).total_seconds() >= SHORT_LEASE_S, "not before the lease has passed"
        await system.command(agent_runs.CompleteAgentRun(agent_run_id=again.work_id, attempt=2, result="done"))
        await system.command(agent_runs.CompleteAgentRun(agent_run_id=kept.work_id, attempt=1))
        assert (await system.ended(run_id))["status"] == (await system.ended(kept_run))["status"] == "completed"
        assert await worker.nothing_to_take("alpha")
        await system.container.positions.until("work", await system.container.feed.head(), 15)
        assert await system.sql("SELECT * FROM open_work") == []


async def test_a_call_of_a_killed_worker_waits_for_a_person_or_for_its_worker(
    system: System, worker: PlayedWorker, own_pool: Pool
) -> None:
    async with quick(system, own_pool, lease_s=SHORT_LEASE_S) as (process, _):
        killed, other = await process.session(), await process.session()
        run_id = await system.start("alpha")
        alpha = (await claimed(system, worker, other, "alpha")).work_id
        for key, tool in (("k", "mail"), ("l", "add")):
            start = agent_runs.StartCall(agent_run_id=alpha, attempt=1, key=key, tool=tool)
            await system.container.workers.calls.call(CALLER, start, {})
        call = await claimed(system, worker, killed, "mail", "tool")
        repeatable = await claimed(system, worker, killed, "add", "tool")
        process.alive.discard(killed.session_id)
        await system.until_topic(run_id, "invocation.became_ambiguous")
        await system.until_topic(run_id, "invocation.requeued")
        shown = {one["tool"]: one["status"] for one in (await system.run(run_id))["steps"][0]["calls"]}
        assert shown == {"mail": "ambiguous", "add": "requested"}
        listed = await system.http.get(f"/v1/invocations/{repeatable.work_id}")
        assert (listed.json()["status"], listed.json()["attempt"]) == ("requested", 1)
        await system.container.positions.until("invocations", await system.container.feed.head(), 15)
        assert await system.sql("SELECT status FROM invocation WHERE tool = 'add'") == [("requested",)]
        token = system.container.workers.sessions.tokens
        await token.ready()
        mine = token.token_of(call.work_id, 1, killed.session_id)
        assert await system.container.workers.sessions.may_report(DEFAULT_TENANT_ID, call.work_id, 1, mine) == "tool"
        done = invocations.CompleteInvocation(invocation_id=call.work_id, attempt=1, result="sent")
        await system.container.workers.invocations.complete(CALLER, done)
        await system.command(agent_runs.CompleteAgentRun(agent_run_id=alpha, attempt=1))
        run = await system.ended(run_id)
        assert [one["status"] for one in run["steps"][0]["calls"]] == ["succeeded", "cancelled"]
        assert "invocation.resolved" not in await system.topics(run_id)


async def test_what_a_worker_left_is_dispatched_anew_by_the_server_itself(system: System, worker: PlayedWorker) -> None:
    """With the sweeper that the server runs: a beat tells it that there are sessions."""
    process = Process(system.container.sessions)  # type: ignore[arg-type]  # the adapter
    session = await process.session()
    await system.start("alpha")
    agent = await claimed(system, worker, session, "alpha")
    await process.sessions.end([session.session_id])
    work = await worker.take("alpha")
    assert (work.work_id, work.dispatch) == (str(agent.work_id), 2)


async def test_an_outage_of_the_database_begins_the_count_anew(system: System, worker: PlayedWorker, own_pool: Pool) -> None:
    await stopped(system.tasks.pop("sweeper"))  # the server's own: no outage ends its count, and its lease may be over, too
    lease_s = 1.5 * await slowness_lately()  # the worker must come back within a lease
    async with quick(system, own_pool, lease_s=lease_s) as (process, sweeper), await admin(system) as database:
        session = await process.session()
        await system.start("alpha")
        await claimed(system, worker, session, "alpha")
        began = asyncio.get_running_loop().time()

        async def steady() -> bool:
            return asyncio.get_running_loop().time() - began > lease_s + 0.2

        await eventually(steady, "a lease of steady time")
        with capture_logs() as lines:
            await out_of_reach(database)

            async def noticed() -> bool:
                return any(line["event"] == "sweep_of_sessions_failed" for line in lines)

            await eventually(noticed, "a failed look")
        # As after an outage of a minute: the first look finds nothing but sessions that nobody has seen.
        process.alive.clear()
        await database.execute("UPDATE worker_session SET seen_at = seen_at - interval '1 minute'")
        looks = sweeper.looks
        await back(database)

        async def looked() -> bool:
            return sweeper.looks >= looks + 2

        await eventually(looked, "looks after the outage")
        assert await process.sessions.resume(DEFAULT_TENANT_ID, session.session_id, "secret", session.incarnation)
        process.alive.add(session.session_id)
        assert await process.sessions.over([session.session_id]) == frozenset()
        process.alive.clear()

        async def lost() -> bool:
            return bool(await process.sessions.over([session.session_id]))

        await eventually(lost, "the session is lost in the end")


async def admin(system: System) -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(system.database_url, autocommit=True)


async def out_of_reach(database: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Only this connection stays; the server takes no other."""
    await database.execute(f"ALTER DATABASE {database.info.dbname} CONNECTION LIMIT 1".encode())
    of_the_test = "datname = current_database() AND application_name = 'tidelog-test'"
    await database.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of_the_test}".encode())


async def back(database: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    await database.execute(f"ALTER DATABASE {database.info.dbname} CONNECTION LIMIT -1".encode())


async def test_the_secret_of_the_installation_is_the_same_for_all_processes(own_pool: Pool, system: System) -> None:
    secret = await PostgresInstallationSecrets(PostgresDatabase(own_pool)).secret()
    assert len(secret) == 32 and await PostgresInstallationSecrets(PostgresDatabase(own_pool)).secret() == secret
    tokens = system.container.workers.sessions.tokens
    await tokens.ready()
    work, session = new_id(), new_id()
    assert tokens.fits(tokens.token_of(work, 1, session), work, 1, session)


# --- the read model -------------------------------------------------------------------------------------------------------

RUN, ONE, TWO, AGENT, CALL = (UUID(f"01900000-0000-7000-8000-00000000000{n}") for n in range(1, 6))
FAILURE = Failure(type="Timeout", message="slow", kind="transient")
HISTORY: list[tuple[UUID, Event]] = [
    (AGENT, agent_runs.AgentRunRequested(run_id=RUN, step="s", agent="alpha", agent_version=None)),
    (AGENT, agent_runs.AgentRunClaimed(attempt=1, worker_id="w", dispatch=1, session_id=ONE)),
    (CALL, invocations.InvocationRequested(
        run_id=RUN, agent_run_id=AGENT, key="k", tool="add", arguments={}, idempotent=True, timeout_s=1, retry=Retry(),
    )),
    (CALL, invocations.AttemptStarted(attempt=1, worker_id="w", dispatch=1)),
    (CALL, invocations.AttemptStarted(attempt=2, worker_id="w", dispatch=1, session_id=TWO)),
    (AGENT, agent_runs.AgentRunResumed(run_id=RUN, agent="alpha", dispatch=2, lapsed=1, reason="lost")),
    (CALL, invocations.InvocationRetryScheduled(attempt=2, error=FAILURE, delay_s=1, dispatch=2)),
    (AGENT, agent_runs.AgentRunClaimed(attempt=2, worker_id="w", dispatch=2, session_id=TWO)),
    (CALL, invocations.InvocationRequeued(run_id=RUN, tool="add", dispatch=2)),
    (CALL, invocations.AttemptStarted(attempt=3, worker_id="w", dispatch=2, session_id=ONE)),
    (AGENT, agent_runs.AgentRunCompleted(run_id=RUN, step="s", attempt=2)),
]  # fmt: skip
EXPECTED = [
    {(AGENT, 1, None, None)},
    {(AGENT, 1, ONE, 1)},
    {(AGENT, 1, ONE, 1), (CALL, 1, None, None)},
    {(AGENT, 1, ONE, 1), (CALL, 1, None, None)},
    {(AGENT, 1, ONE, 1), (CALL, 1, TWO, 2)},
    {(AGENT, 2, None, None), (CALL, 1, TWO, 2)},
    {(AGENT, 2, None, None)},
    {(AGENT, 2, TWO, 2)},
    {(AGENT, 2, TWO, 2), (CALL, 2, None, None)},
    {(AGENT, 2, TWO, 2), (CALL, 2, ONE, 3)},
    {(CALL, 2, ONE, 3)},
]
"""The rows after each event: work, dispatch, session, attempt."""


def recorded(events: Sequence[tuple[UUID, Event]]) -> list[RecordedEvent]:
    now = datetime.now(UTC)
    return [
        RecordedEvent(n, DEFAULT_TENANT_ID, id, n, RUN, event.TOPIC, event.VERSION, REGISTRY.encode(event), "{}", now)
        for n, (id, event) in enumerate(events, 1)
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11])
async def test_the_read_model_knows_the_session_of_each_claim(database_url: str, size: int) -> None:
    """However the events are cut into batches."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for start in range(0, len(HISTORY), size):
            batch = recorded(HISTORY)[start : start + size]
            await work_table.apply(connection, batch)
            cursor = await connection.execute("SELECT work_id, dispatch, session_id, attempt FROM open_work")
            assert set(await cursor.fetchall()) == EXPECTED[start + len(batch) - 1]
