"""Who started runs, and for whom, where their rows do not say: from the metadata of their first events.

The rows say it since migration 0043. Rows that a release before wrote do not, until the read model is built anew.
"""

from uuid import UUID

from application.engine.ports.pages import Page
from application.views.runs import RunSummary
from domain.kernel import who_asked
from projections.kernel import Connection

# OFFSET 0 keeps the tenant out of the look-up: with it, the planner would take the index of the tenant's events, all of them.
FIRST_EVENTS = """
SELECT run.id, first.metadata FROM unnest(%b::uuid[]) AS run (id) CROSS JOIN LATERAL (
    SELECT tenant_id, metadata FROM event WHERE originator_id = run.id AND originator_version = 1 OFFSET 0
) AS first WHERE first.tenant_id = %b
"""
NOBODY_KNOWN = (None, None)


async def starters(connection: Connection, tenant_id: UUID, run_ids: list[UUID]) -> dict[UUID, tuple[str | None, str | None]]:
    """Run → actor of the start, and for whom."""
    rows = await (await connection.execute(FIRST_EVENTS, [run_ids, tenant_id], prepare=True, binary=True)).fetchall()
    return {run_id: who_asked(metadata) for run_id, metadata in rows}


async def with_starters(connection: Connection, tenant_id: UUID, page: Page[RunSummary]) -> Page[RunSummary]:
    """The page, with who started each run. Nothing is asked where the rows say it."""
    if unknown := [run for run in page.data if run.actor is None]:
        found = await starters(connection, tenant_id, [run.run_id for run in unknown])
        for run in unknown:
            run.actor, run.on_behalf_of = found.get(run.run_id, NOBODY_KNOWN)
    return page
