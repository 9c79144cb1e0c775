"""The walks that find the runs of a list, newest first: over runs of a tenant, a project, a status, or over entries of a term.

With one filter a walk meets wanted runs only. With several, it goes over the runs that one of them leaves, and looks at each one
for the others. So it may look at many runs to find a few. A page looks at so many at most, and the next one goes on from there.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.pages import MAX_POSITION
from application.reads import RunsWanted
from application.views.runs import DEGRADED
from domain.errors import InvalidCommand
from projections import moments
from projections.kernel import Connection

Filters = tuple[str | None, bool | None]
"""The key of `WALKS`."""


COLUMNS = """
run_id, project_id, status, degraded, position, created_at, agents, missing, priority, finished_at, event_count, retries,
actor, on_behalf_of, parent_id, workflow, origin, view
"""

# A walk for each combination of status and project, so that each can use its index. Bounds and order name all columns of the index:
# with `tenant_id = ... ORDER BY created_at` the planner may walk over the runs of all tenants to find the few of a small one.
OF_TENANT = """
(tenant_id, created_at, run_id) < (%(tenant)s, %(at)s::timestamptz, %(before)s)
AND (tenant_id, created_at, run_id) >= (%(tenant)s, %(since)s::timestamptz, '00000000-0000-0000-0000-000000000000')
"""
WITHIN = """
(created_at, run_id) < (%(at)s::timestamptz, %(before)s)
AND (created_at, run_id) >= (%(since)s::timestamptz, '00000000-0000-0000-0000-000000000000')
"""
OF_STATUS = f"tenant_id = %(tenant)s AND status = %(status)s AND {WITHIN}"
OF_PROJECT = f"tenant_id = %(tenant)s AND project_id = %(project)s AND {WITHIN}"
OF_BOTH = f"tenant_id = %(tenant)s AND project_id = %(project)s AND status = %(status)s AND {WITHIN}"
BY_TENANT = "tenant_id DESC, created_at DESC, run_id DESC"
BY_STATUS = "tenant_id DESC, status DESC, created_at DESC, run_id DESC"
BY_PROJECT = "tenant_id DESC, project_id DESC, created_at DESC, run_id DESC"
BY_BOTH = "tenant_id DESC, project_id DESC, status DESC, created_at DESC, run_id DESC"
BY_TIME = "created_at DESC, run_id DESC"
WALKS = {
    (None, False): (OF_TENANT, BY_TENANT),
    ("status", False): (OF_STATUS, BY_STATUS),
    ("degraded", False): (f"{OF_TENANT} AND degraded", BY_TENANT),
    (None, True): (OF_PROJECT, BY_PROJECT),
    ("status", True): (OF_BOTH, BY_BOTH),
    ("degraded", True): (f"{OF_PROJECT} AND degraded", BY_PROJECT),
}
"""What is walked over, and in which order, by the filters (status, project)."""
# For a key that is narrowed to projects: a walk over each of them, put together by time. No run of another project is looked at, so
# neither the time of a page nor its cursor tells of one.
OF_EACH = {
    status: (where.replace("%(project)s", "each.project"), by) for (status, project), (where, by) in WALKS.items() if project
}
"""As `WALKS`, of several projects, by the filter of status."""
OF_TERM = f"term = %(term)s AND {WITHIN}"

# `others`: terms that the run must have besides.
HAS_OTHERS = """
(
    SELECT count(*) FROM run_term AS t
    WHERE t.term = ANY (%(others)s::bigint[]) AND t.created_at = found.created_at AND t.run_id = found.run_id
) = cardinality(%(others)s::bigint[])
"""
# By times alone, whether the run may have been in the list of then. `unmoved`: seconds for which nothing has happened to the run.
THEN = """
coalesce(start_position, 0) <= %(position)s AND (NOT %(running)s OR finished_at IS NULL OR finished_at >= %(time)s::timestamptz)
AND (NOT %(ended)s OR finished_at <= %(time)s::timestamptz OR view IS NOT NULL)
AND (%(unmoved)s::float8 IS NULL OR updated_at < now() - make_interval(secs => %(unmoved)s::float8))
AND (%(longer)s::float8 IS NULL OR coalesce(finished_at, CASE WHEN status IN ('queued', 'running', 'paused') THEN now() END)
     >= created_at + make_interval(secs => %(longer)s::float8))
AND (%(shorter)s::float8 IS NULL OR coalesce(finished_at, CASE WHEN status IN ('queued', 'running', 'paused') THEN now() END)
     < created_at + make_interval(secs => %(shorter)s::float8))
"""
SEVERAL = "several"
"""In the place of a status: those of `statuses`."""


def _page(where: str, by: str) -> str:
    return f"SELECT {COLUMNS} FROM run WHERE {where} ORDER BY {by} LIMIT %(limit)s"


def _of_each(where: str, by: str, limit: str) -> str:
    """The runs of several projects, as a table."""
    walk = f"SELECT * FROM run WHERE {where} ORDER BY {by} LIMIT {limit}"
    return f"(SELECT own.* FROM unnest(%(within)s::uuid[]) AS each (project) CROSS JOIN LATERAL ({walk}) AS own)"


# `fits`: whether the run may belong to the list. The last run that is looked at is always among the rows.
# The columns that a walk fixes are not named outside of the walk: the planner does not know them there as fixed, and would sort.
def _looked(where: str, by: str, others: str = "true", of: str = "run") -> str:
    return f"""
    SELECT {COLUMNS}, fits, number FROM (
        SELECT {COLUMNS}, tenant_id, {THEN} AND {others} AS fits, row_number() OVER (ORDER BY {by}) AS number
        FROM {of} AS found WHERE {where} ORDER BY {by} LIMIT %(looked_at)s
    ) AS looked_at WHERE fits OR number = %(looked_at)s
    ORDER BY {by if by == BY_TENANT else BY_TIME} LIMIT %(limit)s
    """


def _of_several(each: str, of_status: str, of_degraded: tuple[str, str], limit: str) -> str:
    """The runs of several statuses, as a table. Degraded runs are completed: where those are wanted, they are among them."""
    where, by = of_degraded
    return f"""(
        SELECT own.* FROM unnest(%(statuses)s::text[]) AS wanted (status) {each}
        CROSS JOIN LATERAL (SELECT * FROM run WHERE {of_status} ORDER BY {BY_BOTH} LIMIT {limit}) AS own
        UNION ALL SELECT own.* FROM (SELECT) AS always {each} CROSS JOIN LATERAL (
            SELECT * FROM run WHERE {where} AND 'degraded' = ANY (%(statuses)s::text[])
            AND 'completed' <> ALL (%(statuses)s::text[]) ORDER BY {by} LIMIT {limit}
        ) AS own
    )"""


def _several_page(of: str) -> str:
    return f"SELECT {COLUMNS} FROM {of} AS own ORDER BY {BY_TIME} LIMIT %(limit)s"


def _several(limit: str) -> dict[Filters, str]:
    """By the filter of projects."""
    each, of_each = "CROSS JOIN unnest(%(within)s::uuid[]) AS each (project)", OF_EACH["degraded"]
    of_status, of_both = (where.replace("%(status)s", "wanted.status") for where in (OF_STATUS, OF_BOTH))
    return {
        (SEVERAL, False): _of_several("", of_status, WALKS["degraded", False], limit).replace(BY_BOTH, BY_STATUS),
        (SEVERAL, True): _of_several("", of_both, WALKS["degraded", True], limit),
        (SEVERAL, None): _of_several(each, of_both.replace("%(project)s", "each.project"), of_each, limit),
    }


def _depth(where: str, by: str, of: str = "run") -> str:
    looked_at = f"SELECT created_at FROM {of} AS found WHERE {where} ORDER BY {by} LIMIT %(looked_at)s"
    return f"SELECT count(*), min(created_at) FROM ({looked_at}) AS looked_at"


def _each_looked(where: str, by: str, others: str = "true") -> str:
    return _looked("true", BY_TIME, others, _of_each(where, by, "%(looked_at)s"))


def _each_page(where: str, by: str) -> str:
    return f"SELECT {COLUMNS} FROM {_of_each(where, by, '%(limit)s')} AS own ORDER BY {BY_TIME} LIMIT %(limit)s"


PAGE: dict[Filters, str] = {
    **{filters: _page(*walk) for filters, walk in WALKS.items()},
    **{(status, None): _each_page(*walk) for status, walk in OF_EACH.items()},
    **{filters: _several_page(of) for filters, of in _several("%(limit)s").items()},
}
"""A page of now without terms: all runs of the walk are wanted. None instead of a project: of several."""
LOOKED: dict[Filters, str] = {
    **{filters: _looked(*walk) for filters, walk in WALKS.items()},
    **{(status, None): _each_looked(*walk) for status, walk in OF_EACH.items()},
    **{filters: _looked("true", BY_TIME, of=of) for filters, of in _several("%(looked_at)s").items()},
}
LOOKED_WITH_TERMS: dict[Filters, str] = {
    **{filters: _looked(*walk, HAS_OTHERS) for filters, walk in WALKS.items()},
    **{(status, None): _each_looked(*walk, HAS_OTHERS) for status, walk in OF_EACH.items()},
    **{filters: _looked("true", BY_TIME, HAS_OTHERS, of) for filters, of in _several("%(looked_at)s").items()},
}
# The row of a run is read only where the terms fit.
LOOKED_BY_TERM = f"""
SELECT {COLUMNS}, fits, number FROM (
    SELECT run.*, found_at, found_id, number, has AND run.tenant_id = %(tenant)s AND {THEN}
        AND (%(project)s::uuid IS NULL OR project_id = %(project)s)
        AND CASE %(status)s::text
            WHEN 'degraded' THEN degraded
            WHEN 'several' THEN status = ANY (%(statuses)s::text[]) OR degraded AND 'degraded' = ANY (%(statuses)s::text[])
            ELSE coalesce(status = %(status)s, true)
        END AS fits
    FROM (
        SELECT found.created_at AS found_at, found.run_id AS found_id, number, {HAS_OTHERS} AS has FROM (
            SELECT created_at, run_id, row_number() OVER (ORDER BY {BY_TIME}) AS number
            FROM run_term WHERE {OF_TERM} ORDER BY {BY_TIME} LIMIT %(looked_at)s
        ) AS found
    ) AS found
    CROSS JOIN LATERAL (SELECT * FROM run WHERE run_id = found_id LIMIT 1) AS run
    WHERE has OR number = %(looked_at)s
) AS looked_at WHERE fits OR number = %(looked_at)s ORDER BY found_at DESC, found_id DESC LIMIT %(limit)s
"""
COUNTED = 1_000
"""Runs of a status that are counted. With terms, the runs that a page looks at are."""


def _count(status: str, of_projects: bool | None) -> str:
    if of_projects is None:
        where, by = OF_EACH["status" if status != DEGRADED else DEGRADED]
        of = _of_each(where.replace("%(status)s", f"'{status}'"), by, str(COUNTED + 1))
        return f"(SELECT count(*) FROM (SELECT FROM {of} AS own LIMIT {COUNTED + 1}) AS counted)"
    where, _ = WALKS["status" if status != DEGRADED else DEGRADED, of_projects]
    where = where.replace("%(status)s", f"'{status}'")
    return f"(SELECT count(*) FROM (SELECT FROM run WHERE {where} LIMIT {COUNTED + 1}) AS counted)"


def _counts(of_projects: bool | None) -> str:
    numbers = ", ".join(_count(status, of_projects) for status in STATUSES)
    return f"SELECT {numbers}"


STATUSES = ("queued", "running", "paused", "completed", "failed", "cancelled", DEGRADED)
COUNT = {of: _counts(of) for of in (False, True, None)}
"""Of the tenant, of a project, of several."""
# How many runs a page of a walk looks at, and the time of the last of them.
DEPTH: dict[Filters, str] = {
    **{filters: _depth(*walk) for filters, walk in WALKS.items()},
    **{filters: _depth("true", BY_TIME, of) for filters, of in _several("%(looked_at)s").items()},
}
DEPTH_OF_TERMS = f"""
SELECT depth.number, depth.last, wanted.term FROM unnest(%(terms)s::bigint[]) AS wanted (term)
CROSS JOIN LATERAL (
    SELECT count(*) AS number, min(created_at) AS last FROM (
        SELECT created_at FROM run_term AS t WHERE t.term = wanted.term AND {WITHIN} ORDER BY {BY_TIME} LIMIT %(looked_at)s
    ) AS looked_at
) AS depth
"""
PLACE = "SELECT created_at FROM run WHERE tenant_id = %s AND run_id = %s AND (%s::uuid[] IS NULL OR project_id = ANY (%s::uuid[]))"
LOOKED_AT = 2_000
"""Runs that a page looks at where terms are wanted."""
LOOKUPS = 6_000
"""Looks of a page for the terms of these runs, some microseconds each. With more than three terms a page looks at fewer runs."""
FEW = 100
"""Runs that are looked at without the question whether another walk is shorter."""
NOW = {
    "position": MAX_POSITION, "running": False, "ended": False, "time": "infinity",
    "unmoved": None, "longer": None, "shorter": None,
}  # fmt: skip
"""The parameters of `THEN` for a list of now."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


class Looked(NamedTuple):
    rows: list[Sequence[Any]]
    """The runs that may belong to the list: COLUMNS."""
    last: UUID | None
    """The last run that was looked at. None: there are no more."""


Place = tuple[datetime, UUID]
"""A place in the order of runs."""
NO_FILTER: Filters = (None, False)


def filters_of(status: str | None, walk: Mapping[str, Any]) -> Filters:
    """The key of the statement for these filters."""
    of_projects = None if walk["within"] is not None else walk["project"] is not None
    return (status if status in (None, DEGRADED, SEVERAL) else "status"), of_projects


async def walk_of(connection: Connection, tenant_id: UUID, wanted: RunsWanted, end: datetime | None = None) -> dict[str, Any]:
    """The parameters of a walk for a page. `end`: only runs before this time.

    Raises InvalidCommand if there is no run `before`.
    """
    within = None if wanted.within is None else list(wanted.within)
    places: list[Place] = [(time, LOWEST) for time in (wanted.started_before, end) if time is not None]
    if wanted.before is not None:
        row = await (await connection.execute(PLACE, [tenant_id, wanted.before, within, within])).fetchone()
        if row is None:
            raise InvalidCommand("the cursor is not one that this server gave out", pointer="/cursor")
        places.append((row[0], wanted.before))
    at, before = min(places) if places else ("infinity", HIGHEST)
    if within is not None and wanted.project_id is not None:
        within = [project_id for project_id in within if project_id == wanted.project_id]
    return {
        "tenant": tenant_id, "at": at, "before": before, "since": wanted.started_after or "-infinity",
        "status": SEVERAL if wanted.statuses else wanted.status, "statuses": list(wanted.statuses),
        "project": wanted.project_id, "within": within, "limit": wanted.limit + 1,
    }  # fmt: skip


async def page(connection: Connection, walk: Mapping[str, Any]) -> list[Sequence[Any]]:
    """The runs of a page of now, and one more if there are more."""
    # Not prepared: only with the status known does the planner see how few runs it leaves.
    sql = PAGE[filters_of(walk["status"], walk)]
    return await (await connection.execute(sql, walk, prepare=False)).fetchall()


async def counted(connection: Connection, walk: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of runs by status, each at most one more than `COUNTED`."""
    _, of_projects = filters_of(None, walk)
    found = await (await connection.execute(COUNT[of_projects], walk, prepare=False)).fetchone()
    assert found is not None
    return dict(zip(STATUSES, found, strict=True))


async def looked(
    connection: Connection, walk: Mapping[str, Any], terms: Sequence[int], then: Mapping[str, Any] = NOW, *, status: str | None
) -> Looked:
    """`status`: the runs of the walk have this one. `then`: the parameters of `THEN`."""
    filters = filters_of(status, walk)
    most = LOOKED_AT if terms or (then["longer"], then["shorter"]) != (None, None) else moments.LOOKED_AT
    looked_at = min(most, LOOKUPS // len(terms)) if terms else most
    parameters = {**walk, **then, "status": status, "looked_at": looked_at}
    # A term has runs of all projects, and the last run of a page goes into the cursor.
    term = await _sparsest(connection, parameters, filters, terms) if terms and walk["within"] is None else None
    parameters |= {"term": term, "others": [other for other in terms if other != term]}
    if term is not None:
        rows = await (await connection.execute(LOOKED_BY_TERM, parameters, prepare=False)).fetchall()
    else:
        sql = (LOOKED_WITH_TERMS if terms else LOOKED)[filters]
        rows = await (await connection.execute(sql, parameters, prepare=False)).fetchall()
    more = len(rows) == walk["limit"] or (rows and rows[-1][-1] == parameters["looked_at"])
    return Looked([row[:-2] for row in rows if row[-2]], rows[-1][0] if more else None)


async def _sparsest(connection: Connection, parameters: dict[str, Any], filters: Filters, terms: Sequence[int]) -> int | None:
    """The term with the fewest runs. None: the status or project of the filters has fewer."""
    if len(terms) == 1 and filters == NO_FILTER:
        return terms[0]
    parameters["terms"] = list(terms)
    walks = await (await connection.execute(DEPTH_OF_TERMS, parameters, prepare=False)).fetchall()
    if filters != NO_FILTER and min(number for number, *_ in walks) >= min(FEW, parameters["looked_at"]):
        found = await (await connection.execute(DEPTH[filters], parameters, prepare=False)).fetchone()
        assert found is not None
        walks.append((*found, None))
    # The shortest of the walks of which a page looks at all runs; else the one that reaches farthest back.
    shortest = min(walks, key=lambda walk: (walk[0], walk[1] or EPOCH))
    return None if shortest[2] is None else int(shortest[2])
