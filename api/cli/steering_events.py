"""Words of events of people who steer a run: pauses, priorities; and of keys of runs."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from api.cli.phrases import Mood, who

Told = tuple[str, str, Mood] | None
Event = Mapping[str, Any]
RUN = "run"


def paused_because(cause: Mapping[str, Any]) -> str:
    """Who paused a run and why, as `by key:… because: the prices look wrong`. Also of `pause` of a run."""
    above = f" with run {cause['parent_id']}" if cause.get("parent_id") else ""
    by = f" by {who(cause)}" if cause.get("by") else ""
    why = f" because: {cause['reason']}" if cause.get("reason") else ""
    return f"{above}{by}{why}"


def dispatched_by(data: Mapping[str, Any]) -> str | None:
    """Who wanted work to be dispatched again, and why. None: nobody did."""
    if data.get("reason") != "person":
        return None
    return f"dispatched again by {who(data)} because: {data['because']}"


def _paused(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"paused{paused_because(data['cause'])}", "warning"


def _lifted(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"one pause was ended{paused_because(data['cause'])}; it is still paused{paused_because(data['left'])}", "warning"


def _resumed(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"resumed{paused_because(data['cause'])}", "plain"


def _priority_changed(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"priority {data['priority']} instead of {data['before']}{paused_because(data['cause'])}", "plain"


def _queued(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"waits for key {data['key']}", "plain"


def _begun(line: Any, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"has key {data['key']}, and begins", "plain"


OF_STEERING: Mapping[str, Callable[[Any, Event, Mapping[str, Any], datetime], Told]] = {
    "run.paused": _paused,
    "run.pause_lifted": _lifted,
    "run.resumed": _resumed,
    "run.priority_changed": _priority_changed,
    "run.queued": _queued,
    "run.begun": _begun,
}
"""Event type → function that returns actor, text and mood of a line."""
