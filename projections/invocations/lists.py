"""Lists of tool calls."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import InvocationsWanted
from application.views.invocations import InvocationSummary
from projections.invocations.previews import put_previews
from projections.kernel import Connection

COLUMNS = "invocation_id, run_id, agent_run_id, key, tool, status, since, attempt, cancel_requested"
NAMES = COLUMNS.split(", ")

# A walk for each combination of filters (status, run), so that each can use its index; bounds and order name all its columns, see
# runs.
BY_TENANT = "tenant_id DESC, invocation_id DESC"
BY_RUN = "tenant_id DESC, run_id DESC, invocation_id DESC"
OF_RUN = "tenant_id = %(tenant)s AND run_id = %(run)s AND invocation_id < %(before)s"
WALKS = {
    (False, False): (
        """
        (tenant_id, invocation_id) < (%(tenant)s, %(before)s)
        AND (tenant_id, invocation_id) >= (%(tenant)s, '00000000-0000-0000-0000-000000000000')
        """,
        BY_TENANT,
    ),
    (True, False): (
        "tenant_id = %(tenant)s AND status = %(status)s AND invocation_id < %(before)s",
        "tenant_id DESC, status DESC, invocation_id DESC",
    ),
    (False, True): (OF_RUN, BY_RUN),
    (True, True): (f"{OF_RUN} AND status = %(status)s", BY_RUN),
}


def _statement(where: str, by: str) -> str:
    return f"SELECT {COLUMNS} FROM invocation WHERE {where} ORDER BY {by} LIMIT %(limit)s"


LIST = {filters: _statement(*walk) for filters, walk in WALKS.items()}


async def list_invocations(connection: Connection, tenant_id: UUID, wanted: InvocationsWanted) -> Page[InvocationSummary]:
    """Calls of the newest runs first."""
    limit, _, status, run_id = wanted
    sql = LIST[status is not None, run_id is not None]
    # Not prepared: only with the status known does the planner see how few calls it leaves.
    rows = await (await connection.execute(sql, parameters_of(tenant_id, wanted), prepare=False)).fetchall()
    data = [summary_of(row) for row in rows[:limit]]
    await put_previews(connection, tenant_id, data)
    return Page(data, encode_cursor(str(data[-1].invocation_id)) if len(rows) > limit else None)


def parameters_of(tenant_id: UUID, wanted: InvocationsWanted) -> dict[str, Any]:
    limit, before, status, run_id = wanted
    return {"tenant": tenant_id, "before": before or UUID(int=2**128 - 1), "status": status, "run": run_id, "limit": limit + 1}


def summary_of(row: Sequence[Any]) -> InvocationSummary:
    return InvocationSummary.model_validate(dict(zip(NAMES, row, strict=True)))
