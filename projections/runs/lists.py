"""Lists of runs: columns of the header only. Of a run that is stored as a document, the document is read."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from application.engine.ports.pages import Page, encode_cursor
from application.reads import RunCounts, RunsWanted
from application.views.runs import DEGRADED, GOING_ON, OriginBrief, ParentBrief, RunSummary
from domain.runs import WorkflowRef
from projections.kernel import Connection, listed
from projections.moments import page_of_then
from projections.run_terms import terms_of
from projections.runs import documents, walks


def _workflow(text: str | None) -> WorkflowRef | None:
    """Of `name@version`. A name has no @."""
    if text is None:
        return None
    name, _, version = text.rpartition("@")
    return WorkflowRef(name=name, version=int(version))


def _origin(text: str | None) -> OriginBrief | None:
    """Of `kind:name`. A kind has no colon."""
    if text is None:
        return None
    kind, _, name = text.partition(":")
    return OriginBrief(kind=kind, name=name)


async def list_runs(connection: Connection, tenant_id: UUID, wanted: RunsWanted) -> Page[RunSummary]:
    """Newest first, by the time of the start; runs of the same time by id. Raises InvalidCommand if there is no run `before`."""
    terms = terms_of(tenant_id, wanted)
    walk = await walks.walk_of(connection, tenant_id, wanted)
    if not terms and (wanted.unmoved_s, wanted.longer_s, wanted.shorter_s) == (None, None, None):
        rows = await walks.page(connection, walk)
        data = [summary_of(row) for row in rows[: wanted.limit]]
        return Page(data, encode_cursor(str(data[-1].run_id)) if len(rows) > wanted.limit else None)
    then = walks.NOW | {"unmoved": wanted.unmoved_s, "longer": wanted.longer_s, "shorter": wanted.shorter_s}
    found, last = await walks.looked(connection, walk, terms, then, status=walk["status"])
    return page_of_then([summary_of(row) for row in found], wanted.limit, lambda run: run.run_id, last)


async def count_runs(connection: Connection, tenant_id: UUID, wanted: RunsWanted) -> RunCounts:
    """By status, up to a number each. With terms, of the newest runs that one page looks at."""
    open_only = wanted.unmoved_s is not None  # what has ended does not move any more
    wanted = wanted._replace(status=None, statuses=sorted(GOING_ON) if open_only else (), before=None)
    terms = terms_of(tenant_id, wanted)
    walk = await walks.walk_of(connection, tenant_id, wanted)
    if not terms and (wanted.unmoved_s, wanted.longer_s, wanted.shorter_s) == (None, None, None):
        counts = await walks.counted(connection, walk)
        more = frozenset(status for status, count in counts.items() if count > walks.COUNTED)
        return RunCounts({status: min(count, walks.COUNTED) for status, count in counts.items()}, more)
    then = walks.NOW | {"unmoved": wanted.unmoved_s, "longer": wanted.longer_s, "shorter": wanted.shorter_s}
    found, last = await walks.looked(connection, {**walk, "limit": walks.LOOKED_AT + 1}, terms, then, status=walk["status"])
    counts = dict.fromkeys(walks.STATUSES, 0)
    for run in map(summary_of, found):
        counts[run.status] += 1
        counts[DEGRADED] += run.degraded
    return RunCounts(counts, frozenset(walks.STATUSES if last is not None else ()))


def summary_of(row: Sequence[Any]) -> RunSummary:
    run_id, project_id, status, degraded, position, created_at, agents, missing, priority, finished_at, event_count, retries, *_ = (
        row
    )
    actor, on_behalf_of, parent_id, workflow, origin, document = row[-6:]
    if document is None:
        return RunSummary(
            run_id=run_id, project_id=project_id, status=status, degraded=degraded, missing=missing.split(" ") if missing else [],
            priority=priority, agents=agents.split(" ") if agents else [], created_at=created_at, finished_at=finished_at,
            position=position, event_count=event_count, retries=retries or 0, actor=actor, on_behalf_of=on_behalf_of,
            parent=None if parent_id is None else ParentBrief(run_id=parent_id), workflow=_workflow(workflow),
            origin=_origin(origin),
        )  # fmt: skip

    def mark() -> RunSummary:
        return RunSummary(
            run_id=run_id, project_id=project_id, status=status, degraded=degraded, agents=[], created_at=created_at,
            finished_at=None, position=position, event_count=0, unreadable=True,
        )  # fmt: skip

    return listed("run", run_id, lambda: documents.summary(document), mark)
