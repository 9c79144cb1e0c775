"""Lists of runs as of a position of the log.

The order of runs, their tenants, projects and agents never change. The status of a run changes once, when the run ends. So the rows
of the present give the list of any earlier position. A row whose last event is at or before the position is as it was. Of other
rows the log says how many events each run had, and whether the run had ended. The times of the rows answer the second question for
most runs, because the log's times never decrease. Events of the same time, as those of one append, differ in their positions.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import RunsWanted
from application.views.runs import DEGRADED, RunSummary
from domain.errors import PayloadTooLarge
from domain.runs import ENDS
from projections.kernel import Connection
from projections.runs.lists import (
    BY_BOTH,
    BY_PROJECT,
    BY_STATUS,
    BY_TENANT,
    COLUMNS,
    OF_BOTH,
    OF_PROJECT,
    OF_STATUS,
    OF_TENANT,
    filters_of,
    place_of,
    summary_of,
)

LOOKED_AT = 20_000
"""Runs that one page looks at. The page is then shorter than asked for, and the next page goes on from there."""
MAX_EVENTS = 200_000
"""Events that are counted for one page."""

TIME_OF = "SELECT recorded_at FROM event WHERE notification_id <= %s ORDER BY notification_id DESC LIMIT 1"
# `fits`: whether the run may belong to the list, by times alone. The last run that is looked at is always among the rows.
LOOK = f"""
SELECT {COLUMNS}, fits, number FROM (
    SELECT {COLUMNS}, tenant_id, coalesce(start_position, 0) <= %(position)s
        AND (NOT %(running)s OR finished_at IS NULL OR finished_at >= %(time)s)
        AND (NOT %(ended)s OR finished_at <= %(time)s OR view IS NOT NULL) AS fits,
    row_number()
"""
TAKE = "LIMIT %(looked_at)s) AS looked_at WHERE fits OR number = %(looked_at)s"
# The columns that a walk fixes are not named here: outside of the walk the planner does not know them as fixed, and would sort.
BY_TIME = "created_at DESC, run_id DESC"
LIST_AS_OF = {
    (None, False): f"""
        {LOOK} OVER (ORDER BY {BY_TENANT}) AS number FROM run WHERE {OF_TENANT}
        ORDER BY {BY_TENANT} {TAKE} ORDER BY {BY_TENANT} LIMIT %(limit)s
    """,
    ("status", False): f"""
        {LOOK} OVER (ORDER BY {BY_STATUS}) AS number FROM run WHERE {OF_STATUS}
        ORDER BY {BY_STATUS} {TAKE} ORDER BY {BY_TIME} LIMIT %(limit)s
    """,
    ("degraded", False): f"""
        {LOOK} OVER (ORDER BY {BY_TENANT}) AS number FROM run WHERE {OF_TENANT} AND degraded
        ORDER BY {BY_TENANT} {TAKE} ORDER BY {BY_TENANT} LIMIT %(limit)s
    """,
    (None, True): f"""
        {LOOK} OVER (ORDER BY {BY_PROJECT}) AS number FROM run WHERE {OF_PROJECT}
        ORDER BY {BY_PROJECT} {TAKE} ORDER BY {BY_TIME} LIMIT %(limit)s
    """,
    ("status", True): f"""
        {LOOK} OVER (ORDER BY {BY_BOTH}) AS number FROM run WHERE {OF_BOTH}
        ORDER BY {BY_BOTH} {TAKE} ORDER BY {BY_TIME} LIMIT %(limit)s
    """,
    ("degraded", True): f"""
        {LOOK} OVER (ORDER BY {BY_PROJECT}) AS number FROM run WHERE {OF_PROJECT} AND degraded
        ORDER BY {BY_PROJECT} {TAKE} ORDER BY {BY_TIME} LIMIT %(limit)s
    """,
}
THEN = """
SELECT u.run_id, counted.events, counted.last, u.asked AND EXISTS (
    SELECT FROM event AS e
    WHERE e.originator_id = u.run_id AND e.tenant_id = %(tenant)s AND e.notification_id <= %(position)s AND e.topic = ANY (%(ends)s)
)
FROM unnest(%(runs)s::uuid[], %(asked)s::boolean[]) AS u (run_id, asked)
CROSS JOIN LATERAL (
    SELECT count(*) AS events, max(e.notification_id) AS last FROM event AS e
    WHERE e.root_id = u.run_id AND e.notification_id <= %(position)s AND e.tenant_id IS NOT DISTINCT FROM %(tenant)s
) AS counted
"""


class _Moment(NamedTuple):
    """A position of the log, and the time of its event."""

    position: int
    time: datetime


async def list_runs_as_of(connection: Connection, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
    """The list as the read model had it at a position that it has reached. A page before the last one may be short.

    Raises InvalidCommand if there is no run `before`; PayloadTooLarge.
    """
    limit, before, status, project_id = wanted
    at, before = await place_of(connection, tenant_id, before)
    found = await (await connection.execute(TIME_OF, [position])).fetchone()
    if found is None:
        return Page([], None)
    moment = _Moment(position, found[0])
    above = moment.time + timedelta(microseconds=1)  # the place above all runs of the time
    if isinstance(at, str) or at >= above:
        at, before = above, UUID(int=0)
    ended = status not in (None, "running")
    parameters = {
        "tenant": tenant_id, "at": at, "before": before, "status": status, "project": project_id, "limit": limit + 1,
        "position": position, "time": moment.time, "running": status == "running", "ended": ended, "looked_at": LOOKED_AT,
    }  # fmt: skip
    sql = LIST_AS_OF[filters_of(status if ended else None, project_id)]
    rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    then = await _summaries(connection, tenant_id, moment, [row[:-2] for row in rows if row[-2]])
    shown = [run for run in then if status in (None, run.status, DEGRADED if run.degraded else None)]
    if len(shown) > limit:
        return Page(shown[:limit], encode_cursor(str(shown[limit - 1].run_id)))
    more = len(rows) > limit or (rows and rows[-1][-1] == LOOKED_AT)
    return Page(shown, encode_cursor(str(rows[-1][0])) if more else None)


async def _summaries(connection: Connection, tenant_id: UUID, moment: _Moment, rows: Collection[Sequence[Any]]) -> list[RunSummary]:
    """The runs of the rows as they were, without those that had not started. Raises PayloadTooLarge."""
    runs = [_Run(summary_of(row), exact=row[-1] is None) for row in rows]
    changed = [run for run in runs if run.now.position > moment.position]
    if sum(run.now.event_count for run in changed) > MAX_EVENTS:
        raise PayloadTooLarge(f"the runs of the page have more than {MAX_EVENTS:,} events; ask for fewer runs with `limit`")
    parameters = {
        "tenant": tenant_id, "position": moment.position, "ends": list(ENDS), "runs": [run.now.run_id for run in changed],
        "asked": [run.had_ended(moment) is None for run in changed],
    }  # fmt: skip
    found = await (await connection.execute(THEN, parameters)).fetchall() if changed else []
    then = {run_id: _Then(*values) for run_id, *values in found}
    summaries = [run.at(moment, then.get(run.now.run_id)) for run in runs]
    return [summary for summary in summaries if summary is not None]


class _Then(NamedTuple):
    """What the log has of a run at a position."""

    events: int
    last: int | None
    ended: bool
    """Whether the run had ended, if that was asked."""


class _Run(NamedTuple):
    now: RunSummary
    exact: bool
    """Whether the times are those of the log. In documents they are cut to milliseconds."""

    def had_ended(self, moment: _Moment) -> bool | None:
        """Whether the run had ended. None: the times do not tell."""
        if self.now.status == "running":
            return False
        if not self.exact or self.now.finished_at is None or self.now.finished_at == moment.time:
            return None
        return self.now.finished_at < moment.time

    def at(self, moment: _Moment, then: _Then | None) -> RunSummary | None:
        """The run as it was. `then`: of a run that has changed since. None: the run had not started."""
        if then is None:
            return self.now
        if not then.events:
            return None
        ended = self.had_ended(moment)
        open_ = {"status": "running", "degraded": False, "missing": [], "finished_at": None}
        changes = {} if (then.ended if ended is None else ended) else open_
        return self.now.model_copy(update={"position": then.last, "event_count": then.events, **changes})
