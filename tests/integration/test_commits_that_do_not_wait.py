"""All commits that do not wait for the disk, besides those of `test_commits_of_readers`: PostgreSQL is killed, and they are lost.

What each may bring after the crash is told here: leases and members, sessions of workers and their offers, lines of agents, uses of
keys, uploads of blobs, counts of breakers.
"""

import ast
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.embedded import EmbeddedServices
from adapters.postgres.blobs import PostgresBlobs
from adapters.postgres.key_uses import PostgresKeyUses
from adapters.postgres.leases import PostgresLeases, formats_of_all, members
from adapters.postgres.log.histories import PostgresHistories
from adapters.postgres.outcomes import PostgresOutcomeCounts
from adapters.postgres.pool import Pool, open_pool
from adapters.postgres.work_logs import PostgresWorkLogs
from adapters.postgres.worker_sessions import PostgresWorkerSessions
from application.engine.ports.blobs import Blob, UploadOver
from application.engine.ports.checkpoints import SteppedBack
from application.engine.ports.key_uses import KeyUse
from application.engine.ports.leases import Readable
from application.engine.ports.outcomes import CountedOutcomes, NewOutcomes
from application.engine.ports.sessions import Offered, WorkerSession
from application.engine.ports.work_logs import Author, NewLines, WorkLine
from application.engine.reading import shared
from application.engine.reading.history_keeper import HistoryKeeper
from application.engine.reading.shared import SharedSubscription
from projections.engine.runner import ProjectionRunner
from projections.registry import PROJECTIONS
from tests.integration.durable_kit import database_on, unflushed
from tests.integration.projection_kit import Log, log_on
from tests.integration.system_kit import eventually, new_id
from tests.integration.test_commits_of_readers import FLUSHED, GROUP, crashed, together, until_head
from tests.integration.test_projections import SEEN, working

ROOT = Path(__file__).parents[2]
TRIED = {
    "adapters/postgres/blobs.py": "test_an_upload_that_a_crash_took_leaves_nothing_and_what_was_acknowledged_is_whole",
    "adapters/postgres/key_uses.py": "test_a_use_of_a_key_that_a_crash_took_is_noted_with_the_next_use",
    "adapters/postgres/outcomes.py": "test_outcomes_that_a_crash_took_are_not_counted_and_the_others_are",
    "adapters/postgres/work_logs.py": "test_lines_that_a_crash_took_leave_no_gap_and_no_number_twice",
    "adapters/postgres/worker_sessions.py": "test_a_session_that_a_crash_took_is_opened_again_by_its_worker",
    "migrations/0012_sharing.sql": "test_leases_that_a_crash_took_are_taken_anew_by_the_next_beats",
    "migrations/0019_members.sql": "test_leases_that_a_crash_took_are_taken_anew_by_the_next_beats",
    "migrations/0075_shares_of_what_others_know.sql": "test_leases_that_a_crash_took_are_taken_anew_by_the_next_beats",
    "projections/engine/checkpoints.py": "test_readers_that_share_a_reader_go_back_each_to_its_own_checkpoint",
}
"""Each file with a commit that does not wait, and the test of this file that loses it."""
NOT_WAITING = re.compile(r"synchronous_commit'(?:, | = |,.*THEN )'off'")


@pytest_asyncio.fixture
async def log(durable: EmbeddedServices) -> AsyncIterator[Log]:
    url = await database_on(durable, synchronous_commit="on")
    async with unflushed(durable), log_on(url) as log:
        yield log


@pytest_asyncio.fixture
async def pool(log: Log) -> AsyncIterator[Pool]:
    pool = await open_pool(log.url, role="test", max_size=2)
    yield pool
    await pool.close()


def test_every_commit_that_does_not_wait_is_tried() -> None:
    rooms = ("adapters", "application", "api", "projections", "migrations")
    files = [file for room in rooms for end in ("py", "sql") for file in (ROOT / room).rglob(f"*.{end}")]
    found = {str(file.relative_to(ROOT)) for file in files if NOT_WAITING.search(file.read_text())}
    assert found == TRIED.keys()
    here = {node.name for node in ast.parse(Path(__file__).read_text()).body if isinstance(node, ast.AsyncFunctionDef)}
    assert set(TRIED.values()) <= here


@pytest.mark.parametrize("near", [500, 2])
async def test_readers_that_share_a_reader_go_back_each_to_its_own_checkpoint(
    durable: EmbeddedServices, log: Log, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """The shared reader lives through the crash, and has read farther than any checkpoint. What readers wrote is never ahead of
    the log, and whoever stepped back reads from its own checkpoint. `near`: the events that the shared reader keeps."""
    monkeypatch.setattr(shared, "NEAR_EVENTS", near)
    await log.rows("CREATE TABLE seen (position bigint, name text)")
    histories = HistoryKeeper(PostgresHistories(log.database._pool))
    source = SharedSubscription(log, histories)
    async with aclosing(source.batches(after=0, name="stays")) as staying:
        await log.create("a")
        await log.run()
        await anext(staying)
        one, others = ProjectionRunner((SEEN,), log.database, source), ProjectionRunner(PROJECTIONS, log.database, source)
        async with working(one) as first, working(others) as second:
            await until_head(log, *GROUP)
            head = await log.feed.head()
            assert await log.rows(FLUSHED) == [(False,)]
            await crashed(durable, log)
            assert await log.feed.head() == head
            assert max((await together(log)).values()) < head, "nothing was lost, so nothing is tried"
            await log.create("b")

            async def stepped_back() -> bool:
                return first.done() and second.done()

            await eventually(stepped_back, "both readers to notice")
            assert isinstance(first.exception(), SteppedBack) and isinstance(second.exception(), SteppedBack)
        async with (
            working(ProjectionRunner((SEEN,), log.database, source)),
            working(ProjectionRunner(PROJECTIONS, log.database, source)),
        ):
            await until_head(log, *GROUP)
    assert set((await together(log)).values()) == {await log.feed.head()}


async def test_leases_that_a_crash_took_are_taken_anew_by_the_next_beats(durable: EmbeddedServices, log: Log, pool: Pool) -> None:
    """The tables are empty after a crash. Nobody keeps what it had without a beat, and nobody is taken for a process of this
    release before it has said so."""
    units = {"projections": ["a", "b", "c", "d"]}
    one = PostgresLeases(pool, lease_s=60, readable=Readable("1", (1, 2), ("*",)))
    two = PostgresLeases(pool, lease_s=60, readable=Readable("1", (1, 2), ("*",)))
    held = (await one.beat(units, ())).shares["projections"].held
    assert held == set("abcd") and await formats_of_all(pool, 0) == {1, 2}
    await crashed(durable, log)
    assert await members(pool) == []
    assert await formats_of_all(pool) == {1}, "who is there is not known"
    share = (await two.beat(units, ())).shares["projections"]
    assert share.held == set("abcd"), "free for whoever beats first"
    share = (await one.beat(units, ())).shares["projections"]
    assert (share.size, share.held) == (2, frozenset()), "the one that had them has lost them, and hears so"
    given = sorted((await two.beat(units, ("a", "b"))).shares["projections"].held)
    assert given == ["c", "d"]
    assert (await one.beat(units, ())).shares["projections"].held == {"a", "b"}
    assert {member.formats == [1, 2] for member in await members(pool)} == {True} and await formats_of_all(pool, 0) == {1, 2}


def session(tenant_worker: str = "w") -> WorkerSession:
    return WorkerSession(new_id(), new_id(), tenant_worker, "key", new_id(), "1")


async def opened(sessions: PostgresWorkerSessions, session: WorkerSession) -> bool:
    return await sessions.open(session, "secret", most_of_actor=10, most_of_tenant=10)


async def test_a_session_that_a_crash_took_is_opened_again_by_its_worker(durable: EmbeddedServices, log: Log) -> None:
    """The process hears with the next renewal that the session is not there, and the worker opens it again, with the same id."""
    sessions, lost = PostgresWorkerSessions(log.database), session()
    assert await opened(sessions, lost) and await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    assert (await sessions.seen([lost.session_id])).kept == frozenset()
    assert await sessions.resume(lost.tenant_id, lost.session_id, "secret", lost.incarnation) is None
    assert await sessions.over([lost.session_id]) == {lost.session_id}, "its work is nobody's"
    assert await opened(sessions, lost)
    assert (await sessions.seen([lost.session_id])).kept == {lost.session_id}


async def test_a_session_with_a_claim_outlives_a_crash_and_is_not_taken_for_one_that_nobody_saw(
    durable: EmbeddedServices, log: Log
) -> None:
    """A claim is an append, which waits, and takes the session to the disk. The last renewals are lost."""
    sessions, kept = PostgresWorkerSessions(log.database), session()
    assert await opened(sessions, kept)
    await log.create("a claim")
    await sessions.seen([kept.session_id])
    [(seen_at,)] = await log.rows("SELECT seen_at FROM worker_session")
    assert await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    [(before,)] = await log.rows("SELECT seen_at FROM worker_session")
    assert before < seen_at, "nothing was lost, so nothing is tried"
    look = await sessions.look(lease_s=0.001)
    assert (look.ready, look.unseen) == (0, frozenset({kept.session_id})), (
        "no process is ready, so no time counts against the session"
    )
    assert (await sessions.seen([kept.session_id])).kept == {kept.session_id}
    assert (await sessions.look()).unseen == frozenset()


async def test_an_offer_that_a_crash_took_is_not_known_rather_than_empty(durable: EmbeddedServices, log: Log) -> None:
    """Work that the worker takes is not named as work that nobody offers."""
    sessions, kept = PostgresWorkerSessions(log.database), session()
    assert await opened(sessions, kept)
    await log.create("a claim")
    await log.rows(
        """INSERT INTO open_work (work_id, tenant_id, root_id, kind, pool, dispatch, dispatched_at)
           VALUES (%s, %s, %s, 'agent', 'critic', 1, now() - interval '1 hour')""",
        new_id(), kept.tenant_id, new_id(),
    )  # fmt: skip
    await sessions.offer(kept.session_id, Offered(agents={"critic": "1"}))
    assert await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    [listed] = await sessions.of_tenant(kept.tenant_id)
    assert listed.offered is None
    assert await sessions.unoffered(waiting_s=1, limit=10) == []
    await sessions.offer(kept.session_id, Offered(agents={"critic": "2"}))
    [listed] = await sessions.of_tenant(kept.tenant_id)
    assert listed.offered == Offered(agents={"critic": "2"})


async def test_lines_that_a_crash_took_leave_no_gap_and_no_number_twice(durable: EmbeddedServices, log: Log) -> None:
    """Lines and the count of the run's lines are lost together."""
    logs, tenant, run = PostgresWorkLogs(log.database), new_id(), new_id()

    def lines(*texts: str) -> list[NewLines]:
        author = Author(tenant, run, "write", "editor", 1)
        return [NewLines(tenant, run, [WorkLine(author, datetime.now(UTC), 20, text) for text in texts], beyond=1)]

    async def found() -> tuple[list[tuple[int, str]], int]:
        page = await logs.page(tenant, run, after=0, limit=100)
        return [(number, line.text) for number, line in page.lines], page.beyond

    await logs.write(lines("a", "b"))
    await log.create("whatever waits takes them to the disk")
    await logs.write(lines("c", "d"))
    assert (await found())[1] == 2 and await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    assert await found() == ([(1, "a"), (2, "b")], 1)
    await logs.write(lines("e"))
    assert await found() == ([(1, "a"), (2, "b"), (3, "e")], 2)


async def test_a_use_of_a_key_that_a_crash_took_is_noted_with_the_next_use(durable: EmbeddedServices, log: Log) -> None:
    """The time of a last use may step back to the one that was on the disk, and no further."""
    uses, tenant, key = PostgresKeyUses(log.database), new_id(), new_id()
    seconds_ago = "SELECT round(extract(epoch FROM now() - used_at) / 1000)::int FROM api_key_use"
    await uses.write([KeyUse(key, tenant, 9_000.0)])
    await log.create("whatever waits takes it to the disk")
    await uses.write([KeyUse(key, tenant, 5_000.0)])
    assert await log.rows(seconds_ago) == [(5,)] and await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    assert await log.rows(seconds_ago) == [(9,)]
    await uses.write([KeyUse(key, tenant, 2_000.0)])
    assert await log.rows(seconds_ago) == [(2,)]


async def test_outcomes_that_a_crash_took_are_not_counted_and_the_others_are(durable: EmbeddedServices, log: Log) -> None:
    counts, tenant, breaker = PostgresOutcomeCounts(log.database), new_id(), new_id()
    failed = NewOutcomes(tenant, breaker, 1, 3_600.0, 2, 2, False, 2)
    await counts.add([failed])
    await log.create("whatever waits takes it to the disk")
    [together] = await counts.add([failed])
    assert together.in_a_row == 4 and await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    assert await counts.of(tenant, breaker, 3_600.0) == CountedOutcomes(breaker, 1, 2, 2, 2)
    [again] = await counts.add([failed])
    assert again.in_a_row == 4


async def test_an_upload_that_a_crash_took_leaves_nothing_and_what_was_acknowledged_is_whole(
    durable: EmbeddedServices, log: Log
) -> None:
    blobs, tenant, whole, half = PostgresBlobs(log.database), new_id(), new_id(), new_id()
    await blobs.begin(tenant, whole, reserved=2, most=100)
    await blobs.write(tenant, whole, 0, b"a")
    await blobs.write(tenant, whole, 1, b"b")
    blob = Blob(sha256(b"ab").hexdigest(), 2, "text/plain", datetime.now(UTC), "test", whole, 1)
    assert await blobs.finish(tenant, blob)
    await blobs.begin(tenant, half, reserved=2, most=100)
    await blobs.write(tenant, half, 0, b"c")
    assert await blobs.refer(tenant, [blob.sha256], [half]) == {blob.sha256}
    assert await log.rows(FLUSHED) == [(False,)]
    await crashed(durable, log)
    found = await blobs.find(tenant, blob.sha256)
    assert found is not None and [await blobs.read(tenant, whole, number) for number in (0, 1)] == [b"a", b"b"]
    assert await blobs.read(tenant, half, 0) is None
    assert await blobs.roots(tenant, blob.sha256) == [], "nor did an event that refers to it"
    with pytest.raises(UploadOver):
        await blobs.finish(tenant, replace(blob, content_id=half, sha256=sha256(b"cd").hexdigest(), chunk_bytes=2))
