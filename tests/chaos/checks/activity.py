"""The sums of what goes on agree with the log. Counted here from whole streams, not event by event as the read model does it."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

from domain import agent_runs, invocations, runs
from tests.chaos.checks.snapshot import Fact, Row, Snapshot, Violation

KINDS = {runs.RunStarted: "run", agent_runs.AgentRunRequested: "agent", invocations.InvocationRequested: "tool"}
ENDS = (
    runs.RunCompleted, runs.RunFailed, runs.RunCancelled,
    agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled,
    invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationResolved, invocations.InvocationCancelled,
)  # fmt: skip
STATES = {
    runs.RunStarted: "running",
    agent_runs.AgentRunRequested: "waiting",
    agent_runs.AgentRunResumed: "waiting",
    agent_runs.AgentRunClaimed: "running",
    agent_runs.AgentRunRetryScheduled: "retrying",
    agent_runs.AgentRunSuspended: "suspended",
    invocations.InvocationRequested: "waiting",
    invocations.InvocationHeld: "held",
    invocations.InvocationReleased: "waiting",
    invocations.InvocationRequeued: "waiting",
    invocations.AttemptStarted: "running",
    invocations.InvocationRetryScheduled: "retrying",
    invocations.InvocationBecameAmbiguous: "ambiguous",
    invocations.InvocationReconcileRequested: "waiting",
    invocations.InvocationReconcileStarted: "running",
    invocations.InvocationReconcileFailed: "retrying",
}


def check_activity(snapshot: Snapshot) -> Iterator[Violation]:
    streams: defaultdict[UUID, list[Fact]] = defaultdict(list)
    for fact in snapshot.until("activity"):
        streams[fact.recorded.stream_id].append(fact)
    told: dict[UUID, str] = {}
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for stream_id, facts in streams.items():
        begins = [fact for fact in facts if type(fact.event) in KINDS]  # mail may be there before the agent run is requested
        if not begins:
            continue
        kind = KINDS[type(begins[0].event)]
        sums[kind]["started"] += 1
        ends = [fact for fact in facts if isinstance(fact.event, ENDS)]
        if ends:
            sums[kind]["ended"] += 1
            took = ends[0].recorded.recorded_at - begins[0].recorded.recorded_at
            sums[kind]["microseconds"] += took // timedelta(microseconds=1)
        else:
            told[stream_id] = [STATES[type(fact.event)] for fact in facts if type(fact.event) in STATES][-1]
            sums[kind][told[stream_id]] += 1
    rows = {row["id"]: row["state"] for row in snapshot.tables["activity"]}
    for id in told.keys() | rows.keys():
        if told.get(id) != rows.get(id):
            yield Violation("row-equals-events", f"activity {id}", f"is {rows.get(id)}, the log says {told.get(id)}")
    for kind, counted in sums.items():
        found = Counter[str]()
        for row in snapshot.tables["activity_total"]:
            found.update(_sums_of(row) if row["kind"] == kind else {})
        if +found != +counted:
            yield Violation("row-equals-events", f"activity_total of {kind}", f"is {+found}, the log says {+counted}")


def _sums_of(row: Row) -> dict[str, int]:
    numbers = {name: int(row[name]) for name in ("started", "microseconds", *STATES.values())}
    return {**numbers, "ended": sum(row[name] for name in ("completed", "degraded", "failed", "cancelled"))}
