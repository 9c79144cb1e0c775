"""What is going on: runs, agent runs and tool calls that have not ended, and sums by agent and by tool.

The sums are kept with the events, so nobody has to count. Labels of metrics must not come and go, because a counter must not fall.
So an agent or tool keeps its label once it has one, and agents and tools that come after the first `MAX_LABELS` share `OTHER`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from application.views import activity as views
from application.views.activity import BOUNDS_S, MAX_LABELS, OTHER, OUTCOMES, STATES, Activity, OpenRunCount, Outcome, State, Total
from domain import agent_runs, invocations, runs
from domain.kernel import RecordedEvent
from projections.engine.checkpoints import POSITION_OF
from projections.kernel import Connection, Database, Projection, decoded, in_turns, topics_of

BEGINS: dict[str, str] = {
    runs.RunStarted.TOPIC: "run", agent_runs.AgentRunRequested.TOPIC: "agent", invocations.InvocationRequested.TOPIC: "tool",
    runs.RunRetried.TOPIC: "run", agent_runs.AgentRunReopened.TOPIC: "agent",
}  # fmt: skip
BEGINS_AGAIN = topics_of(runs.RunRetried, agent_runs.AgentRunReopened)
"""What had ended begins once more. A run that is retried before its end goes on."""
TURNS: dict[str, State] = {
    agent_runs.AgentRunResumed.TOPIC: "waiting",
    agent_runs.AgentRunClaimed.TOPIC: "running",
    agent_runs.AgentRunRetryScheduled.TOPIC: "retrying",
    agent_runs.AgentRunPaused.TOPIC: "paused",
    agent_runs.AgentRunSuspended.TOPIC: "suspended",
    invocations.InvocationRequeued.TOPIC: "waiting",
    invocations.InvocationPaused.TOPIC: "paused",
    invocations.InvocationFellBack.TOPIC: "waiting",
    invocations.InvocationHeld.TOPIC: "held",
    invocations.InvocationReleased.TOPIC: "waiting",
    invocations.AttemptStarted.TOPIC: "running",
    invocations.InvocationRetryScheduled.TOPIC: "retrying",
    invocations.InvocationBecameAmbiguous.TOPIC: "ambiguous",
    invocations.InvocationReconcileRequested.TOPIC: "waiting",
    invocations.InvocationReconcileStarted.TOPIC: "running",
    invocations.InvocationReconcileFailed.TOPIC: "retrying",
}
"""Topic → the state that begins with an event of the topic."""
ENDS: dict[str, Outcome] = {
    runs.RunCompleted.TOPIC: "completed", runs.RunFailed.TOPIC: "failed", runs.RunCancelled.TOPIC: "cancelled",
    agent_runs.AgentRunCompleted.TOPIC: "completed", agent_runs.AgentRunFailed.TOPIC: "failed",
    agent_runs.AgentRunCancelled.TOPIC: "cancelled",
    invocations.InvocationSucceeded.TOPIC: "completed", invocations.InvocationFailed.TOPIC: "failed",
    invocations.InvocationResolved.TOPIC: "completed", invocations.InvocationCancelled.TOPIC: "cancelled",
}  # fmt: skip
MANY_OUTCOMES = topics_of(runs.RunCompleted, invocations.InvocationResolved)
"""The outcome stands in the event."""
RETRIES = topics_of(agent_runs.AgentRunRetryScheduled, invocations.InvocationRetryScheduled)

FIND = "SELECT id, tenant_id, kind, label, began_at, state, since FROM activity WHERE id = ANY (%s)"
LABELS = "SELECT kind, label FROM activity_total"
# A row of the sums is written with each batch, so it is looked up from behind: see `projections/engine/checkpoints.py`.
KNOWN_LABELS = """
SELECT wanted.kind, wanted.label FROM unnest(%s::text[], %s::text[]) AS wanted (kind, label)
CROSS JOIN LATERAL newest_activity_total(wanted.kind, wanted.label) AS newest
"""
FORGET = "DELETE FROM activity WHERE id = ANY (%s)"
KEEP = """
INSERT INTO activity (id, tenant_id, kind, label, began_at, state, since)
SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::timestamptz[], %b::text[], %b::timestamptz[])
ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, since = EXCLUDED.since
"""
SUMMED = """
(started, completed, degraded, failed, cancelled, retries, became_ambiguous,
 waiting, running, retrying, ambiguous, paused, held, suspended, microseconds, durations) = (
    t.started + EXCLUDED.started, t.completed + EXCLUDED.completed, t.degraded + EXCLUDED.degraded, t.failed + EXCLUDED.failed,
    t.cancelled + EXCLUDED.cancelled, t.retries + EXCLUDED.retries, t.became_ambiguous + EXCLUDED.became_ambiguous,
    t.waiting + EXCLUDED.waiting, t.running + EXCLUDED.running, t.retrying + EXCLUDED.retrying, t.ambiguous + EXCLUDED.ambiguous,
    t.paused + EXCLUDED.paused, t.held + EXCLUDED.held, t.suspended + EXCLUDED.suspended, t.microseconds + EXCLUDED.microseconds,
    (SELECT array_agg(one + other ORDER BY place)
     FROM unnest(t.durations, EXCLUDED.durations) WITH ORDINALITY AS sums (one, other, place)))
"""
# Rows are changed at their places. The insertion is for rows that are new, or that another session has moved meanwhile.
ADD = f"""
WITH wanted AS MATERIALIZED (
    SELECT kind, label, started, completed, degraded, failed, cancelled, retries, became_ambiguous, waiting, running, retrying,
           ambiguous, paused, held, suspended, microseconds, durations::bigint[] AS durations
    FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
                %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[],
                %b::bigint[], %b::text[])
        AS u (kind, label, started, completed, degraded, failed, cancelled, retries, became_ambiguous,
              waiting, running, retrying, ambiguous, paused, held, suspended, microseconds, durations)
), places AS MATERIALIZED (
    SELECT wanted.*, newest.place FROM wanted CROSS JOIN LATERAL newest_activity_total(wanted.kind, wanted.label) AS newest
), added AS (
    UPDATE activity_total AS t SET {SUMMED} FROM places AS excluded
    WHERE t.ctid = excluded.place AND (t.kind, t.label) = (excluded.kind, excluded.label)
    RETURNING t.kind, t.label
)
INSERT INTO activity_total AS t (kind, label, started, completed, degraded, failed, cancelled, retries, became_ambiguous,
                                 waiting, running, retrying, ambiguous, paused, held, suspended, microseconds, durations)
SELECT * FROM wanted WHERE (kind, label) NOT IN (SELECT kind, label FROM added)
ON CONFLICT (kind, label) DO UPDATE SET {SUMMED}
"""
# Where none is in a state, nothing is looked up. Otherwise each look-up is one entry of the index.
READ = """
SELECT t.kind, t.label, t.started, t.completed, t.degraded, t.failed, t.cancelled, t.retries, t.became_ambiguous,
       t.waiting, t.running, t.retrying, t.ambiguous, t.paused, t.held, t.suspended, t.microseconds, t.durations,
       (SELECT array_agg(CASE WHEN present.number > 0 THEN extract(epoch FROM now() - (
            SELECT since FROM activity AS a WHERE a.state = present.state AND a.kind = t.kind AND a.label = t.label
            ORDER BY since LIMIT 1))::float8 END ORDER BY place)
        FROM (VALUES (1, 'waiting', t.waiting), (2, 'retrying', t.retrying), (3, 'ambiguous', t.ambiguous), (4, 'paused', t.paused),
                     (5, 'held', t.held), (6, 'suspended', t.suspended)) AS present (place, state, number))
FROM activity_total AS t ORDER BY t.kind, t.label
"""

# A statement has one snapshot: the count is of the position. All runs are in one row of the sums.
OPEN = f"""
SELECT (SELECT running FROM newest_activity_total('run', '')), ({POSITION_OF})
"""
OPEN_OF_TENANTS = f"""
SELECT tenant_id, open, position FROM (SELECT max(position) AS position FROM ({POSITION_OF}) AS newest (position)) AS known
LEFT JOIN (SELECT tenant_id, count(*) AS open FROM activity WHERE kind = 'run' GROUP BY tenant_id) AS counted ON true
"""

# --- the fold ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Item:
    """A run, an agent run or a tool call that has not ended."""

    tenant_id: UUID
    kind: str
    label: str
    began_at: datetime
    state: State
    since: datetime


@dataclass(slots=True)
class Sums:
    """What a batch adds to one row of the sums."""

    started: int = 0
    ended: Counter[Outcome] = field(default_factory=Counter)
    retries: int = 0
    became_ambiguous: int = 0
    now: Counter[State] = field(default_factory=Counter)
    """Differences: an item that leaves a state counts -1 there."""
    microseconds: int = 0
    durations: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))


class Fold:
    """The items and sums that a batch changes."""

    def __init__(self, items: dict[UUID, Item], names: Mapping[UUID, tuple[str, str]], labels: set[tuple[str, str]]) -> None:
        """`items`: the items of the batch that began before. `names`: kind and name of those that begin in the batch.

        `labels`: kind and label of the rows of the sums. If each name has a row, those of the names are enough.
        """
        self.items = items
        self._names = names
        self.sums: dict[tuple[str, str], Sums] = {}
        self.changed: set[UUID] = set()
        """Ids of items that are to be written."""
        self.ended: set[UUID] = set()
        self._labels = labels
        self._known = Counter(kind for kind, label in labels if label != OTHER)

    def add(self, recorded: RecordedEvent) -> None:
        kind = BEGINS.get(recorded.topic)
        if kind is not None:
            if recorded.topic in BEGINS_AGAIN and recorded.stream_id in self.items:
                return
            self._begin(kind, recorded)
            return
        item = self.items.get(recorded.stream_id)
        if item is None:
            return  # it has ended before: a late outcome does not count twice
        sums = self.sums.setdefault((item.kind, item.label), Sums())
        if recorded.topic in TURNS:
            self._turn(recorded, item, sums, TURNS[recorded.topic])
        else:
            self._end(recorded, item, sums)

    def _begin(self, kind: str, recorded: RecordedEvent) -> None:
        label = self._label(recorded.stream_id)
        state: State = "running" if kind == "run" else "waiting"
        self.items[recorded.stream_id] = Item(recorded.tenant_id, kind, label, recorded.recorded_at, state, recorded.recorded_at)
        self.changed.add(recorded.stream_id)
        sums = self.sums.setdefault((kind, label), Sums())
        sums.started += 1
        sums.now[state] += 1

    def _label(self, stream_id: UUID) -> str:
        kind, name = self._names[stream_id]
        if (kind, name) in self._labels:
            return name
        if kind != "run" and self._known[kind] >= MAX_LABELS:
            return OTHER
        self._labels.add((kind, name))
        self._known[kind] += 1
        return name

    def _turn(self, recorded: RecordedEvent, item: Item, sums: Sums, state: State) -> None:
        sums.now[item.state] -= 1
        sums.now[state] += 1
        sums.retries += recorded.topic in RETRIES
        sums.became_ambiguous += state == "ambiguous"
        item.state, item.since = state, recorded.recorded_at
        self.changed.add(recorded.stream_id)

    def _end(self, recorded: RecordedEvent, item: Item, sums: Sums) -> None:
        del self.items[recorded.stream_id]
        self.changed.discard(recorded.stream_id)
        self.ended.add(recorded.stream_id)
        took = max((recorded.recorded_at - item.began_at) // timedelta(microseconds=1), 0)
        sums.now[item.state] -= 1
        sums.ended[_outcome(recorded)] += 1
        sums.microseconds += took
        sums.durations[bisect_left(BOUNDS_S, took / 1e6)] += 1


def _outcome(recorded: RecordedEvent) -> Outcome:
    if recorded.topic not in MANY_OUTCOMES:
        return ENDS[recorded.topic]
    match decoded(recorded):
        case runs.RunCompleted(degraded=True):
            return "degraded"
        case invocations.InvocationResolved(outcome="failed"):
            return "failed"
        case _:
            return ENDS[recorded.topic]


# --- rows -------------------------------------------------------------------------------------------------------------


def names_of(batch: Sequence[RecordedEvent]) -> dict[UUID, tuple[str, str]]:
    """Kind and name of the items that begin in a batch. The name is that of the agent or tool. A run has none."""
    begun = [(recorded, kind) for recorded in batch if (kind := BEGINS.get(recorded.topic)) is not None]
    return {recorded.stream_id: (kind, _name(kind, recorded)) for recorded, kind in begun}


def _name(kind: str, recorded: RecordedEvent) -> str:
    if kind == "run":
        return ""
    event = decoded(recorded)
    name: str = event.agent if kind == "agent" else event.tool
    return name


def _in_columns(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def apply(connection: Connection, batch: Sequence[RecordedEvent]) -> None:
    """At most two reads and three writes for a batch, whatever its size; one read more for a new name. What begins and ends in the
    batch makes no row.
    """
    names = names_of(batch)
    wanted = list({*names.values()})
    again = {recorded.stream_id for recorded in batch if recorded.topic in BEGINS_AGAIN}
    older = list(({recorded.stream_id for recorded in batch} - names.keys()) | again)
    # Both are sent before an answer is awaited: one round trip.
    finding = await connection.execute(FIND, [older]) if older else None
    naming = await connection.execute(KNOWN_LABELS, _in_columns(wanted)) if wanted else None
    found = await finding.fetchall() if finding is not None else []
    labels = {(kind, label) for kind, label in await naming.fetchall()} if naming is not None else set()
    if len(labels) < len(wanted):
        labels = {(kind, label) for kind, label in await (await connection.execute(LABELS)).fetchall()}
    fold = Fold({row[0]: Item(*row[1:]) for row in found}, names, labels)
    async for recorded in in_turns(batch):
        fold.add(recorded)
    if gone := [row[0] for row in found if row[0] in fold.ended]:
        await connection.execute(FORGET, [gone])
    if fold.changed:
        kept = [(id, fold.items[id]) for id in fold.changed]
        await connection.execute(
            KEEP,
            (
                [id for id, _ in kept], [i.tenant_id for _, i in kept], [i.kind for _, i in kept], [i.label for _, i in kept],
                [i.began_at for _, i in kept], [i.state for _, i in kept], [i.since for _, i in kept],
            ),
        )  # fmt: skip
    if fold.sums:
        await connection.execute(ADD, _columns(fold.sums))


def _columns(sums: dict[tuple[str, str], Sums]) -> list[list[object]]:
    rows = [
        (
            kind, label, s.started, *(s.ended[outcome] for outcome in OUTCOMES), s.retries, s.became_ambiguous,
            *(s.now[state] for state in STATES), s.microseconds, "{" + ",".join(map(str, s.durations)) + "}",
        )
        for (kind, label), s in sums.items()
    ]  # fmt: skip
    return _in_columns(rows)


PROJECTION = Projection("activity", frozenset({*BEGINS, *TURNS, *ENDS}), ("activity", "activity_total"), apply)

# --- queries ----------------------------------------------------------------------------------------------------------


class ActivityQueries:
    """The port `ActivityReads`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def now(self) -> Activity:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(READ)).fetchall()
        return Activity([_total(row) for row in rows])

    async def open_runs(self, *, by_tenant: bool) -> OpenRunCount:
        async with self._database.connection() as connection:
            rows = await (await connection.execute(OPEN_OF_TENANTS if by_tenant else OPEN, {"name": PROJECTION.name})).fetchall()
        if not by_tenant:
            [(total, position)] = rows
            return OpenRunCount(total or 0, {}, position or 0)
        of_tenants = {tenant_id: count for tenant_id, count, _ in rows if tenant_id is not None}
        return OpenRunCount(sum(of_tenants.values()), of_tenants, rows[0][2] or 0)


def _total(row: Sequence[Any]) -> Total:
    kind, label, started, *numbers = row[:16]
    microseconds, durations, ages = row[16:]
    return Total(
        kind=kind, label=label, started=started, ended=dict(zip(OUTCOMES, numbers[:4], strict=True)), retries=numbers[4],
        became_ambiguous=numbers[5], now=dict(zip(STATES, numbers[6:], strict=True)), seconds=microseconds / 1e6,
        durations=durations,
        oldest_s={state: max(age, 0.0) for state, age in zip(views.AGED, ages, strict=True) if age is not None},
    )  # fmt: skip
