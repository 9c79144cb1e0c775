"""What goes into the command loop, and what comes out of it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.kernel import Event, Metadata, RecordedEvent


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """Who gives the commands, and why: becomes the metadata of every event."""

    tenant_id: UUID
    actor: str
    command_id: UUID
    correlation_id: UUID
    causation_id: str
    traceparent: str | None = None
    repeatable: bool = False
    """The command id follows from a name or key that the caller gave, so a repeat comes under the same id. The repeat must say the
    same (`Route.said`), else it is refused. False for sagas and timers: of another release they may say the same otherwise."""
    checked: bool = False
    """The command's values came through a door that looked at their depth, or from the log, where they are as deep as they are."""

    def metadata(self) -> str:
        return Metadata(
            actor=self.actor,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            command_id=self.command_id,
            traceparent=self.traceparent,
        ).model_dump_json()


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What a command came to: the position to wait for, each stream's version, and whether it had been recorded before."""

    position: int
    versions: dict[UUID, int]
    events: tuple[Event, ...]
    recorded_at: datetime | None
    duplicate: bool = False
    recorded: tuple[RecordedEvent, ...] = ()
    """Of a duplicate: the events that the command came to at its first time."""
