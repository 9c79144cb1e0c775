"""What calls have used, by day and by run. Each outcome that says something is added to two rows; nothing is looked up."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import Positioned, UsageWanted
from application.views.budgets import UsageView
from domain.amounts import money_text
from domain.invocations import InvocationFailed, InvocationResolved, InvocationSucceeded
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import reading
from projections.kernel import Connection, Database, Projection, decoded, topics_of

NOBODY = UUID(int=0)
MARK = b'"usage"'
"""Stands in every event that is counted. Most outcomes are of calls that cost nothing: these are not even decoded."""
SUMS = "calls = t.calls + EXCLUDED.calls, money = t.money + EXCLUDED.money, tokens = t.tokens + EXCLUDED.tokens"
OF_DAYS = f"""
INSERT INTO usage_day AS t (tenant_id, day, project_id, agent, tool, calls, money, tokens)
SELECT * FROM unnest(%s::uuid[], %s::date[], %s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (tenant_id, day, project_id, agent, tool) DO UPDATE SET {SUMS}
"""
OF_RUNS = f"""
INSERT INTO usage_run AS t (tenant_id, run_id, project_id, agent, tool, calls, money, tokens)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
ON CONFLICT (tenant_id, run_id, agent, tool) DO UPDATE SET {SUMS}
"""


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    of_days: dict[tuple[Any, ...], list[int]] = {}
    of_runs: dict[tuple[Any, ...], list[int]] = {}
    for recorded in batch:
        if MARK not in recorded.state:
            continue
        event = decoded(recorded)
        if not isinstance(event, InvocationSucceeded | InvocationFailed | InvocationResolved) or event.usage is None:
            continue
        if isinstance(event, InvocationFailed) and not event.attempt:  # no tool was called: a budget refused it, or a breaker
            continue
        who, used = event.spender, event.usage
        project_id, agent, tool = (None, None, None) if who is None else (who.project_id, who.agent, who.tool)
        names = (project_id or NOBODY, agent or "", tool or "")
        run_id = recorded.root_id if who is None or who.run_id is None else who.run_id
        day = recorded.recorded_at.astimezone(UTC).date()
        for rows, key in (of_days, (recorded.tenant_id, day, *names)), (of_runs, (recorded.tenant_id, run_id, *names)):
            sums = rows.setdefault(key, [0, 0, 0])
            sums[0] += 1
            sums[1] += used.money
            sums[2] += used.tokens
    if of_days:
        await connection.execute(OF_DAYS, _columns(of_days))
        await connection.execute(OF_RUNS, _columns(of_runs))


def _columns(rows: dict[tuple[Any, ...], list[int]]) -> list[list[Any]]:
    return [list(column) for column in (*zip(*rows, strict=True), *zip(*rows.values(), strict=True))]


PROJECTION = Projection(
    "usage", topics_of(InvocationSucceeded, InvocationFailed, InvocationResolved), ("usage_day", "usage_run"), apply
)

FILTERS = """
tenant_id = %(tenant)s AND (%(projects)s::uuid[] IS NULL OR project_id = ANY (%(projects)s))
AND (%(agent)s::text IS NULL OR agent = %(agent)s) AND (%(tool)s::text IS NULL OR tool = %(tool)s)
"""
SUMMED = "sum(calls)::bigint, sum(money)::bigint, sum(tokens)::bigint"
OF_THE_DAYS = f"{FILTERS} AND day BETWEEN %(since)s AND %(until)s"
BY_DAY = f"""
SELECT day, {SUMMED} FROM usage_day WHERE {OF_THE_DAYS} AND (%(after)s::date IS NULL OR day < %(after)s)
GROUP BY day ORDER BY day DESC LIMIT %(limit)s
"""
BY_PROJECT = f"""
SELECT project_id, {SUMMED} FROM usage_day WHERE {OF_THE_DAYS} AND (%(after)s::uuid IS NULL OR project_id > %(after)s)
GROUP BY project_id ORDER BY project_id LIMIT %(limit)s
"""
BY_AGENT = f"""
SELECT agent, {SUMMED} FROM usage_day WHERE {OF_THE_DAYS} AND (%(after)s::text IS NULL OR agent > %(after)s)
GROUP BY agent ORDER BY agent LIMIT %(limit)s
"""
BY_TOOL = f"""
SELECT tool, {SUMMED} FROM usage_day WHERE {OF_THE_DAYS} AND (%(after)s::text IS NULL OR tool > %(after)s)
GROUP BY tool ORDER BY tool LIMIT %(limit)s
"""
BY_RUN = f"""
SELECT run_id, {SUMMED} FROM usage_run WHERE {FILTERS} AND (%(after)s::uuid IS NULL OR run_id < %(after)s)
AND (%(run)s::uuid IS NULL OR run_id = %(run)s)
GROUP BY run_id ORDER BY run_id DESC LIMIT %(limit)s
"""
_FIELDS = {"project": "project_id", "run": "run_id"}


class UsageQueries:
    """The port `UsageReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, tenant_id: UUID, wanted: UsageWanted) -> Positioned[Page[UsageView]]:
        parameters = {
            "tenant": tenant_id, "since": wanted.since, "until": wanted.until, "limit": wanted.limit + 1, "after": wanted.after,
            "agent": wanted.agent, "tool": wanted.tool, "run": wanted.run_id,
            "projects": None if wanted.projects is None else list(wanted.projects),
        }  # fmt: skip
        if wanted.by in ("day", "project"):
            sql = BY_DAY if wanted.by == "day" else BY_PROJECT
        elif wanted.by in ("agent", "tool"):
            sql = BY_AGENT if wanted.by == "agent" else BY_TOOL
        else:
            sql = BY_RUN
        async with reading(self._database, PROJECTION.name, tenant_id) as (connection, position):
            rows = await (await connection.execute(sql, parameters)).fetchall()
        data = [_view(wanted.by, row) for row in rows[: wanted.limit]]
        more = encode_cursor(str(rows[wanted.limit - 1][0])) if len(rows) > wanted.limit else None
        return Positioned(Page(data, more), position)


def _view(by: str, row: Sequence[Any]) -> UsageView:
    key, calls, money, tokens = row
    said = {} if key in ("", NOBODY) else {_FIELDS.get(by, by): key}
    return UsageView(calls=calls, money=money_text(money), tokens=tokens, **said)
