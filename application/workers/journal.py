"""The journal of an agent run: a worker records finished steps, and reads new entries of the journal and the mailbox."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import orjson
import pydantic_core

from application.engine.commands.loop import CommandLoop
from application.engine.commands.request import Caller, CommandOutcome, CommandRequest
from application.invocations import known_outcome, load_invocation
from application.workers.agent_runs import load_agent_run, request_for_agent_run
from domain import agent_runs, invocations, messages
from domain.agent_runs import AgentRun, RecordStep
from domain.errors import NotFound
from domain.failures import Failure
from domain.kernel import Decider, Json, timestamp


@dataclass(frozen=True, slots=True)
class EntryView:
    """One key of the journal for a worker. The outcome of a call is filled in from the call's invocation."""

    key: str
    kind: str
    status: str
    result: Json
    error: Failure | None
    invocation_id: UUID | None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class MailItem:
    message_id: UUID
    sender: str
    body: Json
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class JournalView:
    status: str
    attempt: int
    version: int
    entries: list[EntryView]
    mailbox: list[MailItem]
    """Unreceived mail, oldest first."""
    more: bool = False
    """Whether this is a page, and more follows after `version`."""


PAGE_BYTES = 128 * 1024
LOADED_AT_ONCE = 50
"""Entries whose outcomes are loaded side by side."""
SETTLED_FROM_OUTSIDE = agent_runs.WAITS | {"call"}
"""Kinds of entries that are settled while the worker waits."""
MAX_LOADS = 500
"""Outcomes and messages that are loaded for one page."""
_ROOM = 200
"""Bytes of an entry or a mail beside its values."""
_Change = tuple[int, str | UUID, agent_runs.Entry | agent_runs.Mail]
"""The version, the key or the message id, and what is there."""
_Content = tuple[UUID, Decider[Any]]


class Journals:
    def __init__(self, commands: CommandLoop) -> None:
        self._commands = commands

    async def record(self, caller: Caller, agent_run_id: UUID, steps: Sequence[RecordStep]) -> list[CommandOutcome]:
        """Records finished steps, at least one. Each step is one append: the steps before a refused step stay recorded.

        Raises NotFound, WorkOver, StaleAttempt, RepeatedDifferently.
        """
        outcomes = []
        for step in steps:
            outcomes.append(await self._commands.execute(await self._request_of(caller, agent_run_id, step), step))
        return outcomes

    async def record_each(
        self, caller: Caller, agent_run_id: UUID, steps: Sequence[RecordStep]
    ) -> list[CommandOutcome | Exception]:
        """Records finished steps, in their order, in one append as far as they fit. A step is refused alone.

        Returns for each step its outcome, or what `record` would raise for it. Raises NotFound, Unavailable: no step was recorded.
        """
        return await self._commands.execute_each([(await self._request_of(caller, agent_run_id, step), step) for step in steps])

    async def _request_of(self, caller: Caller, agent_run_id: UUID, step: RecordStep) -> CommandRequest:
        return await request_for_agent_run(self._commands, caller, agent_run_id, f"step:{step.attempt}:{step.key}")

    async def page(
        self,
        tenant_id: UUID,
        agent_run_id: UUID,
        *,
        after_version: int,
        news: bool = False,
        max_bytes: int = PAGE_BYTES,
        max_loads: int = MAX_LOADS,
        fresh: bool = True,
    ) -> JournalView:
        """The oldest entries and mails after a version, in the order of the stream, up to about `max_bytes` of JSON, at least one.

        `max_loads`: about how many of them may be such that their content is read from streams of their own. `news`: without the
        entries that the worker has made itself. `fresh`: with all events that other processes have recorded. Raises NotFound.
        """
        state = await load_agent_run(self._commands, tenant_id, agent_run_id, fresh=fresh)
        changes = _changes(state, after_version, news)
        entries: list[EntryView] = []
        mails: list[MailItem] = []
        size, loads, version = 0, 0, after_version
        some = list(islice(changes, LOADED_AT_ONCE))
        while some and size < max_bytes and loads < max_loads:
            contents = [found for change in some if (found := _content_of(change)) is not None]
            loads += len(contents)
            await self._learn(tenant_id, contents)
            for change in some:
                if size >= max_bytes:
                    break
                view = await self._shown(tenant_id, state, change)
                if isinstance(view, EntryView):
                    entries.append(view)
                else:
                    mails.append(view)
                size += _size_of(view)
                version = change[0]
            else:
                some = list(islice(changes, LOADED_AT_ONCE))
        return JournalView(state.status, state.attempt, version if some else state.version, entries, mails, bool(some))

    async def _learn(self, tenant_id: UUID, contents: Iterable[_Content]) -> None:
        """Reads together what this process does not know. What cannot be read is left to who shows it."""
        wanted = {}
        for stream_id, decider in contents:
            if decider is invocations.DECIDER:
                known = known_outcome(self._commands, tenant_id, stream_id) is not None
            else:
                known = self._commands.known(decider, tenant_id, stream_id) is not None
            if not known:
                wanted[stream_id] = decider
        await self._commands.meet(tenant_id, wanted, fresh=True)

    async def _shown(self, tenant_id: UUID, state: AgentRun, change: _Change) -> EntryView | MailItem:
        _, key, part = change
        if isinstance(part, agent_runs.Mail):
            assert isinstance(key, UUID)
            return await self._mail(tenant_id, key, part)
        assert isinstance(key, str)
        return await self._entry(tenant_id, state, key, part)

    async def _entry(self, tenant_id: UUID, state: AgentRun, key: str, entry: agent_runs.Entry) -> EntryView:
        result, error = entry.result, entry.error
        if entry.held_by is not None:
            result = await self._held(tenant_id, entry.held_by, key)
        elif entry.kind == "call" and entry.status != "pending" and entry.invocation_id is not None:
            invocation = await load_invocation(self._commands, tenant_id, entry.invocation_id)
            result, error = invocation.result, invocation.error
        elif entry.kind == "receive" and entry.result is not None:
            message_id = UUID(entry.result)
            message = await self._message(tenant_id, message_id)
            mail = state.mailbox[message_id]
            sent_at = timestamp(mail.sent_at)
            result = {"message_id": str(message_id), "sender": mail.sender, "body": message.body, "sent_at": sent_at}
        return EntryView(key, entry.kind, entry.status, result, error, entry.invocation_id, entry.fingerprint)

    async def _held(self, tenant_id: UUID, agent_run_id: UUID, key: str) -> Json:
        """A result that stands in the journal of another agent run. Raises NotFound."""
        for fresh in (False, True):
            state: AgentRun = (await self._commands.load(agent_runs.DECIDER, tenant_id, agent_run_id, fresh=fresh)).state
            if (found := state.journal.get(key)) is not None:
                return found.result
        raise NotFound(f"agent run {agent_run_id} has nothing under the key '{key}'")

    async def _mail(self, tenant_id: UUID, message_id: UUID, mail: agent_runs.Mail) -> MailItem:
        message = await self._message(tenant_id, message_id)
        return MailItem(message_id, mail.sender, message.body, mail.sent_at)

    async def _message(self, tenant_id: UUID, message_id: UUID) -> messages.MessageSent:
        loaded = await self._commands.load(messages.DECIDER, tenant_id, message_id, fresh=False)
        sent: messages.MessageSent | None = loaded.state.sent
        if sent is None:
            raise NotFound(f"there is no message {message_id}")
        return sent


def empty_view(state: AgentRun) -> JournalView | None:
    """The whole journal and mailbox of an agent run that has nothing in them. None: it has something."""
    if next(_changes(state, 0, False), None) is not None:
        return None
    return JournalView(state.status, state.attempt, state.version, [], [])


def _changes(state: AgentRun, after_version: int, news: bool) -> "Iterator[_Change]":
    """Entries and unreceived mail that a later version than `after_version` brought, in the order of the stream.

    Looks at the versions after that one, and at nothing before: a page costs the same wherever it stands. `news`: without the
    entries that the worker has made itself.
    """
    changed, unreceived, journal, mailbox = state.changed.get, state.unreceived.get, state.journal, state.mailbox
    for version in range(after_version + 1, state.version + 1):
        if (key := changed(version)) is not None:
            entry = journal[key]
            if not news or (entry.kind in SETTLED_FROM_OUTSIDE and entry.status != "pending"):
                yield version, key, entry
        elif (message_id := unreceived(version)) is not None:
            yield version, message_id, mailbox[message_id]


def _content_of(change: _Change) -> _Content | None:
    """The stream that holds the content of an entry or a mail, and its rules. None: the journal holds it."""
    _, key, part = change
    if isinstance(part, agent_runs.Mail):
        assert isinstance(key, UUID)
        return key, messages.DECIDER
    if part.held_by is not None:
        return part.held_by, agent_runs.DECIDER
    if part.kind == "receive" and part.result is not None:
        return UUID(part.result), messages.DECIDER
    if part.kind == "call" and part.status != "pending" and part.invocation_id is not None:
        return part.invocation_id, invocations.DECIDER
    return None


def _size_of(view: EntryView | MailItem) -> int:
    """Bytes of JSON, about."""
    if isinstance(view, MailItem):
        return _ROOM + _length_of(view.body)
    error = 0 if view.error is None else len(view.error.model_dump_json())
    return _ROOM + len(view.key) + _length_of(view.result) + error


def _length_of(value: Json) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # an integer of more than 64 bits
        return len(pydantic_core.to_json(value))
