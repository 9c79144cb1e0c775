"""Rebuilds of read models beside the live ones: under appends, over crashes, with a swap that readers do not notice, and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import psycopg
import pytest
from structlog.testing import capture_logs

from application.engine.background import end
from domain.errors import InvalidState, NotFound
from domain.kernel import RecordedEvent
from domain.projects import ProjectCreated
from projections import runs, tenants
from projections.engine.rebuild import backfill, builder, jobs
from projections.kernel import Connection, Database, Projection, decoded
from projections.projects import PROJECTION as PROJECTS
from tests.integration.projection_kit import Log, building, log_on, projecting, task
from tests.integration.system_kit import eventually, new_id
from tests.pace import slowness_lately

RUNS = runs.PROJECTION
MARKED = "UPDATE run SET status = 'old'"
OPTIONS = """
SELECT c.relname, c.reloptions, t.reloptions FROM pg_class AS c LEFT JOIN pg_class AS t ON t.oid = c.reltoastrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (%s) ORDER BY 1
"""
INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND tablename = 'run' ORDER BY 1"


async def schemas(log: Log) -> list[str]:
    query = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(rebuild|previous|verify)_' ORDER BY 1"
    return [row[0] for row in await log.rows(query)]


async def equal(log: Log, projection: Projection) -> None:
    """Asserts that the live tables agree with the log. A builder must be at work."""
    await log.ask(projection, "verify")
    await log.until_status(projection.name, "equal", purpose="check")


# --- the swap ---------------------------------------------------------------------------------------------------------


class Reader:
    """A session of its own that reads all the time with a prepared statement, and keeps each different answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[tuple[int, int]] = []
        self.slowest_s = 0.0

    async def run(self) -> None:
        query = "SELECT count(*), count(*) FILTER (WHERE status = 'old') FROM run"
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            while True:
                began = time.monotonic()
                cursor = await connection.execute(query, prepare=True)
                [answer] = await cursor.fetchall()
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                if not self.answers or answer != self.answers[-1]:
                    self.answers.append(answer)


async def test_a_swap_under_appends_is_seen_as_one_moment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "FIRST_PAGE", 100)
    monkeypatch.setattr(backfill, "MAX_PAGE", 100)
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.runs(200)
        await log.until("runs")
        before = await log.rows(INDEXES)
        await log.rows(MARKED)
        written: list[int] = []

        async def append() -> None:
            while True:
                await log.run()
                # Written rows are read, also over the swap.
                await log.until("runs")
                written.append((await log.rows("SELECT count(*) FROM run"))[0][0])

        reader = Reader(database_url)
        async with task(reader.run), task(append):
            await eventually(_true(lambda: bool(reader.answers) and len(written) > 2))
            await log.ask(RUNS, "rebuild", swap=True)
            build = await log.until_status("runs", "swapped")
            known = len(written)
            await eventually(_true(lambda: len(written) > known + 3 and reader.answers[-1][1] == 0))
        assert build.position >= 2_000 and build.events >= 2_000 and build.rate
        # New rows come one after the other. All marks vanish in one step, and no row was ever missing.
        counts = [count for count, _ in reader.answers]
        assert counts == sorted(counts) and counts[0] >= 200
        assert [mark for _, mark in reader.answers if mark not in (0, 200)] == []
        assert [mark for _, mark in reader.answers] == sorted((m for _, m in reader.answers), reverse=True)
        assert written == list(range(201, 201 + len(written)))
        assert reader.slowest_s < 3 or reader.slowest_s < 3 * await slowness_lately(), "though the machine be busy"
        assert await log.rows(INDEXES) == before, "later migrations must find the indexes"
        await equal(log, RUNS)
        assert await schemas(log) == ["previous_runs"]


def _true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return condition()

    return ask


async def test_a_long_reader_delays_the_swap_and_not_other_readers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS):
        await log.runs(5)
        await log.until("runs")
        reader = Reader(database_url)
        async with await psycopg.AsyncConnection.connect(database_url) as long_one, task(reader.run):
            await long_one.execute("SELECT count(*) FROM run")  # the reader's transaction stays open
            async with building(log, RUNS):
                await log.ask(RUNS, "rebuild", swap=True)
                await log.until_status("runs", "ready")
                reader.slowest_s = 0.0
                await eventually(_true(lambda: reader.slowest_s > 0.09), "an attempt that made readers wait")
                await log.run()
                await log.until("runs")
                assert (await log.build("runs")).status == "ready"
                monkeypatch.setattr(builder, "MAX_ATTEMPTS", 0)

                async def held_back() -> bool:
                    build = await log.build("runs")
                    return not build.swap and f"session {long_one.info.backend_pid} (" in (build.error or "")

                await eventually(held_back)
                monkeypatch.undo()
                await log.ask_swap("runs")
                await long_one.rollback()
                await log.until_status("runs", "swapped")
                await equal(log, RUNS)
        bound = "the bound of one attempt, though the machine be busy"
        assert reader.slowest_s < 3 or reader.slowest_s < 3 * await slowness_lately(), bound


# --- crashes ----------------------------------------------------------------------------------------------------------


class StopsAtUse:
    """The real database for a process that is stopped at its nth use: `before` the commit, or `after` the commit and before the
    answer."""

    def __init__(self, database: Database, use: int, when: str) -> None:
        self._database, self._left, self._when = database, use, when
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()

    def _is_the_one(self) -> bool:
        self._left -= 1
        return self._left == 0

    async def stop(self) -> None:
        self.reached.set()
        await self.goes_on.wait()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        stops = self._is_the_one()
        async with self._database.connection() as connection:
            yield cast(Connection, StopsInTransaction(connection, self)) if stops and self._when == "before" else connection
        if stops:
            await self.stop()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        stops = self._is_the_one()
        async with self._database.transaction() as connection:
            yield connection
            if stops and self._when == "before":
                await self.stop()
        if stops:
            await self.stop()


class StopsInTransaction:
    """A connection whose transaction never comes to its commit."""

    def __init__(self, connection: Connection, process: StopsAtUse) -> None:
        self._connection, self._process = connection, process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            yield
            await self._process.stop()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_builder_that_dies_anywhere_is_continued(database_url: str, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr(backfill, "FIRST_PAGE", 60)
    monkeypatch.setattr(backfill, "MAX_PAGE", 60)
    async with log_on(database_url) as log, projecting(log, RUNS):
        await log.runs(20)
        await log.until("runs")
        use = 1
        while await dies_and_is_continued(log, StopsAtUse(log.database, use, when)):
            use += 1
        assert use > 10, "the job has more steps than that"


async def dies_and_is_continued(log: Log, database: StopsAtUse) -> bool:
    """Runs a rebuild whose builder is stopped and cancelled, and then the next builder.

    False: the first builder reached its end unharmed.
    """
    await log.rows(MARKED)
    await log.ask(RUNS, "rebuild", swap=True)
    async with building(log, RUNS, database=database):
        reached = asyncio.create_task(database.reached.wait())
        swapped = asyncio.create_task(log.until_status("runs", "swapped"))
        await asyncio.wait({reached, swapped}, return_when=asyncio.FIRST_COMPLETED)
        died = database.reached.is_set()
        await end(reached, swapped)
    async with building(log, RUNS):
        await log.until_status("runs", "swapped")
    assert await log.rows("SELECT status, count(*) FROM run GROUP BY status") == [("completed", 20)]
    assert await schemas(log) == ["previous_runs"]
    return died


@pytest.mark.parametrize("use", [4, 7, 10])
async def test_a_builder_that_wakes_up_late_does_no_harm(database_url: str, monkeypatch: pytest.MonkeyPatch, use: int) -> None:
    monkeypatch.setattr(backfill, "FIRST_PAGE", 60)
    monkeypatch.setattr(backfill, "MAX_PAGE", 60)
    async with log_on(database_url) as log, projecting(log, RUNS):
        await log.runs(20)
        await log.until("runs")
        await log.rows(MARKED)
        await log.ask(RUNS, "rebuild", swap=True)
        slow = StopsAtUse(log.database, use, "after")
        async with building(log, RUNS, database=slow):
            await slow.reached.wait()
            async with building(log, RUNS):
                swapped = await log.until_status("runs", "swapped")
            await log.rows("UPDATE run SET status = 'new'")
            with capture_logs() as logged:
                slow.goes_on.set()
                await eventually(_true(lambda: any(entry["event"] == "build_let_go" for entry in logged)))
            assert await log.build("runs") == swapped
            assert await log.rows("SELECT status, count(*) FROM run GROUP BY status") == [("new", 20)]


# --- rollback, cancel, failures ---------------------------------------------------------------------------------------


async def test_a_rollback_brings_the_version_before_back_caught_up(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.runs(10)
        await log.until("runs")
        with pytest.raises(NotFound):
            await log.ask(RUNS, "rollback")
        await log.rows(MARKED)
        await log.ask(RUNS, "rebuild", swap=True)
        await log.until_status("runs", "swapped")
        await log.runs(3)
        await log.until("runs")
        statuses = "SELECT status, count(*) FROM run GROUP BY status ORDER BY 1"
        assert await log.rows(statuses) == [("completed", 13)]
        await log.ask(RUNS, "rollback", swap=True)
        await log.until_status("runs", "swapped")
        assert await log.rows(statuses) == [("completed", 3), ("old", 10)], "the rows that were live, and what came since"
        await log.runs(2)
        await log.until("runs")
        await log.ask(RUNS, "rollback", swap=True)  # rolls the rollback back
        await log.until_status("runs", "swapped")
        assert await log.rows(statuses) == [("completed", 15)]
        # A rollback that is cancelled keeps the version for another time.
        await log.ask(RUNS, "rollback", swap=False)
        await log.until_status("runs", "ready")
        async with log.database.connection() as connection, connection.transaction():
            await jobs.cancel(connection, RUNS, "version")
        assert await schemas(log) == ["previous_runs"]
        async with log.database.connection() as connection, connection.transaction():
            await jobs.drop_previous(connection, RUNS)
        assert await schemas(log) == [] and await log.rows("SELECT * FROM projection_previous") == []
        await equal(log, RUNS)


async def test_a_rebuild_waits_for_the_swap_or_is_cancelled(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS):
        await log.runs(5)
        await log.until("runs")
        await log.ask(RUNS, "rebuild")
        with pytest.raises(InvalidState, match="a rebuild of projection 'runs' is requested already"):
            await log.ask(RUNS, "rebuild")
        async with building(log, RUNS):
            await log.until_status("runs", "ready")
            await log.runs(5)
            await log.until("runs")
            await log.ask_swap("runs")
            assert (await log.until_status("runs", "swapped")).position >= 100
            assert await log.rows("SELECT count(*) FROM run") == [(10,)]
            await log.ask(RUNS, "rebuild")
            await log.until_status("runs", "ready")
        async with log.database.connection() as connection, connection.transaction():
            await jobs.cancel(connection, RUNS, "version")
        assert await schemas(log) == ["previous_runs"]
        with pytest.raises(InvalidState):
            await log.ask_swap("runs")


async def test_tables_that_cannot_be_exchanged_hold_a_version_back(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.runs(3)
        await log.until("runs")
        await log.ask(RUNS, "rebuild")
        await log.until_status("runs", "ready")
        await log.rows("CREATE VIEW report AS SELECT count(*) FROM run")
        await log.ask_swap("runs")

        async def held_back() -> bool:
            build = await log.build("runs")
            return build.status == "ready" and not build.swap and "used by report" in (build.error or "")

        await eventually(held_back)
        await log.rows("DROP VIEW report")
        await log.rows("ALTER TABLE run ADD COLUMN note text")
        await log.ask_swap("runs")

        async def changed() -> bool:
            return "were changed" in ((await log.build("runs")).error or "")

        await eventually(changed)
        assert await log.rows("SELECT count(*) FROM run") == [(3,)], "the live version serves"


async def test_two_tables_and_their_rights_go_together(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, tenants.PROJECTION), building(log, tenants.PROJECTION):
        await log.rows("GRANT SELECT ON api_key TO PUBLIC")
        await log.ask(tenants.PROJECTION, "rebuild", swap=True)
        await log.until_status("tenants", "swapped")
        granted = (
            "SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' AND table_name = 'api_key'"
        )
        assert ("SELECT",) in await log.rows(granted + " AND table_schema = 'public'")
        assert await log.rows("SELECT count(*) FROM pg_tables WHERE schemaname = 'previous_tenants'") == [(2,)]


async def test_storage_parameters_are_those_of_the_migrated_tables(database_url: str) -> None:
    async with log_on(database_url) as log, projecting(log, RUNS), building(log, RUNS):
        await log.rows("ALTER TABLE run SET (autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_enabled = off)")
        before = await log.rows(OPTIONS, list(RUNS.tables))
        assert before == [
            ("run", ["autovacuum_vacuum_scale_factor=0.01"], ["autovacuum_enabled=off"]),
            ("run_call", ["fillfactor=80"], None),
            ("run_part", ["fillfactor=80"], None),
            ("run_step", ["fillfactor=80"], None),
        ]
        await log.ask(RUNS, "rebuild", swap=True)
        await log.until_status("runs", "swapped")
        assert await log.rows(OPTIONS, list(RUNS.tables)) == before


# --- events that break a handler --------------------------------------------------------------------------------------


class Fussy:
    """A handler that fails at projects whose name begins with `dislikes`."""

    def __init__(self) -> None:
        self.dislikes = "bad"

    async def __call__(self, connection: Connection, batch: Sequence[RecordedEvent]) -> None:
        for event in batch:
            if decoded(event).name.startswith(self.dislikes):
                raise ArithmeticError(f"cannot take {decoded(event).name}")
        await PROJECTS.apply(connection, batch)


async def test_parked_events_belong_to_a_version(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fussy = Fussy()
    projects = replace(PROJECTS, apply=fussy)
    parked = "SELECT consumer, position, error FROM parked_event ORDER BY 1, 2"
    async with log_on(database_url) as log:
        ids = await log.create("a", "bad 1", *(f"p{i}" for i in range(60)), "bad 2", "b", "worse 1")
        async with projecting(log, projects):
            await log.until("projects")
        assert [row[:2] for row in await log.rows(parked)] == [("projects", 2), ("projects", 63)]
        fussy.dislikes = "worse"
        async with projecting(log, projects), building(log, projects):
            await log.ask(projects, "rebuild", swap=True)
            await log.until_status("projects", "swapped")
            assert [row[:2] for row in await log.rows(parked)] == [
                ("projects", 65),
                ("projects@previous", 2),
                ("projects@previous", 63),
            ]
            assert (await log.rows(parked))[0][2] == "ArithmeticError: cannot take worse 1"
            assert await log.rows("SELECT count(*) FROM project") == [(64,)]
            # The runner knows that one root is free again, and that the events of another root wait from now on.
            for root, name in ((ids[1], "after bad"), (ids[-1], "after the worst")):
                await log.append(root, (new_id(), 0, [ProjectCreated(name=name)]))
            await log.until("projects")
            assert await log.rows("SELECT name FROM project WHERE name LIKE %s", "after%") == [("after bad",)]
            assert (await log.rows(parked))[1][:2] == ("projects", 67)
            monkeypatch.setattr(backfill, "MAX_PARKED", 10)
            fussy.dislikes = "p"
            await log.ask(projects, "rebuild", swap=True)
            failed = await log.until_status("projects", "failed")
            assert "the handler refused 11 events" in (failed.error or "")
            assert await schemas(log) == ["previous_projects"]
            assert await log.rows("SELECT count(*) FROM project") == [(65,)]
