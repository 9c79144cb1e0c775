"""Words for how far an agent is, as it says."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from api.cli.output import shortened
from api.cli.wait_events import Event, KnownAgentRuns, Told


def progress(said: Mapping[str, Any]) -> str:
    """`3 of 10 (30 %): reads page 3`; `1,024: rows` where nobody knows how many there are."""
    done, total = said["done"], said.get("total")
    of = "" if total is None else f" of {_number(total)} ({100 * min(done / total, 1.0):.0f} %)"
    text = _number(done) + of
    return f"{text}: {shortened(said['message'], 100)}" if said.get("message") else text


def progress_of(step: Mapping[str, Any]) -> str:
    """What the agent of a step that goes on has said. Empty: nothing."""
    said = step.get("progress")
    if not said or step["status"] in ("completed", "skipped"):
        return ""
    part = f"part {said['part']}: " if said.get("part") is not None else ""
    return part + progress(said)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _progressed(line: KnownAgentRuns, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), progress(data), "plain"


OF_PROGRESS: Mapping[str, Callable[[Any, Event, Mapping[str, Any], datetime], Told]] = {"agent_run.progressed": _progressed}
