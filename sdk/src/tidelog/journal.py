"""The journal of an execution: recorded results by key, and mail that has not been received yet.

`Recorder` is the port behind a `Context`: the server (worker) or memory (testing kit) implements it.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue

from tidelog.errors import ChangedCallError, DuplicateKeyError, PermanentError
from tidelog.progress import Progress

MAX_KEY_LENGTH = 500
LONG_S = 5.0
"""A sleep of more seconds is a long one."""


class EntryError(BaseModel):
    """Why a recorded call failed. `kind`, `file` and `line` as in `ToolError`."""

    model_config = ConfigDict(frozen=True)
    type: str
    message: str
    kind: str
    file: str | None = None
    line: int | None = None


class JournalEntry(BaseModel):
    """The recorded outcome of one call under its key; `pending` while a tool is still at work."""

    model_config = ConfigDict(frozen=True)
    key: str
    kind: str
    status: Literal["ok", "error", "pending"]
    result: JsonValue = None
    error: EntryError | None = None
    invocation_id: UUID | None = None
    fingerprint: str | None = None
    """Of kind, name and arguments of the call; see `tidelog.fingerprints`. None: not known, it fits every call."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What an agent waits for. `delay_s`, `until`: the end of a sleep; of another wait, the time after which it fails."""

    kind: Literal["sleep", "signal", "approval"]
    name: str | None = None
    delay_s: float | None = None
    until: datetime | None = None
    fingerprint: str | None = None
    question: Mapping[str, JsonValue] | None = None
    """Of an approval: `title`, `details`, and who must answer."""

    @property
    def is_long(self) -> bool:
        """Whether it is known to take long. People do."""
        if self.kind == "approval":
            return True
        if self.kind != "sleep":
            return False
        return self.until is not None or (self.delay_s or 0.0) > LONG_S


@dataclass(frozen=True, slots=True)
class Child:
    """A run that an agent starts: of an agent, of a workflow, or of a plan."""

    agent: str | None
    workflow: str | None
    version: int | None
    input: JsonValue
    plan: JsonValue = None

    @property
    def name(self) -> str:
        return self.workflow or self.agent or "plan"


class Mail(BaseModel):
    """A message in the mailbox."""

    model_config = ConfigDict(frozen=True)
    message_id: UUID
    sender: str
    body: JsonValue
    sent_at: datetime | None = None


class JournalUpdate(BaseModel):
    """New or changed entries and new mail, up to `version`. `more`: there are further ones behind it."""

    model_config = ConfigDict(frozen=True)
    version: int
    journal: tuple[JournalEntry, ...] = ()
    mailbox: tuple[Mail, ...] = ()
    more: bool = False


class StateValue(BaseModel):
    """A value of the shared context, as read or written. `value_version` 0: never written."""

    model_config = ConfigDict(frozen=True)
    value: JsonValue = None
    found: bool = False
    value_version: int = 0


class Recorder(Protocol):
    """Records the calls of one execution. Every method is idempotent by `key`."""

    async def record_step(self, key: str, result: JsonValue, fingerprint: str | None = None) -> None: ...

    async def start_wait(self, key: str, wait: Wait) -> None:
        """The end of the wait comes as an update."""
        ...

    async def start_child(self, key: str, child: Child, fingerprint: str) -> None:
        """The end of the run comes as an update."""
        ...

    async def request_call(self, key: str, tool: str, arguments: dict[str, JsonValue], fingerprint: str | None = None) -> None:
        """Raises `ToolError` if there is no such tool or the arguments break its schema."""
        ...

    async def send_message(self, key: str, to: str, body: JsonValue) -> UUID: ...

    async def record_receipt(self, key: str, message_id: UUID | None) -> None: ...

    async def read_state(self, key: str, name: str) -> StateValue: ...

    async def write_state(self, key: str, name: str, value: JsonValue, expect: int | None) -> StateValue: ...

    async def put_schedule(self, key: str, name: str, definition: dict[str, JsonValue], in_s: float | None) -> JsonValue:
        """Returns what is recorded: `name`, `status` and `next_at` of the schedule."""
        ...

    async def remove_schedule(self, key: str, name: str, reason: str | None) -> JsonValue:
        """Returns what is recorded: `was_there`."""
        ...

    def report_progress(self, progress: Progress) -> None:
        """Takes what the agent says of its progress, in any thread. Nobody waits for it."""
        ...

    def follow(self, take: Callable[[JournalUpdate], None]) -> None:
        """From now on `take` gets the changes as they happen."""
        ...

    async def news(self, after_version: int) -> JournalUpdate:
        """The changes after a version, asked for now."""
        ...


def _fits(recorded: JournalEntry, fingerprint: str | None) -> bool:
    return recorded.fingerprint is None or fingerprint is None or recorded.fingerprint == fingerprint


class Mailbox:
    """Mail that has not been received, oldest first. Finding and taking a message costs the same however many there are."""

    def __init__(self, mails: Iterable[Mail]) -> None:
        self._all: OrderedDict[UUID, Mail] = OrderedDict()
        self._of_sender: dict[str, OrderedDict[UUID, Mail]] = {}
        for mail in mails:
            self.add(mail)

    def add(self, mail: Mail) -> None:
        self._all[mail.message_id] = mail
        self._of_sender.setdefault(mail.sender, OrderedDict())[mail.message_id] = mail

    def put_back(self, mail: Mail) -> None:
        """The message is the oldest one again."""
        self.add(mail)
        for found in (self._all, self._of_sender[mail.sender]):
            found.move_to_end(mail.message_id, last=False)

    def has(self, sender: str | None) -> bool:
        """Whether there is a message of a sender. None: of any."""
        return bool(self._all if sender is None else self._of_sender.get(sender))

    def take(self, sender: str | None) -> Mail | None:
        """Takes the oldest message of a sender out. None: of any."""
        if not self.has(sender):
            return None
        mail = next(iter((self._all if sender is None else self._of_sender[sender]).values()))
        del self._all[mail.message_id]
        mails = self._of_sender[mail.sender]
        del mails[mail.message_id]
        if not mails:
            del self._of_sender[mail.sender]
        return mail


class Journal:
    """The local copy of one execution's journal: hands out keys, remembers which recorded keys were used."""

    def __init__(
        self, version: int, entries: Sequence[JournalEntry], mailbox: Sequence[Mail], receives: Mapping[str, float] | None = None
    ) -> None:
        """`receives`: key → the seconds left of a `receive` that was open when the agent was unloaded."""
        self._receives = {key: time.monotonic() + left_s for key, left_s in (receives or {}).items()}
        self.version = version
        self.mailbox = Mailbox(mailbox)
        self._entries = {entry.key: entry for entry in entries}
        self._found_at_start = tuple(self._entries)
        self._used: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._seen_mail = {mail.message_id for mail in mailbox}

    @property
    def recorded(self) -> int:
        """Number of the entries that earlier attempts recorded."""
        return len(self._found_at_start)

    def left_s(self, key: str) -> float | None:
        """The seconds left of a `receive` that was open when the agent was unloaded. None: it was not."""
        ends_at = self._receives.get(key)
        return None if ends_at is None else max(0.0, ends_at - time.monotonic())

    def take_key(self, key: str | None, name: str, fingerprint: str | None = None) -> str:
        """The key of the next call: the given key, else `<name>#<count>`, or that of a recorded call with the same fingerprint,
        where calls of this name come in another order than before.

        Raises:
            DuplicateKeyError: the key belongs to another call of this execution.
            ChangedCallError: another call was recorded under the key.
            PermanentError: the key is no text of a fitting length.
        """
        if key is None:
            key = self._counted(name, fingerprint)
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
            raise PermanentError(f"a key is a text of 1 to {MAX_KEY_LENGTH} characters, not {key!r:.80}")
        if "\0" in key or any("\ud800" <= character <= "\udfff" for character in key):
            raise PermanentError(f"a key must not have a NUL character or half a surrogate pair: {key!r:.80}")
        if key in self._used:
            raise DuplicateKeyError(key)
        recorded = self._entries.get(key)
        if recorded is not None and not _fits(recorded, fingerprint):
            raise ChangedCallError(key, recorded.kind, str(recorded.fingerprint), str(fingerprint))
        self._used.add(key)
        return key

    def _counted(self, name: str, fingerprint: str | None) -> str:
        number = self._counts[name] + 1
        while (key := f"{name}#{number}") in self._used:  # by a call that came before its turn
            number += 1
        self._counts[name] = number - 1
        recorded = self._entries.get(key)
        if recorded is not None and not _fits(recorded, fingerprint):
            while (other := f"{name}#{number}") in self._entries:
                if other not in self._used and self._entries[other].fingerprint == fingerprint:
                    return other
                number += 1
        return key

    def find(self, key: str) -> JournalEntry | None:
        return self._entries.get(key)

    def unused_keys(self) -> tuple[str, ...]:
        """Keys that an earlier attempt recorded and that this execution did not use: the code was changed in between."""
        return tuple(key for key in self._found_at_start if key not in self._used)

    def apply(self, update: JournalUpdate) -> None:
        """Apply an update. Updates may overlap: a change that was applied before is not applied again."""
        self.version = max(self.version, update.version)
        for entry in update.journal:
            known = self._entries.get(entry.key)
            if known is None or known.status == "pending":
                self._entries[entry.key] = entry
        for mail in update.mailbox:
            if mail.message_id not in self._seen_mail:
                self._seen_mail.add(mail.message_id)
                self.mailbox.add(mail)
