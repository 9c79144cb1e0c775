"""The input of the command loop beside the commands, and its output."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.kernel import Event, Metadata, RecordedEvent


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """Who gives the commands, and why. Becomes the metadata of every event."""

    tenant_id: UUID
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: str
    traceparent: str | None = None
    repeatable: bool = False
    """The command id follows from a name or key that the caller gave, so a repeat comes under the same id. A repeat must have the
    same content (`Route.said`), else it is refused. False for sagas and timers: another release of them may give other content."""
    checked: bool = False
    """The depth of the command's values needs no check: an entrance has checked it, or the values come from the log."""

    def metadata(self) -> str:
        return Metadata(
            actor=self.actor,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            command_id=self.command_id,
            traceparent=self.traceparent,
        ).model_dump_json()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives commands through an entrance that has looked at their values."""

    tenant_id: UUID
    actor: str
    """Who did it, in the metadata of events."""
    traceparent: str | None = None

    def request(self, command_id: UUID, *, correlation_id: UUID | None = None, repeatable: bool) -> CommandRequest:
        """`repeatable`: the command id follows from a name or key that the caller gave."""
        return CommandRequest(
            tenant_id=self.tenant_id,
            actor=self.actor,
            command_id=command_id,
            correlation_id=correlation_id or command_id,
            causation_id=str(command_id),
            traceparent=self.traceparent,
            repeatable=repeatable,
            checked=True,
        )


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """The result of a command: the position to wait for, each stream's version, and whether it was recorded before."""

    position: int
    versions: dict[UUID, int]
    events: tuple[Event, ...]
    recorded_at: datetime | None
    duplicate: bool = False
    recorded: tuple[RecordedEvent, ...] = ()
    """For a duplicate: the events that the command led to when it was recorded."""
