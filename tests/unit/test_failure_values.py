"""Failures as values: failures of earlier events stay readable, and a failure's texts and causes are bounded."""

import json

import pytest
from pydantic import ValidationError

from domain.failures import MAX_CAUSES, MAX_TRACEBACK, Cause, Failure
from domain.registry import REGISTRY

OLD = {"type": "HTTPError", "message": '503\n  File "a.py", line 1, in f', "kind": "transient", "retry_after_s": 2.5}
ID = "01920000-0000-7000-8000-000000000003"
STORED = {
    "run.step_failed": {"step": "a", "agent_run_id": ID, "error": OLD, "tolerated": True},
    "run.failed": {"step": "a", "error": OLD, "abandoned": [ID]},
    "agent_run.failed": {"run_id": ID, "step": "a", "error": OLD, "abandoned": [ID]},
    "agent_run.retry_scheduled": {"attempt": 2, "error": OLD, "delay_s": 2.5, "dispatch": 2},
    "invocation.failed": {"agent_run_id": ID, "key": "k", "attempt": 2, "error": OLD},
    "invocation.retry_scheduled": {"attempt": 1, "error": OLD, "delay_s": 2.5, "dispatch": 2},
    "invocation.resolved": {
        "agent_run_id": ID, "key": "k", "attempt": 1, "outcome": "failed", "result": None, "error": OLD, "by": "key:x",
        "reason": "seen", "evidence": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("topic", STORED)
def test_a_failure_recorded_without_place_and_causes_is_readable(topic: str) -> None:
    event = REGISTRY.decode(topic, 1, json.dumps(STORED[topic]).encode())
    assert getattr(event, "error", None) == Failure(**OLD)


def test_texts_and_causes_are_bounded() -> None:
    with pytest.raises(ValidationError):
        Failure(type="E", message="m", traceback="x" * (MAX_TRACEBACK + 1))
    cause = Cause(relation="cause", type="E", message="m")
    with pytest.raises(ValidationError):
        Failure(type="E", message="m", causes=(cause,) * (MAX_CAUSES + 1))
    assert Failure(type="E", message="m", traceback="x" * MAX_TRACEBACK, causes=(cause,) * MAX_CAUSES).line is None
