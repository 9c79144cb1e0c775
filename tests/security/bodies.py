"""A valid body of one's own for each route that takes one, with values that stand for a new id and for a new name."""

from typing import Any

from tests.integration.budgets_kit import OF_BUDGETS
from tests.security.plan_bodies import GRAPHS, PLANS, SIDE_BY_SIDE, STEPS

NEW = "a new id"
NEW_NAME = "a new name"
FAILURE = {
    "type": "T", "message": "m", "file": "f", "traceback": "t",
    "causes": [{"relation": "cause", "type": "T", "message": "m", "file": "f"}],
}  # fmt: skip
FLOW = {
    "description": "own", "parameters": {"properties": {"own": {}}}, "metadata": {"team": "own"}, "concurrency": {"key": "own"},
    "command": {"text": "own", "help": "own", "agents": {"own": ["first"]}},
}  # fmt: skip
BUDGET: dict[str, Any] = {
    "money": "1", "calls": 9, "currency": "usd", "on_spent": "ask",
    "ask": {"add": {"money": "1", "calls": 1}, "roles": ["owner"]},
}  # fmt: skip
FLOWS = [{**FLOW, "plan": {**plan, "result": "1"}} for plan in PLANS]
FLOWS[0] |= {"budget": BUDGET}
RUN = {"run_id": NEW, "input": 1, "metadata": {"team": "own"}}
HASH = "0" * 64
REQUEST = {
    "method": "POST", "url": "https://example.com/{{city}}", "headers": {"x-from": "own"}, "query": {"of": "own"}, "body": {"a": 1},
    "auth": {"secret": "own"}, "pick": "/a", "idempotency_header": "idempotency-key",
}  # fmt: skip
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
DECLARATION = {
    "version": f"v{NEW}", "kind": "http", "description": "own", "capabilities": ["own"], "parameters": CITY, "result": {},
    "examples": [{"arguments": {"city": "own"}}], "needs_tools": ["own_http"], "needs_services": ["own"], "request": REQUEST,
    "policy": {"fallbacks": ["own"], "compensation": {"tool": "own", "arguments": {"city": "result"}}, "approval": "false",
               "max_cost": {"money": "1"}},
}  # fmt: skip
BUILTIN = {"version": f"v{NEW}", "kind": "builtin", "parameters": {"type": "object"}, "builtin": "time.now"}
CHAIN = {
    "version": f"v{NEW}", "kind": "chain", "parameters": {"type": "object"},
    "chain": {
        "steps": [{"name": "one", "tool": "own_http", "arguments": {"city": "'own'"}, "when": "true"}], "result": "steps.one",
    },
}  # fmt: skip
START = {"input": {"a": 1}, "input_from": {"due": "due_at"}, "metadata": {"team": "own"}, "concurrency": {"key": "own"}}
CHANGE: dict[str, Any] = {
    "when": {"cron": "0 0 1 1 *", "time_zone": "Europe/Berlin"}, "start_at": "2099-01-01T00:00:00Z",
    "end_at": "2199-01-01T00:00:00Z", "description": "own",
}  # fmt: skip
SCHEDULE: dict[str, Any] = {**CHANGE, "start": {**START, "agent": "own"}, "project_id": "{project_id}"}
ON = {"topics": ["project.removed"], "slices": ["projects"], "project_id": "{project_id}", "when": "false"}
PLAN = {"steps": [{"key": "own", "agent": "own"}]}
STARTS: list[dict[str, Any]] = [
    {"agent": "own", "agent_version": "1", "input": {"a": 1}, "input_from": {"b": "event.subject"}, "metadata": {"team": "own"}},
    {"agent": "own", "input_from": "event.subject"},
    {"workflow": "own", "version": 1, "concurrency": {"key": "own"}, "budget": BUDGET},
    {"plan": PLAN},
    {"tool": "own_tool"},
    {"signal": {"run": "'own'", "name": "own", "step": "own"}},
]
TRIGGERS: list[dict[str, Any]] = [
    *({"description": "own", "on": ON, "start": start, "project_id": "{project_id}"} for start in STARTS),
    {"hook": {"scheme": "token", "headers": ["x-own"], "when": "false"}, "start": STARTS[1] | {"input_from": "body"}},
]
BULK: dict[str, Any] = {
    "status": ["running"], "project_id": "{project_id}", "agent": "own", "workflow": "own", "actor": "own", "on_behalf_of": "own",
    "metadata": {"team": "own"}, "started_after": "2099-01-01T00:00:00Z", "started_before": "2199-01-01T00:00:00Z",
    "parent": "{run_id}", "origin": "own",
}  # fmt: skip
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/runs": [
        {**RUN, "agent": "own", "project_id": "{project_id}", "budget": BUDGET},
        {**RUN, "agent": "own", "concurrency": {"key": "own"}},
        *({**RUN, "plan": plan} for plan in (*SIDE_BY_SIDE, *GRAPHS)),
        {**RUN, "workflow": {"name": "own_flow"}},
    ],
    **OF_BUDGETS,
    "/v1/sessions": [{"key": "own"}, {"link": "own"}],
    "/v1/sessions/links": [{}],
    "/v1/runs/{run_id}/cancel": [{"reason": "why"}],
    "/v1/runs/{run_id}/pause": [{"reason": "why"}],
    "/v1/runs/{run_id}/priority": [{"priority": "high", "reason": "why"}],
    "/v1/runs/{run_id}/resume": [{"reason": "why"}],
    "/v1/runs/{run_id}/steps/{step}/skip": [{"reason": "why"}],
    "/v1/runs/{run_id}/steps/{step}/force": [
        {"result": 1, "reason": "why"},
        {"error": FAILURE, "reason": "why"},
    ],
    "/v1/runs/{run_id}/steps/{step}/dispatch": [{"invocation_id": "{invocation_id}", "reason": "why"}],
    "/v1/runs/{run_id}/deadline": [{"deadline_s": 60, "reason": "why"}, {"deadline_s": None, "reason": "why"}],
    "/v1/runs/{run_id}/retry": [{"reason": "why"}, {"steps": ["first"], "reason": "why", "versions": {"first": "1"}}],
    "/v1/runs/{run_id}/signals": [{"name": "go", "payload": {"a": 1}, "id": "one", "reason": "why"}, {"name": "go", "step": "a"}],
    "/v1/runs/{run_id}/fork": [
        {"at": {"before": "own"}, "reason": "why", "input": 1, "metadata": {"a": "b"}, "run_id": NEW},
        {"at": {"position": 1}, "agents": {"own": "own@1"}},
        {"at": {"step": "own"}, "plan": SIDE_BY_SIDE[0]},
        *({"plan": plan} for plan in (*SIDE_BY_SIDE[1:], *GRAPHS)),
    ],
    "/v1/bulk-actions": [
        {"action": "pause", "filter": {**BULK, "error": "own", "unmoved_s": 1}, "reason": "why", "dry_run": True},
        {"action": "signal", "filter": BULK, "reason": "why", "signal": {"name": "go", "payload": {"a": 1}, "step": "own"}},
        {"action": "cancel", "filter": BULK, "reason": "why", "compensate": False},
    ],
    "/v1/bulk-actions/{bulk_action_id}/cancel": [{"reason": "why"}],
    "/v1/runs/{run_id}/compensation": [{"reason": "why"}],
    "/v1/runs/{run_id}/compensation/resume": [{"skip": ["{invocation_id}"], "reason": "why"}],
    "/v1/approvals/{approval_id}/decision": [
        {"decision": "deny", "reason": "why", "arguments": {"own": 1}, "arguments_hash": "own", "add": {"money": "1", "calls": 1}},
    ],
    "/v1/approval-policies/{name}": [
        {
            "description": "own",
            "project_id": "{project_id}",
            "rules": [{"tools": ["own"], "when": "false"}],
            "reason": "why",
        },
        {
            "rules": [{"tools": ["own"], "when": "false"}],
            "notices": [
                {
                    "about": ["own"],
                    "after_s": 5,
                    "tool": "own",
                    "arguments": {"a": "b"},
                    "to": [{"key": "{key_id}", "address": "a@b"}],
                }
            ],
        },
    ],
    "/v1/plans:check": [{"plan": {"steps": STEPS}}, {"workflow": {"plan": {"steps": STEPS}, "parameters": CITY}}],
    "/v1/schedules": [
        {**SCHEDULE, "name": NEW_NAME, "start": {**START, "agent": "own@1"}},
        {**SCHEDULE, "name": NEW_NAME, "when": {"every_s": 86400, "anchored_at": "2099-01-01T00:00:00Z"}},
        {**SCHEDULE, "name": NEW_NAME, "when": {"at": "2099-01-01T00:00:00Z"}, "start": {"workflow": "own"}},
    ],
    "/v1/schedules:preview": [
        {
            "name": "own",
            "when": SCHEDULE["when"],
            "start_at": SCHEDULE["start_at"],
            "end_at": SCHEDULE["end_at"],
            "after": "2099-01-01T00:00:00Z",
        },
        {"when": {"every_s": 86400, "anchored_at": "2099-01-01T00:00:00Z"}},
        {"when": {"at": "2099-01-01T00:00:00Z"}},
    ],
    "/v1/schedules/{name}": [
        {**CHANGE, "start": {**START, "agent": "own@1"}},
        {**CHANGE, "when": {"every_s": 86400, "anchored_at": "2099-01-01T00:00:00Z"}},
        {**CHANGE, "when": {"at": "2099-01-01T00:00:00Z"}, "start": {"workflow": "own"}},
    ],
    "/v1/schedules/{name}/pause": [{"reason": "why"}],
    "/v1/schedules/{name}/resume": [{"reason": "why"}],
    "/v1/schedules/{name}/run-now": [{}],
    "/v1/projects": [{"name": "own", "metadata": {"team": "own"}}],
    "/v1/keys": [
        {"label": "own", "role": "auditor", "expires_at": "2099-01-01T00:00:00Z"},
        {"label": "own", "role": "auditor", "key_id": NEW, "sha256": HASH, "projects": ["{project_id}"]},
    ],
    "/v1/keys/{key_id}/rotate": [{"expires_at": "2099-01-01T00:00:00Z"}, {"key_id": NEW, "sha256": HASH}],
    "/v1/keys/{key_id}/revoke": [{"reason": "why"}],
    "/v1/agent-runs/{agent_run_id}/complete": [{"attempt": 1, "result": 1, "unused_keys": ["a"]}],
    "/v1/agent-runs/{agent_run_id}/fail": [{"attempt": 1, "error": FAILURE}],
    "/v1/invocations/{invocation_id}/complete": [{"attempt": 1, "result": 1}],
    "/v1/invocations/{invocation_id}/fail": [{"attempt": 1, "error": FAILURE}],
    "/v1/invocations/{invocation_id}/resolve": [
        {"reason": "why", "evidence": 1, "result": 1},
        {"reason": "why", "error": FAILURE},
    ],
    "/v1/tools": [{**DECLARATION, "name": NEW_NAME}, {**BUILTIN, "name": NEW_NAME}, {**CHAIN, "name": NEW_NAME}],
    "/v1/tools/{name}": [{"deprecated": True, "replaced_by": "own_http", "note": "own"}],
    "/v1/tools/{name}/versions": [DECLARATION, BUILTIN, CHAIN],
    "/v1/tools/{name}/breaker": [{"state": "auto", "reason": "why"}],
    "/v1/tools/{name}/validate": [{"arguments": {"city": "own"}}, {"declaration": DECLARATION}],
    "/v1/tools/{name}/calls": [{"arguments": {"city": "own"}}, {"arguments": {"city": "own"}, "key": "own"}],
    "/v1/tools/{name}/calls:batch": [{"calls": [{"arguments": {"city": "own"}, "key": f"own {NEW}"}]}],
    "/v1/workflows": [{**flow, "name": NEW_NAME, "note": "own"} for flow in FLOWS],
    "/v1/workflows/{name}/draft": FLOWS,
    "/v1/workflows/{name}/publish": [{"note": "own"}],
    "/v1/workflows/{name}/revert": [{"version": 1, "note": "own"}],
    "/v1/workflows/{name}/deprecate": [{"version": 1, "reason": "own"}],
    "/v1/workflows/{name}/reinstate": [{"version": 1}],
    "/v1/commands": [{"text": "/own_flow own=1", "project_id": "{project_id}", "run_id": NEW, "dry_run": False}],
    "/v1/invocations/{invocation_id}/cancel": [{"reason": "why"}],
    "/v1/triggers": [{**trigger, "name": NEW_NAME} for trigger in TRIGGERS],
    "/v1/triggers/{name}": TRIGGERS,
    "/v1/triggers/{name}/pause": [{"reason": "why"}],
    "/v1/triggers/{name}/resume": [{}],
    "/v1/triggers/{name}/rotate": [{"overlap_s": 1}],
    "/v1/triggers:dry-run": [
        {"name": "own", "since": "2026-01-01T00:00:00Z", "cursor": "own"},
        *({"definition": trigger, "since": "2026-01-01T00:00:00Z", "cursor": "own"} for trigger in TRIGGERS),
    ],
    "/v1/projections/{name}/rebuild": [{}],
    "/v1/projections/{name}/rollback": [{}],
    "/v1/projections/{name}/verify": [{}],
    "/v1/projections/{name}/swap": [{}],
    "/v1/projections/{name}/cancel": [{"purpose": "check"}],
    "/v1/projections/{name}/retry": [{"root_id": "{run_id}"}],
}
"""Valid bodies of each operation. Together they have every place for a text."""
for _start in STARTS:
    BODIES["/v1/schedules"].append({**SCHEDULE, "name": NEW_NAME, "start": _start})
    BODIES["/v1/schedules/{name}"].append({**CHANGE, "start": _start})
