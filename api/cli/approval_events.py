"""Words of events of approvals: what waits for whom, who has said what, and what is tainted."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from api.cli.output import gist, program, shortened
from api.cli.phrases import Mood, who
from api.cli.plan_events import seen

Told = tuple[str, str, Mood] | None
Event = Mapping[str, Any]


class KnownCalls(Protocol):
    """What the timeline knows: the calls, each with its name and who asked for it."""

    _calls: dict[str, Any]


def who_may(demand: Mapping[str, Any]) -> str:
    """Who must approve, in words."""
    asked = demand.get("requirements") or [{}]
    parts = [f"{each.get('approvers', 1)} of {', '.join(each.get('roles') or ['owner', 'admin', 'operator'])}" for each in asked]
    return " and ".join(parts) + (", four eyes" if demand.get("four_eyes") else "")


def why(demand: Mapping[str, Any]) -> str:
    told = []
    for because in demand.get("because") or ():
        by = f"policy {because['policy']}" if because.get("policy") else "the tool"
        saw = f"; it saw {seen(because['saw'])}" if because.get("saw") else ""
        error = f"; it could not be evaluated: {shortened(because['error'])}" if because.get("error") else ""
        told.append(f"{by}: {shortened(because.get('expression') or 'every call', 120)}{saw}{error}")
    return "; ".join(told)


def _held(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    if data["why"] != "approval":
        return call.actor, f"{call.name} waits for a {shortened(data['why'])}", "warning"
    told = f"{call.name} waits for an approval by {who_may(data['demand'])} ({why(data['demand'])})"
    return call.actor, f"{told}: {program()} inbox show {data['approval_id']}", "warning"


def _released(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    changed = f", with other arguments: {gist(data['arguments'])}" if data.get("arguments") is not None else ""
    return call.actor, f"{call.name} may begin{changed}", "plain"


def _decided(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("question") is not None:
        word = "approved" if data["outcome"] == "approved" else "denied"
        because = f" because: {shortened(data['reason'])}" if data.get("reason") else ""
        return "run", f"the question {shortened(data['question']['key'])} {word} by {who(data)}{because}", "plain"
    call = line._calls.get(str(data.get("invocation_id")))
    if call is None:
        return None
    word = "approved" if data["decision"] == "approve" else "denied"
    because = f" because: {shortened(data['reason'])}" if data.get("reason") else ""
    more = "" if data.get("outcome") else "; others must approve, too"
    return call.actor, f"{call.name} {word} by {who(data)}{because}{more}", "good" if word == "approved" else "bad"


def _asked(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("kind", "call") != "step":
        return None
    told = f"an agent asks {who_may(data['demand'])}: {shortened(data.get('title') or data['tool'], 120)}"
    return "run", f"{told}: {program()} inbox show {event['subject']}", "warning"


def _expired(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(str(data.get("invocation_id")))
    if data.get("question") is not None:
        return "run", f"nobody answered {shortened(data['question']['key'])} in time: {shortened(data['outcome'])}", "warning"
    return None if call is None else (call.actor, f"nobody decided on {call.name} in time: {shortened(data['outcome'])}", "warning")


def _tainted(line: KnownCalls, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(str(data["invocation_id"]))
    name = call.name if call else shortened(data["key"])
    return "run", f"{name} gave untrusted output: everything in the run may come from it now", "warning"


OF_APPROVALS: dict[str, Callable[[Any, Event, Mapping[str, Any], datetime], Told]] = {
    "invocation.held": _held,
    "invocation.released": _released,
    "approval.requested": _asked,
    "approval.decided": _decided,
    "approval.expired": _expired,
    "run.tainted": _tainted,
}
