"""Lists of runs: columns of the header only. Of a run that is stored as a document, the document is read."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import RunsWanted
from application.views.runs import DEGRADED, RunSummary
from domain.errors import InvalidCommand
from projections.kernel import Connection, listed
from projections.runs import documents

COLUMNS = "run_id, project_id, status, degraded, position, created_at, agents, missing, priority, finished_at, event_count, view"

# A walk for each combination of filters, so that each can use its index. Bounds and order name all columns of the index: with
# `tenant_id = ... ORDER BY created_at` the planner may walk over the runs of all tenants to find the few of a small one.
OF_TENANT = """
(tenant_id, created_at, run_id) < (%(tenant)s, %(at)s::timestamptz, %(before)s)
AND (tenant_id, created_at, run_id) >= (%(tenant)s, '-infinity', '00000000-0000-0000-0000-000000000000')
"""
OF_STATUS = "tenant_id = %(tenant)s AND status = %(status)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)"
OF_PROJECT = "tenant_id = %(tenant)s AND project_id = %(project)s AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)"
OF_BOTH = """
tenant_id = %(tenant)s AND project_id = %(project)s AND status = %(status)s
AND (created_at, run_id) < (%(at)s::timestamptz, %(before)s)
"""
BY_TENANT = "tenant_id DESC, created_at DESC, run_id DESC"
BY_STATUS = "tenant_id DESC, status DESC, created_at DESC, run_id DESC"
BY_PROJECT = "tenant_id DESC, project_id DESC, created_at DESC, run_id DESC"
BY_BOTH = "tenant_id DESC, project_id DESC, status DESC, created_at DESC, run_id DESC"
WALKS = {
    (None, False): (OF_TENANT, BY_TENANT),
    ("status", False): (OF_STATUS, BY_STATUS),
    ("degraded", False): (f"{OF_TENANT} AND degraded", BY_TENANT),
    (None, True): (OF_PROJECT, BY_PROJECT),
    ("status", True): (OF_BOTH, BY_BOTH),
    ("degraded", True): (f"{OF_PROJECT} AND degraded", BY_PROJECT),
}
"""What is walked over, and in which order, by the filters (status, project)."""


def _statement(where: str, by: str) -> str:
    return f"SELECT {COLUMNS} FROM run WHERE {where} ORDER BY {by} LIMIT %(limit)s"


LIST = {filters: _statement(*walk) for filters, walk in WALKS.items()}


async def list_runs(connection: Connection, tenant_id: UUID, wanted: RunsWanted) -> Page[RunSummary]:
    """Newest first, by the time of the start; runs of the same time by id. Raises InvalidCommand if there is no run `before`."""
    limit, before, status, project_id = wanted
    at, before = await place_of(connection, tenant_id, before)
    parameters = {
        "tenant": tenant_id, "at": at, "before": before, "status": status, "project": project_id, "limit": limit + 1,
    }  # fmt: skip
    sql = LIST[filters_of(status, project_id)]
    # Not prepared: only with the status known does the planner see how few runs it leaves.
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    data = [summary_of(row) for row in rows[:limit]]
    return Page(data, encode_cursor(str(data[-1].run_id)) if len(rows) > limit else None)


def filters_of(status: str | None, project_id: UUID | None) -> tuple[str | None, bool]:
    """The key of the statement for these filters."""
    return (status if status in (None, DEGRADED) else "status"), project_id is not None


async def place_of(connection: Connection, tenant_id: UUID, before: UUID | None) -> tuple[datetime | str, UUID]:
    """The place in the order of runs from which a page goes on. Without a run: the place above all runs."""
    if before is None:
        return "infinity", UUID(int=2**128 - 1)
    sql = "SELECT created_at FROM run WHERE tenant_id = %s AND run_id = %s"
    row = await (await connection.execute(sql, [tenant_id, before])).fetchone()
    if row is None:
        raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
    return row[0], before


def summary_of(row: Sequence[Any]) -> RunSummary:
    run_id, project_id, status, degraded, position, created_at, agents, missing, priority, finished_at, event_count, document = row
    if document is None:
        return RunSummary(
            run_id=run_id, project_id=project_id, status=status, degraded=degraded, missing=missing.split(" ") if missing else [],
            priority=priority, agents=agents.split(" "), created_at=created_at, finished_at=finished_at, position=position,
            event_count=event_count,
        )  # fmt: skip

    def mark() -> RunSummary:
        return RunSummary(
            run_id=run_id, project_id=project_id, status=status, degraded=degraded, agents=[], created_at=created_at,
            finished_at=None, position=position, event_count=0, unreadable=True,
        )  # fmt: skip

    return listed("run", run_id, lambda: documents.summary(document), mark)
