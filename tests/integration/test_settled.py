"""Reactions in the append that causes them, over PostgreSQL: nothing is done twice, whatever release writes and reads."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest_asyncio

from application.engine.ports.log import NewEvent
from domain.kernel import Metadata
from domain.projects import ProjectCreated
from domain.registry import REGISTRY
from domain.tenants import DEFAULT_TENANT_ID
from tests.integration.saga_kit import Ledger, ledger_on
from tests.integration.system_kit import empty_work_queue, issue_key, new_id, running, stopped
from tests.integration.test_pruned_commands import a_busy_log
from tests.integration.test_saga_manager import working
from tests.kit.budget import NUMBERED_BUDGET_CATALOG, TOTALS

APPEND_V2 = """
    SELECT last_position FROM append_events_v2(
        ARRAY[%(tenant)s]::uuid[], ARRAY[%(id)s]::uuid[], ARRAY[%(metadata)s]::text[], ARRAY[1], ARRAY[1],
        ARRAY[1], ARRAY[%(id)s]::uuid[], ARRAY[0]::bigint[],
        ARRAY[1], ARRAY[%(id)s]::uuid[], ARRAY[%(id)s]::uuid[], ARRAY[1]::bigint[],
        ARRAY[%(topic)s]::text[], ARRAY[%(schema)s]::smallint[], ARRAY[%(state)s]::bytea[])
"""
"""Appends one event as the release before does."""
BUDGET_BIT = 1 << NUMBERED_BUDGET_CATALOG.numbers["budget"]


@pytest_asyncio.fixture
async def ledger(database_url: str, nats_url: str) -> AsyncIterator[Ledger]:
    async with ledger_on(database_url, nats_url) as ledger:
        ledger.catalog = NUMBERED_BUDGET_CATALOG
        yield ledger


async def by_hand(ledger: Ledger) -> UUID:
    """A project that a process of the release before has created."""
    project_id = new_id()
    event = ProjectCreated(name="p")
    metadata = Metadata(actor="test", correlation_id=project_id, causation_id="test", command_id=project_id)
    new = NewEvent(event.TOPIC, event.VERSION, REGISTRY.encode(event))
    parameters = {"tenant": DEFAULT_TENANT_ID, "id": project_id, "metadata": metadata.model_dump_json(exclude={"on_behalf_of"})}
    parameters |= {"topic": new.topic, "schema": new.schema_version, "state": new.state}
    async with ledger.system.container.database.connection() as connection:
        await connection.execute(APPEND_V2.encode(), parameters)
        await connection.commit()
    return project_id


async def test_rules_that_would_record_a_reaction_again_do_not_where_the_marks_are_lost(ledger: Ledger) -> None:
    """So does a manager of the release before, which cannot read the marks: all reactions are given again, under the same ids."""
    projects = [await ledger.project() for _ in range(5)]
    head = len(projects) * (1 + len(TOTALS))
    sql = ledger.system.sql
    assert await sql("SELECT settled, count(*) FROM event GROUP BY 1 ORDER BY 1") == [(0, head - 5), (BUDGET_BIT, 5)]
    assert await sql("SELECT count(*), sum(event_count) FROM command") == [(head, head)], "each command has a row of its own"
    for again in range(2):
        async with working(ledger.manager()):
            assert await ledger.settled() == head
        assert [await ledger.reserved(project) for project in projects] == [TOTALS] * 5
        await sql("UPDATE checkpoint SET position = 0 WHERE name LIKE 'sagas:%%'")
        await sql("UPDATE event SET settled = 0")
        assert again or await sql("SELECT DISTINCT settled FROM event") == [(0,)]
    assert await sql("SELECT * FROM parked_event") == []


async def test_what_a_release_without_reactions_in_the_append_writes_is_answered_by_the_manager(ledger: Ledger) -> None:
    old, new = await by_hand(ledger), await ledger.project()
    assert (await ledger.reserved(old), await ledger.reserved(new)) == ([], TOTALS)
    async with working(ledger.manager()):
        assert await ledger.settled() == 2 * (1 + len(TOTALS))
    assert (await ledger.reserved(old), await ledger.reserved(new)) == (TOTALS, TOTALS)


async def test_without_its_marks_a_whole_log_is_read_again_and_nothing_is_added(database_url: str, nats_url: str) -> None:
    await empty_work_queue(nats_url)
    async with running(database_url, nats_url) as system:
        await issue_key(system)
        await a_busy_log(system)
        head = await system.settled()
        [(marked, actors)] = await system.sql(
            "SELECT count(*) FILTER (WHERE settled > 0), count(*) FILTER (WHERE metadata LIKE '%%\"saga:%%') FROM event"
        )
        assert marked > 10 and actors > 10
        for name in ("sagas", "timers", "projections"):
            await stopped(system.tasks.pop(name))
        await system.sql("UPDATE checkpoint SET position = 0 WHERE name LIKE 'sagas:%%'")
        await system.sql("UPDATE event SET settled = 0")
    async with running(database_url, nats_url, key=system.key) as later:
        assert await later.settled() == head
        assert await later.sql("SELECT * FROM parked_event") == []
