"""Words of events of waits: what an agent waits for, who has sent what, and what has come."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from api.cli.failures import headline
from api.cli.output import gist, shortened
from api.cli.phrases import Mood

Told = tuple[str, str, Mood] | None
Event = Mapping[str, Any]
RUN = "run"


class KnownAgentRuns(Protocol):
    """What the timeline knows: the names of agent runs."""

    def _actor(self, agent_run_id: str) -> str: ...


def what_for(data: Mapping[str, Any]) -> str:
    """What a wait is for, in words."""
    within = f" for at most {data['delay_s']:g} s" if data.get("delay_s") is not None else ""
    match data["kind"]:
        case "sleep" if data.get("until"):
            return f"sleeps until {shortened(data['until'], 40)}"
        case "sleep":
            return f"sleeps for {data.get('delay_s') or 0:g} s"
        case "child":
            return f"waits for a run of {shortened(data.get('name') or '?', 40)}"
        case kind:
            return f"waits for the {shortened(kind, 20)} {shortened(data.get('name') or '?', 40)}{within}"


def _wait_started(line: KnownAgentRuns, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), what_for(data), "plain"


def _wait_finished(line: KnownAgentRuns, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    actor, key = line._actor(event["subject"]), shortened(data["key"], 60)
    if data.get("error") is not None:
        return actor, f"waits no more as {key}: {headline(data['error'])}", "warning"
    got = f" with {gist(data['result'])}" if data.get("result") is not None else ""
    return actor, f"goes on after {key}{got}", "plain"


def _signalled(line: KnownAgentRuns, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    to = f" to {shortened(data['step'], 40)}" if data.get("step") else ""
    kept = "" if data.get("received_by") else ", which nobody waits for yet"
    return RUN, f"got the signal {shortened(data['name'], 40)}{to}{kept}", "plain"


OF_WAITS: Mapping[str, Callable[[Any, Event, Mapping[str, Any], datetime], Told]] = {
    "agent_run.wait_started": _wait_started,
    "agent_run.wait_finished": _wait_finished,
    "run.signalled": _signalled,
}
