"""The input of the command loop beside the commands, and its output."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from domain.kernel import Command, Event, RecordedEvent


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
    on_behalf_of: str | None = None
    """For whom the actor asks. None: for nobody, or see `goes_on`."""
    goes_on: bool = False
    """The command goes on with work, and asks for whom the work is (`Route.on_behalf_of`). True for reports of workers, timers and
    lapses."""
    along: Command | None = None
    """Goes into the same append as the events of the commands, behind them, and only if they have events: an audit entry. It begins
    a stream of its own, and is no part of the outcome."""

    def metadata(self, on_behalf_of: str | None = None) -> str:
        """`Metadata` as JSON text: each append needs it, so no model. A command for nobody has no field for it."""
        said: dict[str, Any] = {
            "actor": self.actor,
            "correlation_id": self.correlation_id,
            "causation_id": self.causation_id,
            "command_id": self.command_id,
            "traceparent": self.traceparent,
        }
        if on_behalf_of is not None:
            said["on_behalf_of"] = on_behalf_of
        return to_json(said).decode()


def request_of_entrance(
    tenant_id: UUID,
    actor: str,
    traceparent: str | None,
    command_id: UUID,
    correlation_id: UUID | None,
    repeatable: bool,
    content: UUID | None = None,
    on_behalf_of: str | None = None,
    goes_on: bool = False,
) -> CommandRequest:
    """The request of a command whose values an entrance has checked. The first command of a request is its own correlation."""
    correlation_id = correlation_id or command_id
    return CommandRequest(
        tenant_id, actor, command_id, correlation_id, str(command_id), traceparent, repeatable, True, content, on_behalf_of, goes_on
    )


class Caller(NamedTuple):
    """A caller of commands through an entrance that checks the values."""

    tenant_id: UUID
    actor: str
    """The actor in the metadata of events."""
    traceparent: str | None = None
    on_behalf_of: str | None = None
    """For whom the actor asks, as the caller says."""

    def named(self, command_id: UUID, correlation_id: UUID) -> CommandRequest:
        """The request of a command whose id follows from a name that the caller gave, so a repeat comes under the same id."""
        return request_of_entrance(
            self.tenant_id, self.actor, self.traceparent, command_id, correlation_id, True, on_behalf_of=self.on_behalf_of
        )

    def reporting(self, command_id: UUID, correlation_id: UUID) -> CommandRequest:
        """As `named`, of a worker about work that it has: for whom the work is counts, and not what the worker says."""
        return request_of_entrance(self.tenant_id, self.actor, self.traceparent, command_id, correlation_id, True, goes_on=True)


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
