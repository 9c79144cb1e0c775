"""Lists of tool calls."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import InvocationsWanted
from application.views.invocations import InvocationSummary
from projections.invocations.previews import put_previews
from projections.kernel import Connection

COLUMNS = (
    "invocation_id, run_id, agent_run_id, key, tool, status, since, attempt, cancel_requested, fallback, asked_by, cached_from"
)
NAMES = COLUMNS.split(", ")

# A walk for each combination of filters (status, run, who asked), so that each can use its index; bounds and order name all its
# columns, see runs. The indexes by who asked leave out the calls of agents.
BY_TENANT = "tenant_id DESC, invocation_id DESC"
BY_RUN = "tenant_id DESC, run_id DESC, invocation_id DESC"
OF_RUN = "tenant_id = %(tenant)s AND run_id = %(run)s AND invocation_id < %(before)s"
BY_ASKER = "tenant_id = %(tenant)s AND asked_by = %(asked_by)s AND asked_by <> 'agent_run' AND invocation_id < %(before)s"
WALKS = {
    (False, False, False): (
        """
        (tenant_id, invocation_id) < (%(tenant)s, %(before)s)
        AND (tenant_id, invocation_id) >= (%(tenant)s, '00000000-0000-0000-0000-000000000000')
        """,
        BY_TENANT,
    ),
    (True, False, False): (
        "tenant_id = %(tenant)s AND status = %(status)s AND invocation_id < %(before)s",
        "tenant_id DESC, status DESC, invocation_id DESC",
    ),
    (False, True, False): (OF_RUN, BY_RUN),
    (True, True, False): (f"{OF_RUN} AND status = %(status)s", BY_RUN),
    (False, False, True): (BY_ASKER, "tenant_id DESC, asked_by DESC, invocation_id DESC"),
    (True, False, True): (
        f"{BY_ASKER} AND status = %(status)s",
        "tenant_id DESC, asked_by DESC, status DESC, invocation_id DESC",
    ),
    (False, True, True): (f"{OF_RUN} AND asked_by = %(asked_by)s", BY_RUN),
    (True, True, True): (f"{OF_RUN} AND asked_by = %(asked_by)s AND status = %(status)s", BY_RUN),
}


def _statement(where: str, by: str) -> str:
    return f"SELECT {COLUMNS} FROM invocation WHERE {where} ORDER BY {by} LIMIT %(limit)s"


LIST = {filters: _statement(*walk) for filters, walk in WALKS.items()}

# For a key that is narrowed to projects. A call has the time of its run in its id. A page looks at so many calls, and at all others
# of the last one's time. So the cursor of a page without a call to show is a time, and no id of another project's call.
LOOKED_AT = 2_000
TIME = 0xFFFFFFFFFFFF << 80
# A scalar: an EXISTS could become a join with all runs of the projects.
IN_PROJECTS = """
(SELECT run.project_id FROM run WHERE run.run_id = invocation.run_id AND run.tenant_id = %(tenant)s) = ANY (%(within)s::uuid[])
"""
NARROWED = {
    (status, asked): (f"{where} AND invocation_id >= %(floor)s", by)
    for (status, run, asked), (where, by) in WALKS.items() if not run
}  # fmt: skip
"""As `WALKS`, down to a floor, by whether there are filters of the status and of who asked."""


def _floor(where: str, by: str) -> str:
    return f"SELECT invocation_id FROM invocation WHERE {where} ORDER BY {by} OFFSET %(looked_at)s LIMIT 1"


FLOOR = {(status, asked): _floor(*walk) for (status, run, asked), walk in WALKS.items() if not run}
LIST_NARROWED = {filters: _statement(f"{where} AND {IN_PROJECTS}", by) for filters, (where, by) in NARROWED.items()}


async def list_invocations(connection: Connection, tenant_id: UUID, wanted: InvocationsWanted) -> Page[InvocationSummary]:
    """Calls of the newest runs first."""
    limit, _, status, run_id, within, asked_by = wanted
    if within is not None and not within:
        return Page([], None)
    parameters, floor = parameters_of(tenant_id, wanted), None
    sql = LIST[status is not None, run_id is not None, asked_by is not None]
    if within is not None and run_id is None:
        filters = status is not None, asked_by is not None
        sql, floor = LIST_NARROWED[filters], await floor_of(connection, parameters, *filters)
    # Not prepared: only with the status known does the planner see how few calls it leaves.
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    data = [summary_of(row) for row in rows[:limit]]
    await put_previews(connection, tenant_id, data)
    last = data[-1].invocation_id if len(rows) > limit else floor
    return Page(data, None if last is None else encode_cursor(str(last)))


async def floor_of(connection: Connection, parameters: dict[str, Any], of_status: bool, of_asker: bool) -> UUID | None:
    """How far down the next page of a narrowed key goes; the parameters get it. None: to the end."""
    looking = connection.execute(FLOOR[of_status, of_asker], {**parameters, "looked_at": LOOKED_AT}, prepare=False)
    rows = await (await looking).fetchall()
    floor = UUID(int=rows[0][0].int & TIME) if rows else None
    parameters["floor"] = floor or UUID(int=0)
    return floor


def parameters_of(tenant_id: UUID, wanted: InvocationsWanted) -> dict[str, Any]:
    limit, before, status, run_id, within, asked_by = wanted
    return {
        "tenant": tenant_id, "before": before or UUID(int=2**128 - 1), "status": status, "run": run_id, "limit": limit + 1,
        "within": None if within is None else list(within), "asked_by": asked_by,
    }  # fmt: skip


def summary_of(row: Sequence[Any]) -> InvocationSummary:
    return InvocationSummary.model_validate(dict(zip(NAMES, row, strict=True)))
