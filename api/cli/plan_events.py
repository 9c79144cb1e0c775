"""Words of events of plans: conditions, lists, loops, waits, child runs, fallbacks."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from api.cli.failures import headline
from api.cli.output import duration, gist, shortened
from api.cli.phrases import Mood, who

Told = tuple[str, str, Mood] | None
Event = Mapping[str, Any]


class Known(Protocol):
    """What the timeline knows: the step or part of an agent run, when each began, the versions that were asked for."""

    _actors: dict[str, str]
    _since: dict[str, datetime]
    _versions: dict[str, str]


MOST_SEEN = 5
MOST_NUMBERS = 10


def seen(saw: Mapping[str, Any]) -> str:
    """The values that a decision saw."""
    some = ", ".join(f"{name} = {gist(value, 60)}" for name, value in list(saw.items())[:MOST_SEEN])
    return some + (" …" if len(saw) > MOST_SEEN else "")


def why_skipped(why: Mapping[str, Any]) -> str:
    """`why`: the data of the event, or `why` of the step."""
    match why.get("reason"):
        case "condition":
            saw = f"; it saw {seen(why['saw'])}" if why.get("saw") else ""
            return f"its condition was {gist(why.get('value'), 60)}: {shortened(str(why.get('condition')), 200)}{saw}"
        case "upstream":
            return "all steps before it were skipped"
        case "person":
            return said_by(why["person"])
        case _:
            return f"{why.get('by')} had enough results without it"


def said_by(person: Mapping[str, Any]) -> str:
    return f"by {who(person)} because: {person['reason']}"


def part_name(data: Mapping[str, Any]) -> str:
    return f"{data['step']}.{data['part']}"


def _skipped(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return data["step"], f"skipped: {why_skipped(data)}", "warning" if data["reason"] == "not_needed" else "plain"


def _started(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    line._since[data["step"]] = at
    match data["form"]:
        case "each":
            items = len(data.get("items") or ())
            what = f"begins: {items:,} item{'' if items == 1 else 's'}"
        case "repeat":
            what = "begins to repeat"
        case "adaptive":
            what = "begins: its agent names the next steps"
        case "wait":
            what = f"waits until {data['until']}" if data.get("until") else f"waits for {duration(data.get('delay_s') or 0)}"
        case _:
            what = "begins"
    return data["step"], what, "plain"


def _part_scheduled(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    name = part_name(data)
    line._since[name] = at
    if data.get("agent_run_id") is not None:
        line._actors[str(data["agent_run_id"])] = name
        if data.get("version_asked"):
            line._versions[name] = f", version {data['agent_version']} asked for"
        return None
    of = data.get("workflow")
    what = f" of {of['name']}@{of['version']}" if of else ""
    return name, f"starts run {data['child_id']}{what}", "plain"


def _part_completed(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("person"):
        return part_name(data), f"its result was given {said_by(data['person'])}", "warning"
    if str(data["execution_id"]) in line._actors:  # the agent run's event has a line
        return None
    return part_name(data), f"its run completed{_took(line, part_name(data), at)}", "good"


def _part_failed(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("person"):
        return part_name(data), f"was ended {said_by(data['person'])}", "warning"
    if str(data["execution_id"]) not in line._actors:
        more = ", and the step goes on without it" if data["tolerated"] else ""
        return part_name(data), f"its run did not complete{more}: {headline(data['error'])}", "warning" if more else "bad"
    return (part_name(data), "the step goes on without it", "warning") if data["tolerated"] else None


def _fell_back(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    name = data["step"] if data.get("part") is None else part_name(data)
    return name, f"goes on with {data['agent']}: {headline(data['error'])}", "warning"


def _completed(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("person"):
        return data["step"], f"its result was given {said_by(data['person'])}", "warning"
    if data.get("exhausted"):
        return data["step"], f"done{_took(line, data['step'], at)}: the loop was ended by its bound", "warning"
    if without := data.get("without"):
        numbers = ", ".join(map(str, without[:MOST_NUMBERS])) + (" …" if len(without) > MOST_NUMBERS else "")
        return data["step"], f"done{_took(line, data['step'], at)}, without {numbers}", "warning"
    return (data["step"], f"done{_took(line, data['step'], at)}", "good") if data["agent_run_id"] is None else None


def _took(line: Known, name: str, at: datetime) -> str:
    since = line._since.get(name)
    return f" in {duration((at - since).total_seconds())}" if since else ""


def _step_taken_over(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return data["step"], f"taken over: {data['status']}", "quiet"


def _part_taken_over(line: Known, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return part_name(data), f"taken over: {data['status']}", "quiet"


OF_PLANS: Mapping[str, Callable[[Known, Event, Mapping[str, Any], datetime], Told]] = {
    "run.step_skipped": _skipped,
    "run.step_started": _started,
    "run.step_fell_back": _fell_back,
    "run.step_completed": _completed,
    "run.part_scheduled": _part_scheduled,
    "run.part_completed": _part_completed,
    "run.part_failed": _part_failed,
    "run.step_taken_over": _step_taken_over,
    "run.part_taken_over": _part_taken_over,
}
"""Event type → function that returns actor, text and mood of a line."""
