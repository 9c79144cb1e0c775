"""For unit tests of agents: run one in memory, with the real `Context`, on a journal that lives in the test.

    outcome = await run_agent(Reviewer, {"path": "a.py"}, tools=[read_file])
    assert outcome.result == ...

To test a crash, give the same journal to a second execution:

    journal = MemoryJournal()
    with pytest.raises(OSError):
        await run_agent(Reviewer, ..., journal=journal)
    await run_agent(Reviewer, ..., journal=journal)     # recorded calls are not repeated
"""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from uuid_utils.compat import uuid7

from tidelog.agent import Agent, describe_agent
from tidelog.calling import keep_process, stop_task
from tidelog.context import Assignment, Context
from tidelog.errors import PermanentError, RecipientOverError, ToolError
from tidelog.failures import tool_failure
from tidelog.journal import EntryError, Journal, JournalEntry, JournalUpdate, Mail, StateValue
from tidelog.tool_classes import AnyTool, tool_of
from tidelog.tools import Tool, ToolContext
from tidelog.values import to_json

Answers = Callable[[str, Any], Any]
"""Called with (recipient, body) of each message the agent sends; the result, unless None, is that recipient's reply."""


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that the agent sent."""

    to: str
    body: Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that was really made (not replayed). `attempt` above 1: a retry."""

    tool: str
    arguments: dict[str, Any]
    attempt: int


@dataclass(slots=True)
class MemoryJournal:
    """The journal of an execution, in memory. Keep the journal to execute again after a "crash"."""

    state: dict[str, Any] = field(default_factory=dict)
    """The shared context of the run."""
    sent: list[SentMessage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    requested: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Tool and arguments of each call by key."""
    run_id: UUID = field(default_factory=uuid7)
    agent_run_id: UUID = field(default_factory=uuid7)
    _entries: dict[str, tuple[int, JournalEntry]] = field(default_factory=dict)
    _mailbox: dict[UUID, tuple[int, Mail]] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _attempts: int = 0
    _version: int = 0
    _followers: list[Callable[[JournalUpdate], None]] = field(default_factory=list)

    def recorded(self) -> dict[str, Any]:
        """Recorded results by key; of a failed call its error as `{type, message, kind, file, line}`."""
        return {
            key: entry.result if entry.error is None else entry.error.model_dump()
            for key, (_, entry) in self._entries.items()
            if entry.status != "pending"
        }

    def deliver(self, sender: str, body: Any) -> None:
        """Put a message into the agent's mailbox."""
        mail = Mail(message_id=uuid7(), sender=sender, body=to_json(body, "the message"), sent_at=datetime.now(UTC))
        self._version += 1
        self._mailbox[mail.message_id] = (self._version, mail)
        self._announce(JournalUpdate(version=self._version, mailbox=(mail,)))

    def record(self, entry: JournalEntry) -> None:
        """Record an entry; a finished one stays as it is."""
        known = self._entries.get(entry.key)
        if known is None or known[1].status == "pending":
            self._version += 1
            self._entries[entry.key] = (self._version, entry)
            self._announce(JournalUpdate(version=self._version, journal=(entry.model_copy(deep=True),)))

    def changes(self, after: int) -> JournalUpdate:
        return JournalUpdate(
            version=self._version,
            journal=tuple(entry.model_copy(deep=True) for version, entry in self._entries.values() if version > after),
            mailbox=tuple(mail for version, mail in self._mailbox.values() if version > after),
        )

    def take_out(self, message_id: UUID) -> Mail:
        return self._mailbox.pop(message_id)[1]

    def next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def find(self, key: str) -> JournalEntry | None:
        known = self._entries.get(key)
        return None if known is None else known[1]

    def write(self, name: str, value: JsonValue, expect: int | None) -> int:
        version = self._versions.get(name, 1 if name in self.state else 0)
        if expect is not None and expect != version:
            raise PermanentError(f"the shared value {name!r} is at version {version}, not {expect}")
        self.state[name] = value
        self._versions[name] = version + 1
        return version + 1

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        self._followers.append(take)

    def leave(self, take: Callable[[JournalUpdate], None]) -> None:
        self._followers.remove(take)

    def _announce(self, update: JournalUpdate) -> None:
        for take in list(self._followers):
            take(update)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an execution.

    `result` is JSON data, as the server gets it. `unused_keys`: recorded keys that were not used again.
    """

    result: Any
    journal: MemoryJournal
    unused_keys: tuple[str, ...]

    @property
    def sent(self) -> list[SentMessage]:
        return self.journal.sent

    @property
    def state(self) -> dict[str, Any]:
        return self.journal.state

    @property
    def calls(self) -> list[ToolCall]:
        return self.journal.calls


class MemoryRecorder:
    """The `Recorder` on a `MemoryJournal`. Calls tools in the test's process."""

    def __init__(
        self,
        journal: MemoryJournal,
        tools: Mapping[str, Tool[..., Any]],
        peers: Sequence[str],
        answers: Answers | None,
        workspace: Path,
        over: Sequence[str] = (),
        on_behalf_of: str | None = None,
    ) -> None:
        self._journal = journal
        self._tools = tools
        self._peers = peers
        self._answers = answers
        self._workspace = workspace
        self._over = over
        self._on_behalf_of = on_behalf_of
        self._calls: set[asyncio.Task[None]] = set()
        self._taking: list[Callable[[JournalUpdate], None]] = []

    async def record_step(self, key: str, result: JsonValue) -> None:
        self._journal.record(JournalEntry(key=key, kind="step", status="ok", result=copy.deepcopy(result)))

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue]) -> None:
        if tool not in self._tools:
            raise ToolError(f"there is no tool {tool!r}; give it in tools=[...]", "permanent", tool)
        entry = JournalEntry(key=key, kind="call", status="pending", invocation_id=uuid7())
        self._journal.record(entry)
        self._journal.requested[key] = (tool, copy.deepcopy(arguments))
        self._start_call(entry, tool, arguments)

    def resume_calls(self) -> None:
        """Tools do not crash with the agent: calls under way at the end of an execution finish in the next execution."""
        for key, (tool, arguments) in self._journal.requested.items():
            entry = self._journal.find(key)
            if entry is not None and entry.status == "pending" and tool in self._tools:
                self._start_call(entry, tool, arguments)

    def _start_call(self, entry: JournalEntry, tool: str, arguments: dict[str, JsonValue]) -> None:
        task = asyncio.create_task(self._call(entry, self._tools[tool], arguments), name=f"tool {tool}")
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, entry: JournalEntry, tool: Tool[..., Any], arguments: dict[str, JsonValue]) -> None:
        attempt = 0
        while True:
            attempt += 1
            self._journal.calls.append(ToolCall(tool.name, arguments, attempt))
            context = ToolContext(self._workspace, str(entry.invocation_id), attempt, on_behalf_of=self._on_behalf_of)
            invocation = asyncio.create_task(tool.invoke(arguments, context))
            try:
                await asyncio.wait({invocation}, timeout=tool.timeout_s)
            finally:
                await stop_task(invocation)
            late = invocation.cancelled() or not invocation.done()
            error = TimeoutError(f"no result within {tool.timeout_s} s") if late else invocation.exception()
            if error is None:
                self._journal.record(entry.model_copy(update={"status": "ok", "result": invocation.result()}))
                return
            report = tool_failure(error)
            if report.kind != "transient" or not tool.idempotent or attempt >= tool.max_attempts:
                failure = EntryError.model_validate(report.model_dump())
                self._journal.record(entry.model_copy(update={"status": "error", "error": failure}))
                return

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        if to not in self._peers:
            raise PermanentError(f"the run has nobody called {to!r}; give peers=[...]")
        if to in self._over:
            raise RecipientOverError(to, "the recipient is completed")
        message_id = uuid7()
        self._journal.sent.append(SentMessage(to, copy.deepcopy(body)))
        self._journal.record(JournalEntry(key=key, kind="send", status="ok", result=str(message_id)))
        answer = None if self._answers is None else self._answers(to, body)
        if answer is not None:
            self._journal.deliver(to, answer)
        return message_id

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        result = None if message_id is None else self._journal.take_out(message_id).model_dump(mode="json")
        self._journal.record(JournalEntry(key=key, kind="receive", status="ok", result=result))

    async def read_state(self, key: str, name: str) -> StateValue:
        value = StateValue(value=copy.deepcopy(self._journal.state.get(name)), found=name in self._journal.state)
        self._journal.record(JournalEntry(key=key, kind="state_get", status="ok", result=value.model_dump(mode="json")))
        return value

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        written = StateValue(value=value, found=True, value_version=self._journal.write(name, copy.deepcopy(value), expect))
        self._journal.record(JournalEntry(key=key, kind="state_set", status="ok", result=written.model_dump(mode="json")))
        return written

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        self._taking.append(take)
        self._journal.follow(take)

    async def news(self, after_version: int) -> JournalUpdate:
        return self._journal.changes(after_version)

    async def close(self) -> None:
        while self._taking:
            self._journal.leave(self._taking.pop())
        for task in list(self._calls):
            await stop_task(task)


async def run_agent(
    agent: type[Agent],
    input: Any = None,
    *,
    tools: Sequence[AnyTool] = (),
    results: Mapping[str, Any] | None = None,
    peers: Sequence[str] = (),
    over: Sequence[str] = (),
    missing: Sequence[str] = (),
    inbox: Sequence[tuple[str, Any]] = (),
    answers: Answers | None = None,
    state: Mapping[str, Any] | None = None,
    workspace: Path | str = ".",
    step_key: str | None = None,
    journal: MemoryJournal | None = None,
    on_behalf_of: str | None = None,
) -> Outcome:
    """Execute an agent like a worker, and return the outcome. An exception of the agent is raised here.

    inbox: (sender, body) of messages that wait for the agent. answers: replies of its peers, see `Answers`. state: the shared
    context at the start. journal: the journal of an earlier execution, to continue it; inbox and state then come from the journal.
    on_behalf_of: for whom the run is.
    over: peers that have ended; `send` to them raises `RecipientOverError`.

    Raises:
        DefinitionError: the agent or a tool is not well-formed.
    """
    definition = describe_agent(agent)
    known = {tool.describe().name: tool for tool in map(tool_of, tools)}
    journal = MemoryJournal() if journal is None else journal
    attempt = journal.next_attempt()
    if attempt == 1:
        journal.state.update({name: to_json(value, f"the shared value {name!r}") for name, value in (state or {}).items()})
        for sender, body in inbox:
            journal.deliver(sender, body)
    recorder = MemoryRecorder(journal, known, tuple(peers), answers, Path(workspace), over, on_behalf_of)
    recorder.resume_calls()
    key = step_key or definition.name
    given = to_json(dict(results or {}), "the results")
    assert isinstance(given, dict)
    assignment = Assignment(
        journal.run_id,
        journal.agent_run_id,
        attempt,
        key,
        definition.name,
        to_json(input, "the input"),
        given,
        tuple(peers),
        tuple(missing),
        on_behalf_of,
    )
    recorded = journal.changes(0)
    context = Context(assignment, Journal(recorded.version, recorded.journal, recorded.mailbox), recorder)
    try:
        with keep_process():
            result = to_json(await agent().execute(context), "the agent's result")
    finally:
        context.close()
        await recorder.close()
    return Outcome(result, journal, context.unused_keys())
