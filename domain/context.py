"""The shared context of a run: named values that its agents read and set, each with a version of its own."""

from dataclasses import dataclass, field
from typing import Annotated
from uuid import UUID

from immutables import Map
from pydantic import StringConstraints

from domain.errors import InvalidState
from domain.kernel import Command, Decider, Event, Json, derive_id
from domain.maps import PersistentMap

ValueName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]


class ContextValueSet(Event):
    TOPIC = "context.value_set"
    run_id: UUID
    agent_run_id: UUID
    name: str
    value: Json = None
    value_version: int


class ContextValueTakenOver(Event):
    """A value as it was in the run that this one was forked from."""

    TOPIC = "context.value_taken_over"
    run_id: UUID
    name: str
    value: Json = None
    value_version: int


@dataclass(frozen=True, slots=True)
class ContextEntry:
    value: Json
    version: int


@dataclass(frozen=True, slots=True)
class Context:
    entries: PersistentMap[str, ContextEntry] = field(default_factory=Map)

    def version_of(self, name: str) -> int:
        entry = self.entries.get(name)
        return entry.version if entry else 0


class SetContextValue(Command):
    context_id: UUID
    run_id: UUID
    agent_run_id: UUID
    name: ValueName
    value: Json = None
    expect: int | None = None
    """The version the value must have (0: it must not be set); None: the last write wins."""


class TakeOverValues(Command):
    """Begins the shared context of a run that was forked."""

    context_id: UUID
    run_id: UUID
    values: tuple[ContextValueTakenOver, ...]


def context_id_of(run_id: UUID) -> UUID:
    return derive_id(run_id, "context")


def decide(context: Context, command: SetContextValue | TakeOverValues) -> list[Event]:
    if isinstance(command, TakeOverValues):
        return [] if context.entries else list(command.values)
    current = context.version_of(command.name)
    if command.expect is not None and command.expect != current:
        raise InvalidState(f"value '{command.name}' is at version {current}, not {command.expect}", pointer="/expect")
    return [
        ContextValueSet(
            run_id=command.run_id,
            agent_run_id=command.agent_run_id,
            name=command.name,
            value=command.value,
            value_version=current + 1,
        )
    ]


def evolve(context: Context, event: ContextValueSet | ContextValueTakenOver) -> Context:
    return Context(context.entries.set(event.name, ContextEntry(event.value, event.value_version)))


DECIDER: Decider[Context] = Decider("context", Context, decide, evolve)
