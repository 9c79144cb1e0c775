"""Reactions: the answers of a saga to an event, and the requests of the commands among them."""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from application.engine.commands.request import CommandRequest
from application.engine.commands.routes import Route
from application.engine.ports.queue import WorkItem
from domain.kernel import Command, Event, Metadata, RecordedEvent, derive_id

Reaction = Command | WorkItem
"""A command to another stream, or work to put on the queue."""


class ReactionCause(NamedTuple):
    """The event that a saga reacts to, as it is known before it is recorded: without a position, without a time."""

    tenant_id: UUID
    stream_id: UUID
    version: int
    root_id: UUID
    topic: str
    correlation_id: UUID
    traceparent: str | None = None
    on_behalf_of: str | None = None
    """For whom the event came about. What follows from it is for the same."""

    @property
    def name(self) -> str:
        """`<stream id>:<version>`, as `RecordedEvent.name`."""
        return f"{self.stream_id}:{self.version}"


Handler = Callable[[Any, ReactionCause], list[Reaction]]
Reactions = dict[type[Event], Handler]


class NotRecordedYet(Exception):
    """A reaction needs what only a recorded event has. The saga manager asks again."""


def cause_of(recorded: RecordedEvent) -> ReactionCause:
    metadata = Metadata.model_validate_json(recorded.metadata)
    return ReactionCause(
        recorded.tenant_id, recorded.stream_id, recorded.version, recorded.root_id, recorded.topic,
        metadata.correlation_id, metadata.traceparent, metadata.on_behalf_of,
    )  # fmt: skip


def name_of(saga: str, cause: ReactionCause, index: int) -> str:
    """The name of one reaction of a saga to an event. The name is the same at every delivery, in every release."""
    return f"{saga}:{cause.version}:{index}"


def request_for(cause: ReactionCause, name: str, route: Route | None = None, command: Any = None) -> CommandRequest:
    """The request of a reaction: it keeps the correlation and for whom the event came about, its cause is the event, and its id
    follows from event and name. `route`: of the command."""
    request = CommandRequest(
        tenant_id=cause.tenant_id,
        actor=f"saga:{name.partition(':')[0]}",
        command_id=derive_id(cause.stream_id, name),
        correlation_id=cause.correlation_id,
        causation_id=cause.name,
        traceparent=cause.traceparent,
        checked=True,
        on_behalf_of=cause.on_behalf_of,
    )
    if route is None or not route.own_cause:
        return request
    return request._replace(correlation_id=route.stream(command), traceparent=None, goes_on=True)
