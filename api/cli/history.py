"""The history of a run: its events, folded one after the other, and the changes by each event.

The fold is the function that makes the server's read model, so the states are the same as with `?as_of=`.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from api.cli import phrases
from api.cli.explain import parts_of
from api.cli.failures import FAILED_ATTEMPTS, headline
from api.cli.output import gist, shortened
from api.cli.quiet_events import QUIET
from api.cli.timeline import Timeline, time_of
from application.views.runs import RunView
from domain.kernel import RecordedEvent
from projections.runs import evolve_view

if TYPE_CHECKING:
    from api.cli.connection import ServerClient

BOTH = (
    "run.step_skipped", "run.step_started", "run.step_fell_back", "run.part_failed", "invocation.fell_back",
    "invocation.reconciled", "invocation.requeued", "invocation.not_happened",
)  # fmt: skip
"""Types of events whose changes do not say why."""


@dataclass(frozen=True)
class Change:
    """A changed value. `before`: empty for a new value."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Moment:
    """One event and its changes of the run's state. `state`: the run's document after the event, if requested.

    `told`: what happened, in words, where the changes do not say all of it.
    """

    position: int
    time: str
    type: str
    changes: tuple[Change, ...]
    event: Mapping[str, Any]
    state: dict[str, Any] | None = None
    told: str = ""

    @property
    def tells_failure(self) -> bool:
        """Whether the event is the first to tell a failure of an agent or a tool."""
        return self.type in FAILED_ATTEMPTS

    def document(self) -> dict[str, Any]:
        changes = [asdict(change) for change in self.changes]
        what = {"changes": changes, "told": self.told, "event": self.event}
        return {"position": self.position, "time": self.time, "type": self.type, **what}


async def replay(server: "ServerClient", run_id: str, *, keep_states: bool = False, full: bool = False) -> AsyncIterator[Moment]:
    """Every moment of a run, from its events, which are read page by page. `full`: values are not cut."""
    history = RunHistory(full=full)
    async for event in server.pages(f"/v1/runs/{run_id}/events"):
        yield history.feed(event, keep_state=keep_states)


class RunHistory:
    """Folds the events of one run. `feed` gets the events in order, as CloudEvents.

    The values of calls, of recorded steps, of messages and of the shared context are not in the document of the run. They come from
    the events.
    """

    def __init__(self, *, full: bool = False) -> None:
        """`full`: values are not cut."""
        self.view: RunView | None = None
        self._timeline = Timeline(more=QUIET)
        self._facts: dict[str, str] = {}
        self._values: dict[str, str] = {}
        self._others: dict[str, str] = {}
        """Calls that no agent asked for, by id: what they are called here."""
        self._shown: Callable[[Any], str] = phrases.uncut if full else gist
        self._value: Callable[[Any], str] = phrases.uncut if full else shortened

    def feed(self, event: Mapping[str, Any], *, keep_state: bool = False) -> Moment:
        self.view = evolve_view(self.view, recorded(event), whole=True)
        self._values |= self._values_of(event["type"], event["subject"], event["data"])
        before, self._facts = self._facts, {**_facts(self.view, self._shown), **self._values}
        changes = tuple(
            Change(path, before.get(path, ""), value) for path, value in self._facts.items() if before.get(path, "") != value
        )
        if event["type"] == "message.sent":
            data = event["data"]
            changes += (Change("message", "", f"{data['sender']} → {data['recipient']}: {self._shown(data['body'])}"),)
        state = self.document() if keep_state else None
        line = self._timeline.feed(event)
        told = line.sentence if line and (not changes or event["type"] in BOTH) else ""
        return Moment(event["position"], event["time"], event["type"], changes, event, state, told)

    def _values_of(self, topic: str, subject: str, data: Mapping[str, Any]) -> dict[str, str]:
        """Names of values that an event gives, and the values as they are shown."""
        match topic:
            case "context.value_set":
                return {f"context.{data['name']}": f"{self._shown(data['value'])} (version {data['value_version']})"}
            case "run.step_scheduled" if data.get("version_asked"):
                return {f"{data['step']}.version": f"{data['agent_version']} (asked for)"}
            case "agent_run.step_recorded" if data["kind"] == "step":
                return {f"{self._step(subject)}.{data['key']}.recorded": self._value(data["result"])}
            case "invocation.requested":
                call = self._call(subject, data)
                return {f"{call}.arguments": self._value(data["arguments"])} if data["arguments"] else {}
            case "invocation.succeeded" | "invocation.resolved" if data.get("result") is not None:
                return {f"{self._call(subject, data)}.result": self._value(data["result"])}
        return {}

    def _call(self, subject: str, data: Mapping[str, Any]) -> str:
        """The key of a call with its step. A call of a compensation or of a chain has its tool and a number instead."""
        asked_by = data.get("asked_by", "agent_run")
        if asked_by == "agent_run":
            return f"{self._step(str(data['agent_run_id']))}.{data['key']}"
        if "tool" in data:
            self._others[subject] = f"{asked_by}.{data['tool']}#{len(self._others) + 1}"
        return self._others.get(subject, f"{asked_by}.{data['key']}")

    def _step(self, agent_run_id: str) -> str:
        steps = self.view.steps if self.view is not None else ()
        part = self._timeline._actors.get(agent_run_id, "?")
        return next((step.key for step in steps if str(step.agent_run_id) == agent_run_id), part)

    def document(self) -> dict[str, Any] | None:
        """The run as `GET /v1/runs/{id}` would show it, with its large values."""
        if self.view is None:
            return None
        return self.view.model_dump(mode="json")


def recorded(event: Mapping[str, Any]) -> RecordedEvent:
    """The recorded event of a CloudEvent."""
    return RecordedEvent(
        position=event["position"],
        tenant_id=UUID(event["tenantid"]),
        stream_id=UUID(event["subject"]),
        version=event["streamversion"],
        root_id=UUID(event["rootid"]),
        topic=event["type"],
        schema_version=int(event["dataschema"].rsplit("/v", 1)[1]),
        state=json.dumps(event["data"]).encode(),
        metadata=json.dumps({"actor": event.get("actor"), "on_behalf_of": event.get("onbehalfof")}),
        recorded_at=time_of(event),
    )


def _facts(view: RunView | None, shown: Callable[[Any], str]) -> dict[str, str]:
    """The state of a run as flat names and short texts. Empty values are left out."""
    if view is None:
        return {}
    facts = {"run": view.status + (" (degraded)" if view.degraded else "")}
    if view.error:
        facts["run.error"] = headline(view.error.model_dump())
    if view.message_count:
        facts["run.messages"] = str(view.message_count)
    for step in view.steps:
        facts[step.key] = step.status
        told = {
            "attempt": str(step.attempt or ""),
            "worker": f"…{step.worker_id[-8:]}" if step.worker_id else "",
            "recorded_steps": str(step.recorded_steps or ""),
            "error": headline(step.error.model_dump()) if step.error else "",
            "result": shown(step.result) if step.result is not None else "",
            "unused_keys": ", ".join(step.unused_keys),
            "input": shown(step.input) if step.input is not None else "",
            "parts": parts_of(step.model_dump(mode="json", include={"form", "parts"})),
        }
        facts |= {f"{step.key}.{name}": value for name, value in told.items() if value}
        for call in step.calls:
            again = f" (attempt {call.attempts})" if call.attempts > 1 else ""
            facts[f"{step.key}.{call.key}"] = call.status + again
            if call.error is not None:
                facts[f"{step.key}.{call.key}.error"] = headline(call.error.model_dump())
            if call.cancel_requested:
                facts[f"{step.key}.{call.key}.cancel"] = "requested"
            if call.effect is not None:
                facts[f"{step.key}.{call.key}.effect"] = call.effect
            if call.resolution is not None:
                facts[f"{step.key}.{call.key}.resolved"] = f"by {call.resolution.by} because: {call.resolution.reason}"
    return facts
