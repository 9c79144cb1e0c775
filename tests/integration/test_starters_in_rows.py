"""Who started a run stands in its row. Rows that a release before wrote do not say it: the log does."""

import psycopg

from application.reads import RunsWanted
from domain.tenants import DEFAULT_TENANT_ID
from projections.runs import PROJECTION, RunQueries
from projections.runs.starters import NOBODY_KNOWN
from tests.integration.projection_kit import Log, building, log_on, projecting

WANTED = RunsWanted(limit=10)
SAID = """UPDATE event SET metadata = jsonb_set(metadata::jsonb, '{on_behalf_of}', '"ann"')::text"""
FORGOTTEN = "UPDATE event SET metadata = '{}' WHERE originator_version = 1"
OLD_ROW = "UPDATE run SET actor = NULL, on_behalf_of = NULL WHERE run_id = %s"


async def changed(log: Log, statement: str) -> None:
    """Changes the log, which no process of the server may."""
    async with await psycopg.AsyncConnection.connect(log.url) as connection:
        await connection.execute(statement.encode())


async def shown(log: Log) -> list[tuple[str | None, str | None]]:
    """Who started each run, and for whom, now; the list of then says the same."""
    reads = RunQueries(log.database)
    found = await reads.list(DEFAULT_TENANT_ID, WANTED)
    then = await reads.list_as_of(DEFAULT_TENANT_ID, found.position, WANTED)
    starters = [(run.actor, run.on_behalf_of) for run in found.value.data]
    assert [(run.actor, run.on_behalf_of) for run in then.data] == starters
    return starters


async def test_a_list_says_who_started_each_run_from_its_row(database_url: str) -> None:
    async with log_on(database_url) as log, building(log, PROJECTION):
        [older, _] = [await log.run(), await log.run()]
        await changed(log, SAID)
        async with projecting(log, PROJECTION):
            await log.until("runs")
            [newest, oldest] = await shown(log)
            assert newest == oldest and newest[0] and newest[1] == "ann"
            await log.rows(OLD_ROW, older)
            assert await shown(log) == [newest, oldest], "the log knows what the row does not say"
            await log.ask(PROJECTION, "verify")
            await log.until_status("runs", "equal", purpose="check")
            await log.ask(PROJECTION, "rebuild", swap=True)
            await log.until_status("runs", "swapped")
            assert await log.rows("SELECT DISTINCT actor, on_behalf_of FROM run") == [newest]
            await changed(log, FORGOTTEN)
            assert await shown(log) == [newest, oldest], "where the rows say it, the log is not asked"
            await log.rows(OLD_ROW, older)
            assert await shown(log) == [newest, NOBODY_KNOWN]


async def test_metadata_of_another_program_harm_no_row(database_url: str) -> None:
    async with log_on(database_url) as log:
        await log.run()
        await changed(log, """UPDATE event SET metadata = '{"actor": 5, "on_behalf_of": ["x"]}'""")
        async with projecting(log, PROJECTION):
            await log.until("runs")
        assert await log.rows("SELECT actor, on_behalf_of FROM run") == [(None, None)]
        assert await log.rows("SELECT 1 FROM parked_event") == []
