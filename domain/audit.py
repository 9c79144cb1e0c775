"""The audit trail: what operators did, and which requests were refused. Each entry is a stream of one event."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, assert_never
from uuid import UUID

from pydantic import Field, StringConstraints

from domain.kernel import Command, Decider, Event, ShortText

UNKNOWN = "unknown"
"""The actor of requests without a valid key."""

Result = Literal["done", "begun", "refused", "failed"]
"""`begun`: recorded before an action that is no command, so that no such action goes unseen; `failed`: what became of it."""
Address = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class ActionRecorded(Event):
    TOPIC = "audit.action_recorded"
    action: str
    operation: str | None = None
    """Which one, for an action that covers several."""
    actor: str
    on_behalf_of: str | None = None
    target_kind: str
    target_id: str | None = None
    reason: str | None = None
    address: str | None = None
    result: str
    code: str | None = None
    """The code of the error, for what was refused or failed."""


class RefusalsCounted(Event):
    TOPIC = "audit.refusals_counted"
    actor: str
    address: str | None = None
    action: str | None = None
    count: int
    since: datetime
    until: datetime
    others: bool = False
    """The sum of the groups for which there was no room: of any address and any action."""


AuditEvent = ActionRecorded | RefusalsCounted


@dataclass(frozen=True, slots=True)
class AuditEntry:
    recorded: bool = False


class RecordAction(Command):
    entry_id: UUID
    tenant_id: UUID
    action: Word
    operation: Word | None = None
    actor: ShortText
    on_behalf_of: ShortText | None = None
    target_kind: Word
    target_id: ShortText | None = None
    reason: ShortText | None = None
    address: Address | None = None
    result: Result
    code: Word | None = None


class RecordRefusals(Command):
    entry_id: UUID
    tenant_id: UUID
    actor: ShortText
    address: Address | None = None
    action: Word | None = None
    count: Annotated[int, Field(ge=1)]
    since: datetime
    until: datetime
    others: bool = False


AuditCommand = RecordAction | RecordRefusals


def decide(entry: AuditEntry, command: AuditCommand) -> list[Event]:
    if entry.recorded:
        return []
    match command:
        case RecordAction():
            return [ActionRecorded(**command.model_dump(exclude={"entry_id", "tenant_id"}))]
        case RecordRefusals():
            return [RefusalsCounted(**command.model_dump(exclude={"entry_id", "tenant_id"}))]
        case _:
            assert_never(command)


def evolve(entry: AuditEntry, event: AuditEvent) -> AuditEntry:
    return AuditEntry(recorded=True)


DECIDER: Decider[AuditEntry] = Decider("audit", AuditEntry, decide, evolve)
