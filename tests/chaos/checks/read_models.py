"""Read models: each table agrees with the log up to the checkpoint of its projection."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from application.engine.sagas.manager import PARTITIONS
from application.triggers.matcher import CHECKPOINT
from application.views.runs import FIRST_PARTS, NEWEST_CALLS, RunView
from domain import agent_runs, agents, invocations, messages, projects, tenants, tools
from domain.kernel import Metadata, RecordedEvent, timestamp
from projections import runs, timers, work
from projections.kernel import decoded
from projections.registry import PROJECTIONS
from projections.runs import documents
from projections.runs.queries import Kept, assembled, positions_of
from projections.runs.tables import CallRow, PartRow, RunRow, StepRow
from tests.chaos.checks.activity import check_activity
from tests.chaos.checks.snapshot import Fact, Row, Snapshot, Violation

CONSUMERS = frozenset({*PARTITIONS, CHECKPOINT, *(projection.name for projection in PROJECTIONS)})
FIRING_TAKES = timedelta(seconds=2)
"""Seconds for which a timer of a settled system may stay in the table after its due time."""


def check_read_models(snapshot: Snapshot, *, settled: bool) -> Iterator[Violation]:
    """`settled`: every consumer has had the time to reach the head."""
    if settled:
        yield from _consumers(snapshot)
    yield from _runs(snapshot)
    for table, key, expected in (
        ("tenant", "tenant_id", _tenants),
        ("api_key", "key_id", _api_keys),
        ("project", "project_id", _projects),
        ("agent", "agent_id", _agents),
        ("tool", "tool_id", _tools),
        ("message", "message_id", _messages),
        ("invocation", "invocation_id", _invocations),
        ("open_work", "work_id", _open_work),
    ):
        yield from _compare(snapshot, table, key, expected)
    yield from _timers(snapshot, settled=settled)
    yield from check_activity(snapshot)


def _consumers(snapshot: Snapshot) -> Iterator[Violation]:
    for name in sorted(CONSUMERS | snapshot.checkpoints.keys()):
        reached = snapshot.checkpoints.get(name)
        if reached != snapshot.head:
            yield Violation("checkpoint-at-head", name, f"at {reached}, head {snapshot.head}")
    for row in snapshot.parked:
        yield Violation("nothing-parked", f"{row['consumer']} at position {row['position']}", f"{row['topic']}: {row['error']}")


def _runs(snapshot: Snapshot) -> Iterator[Violation]:
    reached = snapshot.checkpoints.get("runs", 0)
    inside: defaultdict[UUID, list[RecordedEvent]] = defaultdict(list)
    for event in snapshot.events:
        if event.topic in runs.INSIDE_RUNS and event.position <= reached:
            inside[event.root_id].append(event)
    rows = {row["run_id"]: row for row in snapshot.tables["run"]}
    steps, parts, calls = (_by_run(snapshot.tables[name]) for name in ("run_step", "run_part", "run_call"))
    at = {event.position: event for event in snapshot.events}
    for run_id in rows.keys() - inside.keys():
        yield Violation("row-has-events", f"run {run_id}", "the log knows nothing of it")
    damaged = {recorded.root_id for recorded, _ in snapshot.undecodable}  # the check of the log reports this
    for run_id, events in inside.items():
        if run_id in damaged:
            continue
        view, row = runs.replay(events), rows.get(run_id)
        if view is None or row is None:
            if (view is None) != (row is None):
                yield Violation("row-equals-replay", f"run {run_id}", f"row: {row is not None}, replay: {view is not None}")
            continue
        columns = {name: row[name] for name in ("tenant_id", "project_id", "status", "position", "created_at")}
        told = {
            "tenant_id": events[0].tenant_id, "project_id": view.project_id, "status": view.status,
            "position": events[-1].position, "created_at": view.created_at,
        }  # fmt: skip
        try:
            shown = _shown(row, steps[run_id], parts[run_id], calls[run_id], at)
            shown.actor, shown.on_behalf_of = view.actor, view.on_behalf_of  # no row has them: queries ask the log
        except (AttributeError, KeyError, ValueError) as error:
            yield Violation("row-equals-replay", f"run {run_id}", f"a row names an event that does not have its value: {error!r}")
            continue
        yield from _differences("row-equals-replay", f"run {run_id}", columns, told)
        yield from _differences("row-equals-replay", f"run {run_id}", shown.model_dump(mode="json"), view.model_dump(mode="json"))


def _by_run(rows: list[Row]) -> defaultdict[UUID, list[Row]]:
    found: defaultdict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["run_id"]].append(row)
    return found


def _shown(row: Row, steps: list[Row], parts: list[Row], calls: list[Row], at: dict[int, RecordedEvent]) -> RunView:
    """The run as its query puts it together."""
    columns = dict(row)
    document, missing, retries = columns.pop("view"), columns.pop("missing"), columns.pop("retries")
    if document is not None:
        return documents.shown(document)
    run = RunRow(**columns, missing_keys=missing, stored_retries=retries)
    of_steps = [StepRow(**{"stored_form" if name == "form" else name: value for name, value in step.items()}) for step in steps]
    of_parts, of_calls = [PartRow(**part) for part in parts], [CallRow(**call) for call in calls]
    newest = sorted(of_calls, key=lambda call: call.position)[-NEWEST_CALLS:]
    named = {position: at[position] for position in positions_of(run, of_steps, newest)}
    kept = {n: Kept(decoded(event), event.recorded_at, n, len(event.state), event.metadata) for n, event in named.items()}
    first = [part for part in of_parts if 0 <= part.number < FIRST_PARTS]
    return assembled(run, of_steps, newest, kept, first)


def _compare(snapshot: Snapshot, table: str, key: str, expected: Callable[[Snapshot], dict[UUID, Row]]) -> Iterator[Violation]:
    told = expected(snapshot)
    rows = {row[key]: {name: value for name, value in row.items() if name != key} for row in snapshot.tables[table]}
    for missing in told.keys() - rows.keys():
        yield Violation("row-is-there", f"{table} {missing}", f"the log says {told[missing]}")
    for surplus in rows.keys() - told.keys():
        yield Violation("row-has-events", f"{table} {surplus}", f"the log does not know of {rows[surplus]}")
    for shared in told.keys() & rows.keys():
        yield from _differences("row-equals-events", f"{table} {shared}", rows[shared], told[shared])


def _differences(rule: str, subject: str, row: Row, told: Row) -> Iterator[Violation]:
    for name in sorted(row.keys() | told.keys()):
        if row.get(name) != told.get(name):
            yield Violation(rule, subject, f"{name} is {row.get(name)!r}, the log says {told.get(name)!r}")


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _tenants(snapshot: Snapshot) -> dict[UUID, Row]:
    return {
        fact.recorded.stream_id: {"name": fact.event.name, "created_at": fact.recorded.recorded_at}
        for fact in snapshot.until("tenants")
        if isinstance(fact.event, tenants.TenantCreated)
    }


def _api_keys(snapshot: Snapshot) -> dict[UUID, Row]:
    keys: dict[UUID, Row] = {}
    for fact in snapshot.until("tenants"):
        match fact.event:
            case tenants.ApiKeyIssued(
                key_id=key_id, label=label, sha256=sha256, role=role, expires_at=expires_at, projects=projects
            ):
                keys[key_id] = {
                    "tenant_id": fact.recorded.tenant_id, "sha256": sha256, "label": label, "role": role.value,
                    "issued_at": fact.recorded.recorded_at, "expires_at": expires_at, "rotated_to": None, "revoked_at": None,
                    "revoke_reason": None, "projects": None if projects is None else list(projects),
                }  # fmt: skip
            case tenants.ApiKeyRotated(key_id=key_id, rotated_to=rotated_to, expires_at=expires_at):
                keys[key_id] |= {"rotated_to": rotated_to, "expires_at": expires_at}
            case tenants.ApiKeyRevoked(key_id=key_id, reason=reason):
                keys[key_id] |= {"revoked_at": fact.recorded.recorded_at, "revoke_reason": reason}
    return keys


def _projects(snapshot: Snapshot) -> dict[UUID, Row]:
    return {
        fact.recorded.stream_id: {
            "tenant_id": fact.recorded.tenant_id, "name": fact.event.name, "metadata": _text(fact.event.metadata),
            "created_at": fact.recorded.recorded_at,
        }
        for fact in snapshot.until("projects")
        if isinstance(fact.event, projects.ProjectCreated)
    }  # fmt: skip


def _agents(snapshot: Snapshot) -> dict[UUID, Row]:
    return {
        fact.recorded.stream_id: {
            "tenant_id": fact.recorded.tenant_id, "name": fact.event.name, "version": fact.event.version,
            "revision": fact.recorded.version, "description": fact.event.description,
            "capabilities": list(fact.event.capabilities), "input_schema": _text(fact.event.input_schema),
            "output_schema": _text(fact.event.output_schema), "registered_at": fact.recorded.recorded_at,
        }
        for fact in snapshot.until("agents")
        if isinstance(fact.event, agents.AgentRegistered)
    }  # fmt: skip


def _tools(snapshot: Snapshot) -> dict[UUID, Row]:
    rows: dict[UUID, Row] = {}
    for fact in snapshot.until("tools"):
        recorded, tool_id = fact.recorded, fact.recorded.stream_id
        match fact.event:
            case tools.ToolRegistered() as declared:
                later = tools.later_fields_of(declared)
                rows[tool_id] = {
                    "tenant_id": recorded.tenant_id, "name": declared.name, "version": declared.version,
                    "revision": recorded.version, "description": declared.description,
                    "capabilities": list(declared.capabilities), "parameters": _text(declared.parameters),
                    "idempotent": declared.idempotent, "timeout_s": declared.timeout_s, "max_attempts": declared.max_attempts,
                    "registered_at": recorded.recorded_at, "more": _text(later) if later else None, "stream_version": None,
                    "deprecated": rows.get(tool_id, {}).get("deprecated"),
                }  # fmt: skip
            case tools.ToolDeprecated() as hint:
                said = {"since": timestamp(recorded.recorded_at), "replaced_by": hint.replaced_by, "note": hint.note}
                rows[tool_id] |= {"deprecated": _text(said), "stream_version": recorded.version}
            case tools.ToolReinstated():
                rows[tool_id] |= {"deprecated": None, "stream_version": recorded.version}
            case tools.ToolRemoved():
                del rows[tool_id]
    return rows


def _messages(snapshot: Snapshot) -> dict[UUID, Row]:
    rows: dict[UUID, Row] = {}
    for fact in snapshot.until("messages"):
        recorded = fact.recorded
        match fact.event:
            case messages.MessageSent() as sent:
                rows[recorded.stream_id] = {
                    "tenant_id": recorded.tenant_id, "run_id": sent.run_id, "sender": sent.sender, "recipient": sent.recipient,
                    "body": _text(sent.body), "position": recorded.position, "sent_at": sent.sent_at or recorded.recorded_at,
                    "delivered_at": None, "received_at": None, "refused": None,
                }  # fmt: skip
            case agent_runs.MailDelivered(message_id=message_id):
                rows[message_id]["delivered_at"] = recorded.recorded_at
            case agent_runs.MailRefused(message_id=message_id, reason=reason):
                rows[message_id]["refused"] = reason
            case agent_runs.MailReceived(message_id=message_id) if message_id is not None:
                rows[message_id]["received_at"] = recorded.recorded_at
    return rows


def _invocations(snapshot: Snapshot) -> dict[UUID, Row]:
    rows: dict[UUID, Row] = {}
    for fact in snapshot.until("invocations"):
        recorded = fact.recorded
        row, status = rows.get(recorded.stream_id, {}), ""
        match fact.event:
            case invocations.InvocationRequested() as asked:
                row = rows[recorded.stream_id] = {
                    "tenant_id": recorded.tenant_id, "run_id": asked.run_id, "agent_run_id": asked.agent_run_id,
                    "key": asked.key, "tool": asked.tool, "attempt": 0, "cancel_requested": False,
                    "asked_by": asked.asked_by, "cached_from": asked.cached_from, "cache_key": asked.cache_key,
                }  # fmt: skip
                status = "requested"
            case invocations.AttemptStarted(attempt=attempt):
                row["attempt"], status = attempt, "running"
            case invocations.InvocationRequeued(lapsed=int()) | invocations.InvocationRequeued(reason=str()):
                status = "requested"
            case invocations.InvocationResolved(outcome=outcome):
                status = outcome
            case invocations.InvocationCancelRequested():
                row["cancel_requested"] = True
            case other:
                status = CALL_STATUS.get(type(other), "")
        if status:
            row["status"], row["since"] = status, recorded.recorded_at
    return rows


CALL_STATUS: dict[type[Any], str] = {
    invocations.InvocationRetryScheduled: "retrying",
    invocations.InvocationSucceeded: "succeeded",
    invocations.InvocationFailed: "failed",
    invocations.InvocationBecameAmbiguous: "ambiguous",
    invocations.InvocationReconcileRequested: "reconciling",
    invocations.InvocationCancelled: "cancelled",
}


def _open_work(snapshot: Snapshot) -> dict[UUID, Row]:
    rows: dict[UUID, Row] = {}
    for fact in snapshot.until("work"):
        recorded = fact.recorded
        if recorded.topic in work.CLOSED:
            rows.pop(recorded.stream_id, None)
        elif recorded.topic in work.OPENED:
            if (item := work.opened(recorded)) is None:
                continue
            rows[recorded.stream_id] = {
                "tenant_id": item.tenant_id, "root_id": item.root_id, "kind": item.kind, "pool": item.pool,
                "dispatch": item.dispatch, "dispatched_at": recorded.recorded_at, "session_id": None, "attempt": None,
                "priority": item.priority,
            }  # fmt: skip
        elif recorded.topic in work.CLAIMED and recorded.stream_id in rows and (claim := work.claimed(recorded)) is not None:
            rows[recorded.stream_id] |= {"session_id": claim.session_id, "attempt": claim.attempt}
    return rows


def _timers(snapshot: Snapshot, *, settled: bool) -> Iterator[Violation]:
    """A timer is in the table until it fired or its agent run ended. A timer that fired had its effect."""
    told: dict[UUID, Row] = {}
    for fact in snapshot.until("timers"):
        recorded = fact.recorded
        if recorded.topic in timers.ENDS:
            told = {timer_id: row for timer_id, row in told.items() if row["stream_id"] != recorded.stream_id}
        elif (timer := timers.timer_of(recorded)) is not None:
            due_at, set_timer = timer
            told[set_timer.timer_id] = {
                "tenant_id": recorded.tenant_id, "root_id": recorded.root_id, "stream_id": recorded.stream_id, "due_at": due_at,
                "command": set_timer.command, "payload": set_timer.payload.decode(),
                "correlation_id": Metadata.model_validate_json(recorded.metadata).correlation_id, "cause": recorded.name,
            }  # fmt: skip
    left_out = {"timer_id", *timers.PROJECTION.not_of_the_log["timer"]}
    rows = {
        row["timer_id"]: {name: value for name, value in row.items() if name not in left_out} for row in snapshot.tables["timer"]
    }
    for surplus in rows.keys() - told.keys():
        yield Violation("row-has-events", f"timer {surplus}", f"the log does not know of {rows[surplus]}")
    streams = snapshot.streams("")
    for timer_id, row in told.items():
        if timer_id in rows:
            yield from _differences("row-equals-events", f"timer {timer_id}", rows[timer_id], row)
            if settled and row["due_at"] + FIRING_TAKES < snapshot.now:
                yield Violation("timer-fires", f"timer {timer_id}", f"{row['command']} was due at {row['due_at']}")
        elif row["due_at"] > snapshot.now:
            yield Violation("row-is-there", f"timer {timer_id}", f"the log says {row}")
        elif not _had_effect(streams[row["stream_id"]], row):
            yield Violation("timer-fires", f"timer {timer_id}", f"gone without {row['command']} having had an effect: {row}")


END_A_DOUBT: tuple[type[Any], ...] = (
    invocations.InvocationReconciled, invocations.InvocationBecameAmbiguous, invocations.InvocationCancelled,
    invocations.InvocationSucceeded, invocations.InvocationFailed, invocations.InvocationResolved,
    invocations.InvocationNotHappened,
)  # fmt: skip


def _had_effect(stream: list[Fact], timer: Row) -> bool:
    """Whether the timer's command is done, or the stream has moved past the command."""
    after = int(timer["cause"].rpartition(":")[2])
    kinds: dict[str, tuple[type[Any], ...]] = {
        "TimeOutAgentRun": (agent_runs.AgentRunCompleted, agent_runs.AgentRunFailed, agent_runs.AgentRunCancelled),
        "ResumeAgentRun": (agent_runs.AgentRunResumed,),
        "RequeueInvocation": (invocations.InvocationRequeued, invocations.InvocationCancelled),
        "GiveUpReconcile": END_A_DOUBT,
    }  # fmt: skip
    wanted = kinds[timer["command"]]
    if any(fact.recorded.version == after and isinstance(fact.event, invocations.InvocationReconcileFailed) for fact in stream):
        wanted = (invocations.InvocationReconcileRequested, *END_A_DOUBT)
    return any(isinstance(fact.event, wanted) for fact in stream if fact.recorded.version > after)
