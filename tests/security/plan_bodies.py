"""Plans as bodies have them, with a value at every place."""

from typing import Any

STEPS: list[dict[str, Any]] = [
    {"key": "second", "after": ["first"], "agent": "own", "agent_version": "1", "input": 1},
    {"key": "first", "agent": "own"},
    {
        "key": "third",
        "agent": "own",
        "when": "true",
        "input_from": {"a": "input"},
        "each": {"over": "[1]"},
        "fallbacks": [{"agent": "own", "agent_version": "1"}],
        "priority": "low",
    },
    {"key": "fourth", "agent": "own", "input_from": "input", "repeat": {"times": 1, "until": "true"}},
    {"key": "fifth", "agent": "own", "adaptive": {"agents": [{"agent": "own", "agent_version": "1"}]}},
    {"key": "sixth", "run": {"plan": {"steps": [{"key": "a", "value": "1"}]}, "versions_asked": ["a"], "defaults": {}}},
    {"key": "seventh", "gather": {"mode": "first_good", "good": "true"}, "after": ["first"]},
    {"key": "eighth", "gather": {"mode": "vote", "by": "result"}, "after": ["first"]},
    {"key": "ninth", "value": "1"},
    {"key": "tenth", "wait": {"until": "input"}},
]
PLANS: list[dict[str, Any]] = [
    {"steps": STEPS},
    {"steps": [{"key": "first", "capability": "own"}]},
    {"steps": [{"key": "first", "run": {"workflow": "own_flow"}}]},
]
SIDE_BY_SIDE: list[dict[str, Any]] = [
    {"kind": "sequential", "agents": ["own"]},
    {"kind": "parallel", "agents": ["own"], "aggregator": "own"},
    {"kind": "parallel", "agents": ["own"], "aggregate": {"mode": "first_good", "good": "true"}},
    {"kind": "parallel", "agents": ["own"], "aggregate": {"mode": "vote", "by": "result"}},
]
GRAPHS = [{"kind": "graph", **plan, "result": "steps.first.result"} for plan in PLANS]
