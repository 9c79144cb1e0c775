"""Recorded executions of agents, from the events of a run: what each got, what it did under which key, and how it ended."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from tidelog.journal import EntryError, JournalEntry
from tidelog.policies import Cost

Event = Mapping[str, Any]
Outcome = Literal["completed", "failed", "cancelled", "open"]


class RecordedCall(BaseModel):
    """What an agent asked a tool."""

    model_config = ConfigDict(frozen=True)
    tool: str
    arguments: dict[str, Any] = {}
    cost: Cost | None = None
    """What the call has used, with all its attempts. None: nobody counted it."""


class Record(BaseModel):
    """One execution of an agent. `outcome`: `open` if it had not ended."""

    model_config = ConfigDict(frozen=True)
    run_id: UUID
    agent_run_id: UUID
    step: str
    agent: str
    attempt: int = 1
    input: Any = None
    results: dict[str, Any] = {}
    peers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    on_behalf_of: str | None = None
    entries: tuple[JournalEntry, ...] = ()
    calls: dict[str, RecordedCall] = {}
    """What was asked, by key."""
    sent: dict[str, dict[str, Any]] = {}
    """Messages by key: `to` and `body`."""
    outcome: Outcome = "open"
    result: Any = None
    error: dict[str, Any] | None = None
    """Type and message."""


@dataclass(slots=True)
class _Execution:
    step: str
    agent: str
    input: Any
    results: dict[str, Any]
    missing: tuple[str, ...]
    peers: tuple[str, ...]
    entries: dict[str, JournalEntry] = field(default_factory=dict)
    calls: dict[str, RecordedCall] = field(default_factory=dict)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    attempt: int = 1
    outcome: Outcome = "open"
    result: Any = None
    error: dict[str, Any] | None = None
    held: dict[str, UUID] = field(default_factory=dict)
    """Keys whose results stand in the journal of another agent run."""
    taken_calls: dict[str, UUID] = field(default_factory=dict)
    taken_mail: dict[str, UUID] = field(default_factory=dict)


class Records:
    """Collects the executions of one run from its events, in the order of the log."""

    def __init__(self) -> None:
        self._plan: dict[str, Mapping[str, Any]] = {}
        self._input: Any = None
        self._run_id: UUID | None = None
        self._forked_from: UUID | None = None
        self._on_behalf_of: str | None = None
        self._results: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._found: dict[str, _Execution] = {}
        """Agent run → its execution."""
        self._bodies: dict[str, tuple[str, Any, Any]] = {}
        """Message → sender, body, time."""
        self._messages: dict[str, dict[str, Any]] = {}
        """Message → `to` and `body`."""
        self._calls: dict[str, tuple[str, str]] = {}
        """Invocation → agent run and key."""

    def feed(self, event: Event) -> None:
        topic, subject, data = event["type"], str(event["subject"]), event["data"]
        if topic.startswith("run."):
            self._of_run(topic, subject, data, event)
        elif topic.startswith("agent_run."):
            if (found := self._found.get(subject)) is not None:
                self._of_agent_run(found, topic, data)
        elif topic.startswith("invocation."):
            self._of_call(topic, subject, data)
        elif topic == "message.sent":
            self._bodies[subject] = data["sender"], data.get("body"), data.get("sent_at") or event.get("time")
            self._messages[subject] = {"to": data["recipient"], "body": data.get("body")}

    def _of_run(self, topic: str, subject: str, data: Mapping[str, Any], event: Event) -> None:
        match topic:
            case "run.started":
                self._run_id, self._input = UUID(subject), data.get("input")
                self._plan = {step["key"]: step for step in data["plan"]["steps"]}
                self._on_behalf_of = event.get("onbehalfof")
                if (place := data.get("forked_from")) is not None:
                    self._forked_from = UUID(str(place["run_id"]))
            case "run.step_scheduled":
                own = self._plan[data["step"]].get("input")
                given = data.get("input") if data.get("mapped") else self._input if own is None else own
                self._begin(data["step"], data["step"], data, given)
            case "run.part_scheduled" if data.get("agent_run_id") is not None:
                self._begin(f"{data['step']}.{data['part']}", data["step"], data, data.get("input"))
            case "run.step_completed":
                self._results[data["step"]] = data.get("result")
            case "run.step_taken_over" if data["status"] == "completed":
                self._results[data["step"]] = data.get("result")
            case "run.step_failed":
                self._failed.add(data["step"])
            case "run.step_taken_over" if data["status"] == "failed":
                self._failed.add(data["step"])

    def _begin(self, name: str, step: str, data: Mapping[str, Any], given: Any) -> None:
        before = self._plan[step].get("after") or ()
        results = {key: self._results[key] for key in before if key in self._results}
        missing = tuple(key for key in before if key in self._failed)
        peers = tuple(key for key in self._plan if key != step)
        self._found[str(data["agent_run_id"])] = _Execution(name, data["agent"], given, results, missing, peers)

    def _of_agent_run(self, found: _Execution, topic: str, data: Mapping[str, Any]) -> None:
        match topic:
            case "agent_run.claimed":
                found.attempt = data["attempt"]
            case "agent_run.step_recorded":
                key = data["key"]
                found.entries[key] = JournalEntry(key=key, kind=data["kind"], status="ok", result=data.get("result"))
            case "agent_run.call_started":
                entry = JournalEntry(key=data["key"], kind="call", status="pending", invocation_id=data["invocation_id"])
                found.entries[data["key"]] = entry
            case "agent_run.wait_started":
                found.entries[data["key"]] = JournalEntry(key=data["key"], kind=data["kind"], status="pending")
            case "agent_run.wait_finished":
                found.entries[data["key"]] = outcome_of(data["key"], data, data["kind"])
            case "agent_run.mail_received":
                self._received(found, data["key"], data.get("message_id"))
            case "agent_run.entry_taken_over":
                self._taken(found, data)
            case "agent_run.completed":
                found.outcome, found.result = "completed", data.get("result")
            case "agent_run.failed":
                error = data["error"]
                found.outcome, found.error = "failed", {"type": error["type"], "message": error["message"]}
            case "agent_run.cancelled":
                found.outcome = "cancelled"

    def _received(self, found: _Execution, key: str, message_id: Any) -> None:
        result = None
        if message_id is not None:
            sender, body, sent_at = self._bodies.get(str(message_id), ("?", None, None))
            result = {"message_id": str(message_id), "sender": sender, "body": body, "sent_at": sent_at}
        found.entries[key] = JournalEntry(key=key, kind="receive", status="ok", result=result)

    def _taken(self, found: _Execution, data: Mapping[str, Any]) -> None:
        key, kind = data["key"], data["kind"]
        status: Literal["ok", "error"] = "ok" if data.get("succeeded", True) else "error"
        found.entries[key] = JournalEntry(key=key, kind=kind, status=status, result=data.get("result"))
        if kind == "call":
            found.taken_calls[key] = UUID(str(data["invocation_id"]))
        elif kind == "receive" and data.get("result") is not None:
            found.taken_mail[key] = UUID(str(data["result"]))
        elif data.get("held_by") is not None:
            found.held[key] = UUID(str(data["held_by"]))

    def _of_call(self, topic: str, subject: str, data: Mapping[str, Any]) -> None:
        if topic == "invocation.requested":
            agent_run_id = str(data.get("agent_run_id"))
            if data.get("asked_by", "agent_run") == "agent_run" and (found := self._found.get(agent_run_id)) is not None:
                self._calls[subject] = agent_run_id, data["key"]
                found.calls[data["key"]] = RecordedCall(tool=data["tool"], arguments=data.get("arguments") or {})
        elif topic in ("invocation.succeeded", "invocation.failed", "invocation.resolved") and subject in self._calls:
            agent_run_id, key = self._calls[subject]
            found = self._found[agent_run_id]
            found.entries[key] = outcome_of(key, data)
            if (used := data.get("usage")) is not None:
                found.calls[key] = found.calls[key].model_copy(update={"cost": _cost_of(used)})

    def finished(self) -> list[Record]:
        """The executions, in the order of their beginning. What another run holds is missing until `fill` has brought it."""
        assert self._run_id is not None, "the events are not those of a run"
        for found in self._found.values():
            for entry in found.entries.values():
                if entry.kind == "send" and (sent := self._messages.get(str(entry.result))) is not None:
                    found.sent[entry.key] = sent
        return [
            Record(
                run_id=self._run_id, agent_run_id=UUID(agent_run_id), step=found.step, agent=found.agent, attempt=found.attempt,
                input=found.input, results=found.results, peers=found.peers, missing=found.missing,
                on_behalf_of=self._on_behalf_of, entries=tuple(found.entries.values()), calls=found.calls, sent=found.sent,
                outcome=found.outcome, result=found.result, error=found.error,
            )
            for agent_run_id, found in self._found.items()
        ]  # fmt: skip

    @property
    def forked_from(self) -> UUID | None:
        """The run whose records are to be given to `fill`: the run is a fork, and refers to results there."""
        refers = any(one.held or one.taken_calls or one.taken_mail for one in self._found.values())
        return self._forked_from if refers else None

    def fill(self, others: "Records") -> None:
        """Takes what was taken over from the records of the run that this one was forked from."""
        theirs = {found.step: found for found in others._found.values()}
        for found in self._found.values():
            before = theirs.get(found.step)
            for key in (*found.held, *found.taken_calls, *found.taken_mail):
                if before is not None and key in before.entries:
                    found.entries[key] = before.entries[key]
                    if key in before.calls:
                        found.calls[key] = before.calls[key]


def _cost_of(used: Mapping[str, Any]) -> Cost:
    """What an event says that a call has used. There money is in millionths."""
    return Cost(money=money_text(Decimal(used.get("money", 0)) / 1_000_000), tokens=used.get("tokens", 0))


def money_text(amount: Decimal) -> str:
    """`Decimal("0.010000")` → `0.01`."""
    return f"{amount.normalize():f}"


def outcome_of(key: str, data: Mapping[str, Any], kind: str = "call") -> JournalEntry:
    """The entry of a call, or of a wait, that has ended."""
    error = data.get("error")
    if error is None:
        return JournalEntry(key=key, kind=kind, status="ok", result=data.get("result"))
    told = EntryError(
        type=error["type"], message=error["message"], kind=error.get("kind", "permanent"), file=error.get("file"),
        line=error.get("line"),
    )  # fmt: skip
    return JournalEntry(key=key, kind=kind, status="error", error=told)


MOST_FORKS = 100
"""Forks of forks that are followed."""


async def records_of(run_id: UUID, events: Callable[[UUID], AsyncIterator[Event]]) -> list[Record]:
    """The executions of a run. `events`: gives the events of a run, in the order of the log."""
    chain: list[Records] = []
    following: UUID | None = run_id
    while following is not None and len(chain) < MOST_FORKS:
        records = Records()
        async for event in events(following):
            records.feed(event)
        chain.append(records)
        following = records.forked_from
    for number in range(len(chain) - 2, -1, -1):
        chain[number].fill(chain[number + 1])
    return chain[0].finished()
