"""The timeline of a run: CloudEvents in, readable lines out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from api.cli.approval_events import OF_APPROVALS
from api.cli.failures import headline
from api.cli.invocations import to_resolve
from api.cli.output import duration, gist, one_line, shortened
from api.cli.phrases import Mood, named, who
from api.cli.plan_events import OF_PLANS, said_by
from api.cli.progress import OF_PROGRESS
from api.cli.steering_events import OF_STEERING, dispatched_by
from api.cli.wait_events import OF_WAITS

if TYPE_CHECKING:
    from rich.text import Text

Event = Mapping[str, Any]

ACTOR_WIDTH = 12
MOST_KEYS = 10
_COLOURS = ("cyan", "magenta", "blue", "yellow", "green", "bright_cyan", "bright_magenta", "bright_blue")
_MOODS: Mapping[Mood, str] = {"plain": "", "good": "green", "bad": "bold red", "warning": "yellow", "quiet": "dim"}
RUN = "run"


@dataclass(frozen=True)
class Line:
    """A line of the timeline. `offset_s`: seconds since the run began. `actor`: the key of the step, or "run".

    `text` holds values of others and is one line. `below`: lines of ours that follow.
    """

    offset_s: float
    position: int
    actor: str
    text: str
    mood: Mood = "plain"
    below: str = ""

    @property
    def told(self) -> str:
        return f"{self.text}\n{self.below}" if self.below else self.text

    @property
    def sentence(self) -> str:
        """The line without its time and its columns."""
        return f"{self.actor}: {self.text}"

    def plain(self) -> str:
        return f"{_clock(self.offset_s)}  {self.actor:<{ACTOR_WIDTH}}  {self.told}"


@dataclass
class _Call:
    name: str
    actor: str
    started: datetime | None = None


@dataclass
class Timeline:
    """Makes lines of a run's events. `feed` gets the events in order, from the first. It returns None for events without a line."""

    started: datetime | None = None
    _actors: dict[str, str] = field(default_factory=dict)
    """Agent run → step."""
    _since: dict[str, datetime] = field(default_factory=dict)
    _recorded: dict[str, int] = field(default_factory=dict)
    _calls: dict[str, _Call] = field(default_factory=dict)
    """Invocation → the call, named by its key."""
    _versions: dict[str, str] = field(default_factory=dict)
    """Step → the version that the plan asks for, in words."""
    _colours: dict[str, str] = field(default_factory=dict)
    _effects: dict[int, str] = field(default_factory=dict)
    """Number of an effect → the tool of its call."""
    _chains: dict[str, str] = field(default_factory=dict)
    """Chain → its tool."""
    more: "Mapping[str, Teller]" = field(default_factory=dict)
    """Event type → function that gives the words of events that are quiet otherwise."""

    def feed(self, event: Event) -> Line | None:
        at = time_of(event)
        if self.started is None:
            self.started = at
        tellers = filter(None, (_TELL.get(event["type"]), self.more.get(event["type"])))
        told = next(filter(None, (tell(self, event, event.get("data") or {}, at) for tell in tellers)), None)
        if told is None:
            return None
        actor, text, mood = told
        below = to_resolve(event["subject"]) if event["type"] == "invocation.became_ambiguous" else ""
        return Line((at - self.started).total_seconds(), event["position"], one_line(actor), one_line(text), mood, below)

    def coloured(self, line: Line) -> "Text":
        from rich.text import Text

        colour = "bold" if line.actor == RUN else self._colour(line.actor)
        return Text.assemble(
            (_clock(line.offset_s), "dim"), "  ", (f"{line.actor:<{ACTOR_WIDTH}}", colour), "  ", (line.told, _MOODS[line.mood])
        )

    def _colour(self, actor: str) -> str:
        return self._colours.setdefault(actor, _COLOURS[len(self._colours) % len(_COLOURS)])

    def _actor(self, agent_run_id: object) -> str:
        return self._actors.get(str(agent_run_id), "?")


Told = tuple[str, str, Mood] | None
_LAPSED: Mapping[object, str] = {"lost": "its worker vanished", "left": "its worker stopped"}
"""Reason of a lapse → words. A lapse for another reason, or the end of a retry's delay, has no line."""
_DOUBTS: Mapping[object, str] = {**_LAPSED, "reported": "it was stopped in the middle"}
_FOUND = {"succeeded": "it took effect", "not_happened": "it did not take effect", "unknown": "it cannot be found out"}
Teller = Callable[[Timeline, Event, Mapping[str, Any], datetime], Told]


def _run_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    steps = data["plan"]["steps"]
    for step in steps:
        line._colour(step["key"])
    first = [step["key"] for step in steps if not step["after"]]
    rest = [step["key"] for step in steps if step["after"]]
    then = f", then {', '.join(rest)}" if rest else ""
    of, origin = data.get("workflow"), data.get("origin")
    why = f" ({of['name']}@{of['version']})" if of else ""
    why += f" by {origin['kind']} {origin['name']}" if origin else ""
    return RUN, f"started{why}: {', '.join(first)}{then}", "plain"


def _step_scheduled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    line._actors[str(data["agent_run_id"])] = data["step"]
    line._since[data["step"]] = at
    if data.get("version_asked"):
        line._versions[data["step"]] = f", version {data['agent_version']} asked for"
    return None


def _step_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data.get("person"):
        return data["step"], f"was said to have failed {said_by(data['person'])}: {headline(data['error'])}", "bad"
    if data["agent_run_id"] is None:  # otherwise the agent run's event has a line
        return data["step"], f"cannot run: {headline(data['error'])}", "bad"
    return (data["step"], "the run goes on without it", "warning") if data["tolerated"] else None


def _run_completed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data["degraded"]:
        return RUN, f"completed, degraded: without {', '.join(data['missing'])}", "warning"
    return RUN, "completed", "good"


def _run_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"failed at {data['step']}: {headline(data['error'])}", "bad"


def _run_cancelled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    why = data.get("reason")
    return RUN, f"cancelled: {why}" if why else "cancelled", "warning"


def _run_retried(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    steps = data["steps"]
    what = ", ".join(steps[:MOST_KEYS]) + (f" and {len(steps) - MOST_KEYS} more" if len(steps) > MOST_KEYS else "")
    why = f", because: {shortened(data['reason'])}" if data.get("reason") else ""
    how = " from nothing" if data.get("fresh") else ""
    return RUN, f"goes on with {what}{how}{why}" if what else "goes on", "plain"


def _deadline_set(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    why = f", because: {shortened(data['reason'])}" if data.get("reason") else ""
    seconds = data.get("deadline_s")
    return RUN, f"has {'no deadline' if seconds is None else f'{duration(seconds)} to end'}{why}", "plain"


def _claimed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    actor = line._actor(event["subject"])
    worker = str(data["worker_id"])[-8:]
    if data["attempt"] == 1:
        line._since[actor] = at
        return actor, f"begins (worker …{worker}{line._versions.get(actor, '')})", "plain"
    kept = line._recorded.get(actor, 0)
    return actor, f"goes on (worker …{worker}, attempt {data['attempt']}, {kept} results at hand)", "warning"


def _resumed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    why = _LAPSED.get(data.get("reason")) or dispatched_by(data)
    return (line._actor(event["subject"]), f"{why}, waits for another", "warning") if why else None


def _recorded(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    actor = line._actor(event["subject"])
    line._recorded[actor] = line._recorded.get(actor, 0) + 1
    return (actor, f"recorded {data['key']}", "quiet") if data["kind"] == "step" else None


def _call_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    actor = line._actor(event["subject"])
    line._calls[str(data["invocation_id"])] = _Call(named(data).removesuffix("#1"), actor)
    return None


def _call_asked(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    """A call that is not in the journal of an agent."""
    if data.get("asked_by", "agent_run") != "agent_run":
        of = line._calls.get(data["key"])  # the call whose effect a compensation takes back
        which = "" if data["key"] == data["agent_run_id"] else f" ({of.name if of else shortened(data['key'], 40)})"
        line._calls[event["subject"]] = _Call(f"{data['tool']}{which}", data["asked_by"])
    return None


def _call_finished(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    actor = line._actor(event["subject"])
    line._recorded[actor] = line._recorded.get(actor, 0) + 1
    return None


def _attempt_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    call.started = call.started or at
    again = f", attempt {data['attempt']}" if data["attempt"] > 1 else ""
    return call.actor, f"calls {call.name}{again}", "warning" if again else "quiet"


def _succeeded(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    took = f" in {duration((at - call.started).total_seconds())}" if call.started else ""
    if data.get("cached_from") is not None:
        took = " from the cache"
    return call.actor, f"{call.name} answered{took}", "plain"


def _invocation_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    return (call.actor, f"{call.name} failed: {headline(data['error'])}", "bad") if call else None


def _invocation_retry(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    return call.actor, f"{call.name} failed, again in {duration(data['delay_s'])}: {headline(data['error'])}", "warning"


def _fell_back(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    return call.actor, f"{call.name} goes on with {data['tool']}: {headline(data['error'])}", "warning"


def _requeued(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call, why = line._calls.get(event["subject"]), _LAPSED.get(data.get("reason")) or dispatched_by(data)
    return (call.actor, f"{call.name}: {why}, waits for another", "warning") if call and why else None


def _reconcile_requested(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call, why = line._calls.get(event["subject"]), _DOUBTS.get(data["reason"])
    if call is None or why is None or data.get("give_up_s") is None:
        return None
    return call.actor, f"{call.name}: {why}, so its reconcile function is asked whether it took effect", "warning"


def _reconcile_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    again = f", again in {duration(data['delay_s'])}" if data.get("delay_s") is not None else ""
    return call.actor, f"{call.name}: its reconcile function failed{again}: {headline(data['error'])}", "warning"


def _reconciled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    return (call.actor, f"{call.name}: its reconcile function says: {_FOUND[data['outcome']]}", "plain") if call else None


def _not_happened(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    return call.actor, f"{call.name} did not take effect, says {who(data)} because: {shortened(data['reason'])}", "warning"


def _ambiguous(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    why = data.get("reason") or "its worker vanished"
    return call.actor, f"{call.name}: {why}; whether it took effect is unknown. A person must say it:", "bad"


def _resolved(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None:
        return None
    outcome = f"failed: {headline(data['error'])}" if data["error"] else "took effect"
    return call.actor, f"{call.name} {outcome}, resolved by {who(data)} because: {shortened(data['reason'])}", "warning"


def _cancel_requested(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    return (call.actor, f"{call.name} is cancelled: it is not tried again", "warning") if call else None


def _call_cancelled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    call = line._calls.get(event["subject"])
    if call is None or data.get("effect") is None:
        return None
    return call.actor, f"{call.name} cancelled: its worker vanished, whether it took effect is unknown", "warning"


def _message_sent(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return data["sender"], f"→ {data['recipient']}: {gist(data['body'])}", "plain"


def _mail_received(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    if data["message_id"] is not None:
        return None
    return line._actor(event["subject"]), "waited for a message in vain", "warning"


def _value_set(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(data["agent_run_id"]), f"sets {data['name']} = {gist(data['value'])}", "quiet"


def _agent_retry(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    text = f"failed, again in {duration(data['delay_s'])}: {headline(data['error'])}"
    return line._actor(event["subject"]), text, "warning"


def _agent_completed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    since = line._since.get(data["step"])
    done = f"done{f' in {duration((at - since).total_seconds())}' if since else ''}"
    unused = data.get("unused_keys")
    return (data["step"], f"{done}; {unused_results(unused)}", "warning") if unused else (data["step"], done, "good")


def _agent_failed(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return data["step"], f"failed: {headline(data['error'])}", "bad"


def _agent_cancelled(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return line._actor(event["subject"]), "cancelled", "warning"


def _compensation_started(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, "its effects are taken back, the last one first", "plain"


def _effect_recorded(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    line._effects[data["number"]] = data["tool"]
    return None


def _effect_compensated(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    return RUN, f"effect {data['number']} of {line._effects.get(data['number'], '?')} was taken back", "plain"


def _effect_not_compensated(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    what = f"effect {data['number']} of {line._effects.get(data['number'], '?')}"
    return RUN, f"{what} could not be taken back: {headline(data['error'])}", "bad"


def _compensation_ended(line: Timeline, event: Event, data: Mapping[str, Any], at: datetime) -> Told:
    mood: Mood = "good" if data["status"] == "compensated" else "warning"
    return RUN, f"{data['compensated']} of {data['effects']} effects were taken back", mood


_TELL: Mapping[str, Teller] = {
    "run.started": _run_started,
    "run.step_scheduled": _step_scheduled,
    "run.step_failed": _step_failed,
    "run.completed": _run_completed,
    "run.failed": _run_failed,
    "run.cancelled": _run_cancelled,
    "run.retried": _run_retried,
    "run.deadline_set": _deadline_set,
    "compensation.started": _compensation_started,
    "compensation.effect_recorded": _effect_recorded,
    "compensation.effect_compensated": _effect_compensated,
    "compensation.effect_not_compensated": _effect_not_compensated,
    "compensation.ended": _compensation_ended,
    "agent_run.claimed": _claimed,
    "agent_run.resumed": _resumed,
    "agent_run.step_recorded": _recorded,
    "agent_run.call_started": _call_started,
    "agent_run.call_finished": _call_finished,
    "agent_run.mail_received": _mail_received,
    "agent_run.retry_scheduled": _agent_retry,
    "agent_run.completed": _agent_completed,
    "agent_run.failed": _agent_failed,
    "agent_run.cancelled": _agent_cancelled,
    "invocation.requested": _call_asked,
    "invocation.attempt_started": _attempt_started,
    "invocation.succeeded": _succeeded,
    "invocation.failed": _invocation_failed,
    "invocation.retry_scheduled": _invocation_retry,
    "invocation.requeued": _requeued,
    "invocation.fell_back": _fell_back,
    "invocation.became_ambiguous": _ambiguous,
    "invocation.not_happened": _not_happened,
    "invocation.reconcile_requested": _reconcile_requested,
    "invocation.reconcile_failed": _reconcile_failed,
    "invocation.reconciled": _reconciled,
    "invocation.resolved": _resolved,
    "invocation.cancel_requested": _cancel_requested,
    "invocation.cancelled": _call_cancelled,
    "message.sent": _message_sent,
    "context.value_set": _value_set,
    **OF_PLANS,
    **OF_APPROVALS,
    **OF_STEERING,
    **OF_WAITS,
    **OF_PROGRESS,
}
"""Event type → function that returns actor, text and mood of a line. Other events have no line."""


def unused_results(keys: Sequence[str]) -> str:
    """The warning of recorded results that an execution did not use."""
    some = ", ".join(shortened(key, 40) for key in keys[:MOST_KEYS]) + (" …" if len(keys) > MOST_KEYS else "")
    many = f"{len(keys)} recorded results were" if len(keys) > 1 else "1 recorded result was"
    return f"{many} not used, so the agent's code was changed between its attempts: {some}"


def time_of(event: Event) -> datetime:
    return datetime.fromisoformat(event["time"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(seconds, 0.0), 60)
    return f"{int(minutes):>2}:{rest:05.2f}"


def duration_of(run: Mapping[str, Any]) -> float:
    """Seconds from the start of a run to its end, or to its last event."""
    end = run["finished_at"] or run["updated_at"]
    return (datetime.fromisoformat(end) - datetime.fromisoformat(run["created_at"])).total_seconds()
