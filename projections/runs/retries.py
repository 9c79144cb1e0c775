"""What a retry, another priority, and the wait for a key, do to a run as people see it: part of the fold (`fold.py`, which says
what runs, parts and counts are)."""

from typing import Any

from domain import runs
from domain.kernel import RecordedEvent
from projections.kernel import decoded


def on_retry(run: Any, parts: Any, event: runs.RunRetried, recorded: RecordedEvent) -> None:
    """The run goes on. Steps that did not end, or run again, are as if they had not begun. Other events tell what begins now."""
    run.status, run.degraded, run.missing, run.finished_at, run.retries = "running", False, [], None, event.number
    if event.was != "running":
        run.deadline_at = None
    parts.forget_end(run)
    for step in parts.open_steps():
        if step.status == "cancelled":
            step.status, step.finished_at = "pending", None
    for key in (*event.steps, *event.reset):
        step = parts.step(key, None)
        step.status, step.started_at, step.finished_at = "pending", None, None
        parts.forget_step(step, recorded)


def uncount(counts: Any, status: str) -> None:
    """A part that has ended begins once more."""
    counts.completed -= status == "completed"
    counts.failed -= status == "failed"
    counts.cancelled -= status == "cancelled"


def on_key(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    """A run may be paused while it waits for its key. It is shown as queued then, and as paused from its turn on."""
    if recorded.topic == runs.RunQueued.TOPIC:
        run.status = "queued"
    elif run.status == "queued":
        run.status = "paused" if parts.is_paused(run) else "running"


def on_priority(run: Any, parts: Any, recorded: RecordedEvent) -> None:
    run.priority = decoded(recorded).priority
