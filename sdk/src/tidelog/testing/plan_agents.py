"""An agent of a plan in the kit: its messages, its shared state, its signals and child runs go by way of the engine."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from pydantic import JsonValue

from tidelog.errors import PermanentError, RecipientOverError
from tidelog.journal import Child, JournalEntry, Mail, StateValue, Wait
from tidelog.testing.clock import KitClock
from tidelog.testing.engines import PlanEngine
from tidelog.testing.journal import MemoryJournal, SentMessage
from tidelog.testing.recorder import KitPlace, Life, MemoryRecorder
from tidelog.testing.runs import KitPlan

T = TypeVar("T")
ENDED = frozenset({"work-over", "stale-attempt"})
"""Codes of refusals: the attempt has ended, and its agent is being stopped."""


@dataclass(slots=True)
class Busy:
    """Tells the clock of the test whether an agent is at work, or only waits for something."""

    clock: KitClock
    waits: int = 0
    _block: AbstractContextManager[None] | None = None

    def begin(self) -> None:
        self._block = self.clock.working(step=True)
        self._block.__enter__()

    def end(self) -> None:
        if self._block is not None:
            self._block.__exit__(None, None, None)
            self._block = None

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        self.waits += 1
        self.end()
        try:
            yield
        finally:
            self.waits -= 1
            if not self.waits and self._block is None:
                self.begin()


class PlanPlace(KitPlace):
    def __init__(self, life: Life, clock: KitClock, busy: Busy) -> None:
        super().__init__(life, clock)
        self._busy = busy

    def waiting(self) -> Any:
        return self._busy.waiting()


@dataclass(slots=True)
class AgentOfPlan(KitPlan):
    """An attempt of an agent run, between the kit and the engine. `changed`: something follows for others."""

    engine: PlanEngine
    agent_run_id: UUID
    attempt: int
    journal: MemoryJournal
    clock: KitClock
    changed: Callable[[], None]
    busy: Busy = field(init=False)
    seen: int = 0

    def __post_init__(self) -> None:
        self.busy = Busy(self.clock)

    def place(self, life: Life, clock: KitClock) -> KitPlace:
        return PlanPlace(life, clock, self.busy)

    def recorder(self, *given: Any, **named: Any) -> MemoryRecorder:
        return PlanRecorder(self, *given, **named)

    async def ask(self, asked: Awaitable[T], to: str = "") -> T:
        """A refusal is the error that the agent of a worker gets."""
        with self.clock.working(step=True):
            try:
                return await asked
            except Exception as error:
                code = getattr(error, "code", None)
                if code is None:
                    raise
                if code in ENDED:
                    raise asyncio.CancelledError("the attempt has ended") from error
                if code == "recipient-over":
                    raise RecipientOverError(to, str(error)) from error
                raise PermanentError(str(error)) from error
            finally:
                self.changed()

    async def hear(self) -> None:
        """Puts what came from outside the agent into its journal."""
        while True:
            news = await self.engine.news(self.agent_run_id, self.seen)
            self.seen = news["version"]
            for entry in news["entries"]:
                if (known := self.journal.find(entry["key"])) is not None and known.status == "pending":
                    self.journal.record(JournalEntry.model_validate(entry))
            for mail in news["mail"]:
                self.journal.put_mail(Mail.model_validate(mail))
            if not news["more"]:
                return


class PlanRecorder(MemoryRecorder):
    """The recorder of the kit, of an agent that is not alone."""

    def __init__(self, at: AgentOfPlan, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._at = at
        self._id = (at.agent_run_id, at.attempt)

    async def start_wait(self, key: str, wait: Wait) -> None:
        if wait.kind != "signal":
            await super().start_wait(key, wait)
            return
        self._life.check()
        self._journal.record(JournalEntry(key=key, kind="signal", status="pending", fingerprint=wait.fingerprint))
        asked = self._at.engine.await_signal(*self._id, key, wait.name or "", wait.delay_s, wait.fingerprint)
        await self._at.ask(asked)
        self._life.check()

    async def start_child(self, key: str, child: Child, fingerprint: str) -> None:
        self._life.check()
        said = {
            "agent": child.agent, "workflow": child.workflow, "version": child.version, "input": child.input, "plan": child.plan,
        }  # fmt: skip
        await self._at.ask(self._at.engine.start_child(*self._id, key, fingerprint, said))
        self._journal.started.append((child.name, child.input))
        self._record(JournalEntry(key=key, kind="child", status="pending", fingerprint=fingerprint))

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID:
        self._life.check()
        message_id = await self._at.ask(self._at.engine.send(*self._id, key, to, copy.deepcopy(body)), to)
        self._journal.sent.append(SentMessage(to, copy.deepcopy(body)))
        self._record(JournalEntry(key=key, kind="send", status="ok", result=str(message_id)))
        return message_id

    async def record_receipt(self, key: str, message_id: UUID | None) -> None:
        self._life.check()
        await self._at.ask(self._at.engine.receive(*self._id, key, message_id))
        await super().record_receipt(key, message_id)

    async def read_state(self, key: str, name: str) -> StateValue:
        self._life.check()
        value = StateValue.model_validate(await self._at.ask(self._at.engine.get(*self._id, key, name)))
        self._record(JournalEntry(key=key, kind="state_get", status="ok", result=value.model_dump(mode="json")))
        return value

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue:
        self._life.check()
        asked = self._at.engine.set(*self._id, key, name, copy.deepcopy(value), expect)
        written = StateValue.model_validate(await self._at.ask(asked))
        self._journal.state[name] = copy.deepcopy(value)
        self._record(JournalEntry(key=key, kind="state_set", status="ok", result=written.model_dump(mode="json")))
        return written
