"""Replay of a recorded execution: an agent's present code runs against the journal of an execution of before, without any effect.

No tool is called, nothing is sent and nothing is written. What the code does differently is reported.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid5

from pydantic import JsonValue

from tidelog.agent import Agent, describe_agent
from tidelog.calling import call, keep_process, stop_task
from tidelog.context import Assignment, Context, State
from tidelog.failures import agent_failure
from tidelog.journal import Child, Journal, JournalEntry, JournalUpdate, StateValue, Wait
from tidelog.progress import Progress
from tidelog.testing.records import Record, money_text
from tidelog.values import to_json

What = Literal[
    "missing key", "left-over key", "other kind", "other tool", "other arguments", "other message", "other value",
    "other recorded result", "other result", "other outcome",
]  # fmt: skip
_HERE = UUID("018f0000-0000-7000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Divergence:
    """What the code does differently. `key`: of the journal. `recorded`, `now`: the values, as far as there are any."""

    step: str
    what: What
    key: str | None = None
    recorded: Any = None
    now: Any = None

    def __str__(self) -> str:
        of = f" '{self.key}'" if self.key is not None else ""
        return f"step '{self.step}': {self.what}{of}"

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Replayed:
    """`end`: `completed` or `failed`, as the code of now ended; `diverged`: a key is missing without which it cannot go on;
    `beyond`: it went on beyond the end of an execution that had not completed, which is no divergence."""

    step: str
    agent: str
    end: Literal["completed", "failed", "diverged", "beyond"] = "completed"
    result: Any = None
    error: Any = None
    divergences: list[Divergence] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    """Tool → how often the code asked for it."""
    unrecorded: dict[str, int] = field(default_factory=dict)
    """Of these, the calls that were not recorded: nobody knows what they would have cost."""
    money: str = "0"
    """What the others had cost."""
    tokens: int = 0

    def document(self) -> dict[str, Any]:
        return asdict(self)


class _StoppedError(BaseException):
    """The execution cannot go on. Not an `Exception`: an agent's own handler must not take it for a failure of a call."""


class _ReadOnly:
    """The `Recorder` of a replay: whatever is not in the journal stops the replay."""

    def __init__(self, stop: Callable[[str, str, Any], None], record: Record) -> None:
        self._stop = stop
        self._record = record

    async def start_wait(self, key: str, wait: Wait) -> None:
        self._stop(key, wait.kind, None)

    async def start_child(self, key: str, child: Child, fingerprint: str) -> None:
        self._stop(key, "child", None)

    async def record_step(self, key: str, result: JsonValue, fingerprint: str | None = None) -> None:
        """Only functions that a replay is told to run come here."""

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue], fingerprint: str | None = None) -> None:
        self._stop(key, "call", {"tool": tool, "arguments": arguments})

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        self._stop(key, "send", {"to": to, "body": body})
        return uuid5(_HERE, key)

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        self._stop(key, "receive", None)

    async def read_state(self, key: str, name: str) -> StateValue:
        self._stop(key, "state_get", {"name": name})
        return StateValue()

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        self._stop(key, "state_set", {"name": name, "value": value})
        return StateValue()

    async def put_schedule(self, key: str, name: str, definition: dict[str, JsonValue], in_s: float | None) -> JsonValue:
        self._stop(key, "schedule", {"name": name})
        return None

    async def remove_schedule(self, key: str, name: str, reason: str | None) -> JsonValue:
        self._stop(key, "unschedule", {"name": name})
        return None

    def report_progress(self, progress: Progress) -> None: ...

    def follow(self, take: Callable[[JournalUpdate], None]) -> None: ...

    async def news(self, after_version: int) -> JournalUpdate:
        return JournalUpdate(version=after_version)


class _ReplayContext(Context):
    """A context that compares what the code asks for with what was recorded under the same key."""

    def __init__(self, assignment: Assignment, journal: Journal, recorder: _ReadOnly, replay: "_Replay") -> None:
        super().__init__(assignment, journal, recorder)
        self._replay = replay
        self.state = _ReplayState(journal, recorder, replay)

    async def _waited(self, key: str, wait: Wait) -> JournalEntry:
        entry = self._replay.entry(key, wait.kind)
        if entry is None or entry.status == "pending":
            self._replay.stop(key, wait.kind, None)
        return await super()._waited(key, wait)

    async def _child(self, key: str, child: Child, fingerprint: str) -> Any:
        entry = self._replay.entry(key, "child")
        if entry is None or entry.status == "pending":
            self._replay.stop(key, "child", None)
        return await super()._child(key, child, fingerprint)

    async def _step(
        self, key: str, fingerprint: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> JsonValue:
        entry = self._replay.entry(key, "step")
        if entry is not None and not self._replay.run_steps:
            return entry.result
        if entry is None and not self._replay.run_steps:
            self._replay.stop(key, "step", None)
        result = to_json(await call(fn, args, kwargs), f"the result of step {key!r}")
        if entry is None:
            self._replay.missing(key, "step", None)
            return result
        if not _same(entry.result, result):
            self._replay.note("other recorded result", key, entry.result, result)
        return entry.result

    async def _tool(self, key: str, fingerprint: str, name: str, arguments: dict[str, JsonValue]) -> JsonValue:
        self._replay.count(key, name)
        asked = {"tool": name, "arguments": to_json(arguments, f"the arguments of tool {name!r}")}
        entry = self._replay.entry(key, "call", asked)
        if entry is None or entry.status == "pending":
            self._replay.stop(key, "call", asked)
        recorded = self._replay.record.calls.get(key)
        if recorded is not None and recorded.tool != name:
            self._replay.note("other tool", key, recorded.tool, name)
        elif recorded is not None and not _same(recorded.arguments, asked["arguments"]):
            self._replay.note("other arguments", key, recorded.arguments, asked["arguments"])
        return await super()._tool(key, fingerprint, name, arguments)

    async def _send(self, key: str, to: str, body: Any) -> UUID:
        said = {"to": to, "body": to_json(body, f"the message to {to!r}")}
        if self._replay.entry(key, "send", said) is None:
            self._replay.stop(key, "send", said)
        recorded = self._replay.record.sent.get(key)
        if recorded is not None and not _same(recorded, said):
            self._replay.note("other message", key, recorded, said)
        return await super()._send(key, to, body)

    async def _receive(self, key: str, timeout_s: float, sender: str | None) -> Any:
        if self._replay.entry(key, "receive") is None:
            self._replay.stop(key, "receive", None)
        return await super()._receive(key, timeout_s, sender)


class _ReplayState(State):
    def __init__(self, journal: Journal, recorder: _ReadOnly, replay: "_Replay") -> None:
        super().__init__(journal, recorder)
        self._replay = replay

    async def _get(self, key: str, name: str, default: Any) -> Any:
        entry = self._replay.entry(key, "state_get")
        if entry is not None and isinstance(entry.result, dict) and entry.result.get("name", name) != name:
            self._replay.note("other value", key, {"name": entry.result["name"]}, {"name": name})
        return await super()._get(key, name, default)

    async def _set(self, key: str, name: str, value: Any, expect: int | None) -> None:
        now = {"name": name, "value": to_json(value, f"the shared value {name!r}")}
        entry = self._replay.entry(key, "state_set")
        if entry is not None and isinstance(entry.result, dict):
            recorded = {"name": entry.result.get("name", name), "value": entry.result.get("value")}
            if not _same(recorded, now):
                self._replay.note("other value", key, recorded, now)
        await super()._set(key, name, value, expect)


class _Replay:
    def __init__(self, record: Record, run_steps: bool) -> None:
        self.record, self.run_steps = record, run_steps
        self.replayed = Replayed(record.step, record.agent)
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._entries = {entry.key: entry for entry in record.entries}

    def entry(self, key: str, kind: str, now: Any = None) -> JournalEntry | None:
        found = self._entries.get(key)
        if found is not None and found.kind != kind:
            self.note("other kind", key, found.kind, kind)
            self._end("diverged")
        return found

    def count(self, key: str, tool: str) -> None:
        replayed, recorded = self.replayed, self.record.calls.get(key)
        replayed.calls[tool] = replayed.calls.get(tool, 0) + 1
        if recorded is None or recorded.tool != tool:
            replayed.unrecorded[tool] = replayed.unrecorded.get(tool, 0) + 1
        elif recorded.cost is not None:
            replayed.money = money_text(Decimal(replayed.money) + Decimal(recorded.cost.money or "0"))
            replayed.tokens += recorded.cost.tokens or 0

    def note(self, what: What, key: str | None, recorded: Any, now: Any) -> None:
        self.replayed.divergences.append(Divergence(self.record.step, what, key, recorded, now))

    def missing(self, key: str, kind: str, now: Any) -> None:
        if self.record.outcome == "completed":
            self.note("missing key", key, None, {"kind": kind} if now is None else {"kind": kind, **now})

    def stop(self, key: str, kind: str, now: Any) -> None:
        """Ends the replay at a key that is not in the journal."""
        self.missing(key, kind, now)
        self._end("diverged" if self.record.outcome == "completed" else "beyond")

    def _end(self, end: Literal["diverged", "beyond"]) -> None:
        self.replayed.end = end
        if not self.stopped.done():
            self.stopped.set_result(None)
        raise _StoppedError


async def replay_agent(agent: type[Agent], record: Record, *, run_steps: bool = False) -> Replayed:
    """Runs the agent's present code against a recorded execution, and reports what it does differently.

    A key of the journal gives the recorded result. `run_steps`: functions of `ctx.step` run, and their results are compared.
    """
    describe_agent(agent)
    replay = _Replay(record, run_steps)
    assignment = Assignment(
        record.run_id, record.agent_run_id, record.attempt, record.step, record.agent, record.input, record.results, record.peers,
        record.missing, record.on_behalf_of,
    )  # fmt: skip
    journal = Journal(len(record.entries), record.entries, ())
    context = _ReplayContext(assignment, journal, _ReadOnly(replay.stop, record), replay)

    async def execute() -> Any:
        with keep_process():
            return to_json(await agent().execute(context), "the agent's result")

    task = asyncio.create_task(_caught(execute()), name=f"replay {record.agent}")
    either: set[asyncio.Future[Any]] = {task, replay.stopped}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = task.done()
        await stop_task(task)
        context.close()
    if not replay.stopped.done() and ended:
        _compare_end(replay, task, context)
    return replay.replayed


async def _caught(execution: Any) -> Any:
    """A stop inside of the execution is told by `stopped`."""
    try:
        return await execution
    except _StoppedError:
        return None


def _compare_end(replay: _Replay, task: "asyncio.Task[Any]", context: Context) -> None:
    record, replayed = replay.record, replay.replayed
    error = task.exception() if not task.cancelled() else asyncio.CancelledError()
    if error is None:
        replayed.result = task.result()
    else:
        told = agent_failure(error)
        replayed.end, replayed.error = "failed", {"type": told.type, "message": told.message}
    for key in context.unused_keys():
        replay.note("left-over key", key, None, None)
    if record.outcome in ("completed", "failed") and replayed.end != record.outcome:
        now = replayed.result if error is None else replayed.error
        replay.note("other outcome", None, {record.outcome: record.result or record.error}, {replayed.end: now})
    elif record.outcome == "completed" and not _same(record.result, replayed.result):
        replay.note("other result", None, record.result, replayed.result)
    elif record.outcome == "failed" and record.error is not None and replayed.error != dict(record.error):
        replay.note("other outcome", None, {"failed": dict(record.error)}, {"failed": replayed.error})


def _same(one: Any, other: Any) -> bool:
    from json import dumps

    return one is other or dumps(one, sort_keys=True) == dumps(other, sort_keys=True)


async def replay_agents(
    agents: Iterable[type[Agent]], records: Iterable[Record], *, run_steps: bool = False
) -> tuple[list[Replayed], list[Record]]:
    """Replays each record whose agent is among the given ones. Also returns the records that have none."""
    known: Mapping[str, type[Agent]] = {describe_agent(agent).name: agent for agent in agents}
    replayed, left = [], []
    for record in records:
        if record.agent in known:
            replayed.append(await replay_agent(known[record.agent], record, run_steps=run_steps))
        else:
            left.append(record)
    return replayed, left
