"""One command of an execution, between loading its stream and the append."""

from typing import Any
from uuid import UUID

from application.engine.commands.cache import Loaded
from application.engine.commands.routes import Route
from domain.errors import AlreadyExists, DomainError, RepeatedDifferently, VersionConflict
from domain.event_registry import EventRegistry
from domain.kernel import Command, Event, RecordedEvent, same_json


class Part:
    """One command of an execution: its stream, the loaded state, the decided events."""

    __slots__ = ("command", "events", "loaded", "route", "size", "state", "stream_id", "unsure")

    def __init__(self, command: Command, route: Route) -> None:
        self.command = command
        self.route = route
        self.stream_id: UUID = self.route.stream(command)
        self.loaded: Loaded
        self.unsure = True
        """The log may hold newer events than this process knows."""
        self.events: list[Event] = []
        self.state: Any = None
        """The state after the events."""
        self.size = 0

    def decide(self) -> None:
        """Raises DomainError."""
        self.state = self.loaded.state
        self.events = self.route.decider.decide(self.state, self.command)
        if self.events and self.loaded.slice and self.loaded.slice != self.route.decider.slice:
            raise AlreadyExists(f"the id {self.stream_id} is taken by something else, of {self.loaded.slice}")
        for event in self.events:
            self.state = self.route.decider.evolve(self.state, event)

    def after(self, position: int) -> Loaded:
        loaded = self.loaded
        version, size = loaded.version + len(self.events), loaded.size + self.size
        return Loaded(self.state, version, position, size, self.route.decider.slice)

    def unexpected(self, expected: int) -> DomainError | VersionConflict:
        """The reason to refuse a command whose stream is not at the caller's version.

        If the thing does not exist, that says more.
        """
        if not self.loaded.version:
            try:
                self.decide()
            except DomainError as error:
                return error
        return VersionConflict(self.stream_id, expected, self.loaded.version)

    def check_repeat(self, registry: EventRegistry, first: RecordedEvent) -> None:
        """Raises RepeatedDifferently if the command says something else than when it was recorded."""
        names = set(self.route.said)
        known = registry.decoded(first).model_dump(mode="json", include=names)
        said = self.command.model_dump(mode="json", include=known.keys() & names)
        different = [name for name in self.route.said if name in known and not same_json(said[name], known[name])]
        if different:
            raise RepeatedDifferently(f"this was recorded before, with another {' and another '.join(different)}")
