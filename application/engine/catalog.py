"""The tables of a product, which the engine takes as arguments: routes, events and sagas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from application.engine.commands.routes import Route
from application.engine.sagas.reactions import Handler, Reactions
from domain.event_registry import EventRegistry
from domain.kernel import NO_FUNCTIONS, Command, Decider, Event, Functions, RecordedEvent

SAGA_NUMBERS = range(1, 63)
"""Numbers that a saga can have: the bits of a `bigint` without bit 0 and the sign."""


class SagaHandler(NamedTuple):
    """The reaction of one saga to one kind of event."""

    saga: str
    bit: int
    """The saga's bit in the mask of an event (`RecordedEvent.settled`). 0: the saga has no number, and is never settled."""
    handler: Handler


@dataclass(frozen=True)
class Catalog:
    """The tables of one product. A second product, a plug-in or a test makes a catalog of its own."""

    routes: Mapping[type[Command], Route]
    registry: EventRegistry
    sagas: Mapping[str, Reactions]
    """Sagas by name, in the order in which they react to an event."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """The number of a saga, for ever. Reactions of a saga without a number are left to the saga manager."""
    functions: Functions = NO_FUNCTIONS
    """What the rules of slices may use that need functions. Others are never given them."""

    def __post_init__(self) -> None:
        numbers = list(self.numbers.values())
        if len(set(numbers)) < len(numbers) or not set(numbers) <= set(SAGA_NUMBERS):
            raise ValueError(f"each saga has a number of its own, {SAGA_NUMBERS[0]} to {SAGA_NUMBERS[-1]}: {dict(self.numbers)}")

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

    @cached_property
    def handlers(self) -> dict[type[Event], tuple[SagaHandler, ...]]:
        """Kind of event → its reactions, in the order of the sagas."""
        found: dict[type[Event], tuple[SagaHandler, ...]] = {}
        for saga, reactions in self.sagas.items():
            number = self.numbers.get(saga)
            for kind, handler in reactions.items():
                reaction = SagaHandler(saga, 0 if number is None else 1 << number, handler)
                found[kind] = (*found.get(kind, ()), reaction)
        return found

    @cached_property
    def bits(self) -> dict[str, tuple[int, ...]]:
        """Topic → the bits of the sagas that react to it, 0 for a saga without a number."""
        return {kind.TOPIC: tuple(handler.bit for handler in handlers) for kind, handlers in self.handlers.items()}

    def is_settled(self, event: RecordedEvent) -> bool:
        """Whether no saga has still to react to an event."""
        return all(event.settled & bit for bit in self.bits.get(event.topic, ()))
