"""The `Recorder` of the kit, and the life of one execution: it may crash at an entry of its journal."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import JsonValue

from tidelog.errors import PermanentError, RecipientOverError, ToolError
from tidelog.journal import Child, JournalEntry, JournalUpdate, StateValue, Wait
from tidelog.progress import Progress
from tidelog.testing.clock import KitClock, RealClock
from tidelog.testing.journal import MemoryJournal, SentMessage, Written
from tidelog.testing.ledger import Ledger
from tidelog.testing.waits import KitWaits
from tidelog.tools import InvalidArgumentsError, Tool

Answers = Callable[[str, Any], Any]
"""Called with (recipient, body) of each message the agent sends; the result, unless None, is that recipient's reply."""


@dataclass(slots=True)
class Life:
    """One execution of the agent. `entry`: the entry of the journal at which it crashes; None: it does not.

    `before`: it crashes when the step of that entry is done, and before the entry is written.
    """

    entry: int | None = None
    before: bool = False
    crashed: asyncio.Event = field(default_factory=asyncio.Event)
    on_crash: list[Callable[[], None]] = field(default_factory=list)

    def crash(self) -> None:
        if not self.crashed.is_set():
            self.crashed.set()
            for call in self.on_crash:
                call()

    def check(self) -> None:
        """Code of an agent that has crashed goes no further."""
        if self.crashed.is_set():
            raise asyncio.CancelledError("the agent has crashed")

    def about_to_write(self, number: int) -> None:
        self.check()
        if self.before and number == self.entry:
            self.crash()
            self.check()

    def written(self, entry: Written) -> None:
        if not self.before and entry.number == self.entry:
            self.crash()


class KitPlace:
    """The place of an execution: tells the clock of its steps. An agent that has crashed begins no step."""

    def __init__(self, life: Life, clock: KitClock) -> None:
        self._life = life
        self._clock = clock

    def waiting(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        self._life.check()
        with self._clock.working(step=True):
            yield


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
        *,
        clock: KitClock | None = None,
        ledger: Ledger | None = None,
        life: Life | None = None,
        agent: str = "agent",
    ) -> None:
        self._journal = journal
        self._agent = agent
        self._tools = tools
        self._peers = peers
        self._answers = answers
        self._over = over
        clock = clock or RealClock()
        self._own = ledger is None
        self._ledger = ledger or Ledger(journal, tools, workspace, on_behalf_of=on_behalf_of, clock=clock)
        self._life = life or Life()
        self._waits = KitWaits(journal, clock)
        self._life.on_crash.append(self._leave)
        self._taking: list[Callable[[JournalUpdate], None]] = []
        journal.watch(clock.now, self._life.written)

    async def record_step(self, key: str, result: JsonValue, fingerprint: str | None = None) -> None:
        self._life.about_to_write(len(self._journal.written) + 1)
        entry = JournalEntry(key=key, kind="step", status="ok", result=copy.deepcopy(result), fingerprint=fingerprint)
        self._record(entry)

    async def start_wait(self, key: str, wait: Wait) -> None:
        self._life.check()
        self._waits.start(key, wait)
        self._life.check()
        if wait.kind == "approval":
            self._ledger.ask(self._journal.waits[key][0], wait)

    async def start_child(self, key: str, child: Child, fingerprint: str) -> None:
        self._life.check()
        self._record(self._journal.child_of(key, child, fingerprint))

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue], fingerprint: str | None = None) -> None:
        self._life.check()
        if tool not in self._tools:
            raise ToolError(f"there is no tool {tool!r}; give it in tools=[...]", "permanent", tool)
        _refuse(self._tools[tool], arguments)
        entry = JournalEntry(
            key=key, kind="call", status="pending", invocation_id=self._journal.id_of(f"call {key}"), fingerprint=fingerprint
        )
        self._journal.requested[key] = (tool, copy.deepcopy(arguments))
        self._journal.record(entry)
        self._ledger.start(entry, tool, arguments)
        self._life.check()

    def resume_calls(self) -> None:
        """Tools and clocks do not crash with the agent: calls and waits under way at the end of an execution finish in the next."""
        self._ledger.resume()
        self._waits.resume()

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        self._life.check()
        if to not in self._peers:
            raise PermanentError(f"the run has nobody called {to!r}; give peers=[...]")
        if to in self._over:
            raise RecipientOverError(to, "the recipient is completed")
        message_id = self._journal.id_of(f"send {key}")
        self._journal.sent.append(SentMessage(to, copy.deepcopy(body)))
        self._journal.record(JournalEntry(key=key, kind="send", status="ok", result=str(message_id)))
        answer = None if self._answers is None else self._answers(to, body)
        if answer is not None:
            self._journal.deliver(to, answer)
        self._life.check()
        return message_id

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        self._life.check()
        result = None if message_id is None else self._journal.take_out(message_id).model_dump(mode="json")
        self._record(JournalEntry(key=key, kind="receive", status="ok", result=result))

    async def read_state(self, key: str, name: str) -> StateValue:
        self._life.check()
        value = StateValue(value=copy.deepcopy(self._journal.state.get(name)), found=name in self._journal.state)
        self._record(JournalEntry(key=key, kind="state_get", status="ok", result=value.model_dump(mode="json")))
        return value

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        self._life.check()
        written = StateValue(value=value, found=True, value_version=self._journal.write(name, copy.deepcopy(value), expect))
        self._record(JournalEntry(key=key, kind="state_set", status="ok", result=written.model_dump(mode="json")))
        return written

    async def put_schedule(self, key: str, name: str, definition: dict[str, JsonValue], in_s: float | None) -> JsonValue:
        self._life.check()
        next_at = self._journal.schedule(name, copy.deepcopy(definition), in_s)
        status = "active"
        result: JsonValue = {"did": "scheduled", "name": f"{self._agent}.{name}", "status": status, "next_at": next_at}
        self._record(JournalEntry(key=key, kind="step", status="ok", result=result))
        return result

    async def remove_schedule(self, key: str, name: str, reason: str | None) -> JsonValue:
        self._life.check()
        was_there = self._journal.schedules.pop(name, None) is not None
        result: JsonValue = {"did": "unscheduled", "name": f"{self._agent}.{name}", "was_there": was_there}
        self._record(JournalEntry(key=key, kind="step", status="ok", result=result))
        return result

    def report_progress(self, progress: Progress) -> None:
        self._life.check()
        if self._journal.progress[-1:] != [progress]:
            self._journal.progress.append(progress)

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        self._taking.append(take)
        self._journal.follow(take)

    async def news(self, after_version: int) -> JournalUpdate:
        self._life.check()
        return self._journal.changes(after_version)

    async def close(self) -> None:
        self._leave()
        await self._waits.close()
        if self._own:
            await self._ledger.close()

    def _record(self, entry: JournalEntry) -> None:
        """Records, and lets nobody hear of it who has crashed in that moment."""
        self._journal.record(entry)
        self._life.check()

    def _leave(self) -> None:
        while self._taking:
            self._journal.leave(self._taking.pop())


def _refuse(tool: Tool[..., Any], arguments: Mapping[str, JsonValue]) -> None:
    """Raises ToolError for arguments that break the tool's schema, as the server does, which has no other check of the tool."""
    try:
        tool.validate(arguments)
    except InvalidArgumentsError as error:
        if error.__cause__ is None:
            raise ToolError(str(error), "invalid", tool.name) from error
