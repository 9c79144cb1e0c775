"""A server whose answers hold what a terminal would obey."""

import json
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import UUID

import orjson

from application.engine.reading.cloudevents import CloudEventEncoder
from domain import runs
from domain.agent_runs import AgentRunClaimed, AgentRunCompleted, CallStarted, StepRecorded
from domain.agents import AgentRegistered
from domain.compensations import EffectRecorded, EffectSkipped
from domain.context import ContextValueSet
from domain.failures import Failure, Retry
from domain.invocations import AttemptStarted, InvocationBecameAmbiguous, InvocationRequested
from domain.kernel import Event, RecordedEvent
from domain.messages import MessageSent
from domain.registry import REGISTRY
from projections import invocations
from projections.runs import replay

HOSTILE = "\x1b[31mRED\x1b]0;pwned\x07\u202eevil\r\nFAKE LINE\n\u2028FAKE LINE\u200b\x9b1m\x7f [bold] :smile: \\"
RUN, AGENT_RUN, CALL, PROJECT, MESSAGE, KEY = (UUID(int=(0x0198C0DE << 96) | (7 << 76) | (2 << 62) | n) for n in range(6))
FAILURE = Failure(type="Error", message=HOSTILE, kind="permanent")


def recorded(*events: tuple[UUID, Event]) -> list[RecordedEvent]:
    versions: dict[UUID, int] = {}
    found = []
    for position, (stream, event) in enumerate(events, 1):
        versions[stream] = versions.get(stream, 0) + 1
        metadata = json.dumps(dict.fromkeys(("actor", "on_behalf_of", "correlation_id", "causation_id"), HOSTILE))
        at = datetime(2026, 1, 31, 12, 0, position, tzinfo=UTC)
        state = REGISTRY.encode(event)
        found.append(
            RecordedEvent(position, PROJECT, stream, versions[stream], RUN, event.TOPIC, event.VERSION, state, metadata, at)
        )
    return found


EVENTS = recorded(
    (RUN, runs.RunStarted(project_id=PROJECT, plan=runs.sequential(("writer",)), input=HOSTILE, metadata={"m": HOSTILE})),
    (RUN, runs.StepScheduled(step="writer", agent="writer", agent_version=HOSTILE, agent_run_id=AGENT_RUN)),
    (AGENT_RUN, AgentRunClaimed(attempt=1, worker_id=HOSTILE, dispatch=1)),
    (AGENT_RUN, StepRecorded(attempt=1, key=HOSTILE, kind="step", result={HOSTILE: HOSTILE})),
    (PROJECT, ContextValueSet(run_id=RUN, agent_run_id=AGENT_RUN, name="mood", value=HOSTILE, value_version=1)),
    (
        MESSAGE,
        MessageSent(
            run_id=RUN, agent_run_id=AGENT_RUN, key="k", sender="writer", recipient="writer", sender_id=AGENT_RUN,
            recipient_id=AGENT_RUN, body=HOSTILE,
        ),
    ),
    (AGENT_RUN, CallStarted(attempt=1, key=HOSTILE, tool="mail", invocation_id=CALL)),
    (
        CALL,
        InvocationRequested(
            run_id=RUN, agent_run_id=AGENT_RUN, key=HOSTILE, tool="mail", arguments={HOSTILE: HOSTILE}, timeout_s=1.0,
            idempotent=False, retry=Retry(),
        ),
    ),
    (CALL, AttemptStarted(attempt=1, worker_id=HOSTILE, dispatch=1)),
    (
        PROJECT,
        EffectRecorded(number=1, invocation_id=CALL, key=HOSTILE, tool=HOSTILE, compensated_by=HOSTILE),
    ),
    (PROJECT, EffectSkipped(number=1, invocation_id=CALL, reason=HOSTILE, by=HOSTILE)),
    (CALL, InvocationBecameAmbiguous(attempt=1, worker_id=HOSTILE)),
    (AGENT_RUN, AgentRunCompleted(run_id=RUN, step="writer", attempt=1, result=HOSTILE)),
    (RUN, runs.StepFailed(step="writer", agent_run_id=AGENT_RUN, error=FAILURE, tolerated=False)),
    (RUN, runs.RunFailed(step="writer", error=FAILURE)),
    (RUN, runs.RunCancelled(reason=HOSTILE)),
)  # fmt: skip
AGENT = AgentRegistered(
    name="writer", version="1", description=HOSTILE, capabilities=(), input_schema={}, output_schema={}
)  # fmt: skip


REGISTERED = {"revision": 1, "registered_at": "2026-01-31T12:00:00Z"}


def answers() -> dict[str, Any]:
    """Path → document."""
    sent = [orjson.loads(CloudEventEncoder(REGISTRY.events).encode(event)) for event in EVENTS]
    view = replay(EVENTS)
    assert view is not None
    run = {**view.model_dump(mode="json"), "result": view.result, "missing": [HOSTILE]}
    run["steps"][0] |= {
        "why": {"condition": HOSTILE, "value": HOSTILE, "saw": {HOSTILE: HOSTILE}}, "input": HOSTILE, "waits_until": HOSTILE,
        "fallbacks": [{"number": 1, "agent": HOSTILE, "error": FAILURE.model_dump(mode="json"), "at": HOSTILE}],
    }  # fmt: skip
    run["workflow"] = {"name": HOSTILE, "version": 1}
    run["origin"] = {"kind": HOSTILE, "name": HOSTILE, "due_at": HOSTILE, "event": HOSTILE}
    call = invocations.replay([event for event in EVENTS if event.stream_id == CALL])
    assert call is not None
    call_document = call.model_dump(mode="json") | {"tool": HOSTILE, "worker_id": HOSTILE}
    job = {
        "kind": "rebuild", "status": "failed", "progress": 1.0, "rate": 1.0, "eta_s": 1.0, "rows": 1, "error": HOSTILE,
        "swap": True, "earlier_rows": 1, "updated_at": "2026-01-31T12:00:00Z", "position": 1,
        "difference": {"what": "column", "table": HOSTILE, "key": {HOSTILE: HOSTILE}, "column": HOSTILE, "position": 1,
                       "live": HOSTILE, "log": HOSTILE},
    }  # fmt: skip
    view_document = {
        "name": "runs", "position": 1, "lag": 0, "parked": 1, "build": job, "check": job, "previous": None, "plugin": HOSTILE,
        "parked_roots": [],
    }  # fmt: skip
    parked = {"root_id": str(RUN), "position": 1, "topic": HOSTILE, "error": HOSTILE, "since": "2026-01-31T12:00:00Z"}
    result = {"root_id": str(RUN), "events": 0, "error": HOSTILE}
    summary = {
        "run_id": str(RUN), "project_id": str(PROJECT), "status": HOSTILE, "degraded": True, "agents": [HOSTILE],
        "created_at": "2026-01-31T12:00:00Z", "finished_at": None, "position": 1, "event_count": 1,
    }  # fmt: skip
    problem = {"entry_point": HOSTILE, "distribution": HOSTILE, "error": HOSTILE}
    message = {
        "sender": HOSTILE, "recipient": HOSTILE, "body": HOSTILE, "status": "refused", "refused": HOSTILE, "position": 1,
        "sent_at": "2026-01-31T12:00:00Z",
    }  # fmt: skip
    logged = {
        "line": 1, "at": "2026-01-31T12:00:00Z", "level": HOSTILE, "step": HOSTILE, "agent": HOSTILE, "tool": HOSTILE,
        "text": HOSTILE, "invocation_id": str(CALL), "attempt": 1, "dropped": None,
    }  # fmt: skip
    started = {
        **run["steps"][0]["calls"][0], "tool": HOSTILE, "step": HOSTILE, "agent_run_id": str(AGENT_RUN), "position": 7,
    }  # fmt: skip
    entry = {
        "position": 4, "at": "2026-01-31T12:00:00Z", "step": HOSTILE, "agent_run_id": str(AGENT_RUN), "attempt": 1, "key": HOSTILE,
        "kind": HOSTILE, "result": {HOSTILE: HOSTILE}, "large": None, "tool": None, "invocation_id": None, "succeeded": None,
        "message_id": None,
    }  # fmt: skip
    project = {
        "project_id": str(PROJECT), "name": HOSTILE, "metadata": {HOSTILE: HOSTILE}, "created_at": "2026-01-31T12:00:00Z",
    }  # fmt: skip
    key = {
        "key_id": str(KEY), "label": HOSTILE, "role": HOSTILE, "status": HOSTILE, "issued_at": HOSTILE, "expires_at": HOSTILE,
        "rotated_to": HOSTILE, "revoked_at": HOSTILE, "revoke_reason": HOSTILE, "last_used_at": HOSTILE,
    }  # fmt: skip
    audited = dict.fromkeys(
        ("actor", "on_behalf_of", "action", "operation", "target_kind", "target_id", "reason", "address", "result", "code"), HOSTILE
    )
    audited |= {"entry_id": str(RUN), "position": 1, "recorded_at": "2026-01-31T12:00:00Z", "kind": "action", "count": 1}
    effect = {
        "number": 1, "invocation_id": HOSTILE, "key": HOSTILE, "tool": HOSTILE, "status": HOSTILE, "unknown": True,
        "compensated_by": HOSTILE, "error": FAILURE.model_dump(mode="json"), "reason": HOSTILE, "by": HOSTILE,
    }  # fmt: skip
    compensation = {
        "run_id": str(RUN), "status": HOSTILE, "effects": 2, "compensated": 0, "failed": 1, "skipped": 1, "needs_person": True,
        "waits_for": [{"invocation_id": HOSTILE, "status": HOSTILE}], "data": [effect], "next_cursor": None,
    }  # fmt: skip
    blob = {"sha256": HOSTILE, "size": 1, "type": HOSTILE, "made_at": HOSTILE, "made_by": HOSTILE}
    return {
        "/v1/blobs": {"data": [blob], "next_cursor": None, "blobs": 1, "bytes": 1, "max_bytes": 2},
        f"/v1/blobs/{'0' * 64}/details": {**blob, "referred_by": [HOSTILE]},
        f"/v1/runs/{RUN}/compensation": compensation,
        "/v1/audit": [audited],
        "/v1/audit/export": audited,
        "/v1/keys": [key],
        f"/v1/keys/{KEY}": key,
        "/v1/runs": [summary],
        f"/v1/runs/{RUN}/messages": [message],
        f"/v1/runs/{RUN}/logs": [logged, {**logged, "line": None, "step": None, "dropped": 1}],
        f"/v1/runs/{RUN}/calls": [started],
        f"/v1/runs/{RUN}/journal": [entry, {**entry, "tool": HOSTILE, "invocation_id": str(CALL)}],
        "/v1/projects": [project],
        f"/v1/runs/{RUN}": run,
        f"/v1/runs/{RUN}/events": sent,
        "/v1/events": sent,
        "/v1/events/3": sent[3],
        "/v1/events/3/causes": {
            "data": [
                {
                    "event": {"position": 3, "type": HOSTILE, "step": HOSTILE, "call": HOSTILE, "text": HOSTILE, "part": 0},
                    "by": "request",
                    "request": {"actor": HOSTILE, "on_behalf_of": HOSTILE, "command_id": HOSTILE, "trace_id": HOSTILE},
                }
            ],
            "next": 2,
        },
        "/v1/agents": [
            AGENT.model_dump(mode="json") | {"version": HOSTILE, "capabilities": [HOSTILE], "name": HOSTILE} | REGISTERED
        ],
        "/v1/workers": [
            {
                "worker_id": HOSTILE,
                "session_id": str(RUN),
                "since": HOSTILE,
                "seen_at": HOSTILE,
                "release": HOSTILE,
                "agents": [{"name": HOSTILE, "version": HOSTILE}],
                "tools": None,
                "agent_runs": 1,
                "calls": 0,
            }
        ],
        "/v1/workers/problems": [
            {"worker_id": HOSTILE, "reported_at": HOSTILE, "path": HOSTILE, "kind": HOSTILE, "message": HOSTILE},
        ],
        "/v1/tools": [
            {
                "name": HOSTILE,
                "version": HOSTILE,
                "revision": 1,
                "description": HOSTILE,
                "capabilities": [HOSTILE],
                "parameters": {"properties": {HOSTILE: {"title": HOSTILE}}},
                "idempotent": False,
                "timeout_s": 1.0,
                "max_attempts": 1,
                "registered_at": "2026-01-31T12:00:00Z",
                "kind": HOSTILE,
                "needs_services": [HOSTILE],
                "request": {HOSTILE: HOSTILE},
                "examples": [{"arguments": {HOSTILE: HOSTILE}}],
                "deprecated": {"since": "2026-01-31T12:00:00Z", "replaced_by": HOSTILE, "note": HOSTILE},
            }
        ],
        "POST /v1/commands": {"data": [summary], "next_cursor": HOSTILE},
        "/v1/commands": [SLASH],
        "/v1/commands/flow": SLASH | {"definition": SAYS},
        "/v1/workflows": [FLOW],
        "/v1/workflows/flow": FLOW | {"definition": SAYS, "draft": {"definition": SAYS, "drafted_by": HOSTILE}},
        "/v1/workflows/flow/versions": [FLOW_VERSION],
        "/v1/workflows/flow/versions/1": FLOW_VERSION | {"definition": SAYS},
        "/v1/workflows/flow/diff": {
            "name": HOSTILE,
            "from": HOSTILE,
            "to": HOSTILE,
            "differences": [{"pointer": HOSTILE, "kind": HOSTILE, "step": HOSTILE, "before": SAYS, "after": HOSTILE}],
        },
        "/v1/plans:check": {
            "valid": False,
            "faults": [{"pointer": HOSTILE, "detail": HOSTILE, "cure": HOSTILE}],
            "warnings": [{"pointer": HOSTILE, "detail": HOSTILE, "cure": HOSTILE}],
            "steps": 1,
            "agents": [{"name": HOSTILE, "version": HOSTILE, "capabilities": [HOSTILE]}],
        },
        "/v1/breakers": [BREAKER],
        "/v1/schedules": [SCHEDULE],
        "POST /v1/schedules": SCHEDULE | {"position": 1},
        "/v1/schedules/nightly": SCHEDULE,
        "/v1/schedules:preview": {"times": [{"due_at": HOSTILE, "starts_at": HOSTILE, "local": HOSTILE}]},
        "/v1/schedules/nightly/pause": {"position": 1, "name": HOSTILE},
        "/v1/schedules/nightly/resume": {"position": 1, "name": HOSTILE},
        "/v1/schedules/nightly/run-now": {"run_id": HOSTILE},
        "/v1/tools/mail/breaker": BREAKER | {"policy": {HOSTILE: HOSTILE}, "counts": {"calls": 1, "failures": 1, "in_a_row": 1}},
        "/v1/tools/mail/versions": [
            {
                "name": HOSTILE,
                "version": HOSTILE,
                "parameters": {"properties": {HOSTILE: {}}},
                "pinned": True,
                "registered_at": HOSTILE,
                "last_registered_at": HOSTILE,
            }
        ],
        "/v1/tools/mail/validate": {
            "valid": False,
            "errors": [{"pointer": HOSTILE, "detail": HOSTILE}],
            "warning": HOSTILE,
        },
        "/v1/tools/mail/calls": {"invocation_id": str(CALL), "warning": HOSTILE, "invocation": call_document},
        "/v1/approvals": [APPROVAL],
        f"/v1/approvals/{CALL}": APPROVAL,
        f"POST /v1/approvals/{CALL}/decision": {"approval_id": HOSTILE, "status": HOSTILE, "position": 1, "version": 2},
        "/v1/approval-policies": {"data": [POLICY]},
        "/v1/approval-policies/odd": {"data": [POLICY]},
        "POST /v1/approval-policies/odd": {"name": HOSTILE, "policy_version": 3, "position": 1, "version": 3},
        "/v1/triggers": [TRIGGER],
        "/v1/triggers/odd": TRIGGER,
        "/v1/triggers/odd/firings": [FIRING, {**FIRING, "run_id": None}],
        "/v1/triggers:dry-run": {
            "events": 1,
            "fired": 0,
            "misfired": 1,
            "reached": 1,
            "until": 1,
            "next_cursor": None,
            "examples": [{"event": HOSTILE, "position": 1, "type": HOSTILE, "at": HOSTILE, "code": HOSTILE, "error": HOSTILE}],
        },
        "/v1/triggers/odd/rotate": {"name": HOSTILE, "hook_path": HOSTILE, "secret": HOSTILE},
        "/v1/invocations": [call_document],
        f"/v1/invocations/{CALL}": call_document,
        "/v1/projections": {"data": [view_document], "problems": [problem]},
        "/v1/projections/runs": view_document,
        "/v1/projections/runs/parked": [parked],
        "/v1/projections/sagas/parked": [parked],
        "/v1/projections/runs/retry": {"data": [result], "more": False},
        "/v1/projections/runs/verify": view_document,
    }


FLOW = {
    "name": HOSTILE, "version": 1, "description": HOSTILE, "has_draft": True, "stream_version": 2,
    "deprecated": {"since": "2026-01-31T12:00:00Z", "reason": HOSTILE},
}  # fmt: skip
SLASH = {
    "name": HOSTILE, "help": HOSTILE, "kind": HOSTILE, "source": HOSTILE, "workflow_version": 1, "text": HOSTILE,
    "parameters": {"properties": {HOSTILE: {"description": HOSTILE, "default": HOSTILE, "enum": [HOSTILE]}}},
}  # fmt: skip
FLOW_VERSION = {
    "name": HOSTILE, "version": 1, "note": HOSTILE, "reverted_from": 1, "published_by": HOSTILE,
    "deprecated": {"since": "2026-01-31T12:00:00Z", "reason": HOSTILE},
}  # fmt: skip
SAYS = {"description": HOSTILE, HOSTILE: [HOSTILE, HOSTILE * 9], "plan": {"steps": [{"key": HOSTILE, "agent": HOSTILE}]}}
POLICY = {
    "name": HOSTILE, "version": 1, "description": HOSTILE, "project_id": HOSTILE, "by": HOSTILE, "at": HOSTILE, "reason": HOSTILE,
    "rules": [{"tools": [HOSTILE], "when": HOSTILE, "roles": [HOSTILE], "four_eyes": True, "deadline_s": 5, "default": HOSTILE}],
}  # fmt: skip
APPROVAL = {
    "approval_id": HOSTILE, "status": "open", "tool": HOSTILE, "tool_version": HOSTILE, "run_id": HOSTILE, "invocation_id": HOSTILE,
    "key": HOSTILE, "on_behalf_of": HOSTILE, "arguments_hash": HOSTILE, "roles": [HOSTILE], "needed": 2, "approvals": 1,
    "four_eyes": True, "tainted": True, "requested_at": HOSTILE, "deadline_at": HOSTILE, "default": HOSTILE, "expired": True,
    "because": [{"policy": HOSTILE, "version": 1, "expression": HOSTILE, "saw": {HOSTILE: HOSTILE}, "error": HOSTILE}],
    "words": [
        {
            "decision": HOSTILE, "by": HOSTILE, "role": HOSTILE, "on_behalf_of": HOSTILE, "reason": HOSTILE, "at": HOSTILE,
            "changed": True, "counts": False,
        }
    ],
    "arguments": {HOSTILE: HOSTILE}, "asked_arguments": {HOSTILE: HOSTILE}, "may_decide": False, "why_not": HOSTILE,
    "large": {HOSTILE: {"bytes": 5, "ref": HOSTILE}},
}  # fmt: skip
TRIGGER = {
    "name": HOSTILE, "status": HOSTILE, "project_id": str(PROJECT), "description": HOSTILE, "on": {"topics": [HOSTILE]},
    "hook": None, "start": {"agent": HOSTILE}, "hook_path": HOSTILE, "because": HOSTILE, "reason": HOSTILE, "fired": 1,
    "misfired": 1, "limited": 0, "last_error": HOSTILE, "max_per_minute": 1, "max_depth": 1,
}  # fmt: skip
FIRING = {
    "at": HOSTILE, "position": 1, "kind": HOSTILE, "event": HOSTILE, "run_id": HOSTILE, "code": HOSTILE, "error": HOSTILE,
}  # fmt: skip
BREAKER = {
    "tool": HOSTILE, "state": HOSTILE, "since": "2026-01-31T12:00:00Z", "because": HOSTILE, "error": HOSTILE, "forced": HOSTILE,
    "by": HOSTILE, "on_behalf_of": HOSTILE, "reason": HOSTILE,
}  # fmt: skip


OUTCOME = {"what": HOSTILE, "due_at": HOSTILE, "at": HOSTILE, "run_id": HOSTILE, "reason": HOSTILE, "message": HOSTILE}
SCHEDULE = {
    "name": HOSTILE, "status": HOSTILE, "starts": HOSTILE, "when": {"cron": HOSTILE, "time_zone": HOSTILE}, "reason": HOSTILE,
    "description": HOSTILE, "next_at": HOSTILE, "waiting_at": HOSTILE, "start_at": HOSTILE, "created_by": HOSTILE,
    "on_behalf_of": HOSTILE, "project_id": HOSTILE, "catch_up": HOSTILE, "overlap": HOSTILE, "catch_up_s": 60,
    "start": {"input": HOSTILE, "input_from": {HOSTILE: HOSTILE}}, "next_times": [HOSTILE], "last": OUTCOME,
    "recent": [OUTCOME | {"what": what} for what in ("fired", "queued", "skipped", HOSTILE)],
}  # fmt: skip


class Hostile(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = answers().get(path)
        if "text/event-stream" in self.headers.get("accept", ""):
            self._send("text/event-stream", b"".join(_sse(event) for event in found or []) + b"id: 99\nevent: end\ndata: {}\n\n")
        elif found is None:
            self._refuse(404)
        elif isinstance(found, list):
            self._json({"data": found, "next_cursor": None})
        else:
            self._json(found)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        found = answers().get(f"POST {self.path}") or answers().get(self.path)
        taken = ("/v1/projections", "/v1/schedules", "/v1/tools/", "/v1/commands", "/v1/triggers", "/v1/approval")
        if self.path.startswith(taken) and found is not None:
            self._json(found)
        else:
            self._refuse(409)

    do_PUT = do_POST

    def do_DELETE(self) -> None:
        self._refuse(409)

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._refuse(409)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _refuse(self, status: int) -> None:
        errors = [{"pointer": HOSTILE, "detail": HOSTILE}] * 2
        self._json(
            {"type": "about:blank", "title": HOSTILE, "status": status, "code": "x", "detail": HOSTILE, "errors": errors}, status
        )

    def _json(self, document: object, status: int = 200) -> None:
        self._send("application/json" if status == 200 else "application/problem+json", json.dumps(document).encode(), status)

    def _send(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _sse(event: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event["position"], event["type"].encode(), json.dumps(event).encode())
