"""The input of the command loop beside the commands, and its output."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pydantic_core import to_json

from domain.kernel import Event, RecordedEvent


class CommandRequest(NamedTuple):
    """The caller of the commands and the cause. Becomes the metadata of every event. A run needs a dozen."""

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
    content: UUID | None = None
    """A hash of what the caller said, by which a repeat with another content is noticed and refused. None: not compared."""

    def metadata(self) -> str:
        """`Metadata` as JSON text, without the fields that the release before does not read: each append needs it, so no model."""
        return to_json(
            {
                "actor": self.actor,
                "correlation_id": self.correlation_id,
                "causation_id": self.causation_id,
                "command_id": self.command_id,
                "traceparent": self.traceparent,
            }
        ).decode()


def request_of_entrance(
    tenant_id: UUID,
    actor: str,
    traceparent: str | None,
    command_id: UUID,
    correlation_id: UUID | None,
    repeatable: bool,
    content: UUID | None = None,
) -> CommandRequest:
    """The request of a command whose values an entrance has checked. The first command of a request is its own correlation."""
    correlation_id = correlation_id or command_id
    return CommandRequest(
        tenant_id, actor, command_id, correlation_id, str(command_id), traceparent, repeatable, checked=True, content=content
    )


class Caller(NamedTuple):
    """A caller of commands through an entrance that checks the values."""

    tenant_id: UUID
    actor: str
    """The actor in the metadata of events."""
    traceparent: str | None = None

    def named(self, command_id: UUID, correlation_id: UUID) -> CommandRequest:
        """The request of a command whose id follows from a name that the caller gave, so a repeat comes under the same id."""
        return request_of_entrance(self.tenant_id, self.actor, self.traceparent, command_id, correlation_id, repeatable=True)


class CommandOutcome(NamedTuple):
    """The result of a command: the position to wait for, each stream's version, and whether it was recorded before."""

    position: int
    versions: dict[UUID, int]
    events: tuple[Event, ...]
    recorded_at: datetime | None
    duplicate: bool = False
    recorded: tuple[RecordedEvent, ...] = ()
    """For a duplicate: the events of the first recording."""

    def without_events(self) -> "CommandOutcome":
        """For whoever keeps the outcome for long, and has seen its events."""
        return self._replace(events=(), recorded=())

    def begun(self, stream_id: UUID) -> tuple[UUID, int]:
        """The id and the version of the stream that the command began.

        `stream_id`: the id that was made for this request. A repeat finds the id that was made for the first request.
        """
        if not self.duplicate:
            return stream_id, self.versions[stream_id]
        first = self.recorded[0].stream_id
        return first, max(event.version for event in self.recorded if event.stream_id == first)
