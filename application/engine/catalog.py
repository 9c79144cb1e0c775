"""The tables of a product, which the engine takes as arguments: routes, events and sagas."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from application.engine.commands.routes import Route
from application.engine.sagas.reactions import Reactions
from domain.event_registry import EventRegistry
from domain.kernel import Command, Decider


@dataclass(frozen=True)
class Catalog:
    """The tables of one product. A second product, a plug-in or a test makes a catalog of its own."""

    routes: Mapping[type[Command], Route]
    registry: EventRegistry
    sagas: Mapping[str, Reactions]

    @cached_property
    def deciders(self) -> dict[str, Decider[Any]]:
        """Slice → its rules."""
        return {route.decider.slice: route.decider for route in self.routes.values()}

    @cached_property
    def rules(self) -> dict[str, Decider[Any]]:
        """Topic → the rules of its slice. A stream is of one slice for ever: that of its first event."""
        deciders = self.deciders
        return {topic: deciders[name] for topic, name in self.registry.slice_of.items() if name in deciders}

    @cached_property
    def commands(self) -> dict[str, type[Command]]:
        """Name of a command's class → the class; timers name their commands by it."""
        return {command.__name__: command for command in self.routes}
