"""Lists of runs as of a position of the log.

The order of runs, their tenants, projects and agents never change. The status of a run changes when the run ends, when it gets its
key, with its pauses, and with its retries. So the rows of the present give the list of any earlier position. A row whose last event
is at or before the position is as it was. Of other rows the log says how many events each run had, whether the run had ended,
whether it was queued or paused, and which priority its next change has found. The times of the rows answer the second question for
most runs, because the log's times never decrease. Events of the same time, as those of one append, differ in their positions.

Of a run that was retried, the log says how it had ended last, or that it went on. No index has the statuses of then, so where a
tenant has such runs, a list of one status looks at its runs of every status.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.ports.pages import Page
from application.reads import RunsWanted
from application.views.runs import DEGRADED, GOING_ON, RunStatus, RunSummary
from domain.errors import InvalidCommand, PayloadTooLarge
from domain.registry import REGISTRY
from domain.runs import (
    ENDS,
    RunBegun,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunPauseLifted,
    RunPriorityChanged,
    RunQueued,
    RunResumed,
    RunRetried,
)
from projections import moments
from projections.kernel import Connection
from projections.moments import TimedPosition, moment_of, page_of_then
from projections.run_terms import terms_of
from projections.runs import walks
from projections.runs.lists import summary_of

TURNS = [event.TOPIC for event in (RunQueued, RunBegun, RunRetried)]
PAUSES = [event.TOPIC for event in (RunPaused, RunPauseLifted, RunResumed)]
THEN = """
SELECT u.run_id, counted.events, counted.last, u.asked AND EXISTS (
    SELECT FROM event AS e
    WHERE e.originator_id = u.run_id AND e.tenant_id = %(tenant)s AND e.notification_id <= %(position)s AND e.topic = ANY (%(ends)s)
), coalesce((
    SELECT e.topic <> %(resumed)s FROM event AS e
    WHERE e.originator_id = u.run_id AND e.tenant_id = %(tenant)s AND e.notification_id <= %(position)s
        AND e.topic = ANY (%(pauses)s)
    ORDER BY e.originator_version DESC LIMIT 1
), false), coalesce((
    SELECT e.topic = %(queued)s FROM event AS e
    WHERE e.originator_id = u.run_id AND e.tenant_id = %(tenant)s AND e.notification_id <= %(position)s
        AND e.topic = ANY (%(turns)s)
    ORDER BY e.originator_version DESC LIMIT 1
), false), next.schema_version, next.state
FROM unnest(%(runs)s::uuid[], %(asked)s::boolean[]) AS u (run_id, asked)
CROSS JOIN LATERAL (
    SELECT count(*) AS events, max(e.notification_id) AS last FROM event AS e
    WHERE e.root_id = u.run_id AND e.notification_id <= %(position)s AND e.tenant_id IS NOT DISTINCT FROM %(tenant)s
) AS counted
LEFT JOIN LATERAL (
    SELECT e.schema_version, e.state FROM event AS e
    WHERE e.originator_id = u.run_id AND e.tenant_id = %(tenant)s AND e.notification_id > %(position)s AND e.topic = %(priority)s
    ORDER BY e.originator_version LIMIT 1
) AS next ON true
"""

# What the runs were told last about their end.
LAST_END = """
SELECT u.run_id, e.topic, e.schema_version, e.state, e.recorded_at, (
    SELECT count(*) FROM event
    WHERE originator_id = u.run_id AND tenant_id = %(tenant)s AND notification_id <= %(position)s AND topic = 'run.retried'
) FROM unnest(%(retried)s::uuid[]) AS u (run_id)
CROSS JOIN LATERAL (
    SELECT topic, schema_version, state, recorded_at FROM event
    WHERE originator_id = u.run_id AND tenant_id = %(tenant)s AND notification_id <= %(position)s AND topic = ANY (%(ends)s)
    ORDER BY originator_version DESC LIMIT 1
) AS e
"""
HAS_RETRIED = "SELECT EXISTS (SELECT FROM run WHERE tenant_id = %s AND retries IS NOT NULL)"
HOW_LONG = "how long a run has gone on is told of now"
OF_NOW = {
    "error": "runs are found by the errors that they have now",
    "unmoved_s": "how long nothing has happened to a run is told of now",
}
STATUSES: dict[str, RunStatus] = {RunCompleted.TOPIC: "completed", RunFailed.TOPIC: "failed", RunCancelled.TOPIC: "cancelled"}


async def list_runs_as_of(connection: Connection, tenant_id: UUID, position: int, wanted: RunsWanted) -> Page[RunSummary]:
    """The list as the read model had it at a position that it has reached. A page before the last one may be short.

    Raises InvalidCommand if there is no run `before`, and for the filter `error`; PayloadTooLarge.
    """
    if (name := wanted.of_now) is not None:
        raise InvalidCommand(f"{name} cannot be combined with as_of: {OF_NOW.get(name, HOW_LONG)}", pointer=f"/{name}")
    terms, status = terms_of(tenant_id, wanted), wanted.status
    statuses = wanted.statuses or ([] if status is None else [status])
    moment = await moment_of(connection, position)
    if moment is None:
        return Page([], None)
    walk = await walks.walk_of(connection, tenant_id, wanted, end=moment.time + timedelta(microseconds=1))
    any_status = bool(statuses) and await _has_retried(connection, tenant_id)
    ended = bool(statuses) and not {*statuses} & GOING_ON and not any_status
    running = bool(statuses) and {*statuses} <= GOING_ON
    at = walks.NOW | {"position": position, "time": moment.time, "running": running, "ended": ended}
    found, last = await walks.looked(connection, walk, terms, at, status=walk["status"] if ended else None)
    then = await _summaries(connection, tenant_id, moment, found)
    shown = [run for run in then if not statuses or run.status in statuses or (run.degraded and DEGRADED in statuses)]
    return page_of_then(shown, wanted.limit, lambda run: run.run_id, last)


async def _has_retried(connection: Connection, tenant_id: UUID) -> bool:
    found = await (await connection.execute(HAS_RETRIED, [tenant_id])).fetchone()
    return found is not None and bool(found[0])


async def _summaries(
    connection: Connection, tenant_id: UUID, moment: TimedPosition, rows: Collection[Sequence[Any]]
) -> list[RunSummary]:
    """The runs of the rows as they were, without those that had not started. Raises PayloadTooLarge."""
    runs = [_Run(summary_of(row), exact=row[-1] is None) for row in rows]
    changed = [run for run in runs if run.now.position > moment.position]
    if sum(run.now.event_count for run in changed) > moments.MAX_EVENTS:
        raise PayloadTooLarge(f"the runs of the page have more than {moments.MAX_EVENTS:,} events; ask for fewer runs with `limit`")
    parameters = {
        "tenant": tenant_id, "position": moment.position, "ends": list(ENDS), "pauses": PAUSES,
        "resumed": RunResumed.TOPIC, "queued": RunQueued.TOPIC, "turns": TURNS, "priority": RunPriorityChanged.TOPIC,
        "runs": [run.now.run_id for run in changed],
        "asked": [run.had_ended(moment) is None for run in changed],
    }  # fmt: skip
    found = await (await connection.execute(THEN, parameters)).fetchall() if changed else []
    then = {run_id: _Then(*values) for run_id, *values in found}
    if retried := [run.now.run_id for run in changed if run.now.retries]:
        parameters |= {"retried": retried, "ends": [*ENDS, RunRetried.TOPIC]}
        for run_id, *told in await (await connection.execute(LAST_END, parameters)).fetchall():
            then[run_id] = then[run_id]._replace(retries=told[-1], end=_end_of(*told[:-1]))
    summaries = [run.at(moment, then.get(run.now.run_id)) for run in runs]
    return [summary for summary in summaries if summary is not None]


def _end_of(topic: str, version: int, state: bytes, at: datetime) -> dict[str, Any] | None:
    """How a run that was retried had ended. None: it went on after a retry."""
    if topic == RunRetried.TOPIC:
        return None
    event = REGISTRY.decode(topic, version, bytes(state))
    told = {"degraded": event.degraded, "missing": list(event.missing)} if isinstance(event, RunCompleted) else {}
    return {"status": STATUSES[topic], "degraded": False, "missing": [], "finished_at": at, **told}


class _Then(NamedTuple):
    """What the log has of a run at a position."""

    events: int
    last: int | None
    ended: bool
    """Whether the run had ended, if that was asked."""
    paused: bool
    """Whether the run was paused, if it had not ended."""
    queued: bool
    """Whether the run waited for its key, if it had not ended."""
    changed_version: int | None
    """Schema and state of the next change of priority. None: there is none."""
    changed: bytes | None
    retries: int = 0
    end: dict[str, Any] | None = None
    """Of a run that was retried since it began: how it had ended. None: it had not, or it went on."""


def _priority_of(then: _Then) -> dict[str, Any]:
    if then.changed_version is None or then.changed is None:
        return {}
    event = REGISTRY.decode(RunPriorityChanged.TOPIC, then.changed_version, bytes(then.changed))
    return {"priority": event.before} if isinstance(event, RunPriorityChanged) else {}


class _Run(NamedTuple):
    now: RunSummary
    exact: bool
    """Whether the times are those of the log. In documents they are cut to milliseconds."""

    def had_ended(self, moment: TimedPosition) -> bool | None:
        """Whether the run had ended. None: the times do not tell."""
        if self.now.retries:
            return None
        if self.now.status in GOING_ON:
            return False
        if not self.exact or self.now.finished_at is None or self.now.finished_at == moment.time:
            return None
        return self.now.finished_at < moment.time

    def at(self, moment: TimedPosition, then: _Then | None) -> RunSummary | None:
        """The run as it was. `then`: of a run that has changed since. None: the run had not started."""
        if then is None:
            return self.now
        if not then.events:
            return None
        ended, priority = self.had_ended(moment), _priority_of(then)
        open_: dict[str, Any] = {
            "status": "queued" if then.queued else "paused" if then.paused else "running",
            "degraded": False,
            "missing": [],
            "finished_at": None,
        }
        if self.now.retries:
            told = {"retries": then.retries, **(then.end or open_), **priority}
            return self.now.model_copy(update={"position": then.last, "event_count": then.events, **told})
        changes = priority | ({} if (then.ended if ended is None else ended) else open_)
        return self.now.model_copy(update={"position": then.last, "event_count": then.events, **changes})
