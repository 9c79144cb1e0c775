"""One command of an execution: its stream, and what was decided."""

from uuid import UUID

from application.engine.commands.routes import Route
from domain.errors import RepeatedDifferently
from domain.event_registry import EventRegistry
from domain.kernel import Command, Event, RecordedEvent, same_json


class Part:
    """One command of an execution: its stream, the decided events, and where the stream is after them."""

    __slots__ = ("command", "events", "position", "route", "stream_id", "version")

    def __init__(self, command: Command, route: Route) -> None:
        self.command = command
        self.route = route
        self.stream_id: UUID = route.stream(command)
        self.events: list[Event] = []
        self.version = 0
        """The version of the stream after the events; 0 for a stream of another slice."""
        self.position = 0
        """The position of the stream's last event before the append."""

    def check_repeat(self, registry: EventRegistry, first: RecordedEvent) -> None:
        """Raises RepeatedDifferently if the command says something else than when it was recorded."""
        names = set(self.route.said)
        known = registry.decoded(first).model_dump(mode="json", include=names)
        said = self.command.model_dump(mode="json", include=known.keys() & names)
        different = [name for name in self.route.said if name in known and not same_json(said[name], known[name])]
        if different:
            raise RepeatedDifferently(f"this was recorded before, with another {' and another '.join(different)}")
