"""The journal of an execution, in memory, with what the kit has seen of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from pydantic import JsonValue
from uuid_utils.compat import uuid7

from tidelog.errors import PermanentError
from tidelog.failures import ErrorReport
from tidelog.journal import Child, EntryError, JournalEntry, JournalUpdate, Mail, Wait
from tidelog.progress import Progress
from tidelog.testing.spending import Spending
from tidelog.values import to_json


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message that the agent sent."""

    to: str
    body: Any


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that was really made (not replayed). `attempt` above 1: a retry.

    `key`: that of `ctx.tool`. `idempotency_key`: the same in all attempts of one call. `at`: when, by the clock of the test.
    """

    tool: str
    arguments: dict[str, Any]
    attempt: int
    key: str = field(default="", compare=False)
    idempotency_key: str = field(default="", compare=False)
    at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Written:
    """An entry that was written into the journal. `what`: `step`, `call`, `call ok`, `call error`, `send`, `receive`, …"""

    number: int
    key: str
    what: str

    def __str__(self) -> str:
        told = {
            "call": "the call {} was requested", "call ok": "the result of {} was recorded", "call error": "{} failed",
            "sleep": "the sleep {} began", "sleep ok": "the sleep {} ended", "signal": "the wait {} began",
            "signal ok": "{} got its signal", "signal error": "{} got no signal",
            "approval": "the question {} was asked", "approval ok": "the question {} was answered",
        }  # fmt: skip
        return told.get(self.what, f"the {self.what} {{}} was recorded").format(repr(self.key))


@dataclass(slots=True)
class CallState:
    """How far a call has come: what the server keeps of an invocation."""

    attempt: int = 0
    called: int = 0
    failures: int = 0
    lost: int = 0
    ambiguous: str | None = None
    """Why a person must say what became of the call."""
    asking: bool = False
    """The tool's `reconcile` function is being asked."""
    doubt: ErrorReport | None = None
    """What the worker of an attempt reported whose effect is in doubt."""


@dataclass(slots=True)
class MemoryJournal:
    """The journal of an execution, in memory. Keep the journal to execute again after a "crash"."""

    state: dict[str, Any] = field(default_factory=dict)
    """The shared context of the run."""
    sent: list[SentMessage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    requested: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    """Tool and arguments of each call by key."""
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The definitions of the schedules that there are, by the names that the agent gave."""
    run_id: UUID = field(default_factory=uuid7)
    agent_run_id: UUID = field(default_factory=uuid7)
    _entries: dict[str, tuple[int, JournalEntry]] = field(default_factory=dict)
    _mailbox: dict[UUID, tuple[int, Mail]] = field(default_factory=dict)
    _versions: dict[str, int] = field(default_factory=dict)
    _attempts: int = 0
    _version: int = 0
    _followers: list[Callable[[JournalUpdate], None]] = field(default_factory=list)
    asked: list[ToolCall] = field(default_factory=list)
    """The calls of `reconcile` functions."""
    written: list[Written] = field(default_factory=list)
    """Every entry, in order: a call is written when it is requested, and when it ends."""
    lost: dict[str, JsonValue | ErrorReport] = field(default_factory=dict)
    """What a worker saw that vanished by `crash_at` after a call, by idempotency key: nobody else heard of it."""
    waits: dict[str, tuple[JournalEntry, Wait, datetime | None]] = field(default_factory=dict)
    """What the agent waits for, or has waited for, by key: its entry, and its end."""
    children: dict[str, Any] = field(default_factory=dict)
    """Name of an agent or workflow → the result of a child run, or a function that makes it of the input."""
    started: list[tuple[str, Any]] = field(default_factory=list)
    """Name and input of each child run that was started."""
    progress: list[Progress] = field(default_factory=list)
    """What the agent has said of its progress, without repeats in a row."""
    spending: Spending = field(default_factory=Spending)
    """What the calls have cost, and may cost."""
    _signals: list[tuple[str, Any]] = field(default_factory=list)
    _calls: dict[str, CallState] = field(default_factory=dict)
    _mails: int = 0
    _now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _on_written: Callable[[Written], None] | None = None

    def recorded(self) -> dict[str, Any]:
        """Recorded results by key; of a failed call its error as `{type, message, kind, file, line}`."""
        return {
            key: entry.result if entry.error is None else entry.error.model_dump()
            for key, (_, entry) in self._entries.items()
            if entry.status != "pending"
        }

    def deliver(self, sender: str, body: Any) -> None:
        """Put a message into the agent's mailbox."""
        self._mails += 1
        message_id = self.id_of(f"mail {self._mails}")
        self.put_mail(Mail(message_id=message_id, sender=sender, body=to_json(body, "the message"), sent_at=self._now()))

    def put_mail(self, mail: Mail) -> None:
        self._version += 1
        self._mailbox[mail.message_id] = (self._version, mail)
        self._announce(JournalUpdate(version=self._version, mailbox=(mail,)))

    def signal(self, name: str, payload: Any = None) -> None:
        """Send a signal. The first `ctx.signal` of this name gets it, also a later one."""
        self._signals.append((name, to_json(payload, "the payload")))
        for key, (_, wait, _) in list(self.waits.items()):
            if wait.kind == "signal" and self.hand_out(wait.name, key):
                return

    def child_of(self, key: str, child: Child, fingerprint: str) -> JournalEntry:
        """The entry of a child run. Raises PermanentError for one that the test does not know."""
        name = child.name
        if name not in self.children:
            raise PermanentError(f"there is no agent or workflow {name!r} for a child run; give children={{...}}")
        made = self.children[name]
        self.started.append((name, child.input))
        entry = JournalEntry(key=key, kind="child", status="ok", fingerprint=fingerprint)
        try:
            return entry.model_copy(update={"result": to_json(made(child.input) if callable(made) else made, "the result")})
        except Exception as error:  # noqa: BLE001  # of the test: the child run fails with it
            failed = EntryError(type=type(error).__name__, message=str(error), kind="permanent")
            return entry.model_copy(update={"status": "error", "error": failed})

    def hand_out(self, name: str | None, key: str) -> bool:
        """Ends the open wait of a key with the oldest signal of a name, if there is one."""
        sent = next((place for place, (of, _) in enumerate(self._signals) if of == name), None)
        entry, wait, _ = self.waits[key]
        if wait.kind != "signal" or sent is None or self.is_settled(key):
            return False
        self.record(entry.model_copy(update={"status": "ok", "result": self._signals.pop(sent)[1]}))
        return True

    def is_settled(self, key: str) -> bool:
        known = self._entries.get(key)
        return known is not None and known[1].status != "pending"

    def record(self, entry: JournalEntry) -> None:
        """Record an entry; a finished one stays as it is."""
        known = self._entries.get(entry.key)
        if known is None or known[1].status == "pending":
            self._version += 1
            self._entries[entry.key] = (self._version, entry)
            ends = known is not None and entry.status != "pending"
            what = f"{entry.kind} {entry.status}" if ends or (entry.kind == "call" and entry.status != "pending") else entry.kind
            written = Written(len(self.written) + 1, entry.key, what)
            self.written.append(written)
            if self._on_written is not None:
                self._on_written(written)
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

    @property
    def attempts(self) -> int:
        """How often the agent was executed."""
        return self._attempts

    def find(self, key: str) -> JournalEntry | None:
        known = self._entries.get(key)
        return None if known is None else known[1]

    def id_of(self, name: str) -> UUID:
        """An id that is the same for the same name, as those of calls are on a server."""
        return uuid5(self.agent_run_id, name)

    def call_state(self, key: str) -> CallState:
        return self._calls.setdefault(key, CallState())

    def write(self, name: str, value: JsonValue, expect: int | None) -> int:
        version = self._versions.get(name, 1 if name in self.state else 0)
        if expect is not None and expect != version:
            raise PermanentError(f"the shared value {name!r} is at version {version}, not {expect}")
        self.state[name] = value
        self._versions[name] = version + 1
        return version + 1

    def schedule(self, name: str, definition: dict[str, Any], in_s: float | None) -> str | None:
        """Puts a schedule. Returns its first time, but of cron, which the kit does not read."""
        now = self._now()
        if in_s is not None:
            definition = {**definition, "when": {"at": (now + timedelta(seconds=in_s)).isoformat()}}
        when = definition["when"]
        at: str | None = when.get("at")
        if at is not None and datetime.fromisoformat(at) <= now:
            raise PermanentError(f"the schedule {name!r} would never be due: the time has passed")
        self.schedules[name] = definition
        return (now + timedelta(seconds=when["every_s"])).isoformat() if "every_s" in when else at

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        self._followers.append(take)

    def leave(self, take: Callable[[JournalUpdate], None]) -> None:
        if take in self._followers:
            self._followers.remove(take)

    def watch(self, now: Callable[[], datetime], on_written: Callable[[Written], None]) -> None:
        """From now on the journal has this clock, and tells of each entry before the agent hears of it."""
        self._now, self._on_written = now, on_written

    def _announce(self, update: JournalUpdate) -> None:
        for take in list(self._followers):
            take(update)
